"""All that a run's stages wrote, read once for the report and the cards."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.files import digest, digest_of, read_json
from cxr.plotting import RESEARCH_USE, footer_text

CALIBRATION = "calibration, prediction sets, referral"


@dataclass(frozen=True)
class Results:
    """The JSON files of a run by what they hold; None and empty where a stage has not run.

    Attributes:
        folder: of the run.
        table: the prepared set's table, a row per image.
        members: each member's ``member.json``.
        commands: what makes each part.
        leak: ``leak.json`` of the leak experiment, and ``folder``.
        published: ``published.json``, the comparison with published statistics.
        elsewhere: ``metrics.json`` of each other data set that the run was measured on.
        folds: ``cv.json`` of each cross-validation.
        missing: part to why it is not there and what makes it.
    """

    folder: Path
    run: dict[str, Any]
    prepared: dict[str, Any]
    table: pd.DataFrame
    ensemble: dict[str, Any]
    members: dict[str, dict[str, Any]]
    commands: Mapping[str, str]
    metrics: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    audit: dict[str, Any] | None = None
    explain: dict[str, Any] | None = None
    leak: dict[str, Any] | None = None
    published: dict[str, Any] | None = None
    elsewhere: dict[str, dict[str, Any]] = field(default_factory=dict)
    folds: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run as DATA/RUN."""
        return f"{self.run['data']}/{self.run['run']}"

    @property
    def synthetic(self) -> bool:
        """Whether the images are those of the phantom."""
        return bool(self.run.get("synthetic"))

    @property
    def note(self) -> str:
        """What stands on every page: what the images are, and that it is for research alone."""
        return footer_text(str(self.run.get("note") or RESEARCH_USE))

    @property
    def labels(self) -> list[str]:
        """The classes in order."""
        return list(self.run["labels"])

    def not_measured(self, part: str) -> str:
        """Say that a part was not measured, and which command measures it."""
        return f"not measured: run {self.commands[part]}"


def read_results(
    folder: Path,
    prepared: Mapping[str, Any],
    table: pd.DataFrame,
    commands: Mapping[str, str],
    *,
    audit_key: str | None = None,
    state: str | None = None,
) -> Results:
    """Read what the stages of a run have written so far, but for what speaks of another state.

    Args:
        folder: outputs/<data>/<run>.
        prepared: ``prepared.json`` of its prepared set.
        table: the prepared set's table.
        commands: what makes each part: evaluate, audit, explain, evaluate_on, cv, leak.
        audit_key: digest of all that an audit depends on; an audit of another is left out.
        state: digest of the run's data, weights and ensemble; what names another is left out.

    Raises:
        InputError: a file is damaged.
    """
    run, ensemble = (_read(folder / name) for name in ("run.json", "ensemble.json"))
    members = {n: _read(folder / "members" / n / "member.json") for n in ensemble["members"]}
    results = Results(folder, run, dict(prepared), table, ensemble, members, commands)
    sieve = _Sieve(results, state)
    evaluation = folder / "evaluation"
    metrics = sieve.read("evaluation", "evaluate", evaluation / "metrics.json")
    if metrics:
        thresholds = digest_of(_read(folder / "uncertainty.json"))
        path = evaluation / "calibration.json"
        calibration = sieve.read(CALIBRATION, "evaluate", path, thresholds=thresholds)
    else:
        calibration = sieve.keep(CALIBRATION, "evaluate", {})
    published = _read(evaluation / "published.json")
    same = ("fingerprint", "test_opened")
    if not metrics or any(metrics[key] != published.get(key) for key in same):
        published = {}
    audit = sieve.read("shortcut audit", "audit", folder / "audit" / "audit.json", key=audit_key)
    if audit and not audit["complete"]:
        results.missing["some tests of the audit"] = f"not done yet: {results.commands['audit']}"
    explain = folder / "explain" / "explain.json"
    return replace(
        results,
        metrics=metrics,
        calibration=calibration,
        audit=audit,
        explain=sieve.read("pointing game", "explain", explain) if explain.exists() else None,
        leak=_leak(sieve, folder.parent.parent),
        published=published or None,
        elsewhere={
            path.parent.name: values
            for path in sorted(folder.glob("evaluated_on/*/metrics.json"))
            if (values := sieve.read(f"on {path.parent.name}", "evaluate_on", path))
        },
        folds={
            path.parent.name: values
            for path in sorted(folder.glob("cv-*/cv.json"))
            if (values := sieve.read(path.parent.name, "cv", path))
        },
    )


@dataclass
class _Sieve:
    """Keeps results that speak of the run as it is now, and notes why others are left out."""

    results: Results
    state: str | None

    def read(
        self, part: str, stage: str, path: Path, **expected: str | None
    ) -> dict[str, Any] | None:
        """Return a file's values that are there and without a fault, else None."""
        values = _read(path)
        return self.keep(part, stage, values, self._fault(stage, path, values, **expected))

    def keep(
        self, part: str, stage: str, values: dict[str, Any], fault: str = ""
    ) -> dict[str, Any] | None:
        """Return values that are there and without a fault, else None."""
        if values and not fault:
            return values
        why = f"what is there was {fault}, so it is left out" if values else "not done yet"
        self.results.missing[part] = f"{why}: {self.results.commands[stage]}"
        return None

    def _fault(
        self,
        stage: str,
        path: Path,
        values: dict[str, Any],
        *,
        key: str | None = None,
        thresholds: str | None = None,
    ) -> str:
        """Say what a result speaks of instead of this run; those before 0.2 name no state."""
        elsewhere = "measured_on" in values
        fingerprint = (values["run"] if elsewhere else values).get("fingerprint")
        beside = path.parent / "predictions.csv"
        weights = self.results.ensemble["weights"]
        faults = {
            "of other training images" if elsewhere else "measured on other images": (
                fingerprint not in (None, self.results.run["fingerprint"])
            ),
            "of earlier weights or another ensemble": (
                self.state is not None and values.get("state", self.state) != self.state
            ),
            "of version 0.1": path.parent.name == "evaluation"
            and path.name == "metrics.json"
            and "ensemble_minus" not in values,
            "of an earlier version": stage == "audit" and "version" not in values,
            "of an earlier state": key is not None and values.get("key") != key,
            "of an earlier ensemble": stage == "explain"
            and values.get("weights", weights) != weights,
            "of other predictions": stage.startswith("evaluate")
            and "predictions" in values
            and not (beside.is_file() and digest(beside.read_bytes()) == values["predictions"]),
            "measured with earlier thresholds": thresholds is not None
            and values.get("uncertainty", thresholds) != thresholds,
        }
        return next((fault for fault, there in faults.items() if there), "")


def _leak(sieve: _Sieve, root: Path) -> dict[str, Any] | None:
    """Return the leak experiment; the phantom's has no place beside real images, nor vice versa."""
    for path in sorted(root.glob("*/leak/leak.json")):
        values = _read(path)
        if ("synthetic" in values["note"]) == sieve.results.synthetic:
            if "shown" in values:
                return values | {"folder": str(path.parent)}
            sieve.keep("what a leak is worth", "leak", values, "of version 0.1")
    return None


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON file's content, empty where there is none."""
    values: dict[str, Any] = read_json(path, hint="remove it") if path.exists() else {}
    return values

"""All that a run's stages wrote, read once for the report and the cards."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.errors import command
from cxr.files import digest, digest_of, read_json
from cxr.plotting import RESEARCH_USE, footer_text

STAGES = ("evaluate", "audit", "explain", "evaluate_on", "cv")
"""What makes the parts of a report, beside the leak experiment."""


def default_commands() -> dict[str, str]:
    """Return the command that makes each part, for a run that is not named."""
    return portable({stage: command(stage) for stage in (*STAGES, "experiments.leak")})


def portable(commands: Mapping[str, str]) -> dict[str, str]:
    """Return commands that name no interpreter of this machine, since a report is handed on."""
    return {
        stage.rpartition(".")[2]: re.sub(r"^\S*python\S* ", "python ", words)
        for stage, words in commands.items()
    }


@dataclass(frozen=True)
class Results:
    """What is known of a run; None and empty where a stage has not run.

    Attributes:
        folder: of the run.
        run: ``run.json``.
        prepared: ``prepared.json``.
        table: the prepared set's table, a row per image.
        ensemble: ``ensemble.json``.
        members: each member's ``member.json``.
        metrics: ``evaluation/metrics.json``.
        calibration: ``evaluation/calibration.json``.
        audit: ``audit/audit.json``, where it is of this state of the run.
        explain: ``explain/explain.json``.
        leak: ``leak.json`` of the leak experiment, and ``folder``.
        published: ``published.json``, the comparison with published statistics.
        elsewhere: ``metrics.json`` of each other data set that the run was measured on.
        folds: ``cv.json`` of each cross-validation.
        commands: what makes each part.
        missing: part to why it is not there and what makes it.
    """

    folder: Path
    run: dict[str, Any]
    prepared: dict[str, Any]
    table: pd.DataFrame
    ensemble: dict[str, Any]
    members: dict[str, dict[str, Any]]
    metrics: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    audit: dict[str, Any] | None = None
    explain: dict[str, Any] | None = None
    leak: dict[str, Any] | None = None
    published: dict[str, Any] | None = None
    elsewhere: dict[str, dict[str, Any]] = field(default_factory=dict)
    folds: dict[str, dict[str, Any]] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=default_commands)
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
    *,
    commands: Mapping[str, str] | None = None,
    audit_key: str | None = None,
    state: str | None = None,
) -> Results:
    """Read what the stages of a run have written so far, but for what speaks of another state.

    Args:
        folder: outputs/<data>/<run>.
        prepared: ``prepared.json`` of its prepared set.
        table: the prepared set's table.
        commands: what makes each part, where it is not ``default_commands``.
        audit_key: digest of all that an audit depends on; an audit of another is left out.
        state: digest of the run's data, weights and ensemble; what names another is left out.

    Returns:
        The results; ``missing`` names the parts that are not there, or not of this state.

    Raises:
        InputError: a file is damaged.
    """
    run, ensemble = (_read(folder / name) for name in ("run.json", "ensemble.json"))
    sieve = _Sieve(run, state, default_commands() | portable(commands or {}))
    evaluation = folder / "evaluation"
    metrics = _evaluation(sieve, evaluation)
    calibration = _read(evaluation / "calibration.json") if metrics else {}
    explain = _read(folder / "explain" / "explain.json")
    other = explain.get("weights", ensemble["weights"]) != ensemble["weights"]
    return Results(
        folder,
        run,
        dict(prepared),
        table,
        ensemble,
        {name: _read(folder / "members" / name / "member.json") for name in ensemble["members"]},
        metrics=metrics,
        calibration=sieve.keep(
            "calibration, prediction sets, referral",
            "evaluate",
            calibration,
            _of_other_predictions(calibration, evaluation)
            or _of_other_thresholds(calibration, _read(folder / "uncertainty.json")),
        ),
        audit=_audit(sieve, folder, audit_key),
        explain=sieve.keep("pointing game", "explain", explain, "of an earlier ensemble" * other)
        if explain
        else None,
        leak=_leak(sieve, folder.parent.parent),
        published=_published(metrics, evaluation),
        elsewhere={
            path.parent.name: values
            for path, values in _read_all(folder, "evaluated_on/*/metrics.json").items()
            if sieve.keep(
                f"on {path.parent.name}",
                "evaluate_on",
                values,
                _of_other_predictions(values, path.parent),
            )
        },
        folds={
            path.parent.name: values
            for path, values in _read_all(folder, "cv-*/cv.json").items()
            if sieve.keep(path.parent.name, "cv", values)
        },
        commands=sieve.commands,
        missing=sieve.missing,
    )


@dataclass
class _Sieve:
    """Keeps results that speak of the run as it is now, and notes why others are left out."""

    run: Mapping[str, Any]
    state: str | None
    commands: dict[str, str]
    missing: dict[str, str] = field(default_factory=dict)

    def keep(
        self, part: str, stage: str, values: dict[str, Any], fault: str = ""
    ) -> dict[str, Any] | None:
        """Return values that are there and without a fault, else None."""
        fault = self._of_another_state(values) or fault
        if values and not fault:
            return values
        why = f"what is there was {fault}, so it is left out" if values else "not done yet"
        self.missing[part] = f"{why}: {self.commands[stage]}"
        return None

    def _of_another_state(self, values: Mapping[str, Any]) -> str:
        """Say what a result speaks of instead of this run; those before 0.2 name no state."""
        elsewhere = "measured_on" in values
        fingerprint = (values["run"] if elsewhere else values).get("fingerprint")
        if fingerprint is not None and fingerprint != self.run["fingerprint"]:
            return "of other training images" if elsewhere else "measured on other images"
        if self.state is not None and values.get("state", self.state) != self.state:
            return "of earlier weights or another ensemble"
        return ""


def _evaluation(sieve: _Sieve, folder: Path) -> dict[str, Any] | None:
    metrics = _read(folder / "metrics.json")
    old = "of version 0.1" if "ensemble_minus" not in metrics else ""
    return sieve.keep(
        "evaluation", "evaluate", metrics, old or _of_other_predictions(metrics, folder)
    )


def _audit(sieve: _Sieve, folder: Path, key: str | None) -> dict[str, Any] | None:
    audit = _read(folder / "audit" / "audit.json")
    fault = "of an earlier state" if key is not None and audit.get("key") != key else ""
    fault = "of an earlier version" if "version" not in audit else fault
    kept = sieve.keep("shortcut audit", "audit", audit, fault)
    if kept and not kept["complete"]:
        sieve.missing["some tests of the audit"] = f"not done yet: {sieve.commands['audit']}"
    return kept


def _leak(sieve: _Sieve, root: Path) -> dict[str, Any] | None:
    """Return the leak experiment; the phantom's has no place beside real images, nor vice versa."""
    synthetic = bool(sieve.run.get("synthetic"))
    for path, values in _read_all(root, "*/leak/leak.json").items():
        if ("synthetic" in values["note"]) == synthetic:
            if "shown" in values:
                return values | {"folder": str(path.parent)}
            sieve.keep("what a leak is worth", "leak", {"note": ""}, "of version 0.1")
    return None


def _published(metrics: dict[str, Any] | None, folder: Path) -> dict[str, Any] | None:
    """Return the comparison with published statistics where it is of this very evaluation."""
    values = _read(folder / "published.json")
    same = metrics and all(
        metrics[key] == values.get(key) for key in ("fingerprint", "test_opened")
    )
    return values if same else None


def _of_other_predictions(values: Mapping[str, Any], folder: Path) -> str:
    """Say so where a result was measured on other predictions than those beside it."""
    path = folder / "predictions.csv"
    if "predictions" not in values:
        return ""
    same = path.is_file() and digest(path.read_bytes()) == values["predictions"]
    return "" if same else "of other predictions"


def _of_other_thresholds(values: Mapping[str, Any], uncertainty: Mapping[str, Any]) -> str:
    """Say so where calibration was measured with other thresholds than are fitted now."""
    if "uncertainty" in values and values["uncertainty"] != digest_of(uncertainty):
        return "measured with earlier thresholds"
    return ""


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON file's content, empty where there is none."""
    values: dict[str, Any] = read_json(path, hint="remove it") if path.exists() else {}
    return values


def _read_all(folder: Path, pattern: str) -> dict[Path, dict[str, Any]]:
    return {path: _read(path) for path in sorted(folder.glob(pattern))}

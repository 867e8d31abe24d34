"""All that a run's stages wrote, read once for the report and the cards."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.files import read_json
from cxr.plotting import RESEARCH_USE, footer_text

COMMANDS = {
    "evaluate": "make evaluate",
    "audit": "make audit",
    "explain": "make explain",
    "evaluate-on": "make evaluate-on DATA=... RUN=...",
    "cv": "make cv FOLDS=5",
    "leak": "make experiment NAME=leak",
}
"""What makes a part that is missing."""


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
        published: ``evaluation/published.json`` of the experiment of that name, where it is of
            this evaluation.
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
    elsewhere: dict[str, dict[str, Any]] = field(default_factory=dict)
    folds: dict[str, dict[str, Any]] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=lambda: dict(COMMANDS))
    missing: dict[str, str] = field(default_factory=dict)
    published: dict[str, Any] | None = None

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
) -> Results:
    """Read what the stages of a run have written so far.

    Args:
        folder: outputs/<data>/<run>.
        prepared: ``prepared.json`` of its prepared set.
        table: the prepared set's table.
        commands: what makes each part, where it is not ``COMMANDS``.
        audit_key: digest of the run's present state; an audit of another state is left out.

    Returns:
        The results; ``missing`` names the parts that are not there.

    Raises:
        InputError: a file is damaged.
    """
    run, ensemble = (_read(folder / name) for name in ("run.json", "ensemble.json"))
    wanted = dict(COMMANDS) | dict(commands or {})
    missing: dict[str, str] = {}
    metrics: dict[str, Any] | None = _read(folder / "evaluation" / "metrics.json")
    if metrics and metrics["fingerprint"] != run["fingerprint"]:
        metrics, missing["evaluation"] = (
            None,
            _again("measured on other images", wanted["evaluate"]),
        )
    elif metrics and "ensemble_minus" not in metrics:
        metrics, missing["evaluation"] = None, _again("of version 0.1", wanted["evaluate"])
    elif not metrics:
        missing["evaluation"] = _never(wanted["evaluate"])
    certainty = _read(folder / "evaluation" / "calibration.json") if metrics else None
    if not certainty:
        missing["calibration, prediction sets, referral"] = _never(wanted["evaluate"])
    audit: dict[str, Any] | None = _read(folder / "audit" / "audit.json")
    if audit and audit_key is not None and audit["key"] != audit_key:
        audit, missing["shortcut audit"] = None, _again("of an earlier state", wanted["audit"])
    elif not audit:
        missing["shortcut audit"] = _never(wanted["audit"])
    elif not audit["complete"]:
        missing["some tests of the audit"] = _never(wanted["audit"])
    root = folder.parent.parent
    # What a leak is worth on the phantom has no place beside real images, nor the other way.
    leak = next(
        (
            (path, found)
            for path, found in _read_all(root, "*/leak/leak.json").items()
            if ("synthetic" in found["note"]) == bool(run.get("synthetic"))
        ),
        None,
    )
    return Results(
        folder,
        run,
        dict(prepared),
        table,
        ensemble,
        {name: _read(folder / "members" / name / "member.json") for name in ensemble["members"]},
        metrics or None,
        certainty or None,
        audit or None,
        _read(folder / "explain" / "explain.json") or None,
        None if leak is None else leak[1] | {"folder": str(leak[0].parent)},
        {
            path.parent.name: found
            for path, found in _read_all(folder, "evaluated_on/*/metrics.json").items()
        },
        {path.parent.name: found for path, found in _read_all(folder, "cv-*/cv.json").items()},
        wanted,
        missing,
        _published(folder, metrics or {}),
    )


def _published(folder: Path, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    published = _read(folder / "evaluation" / "published.json")
    state = ("fingerprint", "test_opened")
    same = bool(published) and all(published[key] == metrics.get(key) for key in state)
    return published if same else None


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON file's content, empty where there is none."""
    found: dict[str, Any] = read_json(path, mend="remove it") if path.exists() else {}
    return found


def _read_all(folder: Path, pattern: str) -> dict[Path, dict[str, Any]]:
    return {path: _read(path) for path in sorted(folder.glob(pattern))}


def _never(command: str) -> str:
    return f"not done yet: {command}"


def _again(why: str, command: str) -> str:
    return f"what is there was {why}, so it is left out: {command}"

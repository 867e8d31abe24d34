"""The run folder that the stages share: which prepared set it belongs to, and its note."""

import contextlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cxr.data.prepared import Prepared, open_prepared
from cxr.errors import InputError, MissingInputError
from cxr.errors import command as stage_command
from cxr.files import environment, read_json, run_folder, write_json
from cxr.pipeline.config import PrepareConfig, RunConfig, given_data_settings

RESEARCH = "Research use only, not a medical device"
SYNTHETIC = "synthetic phantom, not real patients"


def note_of(prepared: Prepared) -> str:
    """Return what stands below every figure and table made from a prepared set."""
    return f"{SYNTHETIC} · {RESEARCH}" if prepared.info.get("synthetic") else RESEARCH


def open_run(
    config: PrepareConfig, prepared: Prepared, *, known: dict[str, Any] | None = None
) -> Path:
    """Open or start a run on a prepared set; return outputs/<data>/<run>.

    ``known`` is written to run.json too, in the place of what ``config`` says.

    Raises:
        InputError: the run belongs to another prepared set.
    """
    folder = run_folder(Path(config.output_root), config.data.name, config.run)
    claim_folder(
        folder / "run.json",
        prepared,
        {"data": config.data.name, "run": config.run},
        {"data_config": asdict(config.data), **(known or {})},
        fault=f"run {config.run!r} was made on another prepared set",
        hint="give another run=NAME",
    )
    return folder


def claim_folder(
    path: Path,
    images: Prepared,
    head: dict[str, Any],
    rest: dict[str, Any],
    *,
    fault: str,
    hint: str,
) -> None:
    """Write to ``path`` on which images the trainings of its folder are made.

    A start that failed before its first checkpoint claims nothing.

    Raises:
        InputError: they were made on others; ``fault`` says so, ``hint`` what to do.
    """
    folder, fingerprint = path.parent, images.info["fingerprint"]
    if path.exists() and any(map(has_work, folder.glob("members/*"))):
        before = str(read_json(path, hint=f"remove {folder}")["fingerprint"])
        if before != fingerprint:
            raise InputError(f"{fault} (fingerprint {before[:12]}, now {fingerprint[:12]}): {hint}")
        return
    facts = {
        "prepared": os.path.relpath(images.folder, folder),
        "fingerprint": fingerprint,
        "labels": list(images.labels),
        "synthetic": bool(images.info.get("synthetic")),
        "note": note_of(images),
    }
    write_json(path, head | facts | rest | {"environment": environment()})


def data_name(config: RunConfig) -> str:
    """Return the first part of a run's folder."""
    return config.data if isinstance(config.data, str) else str(config.data.name)


def has_work(member: Path) -> bool:
    """Tell whether a member's folder holds finished weights or a training to go on with."""
    return any((member / name).exists() for name in ("member.json", "checkpoints/resume.ckpt"))


def named_run(config: PrepareConfig) -> RunConfig:
    """Return which run is meant: run=DATA/RUN, or a run of the same data.

    Raises:
        MissingInputError: there is no such run.
    """
    data, slash, run = config.run.rpartition("/")
    found = RunConfig(data if slash else config.data.name, run, config.output_root)
    root = Path(config.output_root)
    if "/" in data or not (root / str(found.data) / run / "run.json").exists():
        known = sorted(
            path.parent.relative_to(root).as_posix() for path in root.glob("*/*/run.json")
        )
        train = stage_command("train")
        raise MissingInputError(
            f"there is no run {found.data}/{run} under {root}: give run=DATA/RUN, one of "
            f"{', '.join(known) or f'(none is trained yet: {train})'}"
        )
    return found


def find_run(config: RunConfig) -> tuple[Path, dict[str, Any], Prepared]:
    """Return a run's folder, its ``run.json`` and its prepared set.

    Raises:
        MissingInputError: nothing was trained under this name.
        InputError: the command line sets the data otherwise than the run's, which a stage behind
            training cannot honour.
    """
    folder = run_folder(Path(config.output_root), data_name(config), config.run)
    train = command("train", config)
    if not (folder / "run.json").exists():
        others = sorted(path.parent.name for path in folder.parent.glob("*/run.json"))
        known = f" (runs there: {', '.join(others)})" if others else ""
        raise MissingInputError(f"there is no run {folder}{known}: train first with {train}")
    info = read_json(folder / "run.json", hint=train)
    for key in given_data_settings(config):
        value, own = asdict(config.data), info.get("data_config", {})
        for part in key.split("."):
            value, own = value[part], own.get(part) if isinstance(own, dict) else None
        if value != own:
            raise InputError(
                f"data.{key} is {value!r}, but run {config.run!r} was made with "
                f"{own!r}, which this stage cannot change: leave it out, or train another run with "
                f"it ({train} with another run=)"
            )
    return folder, info, open_prepared(folder / info["prepared"])


def trained_members(folder: Path, names: list[str] | None = None) -> list[str]:
    """Return the members of a run that are trained, in a fixed order.

    Raises:
        MissingInputError: none is trained, or one that was asked for is not.
    """
    found = sorted(path.parent.name for path in folder.glob("members/*/member.json"))
    # The two members of the project come first, in the order in which it names them.
    found.sort(key=lambda name: {"mobilenetv2": 0, "inceptionv3": 1}.get(name, 2))
    if missing := [name for name in names or [] if name not in found]:
        raise MissingInputError(
            f"member {missing[0]!r} is not trained in {folder}: trained are "
            f"{', '.join(found) or 'none'}; train it ({stage_command('train')}) or correct members="
        )
    if not found:
        raise MissingInputError(
            f"{folder} has no trained member: train first ({stage_command('train')})"
        )
    return list(names) if names else found


def command(stage: str, config: RunConfig) -> str:
    """Return the command that runs a stage of this run."""
    return stage_command(stage, data=data_name(config), run=config.run)


def relative(path: Path) -> Path:
    """Return a path as seen from the working folder where that is shorter."""
    with contextlib.suppress(ValueError):
        return path.resolve().relative_to(Path.cwd())
    return path

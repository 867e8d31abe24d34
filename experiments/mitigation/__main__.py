"""Each way to take a shortcut away: trained small, measured at home and at hospitals left out."""

import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.console import log
from cxr.data.prepared import Prepared
from cxr.data.splits import in_sources, lost_classes
from cxr.errors import InputError, reason_of
from cxr.evaluation.evaluate import build_predictions, read_predictions
from cxr.files import digest_of, environment, read_json, run_folder, write_csv, write_json
from cxr.pipeline.audit_stage import audit_stage
from cxr.pipeline.config import RunConfig, TrainConfig, compose, script
from cxr.pipeline.cv_stage import TOGETHER, cv_stage
from cxr.pipeline.ensemble_stage import ensemble_stage
from cxr.pipeline.evaluate_stage import evaluate_stage
from cxr.pipeline.prepare_stage import prepare_whole
from cxr.pipeline.run_folder import note_of, relative
from cxr.pipeline.train_stage import train_stage
from cxr.pipeline.trained_run import TrainedRun
from experiments import show
from experiments.mitigation.measure import (
    accuracy,
    audit_summary,
    left_out,
    markdown,
    mitigation_sentences,
    mitigation_table,
    winner,
)

GROUPS = ("data=cxr4plus", "experiment=small")
"""As the defaults of configs/mitigation.yaml, for the stages that are composed one by one."""


@dataclass
class MitigationConfig(TrainConfig):
    """configs/mitigation.yaml."""

    configurations: dict[str, list[str]] = field(default_factory=dict)
    """Name to what it changes, as on the command line of scripts/train.py."""
    only: list[str] | None = None
    """Which configurations, by name; null takes all. What others had is kept in the table."""
    members: list[str] = field(default_factory=lambda: ["mobilenetv2"])
    """Which members are trained of each."""
    sources: list[str] = field(default_factory=list)
    """Left out in turn, ``one+other`` together, where the others have their classes too. A source
    that a configuration does not train on is measured with the model of the patient split."""
    audit: bool = False
    """Open the test split and run the audit too: minutes each."""


OWN = ("run", "configurations", "only", "members", "sources", "audit")
"""Keys that the stages do not know, or get from here."""


def run_mitigation(config: MitigationConfig) -> dict[str, Any]:
    """Train and measure each configuration; write ``mitigation.json`` and ``mitigation.md``.

    What is finished is not done again, and a configuration that fails keeps no other from it.

    Returns:
        The content of ``mitigation.json``.

    Raises:
        InputError: no such configuration, none was given, or each failed.
    """
    names = config.only or list(config.configurations)
    unknown = [name for name in names if name not in config.configurations]
    if unknown or not names:
        known = ", ".join(config.configurations) or "(none is given in configs/mitigation.yaml)"
        raise InputError(f"only is {config.only}: the configurations are {known}")
    folder = run_folder(Path(config.output_root), config.data.name, config.run)
    path = folder / "mitigation.json"
    before = read_json(path, hint=f"remove {path}")["configurations"] if path.exists() else {}
    found = {name: before[name] for name in config.configurations if name in before}
    measured = {"sources": list(config.sources), "members": list(config.members)}
    if other := [name for name, part in found.items() if part.get("measured") != measured]:
        found = {name: part for name, part in found.items() if name not in other}
        log.info("measured with other sources or members, so not compared: %s", ", ".join(other))
    result: dict[str, Any] = {}
    for number, name in enumerate(names, start=1):
        log.info("configuration %d of %d: %s", number, len(names), name)
        try:
            found[name] = _configuration(config, name, found.get(name, {})) | {"measured": measured}
        except Exception as error:
            if not isinstance(error, InputError):
                traceback.print_exception(error)
            found[name] = {"error": reason_of(error, 400), "measured": measured}
            log.warning("%s failed: %s", name, found[name]["error"])
        result = _write(folder, {key: found[key] for key in config.configurations if key in found})
    if not result["shown"]["table"]["rows"]:
        raise InputError(f"no configuration could be measured: {result['shown']['sentences'][0]}")
    show(result["shown"])
    log.info("results: %s", relative(folder))
    return result


def _configuration(config: MitigationConfig, name: str, before: dict[str, Any]) -> dict[str, Any]:
    """Train a configuration and measure it, but for what is finished."""
    given = [word for word in config.overrides if _key(word) not in OWN]
    groups = [word for word in GROUPS if _key(word) not in map(_key, given)]
    words = [*groups, *given, *config.configurations[name], f"run={config.run}-{name}"]
    key = digest_of([words, config.members, config.sources])
    done = before if before.get("key") == key else {}
    child = compose("train", words)
    named = [f"data.name={child.data.name}", f"run={child.run}", f"output_root={child.output_root}"]
    if "left_out" not in done:
        for member in config.members:
            train_stage(compose("train", [*words, f"model={member}"]))
        ensemble_stage(compose("ensemble", named))
        run = TrainedRun(RunConfig(child.data.name, child.run, child.output_root))
        done = {
            "key": key,
            "overrides": config.configurations[name],
            "note": note_of(run.prepared),
            "patient": {"accuracy": accuracy(_at_home(config, run), run.labels)},
            "left_out": _leave_out(config, child, words, run),
        }
    if config.audit and "audit" not in done:
        if not TrainedRun(RunConfig(child.data.name, child.run, child.output_root)).evaluated:
            evaluate_stage(compose("evaluate", named))
        done |= {"audit": audit_summary(audit_stage(compose("audit", named)))}
    return done


def _at_home(config: MitigationConfig, run: TrainedRun) -> pd.DataFrame:
    """Return the predictions of validation, also where test was opened.

    Only images of the first part of the data, which every configuration learns from, so that they
    compare.
    """
    rows = run.prepared.table.set_index("image", drop=False).loc[list(run.validation.images)]
    table = build_predictions(rows.reset_index(drop=True), run.validation.logits, run.ensemble)
    home = "".join(f"{part}/" for part in config.data.parts[:1])
    return table[table["image"].str.startswith(home)]


def _leave_out(
    config: MitigationConfig, child: TrainConfig, words: list[str], run: TrainedRun
) -> dict[str, Any]:
    """Pool what models say of sources that they never saw, and measure it."""
    table, own = run.prepared.table, set(run.prepared.table["source"])
    tables, parts = [table], []
    sources = [[name for name in word.split(TOGETHER) if name in own] for word in config.sources]
    inside = [TOGETHER.join(names) for names in sources if names and not lost_classes(table, names)]
    if inside:
        options = [f"sources=[{','.join(inside)}]", f"members=[{','.join(config.members)}]"]
        for member in config.members:
            cv_stage(compose("cv", [*words, "split=source", *options, f"model={member}"]))
        parts.append(read_predictions(run.folder / "cv-source" / "predictions.csv"))
    if other := [part for part in config.data.parts if part not in child.data.parts]:
        outside = _outside(child, other, run)
        names = TOGETHER.join(config.sources).split(TOGETHER)
        rows = np.flatnonzero(in_sources(outside.table, names))
        path = run.folder / "never-seen.csv"
        write_csv(path, run.predict(outside, rows, batch_size=child.trainer.batch_size))
        parts.append(read_predictions(path))
        tables.append(outside.table)
    if not parts:
        raise InputError(
            f"none of the sources {', '.join(config.sources) or '(none is given)'} can be left out "
            f"of {', '.join(sorted(own))}: name others in sources="
        )
    return left_out(pd.concat(parts, ignore_index=True), pd.concat(tables), run.labels)


def _outside(child: TrainConfig, parts: list[str], run: TrainedRun) -> Prepared:
    """Prepare the parts of the data that a configuration does not learn from, as its own were."""
    other = replace(child, data=replace(child.data, parts=parts), overrides=[])
    return prepare_whole(other, run.prepared.spec, run.labels)[0]


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _write(folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    table, sentences = mitigation_table(found), mitigation_sentences(found)
    result = {
        "configurations": found,
        "winner": winner(found),
        "shown": {"title": "Mitigation", "sentences": sentences, "table": table},
        "environment": environment(),
    }
    write_json(folder / "mitigation.json", result)
    (folder / "mitigation.md").write_text(markdown(table, sentences))
    written: dict[str, Any] = read_json(folder / "mitigation.json", hint="remove it")
    return written


@script("mitigation", MitigationConfig)
def main(config: MitigationConfig) -> None:
    """Run the experiment."""
    run_mitigation(config)


if __name__ == "__main__":
    main()

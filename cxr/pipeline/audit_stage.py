"""Stage 7: the shortcut audit, eight tests with a verdict each, kept as they are done."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cxr.audit.result import SEVERITY, AuditResult, headline
from cxr.console import log, print_table
from cxr.errors import InputError
from cxr.evaluation.tables import show_interval
from cxr.files import environment, read_json, write_json
from cxr.pipeline.audit_tests import TESTS, Subject, open_subject
from cxr.pipeline.config import AuditConfig
from cxr.pipeline.report_stage import write_report
from cxr.pipeline.run_folder import command, relative
from cxr.plotting import RESEARCH_USE


def audit_stage(config: AuditConfig) -> dict[str, Any]:
    """Run the tests that are not done yet, write ``audit/audit.json`` and show the verdicts.

    Returns:
        The content of ``audit.json``.

    Raises:
        InputError: a run that was not evaluated, or an unknown test.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    chosen = _chosen(config)
    subject = open_subject(config)
    path = subject.out / "audit.json"
    results, seconds = _kept(path, subject.key, [] if not config.force else chosen)
    for number, name in enumerate(TESTS, start=1):
        if name not in chosen or name in results:
            continue
        log.info("%d/%d %s", number, len(TESTS), name)
        start = time.monotonic()
        results[name] = TESTS[name](subject)
        seconds[name] = round(time.monotonic() - start, 1)
        _write(path, subject, results, seconds)
    values = _write(path, subject, results, seconds)
    _show(values, subject)
    write_report(config, subject.run)
    return values


def _chosen(config: AuditConfig) -> list[str]:
    names = config.tests or list(TESTS)
    if unknown := [name for name in names if name not in TESTS]:
        raise InputError(f"tests name {unknown[0]!r}: allowed are {', '.join(TESTS)}")
    return names


def _kept(
    path: Path, key: str, again: Sequence[str]
) -> tuple[dict[str, AuditResult], dict[str, float]]:
    """Return the results of an earlier audit of the same run, without those to do again."""
    if not path.exists():
        return {}, {}
    before = read_json(path, mend="remove it and audit again (make audit)")
    if before.get("key") != key:
        log.info("the run or its settings changed since the last audit: every test is done anew")
        return {}, {}
    found = {values["name"]: AuditResult.from_dict(values) for values in before["results"]}
    kept = {name: result for name, result in found.items() if name not in again}
    if kept:
        log.info("done before and kept: %s", ", ".join(kept))
    return kept, {name: before["seconds"][name] for name in kept}


def _write(
    path: Path, subject: Subject, results: dict[str, AuditResult], seconds: dict[str, float]
) -> dict[str, Any]:
    run = subject.run
    ordered = [results[name] for name in TESTS if name in results]
    values = {
        "note": run.note,
        "use": RESEARCH_USE,
        "headline": headline(ordered),
        "complete": len(ordered) == len(TESTS),
        "counts": {
            verdict: sum(result.verdict == verdict for result in ordered) for verdict in SEVERITY
        },
        "results": [result.to_dict() for result in ordered],
        "seconds": seconds,
        "key": subject.key,
        "labels": list(run.ensemble.labels),
        "members": list(run.ensemble.members),
        "seed": subject.config.seed,
        "resamples": subject.config.resamples,
        "fingerprint": run.prepared.info["fingerprint"],
        "synthetic": bool(run.prepared.info.get("synthetic")),
        "environment": environment(),
    }
    write_json(path, values)
    # As it is read, so that a kept audit and a fresh one give the same.
    written: dict[str, Any] = read_json(path, mend="audit again (make audit)")
    return written


def _show(values: dict[str, Any], subject: Subject) -> None:
    rows = []
    for result in values["results"]:
        figure = result["figure"] or {}
        chance = figure.get("chance")
        rows.append(
            {
                "test": result["title"],
                "figure": figure.get("metric", ""),
                "value": show_interval(figure) if figure else "",
                "chance": "" if chance is None else f"{round(chance, 3) + 0.0:g}",
                "verdict": result["verdict"],
            }
        )
    if rows:
        print_table(f"Audit · {values['note']}", rows)
    for result in values["results"]:
        told = not result["reason"] or result["reason"] in result["sentence"]
        skipped = "" if told else f" (Left out: {result['reason']}.)"
        log.info("%s: %s. %s%s", result["title"], result["verdict"], result["sentence"], skipped)
    log.info("%s", values["headline"])
    if not values["complete"]:
        log.info("not every test is done yet: %s does the others", command("audit", subject.config))
    log.info("results: %s", relative(subject.out))

"""Stage 7: the shortcut audit, nine tests with a verdict each, kept as they are done."""

import time
from pathlib import Path
from typing import Any

from cxr.audit.context import AuditContext
from cxr.audit.result import AUDIT_VERSION, SEVERITY, AuditResult, headline
from cxr.console import log, print_table
from cxr.errors import InputError
from cxr.evaluation.tables import show_interval
from cxr.files import environment, read_json, write_json
from cxr.pipeline.audit_tests import TESTS, audit_context
from cxr.pipeline.config import AuditConfig
from cxr.pipeline.report_stage import write_report
from cxr.pipeline.run_folder import command, relative
from cxr.pipeline.trained_run import TrainedRun
from cxr.plotting import RESEARCH_USE
from cxr.training.thread_count import THREADS

HINT = "remove it and audit again (python scripts/audit.py)"


def audit_stage(config: AuditConfig) -> dict[str, Any]:
    """Run the tests that are not done yet, write ``audit/audit.json`` and show the verdicts.

    Returns:
        The content of ``audit.json``.

    Raises:
        InputError: a run that was not evaluated, or an unknown test.
    """
    THREADS.fix(config.threads)
    names = config.tests or list(TESTS)
    if unknown := [name for name in names if name not in TESTS]:
        raise InputError(f"tests name {unknown[0]!r}: allowed are {', '.join(TESTS)}")
    run = TrainedRun(config)
    context = audit_context(run, config)
    path = run.folder / "audit" / "audit.json"
    results, seconds = _earlier(path, context.key)
    for name in names if config.force else []:
        results.pop(name, None)
    if results:
        log.info("done before and kept: %s", ", ".join(results))
    facts = {
        "key": context.key,
        "version": AUDIT_VERSION,
        "labels": list(context.labels),
        "members": list(context.members),
        "seed": config.seed,
        "resamples": config.resamples,
        "fingerprint": run.prepared.info["fingerprint"],
        "synthetic": bool(run.prepared.info.get("synthetic")),
        "outlined_by": context.outlined_by,
    }
    for number, name in enumerate(TESTS, start=1):
        if name not in names or name in results:
            continue
        log.info("%d/%d %s", number, len(TESTS), name)
        start = time.monotonic()
        results[name] = TESTS[name](context)
        seconds[name] = round(time.monotonic() - start, 1)
        _write(path, context, results, seconds, facts)
    values = _write(path, context, results, seconds, facts)
    _show(values)
    if not values["complete"]:
        log.info("not every test is done yet: %s does the others", command("audit", config))
    log.info("results: %s", relative(path.parent))
    write_report(run)
    return values


def _earlier(path: Path, key: str) -> tuple[dict[str, AuditResult], dict[str, float]]:
    """Return the results and times of an earlier audit of the same run; none of another."""
    if not path.exists():
        return {}, {}
    before = read_json(path, hint=HINT)
    if before.get("version") != AUDIT_VERSION:
        log.info("audit.json is of an earlier version of the audit: every test is done anew")
        return {}, {}
    if before.get("key") != key:
        log.info("the run or its settings changed since the last audit: every test is done anew")
        return {}, {}
    results = [AuditResult.from_dict(values) for values in before["results"]]
    return {result.id: result for result in results}, before["seconds"]


def _write(
    path: Path,
    context: AuditContext,
    results: dict[str, AuditResult],
    seconds: dict[str, float],
    facts: dict[str, Any],
) -> dict[str, Any]:
    ordered = [results[name] for name in TESTS if name in results]
    values = {
        "note": context.note,
        "use": RESEARCH_USE,
        "headline": headline(ordered),
        "complete": len(ordered) == len(TESTS),
        "counts": {
            verdict: sum(result.verdict == verdict for result in ordered) for verdict in SEVERITY
        },
        "results": [result.to_dict() for result in ordered],
        "seconds": {name: seconds[name] for name in results},
        **facts,
        "environment": environment(),
    }
    write_json(path, values)
    # As it is read, so that a kept audit and a fresh one give the same.
    written: dict[str, Any] = read_json(path, hint=HINT)
    return written


def _show(values: dict[str, Any]) -> None:
    rows = []
    for result in values["results"]:
        statistic = result["statistic"] or {}
        chance = statistic.get("chance")
        rows.append(
            {
                "test": result["title"],
                "statistic": statistic.get("metric", ""),
                "value": show_interval(statistic) if statistic else "",
                "chance": "" if chance is None else f"{round(chance, 3) + 0.0:g}",
                "verdict": result["verdict"],
            }
        )
    if rows:
        print_table(f"Audit · {values['note']}", rows)
    for result in values["results"]:
        repeated = not result["reason"] or result["reason"] in result["sentence"]
        skipped = "" if repeated else f" (Left out: {result['reason']}.)"
        log.info("%s: %s. %s%s", result["title"], result["verdict"], result["sentence"], skipped)
    log.info("%s", values["headline"])

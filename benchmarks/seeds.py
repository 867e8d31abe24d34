r"""Several trainings of one configuration beside each other: mean and range over their seeds.

    python benchmarks/seeds.py outputs/cxr4/small-patient-{0,1,2}

Reads what `make evaluate` and `make audit` wrote, opens nothing else. One training's interval says
how far its figure is known; the range over seeds says how far another training's would lie off.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr.audit.result import AUDIT_VERSION
from cxr.console import print_table
from cxr.errors import InputError
from cxr.files import read_json

OVERALL = ("accuracy", "balanced_accuracy", "macro_auroc", "nll")
PER_CLASS = ("sensitivity", "specificity", "auroc")


def spread(values: Sequence[float | None]) -> str:
    """Write mean and range: "0.846 [0.842, 0.851]"; "n/a" where a value is undefined."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < len(values):
        return "n/a"
    return f"{sum(known) / len(known):.3f} [{min(known):.3f}, {max(known):.3f}]"


def metrics_rows(runs: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, str]], ...]:
    """Return a row per model and overall metric, and one per class of the ensemble.

    Args:
        runs: content of each run's metrics.json.
    """
    models = list(runs[0]["models"])
    overall = [
        {"model": model}
        | {
            metric: spread([run["models"][model][metric]["value"] for run in runs])
            for metric in OVERALL
        }
        for model in models
    ]
    own = [run["models"]["ensemble"]["per_class"] for run in runs]
    classes = [
        {"class": label}
        | {
            metric: spread([per_class[label][metric]["value"] for per_class in own])
            for metric in PER_CLASS
        }
        for label in runs[0]["labels"]
    ]
    return overall, classes


def sets_rows(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return a row per level of the sets per class, which the bundle serves.

    Args:
        runs: content of each run's calibration.json.
    """
    rows = []
    for level in runs[0]["prediction_sets"]:
        sets = [run["prediction_sets"][level]["per_class"] for run in runs]
        row = {
            "level": level,
            "all": spread([part["coverage"]["value"] for part in sets]),
            "size": spread([part["size"]["value"] for part in sets]),
        }
        rows.append(
            row
            | {
                label: spread([part["per_class"][label]["value"] for part in sets])
                for label in sets[0]["per_class"]
            }
        )
    return rows


def audit_rows(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return a row per audit test: the verdict of each run and the statistic that decided it."""
    if any(run.get("version") != AUDIT_VERSION for run in runs):
        raise InputError(
            "an audit.json is of an earlier version: audit these runs again (make audit)"
        )
    found = [{result["id"]: result for result in run["results"]} for run in runs]
    return [
        {
            "test": name,
            "verdicts": ", ".join(part[name]["verdict"] for part in found),
            "statistics": ", ".join(
                f"{(part[name]['statistic'] or {}).get('value', math.nan):.3f}" for part in found
            ),
            "of": str((found[0][name]["statistic"] or {}).get("metric", "")),
        }
        for name in found[0]
    ]


def read(runs: Sequence[Path], name: str) -> list[dict[str, Any]]:
    """Read one result file of every run that has it.

    Raises:
        InputError: some runs have it and others lack it.
    """
    have = [run / name for run in runs if (run / name).is_file()]
    if have and len(have) < len(runs):
        lacking = next(run for run in runs if not (run / name).is_file())
        raise InputError(f"{lacking} lacks {name}: finish it as the other runs were")
    return [read_json(path, hint="evaluate the run again") for path in have]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    runs = parser.parse_args().runs
    metrics, audits = read(runs, "evaluation/metrics.json"), read(runs, "audit/audit.json")
    certainty = read(runs, "evaluation/calibration.json")
    if not metrics:
        parser.error(f"{runs[0]} has no evaluation/metrics.json: evaluate the runs first")
    overall, classes = metrics_rows(metrics)
    # Square brackets would be markup to the table's title.
    seeds = f"{len(runs)} training(s), mean with lowest and highest"
    print_table(f"Test, {metrics[0]['n']} images, {seeds}", overall)
    print_table(f"The ensemble per class, {seeds}", classes)
    if all("published_test" in run for run in metrics):
        overall, classes = metrics_rows([run["published_test"] for run in metrics])
        alone = f"{' '.join(metrics[0]['published_test']['labels'])} alone"
        print_table(f"Published test, {alone}, {metrics[0]['published_test']['n']} images", overall)
        print_table(f"The ensemble per class, {alone}", classes)
    print_table(f"Conformal sets of the ensemble, coverage, {seeds}", sets_rows(certainty))
    if audits:
        print_table("Audit, in the order of the runs", audit_rows(audits))


if __name__ == "__main__":
    main()

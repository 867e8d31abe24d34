"""Our values beside those that others published on the Kermany test images, from result files."""

from dataclasses import dataclass
from typing import Any

from cxr.console import log
from cxr.errors import InputError, command
from cxr.evaluation.evaluate import read_predictions
from cxr.files import read_json, write_json
from cxr.pipeline.config import PrepareConfig, script
from cxr.pipeline.report_stage import refresh_report
from cxr.pipeline.run_folder import find_run, relative
from experiments import show
from experiments.published.compare import compare_published, differences, published_table


@dataclass
class PublishedConfig(PrepareConfig):
    """configs/published.yaml: an evaluated run on the published split of cxr4."""


def run_published(config: PublishedConfig) -> dict[str, Any]:
    """Compare an evaluated run, and write ``published.json`` beside its ``metrics.json``.

    Returns:
        The content of ``published.json``.

    Raises:
        InputError: the run was not evaluated, or not on the published Kermany test images.
    """
    folder, info, prepared = find_run(config)
    out, again = folder / "evaluation", command("evaluate", data=info["data"], run=info["run"])
    metrics = read_json(out / "metrics.json", hint=f"first give {again}")
    part = metrics.get("published_test")
    table = read_predictions(out / "predictions.csv")
    result = part and compare_published(
        table[table["label"].isin(part["labels"])],
        part,
        labels=metrics["labels"],
        best_member=metrics["best_member"],
    )
    if not result:
        raise InputError(
            f"the test split of run {config.run!r} is not the published one of the Kermany images: "
            "train a run of cxr4 with data.split=published, and evaluate it"
        )
    sentences = differences(
        result,
        train_images=int((prepared.table["split"] == "train").sum()),
        disjoint=metrics["disjoint"],
        opened=metrics["test_opened"],
    )
    shown = {
        "title": "Against published values",
        "sentences": sentences,
        "table": published_table(result),
    }
    result |= {key: metrics[key] for key in ("fingerprint", "test_opened")} | {"shown": shown}
    write_json(out / "published.json", result)
    show(shown)
    log.info("results: %s", relative(out / "published.json"))
    refresh_report(folder)
    return result


@script("published", PublishedConfig)
def main(config: PublishedConfig) -> None:
    """Run the experiment."""
    run_published(config)


if __name__ == "__main__":
    main()

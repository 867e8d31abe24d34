"""What a leak is worth: the same network trained twice, on copies split at random and by image."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.console import images_bar, log
from cxr.data.loader import rows_of
from cxr.data.prepared import Prepared
from cxr.data.splits import split_images
from cxr.errors import InputError
from cxr.files import digest, digest_of, environment, read_json, run_folder, write_csv, write_json
from cxr.models.build import load_member
from cxr.models.ensemble import softmax
from cxr.pipeline.config import TrainConfig, script
from cxr.pipeline.prepare_stage import prepare_stage
from cxr.pipeline.report_stage import refresh_reports
from cxr.pipeline.run_folder import note_of, relative
from cxr.pipeline.train_stage import check_name, train_member
from cxr.plotting import save_figure
from cxr.training.inference import predict_logits
from cxr.training.thread_count import THREADS
from experiments import show
from experiments.leak.copies import CopySettings, copy_then_split, count_leaks
from experiments.leak.measure import (
    COPIES_FIRST,
    OTHER_IMAGES,
    OWN_TEST,
    SPLIT_FIRST,
    draw_leak,
    leak_sentences,
    leak_table,
    measure_leak,
)

ABOUT = (
    "The same network, trained twice with the same budget: once with rotated and mirrored copies "
    "made before a random test share was drawn, once with splits that keep copies apart."
)
ASIDE = "other"
"""Split of the images that neither model sees: those that the prepared set calls test."""


@dataclass
class LeakConfig(CopySettings, TrainConfig):
    """configs/leak.yaml."""


def run_leak(config: LeakConfig) -> dict[str, Any]:
    """Train both ways, measure both, and write ``leak.json``, ``predictions.csv``, ``leak.png``.

    Both see the same images, in as many steps of the same settings. Copies first: each image and
    its rotated and mirrored copies, then a random share of all these as test. Split first: the
    images are split by group, and the same rotations and mirrors are drawn anew at each step, on
    training images alone. What a trained model has finished is not done again.

    Returns:
        The content of ``leak.json``.

    Raises:
        InputError: too few images, or settings of an experiment that was trained otherwise.
    """
    settings = CopySettings(config.copies, config.rotation_deg, config.test_share, config.seed)
    check_name(config)
    prepared = prepare_stage(config)
    folder = run_folder(Path(config.output_root), config.data.name, config.run)
    sets = {
        COPIES_FIRST: _copies_first(prepared, folder, settings),
        SPLIT_FIRST: _split_first(prepared, settings),
    }
    rows = {name: rows_of(found.table["split"].tolist(), "train") for name, found in sets.items()}
    # As many images an epoch as there are with copies, so that both take as many steps.
    random = np.random.default_rng(config.seed)
    rows[SPLIT_FIRST] = np.resize(random.permutation(rows[SPLIT_FIRST]), len(rows[COPIES_FIRST]))
    drawn = replace(config.trainer.augment, rotation_deg=config.rotation_deg, horizontal_flip=0.5)
    trainers = {COPIES_FIRST: config.trainer, SPLIT_FIRST: replace(config.trainer, augment=drawn)}
    for name, images in sets.items():
        log.info(
            "%s: %d images an epoch, %d epochs", name, len(rows[name]), config.trainer.max_epochs
        )
        train_member(
            replace(config, trainer=trainers[name]), images, folder / name, train_rows=rows[name]
        )
    predictions = _predict(sets, prepared, folder, config)
    write_csv(folder / "predictions.csv", predictions)
    result = measure_leak(predictions, labels=prepared.labels, note=note_of(prepared))
    result |= _circumstances(sets, prepared, folder, config, settings)
    result["shown"] = {
        "title": "What a leak is worth",
        "sentences": [ABOUT, *leak_sentences(result)],
        "table": leak_table(result),
    }
    write_json(folder / "leak.json", result)
    tested, trained = _example(sets[COPIES_FIRST])
    save_figure(draw_leak(result, tested, trained), folder / "leak.png")
    show(result["shown"])
    log.info("results: %s", relative(folder))
    refresh_reports(Path(config.output_root))
    return result


def _pool(prepared: Prepared) -> NDArray[np.bool_]:
    """Tell which images both models may learn from: those of no patient or group in test."""
    table = prepared.table
    test = table["split"] == "test"
    if not test.any():
        raise InputError(
            "the prepared set has no test split (data.fractions gives it 0): the experiment needs "
            "images that neither model sees; give data.fractions a test share"
        )
    # A published split may tear a group apart.
    return (~table["group"].isin(table["group"][test])).to_numpy()


def _copies_first(prepared: Prepared, folder: Path, settings: CopySettings) -> Prepared:
    rows = np.flatnonzero(_pool(prepared))
    return copy_then_split(prepared, rows, folder / "copied", settings, progress=images_bar)


def _split_first(prepared: Prepared, settings: CopySettings) -> Prepared:
    """Split the same images by group; the prepared set's own test images stay aside."""
    pool, share = _pool(prepared), settings.test_share
    split = np.full(len(pool), ASIDE, dtype=object)
    split[pool] = split_images(
        prepared.table[pool], "patient", fractions=(1 - 2 * share, share, share), seed=settings.seed
    )
    found = prepared.with_split(split)
    # How often an image comes in an epoch hangs on the copies of the other way.
    key = digest(found.info["fingerprint"], digest_of(asdict(settings)))
    return replace(found, info=found.info | {"fingerprint": key})


def held_out(config: LeakConfig) -> list[str]:
    """Return the splits that have no say in training: validation too, where it chooses no epoch."""
    return ["val", "test"] if config.trainer.monitor == "last" else ["test"]


def _predict(
    sets: dict[str, Prepared], prepared: Prepared, folder: Path, config: LeakConfig
) -> pd.DataFrame:
    """Return each model's probabilities on what its split holds out and on the other images."""
    THREADS.fix(config.trainer.threads)
    aside, parts = rows_of(prepared.table["split"].tolist(), "test"), []
    for name, images in sets.items():
        member = load_member(folder / name / "members" / config.model.name)
        own = np.flatnonzero(images.table["split"].isin(held_out(config)))
        for test, where, rows in ((OWN_TEST, images, own), (OTHER_IMAGES, prepared, aside)):
            with images_bar(f"{name}, {test}", len(rows)) as done:
                logits = predict_logits(
                    member, where.pixels, rows, batch_size=config.trainer.batch_size, on_image=done
                )
            probs = softmax(logits)
            table = where.table.iloc[rows][["image", "label", "group"]].reset_index(drop=True)
            values = {f"prob_{label}": probs[:, k] for k, label in enumerate(prepared.labels)}
            parts.append(table.assign(**values, model=name, tested_on=test))
    return pd.concat(parts, ignore_index=True)


def _circumstances(
    sets: dict[str, Prepared],
    prepared: Prepared,
    folder: Path,
    config: LeakConfig,
    settings: CopySettings,
) -> dict[str, Any]:
    """Return what the figures depend on, and how bad the leak is."""
    training = {
        name: read_json(
            folder / name / "members" / config.model.name / "member.json",
            hint="give the same command again",
        )["training"]
        for name in sets
    }
    leaky = sets[COPIES_FIRST].table
    counts = {name: found.table["split"].value_counts().to_dict() for name, found in sets.items()}
    return {
        "data": {
            "name": config.data.name,
            "fingerprint": prepared.info["fingerprint"],
            "synthetic": bool(prepared.info.get("synthetic")),
            "split": prepared.info["settings"]["split"],
        },
        "recipe": asdict(settings)
        | {
            "size_px": config.data.size,
            "model": asdict(config.model),
            "trainer": asdict(config.trainer),
            "seed": config.seed,
        },
        "images": counts,
        "held_out": held_out(config),
        "leaks": {
            "test_images": sum(counts[COPIES_FIRST][name] for name in held_out(config)),
            "with_a_copy_in_train": count_leaks(leaky, held_out(config)),
        },
        "training": training,
        "environment": environment(),
    }


def _example(leaky: Prepared) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]:
    """Return an upright test image and the copies of it that are in train, most of them first."""
    table = leaky.table
    trained = table[table["split"] == "train"]
    counts = trained.groupby("group").size()
    upright = table[(table["split"] == "test") & (table["copy_of"] == "")]
    upright = upright if len(upright) else table[table["split"] == "test"]
    row = int(upright.index[int(np.argmax(upright["group"].map(counts).fillna(0).to_numpy()))])
    copies = trained.index[(trained["group"] == table["group"][row]).to_numpy()]
    return np.asarray(leaky.pixels[row]), [np.asarray(leaky.pixels[other]) for other in copies]


@script("leak", LeakConfig)
def main(config: LeakConfig) -> None:
    """Run the experiment."""
    run_leak(config)


if __name__ == "__main__":
    main()

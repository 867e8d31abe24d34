"""The lung finder: train it on the masks of a data set, export it, measure it, write its card.

N images, S side of the prepared square, G side of the finder's grid.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from cxr.bundle.export import export_onnx, store_as_float16
from cxr.console import images_bar, log
from cxr.data.loader import BatchLoader, EpochSampler
from cxr.data.prepared import Prepared
from cxr.errors import InputError
from cxr.explain.pointing import Masks, read_masks
from cxr.files import environment, replacing_folder, run_folder, write_json
from cxr.lungs.find import FINDER_FILE, GRID_PX, OUTPUTS, finder_digest, to_grid
from cxr.pipeline.config import LungsConfig
from cxr.pipeline.lungs_measure import measure_chests, measure_negatives, show, write_card
from cxr.pipeline.prepare_stage import prepare_stage
from cxr.pipeline.run_folder import note_of
from cxr.training.lung_finder import LungGraph, LungNetwork, fit_lungs
from cxr.training.lung_negatives import draw_negatives

Pixels = NDArray[np.uint8]
LARGEST_BYTES = 1_500_000
"""Of the exported file."""


@dataclass(frozen=True, eq=False)
class Chests:
    """The images of a prepared set whose lungs are outlined."""

    prepared: Prepared
    rows: NDArray[np.int64]  # (N,) which of its rows
    masks: Masks  # (N, S, S) their lungs
    grid: Pixels  # (N, 2, G, G), image and mask as the finder sees them
    split: NDArray[Any]  # (N,) train, val or test; test where the source is left out

    def of(self, split: str) -> NDArray[np.int64]:
        """Return the places of a split among the N."""
        return np.flatnonzero(self.split == split)


def lungs_stage(config: LungsConfig) -> dict[str, Any]:
    """Train and measure a finder; the run's folder ``lungs/`` is written whole or not at all.

    Raises:
        InputError: no masks, an unknown source, or anything that preparing refuses.
    """
    prepared = prepare_stage(config)
    chests = _chests(prepared, config.leave_out)
    lightning.seed_everything(config.seed, verbose=False)
    network = LungNetwork(config.finder.pretrained)
    fit_lungs(network, _batches(chests, config), config.finder, seed=config.seed)
    _calibrate(network, chests, seed=config.seed)
    name = "-".join(["lungs", *(f"without-{source}" for source in config.leave_out)])
    out = run_folder(Path(config.output_root), config.data.name, config.run) / name
    test, table = chests.of("test"), prepared.table.iloc[chests.rows]
    with replacing_folder(out) as fresh:
        finder = fresh / FINDER_FILE.name
        _export(network, finder)
        facts = {
            "sha256": finder_digest(finder),
            "data": {"name": config.data.name, "fingerprint": prepared.info["fingerprint"]},
            "synthetic": bool(prepared.info.get("synthetic")),
            "left_out": config.leave_out,
            "images": {split: len(chests.of(split)) for split in ("train", "val", "test")},
            "measured": measure_chests(
                prepared.pixels,
                chests.rows[test],
                chests.masks[test],
                table["source"].to_numpy()[test],
                table["group"].to_numpy()[test],
                folder=fresh,
            ),
            "negatives": measure_negatives(config.negatives, finder, chests.grid[test]),
            "settings": asdict(config.finder) | {"seed": config.seed},
            "pretrained": network.origin,
            "environment": environment(),
            "note": note_of(prepared),
        }
        write_json(fresh / "lungs.json", facts)
        write_card(fresh / "CARD.md", facts)
    show(facts)
    log.info("the lung finder, its figures and its card are in %s", out)
    if config.install:
        for path in (out / FINDER_FILE.name, out / "lungs.json", out / "CARD.md"):
            shutil.copy(path, FINDER_FILE.parent)
        log.info("it is now the one that the package in %s finds lungs with", FINDER_FILE.parent)
    return facts


def _chests(prepared: Prepared, leave_out: list[str]) -> Chests:
    table = prepared.table
    names = table["mask"] if "mask" in table else pd.Series("", table.index)
    rows = np.flatnonzero(names != "")
    if not len(rows):
        raise InputError(
            f"no image of {prepared.folder} has a lung mask: the manifest's column mask names them"
        )
    source, split = table["source"].to_numpy()[rows], table["split"].to_numpy()[rows]
    if unknown := sorted(set(leave_out) - set(source)):
        known = ", ".join(sorted(set(source)))
        raise InputError(f"leave_out names {unknown[0]!r}: sources with masks are {known}")
    root = Path(prepared.info["root"])
    masks = read_masks(root, names.iloc[rows].tolist(), prepared.spec)
    grid = np.empty((len(rows), 2, GRID_PX, GRID_PX), np.uint8)
    with images_bar("lungs", len(rows)) as done:
        for place, row in enumerate(rows):
            grid[place, 0] = to_grid(np.asarray(prepared.pixels[row]))
            grid[place, 1] = to_grid(np.asarray(masks[place] * 255, np.uint8))
            done()
    split = np.where(np.isin(source, leave_out), "test", split)
    return Chests(prepared, rows, masks, grid, np.asarray(split, object))


def _batches(chests: Chests, config: LungsConfig) -> BatchLoader:
    """Mix chests and negatives; small sources come oftener, by the root of their size."""
    train, share = chests.of("train"), config.finder.negatives
    if len(train) < config.finder.batch_size:
        raise InputError(
            f"{len(train)} images with masks are left to train on, fewer than one batch of "
            f"{config.finder.batch_size}: lower finder.batch_size"
        )
    grid = chests.grid[train]
    rng = np.random.default_rng([config.seed, 1])
    count = max(1, len(train) // 3)
    drawn = np.stack(draw_negatives(count, grid[:, 0], grid[:, 1], rng=rng), axis=1)
    source = chests.prepared.table["source"].to_numpy()[chests.rows[train]]
    _, places, sizes = np.unique(source.astype(str), return_inverse=True, return_counts=True)
    weights = np.asarray(sizes[places] ** -0.5, np.float64)
    weights *= (1 - share) / weights.sum()
    weights = np.concatenate([weights, np.full(count, share / count)])
    targets = np.repeat(np.array([1, 0], np.int64), [len(train), count])
    order = EpochSampler(np.arange(len(targets)), weights=weights, seed=config.seed)
    pixels = np.concatenate([grid, drawn])
    return BatchLoader(pixels, targets, order, batch_size=config.finder.batch_size, drop_last=True)


def _calibrate(network: LungNetwork, chests: Chests, *, seed: int) -> None:
    """Fit slope and offset of the score on validation chests and as many new negatives.

    Source: Platt 1999, Probabilistic outputs for support vector machines.
    """
    chosen = chests.of("val") if len(chests.of("val")) else chests.of("train")
    grid = chests.grid[chosen]
    rng = np.random.default_rng([seed, 2])
    negatives = draw_negatives(len(grid), grid[:, 0], grid[:, 1], rng=rng)[0]
    images = torch.from_numpy(np.concatenate([grid[:, 0], negatives]))[:, None]
    with torch.no_grad():
        logits = torch.cat([network(part.float() / 255)[1] for part in torch.split(images, 64)])
    truth = np.repeat([1, 0], [len(grid), len(negatives)])
    fit = LogisticRegression(C=1.0).fit(logits[:, None].double().numpy(), truth)
    network.calibration.copy_(torch.tensor([fit.coef_[0, 0], fit.intercept_[0]]))


def _export(network: LungNetwork, path: Path) -> None:
    export_onnx(
        LungGraph(network),
        path,
        size_px=GRID_PX,
        note="Finds the lungs on a chest radiograph. Research use only, not a medical device.",
        outputs=list(OUTPUTS),
    )
    store_as_float16(path)
    if path.stat().st_size > LARGEST_BYTES:
        raise InputError(
            f"the lung finder has {path.stat().st_size} bytes, {LARGEST_BYTES} are allowed"
        )

"""Hidden lungs: what is told all the same is found, and only that."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from cxr.audit.pooled_features import pooled_features

from cxr.audit.occlude import BOX_MARGIN, EVEN_GRAY, boxes, occlude, visible_share
from cxr.audit.occluded_probs import FEATURES, Known
from cxr.audit.occlusion import audit_lungs
from cxr.errors import InputError

SIDE = 64


def run(images, members, ensemble, **options):
    return audit_lungs(members, ensemble, images, rng=np.random.default_rng(0), **options)


def cell(result, model: str, image: str, column: str):
    table = result.tables[0]
    (row,) = [row for row in table.rows if row[:2] == (model, image)]
    return row[table.columns.index(column)]


def test_a_disease_inside_the_lungs_is_gone_when_they_are_hidden(
    patch_images, patch_members, patch_ensemble
):
    result = run(patch_images(inside=True), patch_members, patch_ensemble)
    assert result.verdict == "clear"
    assert cell(result, "ensemble", "whole", "AUROC covid").startswith("1.00")
    assert cell(result, "ensemble", "lungs only", "AUROC covid").startswith("1.00")
    assert result.figure["chance"] == 0
    assert result.figure["low"] < 0.3


def test_a_marker_outside_the_lungs_is_a_shortcut(
    patch_images, patch_members, patch_ensemble, tmp_path
):
    result = run(
        patch_images(inside=False), patch_members, patch_ensemble, folder=tmp_path, note="made up"
    )
    assert result.verdict == "shortcut"
    assert result.figure["value"] == 1
    assert 0.6 < result.figure["low"] < 1
    assert "disease that reaches beyond the lungs' outline" in result.sentence
    assert "None of that" not in result.sentence
    assert cell(result, FEATURES, "box alone", "AUROC covid").startswith("0.50")
    for model in ("patches", "ensemble", FEATURES, "linear on 16 x 16"):
        assert cell(result, model, "box black", "AUROC covid").startswith("1.00"), model
    assert result.figures == ["lungs.png"]
    assert (tmp_path / "lungs.png").stat().st_size > 10_000


def test_without_masks_the_test_is_skipped_with_the_reason(
    patch_images, patch_members, patch_ensemble
):
    result = run(patch_images(masks=False), patch_members, patch_ensemble)
    assert result.verdict == "skipped"
    assert "no image of this data set has a lung mask" in result.reason


def test_images_without_a_mask_are_left_out_and_counted(
    patch_images, patch_members, patch_ensemble
):
    images = patch_images(count=160)
    images.has_mask[-6:] = False
    result = run(images, patch_members, patch_ensemble)
    assert "6 test images without a mask take no part" in result.reason


def test_a_black_mask_counts_as_none(patch_images, patch_members, patch_ensemble):
    images = patch_images(count=160)
    known = images.read_masks

    def read(rows):
        return known(rows) & (rows < 157)[:, None, None]

    object.__setattr__(images, "read_masks", read)
    result = run(images, patch_members, patch_ensemble)
    assert "3 test images without a mask take no part" in result.reason


def test_a_class_with_too_few_masks_is_named(patch_images, patch_members, patch_ensemble):
    images = patch_images()
    images.has_mask[np.flatnonzero(images.targets == 1)[8:]] = False
    result = run(images, patch_members, patch_ensemble)
    assert result.verdict == "skipped"
    assert "covid (0 images of 0 patients)" in result.reason
    assert "10 images of 10 patients are needed" in result.reason


def boxed_by_class(images, *, wide: bool, seed: int = 0):
    """Return the images with noise of both classes alike, and smaller lungs on covid."""
    rng = np.random.default_rng(seed)
    lungs = np.zeros(images.pixels.shape, bool)
    for row, target in enumerate(images.targets):
        edge = int(rng.integers(10, 18)) - (4 if wide and target else 0)
        lungs[row, edge : SIDE - edge, 10:54] = True
    pixels = rng.integers(60, 100, images.pixels.shape, dtype=np.uint8)
    return replace(images, pixels=pixels, read_masks=lambda rows: lungs[rows])


def test_where_the_lungs_lie_is_no_shortcut_by_itself(patch_images, patch_members, patch_ensemble):
    images = boxed_by_class(patch_images(count=240), wide=True)
    result = run(images, patch_members, patch_ensemble)
    told = cell(result, "linear on 16 x 16", "box black", "AUROC covid")
    # By the old measure, the AUROC under the box, this was suspicious at least.
    assert float(told.split("[")[1].split(",")[0]) > 0.65, told
    assert result.verdict == "clear"
    beyond = result.tables[1]
    rows = {row[:2]: row for row in beyond.rows}
    control = rows["linear on 16 x 16", "covid"][beyond.columns.index("AUROC of the box alone")]
    assert float(str(control)[:4]) >= float(told[:4]) - 0.02


def test_a_marker_is_found_beside_a_box_that_tells_much(
    patch_images, patch_members, patch_ensemble
):
    images = boxed_by_class(patch_images(count=240), wide=True)
    images.pixels[images.targets == 1, :8, :8] = 255
    result = run(images, patch_members, patch_ensemble)
    assert result.verdict in ("suspicious", "shortcut")
    assert result.figure["value"] == 1


def test_known_features_spare_a_pass_and_change_nothing(
    patch_images, patch_members, patch_ensemble
):
    images = patch_images()
    rows = np.arange(120)
    values = pooled_features(patch_members["patches"], images.pixels, rows)
    known = Known(rows, {"patches": values})
    counted: list[int] = []

    @contextlib.contextmanager
    def progress(_text, total):
        done: list[int] = []
        yield lambda: done.append(1)
        assert len(done) == total
        counted.append(total)

    fresh = run(images, patch_members, patch_ensemble, progress=progress)
    spared = run(images, patch_members, patch_ensemble, known=known, progress=progress)
    assert fresh.tables == spared.tables
    assert counted[0] - counted[2] == 120


def test_variants_hide_what_they_say():
    rng = np.random.default_rng(1)
    images = rng.integers(1, 255, (2, 50, 50), dtype=np.uint8)
    masks = np.zeros(images.shape, bool)
    masks[:, 10:20, 10:20] = True
    masks[:, 30:40, 25:45] = True
    only = occlude(images, masks, "lungs only")
    assert (only[~masks] == 0).all()
    assert (only[masks] == images[masks]).all()
    black = occlude(images, masks, "lungs black")
    assert (black[masks] == 0).all()
    assert (black[~masks] == images[~masks]).all()
    box = occlude(images, masks, "box black")
    margin = round(BOX_MARGIN * 50)
    assert (box[:, 10 - margin : 40 + margin, 10 - margin : 45 + margin] == 0).all()
    assert (box[~boxes(masks)] == images[~boxes(masks)]).all()
    alone = occlude(images, masks, "box alone")
    assert (alone == np.where(boxes(masks), 0, EVEN_GRAY)).all()
    assert visible_share(masks, "box alone") == 0
    gray = occlude(images, masks, "lungs gray")
    assert gray[0][masks[0]][0] == round(images[0][~masks[0]].mean())
    # What the lungs show does not reach the fill.
    other = np.where(masks, 255 - images, images).astype(np.uint8)
    assert (occlude(other, masks, "lungs gray") == gray).all()
    assert visible_share(masks, "lungs black") == pytest.approx(1 - 300 / 2500)
    assert visible_share(masks, "lungs only") == pytest.approx(300 / 2500)


def test_bad_input_is_refused_in_one_line():
    images = np.zeros((1, 40, 40), np.uint8)
    with pytest.raises(InputError, match="without a mask cannot be occluded"):
        occlude(images, np.zeros(images.shape, bool), "lungs black")
    with pytest.raises(InputError, match="allowed are whole, lungs only"):
        occlude(images, np.ones(images.shape, bool), "upside down")
    with pytest.raises(InputError, match="use the same images"):
        occlude(images, np.ones((2, 40, 40), bool), "whole")

"""Occluded lungs: what is told all the same is found, and only that."""

from dataclasses import replace

import numpy as np
import pytest

from cxr.audit.occlude import BOX_MARGIN, EVEN_GRAY, boxes, occlude, visible_share
from cxr.audit.occluded_probs import FEATURES
from cxr.audit.occlusion import audit_lungs
from cxr.errors import InputError

SIDE = 64


def auroc(result, model: str, image: str) -> float:
    rows = result.table("variants").records()
    (row,) = [row for row in rows if (row["model"], row["image"]) == (model, image)]
    return row["auroc_covid"]


def test_a_disease_inside_the_lungs_is_gone_when_they_are_occluded(patch_context):
    result = audit_lungs(patch_context(inside=True))
    assert result.verdict == "clear"
    assert auroc(result, "ensemble", "whole")["value"] == pytest.approx(1, abs=5e-3)
    assert auroc(result, "ensemble", "lungs only")["value"] == pytest.approx(1, abs=5e-3)
    assert result.statistic.chance == 0
    assert result.statistic.low < 0.3


def test_a_marker_outside_the_lungs_is_a_shortcut(patch_context, tmp_path):
    result = audit_lungs(patch_context(inside=False, folder=tmp_path, note="made up"))
    assert result.verdict == "shortcut"
    assert result.statistic.value == 1
    assert 0.6 < result.statistic.low < 1
    assert "disease that reaches beyond the lungs' outline" in result.sentence
    assert "None of that" not in result.sentence
    assert auroc(result, FEATURES, "box alone")["value"] == pytest.approx(0.5, abs=5e-3)
    for model in ("patches", "ensemble", FEATURES, "linear on 16 x 16"):
        assert auroc(result, model, "box black")["value"] == pytest.approx(1, abs=5e-3), model
    assert result.values["auroc"]["box_black"]["covid"]["value"] == pytest.approx(1, abs=5e-3)
    assert set(result.values["accuracy"]) >= {"whole", "lungs_black", "box_black", "box_alone"}
    assert result.plots == ["lungs.png"]
    assert (tmp_path / "lungs.png").stat().st_size > 10_000


def test_without_masks_the_test_is_skipped_with_the_reason(patch_context):
    for context in (patch_context(masks=False), patch_context(has_mask=None)):
        result = audit_lungs(context)
        assert result.verdict == "skipped"
        assert "no image of this data set has a lung mask" in result.reason


def test_images_without_a_mask_are_left_out_and_counted(patch_context):
    context = patch_context(count=160)
    context.has_mask[-6:] = False
    assert "6 test images without a mask take no part" in audit_lungs(context).reason


def test_a_black_mask_counts_as_none(patch_context):
    context = patch_context(count=160)

    def read(rows):
        return context.read_masks(rows) & (rows < 157)[:, None, None]

    result = audit_lungs(replace(context, read_masks=read))
    assert "3 test images without a mask take no part" in result.reason


def test_a_class_with_too_few_masks_is_named(patch_context):
    context = patch_context()
    context.has_mask[np.flatnonzero(context.targets == 1)[8:]] = False
    result = audit_lungs(context)
    assert result.verdict == "skipped"
    assert "covid (0 images of 0 patients)" in result.reason
    assert "10 images of 10 patients are needed" in result.reason


def boxed_by_class(context, *, wide: bool, seed: int = 0):
    """Return the images with noise of both classes alike, and smaller lungs on covid."""
    rng = np.random.default_rng(seed)
    lungs = np.zeros(context.pixels.shape, bool)
    for row, target in enumerate(context.targets):
        edge = int(rng.integers(10, 18)) - (4 if wide and target else 0)
        lungs[row, edge : SIDE - edge, 10:54] = True
    pixels = rng.integers(60, 100, context.pixels.shape, dtype=np.uint8)
    return replace(context, pixels=pixels, read_masks=lambda rows: lungs[rows])


def test_where_the_lungs_lie_is_no_shortcut_by_itself(patch_context):
    result = audit_lungs(boxed_by_class(patch_context(count=240), wide=True))
    boxed = auroc(result, "linear on 16 x 16", "box black")
    # By the old measure, the AUROC under the box, this was suspicious at least.
    assert boxed["low"] > 0.65
    assert result.verdict == "clear"
    rows = {(row["model"], row["class"]): row for row in result.table("excess").records()}
    control = rows["linear on 16 x 16", "covid"]["control_auroc"]
    assert control["value"] >= boxed["value"] - 0.02


def test_a_marker_is_found_beside_a_box_that_tells_much(patch_context):
    context = boxed_by_class(patch_context(count=240), wide=True)
    context.pixels[context.targets == 1, :8, :8] = 255
    result = audit_lungs(context)
    assert result.verdict in ("suspicious", "shortcut")
    assert result.statistic.value == 1


def test_variants_occlude_what_they_say():
    rng = np.random.default_rng(1)
    images = rng.integers(1, 255, (2, 50, 50), dtype=np.uint8)
    masks = np.zeros(images.shape, bool)
    masks[:, 10:20, 10:20] = True
    masks[:, 30:40, 25:45] = True
    only = occlude(images, masks, "lungs_only")
    assert (only[~masks] == 0).all()
    assert (only[masks] == images[masks]).all()
    black = occlude(images, masks, "lungs_black")
    assert (black[masks] == 0).all()
    assert (black[~masks] == images[~masks]).all()
    box = occlude(images, masks, "box_black")
    margin = round(BOX_MARGIN * 50)
    assert (box[:, 10 - margin : 40 + margin, 10 - margin : 45 + margin] == 0).all()
    assert (box[~boxes(masks)] == images[~boxes(masks)]).all()
    alone = occlude(images, masks, "box_alone")
    assert (alone == np.where(boxes(masks), 0, EVEN_GRAY)).all()
    assert visible_share(masks, "box_alone") == 0
    gray = occlude(images, masks, "lungs_gray")
    assert gray[0][masks[0]][0] == round(images[0][~masks[0]].mean())
    # What the lungs show does not reach the fill.
    other = np.where(masks, 255 - images, images).astype(np.uint8)
    assert (occlude(other, masks, "lungs_gray") == gray).all()
    assert visible_share(masks, "lungs_black") == pytest.approx(1 - 300 / 2500)
    assert visible_share(masks, "lungs_only") == pytest.approx(300 / 2500)


def test_bad_input_is_refused_in_one_line():
    images = np.zeros((1, 40, 40), np.uint8)
    with pytest.raises(InputError, match="without a mask cannot be occluded"):
        occlude(images, np.zeros(images.shape, bool), "lungs_black")
    with pytest.raises(InputError, match="allowed are whole, lungs_only"):
        occlude(images, np.ones(images.shape, bool), "upside down")
    with pytest.raises(InputError, match="use the same images"):
        occlude(images, np.ones((2, 40, 40), bool), "whole")

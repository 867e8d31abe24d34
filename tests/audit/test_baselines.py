"""The trivial inputs by hand, and verdicts on inputs that do and do not tell the class."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.audit.baseline_inputs import (
    BORDER,
    FILE,
    SIZE,
    THUMBNAIL,
    WORDS,
    Inputs,
    file_traits,
    gray_histogram,
    gray_spread,
    original_size,
    outer_rings,
    read_inputs,
    thumbnails,
)
from cxr.audit.baselines import audit_baselines
from cxr.audit.context import AuditContext

LABELS = ("normal", "covid", "viral")


def test_thumbnail_is_the_mean_of_its_blocks():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64), np.uint8)
    blocks = images[[1]].reshape(1, 16, 4, 16, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(thumbnails(images, np.array([1])), blocks, atol=1e-3)


def test_outer_rings():
    thumbs = np.zeros((1, 16, 16), np.float32)
    thumbs[:, 2:-2, 2:-2] = 1
    rings = outer_rings(thumbs)
    assert rings.shape == (1, 16 * 16 - 12 * 12)
    assert not rings.any()


def test_gray():
    images = np.zeros((1, 32, 32), np.uint8)
    images[0, :16] = 255
    rows = np.array([0])
    np.testing.assert_allclose(gray_spread(images, rows), [[127.5, 127.5]])
    shares = gray_histogram(images, rows)[0]
    assert (shares[0], shares[-1], shares.sum()) == (0.5, 0.5, 1)


def test_original_size():
    np.testing.assert_allclose(original_size(["400"], ["200"]), [[400, 200, 2]])
    assert original_size(["400", ""], ["200", "3"]) is None
    assert original_size(["0"], ["200"]) is None


def test_file_traits(tmp_path):
    gray = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8))
    gray.save(tmp_path / "a.png")
    gray.convert("RGB").save(tmp_path / "b.jpeg", quality=50)
    found = file_traits([tmp_path / "a.png", tmp_path / "b.jpeg"])
    size = (tmp_path / "a.png").stat().st_size
    assert found is not None
    np.testing.assert_allclose(found[0, :4], [size, size / 2000, 0, 1])
    assert found[1, 2:4].tolist() == [1, 3]
    # The luminance table of the JPEG standard's annex K, which is quality 50, begins with 16.
    assert found[1, 4] == 16
    assert file_traits([tmp_path / "gone.png"]) is None


def test_inputs_that_cannot_be_had_are_named(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    paths = [tmp_path / name for name in "abc"]
    found = read_inputs(images, ["1", "2", ""], ["1"] * 3, paths)
    assert set(found.missing) == {SIZE, FILE}
    same = read_inputs(images, ["32"] * 3, ["32"] * 3, paths)
    assert same.missing[SIZE] == "all originals have one size"


def audit(inputs: Inputs, targets, groups, test, probs):
    """Audit made-up inputs; a network named "net" has the probabilities."""
    labels, split = np.array(LABELS)[targets], np.where(test, "test", "train")
    context = AuditContext(
        table=pd.DataFrame({"label": labels, "group": groups.astype(str), "split": split}),
        pixels=np.empty((len(targets), 0, 0), np.uint8),
        labels=LABELS,
        test_rows=np.flatnonzero(test),
        members={},
        ensemble=None,
        probs={"net": probs},
    )
    return audit_baselines(context, inputs=inputs)


def judged(strength: float, *, count: int = 240, absent: int | None = None):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, count)
    if absent is not None:
        targets[targets == absent] = (absent + 1) % 3
    rows = np.arange(count)
    features = rng.normal(size=(count, 6))
    features[:, :3] += strength * np.eye(3)[targets]
    test = rows % 3 == 0
    # A network that is right on four images of five.
    right = rng.random(int(test.sum())) < 0.8
    predicted = np.where(right, targets[test], (targets[test] + 1) % 3)
    inputs = {BORDER: features, THUMBNAIL: features + targets[:, None]}
    return audit(
        Inputs(inputs, {FILE: "gone"}), targets, rows, test, 0.7 * np.eye(3)[predicted] + 0.1
    )


@pytest.mark.parametrize(
    ("strength", "verdict"), [(0.0, "clear"), (0.8, "suspicious"), (4.0, "shortcut")]
)
def test_verdict_follows_what_the_border_tells(strength, verdict):
    found = judged(strength)
    assert found.verdict == verdict
    assert found.reason == f"{WORDS[FILE]}: gone"
    assert found.statistic.low <= found.statistic.value <= found.statistic.high
    assert set(found.values["accuracy"]) == {BORDER, THUMBNAIL}
    assert set(found.values["auroc"][BORDER]) == set(LABELS)


def test_thumbnails_are_not_judged_but_compared():
    found = judged(0.0)
    assert found.verdict == "clear"
    inputs = {row["best_input"] for row in found.table("gains").records()}
    assert inputs == {WORDS[THUMBNAIL]}
    assert judged(4.0).table("gains").records()[0]["difference"]["value"] < 0


def test_a_class_without_images_is_named():
    found = judged(4.0, absent=1)
    assert (
        "too few test images to judge covid (0 images of 0 patients): 10 images of 10"
        in found.reason
    )
    assert [row["class"] for row in found.table("gains").records()] == ["normal", "viral"]


def on_chance(seed: int, *, images: int, patients: int):
    """Audit random features; covid has so many images of so many patients in test."""
    rng = np.random.default_rng(seed)
    targets = np.repeat([0, 1, 2, 0, 2, 1], [40, 40, 40, 30, 30, images])
    groups = np.arange(len(targets))
    groups[180:] = 180 + np.arange(images) % patients
    test = np.arange(len(targets)) >= 120
    features = {name: rng.normal(size=(len(targets), 6)) for name in (BORDER, SIZE, FILE)}
    even = np.full((int(test.sum()), 3), 1 / 3)
    return audit(Inputs(features, {}), targets, groups, test, even)


@pytest.mark.parametrize(("images", "patients"), [(2, 2), (1, 1), (12, 2)])
def test_a_few_images_of_a_class_alarm_nobody(images, patients):
    found = [on_chance(seed, images=images, patients=patients) for seed in range(20)]
    assert [result.verdict for result in found].count("clear") >= 19
    assert f"covid ({images} images of {patients} patients)" in found[0].reason
    assert "covid" not in found[0].statistic.metric


def test_no_class_with_enough_images_is_skipped_with_the_counts():
    found = judged(4.0, count=24)
    assert found.verdict == "skipped"
    assert "too few test images to judge normal (" in found.reason

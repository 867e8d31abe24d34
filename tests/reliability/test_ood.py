"""What is refused: each test by itself, limits, round trips, few images."""

from pathlib import Path

import numpy as np
import pytest

from cxr.errors import InputError, MissingInputError
from cxr.imaging.raster import COLOUR_LIMIT, colourfulness
from cxr.lungs.find import Lungs
from cxr.reliability import ood_fit
from cxr.reliability.ood import OodReference, blocks
from cxr.reliability.ood_fit import (
    fit_ood,
    fit_reference,
    fit_subspace,
    refit_distances,
    turned_ways,
    upright_ways,
    with_lungs,
)

SIDE = 56


def chests(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return images of two dark lungs below bright shoulders, (N, S, S)."""
    down, right = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    images = np.empty((count, SIDE, SIDE))
    for image in images:
        x, y, w = rng.normal(0.28, 0.02), rng.normal(0.42, 0.03), rng.normal(0.15, 0.01)
        lungs = np.exp(-((((right - x) / w) ** 2 + ((down - y) / 0.25) ** 2) ** 2))
        lungs += np.exp(-((((right - 1 + x) / w) ** 2 + ((down - y) / 0.25) ** 2) ** 2))
        image[:] = 190 + 30 * down - 130 * lungs + rng.normal(0, 4, (SIDE, SIDE))
    return np.clip(images, 0, 255).astype(np.uint8)


def features_of(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a network may see: coarse gray and coarse texture."""
    small = blocks(images).reshape(len(images), -1)
    steps = np.abs(np.diff(images.astype(float), axis=2)).mean(axis=2)
    return {"gray": small[:, ::3].astype(np.float32), "texture": steps.astype(np.float32)}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return chests(np.random.default_rng(0), 900)


@pytest.fixture(scope="module")
def reference(images: np.ndarray) -> OodReference:
    return fit_reference(features_of, images, np.arange(400), np.arange(400, 700))


def failing(reference: OodReference, images: np.ndarray, **options) -> list[set[str]]:
    found = reference.check(images, features_of(images), **options)
    return [{refusal.test for refusal in refusals} for _, refusals in found]


def share(failed: list[set[str]], test: str | None = None) -> float:
    return float(np.mean([bool(one) if test is None else test in one for one in failed]))


def test_blocks_are_means_also_where_the_side_is_no_multiple():
    image = np.arange(28 * 28, dtype=np.uint8).reshape(1, 28, 28)
    np.testing.assert_allclose(blocks(image)[0, 0, 0], image[0, :2, :2].mean())
    odd = np.random.default_rng(0).integers(0, 256, (2, 45, 45)).astype(np.uint8)
    edges = np.arange(15) * 45 // 14
    expected = odd[1, edges[3] : edges[4], edges[13] : edges[14]].mean()
    np.testing.assert_allclose(blocks(odd)[1, 3, 13], expected)


def test_six_ways_are_turned_and_two_are_not():
    small = np.random.default_rng(0).random((1, 14, 14))
    both = [*upright_ways(small), *turned_ways(small)]
    assert len({one.tobytes() for one in map(np.ascontiguousarray, both)}) == 8


def test_distance_equals_a_slow_oracle():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(80, 30)) * np.linspace(3, 0.1, 30)
    space = fit_subspace(rows)
    kept = len(space.axes)
    assert kept == 20
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    variances = values.copy()
    variances[: 30 - kept] = values[: 30 - kept].mean()
    inverse = vectors @ np.diag(1 / variances) @ vectors.T
    asked = rng.normal(size=(5, 30))
    away = asked - rows.mean(axis=0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", away, inverse, away))
    np.testing.assert_allclose(space.distance(asked), expected, rtol=1e-4)


def test_validation_images_pass_as_often_as_stated_and_new_ones_too(reference, images):
    assert share(failing(reference, images[400:700])) <= 0.01
    assert share(failing(reference, images[700:])) <= 0.04
    assert "99% of 300 validation images" in reference.info["note"]


def test_turned_images_are_refused_as_turned_and_mirrored_ones_are_not(reference, images):
    shown = images[700:760]
    for way in turned_ways(shown):
        failed = failing(reference, np.ascontiguousarray(way))
        assert share(failed, "turned") >= 0.95
        assert share(failed, "inverted") <= 0.05
    assert share(failing(reference, shown[:, :, ::-1]), "turned") <= 0.05


def test_inverted_images_are_refused_as_inverted_and_not_as_turned(reference, images):
    failed = failing(reference, 255 - images[700:760])
    assert share(failed, "inverted") == 1
    assert share(failed, "turned") <= 0.05
    both = failing(reference, np.ascontiguousarray(255 - images[700:760, ::-1]))
    assert share(both, "inverted") == 1
    assert share(both, "turned") >= 0.95


def test_blank_images_are_refused_as_blank_alone(reference):
    rng = np.random.default_rng(2)
    flat = np.repeat(np.arange(0, 250, 25, np.uint8), SIDE * SIDE).reshape(-1, SIDE, SIDE)
    for images in (flat, flat + rng.integers(0, 5, flat.shape).astype(np.uint8)):
        assert failing(reference, images) == [{"blank"}] * len(images)


def test_noise_is_refused_and_the_score_says_how_far(reference):
    noise = np.random.default_rng(3).integers(0, 256, (20, SIDE, SIDE)).astype(np.uint8)
    for score, refusals in reference.check(noise, features_of(noise)):
        assert score > 1
        assert refusals


def test_every_refusal_is_one_sentence_with_its_figures(reference, images):
    turned = np.ascontiguousarray(np.rot90(images[700:701], axes=(1, 2)))
    ((_, refusals),) = reference.check(turned, features_of(turned), colours=[40.0])
    named = {refusal.test: refusal for refusal in refusals}
    assert {"turned", "colour"} <= set(named)
    assert "40.0 gray levels off gray, and at most 5.0" in named["colour"].sentence
    assert named["turned"].value > named["turned"].limit
    for refusal in refusals:
        assert refusal.sentence.endswith(".")
        assert "\n" not in refusal.sentence


def test_features_that_are_not_numbers_are_refused(reference, images):
    given = {name: rows.copy() for name, rows in features_of(images[:1]).items()}
    given["texture"][:] = np.nan
    ((_, refusals),) = reference.check(images[:1], given)
    assert [refusal.test for refusal in refusals] == ["distance"]


def test_features_of_another_bundle_are_refused(reference, images):
    with pytest.raises(InputError, match="belongs to another bundle"):
        reference.check(images[:1], {"gray": np.zeros((1, 3)), "texture": np.zeros((1, 3))})


def test_colour_is_told_from_tint_and_from_marks():
    rng = np.random.default_rng(4)
    gray = rng.integers(0, 256, (120, 90, 1))
    image = np.repeat(gray, 3, axis=2).astype(np.uint8)
    assert colourfulness(image) < 0.01
    sepia = np.clip(gray * [0.95, 0.74, 0.43] + [10, 5, 0], 0, 255).astype(np.uint8)
    assert colourfulness(sepia) < 1
    marked = image.copy()
    marked[:12] = (255, 0, 0)
    assert colourfulness(marked) < 1
    photograph = rng.integers(0, 256, (120, 90, 3)).astype(np.uint8)
    assert colourfulness(photograph) > 2 * COLOUR_LIMIT
    assert colourfulness(np.full((40, 40, 3), 7, np.uint8)) == pytest.approx(0, abs=1e-9)


def test_a_reference_comes_back_as_it_was(reference, images, tmp_path: Path):
    reference.save(tmp_path / "ood.npz")
    again = OodReference.load(tmp_path / "ood.npz")
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "ood.npz").read_bytes()
    shown = images[:30]
    for one, other in zip(
        reference.check(shown, features_of(shown)),
        again.check(shown, features_of(shown)),
        strict=True,
    ):
        assert other[0] == pytest.approx(one[0])
        assert [refusal.test for refusal in other[1]] == [refusal.test for refusal in one[1]]


def test_a_damaged_or_missing_file_is_one_line(reference, tmp_path: Path):
    path = tmp_path / "ood.npz"
    with pytest.raises(MissingInputError, match="restore the bundle"):
        OodReference.load(path)
    reference.save(path)
    whole = path.read_bytes()
    for broken in (b"", b"no zip", whole[:500], whole[:-40]):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="or damaged"):
            OodReference.load(path)
    # An object array would have to be unpickled.
    np.savez(path, head=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="or damaged"):
        OodReference.load(path)


def test_the_same_seed_gives_the_same_reference(images, tmp_path: Path):
    train, val = np.arange(300), np.arange(300, 600)
    for name in ("one", "other"):
        fit_reference(features_of, images, train, val, most_train=50).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_few_images_give_a_reference_that_says_so(images):
    reference = fit_reference(features_of, images, np.arange(40), np.arange(40, 46))
    assert "only 6 validation images" in reference.info["note"]
    assert share(failing(reference, images[40:46])) == 0
    assert share(failing(reference, images[100:200])) <= 0.2
    noise = np.random.default_rng(3).integers(0, 256, (20, SIDE, SIDE)).astype(np.uint8)
    assert share(failing(reference, noise)) == 1
    nothing = fit_reference(features_of, images, np.arange(40), np.arange(0))
    assert share(failing(nothing, images[:40])) <= 0.2


def test_too_few_images_and_broken_features_are_errors(images):
    with pytest.raises(InputError, match="7 training images"):
        fit_reference(features_of, images, np.arange(7), np.arange(7, 20))
    broken = {name: np.full((20, 4), np.nan) for name in ("gray", "texture")}
    with pytest.raises(InputError, match="not finite"):
        fit_ood(broken, broken, train_blocks=blocks(images[:20]), val_blocks=blocks(images[:20]))


def test_limits_spend_the_allowed_share_and_use_a_gap():
    values = np.linspace(0, 1, 300)
    found = {"distance a": values, "turned": np.linspace(-1, -0.6, 300)}
    limits = ood_fit._limits(found, {"turned": 0.8})
    assert -0.61 < limits["turned"] - 0.7 + 0.6 < 0.1 + 0.6
    assert (found["turned"] > limits["turned"]).sum() == 0
    assert 1 <= (values > limits["distance a"]).sum() <= 3


def found_lungs(*boxes: tuple[int, int, int, int], score: float = 1.0) -> Lungs:
    """Return lungs that fill boxes of (top, left, bottom, right) cells of a 100 x 100 grid."""
    mask = np.zeros((100, 100), bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return Lungs(mask, (0.1, 0.1, 0.9, 0.9) if boxes else None, score, len(boxes))


PAIR = found_lungs((20, 10, 80, 40), (25, 60, 80, 90))


def test_a_pair_of_lungs_side_by_side_passes(reference, images):
    asked = with_lungs(reference, [PAIR] * 30)
    assert asked.limits["lungs"] == ood_fit.LUNGS_SCORE
    assert share(failing(asked, images[400:700], lungs=[PAIR] * 300)) <= 0.01


@pytest.mark.parametrize(
    ("lungs", "words"),
    [
        (found_lungs(score=0.0), "0 found, at least 2 needed"),
        (found_lungs((20, 10, 80, 60)), "1 found"),
        (found_lungs((20, 10, 80, 40), (20, 60, 40, 70)), "0.11 of the larger's area"),
        (found_lungs((10, 10, 50, 40), (45, 60, 85, 90)), "share 0.12 of their height"),
        (found_lungs((20, 10, 80, 40), (25, 60, 80, 90), score=0.5), "score is 0.50"),
    ],
)
def test_anything_but_two_lungs_side_by_side_is_refused_in_a_sentence(
    reference, images, lungs, words
):
    asked = with_lungs(reference, [PAIR] * 30)
    ((_, refusals),) = asked.check(images[400:401], features_of(images[400:401]), lungs=[lungs])
    assert [refusal.test for refusal in refusals] == ["lungs"]
    assert words in refusals[0].sentence
    assert "a whole upright frontal chest image is expected" in refusals[0].sentence


def test_an_image_with_a_clear_pair_of_lungs_is_not_called_turned(reference, images):
    asked = with_lungs(reference, [PAIR] * 30)
    turned = np.ascontiguousarray(np.rot90(images[700:701], axes=(1, 2)))
    assert "turned" not in failing(asked, turned, lungs=[PAIR])[0]
    unsure = found_lungs((20, 10, 80, 40), (25, 60, 80, 90), score=0.95)
    assert "turned" in failing(asked, turned, lungs=[unsure])[0]


def test_lungs_are_not_asked_for_where_the_finder_does_not_know_the_images(reference, images):
    for lungs in ([], [PAIR] * 9 + [found_lungs()]):
        asked = with_lungs(reference, lungs)
        assert "lungs" not in asked.limits
        assert asked.info["lungs_refused_on_validation"] >= 0.1
    assert share(failing(asked, images[400:401], lungs=[found_lungs()])) == 0


def test_distances_fitted_anew_let_other_images_pass_and_change_nothing_else(reference, images):
    other = np.clip(images[700:800].astype(float) * 0.5 + 90, 0, 255).astype(np.uint8)
    assert share(failing(reference, other), "distance") > 0.5
    local = refit_distances(reference, features_of(other))
    assert share(failing(local, other), "distance") == 0
    assert "100 local images" in local.info["note"]
    same = ("turned", "inverted", "blank", "colour")
    assert {name: local.limits[name] for name in same} == {
        name: reference.limits[name] for name in same
    }

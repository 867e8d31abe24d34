"""Training of the lung finder: what it learns, repeats and refuses."""

import numpy as np
import pytest
import torch

from cxr.data.loader import BatchLoader, EpochSampler
from cxr.errors import InputError
from cxr.training.lung_finder import LungGraph, LungNetwork, distort, fit_lungs
from cxr.training.lung_negatives import draw_negatives
from cxr.training.trainer_settings import Augmentation, LungSettings

STILL = Augmentation(
    *(0, 0, 0), brightness=0, contrast=0, gamma=0, noise=0, blur_px=0, horizontal_flip=0
)
SIDE = 128


def chests(count: int) -> np.ndarray:
    """Return (count, 2, G, G): two dark boxes on gray, and their mask."""
    random = np.random.default_rng(0)
    pixels = np.zeros((count, 2, SIDE, SIDE), np.uint8)
    pixels[:, 0] = 170
    for image, mask in pixels:
        for left in (20, 74):
            top, size = int(random.integers(15, 40)), int(random.integers(55, 70))
            image[top : top + size, left : left + 34] = 60
            mask[top : top + size, left : left + 34] = 255
    return pixels


def train(images: int, seed: int) -> LungNetwork:
    settings = LungSettings(
        pretrained="none", images=images, batch_size=4, negatives=0.0, marker=0, invert=0,
        zoom=0.1, shift=0.02, rotation_deg=2, augment=STILL, ema_decay=0.8,
    )  # fmt: skip
    torch.manual_seed(0)
    network = LungNetwork()
    pixels = chests(4)
    order = EpochSampler(np.arange(4), seed=0)
    batches = BatchLoader(pixels, np.ones(4, np.int64), order, batch_size=4, drop_last=True)
    fit_lungs(network, batches, settings, seed=seed)
    return network


@pytest.mark.slow
def test_it_learns_four_images():
    network, pixels = train(160, seed=0), chests(4)
    lung, score = LungGraph(network)(torch.from_numpy(pixels[:, :1]))
    truth = pixels[:, 1] > 0
    found = lung.detach().numpy() > 0.5
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9
    assert score.shape == (4,)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = (train(8, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not all(torch.equal(value, other[key]) for key, value in first.items())


def test_image_and_mask_move_together():
    settings = LungSettings(marker=0, invert=0, augment=STILL)
    pixels = torch.from_numpy(chests(6))
    images, masks = distort(pixels, settings, generator=torch.Generator().manual_seed(0))
    assert images.shape == masks.shape == (6, 1, SIDE, SIDE)
    assert images.min() >= 0
    assert images.max() <= 1
    lung, rest = images[masks > 0], images[masks == 0]
    assert 0 < lung.mean() < 0.45 < rest[rest > 0.3].mean()
    assert set(masks.unique().tolist()) == {0.0, 1.0}


def test_no_deviation_leaves_the_mask_but_for_mirroring():
    settings = LungSettings(marker=0, invert=0, zoom=0, shift=0, rotation_deg=0, augment=STILL)
    pixels = torch.from_numpy(chests(6))
    masks = distort(pixels, settings, generator=torch.Generator().manual_seed(0))[1]
    for mask, before in zip(masks[:, 0], pixels[:, 1] > 0, strict=True):
        assert torch.equal(mask > 0, before) or torch.equal(mask.flip(1) > 0, before)


def test_exposure_tells_the_network_nothing():
    network = LungNetwork().eval()
    gray = torch.rand(1, 1, SIDE, SIDE)
    with torch.no_grad():
        first, brighter = network(gray)[0], network(gray * 0.5 + 0.3)[0]
    torch.testing.assert_close(first, brighter, atol=1e-3, rtol=1e-3)


def test_negatives_show_no_pair():
    pixels = chests(5)
    rng = np.random.default_rng(0)
    images, masks = draw_negatives(120, pixels[:, 0], pixels[:, 1], rng=rng)
    assert images.shape == masks.shape == (120, SIDE, SIDE)
    assert images.dtype == np.uint8
    assert not masks[::2].any()  # drawn from nothing
    assert masks[1::2].any()  # one lung of a chest, which stays a lung
    assert len(np.unique(images.reshape(120, -1), axis=0)) > 100
    again = draw_negatives(120, pixels[:, 0], pixels[:, 1], rng=np.random.default_rng(0))[0]
    assert (images == again).all()


def test_chests_whose_mask_is_empty_make_negatives_too():
    pixels = chests(3)
    images, masks = draw_negatives(40, pixels[:, 0], pixels[:, 1] * 0, rng=np.random.default_rng(0))
    assert images.any()
    assert not masks.any()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"images": 8}, r"finder\.images is 8 and finder\.batch_size 32"),
        ({"batch_size": 1}, r"finder\.batch_size 1"),
        ({"negatives": 1.0}, r"finder\.negatives is 1\.0: allowed are 0 up to 1"),
        ({"shift": -0.1}, r"finder\.shift is -0\.1"),
    ],
)
def test_settings_out_of_range_are_refused(values, words):
    with pytest.raises(InputError, match=words):
        LungSettings(**values)

"""16-bit PNG and TIFF: every depth comes back as the image of 8 bits that it was made of."""

import io
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.bundle.prediction import prepare_input
from cxr.imaging.raster import ImageError, eight_bits
from cxr.imaging.read import read_gray, read_image

DEPTHS = range(9, 17)


def chest(side: int = 160, brightest: int = 215) -> np.ndarray:
    """Return 8 bits like an image's: dark lungs, bright middle, grain, black collimation."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    lungs = sum(np.exp(-((x - at) ** 2 / 0.08 + y**2 / 0.3)) for at in (-0.45, 0.45))
    grain = np.random.default_rng(0).normal(0, 3, (side, side))
    image = np.clip(brightest - 160 * lungs + grain, 0, 255)
    image[:, :12] = 0
    return image.astype(np.uint8)


def deepened(image: np.ndarray, bits: int, *, fill: bool = False) -> np.ndarray:
    """Store 8 bits as more: shifted up, or with random low bits below."""
    low = np.random.default_rng(1).integers(0, 1 << (bits - 8), image.shape) if fill else 0
    return ((image.astype(np.uint16) << (bits - 8)) + low).astype(np.uint16)


def encoded(deep: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(deep).save(stream, kind, **options)
    return stream.getvalue()


def with_defects(deep: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image with hot and as many dead pixels, and where they are."""
    places = np.random.default_rng(2).choice(deep.size, 2 * count, replace=False)
    spoilt = deep.copy()
    spoilt.flat[places[:count]] = 65535
    spoilt.flat[places[count:]] = 0
    touched = np.zeros(deep.shape, bool)
    touched.flat[places] = True
    return spoilt, touched


def error_of(deep: np.ndarray) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(encoded(deep), name="image.png")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("defects", [0, 1, 10])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", DEPTHS)
def test_every_depth_comes_back_with_and_without_hot_pixels(bits, kind, defects):
    for fill in (False, True):
        deep, touched = with_defects(deepened(chest(), bits, fill=fill), defects)
        found = read_image(encoded(deep, kind))
        assert np.array_equal(found.pixels[~touched], chest()[~touched])
        said = (f"uses {bits} of its 16 bits: brightened to the full range",)
        assert found.warnings == (said if bits < 16 else ())


@pytest.mark.parametrize("top", [5000, 9000, 11000, 16383, 20000, 40000, 65535])
def test_no_image_comes_out_at_less_than_half_its_brightness(top):
    deep = (chest(brightest=240) / 255.0 * top).astype(np.uint16)
    brightest = np.percentile(read_gray(encoded(deep)), 99.9)
    assert brightest >= 127


@pytest.mark.parametrize("defects", [0, 1, 10])
def test_eight_bits_in_sixteen_stay_as_they_are(defects):
    deep, touched = with_defects(chest(brightest=120).astype(np.uint16), defects)
    found = read_image(encoded(deep))
    assert np.array_equal(found.pixels[~touched], chest(brightest=120)[~touched])
    assert found.warnings == ("uses 8 of its 16 bits: brightened to the full range",)


def test_a_dark_image_is_taken_for_one_of_fewer_bits_and_said():
    deep = deepened(chest(brightest=110), 16)
    found = read_image(encoded(deep))
    assert np.array_equal(found.pixels, chest(brightest=110) * 2)
    assert found.warnings == ("uses 15 of its 16 bits: brightened to the full range",)


@pytest.mark.parametrize("bits", DEPTHS)
def test_every_depth_of_a_tiff_whose_zero_is_white_comes_back(bits):
    deep, touched = with_defects(((1 << bits) - 1 - deepened(chest(), bits)), 5)
    found = read_gray(encoded(deep.astype(np.uint16), "TIFF", tiffinfo={262: 0}))
    assert np.array_equal(found[~touched], chest()[~touched])


def test_letters_and_collimation_clip_no_lung():
    image = chest()
    image[:, :40] = 0
    image[5:25, 100:130] = 255
    found = read_gray(encoded(deepened(image, 14)))
    assert np.array_equal(found, image)


@pytest.mark.parametrize("offset", [20_000, 32_768, 61_000])
def test_a_narrow_range_is_spread_between_robust_percentiles(offset):
    image = chest()
    deep, touched = with_defects((deepened(image, 12) + offset).astype(np.uint16), 10)
    found = read_image(encoded(deep))
    # Oracle: NumPy's percentiles of the values themselves.
    low, high = np.percentile(deep, [0.1, 99.9])
    wanted = np.clip((deep - low) / (high - low), 0, 1) * 255
    assert np.abs(found.pixels - wanted)[~touched].max() <= 1
    assert len(found.warnings) == 1
    assert "of 65535: spread to the full range" in found.warnings[0]


def test_an_image_of_low_contrast_gets_its_grays_back():
    deep = (30_000 + chest().astype(np.uint16) * 4).astype(np.uint16)
    found = read_gray(encoded(deep))
    assert np.corrcoef(found.ravel(), chest().ravel())[0, 1] > 0.999
    assert np.ptp(found) == 255


@pytest.mark.parametrize("seed", range(20))
def test_brighter_values_never_come_out_darker(seed):
    random = np.random.default_rng(seed)
    low, high = np.sort(random.integers(0, 65536, 2))
    deep = random.integers(low, max(high, low + 2000) + 1, (64, 64)).clip(0, 65535)
    deep = deep.astype(np.uint16)
    order = np.argsort(deep, axis=None)
    for inverted, sign in ((False, 1), (True, -1)):
        gray, _ = eight_bits(deep, "image", inverted=inverted)
        assert (np.diff(gray.ravel()[order].astype(int)) * sign >= 0).all()


def blank(value: int, **spots: tuple[float, int]) -> np.ndarray:
    deep = np.full((160, 160), value, np.uint16)
    for share, bright in spots.values():
        deep.flat[: int(share * deep.size)] = bright
    return deep


@pytest.mark.parametrize(
    "deep",
    [
        blank(0),
        blank(700),
        blank(65535),
        blank(0, hot=(0.0005, 65535)),
        blank(0, hot=(0.02, 65535)),
        blank(9000, hot=(0.02, 16383)),
        blank(0, some=(0.02, 900), hot=(0.001, 65535)),
        np.random.default_rng(0).integers(30_000, 30_006, (160, 160)).astype(np.uint16),
        np.random.default_rng(0).integers(0, 16, (160, 160)).astype(np.uint16),
    ],
)
def test_nothing_sensible_is_refused(deep):
    message = error_of(deep)
    assert message.startswith("image.png is nearly blank: 90 % of its pixels lie between ")
    assert "export it again with its whole range of grays" in message


def test_an_image_black_beside_its_white_letters_is_refused():
    deep = deepened(chest(), 11)
    deep[5:25, 100:130] = 65535
    assert "nearly blank" in error_of(deep)


@pytest.mark.parametrize("bits", [10, 14, 16])
def test_a_file_and_its_array_give_the_same(tmp_path, bits):
    deep, _ = with_defects(deepened(chest(), bits), 3)
    (tmp_path / "image.png").write_bytes(encoded(deep))
    file, array = prepare_input(tmp_path / "image.png", None), prepare_input(deep, "mine")
    assert np.array_equal(file.pixels, array.pixels)
    assert file.warnings == array.warnings
    refused = prepare_input(np.full((40, 40), 700, np.uint16), "mine")
    assert isinstance(refused, ImageError)
    assert str(refused).startswith("mine is nearly blank")


def colour_png(deep: np.ndarray, kind: int) -> bytes:
    """Write a PNG of 16 bits a channel, which Pillow cannot."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    channels = np.repeat(deep[..., None], {2: 3, 4: 2}[kind], axis=2)
    if kind == 4:
        channels[..., 1] = 65535
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    head = struct.pack(">IIBBBBB", deep.shape[1], deep.shape[0], 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", [2, 4])
def test_sixteen_bits_in_colour_are_read_whole_or_refused(kind):
    found = read_gray(colour_png(deepened(chest(), 16), kind))
    assert np.abs(found.astype(int) - chest()).max() <= 1
    with pytest.raises(ImageError, match=r"uses fewer than its 16 bits.*export it as gray"):
        read_gray(colour_png(deepened(chest(), 12), kind))


@pytest.mark.realdata
def test_real_images_come_back_at_every_depth(shared):
    folder = shared / "data" / "cxr4"
    for name in pd.read_csv(folder / "manifest.csv")["image"].sample(25, random_state=0):
        image = read_gray(folder / name)
        for bits in DEPTHS:
            deep, touched = with_defects(deepened(image, bits, fill=True), 20)
            found = read_gray(encoded(deep, compress_level=1))
            assert np.array_equal(found[~touched], image[~touched])

"""Images from files: which pixels come out, and what each bad file says."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cxr.errors import InputError, MissingInputError
from cxr.imaging.raster import MAX_PIXELS, MIN_SIDE_PX, ImageError
from cxr.imaging.read import read_gray, read_image


def gradient(height: int = 40, width: int = 50) -> np.ndarray:
    return (np.add.outer(np.arange(height) * 3, np.arange(width) * 2) % 256).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that promises its size in a few bytes and holds almost no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


def error_of(source: Path | bytes, **options: str) -> str:
    with pytest.raises(InputError) as caught:
        read_gray(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_gray_pixels_come_back_exactly(tmp_path, kind):
    image = gradient()
    path = tmp_path / f"image.{kind.lower()}"
    Image.fromarray(image).save(path)
    found = read_gray(path)
    assert found.dtype == np.uint8
    assert np.array_equal(found, image)
    assert np.array_equal(read_gray(path.read_bytes()), image)


def test_jpeg_comes_back_nearly():
    image = np.full((40, 40), 77, np.uint8)
    assert np.abs(read_gray(encoded(Image.fromarray(image), "JPEG")).astype(int) - 77).max() <= 1


def test_colours_are_weighted_as_luma():
    colour = np.zeros((32, 32, 3), np.uint8)
    colour[:] = (200, 100, 50)
    found = read_gray(encoded(Image.fromarray(colour), "PNG"))
    assert abs(int(found[0, 0]) - round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_upper_eight(kind):
    deep = (gradient().astype(np.uint16) << 8) | 255
    assert np.array_equal(read_gray(encoded(Image.fromarray(deep), kind)), gradient())


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_fewer_bits_in_sixteen_are_brightened_and_said(bits):
    deep = gradient().astype(np.uint16) << (bits - 8)
    deep[0, 0] = (1 << bits) - 1
    image = read_image(encoded(Image.fromarray(deep), "PNG"))
    assert np.array_equal(image.pixels, deep >> (bits - 8))
    assert image.warnings == (f"uses {bits} of its 16 bits: brightened to the full range",)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_whose_zero_is_white_is_turned(dtype):
    image = gradient()
    deep = image if dtype == np.uint8 else (image.astype(np.uint16) << 8) | 255
    turned = encoded(Image.fromarray(np.invert(deep)), "TIFF", tiffinfo={262: 0})
    # Pillow writes tag 262 itself in 8 bits, and then turns the values.
    found = read_gray(turned)
    assert np.array_equal(found, image if dtype == np.uint16 else np.invert(image))


def test_inks_and_palettes_with_transparency_become_gray():
    inks = Image.new("CMYK", (40, 40), (0, 0, 0, 55))
    assert (read_gray(encoded(inks, "TIFF")) == 200).all()
    image = Image.new("P", (40, 40), 1)
    image.putpalette([0, 0, 0, 90, 90, 90])
    assert (read_gray(encoded(image, "PNG", transparency=1)) == 0).all()


def test_large_transparent_images_are_laid_on_black_in_strips():
    gray = Image.fromarray(gradient(2500, 2000))
    image = Image.merge("LA", [gray, Image.new("L", gray.size, 128)])
    black = Image.new("RGBA", gray.size, (0, 0, 0, 255))
    whole = Image.alpha_composite(black, image.convert("RGBA")).convert("L")
    assert np.array_equal(read_gray(encoded(image, "PNG", compress_level=1)), np.asarray(whole))


@pytest.mark.parametrize("orientation", range(10))
def test_every_exif_orientation_is_pillows(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(gradient()), "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_gray(data), expected)


def test_transparency_is_laid_on_black():
    image = Image.new("LA", (32, 32), (200, 0))
    image.putpixel((5, 6), (200, 255))
    found = read_gray(encoded(image, "PNG"))
    assert found[6, 5] == 200
    assert found.sum() == 200


def test_palette_shows_its_colours():
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 90, 90, 90])
    assert (read_gray(encoded(image, "PNG")) == 90).all()


def test_one_bit_is_black_and_white():
    assert set(np.unique(read_gray(encoded(Image.new("1", (32, 32), 1), "PNG")))) == {255}


def test_exif_orientation_is_applied():
    image = np.zeros((40, 60), np.uint8)
    image[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    found = read_gray(encoded(Image.fromarray(image), "JPEG", exif=exif, quality=95))
    assert found.shape == (60, 40)
    assert found[2, -3] > 200
    assert found[2, 2] < 50


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_truncated_file_is_named(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    path = tmp_path / "cut.png"
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut.png" in error_of(path)


def test_file_that_is_no_image_is_named(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("no image at all")
    message = error_of(path)
    assert "notes.png is no image: JPEG, PNG, TIFF and DICOM are read" in message
    assert "data.on_error=skip" in message
    assert "image 7 is no image" in error_of(path, name="image 7")
    assert "the uploaded bytes is no image" in error_of(b"")


def test_other_formats_are_no_images():
    assert "is no image" in error_of(encoded(Image.fromarray(gradient()), "GIF"))


def test_missing_file_is_a_missing_input(tmp_path):
    with pytest.raises(MissingInputError, match=r"no image at .*gone\.png"):
        read_gray(tmp_path / "gone.png")


@pytest.mark.parametrize("shape", [(MIN_SIDE_PX - 1, 200), (200, MIN_SIDE_PX - 1)])
def test_small_images_are_refused(shape):
    message = error_of(encoded(Image.fromarray(gradient(*shape)), "PNG"), name="small")
    assert message.startswith(f"small is {shape[1]} x {shape[0]} pixels: at least 32 x 32")


def test_smallest_image_is_read():
    image = gradient(MIN_SIDE_PX, MIN_SIDE_PX)
    assert read_gray(encoded(Image.fromarray(image), "PNG")).shape == image.shape


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (20_000, 20_000), (99_999, 9999)])
def test_huge_images_are_refused_by_their_header(width, height):
    assert width * height > MAX_PIXELS
    message = error_of(png_header(width, height), name="bomb")
    assert message.startswith("bomb ")
    assert "100 megapixels" in message


@pytest.mark.parametrize("mode", ["F", "I"])
def test_32_bit_tiff_without_fixed_black_and_white_is_refused(mode):
    message = error_of(encoded(Image.new(mode, (40, 40), 5), "TIFF"), name="deep.tiff")
    assert message.startswith("deep.tiff ")
    assert "16 bit" in message


# What Pillow finds odd in damaged bytes it says in many words.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_damaged_bytes_give_pixels_or_an_image_error(kind):
    random = np.random.default_rng(1)
    whole = encoded(Image.fromarray(gradient()), kind)
    for _ in range(150):
        damaged = bytearray(whole[: random.integers(1, len(whole) + 1)])
        for place in random.integers(0, len(damaged), 4):
            damaged[place] = random.integers(0, 256)
        with contextlib.suppress(ImageError):
            assert read_gray(bytes(damaged)).dtype == np.uint8

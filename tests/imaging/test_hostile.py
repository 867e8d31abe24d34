"""Files made to harm: each gives an image or an error of ours, in bounded time and memory."""

import importlib.util
import json
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxr.errors import InputError
from cxr.imaging import codecs
from cxr.imaging.read import read_image

_spec = importlib.util.spec_from_file_location(
    "dicom_files", Path(__file__).with_name("dicom_files.py")
)
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)
encoded, noise = made.encoded, made.noise

PROJECT = str(Path(__file__).resolve().parents[2])
READ = (
    "png of 49 megapixels",
    "tiff of absurd strips",
    "tiff of absurd tiles",
    "run lengths",
    "dicom of 49 megapixels",
    "lossless jpeg",
    "lossless jpeg of 49 megapixels",
)
"""Bombs that are images after all, and cost no more than an image may."""
MOST_BYTES = 1_000_000_000
MOST_SECONDS = 5.0

# What Pillow finds odd in damaged bytes it says in many words.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
often = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def run_lengths(image: np.ndarray) -> bytes:
    """Encode a 16-bit image as literal runs, high bytes first."""
    planes = [(image >> 8).astype(np.uint8).tobytes(), image.astype(np.uint8).tobytes()]
    coded = [
        b"".join(bytes([len(p[i : i + 128]) - 1]) + p[i : i + 128] for i in range(0, len(p), 128))
        for p in planes
    ]
    header = struct.pack("<16I", 2, 64, 64 + len(coded[0]), *[0] * 13)
    return header + b"".join(coded)


@lru_cache
def seeds() -> dict[str, bytes]:
    """Return a whole image of every kind that is read."""
    deep, flat = noise(), Image.fromarray(noise(8))
    colour = Image.merge("RGB", [flat] * 3)
    image, gray = made.dataset(deep, BitsStored=12), made.dataset(noise(8))
    found = {
        "jpeg": encoded(flat, "JPEG"),
        "progressive": encoded(colour, "JPEG", progressive=True),
        "png": encoded(flat, "PNG"),
        "png16": encoded(Image.fromarray(deep), "PNG"),
        "alpha": encoded(Image.merge("LA", [flat, flat]), "PNG"),
        "palette": encoded(flat.convert("P"), "PNG"),
        "tiff": encoded(flat, "TIFF"),
        "tiff_lzw": encoded(colour, "TIFF", compression="tiff_lzw"),
        "tiff_deflate": encoded(Image.fromarray(deep), "TIFF", compression="tiff_adobe_deflate"),
        "tiff_jpeg": encoded(flat, "TIFF", compression="jpeg"),
        "dicom": made.written(image),
        "dicom_implicit": made.written(image, ImplicitVRLittleEndian),
        "dicom_big": made.written(image, ExplicitVRBigEndian),
        "dicom_deflated": made.deflated(image),
    }
    for name, header, syntax, frame in (
        ("dicom_rle", image, RLELossless, run_lengths(deep)),
        ("dicom_jpeg", gray, JPEGBaseline8Bit, encoded(flat, "JPEG")),
        ("dicom_j2k", gray, JPEG2000Lossless, encoded(flat, "JPEG2000", no_jp2=True)),
        ("dicom_lossless", image, JPEGLosslessSV1, made.lossless_jpeg(deep, 12)),
        ("dicom_jpegls", image, JPEGLSLossless, bytes(imagecodecs.jpegls_encode(deep))),
    ):
        found[name] = made.written(header, syntax, frame)
    return found


def outcome(data: bytes) -> str:
    """Read an image; what is neither an image nor an error of ours escapes and fails the test."""
    try:
        image = read_image(data, name="image 7")
    except InputError as error:
        message = str(error)
        assert message.startswith("image 7 ")
        assert "\n" not in message
        assert "Doe" not in message
        assert "Jane" not in message
        return "refused"
    assert image.pixels.dtype == np.uint8
    assert image.pixels.ndim == 2
    assert not any("Doe" in text for text in image.warnings)
    return "read"


def spoiled(data: bytes, edits: list[tuple[float, int]], kept: float) -> bytes:
    """Change bytes at shares of the length, and cut to a share of it."""
    changed = bytearray(data[: max(1, round(kept * len(data)))])
    for place, value in edits:
        changed[min(int(place * len(changed)), len(changed) - 1)] = value
    return bytes(changed)


shares = st.floats(0, 1)
edits = st.lists(st.tuples(shares, st.integers(0, 255)), max_size=8)
# Headers lie in the first bytes of a file of some kilobytes.
early_edits = st.lists(st.tuples(st.floats(0, 0.15), st.integers(0, 255)), min_size=1, max_size=4)


@pytest.mark.parametrize("kind", sorted(seeds()))
def test_whole_seeds_are_read(kind):
    assert outcome(seeds()[kind]) == "read"


@often
@given(kind=st.sampled_from(sorted(seeds())), places=edits, kept=shares)
def test_spoiled_and_cut_files_give_an_image_or_an_error(kind, places, kept):
    outcome(spoiled(seeds()[kind], places, kept))


@often
@given(kind=st.sampled_from(sorted(seeds())), places=early_edits)
def test_spoiled_headers_give_an_image_or_an_error(kind, places):
    outcome(spoiled(seeds()[kind], places, 1.0))


@pytest.mark.parametrize("kind", ["dicom", "dicom_deflated", "dicom_jpeg", "dicom_lossless"])
def test_files_cut_anywhere_in_their_header_are_refused(kind):
    whole = seeds()[kind]
    for length in range(0, min(len(whole), 1200), 7):
        assert outcome(whole[:length]) == "refused"


@often
@given(data=st.binary(max_size=600), mark=st.sampled_from([b"", b"\0" * 128 + b"DICM"]))
def test_random_bytes_are_refused(data, mark):
    assert outcome(mark + data) == "refused"


@often
@given(
    lies=st.dictionaries(
        st.sampled_from(
            [
                "Rows",
                "Columns",
                "BitsAllocated",
                "BitsStored",
                "HighBit",
                "SamplesPerPixel",
                "PixelRepresentation",
                "PlanarConfiguration",
            ]
        ),
        st.sampled_from([0, 1, 2, 3, 7, 8, 12, 16, 32, 40, 64, 255, 4096, 32768, 65535]),
        min_size=1,
    ),
    kind=st.sampled_from(["", "dicom_rle", "dicom_j2k", "dicom_lossless"]),
)
def test_lying_headers_give_an_image_or_an_error(lies, kind):
    pixels = noise(8) if kind == "dicom_j2k" else noise()
    image = made.dataset(pixels, **{"BitsStored": 8 * pixels.dtype.itemsize, **lies})
    frame = {
        "": lambda: b"",
        "dicom_rle": lambda: run_lengths(pixels),
        "dicom_j2k": lambda: encoded(Image.fromarray(pixels), "JPEG2000", no_jp2=True),
        "dicom_lossless": lambda: made.lossless_jpeg(pixels[:40, :50], 12),
    }[kind]()
    syntax = {"dicom_rle": RLELossless, "dicom_j2k": JPEG2000Lossless}.get(kind, JPEGLosslessSV1)
    outcome(made.written(image, syntax, frame) if frame else made.written(image))


@pytest.fixture
def child(tmp_path, monkeypatch):
    """A program in the child's place."""
    codecs.close_children()
    path = tmp_path / "child.py"
    monkeypatch.setattr(codecs, "CHILD", path)
    yield path
    codecs.close_children()


def test_decoding_that_never_ends_is_stopped(child, monkeypatch):
    # CharLS loops for ever on some streams, which ones differs by version: one stands in.
    child.write_text("while True:\n    pass\n")
    monkeypatch.setattr(codecs, "START_S", 1)
    monkeypatch.setattr(codecs, "WALL_FACTOR", 1)
    with pytest.raises(InputError, match="decoding does not end"):
        read_image(seeds()["dicom_jpegls"])


@pytest.mark.parametrize("kind", ["dicom_jpegls", "dicom_lossless", "dicom_rle"])
def test_decoding_that_kills_its_process_is_an_error_and_the_next_image_is_read(child, kind):
    child.write_text("import os, sys\nsys.stdin.buffer.read(1)\nos.abort()\n")
    with pytest.raises(InputError, match="has damaged"):
        read_image(seeds()[kind])
    child.write_bytes(Path(codecs.__file__).with_name("codec_child.py").read_bytes())
    assert outcome(seeds()[kind]) == "read"


def test_a_child_that_was_killed_while_it_waited_is_replaced():
    assert outcome(seeds()["dicom_lossless"]) == "read"
    for process in codecs._waiting:
        process.kill()
        process.wait()
    assert outcome(seeds()["dicom_lossless"]) == "read"


def test_images_are_decoded_in_threads_at_once_and_one_process_is_used_again():
    codecs.close_children()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(outcome, [seeds()["dicom_lossless"]] * 40)) == {"read"}
    assert 1 <= len(codecs._waiting) <= 4


def test_the_child_stays_within_time_and_memory():
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import codec_child, resource as r\n"
        "codec_child._limit(3, 1 << 30)\n"
        "limits = r.RLIMIT_CPU, r.RLIMIT_AS, r.RLIMIT_CORE\n"
        "print(*(r.getrlimit(limit)[0] for limit in limits))"
    )
    folder = str(codecs.CHILD.parent)
    printed = subprocess.run(
        [sys.executable, "-c", script, folder], capture_output=True, text=True, check=True
    ).stdout.split()
    assert 4 <= int(printed[0]) <= 8
    assert printed[1:] == [str(1 << 30), "0"]


@pytest.mark.parametrize("kind", ["dicom_lossless", "dicom_jpegls", "dicom_rle"])
def test_streams_that_end_early_are_refused(kind):
    # The fragments are whole: what is missing is missing inside the stream.
    frame = {
        "dicom_lossless": made.lossless_jpeg(noise(), 12),
        "dicom_jpegls": bytes(imagecodecs.jpegls_encode(noise())),
        "dicom_rle": run_lengths(noise()),
    }[kind]
    syntax = {"dicom_lossless": JPEGLosslessSV1, "dicom_jpegls": JPEGLSLossless}
    image = made.dataset(noise(), BitsStored=12)
    for length in range(60, len(frame) - 100, 97):
        cut = frame[:length]
        assert outcome(made.written(image, syntax.get(kind, RLELossless), cut)) == "refused"


def test_pipes_and_devices_are_no_images(tmp_path):
    pipe = tmp_path / "image.dcm"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match="is no file"):
            read_image(path)


# Bombs


def test_bombs_stay_below_a_gigabyte_and_five_seconds():
    # A process of its own, whose memory is what these files took.
    found = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name("bombs.py"))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": PROJECT},
    )
    assert found.returncode == 0, found.stderr[-2000:]
    measured = json.loads(found.stdout.splitlines()[-1])
    assert measured.pop("most bytes") < MOST_BYTES
    for name, (result, seconds) in measured.items():
        assert seconds < MOST_SECONDS, name
        assert (result == "read") == (name in READ), name

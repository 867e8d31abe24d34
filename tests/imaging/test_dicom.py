"""Images from DICOM: which pixels come out, what is refused, and that no name leaves."""

import importlib.util
import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxr.errors import InputError
from cxr.imaging import codecs
from cxr.imaging.dicom.frames import stored_codes
from cxr.imaging.dicom.grayscale import polarity, stored_values, window
from cxr.imaging.dicom.header import check_layout
from cxr.imaging.dicom.parse import parse
from cxr.imaging.read import DecodedImage, read_gray, read_image

_spec = importlib.util.spec_from_file_location(
    "dicom_files", Path(__file__).with_name("dicom_files.py")
)
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)
ramp, dataset, written = made.ramp, made.dataset, made.written


def image_of(pixels: np.ndarray, **changes: Any) -> DecodedImage:
    return read_image(written(dataset(pixels, **changes)))


def error_of(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        read_image(data, name="image 7")
    message = str(caught.value)
    assert message.startswith("image 7 ")
    assert "\n" not in message
    assert "Doe" not in message
    return message


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


# How the pixels are stored


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
@pytest.mark.parametrize("bits", [8, 16])
def test_uncompressed_pixels_come_back_in_every_byte_order(syntax, bits):
    pixels = ramp(bits)
    given = pixels.astype(">u2") if bits == 16 and syntax == ExplicitVRBigEndian else pixels
    image = (
        dataset(pixels, WindowCenter=32768, WindowWidth=65536) if bits == 16 else dataset(pixels)
    )
    image.PixelData = given.tobytes()
    expected = pixels if bits == 8 else np.floor(pixels / 65535 * 255 + 0.5)
    assert np.array_equal(read_gray(written(image, syntax)), expected)


def test_deflated_pixels_come_back():
    assert np.array_equal(read_gray(made.deflated(dataset(ramp(8)))), ramp(8))


def test_run_lengths_come_back():
    for bits in (8, 16):
        image = dataset(ramp(bits))
        plain = read_gray(written(image))
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.compress(RLELossless, generate_instance_uid=False, encoding_plugin="pydicom")
        stream = io.BytesIO()
        image.save_as(stream, enforce_file_format=True)
        assert np.array_equal(read_gray(stream.getvalue()), plain)


def test_jpeg_baseline_comes_back_as_pillow_decodes_it():
    frame = encoded(Image.fromarray(ramp(8)), "JPEG", quality=95)
    found = read_gray(written(dataset(ramp(8)), JPEGBaseline8Bit, frame))
    assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(frame))))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_ls_comes_back_exactly(bits):
    image = dataset(ramp(bits), BitsStored=bits)
    plain = read_gray(written(image))
    frame = bytes(imagecodecs.jpegls_encode(ramp(bits)))
    assert np.array_equal(read_gray(written(image, JPEGLSLossless, frame)), plain)


@pytest.mark.parametrize("bits", [8, 16])
def test_jpeg_2000_comes_back_exactly(bits):
    image = dataset(ramp(bits))
    plain = read_gray(written(image))
    frame = encoded(Image.fromarray(ramp(bits)), "JPEG2000", no_jp2=True)
    assert np.array_equal(read_gray(written(image, JPEG2000Lossless, frame)), plain)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize(("bits", "restart_rows"), [(8, 0), (12, 4), (16, 0)])
def test_lossless_jpeg_comes_back_exactly(predictor, bits, restart_rows):
    noise = np.random.default_rng(predictor).integers(0, 1 << bits, (40, 34))
    noise = noise.astype(np.uint8 if bits == 8 else np.uint16)
    frame = made.lossless_jpeg(noise, bits, predictor, restart_rows)
    decoded = codecs.decode("jpeg", frame, noise.shape, bytes_allocated=noise.dtype.itemsize)
    assert np.array_equal(decoded, noise)
    image = dataset(noise, BitsStored=bits)
    assert np.array_equal(
        read_gray(written(image, JPEGLosslessSV1, frame)),
        read_gray(written(dataset(noise, BitsStored=bits))),
    )


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless])
def test_streams_of_fewer_bits_than_the_header_are_read(syntax):
    frame = {
        JPEGBaseline8Bit: encoded(Image.fromarray(ramp(8)), "JPEG", quality=95),
        JPEGLosslessSV1: made.lossless_jpeg(ramp(8), 8),
        JPEGLSLossless: bytes(imagecodecs.jpegls_encode(ramp(8))),
    }[syntax]
    image = dataset(ramp(12), BitsStored=12, WindowCenter=128, WindowWidth=256)
    assert np.abs(read_gray(written(image, syntax, frame)).astype(int) - ramp(8)).max() <= 3


def test_two_fragments_are_one_frame():
    image = dataset(ramp(8))
    frame = encoded(Image.fromarray(ramp(8)), "JPEG", quality=95)
    whole = read_gray(written(image, JPEGBaseline8Bit, frame))
    image.PixelData = encapsulate([frame], fragments_per_frame=2)
    image["PixelData"].is_undefined_length = True
    assert np.array_equal(read_gray(written(image, JPEGBaseline8Bit)), whole)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_expb.dcm",
    ],
)
def test_signed_values_of_real_files_agree_with_their_uncompressed_original(name):
    path = get_testdata_file(name, download=False)
    elements = parse(Path(path).read_bytes())
    layout = check_layout(elements)
    codes = stored_codes(elements, layout)
    found = stored_values(layout.bits_stored, signed=layout.signed)[codes]
    original = pydicom.dcmread(get_testdata_file("MR_small.dcm", download=False)).pixel_array
    assert np.array_equal(found, original)


def test_twelve_bit_jpeg_agrees_with_libjpeg_turbo():
    elements = parse(Path(get_testdata_file("JPEG-lossy.dcm", download=False)).read_bytes())
    layout = check_layout(elements)
    codes = stored_codes(elements, layout).astype(int)
    assert codes.shape == (1024, 256)
    # Values of libjpeg-turbo 3.
    places = {(300, 100): 36, (420, 80): 23, (512, 128): 14, (610, 150): 39, (333, 140): 49}
    for place, value in places.items():
        assert codes[place] == value


def test_stored_bits_are_cut_out_of_the_allocated_ones():
    deep = ramp(10)
    image = dataset((deep << 4 | 0xC003).astype(np.uint16), BitsStored=10, HighBit=13)
    found = read_gray(written(image))
    assert np.array_equal(found, read_gray(written(dataset(deep, BitsStored=10))))


def test_signed_values_run_from_their_lowest():
    signed = (ramp(12).astype(np.int32) - 2048).astype(np.int16)
    image = image_of(signed, BitsStored=12, WindowCenter=0, WindowWidth=4096)
    assert image.pixels[0, 0] == 0
    assert image.pixels[-1, -1] == 255
    assert (np.diff(image.pixels.ravel().astype(int)) >= 0).all()


# What is seen


def test_windows_are_dicoms_own():
    values = np.array([0.0, 1023.5, 2047.5, 2048, 3000, 4096])
    # PS3.3, C.11.2.1.2.1: center 2048, width 4096 maps 0 to 0 and 4095 to 1.
    assert np.allclose(window(np.array([0.0, 4095.0]), 2048, 4096), [0, 1])
    linear = (values - 2047.5) / 2047 + 0.5
    assert np.allclose(window(values, 2048, 2048), np.clip(linear, 0, 1))
    exact = (values - 2048) / 2048 + 0.5
    assert np.allclose(window(values, 2048, 2048, "LINEAR_EXACT"), np.clip(exact, 0, 1))
    sigmoid = 1 / (1 + np.exp(-4 * (values - 2048) / 2048))
    assert np.allclose(window(values, 2048, 2048, "SIGMOID"), sigmoid)
    # A width of 1 is a threshold half a step below the center.
    assert window(np.array([9.4, 9.6]), 10, 1).tolist() == [0, 1]


@pytest.mark.parametrize(("function", "width"), [("LINEAR", 0.5), ("SIGMOID", 0), ("CUBIC", 9)])
def test_windows_that_dicom_does_not_allow_are_refused(function, width):
    with pytest.raises(ValueError, match="window"):
        window(np.zeros(3), 0, width, function)


def test_the_first_of_several_windows_counts():
    one = image_of(ramp(12), BitsStored=12, WindowCenter=1000, WindowWidth=1000)
    two = image_of(ramp(12), BitsStored=12, WindowCenter=[1000, 9], WindowWidth=[1000, 2])
    assert np.array_equal(one.pixels, two.pixels)


def test_a_window_acts_after_the_rescale():
    plain = image_of(ramp(12), BitsStored=12, WindowCenter=1000, WindowWidth=500)
    moved = image_of(
        ramp(12),
        BitsStored=12,
        RescaleSlope=2,
        RescaleIntercept=-100,
        WindowCenter=1899.5,
        WindowWidth=999,
    )
    assert np.abs(plain.pixels.astype(int) - moved.pixels).max() <= 1


def test_a_negative_slope_turns_the_image():
    image = image_of(ramp(12), BitsStored=12, RescaleSlope=-1, RescaleIntercept=4095)
    assert image.pixels[0, 0] == 255
    assert image.pixels[-1, -1] == 0


def lut(entries: list[int], first: int = 0, bits: int = 16) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries, "<u2").tobytes())
    item.add_new("LUTExplanation", "LO", made.SECRET)
    return [item]


def test_a_table_of_interest_goes_before_a_window():
    entries = [0] * 1000 + [65535] * 3096
    image = dataset(ramp(12), BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    image.VOILUTSequence = lut(entries)
    seen = read_image(written(image))
    # It shows two values only, which is less than a window may hide.
    assert "hides nearly all" in " ".join(seen.warnings)
    image.VOILUTSequence = lut([min(65535, 8 * place) for place in range(4096)])
    expected = np.floor(np.minimum(65535, 8 * ramp(12).astype(int)) / 65535 * 255 + 0.5)
    assert np.array_equal(read_gray(written(image)), expected)
    image.VOILUTSequence = lut([min(65535, 8 * place) for place in range(4096)][9:], first=9)
    assert np.abs(read_gray(written(image)).astype(int) - expected).max() <= 1
    image.VOILUTSequence = lut(list(range(4096)), bits=16)
    assert read_gray(written(image)).max() == 255


def test_a_modality_table_goes_first():
    image = dataset(ramp(12), BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    image.ModalityLUTSequence = lut([4095 - place for place in range(4096)], bits=12)
    plain = image_of(ramp(12), BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    assert np.array_equal(read_gray(written(image)), np.invert(plain.pixels))


def test_a_table_that_is_cut_is_refused():
    image = dataset(ramp(12), BitsStored=12)
    image.VOILUTSequence = lut(list(range(100)))
    image.VOILUTSequence[0].LUTDescriptor = [200, 0, 16]
    assert "VOILUTSequence of 100 entries, 200 stated" in error_of(written(image))


def test_without_a_window_deep_images_are_spread_over_what_they_use():
    deep = (ramp(12) // 8 + 700).astype(np.uint16)
    deep[0, 0] = 4095
    image = image_of(deep, BitsStored=12)
    assert image.pixels[0, 1] <= 1
    assert image.pixels[-1, -1] >= 254
    # Eight bits are images as others save them: left alone.
    assert np.array_equal(image_of(ramp(8) // 2).pixels, ramp(8) // 2)


def test_a_window_that_hides_all_is_passed_over():
    image = image_of(ramp(12), BitsStored=12, WindowCenter=30000, WindowWidth=10)
    assert image.pixels.max() == 255
    assert any("hides nearly all" in text for text in image.warnings)


def test_monochrome_1_is_inverted():
    noise = np.random.default_rng(0).permutation(ramp(8).ravel()).reshape(made.ROWS, -1)
    image = image_of(noise, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(image.pixels, np.invert(noise))
    assert image.warnings == ()
    agreed = image_of(
        noise, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"
    )
    assert np.array_equal(agreed.pixels, image.pixels)
    odd = image_of(ramp(8), PresentationLUTShape="INVERSE")
    assert np.array_equal(odd.pixels, ramp(8))
    assert "contradicts itself" in odd.warnings[0]


def test_padding_is_black_and_no_part_of_the_range():
    deep = (ramp(12) // 4 + 1000).astype(np.uint16)
    bare = image_of(deep, BitsStored=12).pixels
    deep[:10] = 4000
    image = image_of(deep, BitsStored=12, PixelPaddingValue=4000)
    assert (image.pixels[:10] == 0).all()
    assert image.pixels[-1, -1] == 255
    assert bare[-1, -1] == 255
    other = image_of(
        deep,
        BitsStored=12,
        PixelPaddingValue=3990,
        PixelPaddingRangeLimit=4010,
        PhotometricInterpretation="MONOCHROME1",
    )
    assert (other.pixels[:10] == 0).all()


def test_colours_become_gray():
    colour = np.zeros((40, 50, 3), np.uint8)
    colour[:] = (200, 100, 50)
    image = image_of(colour)
    assert set(np.unique(image.pixels)) == {124}
    assert image.warnings[-1] == "is stored in colour: read as gray"
    planes = dataset(colour, PlanarConfiguration=1)
    planes.PixelData = np.moveaxis(colour, -1, 0).tobytes()
    assert set(np.unique(read_gray(written(planes)))) == {124}
    frame = encoded(Image.fromarray(colour), "JPEG", quality=95)
    wrapped = dataset(colour, PhotometricInterpretation="YBR_FULL_422")
    assert abs(int(read_gray(written(wrapped, JPEGBaseline8Bit, frame))[5, 5]) - 124) <= 1


# What is refused or flagged


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Modality": "CT"}, "no radiograph by its header (Modality CT)"),
        ({"Modality": "MR"}, "Modality MR"),
        ({"Modality": "US"}, "Modality US"),
        ({"Modality": "MG"}, "Modality MG"),
        ({"Modality": "OT", "ViewPosition": None, "BodyPartExamined": None}, "Modality OT"),
        ({"BodyPartExamined": "KNEE"}, "BodyPartExamined KNEE"),
        ({"BodyPartExamined": "BREAST"}, "BodyPartExamined BREAST"),
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"PixelData": None}, "no pixels"),
        ({"Rows": None}, "no Rows"),
        ({"BitsAllocated": 32}, "BitsAllocated 32"),
        ({"BitsStored": 12}, "BitsStored 12"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope of 0"),
        ({"Rows": 65535, "Columns": 65535}, "megapixels"),
        ({"Rows": 8}, "at least 32 x 32"),
        ({"Rows": 4000}, "2000 bytes of pixels, 200000 are needed"),
    ],
)
def test_what_is_no_chest_image_is_refused_with_its_reason(changes, words):
    assert words in error_of(written(dataset(ramp(8), **changes)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ViewPosition": "LL"}, "lateral view"),
        ({"ViewPosition": "LATERAL"}, "lateral view"),
        ({"ViewPosition": "RAO"}, "oblique view"),
        ({"ViewPosition": None}, "states no view"),
        ({"ViewPosition": "JANE DOE"}, "states no view"),
        ({"BodyPartExamined": None}, "no body part"),
        ({"BodyPartExamined": "DOE JANE"}, "body part that we do not know"),
        ({"Modality": None}, "no modality"),
        ({"Modality": "OT"}, "modality OT"),
    ],
)
def test_doubts_are_said(changes, words):
    image = image_of(ramp(8), **changes)
    assert words in " ".join(image.warnings)
    assert "DOE" not in " ".join(image.warnings)
    assert np.array_equal(image.pixels, ramp(8))


def test_doubts_are_logged_where_pixels_alone_are_asked_for(caplog):
    read_gray(written(dataset(ramp(8), ViewPosition="LL")), name="image 7")
    assert "image 7 is a lateral view" in caplog.text


def test_directories_and_reports_are_refused():
    listing = Dataset()
    listing.SOPClassUID = "1.2.840.10008.1.3.10"
    assert "DICOMDIR" in error_of(written(listing))
    report = dataset(ramp(8), Modality="SR")
    assert "Modality SR" in error_of(written(report))
    assert "no pixels" in error_of(written(dataset(ramp(8), PixelData=None, Modality="DX")))


def test_compressed_sizes_that_deny_the_header_are_refused():
    image = dataset(ramp(8))
    frame = encoded(Image.fromarray(ramp(8, 80, 100)), "JPEG")
    assert "50 x 40 x 1 by its header, and 100 x 80 x 1" in error_of(
        written(image, JPEGBaseline8Bit, frame)
    )
    frame = encoded(Image.fromarray(ramp(8, 80, 100)), "JPEG2000", no_jp2=True)
    assert "100 x 80" in error_of(written(image, JPEG2000Lossless, frame))
    frame = bytes(imagecodecs.jpegls_encode(ramp(8, 80, 100)))
    assert "100 x 80" in error_of(written(image, JPEGLSLossless, frame))


def test_unknown_compression_is_refused():
    assert "in a way that is not read" in error_of(
        written(dataset(ramp(8)), "1.2.840.10008.1.2.4.102", b"\0\0\1\2")
    )
    assert "of a kind that is not read" in error_of(
        written(dataset(ramp(8)), JPEGExtended12Bit, b"no jpeg at all")
    )


# Files as they come


def test_files_without_a_preamble_are_read(tmp_path):
    whole = written(dataset(ramp(8)))
    bare = whole[132:]
    assert np.array_equal(read_gray(bare), ramp(8))
    group = 12 + int.from_bytes(whole[140:144], "little")
    assert np.array_equal(read_gray(bare[group:]), ramp(8))
    path = tmp_path / "IM000001"
    path.write_bytes(whole)
    assert np.array_equal(read_gray(path), ramp(8))


def test_nothing_that_could_name_a_patient_leaves():
    image = image_of(ramp(8), ViewPosition="PA")
    assert image.warnings == ()
    everywhere = image_of(
        ramp(8), Modality="DOE", BodyPartExamined="CHEST DOE", ViewPosition="AP DOE"
    )
    assert "DOE" not in repr(everywhere.warnings)


@pytest.mark.parametrize(
    "keyword", ["WindowCenter", "RescaleSlope", "RescaleIntercept", "NumberOfFrames"]
)
def test_names_in_the_place_of_numbers_are_not_quoted(keyword):
    changes = {"WindowWidth": 10} if keyword == "WindowCenter" else {}
    whole = written(dataset(ramp(8), **changes, **{keyword: 987654}))
    assert whole.count(b"987654") == 1
    broken = whole.replace(b"987654", b"Doe Ja")
    assert f"a {keyword} in its header that is no usable number" in error_of(broken)


def test_names_in_the_place_of_codes_are_not_quoted():
    whole = written(dataset(ramp(8)))
    assert "something that DICOM does not define" in error_of(
        whole.replace(b"MONOCHROME2 ", b"Doe^Jane    ")
    )


# Real images


@pytest.mark.realdata
def test_both_monochrome_versions_of_a_real_image_give_the_same_pixels(shared):
    one, two = (
        read_image(shared / "data" / "dicom" / f"chest-pa-monochrome{kind}-jpeg.dcm")
        for kind in (1, 2)
    )
    assert np.array_equal(one.pixels, two.pixels)
    assert polarity(two.pixels) > 0.5
    assert two.warnings == ()
    # Its pixels are those of the other, byte for byte: the header is what is wrong.
    assert one.warnings == (
        "states MONOCHROME1 over pixels that are a positive already: not inverted",
    )


@pytest.mark.realdata
def test_a_true_monochrome_1_of_a_real_image_is_inverted(shared):
    path = shared / "data" / "dicom" / "chest-nih-uncompressed.dcm"
    plain = read_image(path)
    image = pydicom.dcmread(path)
    image.PixelData = np.invert(image.pixel_array).tobytes()
    image.PhotometricInterpretation = "MONOCHROME1"
    stream = io.BytesIO()
    image.save_as(stream)
    turned = read_image(stream.getvalue())
    assert np.array_equal(turned.pixels, plain.pixels)
    assert turned.warnings == plain.warnings


@pytest.mark.realdata
def test_real_header_of_something_else_is_refused(shared):
    with pytest.raises(InputError, match="Modality OT"):
        read_image(shared / "data" / "dicom" / "other-modality.dcm")

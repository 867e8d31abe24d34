"""A prepared set that shows the lungs: the predictor's own pixels, and what it remembers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.data.manifest import manifest_table, read_manifest
from cxr.data.phantom.writer import PhantomSettings, write_phantom
from cxr.data.prepared import Prepared, PrepareSettings, prepare
from cxr.errors import InputError
from cxr.imaging.preprocess import PreprocessSpec, original_shape
from cxr.imaging.read import read_gray
from cxr.lungs.crop import CENTRE, WHOLE, lung_window, shown_box, to_model_input
from cxr.lungs.find import FINDER_FILE, Lungs, find_lungs, finder_digest

SPEC = PreprocessSpec(64, lungs="crop", finder="f")


def two_lungs() -> Lungs:
    mask = np.zeros((128, 128), bool)
    mask[32:96, 20:50] = mask[32:96, 78:108] = True
    return Lungs(mask, (0.25, 0.15625, 0.75, 0.84375), 0.9, 2)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> tuple[pd.DataFrame, Path]:
    root = tmp_path_factory.mktemp("phantom")
    write_phantom(
        root, PhantomSettings(size_px=160, patients_per_class=4, images_per_patient=[1, 1])
    )
    table = read_manifest(root / "manifest.csv")
    # As a data set has it whose files were stretched to the square.
    return table.assign(width="200", height="150"), root


def prepared_with(phantom, parent: Path, **changes: object) -> Prepared:
    manifest, root = phantom
    return prepare(manifest, root, parent, PrepareSettings(size=64, split="whole", **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("lungs", ["none", "crop", "mask"])
def test_a_file_gives_the_pixels_that_were_prepared(phantom, tmp_path, lungs, fit):
    prepared = prepared_with(phantom, tmp_path, lungs=lungs, fit=fit)
    spec = PreprocessSpec(**prepared.info["preprocess"])
    for row, name in enumerate(prepared.table["image"]):
        image = read_gray(phantom[1] / name)
        shown = to_model_input(image, spec, original=(150, 200))
        assert np.array_equal(shown.pixels, prepared.pixels[row])
        assert np.array_equal(prepared.square_of(row, image), prepared.pixels[row])
        if lungs != "none":
            assert shown.placement == prepared.placement(row)
            stored, found = prepared.lungs(row), find_lungs(image)
            assert stored
            assert np.array_equal(stored.mask, found.mask)
            assert (stored.box, stored.score, stored.count) == (found.box, found.score, found.count)


def test_whole_images_keep_their_fingerprint_and_files(phantom, tmp_path):
    prepared = prepared_with(phantom, tmp_path)
    assert prepared.info["preprocess"] == {"size_px": 64, "fit": "stretch"}
    assert "lungs" not in prepared.info
    assert not [name for name in prepared.table if name.startswith("lungs")]
    assert prepared.folder.name.startswith("whole-64px-")


def test_a_crop_keeps_the_same_images_and_says_what_it_found(phantom, tmp_path):
    whole = prepared_with(phantom, tmp_path / "none")
    cropped = prepared_with(phantom, tmp_path / "crop", lungs="crop")
    columns = ["image", "sha256", "group", "split"]
    assert whole.table[columns].equals(cropped.table[columns])
    assert whole.info["fingerprint"] != cropped.info["fingerprint"]
    assert cropped.spec.finder == finder_digest(cropped.folder / "lungs.onnx") == finder_digest()
    assert set(cropped.info["lungs"]["columns"]) <= set(cropped.table)
    fewer = (cropped.table["lungs_count"].astype(int) < 2).sum()
    assert sum(cropped.info["lungs"]["fallback"].values()) == fewer
    assert cropped.folder.name.startswith("whole-64px-crop-")
    assert not {"all.npy", "shown.npy"} & {path.name for path in cropped.folder.iterdir()}


def test_another_finder_is_another_preparation(phantom, tmp_path, monkeypatch):
    first = prepared_with(phantom, tmp_path, lungs="crop")
    assert prepared_with(phantom, tmp_path, lungs="crop").reused
    monkeypatch.setattr("cxr.data.prepared.finder_digest", lambda: "another")
    second = prepared_with(phantom, tmp_path, lungs="crop")
    assert not second.reused
    assert first.info["fingerprint"] != second.info["fingerprint"]


def test_the_box_gets_its_margin_and_stays_in_the_image():
    assert shown_box(two_lungs(), replace(SPEC, lungs_margin=0.0)) == two_lungs().box
    top, left, bottom, right = shown_box(two_lungs(), replace(SPEC, lungs_margin=0.1))
    assert (top, bottom) == pytest.approx((0.2, 0.8))
    assert (left, right) == pytest.approx((0.0875, 0.9125))
    assert shown_box(two_lungs(), replace(SPEC, lungs_margin=1.0)) == WHOLE


@pytest.mark.parametrize(("fallback", "box"), [("whole", WHOLE), ("centre", CENTRE)])
def test_one_lung_alone_falls_back(fallback, box):
    one = replace(two_lungs(), count=1)
    assert shown_box(one, replace(SPEC, lungs_fallback=fallback)) == box
    nothing = Lungs(np.zeros((128, 128), bool), None, 0.0, 0)
    image = np.random.default_rng(0).integers(1, 256, (90, 80), np.uint8)
    shown = to_model_input(image, replace(SPEC, lungs="mask"), lungs=nothing)
    assert shown.pixels.min() > 0, "nothing is blanked where nothing was found"


def test_a_crop_gains_resolution():
    """Stripes that a whole image of 64 pixels blurs are seen in the crop."""
    image = np.zeros((256, 256), np.uint8)
    image[:, ::4] = image[:, 1::4] = 200
    whole = to_model_input(image, PreprocessSpec(64)).pixels
    small = replace(two_lungs(), box=(0.25, 0.25, 0.5, 0.5))
    crop = to_model_input(image, replace(SPEC, lungs_margin=0.0), lungs=small).pixels
    assert np.array_equal(crop, image[64:128, 64:128])
    assert crop.std() > 2 * whole.std()


def test_letterbox_in_a_crop_undoes_the_stretch_of_the_file():
    image = np.full((128, 128), 200, np.uint8)
    spec = replace(SPEC, fit="letterbox", lungs_margin=0.0)
    square = replace(two_lungs(), box=(0.25, 0.25, 0.75, 0.75))
    shown = to_model_input(image, spec, lungs=square, original=(100, 200)).pixels
    assert (shown > 0).any(axis=1).sum() == 32
    assert (shown > 0).any(axis=0).sum() == 64
    assert to_model_input(image, spec, lungs=square).pixels.all()


def test_the_mask_keeps_what_lies_between_the_lungs_and_fades_out():
    lungs = two_lungs()
    window = lung_window(lungs, 0.1)
    assert (window[lungs.mask] == 255).all()
    assert (window[40:88, 50:78] == 255).all(), "the mediastinum stays"
    assert window[:20].max() == window[110:].max() == 0
    assert 0 < window[28, 64] < 255
    assert set(np.unique(lung_window(lungs, 0.0))) == {0, 255}


@pytest.mark.parametrize(
    ("width", "height"), [("abc", "10"), ("10", ""), ("0", "10"), ("-3", "5"), ("inf", "5")]
)
def test_a_bad_size_is_named(width, height):
    with pytest.raises(InputError, match=r"height and width of a\.png are .*: allowed are pixels"):
        original_shape({"width": width, "height": height}, "a.png")


def test_no_size_is_no_size():
    assert original_shape({}, "a.png") is None
    assert original_shape({"width": "", "height": ""}, "a.png") is None
    assert original_shape({"width": "30.0", "height": "20"}, "a.png") == (20, 30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lungs": "box"}, "data.lungs is 'box': allowed are none, crop, mask"),
        ({"lungs_fallback": "x"}, "data.lungs_fallback is 'x': allowed are whole, centre"),
        ({"lungs_margin": -0.1}, r"data.lungs_margin is -0\.1: allowed are 0 to 1"),
    ],
)
def test_unknown_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        _ = PrepareSettings(**changes).spec


def test_a_skipped_file_leaves_the_lungs_where_they_belong(phantom, tmp_path):
    manifest, root = phantom
    (root / "bad.png").write_bytes(b"none")
    bad = manifest_table([{"image": "bad.png", "label": manifest["label"].iloc[0]}])
    table = pd.concat([bad, manifest], ignore_index=True)
    settings = PrepareSettings(size=64, split="whole", lungs="crop", on_error="skip")
    prepared = prepare(table, root, tmp_path, settings)
    for row, name in enumerate(prepared.table["image"]):
        stored = prepared.lungs(row)
        assert stored
        assert np.array_equal(stored.mask, find_lungs(read_gray(root / name)).mask)


@pytest.mark.realdata
def test_real_images_are_cropped_to_their_lungs(shared):
    masked = pd.read_csv(shared / "data/cxr4/manifest.csv", keep_default_na=False)
    masked = masked[masked["mask"] != ""].iloc[::400]
    for image, mask in zip(masked["image"], masked["mask"], strict=True):
        pixels = read_gray(shared / "data/cxr4" / image)
        true = np.asarray(Image.open(shared / "data/cxr4" / mask).convert("L")) > 127
        top, left, bottom, right = (
            round(share * 224) for share in shown_box(find_lungs(pixels), SPEC)
        )
        assert true[top:bottom, left:right].sum() > 0.97 * true.sum(), image
    assert FINDER_FILE.exists()

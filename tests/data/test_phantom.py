"""The phantom: the same for the same seed, honest masks, no short cut to the class."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxr.data.phantom.render import render_patient
from cxr.data.phantom.writer import PhantomSettings, write_phantom
from cxr.errors import InputError
from cxr.labels import CANONICAL
from cxr.pipeline.config import compose

SMALL = PhantomSettings(patients_per_class=2, images_per_patient=[1, 2], size_px=96, seed=7)
COLUMNS = {
    "image",
    "label",
    "patient_id",
    "source",
    "view",
    "sex",
    "age",
    "license",
    "width",
    "height",
    "mask",
    "lesion_mask",
}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "images"
    write_phantom(root, SMALL)
    return root


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, classes and patients of a sample that is large enough for a linear model."""
    pixels, targets, patients = [], [], []
    for target, label in enumerate(CANONICAL):
        for number in range(30):
            _, taken = render_patient(label, number, seed=3, size_px=64, images=(2, 3))
            for radiograph in taken:
                pixels.append(radiograph.pixels)
                targets.append(target)
                patients.append(100 * target + number)
    return np.array(pixels), np.array(targets), np.array(patients)


def read_table(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "manifest.csv", dtype=str, keep_default_na=False)


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def linear_accuracy(
    features: np.ndarray, targets: np.ndarray, patients: np.ndarray, *, strength: float
) -> float:
    """Mean test accuracy of a linear model over three splits by patient."""
    scores = []
    for train, test in GroupShuffleSplit(3, test_size=0.3, random_state=0).split(
        features, targets, patients
    ):
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
        )
        with warnings.catch_warnings():
            # Whether the last digit has settled does not matter here.
            warnings.simplefilter("ignore")
            model.fit(features[train], targets[train])
        scores.append(model.score(features[test], targets[test]))
    return float(np.mean(scores))


def test_same_seed_writes_identical_files(phantom: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "again", SMALL)
    assert contents(tmp_path / "again") == contents(phantom)


def test_another_seed_gives_other_images() -> None:
    one, other = (
        render_patient("covid", 0, seed=seed, size_px=64, images=(1, 1))[1][0] for seed in (1, 2)
    )
    assert not np.array_equal(one.pixels, other.pixels)


def test_more_patients_leave_the_first_ones_unchanged(phantom: Path, tmp_path: Path) -> None:
    more = PhantomSettings(patients_per_class=3, images_per_patient=[1, 2], size_px=96, seed=7)
    write_phantom(tmp_path / "more", more)
    before, after = contents(phantom), contents(tmp_path / "more")
    del before["manifest.csv"]
    assert before.items() <= after.items()
    rows = read_table(phantom).to_dict("records")
    assert all(row in read_table(tmp_path / "more").to_dict("records") for row in rows)


def test_images_of_one_patient_differ() -> None:
    _, (one, other) = render_patient("viral", 0, seed=1, size_px=64, images=(2, 2))
    assert not np.array_equal(one.pixels, other.pixels)


def test_manifest_has_valid_columns(phantom: Path) -> None:
    table = read_table(phantom)
    assert set(table.columns) == COLUMNS
    assert table["image"].is_unique
    assert set(table["label"]) == set(CANONICAL)
    assert table.groupby("label")["patient_id"].nunique().eq(2).all()
    assert table.groupby("patient_id")["label"].nunique().eq(1).all()
    assert set(table["view"]) <= {"AP", "PA"}
    assert set(table["sex"]) <= {"F", "M"}
    assert table["age"].astype(int).between(18, 92).all()
    assert set(table["license"]) == {"Apache-2.0 (synthetic)"}
    assert set(table["source"]) == {"phantom"}
    listed = {name for key in ("image", "mask", "lesion_mask") for name in table[key] if name}
    assert listed == set(contents(phantom)) - {"manifest.csv"}


def test_masks_match_images_and_lesions_lie_in_lungs(phantom: Path) -> None:
    for row in read_table(phantom).to_dict("records"):
        with Image.open(phantom / row["image"]) as image:
            assert (image.mode, image.size) == ("L", (96, 96))
        with Image.open(phantom / row["mask"]) as mask:
            assert (mask.mode, mask.size) == ("1", (96, 96))
            lung = np.asarray(mask)
        assert 0.1 < lung.mean() < 0.5
        assert (row["lesion_mask"] == "") == (row["label"] == "normal")
        if row["lesion_mask"]:
            with Image.open(phantom / row["lesion_mask"]) as mask:
                assert (mask.mode, mask.size) == ("1", (96, 96))
                lesion = np.asarray(mask)
            assert lesion.any()
            assert (lesion & lung).sum() >= 0.95 * lesion.sum()


def test_lesions_lie_where_their_class_has_them() -> None:
    share = {}
    for label in CANONICAL[1:]:
        left, right = 0, 0
        for number in range(12):
            image = render_patient(label, number, seed=5, size_px=64, images=(1, 1))[1][0]
            halves = sorted((image.lesion[:, :32].sum(), image.lesion[:, 32:].sum()))
            left, right = left + halves[0], right + halves[1]
        share[label] = left / (left + right)
    assert share["bacterial"] < 0.1
    assert share["covid"] > 0.25
    assert share["viral"] > 0.35


def test_lungs_are_dark_and_the_heart_points_to_the_images_right() -> None:
    contrasts, tilts = [], []
    for number in range(8):
        image = render_patient("normal", number, seed=5, size_px=96, images=(1, 1))[1][0]
        pixels = image.pixels.astype(float)
        contrasts.append(pixels[40:70, 44:52].mean() - pixels[image.lung].mean())
        rows = image.lung.any(1).nonzero()[0]
        lower = image.lung[rows[len(rows) * 3 // 4]]
        tilts.append(lower[:48].sum() - lower[48:].sum())
    assert min(contrasts) > 20
    assert np.mean(tilts) > 0


def test_thumbnails_do_not_suffice_for_a_linear_model(
    images: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    pixels, targets, patients = images
    thumbnails = pixels.reshape(len(pixels), 16, 4, 16, 4).mean((2, 4)).reshape(len(pixels), -1)
    best = max(
        linear_accuracy(thumbnails, targets, patients, strength=strength)
        for strength in (0.01, 0.1)
    )
    assert best < 0.70


def test_exposure_and_border_do_not_tell_the_class(
    images: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    pixels, targets, patients = images
    whole = np.stack([pixels.mean((1, 2)), pixels.std((1, 2))], 1)
    frame = np.ones((64, 64), bool)
    frame[4:-4, 4:-4] = False
    border = np.stack([pixels[:, frame].mean(1), pixels[:, frame].std(1)], 1)
    # Chance is 0.25; a patient-wise sample of this size wanders by some 0.05.
    assert linear_accuracy(whole, targets, patients, strength=1.0) < 0.42
    assert linear_accuracy(border, targets, patients, strength=1.0) < 0.40


def test_file_sizes_do_not_tell_the_class(phantom: Path) -> None:
    sizes = {(phantom / name).stat().st_size for name in read_table(phantom)["image"]}
    assert len(sizes) == 1


def test_interrupted_writing_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_phantom(root, SMALL)
    before, calls = contents(root), []

    def stop_at_third() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(root, SMALL, on_image=stop_at_third)
    assert contents(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_an_earlier_phantom_is_replaced_whole(tmp_path: Path) -> None:
    write_phantom(tmp_path / "images", SMALL)
    fewer = PhantomSettings(patients_per_class=1, images_per_patient=[1, 1], size_px=64, seed=8)
    write_phantom(tmp_path / "images", fewer)
    assert len(read_table(tmp_path / "images")) == len(CANONICAL)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_folder_with_anything_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("keep")
    with pytest.raises(InputError, match="other than a phantom"):
        write_phantom(tmp_path, SMALL)
    (tmp_path / "manifest.csv").write_text("image,label,source\na.png,normal,kermany\n")
    with pytest.raises(InputError, match="other than a phantom"):
        write_phantom(tmp_path, SMALL)
    assert (tmp_path / "holiday.txt").read_text() == "keep"


def test_each_image_is_reported(tmp_path: Path) -> None:
    calls: list[int] = []
    write_phantom(tmp_path / "images", SMALL, on_image=lambda: calls.append(1))
    assert len(calls) == len(read_table(tmp_path / "images"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patients_per_class": 0}, "0 patients per class"),
        ({"images_per_patient": [3, 2]}, "3 to 2 images"),
        ({"images_per_patient": [3]}, r"is \[3\]: fewest and most are needed"),
        ({"size_px": 16}, "size is 16"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PhantomSettings(**change)  # type: ignore[arg-type]


def test_the_defaults_are_those_of_make_train_and_find_its_images() -> None:
    data = compose("prepare", ["data=phantom"]).data
    assert data.phantom == PhantomSettings()
    assert PhantomSettings().digest.startswith("04ccdf51")

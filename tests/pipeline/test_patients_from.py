"""Patient ids of images that are copies of another set's."""

import pandas as pd
import pytest
from PIL import Image, ImageOps

from cxr.errors import MissingInputError
from cxr.pipeline.config import compose
from cxr.pipeline.prepare_stage import prepare_stage
from tests.conftest import TINY


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """Return the manifest of a tiny phantom."""
    root = tmp_path_factory.mktemp("outputs")
    prepare_stage(compose("prepare", [*TINY, f"output_root={root}"]))
    return next((root / "phantom").glob("images-*")) / "manifest.csv"


@pytest.fixture
def folder(phantom, tmp_path):
    """Return a folder per label with the phantom's images, every third mirrored, and the ids."""
    table = pd.read_csv(phantom, dtype=str, keep_default_na=False)
    ids = {}
    for number, row in enumerate(table.itertuples()):
        image = Image.open(phantom.parent / row.image)
        name = f"{row.label}/{number}.png"
        (tmp_path / "own" / row.label).mkdir(parents=True, exist_ok=True)
        (ImageOps.mirror(image) if number % 3 == 0 else image).save(tmp_path / "own" / name)
        ids[name] = row.patient_id
    return tmp_path / "own", ids


def overrides(folder, manifest, tmp_path):
    return [
        "data=folder",
        f"data.root={folder}",
        "data.size=64",
        f"data.patients_from={manifest}",
        f"output_root={tmp_path / 'outputs'}",
    ]


def test_copies_get_their_patients_and_are_split_by_them(phantom, folder, tmp_path, caplog):
    own, ids = folder
    config = compose("prepare", overrides(own, phantom, tmp_path))

    with caplog.at_level("INFO"):
        table = prepare_stage(config).table

    found = dict(zip(table["image"], table["patient_id"], strict=True))
    known = [name for name, patient in found.items() if patient]
    assert len(known) > 0.9 * len(ids)
    assert all(found[name] == ids[name] for name in known)
    assert table[table["patient_id"] != ""].groupby("patient_id")["split"].nunique().max() == 1
    assert f"of {len(ids)} images without a patient id {len(known)} have one now" in caplog.text

    assert prepare_stage(config).reused


def test_a_missing_manifest_is_one_line(phantom, folder, tmp_path):
    config = compose("prepare", overrides(folder[0], tmp_path / "none.csv", tmp_path))
    with pytest.raises(MissingInputError, match=r"none\.csv"):
        prepare_stage(config)

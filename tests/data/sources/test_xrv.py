"""The manifest of what torchxrayvision's loaders read."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.data.manifest import read_manifest
from cxr.data.sources.xrv import write_xrv_manifest
from cxr.errors import InputError


class NIH_Dataset:
    """What torchxrayvision 1.5.7 makes of Data_Entry_2017_v2020.csv."""

    pathologies = ("Effusion", "Pneumonia")

    def __init__(self, root):
        self.imgpath = str(root)
        self.labels = np.array([[0, 0], [1, 1], [1, 0], [0, 0], [0, np.nan]], dtype=np.float32)
        self.csv = pd.DataFrame(
            {
                "Image Index": [f"0000000{i}_000.png" for i in range(5)],
                "patientid": ["1", "1", "2", "3", "4"],
                "view": ["PA", "PA", "AP", "PA", "PA"],
                "age_years": [58.0, 58.0, np.nan, 40.0, 41.0],
                "sex_male": [True, True, False, False, False],
                "sex_female": [False, False, True, False, False],
            }
        )


class Unknown_Dataset(NIH_Dataset):
    pass


def test_rows_of_a_loader(tmp_path, trees, caplog):
    caplog.set_level("INFO")
    trees.touch(tmp_path, *(f"0000000{i}_000.png" for i in (0, 1, 2, 4)))
    path = write_xrv_manifest(NIH_Dataset(tmp_path), source="nih", license="free", rest="normal")
    table = read_manifest(path)
    columns = ["image", "label", "patient_id", "view", "sex", "age", "source", "license"]
    assert table[columns].to_numpy().tolist() == [
        ["00000000_000.png", "normal", "nih-1", "PA", "M", "58", "nih", "free"],
        ["00000001_000.png", "bacterial|viral", "nih-1", "PA", "M", "58", "nih", "free"],
    ]
    assert "'no label': 2" in caplog.text
    assert "'no image there': 1" in caplog.text


def test_labels_may_be_chosen(tmp_path, trees):
    trees.touch(tmp_path, *(f"0000000{i}_000.png" for i in range(5)))
    path = write_xrv_manifest(
        NIH_Dataset(tmp_path), source="nih", license="free", labels={"Effusion": "other"}
    )
    assert read_manifest(path)["label"].tolist() == ["other", "other"]


def test_what_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(InputError, match="Unknown_Dataset is not read: allowed are NIH_Dataset"):
        write_xrv_manifest(Unknown_Dataset(tmp_path), source="a", license="b")
    with pytest.raises(InputError, match=r"no image of NIH_Dataset in .*'no image there': 1"):
        write_xrv_manifest(NIH_Dataset(tmp_path), source="a", license="b")


def test_their_own_loader(tmp_path, trees):
    xrv = pytest.importorskip("torchxrayvision", reason="extra xrv is not installed")
    trees.nlm(tmp_path, {"MCUCXR_0001_0": "", "MCUCXR_0104_1": ""})
    for path in (tmp_path / "CXR_png").glob("*.png"):
        Image.new("L", (4, 4)).save(path)
    (tmp_path / "CXR_png" / "Thumbs.db").unlink()
    dataset = xrv.datasets.NLMTB_Dataset(imgpath=str(tmp_path))
    path = write_xrv_manifest(dataset, source="montgomery", license="NLM", rest="normal")
    assert read_manifest(path)["image"].tolist() == ["CXR_png/MCUCXR_0001_0.png"]

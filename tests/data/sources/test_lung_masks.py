"""Lung masks from Darwin annotations: shapes, and which image they belong to."""

import json

import numpy as np
import pytest
from PIL import Image

from cxr.data.manifest import manifest_table
from cxr.data.sources.lung_masks import draw_masks
from cxr.errors import InputError


def box(left, top, right, bottom):
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return [{"x": x, "y": y} for x, y in corners]


LUNGS = [
    {"name": "Lung", "polygon": {"path": box(1, 1, 3, 8)}},
    {"name": "Lung", "polygon": {"path": box(6.0, 1, 8, 8)}},
    {"name": "Ignore", "polygon": {"path": box(0, 0, 9, 9)}},
    {"name": "COVID-19", "tag": {}},
]
"""As covid-only.zip of V7's repository has them."""
INSIDE = np.zeros((10, 10), dtype=bool)
INSIDE[1:9, 1:4] = INSIDE[1:9, 6:9] = True


def annotate(folder, name, annotations, size=(10, 10)):
    image = {"original_filename": name, "filename": "00001.jpg", "seq": 1}
    image |= {"width": size[0], "height": size[1]}
    folder.mkdir(exist_ok=True)
    path = folder / f"{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps({"image": image, "annotations": annotations}))


def table_of(root, *names, size=(10, 10), source="cohen"):
    rows = []
    for name in names:
        (root / "one").mkdir(exist_ok=True)
        Image.new("L", size).save(root / "one" / name)
        rows.append({"image": f"one/{name}", "label": "covid", "source": source})
    return manifest_table(rows)


def drawn(root, mask):
    with Image.open(root / mask) as file:
        return np.asarray(file)


def test_lungs_are_drawn_and_joined_by_file_name(tmp_path, caplog):
    caplog.set_level("INFO")
    annotate(tmp_path / "v7", "b.jpg", LUNGS)
    annotate(tmp_path / "v7", "unknown.jpg", LUNGS)
    annotate(tmp_path / "v7", "c.png", LUNGS[2:])
    # Hannover's PNG files are JPEG files at Cohen's, from where V7 took them.
    masked = draw_masks(table_of(tmp_path, "a.png", "b.png", "c.png"), tmp_path, tmp_path / "v7")
    assert masked["mask"].tolist() == ["", "masks/cohen/b.png", ""]
    assert (drawn(tmp_path, "masks/cohen/b.png") == INSIDE).all()
    assert "cohen: 1 of 3 images have a lung mask" in caplog.text


@pytest.mark.parametrize(
    "shape",
    [
        {"complex_polygon": {"path": [box(0, 0, 9, 9), box(3, 3, 5, 5)]}},
        {"polygon": {"paths": [box(0, 0, 9, 9), box(3, 3, 5, 5)]}},
    ],
)
def test_a_path_within_another_is_a_hole(tmp_path, shape):
    annotate(tmp_path / "v7", "a.jpg", [{"name": "Lung", **shape}])
    masked = draw_masks(table_of(tmp_path, "a.jpg"), tmp_path, tmp_path / "v7")
    mask = drawn(tmp_path, masked["mask"].iloc[0])
    assert not mask[3:6, 3:6].any()
    assert mask.sum() == 100 - 9


def test_scaled_images_keep_their_mask_and_others_get_none(tmp_path):
    annotate(tmp_path / "v7", "a.jpg", LUNGS, size=(20, 10))
    for size, expected in (((81, 40), True), ((10, 10), False)):
        masked = draw_masks(table_of(tmp_path, "a.jpg", size=size), tmp_path, tmp_path / "v7")
        assert masked["mask"].ne("").tolist() == [expected]


@pytest.mark.parametrize("size", [(24, 20), (20, 24)])
def test_hannovers_masks_are_of_the_central_square(tmp_path, size):
    annotate(tmp_path / "v7", "a.jpg", LUNGS)
    table = table_of(tmp_path, "a.png", size=size, source="hannover")
    mask = drawn(tmp_path, draw_masks(table, tmp_path, tmp_path / "v7")["mask"].iloc[0])
    border = ((0, 0), (1, 1)) if size[0] > size[1] else ((1, 1), (0, 0))
    assert (mask == np.pad(INSIDE, border)).all()
    assert draw_masks(table.assign(source="cohen"), tmp_path, tmp_path / "v7")["mask"].eq("").all()


def test_file_that_is_no_annotation(tmp_path):
    (tmp_path / "v7").mkdir()
    (tmp_path / "v7" / "a.json").write_text('{"image": {}}')
    with pytest.raises(InputError, match=r"a\.json is no Darwin annotation \(KeyError"):
        draw_masks(table_of(tmp_path, "a.jpg"), tmp_path, tmp_path / "v7")

"""The 8-bit variant: what is quantised, what is measured, when it is offered."""

import json

import numpy as np
import onnx
import pytest

from cxr.bundle.format import read_info
from cxr.bundle.predictor import Predictor
from cxr.bundle.quantise import Setting, quantisable, quantise, settings_for
from cxr.errors import InputError
from cxr.pipeline import eightbit

pytestmark = pytest.mark.long
MEMBERS = ("mobilenetv2", "inceptionv3")


def test_settings_begin_with_the_large_networks():
    found = settings_for({"mobilenetv2": 9, "inceptionv3": 87})
    assert [one.members for one in found] == [("inceptionv3",), MEMBERS, MEMBERS]
    assert [one.method for one in settings_for({"a": 1, "b": 1})] == ["minmax", "percentile"]
    assert json.dumps(found[0].to_dict())


def test_only_what_lies_behind_the_features_is_quantised(tiny_bundle):
    model = onnx.load(tiny_bundle / "model.onnx")
    operators = {node.name: node.op_type for node in model.graph.node}
    both = quantisable(model, Setting(MEMBERS, keep_first=False))
    one = quantisable(model, Setting(("inceptionv3",)))
    assert set(one) < set(both)
    convolutions = [name for name in both if operators[name] == "Conv"]
    # All but the maps' own, one a member.
    assert len(convolutions) == sum(kind == "Conv" for kind in operators.values()) - len(MEMBERS)
    assert len(both) == len(set(both))
    assert not {operators[name] for name in both} & {"Gemm", "Softmax", "ReduceMean", "Resize"}


def test_eight_bits_answer_nearly_the_same(tiny_bundle, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64), np.uint8)
    count = []
    target = tmp_path / "int8.onnx"
    quantise(
        tiny_bundle / "model.onnx",
        target,
        images,
        Setting(MEMBERS),
        on_image=lambda: count.append(1),
    )
    assert len(count) == len(images)
    assert target.stat().st_size < 0.4 * (tiny_bundle / "model.onnx").stat().st_size
    assert not list(tmp_path.glob(".quantising-*"))
    kinds = {node.op_type for node in onnx.load(target).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_the_bundle_says_what_eight_bits_cost(tiny_bundle):
    info = read_info(tiny_bundle)
    entry = info["models"]["int8"]
    assert entry["tried"]
    assert {"value", "low", "high"} == set(entry["test"]["difference"])
    assert 0 <= entry["test"]["int8"] <= 1
    assert ("file" in entry) == ("model-int8.onnx" in info["files"]) == ("reason" not in entry)
    if "file" in entry:
        assert entry["test"]["difference"]["value"] >= -eightbit.COST_LIMIT
        found = Predictor(tiny_bundle, variant="int8", threads=1)
        image = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
        assert sum(found.predict(image).probs.values()) == pytest.approx(1, abs=1e-5)
    else:
        with pytest.raises(InputError, match="has no int8 variant"):
            Predictor(tiny_bundle, variant="int8")


def test_a_variant_that_costs_more_is_left_out(changeable):
    from cxr.bundle.format import write_info

    info = read_info(changeable)
    (changeable / "model-int8.onnx").unlink(missing_ok=True)
    values = {key: info[key] for key in info if key not in ("format", "files", "fingerprint")}
    values["models"]["int8"] = {"reason": "costs 2.00 points of accuracy on test"}
    write_info(changeable, values)
    with pytest.raises(InputError, match=r"no int8 variant \(it costs 2\.00 points"):
        Predictor(changeable, variant="int8")

"""Members: built for any classes, filled with the right weights, kept bit for bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cxr.errors import InputError, MissingInputError
from cxr.models.build import (
    CARD_FILE,
    HEAD_STD,
    WEIGHTS_FILE,
    Member,
    MemberSpec,
    build_member,
    freeze,
    load_member,
    load_pretrained,
    save_weights,
)

LABELS = ("normal", "covid", "bacterial", "viral")
SMALL = "mobilenetv2_035"


def small(labels: tuple[str, ...] = LABELS, *, seed: int = 0, size_px: int = 64) -> Member:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    return build_member(SMALL, labels, input_size_px=size_px, generator=generator)


def inputs(count: int = 2, size_px: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))


def keep(member: Member, folder: Path) -> None:
    save_weights(member, folder / WEIGHTS_FILE)
    (folder / CARD_FILE).write_text(json.dumps(member.spec.to_dict()))


def error_of(member: Member, source: str | Path) -> str:
    before = {key: value.clone() for key, value in member.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_pretrained(member, str(source))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in member.state_dict().items())
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "size_px", "mean", "feature_module"),
    [("mobilenetv2_100", 224, 0.485, "bn2"), ("inception_v3", 299, 0.5, "Mixed_7c")],
)
def test_the_two_members_bring_timms_input_and_end_as_grad_cam_needs(
    architecture, size_px, mean, feature_module
):
    member = build_member(architecture, LABELS).eval()
    assert member.spec.input.size_px == size_px
    assert member.spec.input.mean[0] == mean
    assert member.spec.feature_module == feature_module
    assert not [name for name, _ in member.network.named_modules() if "aux" in name.lower()]
    with torch.no_grad():
        features = member.features(inputs(1, 128))
        closed = member.head(features.mean(dim=(2, 3)))
        assert torch.allclose(member(inputs(1, 128)), closed, atol=1e-4)


@pytest.mark.parametrize("labels", [("a", "b"), LABELS, tuple("abcdefg")])
def test_as_many_logits_as_labels(labels):
    member = small(labels).eval()
    assert member(inputs()).shape == (2, len(labels))
    assert member.spec.labels == labels


def test_a_new_head_starts_small_so_that_the_loss_starts_at_ln_k():
    member = small()
    assert member.head.bias.abs().max() == 0
    assert member.head.weight.std().item() == pytest.approx(HEAD_STD, rel=0.1)


def test_the_generator_fixes_the_head():
    same = small(seed=1).head.weight, small(seed=1).head.weight
    assert torch.equal(*same)
    assert not torch.equal(same[0], small(seed=2).head.weight)


def test_the_feature_module_is_where_the_features_come_from():
    member = small().eval()
    found = []
    module = dict(member.network.named_modules())[member.spec.feature_module]
    module.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    with torch.no_grad():
        logits = member(inputs())
        assert torch.equal(found[0], member.features(inputs()))
        assert torch.allclose(logits, member.head(found[0].mean(dim=(2, 3))), atol=1e-5)


def test_building_leaves_batch_norms_untouched():
    states = small().state_dict()
    assert all((value == 0).all() for key, value in states.items() if key.endswith("running_mean"))


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("mobilnetv2_100", r"unknown model 'mobilnetv2_100'.*correct model.architecture"),
        ("mobilenetv9", r"unknown model 'mobilenetv9'.*for instance .*mobilenet"),
        ("mobilenetv3_small_050", r"mobilenetv3_small_050 does not end in a feature map"),
        ("vit_tiny_patch16_224", r"vit_tiny_patch16_224 does not end in a feature map"),
        ("convnext_atto", r"convnext_atto does something between its features and its logits"),
    ],
)
def test_unusable_architectures_are_refused(architecture, message):
    with pytest.raises(InputError, match=message) as caught:
        build_member(architecture, LABELS)
    assert "\n" not in str(caught.value)


def test_an_input_too_small_for_the_network_is_refused():
    with pytest.raises(InputError, match=r"cannot take inputs of 32 x 32 .*raise model.input_size"):
        build_member("inception_v3", LABELS, input_size_px=32)


def test_a_smaller_output_stride_makes_the_map_finer_and_comes_back_with_the_weights(tmp_path):
    torch.manual_seed(0)
    fine = build_member(SMALL, LABELS, input_size_px=64, output_stride=16).eval()
    assert fine.features(inputs()).shape[-2:] == (4, 4)
    assert small().features(inputs()).shape[-2:] == (2, 2)
    kernels = [m for m in fine.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {m.dilation for m in kernels} == {(1, 1)}
    keep(fine, tmp_path)
    assert torch.equal(load_member(tmp_path)(inputs()), fine(inputs()))


@pytest.mark.parametrize(("architecture", "stride"), [(SMALL, 5), ("inception_v3", 16)])
def test_an_output_stride_that_a_network_has_not_is_refused(architecture, stride):
    with pytest.raises(InputError, match=f"{architecture} has no output stride of {stride}"):
        build_member(architecture, LABELS, input_size_px=96, output_stride=stride)


def test_preparing_equals_the_numpy_reference():
    member = small()
    spec = member.spec.input
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    found = member.prepare(torch.from_numpy(pixels)[:, None])
    assert found.dtype == torch.float32
    gray = pixels[:, None] / 255
    mean, std = (np.array(part)[:, None, None] for part in (spec.mean, spec.std))
    np.testing.assert_allclose(found, (gray - mean) / std, atol=1e-6)
    as_float = member.prepare(torch.from_numpy(pixels)[:, None].float() / 255)
    assert torch.allclose(found, as_float, atol=1e-6)


@pytest.mark.parametrize("side", [32, 48, 128])
def test_preparing_resizes_to_the_members_side(side):
    pixels = torch.full((2, 1, side, side), 200, dtype=torch.uint8)
    found = small().prepare(pixels)
    assert found.shape == (2, 3, 64, 64)
    assert (found[:, 0] - found[0, 0, 0, 0]).abs().max() < 1e-5


def test_spec_survives_json():
    spec = small().spec
    assert MemberSpec.from_dict(json.loads(json.dumps(spec.to_dict() | {"more": 1}))) == spec


def test_weights_come_back_bit_for_bit(tmp_path):
    member = small().eval()
    keep(member, tmp_path)
    loaded = load_member(tmp_path)
    assert not loaded.training
    assert loaded.spec == member.spec
    assert torch.equal(loaded(inputs()), member(inputs()))


def test_loading_needs_a_trained_member(tmp_path):
    with pytest.raises(MissingInputError, match=r"member.json is missing: train it first"):
        load_member(tmp_path)
    keep(small(), tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(MissingInputError, match=r"weights.safetensors is missing: train first"):
        load_member(tmp_path)


@pytest.mark.parametrize("change", [{"labels": ["a", "b"]}, {"architecture": "mobilenetv2_050"}])
def test_weights_that_are_not_what_the_card_says_are_refused(tmp_path, change):
    keep(small(), tmp_path)
    card = json.loads((tmp_path / CARD_FILE).read_text())
    (tmp_path / CARD_FILE).write_text(json.dumps(card | change))
    with pytest.raises(InputError, match=r"does not hold weights of .* as member.json says"):
        load_member(tmp_path)


def test_damaged_weights_are_refused(tmp_path):
    keep(small(), tmp_path)
    whole = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is no safetensors file"):
        load_member(tmp_path)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return half-precision weights of another head, as weights are handed on."""
    member = small(("a", "b", "c"), seed=5)
    path = tmp_path / "weights" / f"{SMALL}.imagenet1k.safetensors"
    path.parent.mkdir()
    save_file({key: value.half() for key, value in member.network.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("as_folder", [False, True])
def test_pretrained_weights_fill_all_but_the_head(weights, as_folder):
    member = small(seed=6)
    head = member.head.weight.clone()
    origin = load_pretrained(member, str(weights.parent if as_folder else weights))
    assert origin["source"] == weights.name
    assert len(origin["sha256"]) == 64
    expected = small(("a", "b", "c"), seed=5).network.state_dict()
    for key, value in member.network.state_dict().items():
        if key.startswith("classifier"):
            continue
        assert torch.equal(value, expected[key].half().to(value.dtype)), key
    assert torch.equal(member.head.weight, head)


def test_weights_without_a_head_are_enough(weights):
    from safetensors.torch import load_file

    body = {k: v for k, v in load_file(weights).items() if not k.startswith("classifier")}
    save_file(body, weights)
    load_pretrained(small(), str(weights))


def test_random_weights_on_request():
    member = small()
    before = member.head.weight.clone()
    assert load_pretrained(member, "none") == {"source": "none"}
    assert torch.equal(member.head.weight, before)


def test_weights_of_another_architecture_are_refused_and_load_nothing(weights):
    other = build_member("mobilenetv2_050", LABELS, input_size_px=64)
    message = error_of(other, weights)
    assert "are not mobilenetv2_050's" in message
    assert "name the right file in model.pretrained" in message


def test_places_without_weights_are_named(weights, tmp_path):
    member = small()
    assert "does not exist: allowed are hub, none" in error_of(member, tmp_path / "gone")
    assert "holds 0 files mobilenetv2_035*.safetensors" in error_of(member, tmp_path)
    (weights.parent / f"{SMALL}.more.safetensors").write_bytes(weights.read_bytes())
    assert "holds 2 files" in error_of(member, weights.parent)
    (tmp_path / "text.safetensors").write_text("no weights")
    assert "is no safetensors file" in error_of(member, tmp_path / "text.safetensors")


def test_an_unreachable_hub_is_one_line_with_the_two_ways_on(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = error_of(small(), "hub")
    assert "cannot be had from the model hub (http://127.0.0.1:9 does not answer" in message
    assert "model.pretrained=PATH" in message
    assert "model.pretrained=none" in message


def test_what_the_hub_holds_fills_all_but_the_head(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    cached, member = small(("a", "b", "c"), seed=5).network, small(seed=6)
    monkeypatch.setattr("timm.create_model", lambda *_args, **_options: cached)
    assert load_pretrained(member, "hub") == {"source": "hub"}
    assert torch.equal(member.network.conv_stem.weight, cached.conv_stem.weight)


def test_frozen_modules_have_no_gradient():
    member = small()
    freeze(member, ["conv_stem", "blocks.0"])
    frozen = {name for name, p in member.network.named_parameters() if not p.requires_grad}
    assert frozen
    assert all(name.startswith(("conv_stem", "blocks.0.")) for name in frozen)
    assert len(frozen) < len(list(member.network.parameters()))


def test_freezing_what_is_not_there_names_the_modules():
    with pytest.raises(InputError, match=r"names 'stem', which mobilenetv2_035 lacks.*conv_stem"):
        freeze(small(), ["stem"])

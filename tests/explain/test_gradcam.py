import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from cxr.errors import InputError
from cxr.explain.gradcam import (
    check_method,
    closed_form_cam,
    ensemble_cam,
    library_cam,
    library_methods,
    member_maps,
    resize_maps,
)
from cxr.models.build import Member, build_member, load_pretrained

LABELS = ("normal", "covid", "bacterial", "viral")


def make_member(architecture: str, side: int) -> Member:
    generator = torch.Generator().manual_seed(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return build_member(architecture, LABELS, input_size_px=side, generator=generator).eval()


def make_images(count: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 1, side, side), generator=generator).to(torch.uint8)


@pytest.fixture(scope="module")
def mobilenet() -> Member:
    return make_member("mobilenetv2_100", 96)


def assert_equals_library(member: Member, images: torch.Tensor, classes: torch.Tensor) -> None:
    """Compare the maps before the library stretches them, then the stretched ones."""
    rows = np.arange(len(images))
    ours = torch.from_numpy(member_maps(member, images[:, 0].numpy(), rows, classes.numpy()))
    member.cpu()
    layer = member.network.get_submodule(member.spec.feature_module)
    raw = []
    reference = GradCAM(member, [layer])
    scaled_by = reference.get_cam_image

    def keep(*args: object, **kwargs: object) -> np.ndarray:
        raw.append(scaled_by(*args, **kwargs))
        return raw[-1]

    reference.get_cam_image = keep
    targets = [ClassifierOutputTarget(k) for k in classes.tolist()]
    reference(input_tensor=member.prepare(images), targets=targets)
    cells = ours.shape[-2] * ours.shape[-1]
    theirs = torch.from_numpy(raw[0]).relu() * cells
    assert theirs.shape == ours.shape
    limit = 1e-4 * theirs.amax(dim=(1, 2), keepdim=True)
    assert bool(((ours - theirs).abs() <= limit).all())
    assert bool((theirs > 0).any())


@pytest.mark.parametrize(
    ("architecture", "side"), [("mobilenetv2_100", 128), ("inception_v3", 139)]
)
def test_closed_form_equals_the_library_with_random_weights(architecture, side):
    member = make_member(architecture, side)
    assert_equals_library(member, make_images(4, 64), torch.tensor([0, 1, 2, 3]))


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "side"), [("mobilenetv2_100", 224), ("inception_v3", 299)]
)
def test_closed_form_equals_the_library_with_pretrained_weights(shared, architecture, side):
    member = make_member(architecture, side)
    load_pretrained(member, str(shared / "weights"))
    assert_equals_library(member, make_images(4, 224), torch.tensor([0, 1, 2, 3]))


def test_closed_form_matches_a_map_worked_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    weight = torch.tensor([[1.0, -1.0], [2.0, 1.0]])
    every = closed_form_cam(features, weight)
    assert every.tolist() == [[[[0.0, 2.0]], [[5.0, 4.0]]]]
    assert closed_form_cam(features, weight, torch.tensor([1])).tolist() == [[[5.0, 4.0]]]


def test_closed_form_computes_in_float32_from_half_precision():
    maps = closed_form_cam(torch.ones(1, 2, 2, 2).bfloat16(), torch.ones(3, 2).bfloat16())
    assert maps.dtype == torch.float32
    assert maps.shape == (1, 3, 2, 2)


def test_map_peaks_where_a_lesion_was_planted(mobilenet):
    # A head that reads the features which a bright square excites must point at the square.
    images = torch.full((2, 1, 96, 96), 90, dtype=torch.uint8)
    images[1, 0, 56:88, 56:88] = make_images(1, 32)[0, 0]
    with torch.no_grad():
        empty, planted = mobilenet.features(mobilenet.prepare(images))
        member = make_member("mobilenetv2_100", 96)
        member.load_state_dict(mobilenet.state_dict())
        member.head.weight.zero_()
        member.head.weight[2] = (planted - empty).abs().amax(dim=(1, 2))
        member.head.weight[2] *= (planted[:, 2, 2] > empty[:, 2, 2]).float()
    excited = closed_form_cam((planted - empty).relu()[None], member.head.weight)[0, 2]
    row, column = divmod(int(excited.argmax()), excited.shape[-1])
    assert row >= 1
    assert column >= 1


def test_maps_of_images_do_not_depend_on_the_batch(mobilenet):
    images = make_images(5, 96).numpy()[:, 0]
    rows, classes = np.array([4, 0, 2]), np.array([1, 1, 3])
    seen = []
    whole = member_maps(mobilenet, images, rows, classes, on_image=lambda: seen.append(1))
    parts = member_maps(mobilenet, images, rows, classes, batch_size=2)
    np.testing.assert_allclose(whole, parts, atol=1e-5 * whole.max())
    assert whole.shape == (3, 3, 3)
    assert len(seen) == 3


FAST = sorted(set(library_methods()) - {"AblationCAM", "ScoreCAM", "SESS"})


@pytest.mark.parametrize("method", FAST)
def test_every_method_of_the_library_maps_an_image(mobilenet, method):
    maps = library_cam(mobilenet, make_images(2, 96), torch.tensor([0, 2]), method=method)
    assert maps.shape == (2, 96, 96)
    assert float(maps.min()) >= 0
    assert float(maps.max()) <= 1
    assert all(value.grad is None for value in mobilenet.parameters())


def test_the_well_known_methods_are_offered():
    known = {"GradCAM", "HiResCAM", "GradCAMPlusPlus", "XGradCAM", "EigenCAM", "LayerCAM"}
    assert known | {"ScoreCAM", "AblationCAM"} <= set(library_methods())


def test_an_earlier_layer_gives_another_map_even_with_frozen_weights(mobilenet):
    member = make_member("mobilenetv2_100", 96).requires_grad_(False)
    images, classes = make_images(1, 96), torch.tensor([1])
    early = library_cam(member, images, classes, method="GradCAM", layer="blocks.3")
    late = library_cam(member, images, classes, method="GradCAM")
    assert early.shape == late.shape
    assert not torch.allclose(early, late)


@pytest.mark.parametrize(
    ("method", "layer", "message"),
    [
        ("GradCam", None, "method is 'GradCam': allowed are closed_form, AblationCAM"),
        ("closed_form", "blocks.3", "closed_form explains the last feature layer alone"),
        ("FullGrad", "blocks.3", "FullGrad explains all layers at once"),
    ],
)
def test_methods_that_cannot_be_used_are_refused(method, layer, message):
    with pytest.raises(InputError, match=message) as caught:
        check_method(method, layer)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer4", "layer is 'layer4', which mobilenetv2_100 lacks: allowed are conv_stem"),
        ("classifier", "no map of at least 2 x 2 cells: choose a layer up to bn2"),
    ],
)
def test_layers_that_cannot_be_used_are_refused(mobilenet, layer, message):
    with pytest.raises(InputError, match=message) as caught:
        library_cam(mobilenet, make_images(1, 96), torch.tensor([0]), method="GradCAM", layer=layer)
    assert "\n" not in str(caught.value)


def test_ensemble_map_is_the_weighted_mean_of_maps_scaled_to_one():
    maps = {
        "a": np.array([[[0.0, 4.0], [0.0, 0.0]]], np.float32),
        "b": np.array([[[0.0, 0.1], [0.05, 0.0]]], np.float32),
    }
    found = ensemble_cam(maps, {"a": 0.75, "b": 0.25}, 2)
    np.testing.assert_allclose(found, [[[0.0, 1.0], [0.125, 0.0]]], atol=1e-7)


def test_ensemble_joins_grids_of_different_size_and_keeps_silent_maps_silent():
    maps = {"a": np.zeros((1, 4, 4), np.float32), "b": np.ones((1, 2, 2), np.float32)}
    found = ensemble_cam(maps, {"a": 0.5, "b": 0.5}, 32)
    assert found.shape == (1, 32, 32)
    np.testing.assert_allclose(found, 0.5)
    assert not resize_maps(maps["a"], 32).any()


def test_maps_and_weights_of_different_members_are_refused():
    with pytest.raises(InputError, match=r"maps are given of \['a'\], weights of \['b'\]"):
        ensemble_cam({"a": np.zeros((1, 2, 2), np.float32)}, {"b": 1.0}, 8)

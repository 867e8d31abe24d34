"""float32 or bfloat16, by trying both."""

import pytest
import torch

from cxr.labels import CANONICAL
from cxr.models.build import build_member
from cxr.training import precision
from cxr.training.precision import choose_precision, step_seconds

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def member():
    return build_member("mobilenetv2_100", CANONICAL, input_size_px=64)


@pytest.mark.parametrize(("given", "chosen"), [("32", "32-true"), ("bf16", "bf16-mixed")])
def test_what_is_given_is_taken_unmeasured(member, monkeypatch, given, chosen):
    monkeypatch.setattr(precision, "step_seconds", lambda *_: pytest.fail("it was measured"))
    assert choose_precision(given, member, CPU) == chosen


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [((1.0, 0.5), "bf16-mixed"), ((1.0, 0.8), "32-true"), ((1.0, 10.0), "32-true")],
)
def test_the_faster_is_taken_where_chance_cannot_choose(member, monkeypatch, seconds, chosen):
    monkeypatch.setattr(precision, "step_seconds", lambda *_: seconds)
    assert choose_precision("auto", member, CPU) == chosen


def test_several_processes_agree_without_measuring(member, monkeypatch):
    monkeypatch.setattr(precision, "step_seconds", lambda *_: pytest.fail("it was measured"))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert choose_precision("auto", member, CPU, processes=2) == "bf16-mixed"


def test_measuring_changes_neither_the_member_nor_chance(member):
    member.train()
    before = {name: value.clone() for name, value in member.state_dict().items()}
    state = torch.get_rng_state()

    exact, short = step_seconds(member, CPU)

    assert exact > 0
    assert short > 0
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in member.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in member.parameters())

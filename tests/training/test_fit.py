"""Training: it learns, repeats itself, resumes, and stops at nonsense."""

import csv
import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional

from cxr.data.loader import BatchLoader, EpochSampler, FixedOrder
from cxr.errors import InputError, NonFiniteLossError
from cxr.models.build import build_member, freeze
from cxr.training import precision
from cxr.training.callbacks import ResumeCheckpoint
from cxr.training.fit import MemberModule, label_loss, parameter_groups
from cxr.training.trainer import fit
from cxr.training.trainer_settings import Augmentation, TrainerSettings

LABELS = ("normal", "viral")
SETTINGS = TrainerSettings(
    max_epochs=3,
    batch_size=4,
    lr=5e-3,
    backbone_lr_factor=1.0,
    ema_decay=0.9,
    warmup=0.2,
    augment=Augmentation(blur_px=0.5),
    accelerator="cpu",
    precision="32",
    progress=False,
    checkpoint_minutes=1e9,
)


def images(count: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return images that are bright at the top or at the bottom, and which."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 80, (count, 32, 32)).astype(np.uint8)
    targets = np.arange(count) % 2
    for image, target in zip(pixels, targets, strict=True):
        image[slice(0, 12) if target else slice(20, 32)] += 150
    return pixels, targets.astype(np.int64)


def module_and_loaders(
    settings: TrainerSettings = SETTINGS,
    seed: int = 3,
    *,
    random_start: bool = False,
    frozen: tuple[str, ...] = (),
    sets: bool = False,
    weights: np.ndarray | None = None,
):
    pixels, targets = images()
    if sets:
        targets = np.eye(len(LABELS), dtype=bool)[targets]
        targets[::5] = True
    member = build_member(
        "mobilenetv2_035",
        LABELS,
        input_size_px=32,
        drop_rate=0.2,
        generator=torch.Generator().manual_seed(seed),
    )
    with torch.no_grad():
        draw = torch.Generator().manual_seed(seed)
        for parameter in member.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.1)
    freeze(member, frozen)
    module = MemberModule(
        member,
        settings,
        class_weights=None,
        names=[f"image{i}" for i in range(16)],
        seed=seed,
        frozen=frozen,
        random_start=random_start,
    )
    rows = np.arange(16)
    order = EpochSampler(rows, weights=weights, seed=seed)
    train = BatchLoader(pixels, targets, order, batch_size=4)
    return module, train, BatchLoader(pixels, targets, FixedOrder(rows), batch_size=8)


def losses(folder: Path) -> list[str]:
    with (folder / "logs" / "curves.csv").open() as file:
        return [row["loss"] for row in csv.DictReader(file)]


def test_overfits_four_images(tmp_path):
    pixels, targets = images(4)
    module, _, _ = module_and_loaders()
    settings = replace(
        SETTINGS,
        max_epochs=30,
        patience=100,
        augment=Augmentation(0, 0, 0, 0, 0, 0, 0, 0),
        label_smoothing=0,
    )
    module.settings = settings
    rows = np.arange(4)
    train = BatchLoader(pixels, targets, EpochSampler(rows, seed=0), batch_size=4)
    fit(module, train, BatchLoader(pixels, targets, FixedOrder(rows), batch_size=4), tmp_path)
    assert float(losses(tmp_path)[-1]) < 0.1


def test_the_last_epoch_is_kept_where_no_validation_has_a_say(tmp_path):
    module, train, val = module_and_loaders(replace(SETTINGS, monitor="last", patience=1))
    result = fit(module, train, val, tmp_path)
    assert (result.best_epoch, result.epochs) == (3, 3)
    kept = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=False)
    assert kept["global_step"] == 3 * len(train)


def test_same_seed_gives_the_same_loss(tmp_path):
    for name in ("a", "b"):
        module, train, val = module_and_loaders()
        fit(module, train, val, tmp_path / name)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


@pytest.mark.parametrize("random_start", [True, False])
def test_statistics_of_a_random_network_forget_their_start(tmp_path, random_start):
    settings = replace(SETTINGS, max_epochs=1, ema_decay=0)
    module, train, val = module_and_loaders(settings, random_start=random_start)
    # The first norm sees what no training changes much: its variance is that of the images.
    fit(module, train, val, tmp_path)
    norm = module.member.network.bn1
    pixels = torch.from_numpy(images()[0])[:, None]
    with torch.no_grad():
        seen = module.member.network.conv_stem(module.member.prepare(pixels))
    kept = norm.running_var / seen.var(dim=(0, 2, 3))
    assert norm.momentum == pytest.approx(1 / len(train) if random_start else 0.1)
    if random_start:
        assert kept.median() == pytest.approx(1, abs=0.3)
    else:
        assert kept.median() > 1.5 or kept.median() < 0.67


class Kill(Callback):
    """Save at one step and die at a later one, as a killed process does."""

    def __init__(self, folder: Path, save_at: int, die_at: int):
        self.path, self.save_at, self.die_at = folder / "checkpoints/resume.ckpt", save_at, die_at

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.save_at:
            ResumeCheckpoint(self.path, 0).save(trainer)
        if trainer.global_step == self.die_at:
            raise KeyError("killed")


FROZEN = ("conv_stem", "bn1", "blocks.0", "blocks.1")


@pytest.mark.parametrize(
    ("save_at", "die_at", "frozen"),
    [(1, 2, ()), (2, 4, FROZEN), (5, 7, ()), (6, 6, FROZEN), (9, 11, FROZEN)],
)
def test_resumed_run_equals_uninterrupted(tmp_path, save_at, die_at, frozen):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    module, train, val = module_and_loaders(random_start=not frozen, frozen=frozen)
    fit(module, train, val, whole)
    broken, train, val = module_and_loaders(random_start=not frozen, frozen=frozen)
    with pytest.raises(KeyError, match="killed"):
        fit(broken, train, val, cut, extra_callbacks=(Kill(cut, save_at, die_at),))
    resumed, train, val = module_and_loaders(random_start=not frozen, frozen=frozen)
    result = fit(resumed, train, val, cut)
    assert result.resumed_at_step == save_at
    assert losses(cut) == losses(whole)
    assert (cut / "logs/curves.csv").read_text() == (whole / "logs/curves.csv").read_text()
    # Buffers too: the running statistics of batch norms.
    kept = resumed.member.state_dict()
    differing = [
        name
        for name, value in module.member.state_dict().items()
        if not torch.equal(value, kept[name])
    ]
    assert not differing


@pytest.mark.parametrize("named", [True, False])
def test_a_resumed_run_keeps_its_arithmetic(tmp_path, monkeypatch, named):
    settings = replace(SETTINGS, precision="auto")
    monkeypatch.setattr(precision, "step_seconds", lambda *_: (2.0, 1.0 if named else 2.0))
    module, train, val = module_and_loaders(settings=settings)
    with pytest.raises(KeyError, match="killed"):
        fit(module, train, val, tmp_path, extra_callbacks=(Kill(tmp_path, 2, 3),))
    path = tmp_path / "checkpoints/resume.ckpt"
    kept = torch.load(path, weights_only=False)
    if not named:  # as written before the arithmetic was measured
        del kept["precision"]
        torch.save(kept, path)
    monkeypatch.setattr(precision, "step_seconds", lambda *_: pytest.fail("it was measured anew"))

    module, train, val = module_and_loaders(settings=settings)
    assert fit(module, train, val, tmp_path).precision == ("bf16-mixed" if named else "32-true")


def test_a_run_with_label_sets_and_weighted_draws_resumes_exactly(tmp_path):
    options = {"sets": True, "weights": np.arange(1.0, 17.0)}
    module, train, val = module_and_loaders(**options)
    fit(module, train, val, tmp_path / "whole")
    broken, train, val = module_and_loaders(**options)
    with pytest.raises(KeyError, match="killed"):
        fit(broken, train, val, tmp_path / "cut", extra_callbacks=(Kill(tmp_path / "cut", 5, 7),))
    resumed, train, val = module_and_loaders(**options)
    assert fit(resumed, train, val, tmp_path / "cut").resumed_at_step == 5
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.0]])
def test_of_one_class_a_set_the_loss_is_the_cross_entropy(smoothing, weight):
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 1, 2, 2, 1, 0, 1])
    options = {
        "weight": None if weight is None else torch.tensor(weight),
        "label_smoothing": smoothing,
    }
    expected = functional.cross_entropy(logits, target, **options)
    assert torch.equal(label_loss(logits, target, **options), expected)
    sets = functional.one_hot(target, 3).bool()
    torch.testing.assert_close(label_loss(logits, sets, **options), expected)


def test_a_set_costs_its_summed_probability_and_leaves_open_which():
    probs = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]])
    sets = torch.tensor([[False, True, True], [False, True, False]])
    weight = torch.tensor([1.0, 2.0, 4.0])
    loss = label_loss(probs.log(), sets, weight=weight, label_smoothing=0.3)
    # By hand: the weights are 3 and 2; smoothing charges a tenth of each class's weight.
    spread = -(probs.log() * weight).sum(dim=1) * 0.1
    first, second = -0.7 * 3 * math.log(0.5), -0.7 * 2 * math.log(0.6)
    assert float(loss) == pytest.approx(float(first + second + spread.sum()) / 5, rel=1e-5)
    logits = torch.zeros(1, 3, requires_grad=True)
    label_loss(logits, sets[:1]).backward()
    assert logits.grad[0].tolist() == pytest.approx([1 / 3, -1 / 6, -1 / 6])


def test_validation_counts_a_set_right_where_the_class_named_is_in_it(tmp_path):
    module, _, _ = module_and_loaders()
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    module.member.forward = lambda _: logits
    module.log = lambda *_args, **_options: None
    target = torch.tensor([[True, True], [False, True], [False, True], [True, False]])
    batch = {"pixels": torch.zeros(4, 1, 32, 32, dtype=torch.uint8), "target": target}
    module.validation_step(batch, 0)
    assert float(module.val_accuracy.compute()) == pytest.approx(3 / 4)
    assert float(module.val_balanced_accuracy.compute()) == pytest.approx(3 / 4)
    expected = -logits.log_softmax(dim=1)
    total = float(expected[1:3, 1].sum() + expected[3, 0])
    assert float(module.val_nll.compute()) == pytest.approx(total / 4)


def test_frozen_modules_keep_every_number(tmp_path):
    module, train, val = module_and_loaders(frozen=FROZEN)
    before = {name: value.clone() for name, value in module.member.state_dict().items()}
    fit(module, train, val, tmp_path)
    prefixes = tuple(f"network.{name}." for name in FROZEN)
    moved = [
        name
        for name, value in module.member.state_dict().items()
        if name.startswith(prefixes) and not torch.equal(value, before[name])
    ]
    assert any(name.startswith(prefixes) for name in before)
    assert not moved


def test_logged_rate_is_that_of_the_step(tmp_path):
    module, train, val = module_and_loaders()
    fit(module, train, val, tmp_path)
    steps = SETTINGS.max_epochs * len(train)
    warmup = round(SETTINGS.warmup * steps)
    wanted = [
        SETTINGS.lr
        * (
            (step + 1) / warmup
            if step < warmup
            else 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
        )
        for step in range(steps)
    ]
    with (tmp_path / "logs/curves.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx(wanted)
    board = EventAccumulator(str(tmp_path / "logs/tensorboard")).Reload()
    events = board.Scalars("lr")
    assert [event.step for event in events] == list(range(steps))
    assert [event.value for event in events] == pytest.approx(wanted, rel=1e-5)


def test_non_finite_loss_stops_and_names_the_images(tmp_path):
    module, train, val = module_and_loaders()
    with torch.no_grad():
        module.member.head.bias.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"became nan at step 0.*image\d+, image\d+"):
        fit(module, train, val, tmp_path)


def test_full_disk_while_saving_is_one_line(tmp_path, monkeypatch):
    module, train, val = module_and_loaders()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning.pytorch.Trainer.save_checkpoint", full)
    with pytest.raises(InputError, match="the disk is full: free some space"):
        fit(module, train, val, tmp_path)


def test_backbone_learns_slower_and_norms_do_not_decay():
    module, _, _ = module_and_loaders()
    settings = replace(SETTINGS, lr=0.1, backbone_lr_factor=0.5, weight_decay=0.3)
    found = {
        (group["lr"], group["weight_decay"], min(p.ndim for p in group["params"]) > 1)
        for group in parameter_groups(module.member, settings)
    }
    assert found == {(0.05, 0.0, False), (0.05, 0.3, True), (0.1, 0.0, False), (0.1, 0.3, True)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imbalance": "both"}, "imbalance is 'both': allowed are none, loss, sampler"),
        ({"monitor": "loss"}, "monitor is 'loss': allowed are balanced_accuracy, nll"),
        ({"precision": "half"}, "precision is 'half': allowed are auto, 32, bf16"),
        ({"max_epochs": 0}, "max_epochs is 0: allowed are 1 to"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(SETTINGS, **change)


def test_epoch_lines_are_logged(tmp_path, caplog):
    module, train, val = module_and_loaders(replace(SETTINGS, max_epochs=1))
    with caplog.at_level(logging.INFO):
        fit(module, train, val, tmp_path)
    assert "epoch 1/1: val balanced accuracy" in caplog.text

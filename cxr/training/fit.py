"""Train one member: the Lightning module, its checkpoints and its resumption.

B batch, K classes, S side of prepared pixels. All randomness of a step comes from (seed, step),
so an interrupted training that goes on gives the loss curve of an uninterrupted one.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from cxr.data.loader import Batch, BatchLoader
from cxr.errors import NonFiniteLossError
from cxr.models.build import Member
from cxr.training.augment import augment, step_generator
from cxr.training.teacher import Teacher, distillation_loss
from cxr.training.thread_count import THREADS
from cxr.training.trainer_settings import TeacherSettings, TrainerSettings


class MemberModule(LightningModule):
    """What Lightning trains.

    ``class_weights`` (K,) are of the loss, ``names`` those of the images by row, for messages;
    ``frozen`` modules stay in inference mode. ``random_start`` says that the network has no
    pretrained weights, and so no statistics of its activations either. A ``teacher`` is a trained
    ensemble to learn from, and how.
    """

    def __init__(
        self,
        member: Member,
        settings: TrainerSettings,
        *,
        class_weights: Tensor | None,
        names: Sequence[str],
        seed: int,
        frozen: Sequence[str] = (),
        random_start: bool = False,
        teacher: tuple[Teacher, TeacherSettings] | None = None,
    ) -> None:
        super().__init__()
        self._teacher = teacher
        self.member, self.settings = member, settings
        self._names, self._seed, self._frozen = names, seed, tuple(frozen)
        self.train_batches: BatchLoader | None = None
        self.rate = math.nan
        self.register_buffer("class_weights", class_weights, persistent=False)
        self._norms = [
            (module, module.momentum)
            for module in member.modules()
            if random_start and isinstance(module, nn.BatchNorm2d) and module.momentum is not None
        ]
        classes = len(member.spec.labels)
        self.val_nll = MeanMetric()
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")
        self.val_balanced_accuracy = MulticlassAccuracy(classes, average="macro")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the arithmetic, so that a training that goes on measures no other."""
        checkpoint["precision"] = self.trainer.precision

    def on_train_start(self) -> None:
        """Keep frozen modules' batch norms in inference mode in an epoch that is resumed.

        Lightning skips ``on_train_epoch_start`` where it goes on in the middle of one.
        """
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Keep frozen modules' batch norms in inference mode."""
        modules = dict(self.member.network.named_modules())
        for name in self._frozen:
            modules[name].eval()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Let the first batches count alike in the running statistics of a random network.

        They begin at mean 0 and variance 1, which a deep network of random weights is far from,
        and which 10 steps at momentum 0.1 keep by a third: logits of thousands in inference mode.
        """
        THREADS.adapt()
        for norm, momentum in self._norms:
            norm.momentum = max(momentum, 1 / (self.trainer.global_step + 1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, on augmented radiographs."""
        step = self.trainer.global_step
        draw = step * self.trainer.world_size + self.trainer.global_rank
        generator = step_generator(self._seed, draw)
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        radiographs = augment(
            batch["pixels"],
            self.settings.augment,
            size_px=self.member.spec.input.size_px,
            generator=generator,
        )
        inputs = self.member.prepare(radiographs).contiguous(memory_format=torch.channels_last)
        logits = self.member(inputs).float()
        loss = label_loss(
            logits,
            batch["target"],
            weight=self.class_weights if isinstance(self.class_weights, Tensor) else None,
            label_smoothing=self.settings.label_smoothing,
        )
        if self._teacher:
            log_probs, how = self._teacher[0](radiographs), self._teacher[1]
            apart = distillation_loss(logits, log_probs, how.temperature)
            loss = (1 - how.weight) * loss + how.weight * apart
        if not torch.isfinite(loss):
            images = [self._names[row] for row in batch["row"].tolist()]
            raise NonFiniteLossError(
                f"the loss became {loss.item()} at step {step}: lower trainer.lr "
                f"({self.settings.lr:g}), or look at this batch's images: {', '.join(images)}"
            )
        loader = self.trainer.train_dataloader
        if isinstance(loader, BatchLoader):
            loader.batches_done = batch_idx + 1
        self.log("train_loss", loss, on_step=True, on_epoch=False, prog_bar=True)
        # The schedule has moved on by the time a batch has ended.
        self.rate = float(self.optimizers().param_groups[-1]["lr"])  # type: ignore[union-attr]
        self.log("lr", self.rate)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the metrics of a batch, on images as they are."""
        inputs = self.member.prepare(batch["pixels"])
        logits = self.member(inputs.contiguous(memory_format=torch.channels_last)).float()
        target = batch["target"]
        if target.ndim == 1:
            self.val_nll.update(functional.cross_entropy(logits, target, reduction="none"))
            self.val_accuracy.update(logits, target)
        else:
            self.val_nll.update(_set_losses(logits.log_softmax(dim=1), target))
            named, plain = logits.argmax(dim=1), target.sum(dim=1) == 1
            inside = target.gather(1, named[:, None])[:, 0]
            # Right where the class named is in the set; of a wrong one any of the set is told.
            target = torch.where(inside, named, target.int().argmax(dim=1))
            self.val_accuracy.update(logits, target)
            logits, target = logits[plain], target[plain]
        if len(target):
            self.val_balanced_accuracy.update(logits, target)
        self.log("val_nll", self.val_nll, prog_bar=True)
        self.log("val_accuracy", self.val_accuracy)
        self.log("val_balanced_accuracy", self.val_balanced_accuracy, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW with a lower rate for the backbone, linear warm-up, then cosine to zero."""
        settings = self.settings
        # Lightning's own estimate sets up the data before a checkpoint is read, and a resumed
        # epoch would then begin at its first batch again.
        assert self.train_batches is not None, "fit() names the batches"
        steps = settings.max_epochs * len(self.train_batches)
        warmup = max(1, round(settings.warmup * steps))

        def rate(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

        optimizer = torch.optim.AdamW(parameter_groups(self.member, settings))
        schedule = LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def label_loss(
    logits: Tensor, target: Tensor, *, weight: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean cross-entropy of logits (B, K), where labels may be known only as sets.

    ``target`` are (B,) class indices, or (B, K) bool, the classes that each image may be of. An
    image of the set S costs -log(sum over S of p_k), which asks for a class of the set and leaves
    open which. Its weight is the mean of its classes' weights; smoothing is spread over all
    classes, as for a known class. Of one class a set it is torch's cross-entropy.

    Source: partial labels, Jin, Ghahramani 2002, NeurIPS 15; Cour, Sapp, Taskar 2011, JMLR
    12:1501-1536.
    """
    if target.ndim == 1:
        return functional.cross_entropy(
            logits, target, weight=weight, label_smoothing=label_smoothing
        )
    classes = logits.shape[1]
    weights = logits.new_ones(classes) if weight is None else weight
    log_probs = logits.log_softmax(dim=1)
    own = target.to(weights.dtype) @ weights / target.sum(dim=1)
    spread = -(log_probs @ weights) / classes
    total = (1 - label_smoothing) * own * _set_losses(log_probs, target) + label_smoothing * spread
    return total.sum() / own.sum()


def _set_losses(log_probs: Tensor, target: Tensor) -> Tensor:
    """Return -log of the summed probability of each image's classes, (B,)."""
    return -log_probs.masked_fill(~target, -torch.inf).logsumexp(dim=1)


def parameter_groups(member: Member, settings: TrainerSettings) -> list[dict[str, Any]]:
    """Group trainable parameters by rate and decay: backbone and head, biases and norms apart."""
    head = {id(parameter) for parameter in member.head.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in member.parameters():
        if parameter.requires_grad:
            key = (id(parameter) in head, parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": settings.lr * (1 if in_head else settings.backbone_lr_factor),
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (in_head, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]

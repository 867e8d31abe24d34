"""Learning from a trained ensemble: its probabilities on the same augmented images as targets.

B batch, K classes.

Source: Hinton, Vinyals, Dean 2015, Distilling the Knowledge in a Neural Network, arXiv 1503.02531.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from cxr.models.build import Member
from cxr.models.ensemble import LOGARITHMIC, Ensemble

Teacher = Callable[[Tensor], Tensor]
"""Returns the calibrated log-probabilities (B, K) of radiographs (B, 1, H, W), float32, 0 to 1."""


def teacher_of(members: Mapping[str, Member], ensemble: Ensemble) -> Teacher:
    """Return a trained ensemble, of members in inference mode, as a teacher without gradients.

    A function and no module, so that the one that learns from it neither keeps, averages nor
    stores its weights. The members are moved to where the radiographs are.
    """
    modules = nn.ModuleList(members[name] for name in ensemble.members).eval()
    weights = [ensemble.weights[name] for name in ensemble.members]

    def log_probs(radiographs: Tensor) -> Tensor:
        if next(modules.parameters()).device != radiographs.device:
            modules.to(radiographs.device)
        each = []
        with torch.no_grad():
            for name, member in zip(ensemble.members, modules, strict=True):
                assert isinstance(member, Member)
                inputs = member.prepare(radiographs).contiguous(memory_format=torch.channels_last)
                logits = member(inputs).float() / ensemble.temperatures[name]
                each.append(functional.log_softmax(logits, dim=-1))
            pooled = pool_tensors(torch.stack(each, dim=1), weights, ensemble.pool)
            return functional.log_softmax(pooled / ensemble.temperature, dim=-1)

    return log_probs


def distillation_loss(logits: Tensor, teacher_log_probs: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher_T || student_T), mean over the batch, in nats, of values (B, K).

    T divides both; its square keeps the gradient's size.
    """
    student = functional.log_softmax(logits / temperature, dim=-1)
    target = functional.log_softmax(teacher_log_probs / temperature, dim=-1)
    divergence = functional.kl_div(student, target, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def pool_tensors(log_probs: Tensor, weights: Sequence[float], pool: str) -> Tensor:
    """Return log q (B, K) up to a constant per image, as ``cxr.models.ensemble.pool_logits`` does.

    ``log_probs`` (B, M, K) are of the members with their own temperatures; the weights (M,) sum to
    1.
    """
    shares = torch.tensor(weights, device=log_probs.device)[None, :, None]
    if pool == LOGARITHMIC:
        return (shares * log_probs).sum(dim=1)
    # In logarithms, where a probability that float32 cannot hold still counts.
    return (shares.clamp_min(torch.finfo(torch.float32).tiny).log() + log_probs).logsumexp(1)

"""What a member is and how members are pooled: settings of the configurations. No torch."""

from dataclasses import dataclass, field

MISSING = "???"
"""OmegaConf's mark of what has no safe default."""


@dataclass
class ModelSettings:
    """One member."""

    name: str = MISSING
    """Folder under members/."""
    architecture: str = MISSING
    """timm's name."""
    pretrained: str = "hub"
    """hub (timm's own weights), none, a safetensors file or a folder of them."""
    input_size: int | None = None
    """Side of the input in pixels; null takes timm's for the architecture."""
    output_stride: int | None = None
    """8, 16 or 32 input pixels per cell of the last feature layer, for finer Grad-CAM of what is
    trained from random weights; null is the architecture's own."""
    drop_rate: float = 0.0
    """Dropout before the head."""
    freeze: list[str] = field(default_factory=list)
    """Modules of the network that keep their pretrained weights."""


@dataclass
class PoolSettings:
    """How the members' probabilities become one; see cxr.models.ensemble."""

    pool: str = "logarithmic"
    """linear (of probabilities) or logarithmic (of logits / T); one temperature comes last."""
    weight_prior: float = 100.0
    """Images of a prior that draw the weights towards equal; 0: none, 1e9: equal."""

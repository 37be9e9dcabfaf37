"""What a part is told and asked, for tests that have no controller."""

import torch
from torch import Tensor

from entrostat.control import Measured, Part, TokenBatch
from entrostat.objective import ClipRule
from entrostat.tokens import TokenStats


def measured(entropy: float, progress: float = 0.0, step: int = 1) -> Measured:
    """A step with this entropy, and nothing else known."""
    return Measured(step, progress, entropy)


def batch_of(stats: TokenStats, advantages: Tensor, mask: Tensor, old_logp: Tensor | None = None) -> TokenBatch:
    """A batch, on-policy by default, under the constant band and token-mean."""
    old = stats.logp.detach() if old_logp is None else old_logp
    ones = torch.ones_like(stats.logp)
    return TokenBatch(stats, advantages, mask, old, ClipRule(), ones, old_entropy=stats.entropy.detach())


def weights_of(
    part: Part, stats: TokenStats, advantages: Tensor, mask: Tensor, old_logp: Tensor | None = None
) -> Tensor:
    """A part's weights for such a batch."""
    weights = part.weights(batch_of(stats, advantages, mask, old_logp))
    assert weights is not None
    return weights


def told(part: Part, step: int, total_steps: int, entropy: float) -> Part:
    """The part after it was told of one more step."""
    part.progress = min(step / total_steps, 1.0)
    part.observe(Measured(step, part.progress, entropy))
    return part

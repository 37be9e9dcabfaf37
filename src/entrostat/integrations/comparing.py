"""Which parts weight a token by the other tokens of its batch, in hosts that hand over one micro-batch at a time."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import replace

import torch

from entrostat.control import Measured, Part, TokenBatch
from entrostat.objective import ClipRule
from entrostat.tokens import TokenStats, token_stats

OWN_TERM = (
    "{} adds a term of its own to the loss, and here the host's own loss runs; choose a part that weights tokens, such "
    "as EntropicWeights in place of EntroPic, or train it with engine embedded"
)

TOKENS = 6000  # enough for some that are far from the mean
ENTROPIES = (1.0, 0.2, 2.0)  # that the part observes in turn, in nats
STATISTICS = ("logp", "entropy", "collision", "correction")


def compares(part: Part) -> bool:
    """Whether the weights of a batch differ from those of its pieces, tried on random tokens at several entropies.

    A part that draws tokens at random compares them too. False for a part that refuses these tokens.
    """
    if not part.weighs:
        return False
    tried = copy.deepcopy(part)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = _batch()
        pieces = [_piece(whole, slice(0, TOKENS // 3)), _piece(whole, slice(TOKENS // 3, None))]
        for step, entropy in enumerate(ENTROPIES, 1):
            tried.observe(Measured(step, step / (len(ENTROPIES) + 1), entropy))
            try:
                weights, parts = _weights(tried, whole), [_weights(tried, piece) for piece in pieces]
            except ValueError:
                return False
            if not torch.allclose(weights, torch.cat(parts), rtol=1e-4, atol=1e-6):
                return True
    return False


def warn_of_cut_batches(host: str, parts: Iterable[Part]) -> None:
    """Warn of the parts whose weights depend on how a step is cut into micro-batches."""
    if names := [type(part).__name__ for part in parts if compares(part)]:
        warnings.warn(
            f"{' and '.join(names)}: weights a token by the other tokens of its batch, and {host} hands over one "
            "micro-batch of one rank at a time, so that the weights depend on how a step is cut; make micro-batches as "
            "large as memory allows",
            stacklevel=3,
        )


def _weights(part: Part, batch: TokenBatch) -> torch.Tensor:
    weights = part.weights(batch)
    return torch.ones_like(batch.advantages) if weights is None else weights


def _batch() -> TokenBatch:
    logits = torch.logspace(-1, 2, TOKENS)[:, None, None] * torch.randn(TOKENS, 1, 16)
    stats = token_stats(logits, torch.randint(16, (TOKENS, 1)))  # from flat to sharp
    old_logp = stats.logp + 0.3 * torch.randn(TOKENS, 1)
    ones = torch.ones(TOKENS, 1)
    return TokenBatch(stats, torch.randn(TOKENS, 1), ones.bool(), old_logp, ClipRule(), ones, stats.logp)


def _piece(batch: TokenBatch, rows: slice) -> TokenBatch:
    tensors = ("advantages", "mask", "old_logp", "token_weights", "sampler_logp")
    stats = TokenStats(*(getattr(batch.stats, name)[rows] for name in STATISTICS))
    return replace(batch, stats=stats, **{name: getattr(batch, name)[rows] for name in tensors})

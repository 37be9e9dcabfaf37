"""The methods compared: from hidden states (N, D), an output matrix (V, D) and token ids (N,) to logp (N,).

Each also computes whatever else it can give for a token; one that gives only a loss returns its scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from entrostat.tokens import fused_token_stats, token_stats

Step = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """A step, the numbers it gives, whether it holds all logits at once, and the one device or type it is for."""

    step: Step
    gives: str
    holds_logits: bool
    device: str | None = None
    dtype: str | None = None


def entrostat_fused(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    return fused_token_stats(hidden, weight, ids).logp


def entrostat_logits(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    return token_stats(hidden @ weight.T, ids).logp


def materialised(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    log_p = (hidden @ weight.T).float().log_softmax(-1)
    with torch.no_grad():
        -(log_p.exp() * log_p).sum(-1)
    return log_p.gather(1, ids[:, None])[:, 0]


def chunked_logp(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """The plainest fused log-probability: blocks of 128 tokens, each computed again in the backward pass."""

    def block(states: Tensor, matrix: Tensor, tokens: Tensor) -> Tensor:
        z = (states @ matrix.T).float()
        return z.gather(1, tokens[:, None])[:, 0] - z.logsumexp(1)

    blocks = zip(hidden.split(128), ids.split(128), strict=True)
    return torch.cat([checkpoint(block, h, weight, i, use_reentrant=False) for h, i in blocks])


def exact_logp(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """chunked_logp with the logits that fused_token_stats has: of 16-bit factors, summed in float32 and not rounded."""
    return chunked_logp(hidden.float(), weight.float(), ids)


def trl_logits(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    from trl.trainer.utils import selective_log_softmax_and_entropy

    return selective_log_softmax_and_entropy(hidden @ weight.T, ids, entropy_requires_grad=False)[0]


def verl_fused(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    from verl.utils.experimental.torch_functional import FusedLinearForPPO

    return FusedLinearForPPO()(hidden, weight, ids)[0]


def verl_logits(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    from verl.utils.torch_functional import entropy_from_logits_with_chunking, logprobs_from_logits

    logits = hidden @ weight.T
    with torch.no_grad():
        entropy_from_logits_with_chunking(logits)
    return logprobs_from_logits(logits, ids, inplace_backward=False)


def verl_triton(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    from verl.utils.kernel.linear_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(hidden, weight, ids, 1.0, "none")[0]


def liger_cross_entropy(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss(reduction="sum")(weight, hidden, ids)


def liger_scaled_cross_entropy(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    from liger_kernel.ops import LigerFusedLinearScaledCrossEntropyFunction as ScaledCrossEntropy

    return -ScaledCrossEntropy.apply(hidden, weight, ids, 1.0, -100, 1, True)[0]


def liger_grpo(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

    sequences, length = 8, len(ids) // 8
    loss = LigerFusedLinearGRPOLoss(beta=0.0, use_ref_model=False, compiled=False)
    mask, advantages = hidden.new_ones(sequences, length), hidden.new_ones(sequences)
    return loss(hidden.view(sequences, length, -1), weight, ids.view(sequences, length), mask, advantages)[0]


def cut_cross_entropy(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    return -linear_cross_entropy(hidden, weight, ids, impl="cce", reduction="none")


def compiled_cross_entropy(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    return -linear_cross_entropy(hidden, weight, ids, impl="torch_compile", reduction="none")


METHODS = {
    "entrostat fused": Method(entrostat_fused, "logp H p2 C", holds_logits=False),
    "entrostat from logits": Method(entrostat_logits, "logp H p2 C", holds_logits=True),
    "materialised": Method(materialised, "logp H", holds_logits=True),
    "chunked logp": Method(chunked_logp, "logp", holds_logits=False),
    "chunked logp, exact": Method(exact_logp, "logp", holds_logits=False, dtype="bfloat16"),
    "TRL": Method(trl_logits, "logp H", holds_logits=True),
    "verl fused linear": Method(verl_fused, "logp H", holds_logits=False),
    "verl from logits": Method(verl_logits, "logp H", holds_logits=True),
    "verl Triton": Method(verl_triton, "logp H", holds_logits=False, device="cuda"),
    "Liger cross-entropy": Method(liger_cross_entropy, "loss", holds_logits=False, device="cuda"),
    "Liger scaled cross-entropy": Method(liger_scaled_cross_entropy, "logp H", holds_logits=False),
    "Liger GRPO": Method(liger_grpo, "loss", holds_logits=False),
    "cut-cross-entropy (Triton)": Method(cut_cross_entropy, "logp", holds_logits=False, device="cuda"),
    "cut-cross-entropy (compiled)": Method(compiled_cross_entropy, "logp", holds_logits=True, device="cpu"),
}

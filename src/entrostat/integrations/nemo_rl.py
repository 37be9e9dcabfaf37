"""NeMo RL: pass `ClippedLoss(...)` as grpo_train(loss_fn=...).

NeMo calls loss(data, global_valid_seqs, global_valid_toks, next_token_logprobs=...) -> (loss, metrics) for an object
whose loss_type and input_type are its enums TOKEN_LEVEL and LOGPROB. data: input_ids (B, S), token_mask (B, S),
sample_mask (B,), advantages (B, S), prev_logprobs (B, S), next_token_logprobs (B, S - 1); what is of a token starts
at the second. Tier A.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from entrostat.integrations.packed import Schedule, clip_fraction

TIER = "A"


class ClippedLoss:
    """The policy loss of a schedule, normalised by the tokens of the global batch."""

    def __init__(self, schedule: Schedule | None = None) -> None:
        from nemo_rl.algorithms.loss.interfaces import LossInputType, LossType

        self.schedule = Schedule() if schedule is None else schedule
        self.loss_type, self.input_type = LossType.TOKEN_LEVEL, LossInputType.LOGPROB

    def __call__(
        self,
        data: Mapping[str, Tensor],
        global_valid_seqs: Tensor,  # noqa: ARG002
        global_valid_toks: Tensor,
        *,
        next_token_logprobs: Tensor,
        **_: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """The sum of this micro-batch's tokens over the tokens of the global batch."""
        mask = data["token_mask"][:, 1:].bool() & data["sample_mask"].bool().unsqueeze(-1)
        out = self.schedule.loss(next_token_logprobs, data["prev_logprobs"][:, 1:], data["advantages"][:, 1:], mask)
        per_token = next_token_logprobs * 0 if out is None else out.per_token
        loss = per_token.sum() / global_valid_toks.clamp_min(1)
        return loss, {
            "loss": loss.detach().item(),
            "clip_fraction": clip_fraction(out, mask).item(),
            "num_valid_samples": int(data["sample_mask"].sum()),
        }

"""OpenRLHF: replace the actor's PolicyLoss, trainer.actor_loss_fn = entrostat.integrations.openrlhf.PolicyLoss()

OpenRLHF calls module(log_probs, old_log_probs, advantages, action_mask=None, ...) with tensors (B, T). Its first
answer is the loss; what follows grew over the versions: a clip ratio, then ppo_kl, then the sampler's KL, of which
this gives the first `answers` - 1, the last as None. Tier A; OpenRLHF's entropy is outside the loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from entrostat.integrations.packed import Schedule, clip_fraction, masked_mean

TIER = "A"


class PolicyLoss(torch.nn.Module):
    """The clipped loss under a schedule; token_level_loss averages over tokens, else over sequences first.

    answers: how many values this version of OpenRLHF unpacks, 2 to 4. Raises ValueError for another number.
    """

    def __init__(self, schedule: Schedule | None = None, token_level_loss: bool = True, answers: int = 4) -> None:
        super().__init__()
        if answers not in (2, 3, 4):
            raise ValueError(f"PolicyLoss.answers is {answers}; give 2, 3 or 4, as many as OpenRLHF unpacks")
        self.answers = answers
        self.schedule = Schedule() if schedule is None else schedule
        self.token_level_loss = token_level_loss

    def forward(
        self,
        log_probs: Tensor,
        old_log_probs: Tensor,
        advantages: Tensor,
        action_mask: Tensor | None = None,
        rollout_log_probs: Tensor | None = None,  # noqa: ARG002
        **_: Any,
    ) -> tuple[Tensor | None, ...]:
        """(loss, clip ratio, k1 KL to the old policy, None)."""
        mask = torch.ones_like(log_probs, dtype=torch.bool) if action_mask is None else action_mask.bool()
        out = self.schedule.loss(log_probs, old_log_probs, advantages, mask)
        per_token = log_probs * 0 if out is None else out.per_token
        if self.token_level_loss:
            loss = masked_mean(per_token, mask)
        else:
            loss = torch.stack([masked_mean(row, kept) for row, kept in zip(per_token, mask, strict=True)]).mean()
        kl = masked_mean((old_log_probs - log_probs).detach(), mask)
        return (loss, clip_fraction(out, mask), kl, None)[: self.answers]

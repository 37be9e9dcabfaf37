"""Completions of several turns: between two turns of the model stand the tokens of a tool or an environment.

    sums = TurnSums.zero()
    sums = sums + turn_sums(stats, advantages, mask)       per micro-batch; ranks add the tensors
    record |= sums.metrics()

A mask (B, T) is 1 on the model's own tokens and 0 on the tokens of tools and on padding: TRL's completion_mask times
tool_mask, verl's response_mask. A turn is a run of ones in a row; two turns with nothing between them count as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from entrostat.entropy.polarity import polarity
from entrostat.tokens import TokenStats

TURNS = 8
"""Turns with a record of their own; the last one stands for all later turns too."""


class _Column(IntEnum):
    TOKENS = 0
    TURNS = 1
    COMPLETIONS = 2
    ENTROPY = 3
    SURPRISAL = 4
    POLARITY = 5
    FLOW = 6


@torch.no_grad()
def turn_numbers(mask: Tensor) -> Tensor:
    """Return the number of each token's turn (B, T) from 1, and 0 where the mask (B, T) is 0.

    Raises ValueError for a mask that is not (B, T): packed tokens do not tell where a completion begins.
    """
    if mask.dim() != 2:
        raise ValueError(f"mask has the shape {tuple(mask.shape)}; give (B, T), one row per completion")
    return _begins(mask).cumsum(1) * mask.bool()


def _begins(mask: Tensor) -> Tensor:
    """Whether a token (B, T) is the first of a turn."""
    own = mask.bool().int()
    return own.diff(dim=1, prepend=own.new_zeros(len(own), 1)) > 0


@dataclass(frozen=True, slots=True)
class TurnSums:
    """Sums over tokens by turn, float64: `totals` (turn, quantity), reduced by SUM."""

    totals: Tensor

    @classmethod
    def zero(cls) -> TurnSums:
        """The sums of no token."""
        return cls(torch.zeros(TURNS, len(_Column), dtype=torch.float64))

    def __add__(self, other: TurnSums) -> TurnSums:
        return TurnSums(self.totals.to(other.totals.device) + other.totals)

    @property
    def several(self) -> bool:
        """Whether a completion has more than one turn."""
        return bool(self.totals[1:, _Column.TURNS].any())

    def with_flow_times(self, factor: float) -> TurnSums:
        """The sums with every token's flow multiplied by a factor, for a loss whose scale is known at the end."""
        totals = self.totals.clone()
        totals[:, _Column.FLOW] *= factor
        return TurnSums(totals)

    def metrics(self) -> dict[str, float | dict[str, dict[str, float]]]:
        """The record of a step; {} if no token was counted.

        turns_per_completion  mean number of turns of a completion
        turns                 for "1", "2" ... "8", each turn that a completion has, 8 for the eighth and all later:
            completions       share of the completions that have this turn
            tokens            mean tokens per turn
            entropy           mean H, nats per token
            surprisal         mean -ln p of the sampled token, nats per token
            polarity          mean P = A T, nats per unit of logit step
            flow              mean entropy flow, as flow_up + flow_down of a step, but per token of the turn
        Completions without a token of the model are not counted.
        """
        completions = float(self.totals[0, _Column.COMPLETIONS])
        if not completions:
            return {}
        turns = {}
        for turn, row in enumerate(self.totals.tolist(), 1):
            if tokens := row[_Column.TOKENS]:
                turns[str(turn)] = {
                    "completions": row[_Column.COMPLETIONS] / completions,
                    "tokens": tokens / row[_Column.TURNS],
                    "entropy": row[_Column.ENTROPY] / tokens,
                    "surprisal": row[_Column.SURPRISAL] / tokens,
                    "polarity": row[_Column.POLARITY] / tokens,
                    "flow": row[_Column.FLOW] / tokens,
                }
        return {"turns_per_completion": float(self.totals[:, _Column.TURNS].sum()) / completions, "turns": turns}


@torch.no_grad()
def turn_sums(stats: TokenStats, advantages: Tensor, mask: Tensor, *, flow: Tensor | None = None) -> TurnSums:
    """The sums of one micro-batch of whole completions, all tensors (B, T); the advantages may broadcast.

    flow: the entropy flow of the loss, see `entropy_flow`; None for the polarity, its value where the ratio is 1 and
    nothing is clipped. Tokens outside the mask are never read. Raises ValueError for a mask that is not (B, T).
    """
    numbers = turn_numbers(mask)
    own, begins = mask.bool(), _begins(mask)
    moved = polarity(stats, advantages.expand_as(stats.logp))
    columns = (
        own,
        begins,
        begins & (numbers <= TURNS),
        stats.entropy,
        -stats.logp,
        moved,
        moved if flow is None else flow,
    )
    values = torch.stack([column[own].double() for column in columns], dim=-1)
    rows = numbers[own].clamp_max(TURNS) - 1
    return TurnSums(TurnSums.zero().totals.to(values.device).index_add(0, rows, values))

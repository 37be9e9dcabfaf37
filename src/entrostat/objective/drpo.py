"""DRPO: a smooth penalty on the change of probability instead of a mask."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from entrostat.objective.surrogates import Objective, Surrogate, Tokens, objective, unclipped


@objective("drpo")
@dataclass(frozen=True)
class Drpo(Objective):
    """DRPO: -A f = -A r + abs(A) q (r - 1)^2 / (2 epsilon), no band; q: the sampler's probability of the token.

    The gradient's weight is r (1 - sign(A (r - 1)) abs(p - q) / epsilon): a move away from q fades until abs(p - q) is
    epsilon, and is pulled back beyond; a move towards q is amplified. As abs(p - q) <= 1, every epsilon above 1 only
    dampens. Source: arXiv 2606.09821, eq. 8; Tencent-Hunyuan/UniRL, unirl/algorithms/drpo.py, epsilon 12.5.
    Departs: none. Raises ValueError for epsilon <= 0.
    """

    banded = False
    anchored = True

    epsilon: float = 12.5

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"Drpo.epsilon is {self.epsilon}; give a change of probability above 0")

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        moved = tokens.ratio - 1
        pull = tokens.advantages.sign() * tokens.old_logp.exp() / self.epsilon
        value = tokens.ratio - pull * moved.square() / 2
        return unclipped(tokens, value, tokens.ratio * (1 - pull * moved))

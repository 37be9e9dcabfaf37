"""The terms of the loss besides the objective: entropy bonus, KL-Cov, those of parts, penalties towards a reference.

In every optimizer step the learner calls `begin`, then `on_tokens` for each micro-batch and `on_weights` once, takes
the step, and asks for the `record`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from entrostat.control import EntropyController
from entrostat.engine.policy import Trainable
from entrostat.engine.rollout import Rollout
from entrostat.entropy import bonus_flow, kl_flow, sensitivity
from entrostat.objective import adapted_coefficient, entropy_bonus, ewc_penalty, kl_cov_penalty, kl_to_reference
from entrostat.objective.regularisers import kl_cov_tokens, kl_estimate
from entrostat.recipe import Recipe
from entrostat.recipe.sections import KlCovRecipe, KlRecipe
from entrostat.tokens import TokenStats, token_stats


@dataclass(frozen=True, slots=True)
class Piece:
    """A micro-batch: its logits (B, T, V), their statistics, the weighted advantages, ln pi_old and the mask (B, T)."""

    rollout: Rollout
    logits: Tensor
    stats: TokenStats
    advantages: Tensor
    old_logp: Tensor
    mask: Tensor


class Term:
    """A term of the loss. By default it adds nothing and keeps no state.

    compares: it acts on tokens that `choose` picks from the whole batch, before that is cut into micro-batches.
    """

    compares = False

    @property
    def acts_on_tokens(self) -> bool:
        """Whether `on_tokens` adds anything in this step. Such a term has a gradient where the advantage is 0."""
        return False

    @property
    def needs_entropy_gradient(self) -> bool:
        """Whether the gradient of this step flows through the statistics' entropy."""
        return False

    def begin(self) -> None:
        """Start a step."""

    def choose(self, stats: TokenStats, advantages: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002
        """The tokens (B, T) that the term acts on; all by default. Advantages: weighted."""
        return mask

    def on_tokens(self, piece: Piece, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The term of every token and its entropy flow, both (B, T), before aggregation."""
        raise NotImplementedError(f"{type(self).__name__} acts on tokens; give it on_tokens")

    def on_weights(self, policy: Trainable) -> Tensor | None:  # noqa: ARG002
        """A scalar that depends on the weights alone."""
        return None

    def record(self, tokens: int) -> dict[str, float]:  # noqa: ARG002
        """The term's fields of the step line, after a step over `tokens` tokens; what adapts is adapted here."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, JSON-able."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""


class EntropyBonus(Term):
    """-coefficient x H of every token; the controller sets the coefficient at each step."""

    def __init__(self, controller: EntropyController, temperature: float) -> None:
        self.controller, self.temperature = controller, temperature
        self.coefficient = 0.0

    def begin(self) -> None:
        """Take the controller's current coefficient."""
        self.coefficient = self.controller.entropy_coef()

    @property
    def acts_on_tokens(self) -> bool:
        """While the coefficient is not 0."""
        return self.coefficient != 0

    @property
    def needs_entropy_gradient(self) -> bool:
        """While the coefficient is not 0."""
        return self.coefficient != 0

    def on_tokens(self, piece: Piece, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """See `entropy_bonus` and `bonus_flow`."""
        flow = self.coefficient * bonus_flow(piece.logits.detach(), self.temperature)
        return entropy_bonus(piece.stats.entropy, chosen, self.coefficient), flow


class KlCovTerm(Term):
    """coefficient x abs(ln pi - ln pi_old) on the tokens with the largest covariance; see `kl_cov_penalty`."""

    compares = True
    acts_on_tokens = True

    def __init__(self, settings: KlCovRecipe) -> None:
        self.share, self.coefficient = settings.share, settings.coefficient

    def choose(self, stats: TokenStats, advantages: Tensor, mask: Tensor) -> Tensor:
        """See `kl_cov_tokens`."""
        return kl_cov_tokens(stats.logp, advantages, mask, self.share)

    def on_tokens(self, piece: Piece, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The penalty, and the flow -(d penalty / d ln pi) T."""
        logp, old_logp = piece.stats.logp, piece.old_logp
        penalty = kl_cov_penalty(
            logp, old_logp, piece.advantages, piece.mask, coefficient=self.coefficient, chosen=chosen
        )
        slope = self.coefficient * (logp.detach() - old_logp).sign().where(chosen, 0)
        return penalty, -slope * sensitivity(piece.stats)


class PartsTerm(Term):
    """-c pi/pi_old of every token, with the coefficients c of the controller's parts; see `Part.unclipped`.

    token_weights: those of a batch with this mask, as `TokenBatch` has them.
    """

    compares = True
    acts_on_tokens = True

    def __init__(self, controller: EntropyController, token_weights: Callable[[Tensor], Tensor | None]) -> None:
        self.controller, self.token_weights = controller, token_weights

    def choose(self, stats: TokenStats, advantages: Tensor, mask: Tensor) -> Tensor:
        """The coefficients (B, T) in place of the tokens."""
        return self.controller.unclipped(stats, advantages, mask, self.token_weights(mask))

    def on_tokens(self, piece: Piece, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The term, and its flow c pi/pi_old T."""
        logp = piece.stats.logp.where(piece.mask, 0)
        ratio = (logp - piece.old_logp.where(piece.mask, 0)).exp()
        return -chosen * ratio, chosen * ratio.detach() * sensitivity(piece.stats)


class KlTerm(Term):
    """coefficient x KL(pi || reference) of every token, exact or estimated, in the loss or in the reward.

    The kind `adaptive` adapts the coefficient after each step.
    """

    def __init__(self, settings: KlRecipe, reference: Trainable, temperature: float) -> None:
        self.settings, self.reference, self.temperature = settings, reference, temperature
        self.coefficient = settings.coefficient
        self._sum = self._mean = 0.0

    def begin(self) -> None:
        """Forget the KL of the last step."""
        self._sum = 0.0

    @property
    def acts_on_tokens(self) -> bool:
        """Unless the penalty is in the reward."""
        return self.settings.place == "loss"

    def kl(self, piece: Piece) -> tuple[Tensor, Tensor]:
        """The KL of every completion token in nats and its entropy flow, both (B, T), without the coefficient."""
        with torch.no_grad():
            reference = self.reference.logits(*piece.rollout.tensors(self.reference.device))
        if self.settings.estimate == "exact":
            flow = kl_flow(piece.logits.detach(), reference, self.temperature)
            return kl_to_reference(piece.logits, reference, self.temperature), flow
        known = self._logp(reference, piece.rollout)
        estimate = kl_estimate(piece.stats.logp, known, self.settings.estimate)
        moved = piece.stats.logp.detach() - known
        slope = {"k1": torch.ones_like(moved), "k2": moved, "k3": -torch.expm1(-moved)}[self.settings.estimate]
        return estimate, -slope * sensitivity(piece.stats)

    def on_tokens(self, piece: Piece, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The penalty and its flow; the KL is added up for the record."""
        kl, flow = self.kl(piece)
        kl = kl.where(chosen, 0)
        self._sum += float(kl.detach().double().sum())
        return self.coefficient * kl, self.coefficient * flow

    @torch.no_grad()
    def in_reward(self, rollout: Rollout, old_logp: Tensor, size: int) -> Tensor:
        """What completions lose of their reward (B,): coefficient x the sum of the estimate over their tokens.

        old_logp (B, T): ln pi_old. size: completions per forward pass of the reference.
        """
        totals = torch.zeros(len(rollout.texts))
        for index in torch.split(torch.arange(len(rollout.texts)), size):
            part = rollout.rows(index)
            known = self._logp(self.reference.logits(*part.tensors(self.reference.device)), part).cpu()
            own = old_logp[index, : part.mask.shape[1]]
            totals[index] = kl_estimate(own, known, self.settings.estimate).where(part.mask, 0).sum(1)  # type: ignore[arg-type]
        self._mean = float(totals.double().sum()) / rollout.token_count
        return self.coefficient * totals

    def _logp(self, logits: Tensor, rollout: Rollout) -> Tensor:
        """ln pi_ref (B, T) of the completions' tokens."""
        return token_stats(logits, rollout.completions.to(logits.device), temperature=self.temperature).logp

    def record(self, tokens: int) -> dict[str, float]:
        """kl_reference, the mean KL in nats per token, and the coefficient that was in force."""
        mean = self._sum / tokens if self.acts_on_tokens else self._mean
        fields = {"kl_reference": mean, "kl_coefficient": self.coefficient}
        if self.settings.kind == "adaptive":
            self.coefficient = adapted_coefficient(self.coefficient, mean, self.settings.target)
        return fields

    def state_dict(self) -> dict[str, Any]:
        """The coefficient."""
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.coefficient = state["coefficient"]


class FisherTerm(Term):
    """coefficient x 1/2 sum F (theta - theta*)^2, with F from completions of the reference, whose weights are theta*.

    It follows from the reference and the completions, so a resumed run computes the same F.
    """

    def __init__(self, settings: KlRecipe, reference: Trainable, rollout: Rollout, temperature: float) -> None:
        self.coefficient = settings.coefficient
        self.anchors = [parameter.detach().clone() for parameter in reference.model.parameters()]
        self.fisher = diagonal_fisher(reference, rollout, temperature)
        self._value = 0.0

    def on_weights(self, policy: Trainable) -> Tensor:
        """See `ewc_penalty`."""
        penalty = self.coefficient * ewc_penalty(list(policy.model.parameters()), self.anchors, self.fisher)
        self._value = float(penalty.detach())
        return penalty

    def record(self, tokens: int) -> dict[str, float]:  # noqa: ARG002
        """ewc, the penalty."""
        return {"ewc": self._value}


def reference_term(recipe: Recipe, reference: Trainable, draw: Callable[[int], Rollout]) -> KlTerm | FisherTerm:
    """The penalty of a recipe's `update.kl`, which must be set. draw: gives that many completions of the reference."""
    settings, temperature = recipe.update.kl, recipe.rollout.temperature
    if settings is None:
        raise ValueError("update.kl is null; there is no penalty to build")
    if settings.kind == "fisher":
        return FisherTerm(settings, reference, draw(settings.fisher_samples), temperature)
    return KlTerm(settings, reference, temperature)


def diagonal_fisher(policy: Trainable, rollout: Rollout, temperature: float) -> list[Tensor]:
    """Diagonal of the Fisher information of the policy's weights, one tensor per parameter, per completion token.

        F_i = mean over completions y ~ pi of (d ln pi(y) / d theta_i)^2, divided by the mean length of y

    rollout: completions y that the policy itself has drawn, at the same temperature; with these, not with data, this
    is the true Fisher information (Kunstner et al., arXiv 1905.12558).
    """
    parameters = list(policy.model.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for row in range(len(rollout.texts)):
        tensors = rollout.rows(torch.tensor([row])).tensors(policy.device)
        stats = token_stats(policy.logits(*tensors), tensors[2], temperature=temperature)
        gradients = torch.autograd.grad(stats.logp[tensors[3]].sum(), parameters, allow_unused=True)
        for sum_of_squares, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                sum_of_squares += gradient.square()
    return [sum_of_squares / rollout.token_count for sum_of_squares in total]

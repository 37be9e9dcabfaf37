"""Penalties that keep a policy near a reference: exact KL with a fixed or adaptive coefficient, Fisher-weighted EWC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entrostat.engine.policy import Policy, load_policy
from entrostat.engine.rollout import Rollout, sample
from entrostat.engine.seeds import derived_seed
from entrostat.entropy import kl_flow
from entrostat.objective import adapted_coefficient, ewc_penalty, kl_to_reference
from entrostat.recipe import Recipe
from entrostat.recipe.sections import KlRecipe
from entrostat.tokens import token_stats


class KlAnchor:
    """coefficient x KL(pi || reference) of every token; kind `adaptive` adapts the coefficient after each step."""

    def __init__(self, settings: KlRecipe, reference: Policy, temperature: float) -> None:
        self.settings, self.reference, self.temperature = settings, reference, temperature
        self.coefficient = settings.coefficient

    def per_token(self, logits: Tensor, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """KL of every completion token (B, T) in nats, and the entropy flow of that term, without the coefficient."""
        device = self.reference.device
        with torch.no_grad():
            reference = self.reference.logits(
                rollout.prompts.to(device),
                rollout.prompt_mask.to(device),
                rollout.completions.to(device),
                rollout.mask.to(device),
            )
        flow = kl_flow(logits.detach(), reference, self.temperature)
        return kl_to_reference(logits, reference, self.temperature), flow

    def observe(self, kl: float) -> None:
        """Record the step's mean KL in nats per token."""
        if self.settings.kind == "adaptive":
            self.coefficient = adapted_coefficient(self.coefficient, kl, self.settings.target)

    def state_dict(self) -> dict[str, Any]:
        """The coefficient, JSON-able."""
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.coefficient = state["coefficient"]


class FisherAnchor:
    """coefficient x 1/2 sum F (theta - theta*)^2, F from the reference's own samples at its own weights theta*.

    Everything follows from the reference and the seed, so a resumed run estimates the same again.
    """

    def __init__(self, settings: KlRecipe, reference: Policy, prompts: Sequence[str], **sampling: Any) -> None:
        self.coefficient = settings.coefficient
        self.anchors = [parameter.detach().clone() for parameter in reference.model.parameters()]
        self.fisher = diagonal_fisher(reference, prompts, settings.fisher_samples, **sampling)

    def penalty(self, policy: Policy) -> Tensor:
        """The weighted penalty, a scalar."""
        return self.coefficient * ewc_penalty(list(policy.model.parameters()), self.anchors, self.fisher)


def build_anchor(recipe: Recipe, start: Path, prompts: Sequence[str]) -> KlAnchor | FisherAnchor | None:
    """The penalty of a recipe, or None. start: the campaign's first weights."""
    settings, policy = recipe.update.kl, recipe.policy
    if settings is None:
        return None
    source = start if settings.reference == "start" else policy.path
    reference = load_policy(source, policy.dtype, policy.device)
    if settings.kind != "fisher":
        return KlAnchor(settings, reference, recipe.rollout.temperature)
    return FisherAnchor(
        settings,
        reference,
        prompts,
        max_new_tokens=recipe.rollout.max_new_tokens,
        seed=derived_seed(recipe.seed, "fisher"),
        temperature=recipe.rollout.temperature,
    )


def diagonal_fisher(
    policy: Policy, prompts: Sequence[str], samples: int, *, max_new_tokens: int, seed: int, temperature: float
) -> list[Tensor]:
    """Diagonal of the Fisher information of the policy's weights, one tensor per parameter, per completion token.

        F_i = mean over completions y ~ pi of (d ln pi(y) / d theta_i)^2, divided by the mean length of y

    This is the true Fisher information: y is sampled from the policy itself, not from data (Kunstner et al.,
    arXiv 1905.12558). `samples` completions are drawn, cycling through the prompts.
    """
    asked = [prompts[i % len(prompts)] for i in range(samples)]
    rollout = sample(policy, asked, 1, max_new_tokens, seed, temperature)
    parameters = list(policy.model.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for row in range(samples):
        part = rollout.rows(torch.tensor([row]))
        tensors = [x.to(policy.device) for x in (part.prompts, part.prompt_mask, part.completions, part.mask)]
        stats = token_stats(policy.logits(*tensors), tensors[2], temperature=temperature)
        gradients = torch.autograd.grad(stats.logp[tensors[3]].sum(), parameters, allow_unused=True)
        for sum_of_squares, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                sum_of_squares += gradient.square()
    return [sum_of_squares / rollout.token_count for sum_of_squares in total]

"""One optimizer step: token statistics, the controller's bounds and weights, the loss, AdamW."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from entrostat.control.controller import EntropyController
from entrostat.control.diagnostics import TokenSums, token_sums
from entrostat.control.mismatch import MismatchSums, mismatch_sums
from entrostat.engine.anchor import FisherAnchor, KlAnchor
from entrostat.engine.change import ChangeMeter, FirstOrder
from entrostat.engine.policy import Policy
from entrostat.engine.rollout import Rollout
from entrostat.engine.rounding import warn_of_rounding
from entrostat.entropy import bonus_flow, entropy_flow, flow_by_rule, sensitivity
from entrostat.errors import EntrostatError
from entrostat.objective import (
    ClipBand,
    Objective,
    aggregate,
    entropy_bonus,
    kl_cov_penalty,
    policy_loss,
)
from entrostat.objective.losses import settled, token_weights
from entrostat.objective.regularisers import kl_cov_tokens
from entrostat.recipe import Recipe, build_objective
from entrostat.tokens import TokenStats, token_stats


class TrainingError(EntrostatError, RuntimeError):
    """Training cannot go on; the message names the step and what is kept."""


@dataclass(frozen=True, slots=True)
class Experience:
    """Completions and what they earned.

    advantages: (B,), one per completion. recomputed: (B, T), ln pi_old by another forward pass, None where pi_old is
    the policy that sampled. rewards: (B,), NaN where there is none.
    """

    rollout: Rollout
    advantages: Tensor
    recomputed: Tensor | None = None
    rewards: Tensor | None = None

    @property
    def old_logp(self) -> Tensor:
        """ln pi_old (B, T), which the ratio is taken against."""
        return self.rollout.old_logp if self.recomputed is None else self.recomputed

    @property
    def pass_rate(self) -> float | None:
        """The share of the completions with a reward that is above 0; None where none has a reward."""
        if self.rewards is None or bool(self.rewards.isnan().all()):
            return None
        return float((self.rewards[~self.rewards.isnan()] > 0).double().mean())

    def rows(self, index: Tensor) -> Experience:
        """The completions of `index` (K,)."""
        rollout = self.rollout.rows(index)
        recomputed = None if self.recomputed is None else self.recomputed[index, : rollout.mask.shape[1]]
        return Experience(
            rollout, self.advantages[index], recomputed, None if self.rewards is None else self.rewards[index]
        )

    def cut(self, size: int) -> Iterator[Experience]:
        """Consecutive pieces of at most `size` completions."""
        for index in torch.split(torch.arange(len(self.advantages)), size):
            yield self.rows(index)


@dataclass(frozen=True, slots=True)
class _Pass:
    """What a backward pass measured: the loss, the sums of the step's record, the mean KL per token (for
    Fisher-weighted EWC the penalty), the summed flow under each rule, and the mismatch of sampler and trainer.
    """

    loss: float
    sums: TokenSums
    kl: float
    by_rule: dict[str, float]
    mismatch: MismatchSums


@dataclass(slots=True)
class _Joint:
    """The objective and the rule of a batch, and for each of its pieces the weights and KL-Cov's tokens, where these
    were decided on the whole.
    """

    objective: Objective
    rule: ClipBand
    weights: list[Tensor] | None = None
    chosen: list[Tensor] | None = None


@contextmanager
def _plain_refusal(number: int, outcome: str = "Nothing was applied") -> Iterator[None]:
    """Turn what the mathematics refuses, such as a ratio that overflows, into a TrainingError of step `number`."""
    try:
        yield
    except ValueError as error:
        raise TrainingError(
            f"step {number}: {error}. {outcome}, the last checkpoint stands; "
            "where numbers ran away, lower update.learning_rate"
        ) from error


def _refuse_broken(sums: TokenSums) -> None:
    """Raises ValueError for an entropy that is not finite, which no controller can use."""
    if not math.isfinite(sums.entropy):
        raise ValueError(f"entropy is {sums.entropy / sums.tokens}: the policy's logits are broken")


class Learner:
    """A policy under training: its optimizer, its learning-rate warm-up, its controller and its anchor.

    rate: factor on the recipe's learning rate.
    """

    def __init__(
        self,
        policy: Policy,
        recipe: Recipe,
        controller: EntropyController,
        anchor: KlAnchor | FisherAnchor | None = None,
        rate: float = 1.0,
    ) -> None:
        settings = recipe.update
        self.policy = policy
        self.settings = settings
        self.controller = controller
        self.anchor = anchor
        self.rate = rate
        self.objective = build_objective(recipe)
        self.temperature = recipe.rollout.temperature
        self.max_new_tokens = recipe.rollout.max_new_tokens
        self.regions = recipe.control.regions
        self.meter = ChangeMeter() if recipe.control.measure_change else None
        self.first_order = recipe.control.first_order
        self.measures_mismatch = settings.old_logp == "recomputed" or bool(controller.corrections)
        self.optimizer = torch.optim.AdamW(
            policy.model.parameters(),
            lr=rate * settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
        warn_of_rounding(self.optimizer, "set policy.dtype to float32")

    def step(self, number: int, experience: Experience) -> dict[str, Any]:
        """Take optimizer step `number` (the first is 1) and return its fields of the step line.

        The loss is that of the whole batch however it is cut into micro-batches.
        Raises TrainingError, with the weights as they were, when a number or the gradient is not finite.
        """
        started = time.perf_counter()
        first_order = FirstOrder(self.policy.model.parameters()) if self.first_order else None
        with _plain_refusal(number):
            found = self._backward(experience, first_order)
            _refuse_broken(found.sums)
        sums, kl = found.sums, found.kl
        norm = self._apply(number)
        metrics: dict[str, Any] = dict(sums.metrics())
        self.controller.observe(
            number,
            sums.entropy,
            sums.tokens,
            kl_old=metrics["kl_old"],
            kl_reference=kl if isinstance(self.anchor, KlAnchor) else None,
            kl_sampler=found.mismatch.kl if self.measures_mismatch else 0.0,  # else pi_old is the sampler
            pass_rate=experience.pass_rate,
        )
        if self.measures_mismatch:
            metrics |= {"kl_sampler": found.mismatch.kl, "mismatch": found.mismatch.metrics()}
        if first_order:
            metrics["first_order_change"] = first_order.change(sums.tokens)
        if isinstance(self.anchor, KlAnchor):
            metrics |= {"kl_reference": kl, "kl_coefficient": self.anchor.coefficient}
            self.anchor.observe(kl)
        elif self.anchor:
            metrics["ewc"] = kl
        seconds = {"update": time.perf_counter() - started}
        if self.meter:
            flow = metrics["flow_up"] + metrics["flow_down"]
            predictor = metrics.get("first_order_change", self.learning_rate(number) * flow)
            before = sums.entropy / sums.tokens
            with _plain_refusal(number, "The weights are lost"):
                change = self.meter.read(predictor, before, lambda: self._mean_entropy(experience.rollout))
            seconds["measure"] = change.pop("measure_seconds")
            metrics |= change | {"flow_by_rule": {rule: total / sums.tokens for rule, total in found.by_rule.items()}}
        return {
            "loss": found.loss,
            "grad_norm": norm,
            "lr": self.learning_rate(number),
            **self.controller.metrics(),
            **({} if self.objective.banded else {"bounds": None}),
            **metrics,
            "tokens": {"update": experience.rollout.token_count},
            "seconds": seconds,
        }

    def _backward(self, experience: Experience, first_order: FirstOrder | None) -> _Pass:
        """Leave the gradient of the loss in the weights; each rule's flow is summed where the change is measured."""
        bonus, term = self.controller.entropy_coef(), self.settings.kl_cov
        count, whole = experience.rollout.token_count, self._denominator(experience.rollout)
        loss_sum, sums, kl_sum, mismatch = 0.0, TokenSums.zero(), 0.0, MismatchSums.zero()
        by_rule: dict[str, float] = defaultdict(float)
        self.optimizer.zero_grad(set_to_none=True)
        taught, silent = self._parts(experience, bonus > 0 or first_order is not None)
        parts = taught + silent
        joint = self._joint(experience, parts)
        for i, part in enumerate(parts):
            mask = part.rollout.mask.to(self.policy.device)
            with torch.set_grad_enabled(i < len(taught)):
                logits = self._logits(part.rollout)
            stats = self._statistics_of(logits, part.rollout, entropy_grad=bonus > 0 or first_order is not None)
            advantages = part.advantages.to(mask.device).unsqueeze(1).expand(mask.shape)
            old_logp = part.old_logp.to(mask.device)
            sampler_logp = part.rollout.old_logp.to(mask.device)
            shares = self._token_weights(mask, whole, count)
            weighted = advantages * (
                joint.weights[i] if joint.weights else self._weights(stats, advantages, mask, old_logp, sampler_logp)
            )
            out = policy_loss(stats.logp, old_logp, weighted, mask, rule=joint.rule, objective=joint.objective)
            per_token = out.per_token + entropy_bonus(stats.entropy, mask, bonus)
            terms = bonus * bonus_flow(logits.detach(), self.temperature) if bonus else None
            if term:
                chosen = joint.chosen[i] if joint.chosen else kl_cov_tokens(stats.logp, weighted, mask, term.share)
                per_token += kl_cov_penalty(
                    stats.logp, old_logp, weighted, mask, coefficient=term.coefficient, chosen=chosen
                )
                away = term.coefficient * (stats.logp.detach() - old_logp).sign().where(chosen, 0)
                terms = -away * sensitivity(stats) + (0 if terms is None else terms)
            if first_order:
                first_order.add(stats.entropy[mask].sum())
            if isinstance(self.anchor, KlAnchor):
                kl, kl_terms = self.anchor.per_token(logits, part.rollout)
                kl = kl.where(mask, 0)
                per_token = per_token + self.anchor.coefficient * kl
                kl_sum += float(kl.detach().double().sum())
                terms = self.anchor.coefficient * kl_terms + (0 if terms is None else terms)
            loss = aggregate(per_token, mask, self.settings.aggregate, denominator=whole)
            if i < len(taught):
                loss.backward()  # type: ignore[no-untyped-call]
            loss_sum += float(loss.detach())
            flow = entropy_flow(stats, weighted, out) + (0 if terms is None else terms)
            flow = flow if shares is None else shares * flow
            sums = sums + token_sums(stats, weighted, out, mask, self.regions, flow=flow)
            if self.measures_mismatch:
                factors = self.controller.corrected(
                    stats, advantages, mask, old_logp=old_logp, sampler_logp=sampler_logp
                )
                mismatch = mismatch + mismatch_sums(old_logp, sampler_logp, mask, factors=factors)
            if self.meter:
                slope = out.slope if shares is None else shares * out.slope
                for name, ruled in flow_by_rule(stats, weighted, slope).items():
                    by_rule[name] += float(ruled[mask].double().sum())
        if isinstance(self.anchor, FisherAnchor):
            penalty = self.anchor.penalty(self.policy)
            penalty.backward()  # type: ignore[no-untyped-call]
            value = float(penalty.detach())
            return _Pass(loss_sum + value, sums, value, by_rule, mismatch)
        return _Pass(loss_sum, sums, kl_sum / experience.rollout.token_count, by_rule, mismatch)

    def _parts(self, experience: Experience, entropy_grad: bool) -> tuple[list[Experience], list[Experience]]:
        """Micro-batches that have a gradient, and those that are only measured.

        A completion of advantage 0 has none where the objective alone pulls at its tokens. A batch without any other is
        taught all the same: its gradient of 0 lets the optimizer move on by its momentum.
        """
        size, learns = self.settings.microbatch_rows, experience.advantages != 0
        others = entropy_grad or self.settings.kl_cov or isinstance(self.anchor, KlAnchor)
        if others or self.controller.weighs or bool(learns.all()) or not bool(learns.any()):
            return list(experience.cut(size)), []
        taught, silent = (experience.rows(rows.nonzero().squeeze(1)).cut(size) for rows in (learns, ~learns))
        return list(taught), list(silent)

    @torch.no_grad()
    def _joint(self, experience: Experience, parts: Sequence[Experience]) -> _Joint:
        """What compares the tokens of the whole batch, decided before it is cut."""
        found = _Joint(self.objective, self.controller.rule())
        term, compares = self.settings.kl_cov, self.controller.reweighting is not None or self.objective.compares
        if len(parts) == 1 or not (compares or term):
            return found
        mask = experience.rollout.mask.to(self.policy.device)
        statistics = [self._statistics(part.rollout) for part in parts]
        padded = (
            [pad(getattr(stats, field.name), (0, mask.shape[1] - stats.logp.shape[1])) for stats in statistics]
            for field in fields(TokenStats)
        )
        stats = TokenStats(*(torch.cat(pieces) for pieces in padded))
        advantages = experience.advantages.to(mask.device).unsqueeze(1).expand(mask.shape)
        old_logp = experience.old_logp.to(mask.device)

        def cut(x: Tensor) -> list[Tensor]:
            pieces = torch.split(x, self.settings.microbatch_rows)
            return [piece[:, : part.rollout.mask.shape[1]] for piece, part in zip(pieces, parts, strict=True)]

        if self.controller.weighs:
            sampler_logp = experience.rollout.old_logp.to(mask.device)
            weights = self._weights(stats, advantages, mask, old_logp, sampler_logp)
            advantages = advantages * weights
            found.weights = cut(weights)
        if term:
            found.chosen = cut(kl_cov_tokens(stats.logp, advantages, mask, term.share))
        found.objective, found.rule = settled(self.objective, stats.logp, old_logp, advantages, mask, found.rule)
        return found

    def _weights(
        self, stats: TokenStats, advantages: Tensor, mask: Tensor, old_logp: Tensor, sampler_logp: Tensor
    ) -> Tensor:
        """The controller's factors for the advantages."""
        if not self.controller.weighs:
            return torch.ones_like(stats.logp)
        shares = self._token_weights(mask, self._denominator_of(mask), float(mask.sum()))
        return self.controller.weights(
            stats, advantages, mask, old_logp=old_logp, sampler_logp=sampler_logp, token_weights=shares
        )

    def _token_weights(self, mask: Tensor, denominator: float, count: float) -> Tensor | None:
        """What the aggregation makes of each token relative to token-mean; None for ones."""
        if self.settings.aggregate == "token-mean":
            return None
        return token_weights(mask, self.settings.aggregate, denominator=denominator, tokens=count)

    def learning_rate(self, number: int) -> float:
        """The learning rate of step `number`: linear from 0 over the warm-up, then constant."""
        warmup = self.settings.warmup_steps
        return self.rate * self.settings.learning_rate * (min(1.0, number / warmup) if warmup else 1.0)

    def _logits(self, rollout: Rollout) -> Tensor:
        parts = (rollout.prompts, rollout.prompt_mask, rollout.completions, rollout.mask)
        return self.policy.logits(*(part.to(self.policy.device) for part in parts))

    def _statistics_of(self, logits: Tensor, rollout: Rollout, entropy_grad: bool = False) -> TokenStats:
        completions = rollout.completions.to(logits.device)
        return token_stats(logits, completions, temperature=self.temperature, entropy_grad=entropy_grad)

    @torch.no_grad()
    def recomputed(self, rollout: Rollout) -> Tensor:
        """ln pi (B, T) of the completions' tokens under the policy as it is; 0 outside the mask."""
        logp = torch.zeros_like(rollout.old_logp)
        for index in torch.split(torch.arange(len(rollout.texts)), self.settings.microbatch_rows):
            part = rollout.rows(index)
            width = part.mask.shape[1]
            logp[index, :width] = self._statistics(part).logp.cpu().where(part.mask, 0)
        return logp

    def _statistics(self, rollout: Rollout) -> TokenStats:
        return self._statistics_of(self._logits(rollout), rollout)

    @torch.no_grad()
    def _mean_entropy(self, rollout: Rollout) -> float:
        """Mean entropy in nats of the completion tokens' distributions under the policy as it is now."""
        total = 0.0
        for index in torch.split(torch.arange(len(rollout.texts)), self.settings.microbatch_rows):
            part = rollout.rows(index)
            total += float(self._statistics(part).entropy[part.mask.to(self.policy.device)].double().sum())
        return total / rollout.token_count

    def _denominator(self, rollout: Rollout) -> float:
        """What the loss of the whole batch is divided by."""
        return self._denominator_of(rollout.mask)

    def _denominator_of(self, mask: Tensor) -> float:
        if self.settings.aggregate == "token-mean":
            return float(mask.sum())
        rows = len(mask)
        return float(rows if self.settings.aggregate == "sequence-mean" else rows * self.max_new_tokens)

    def _apply(self, number: int) -> float:
        """Clip the gradient, refuse one that is not finite, step; returns the norm before clipping."""
        limit = self.settings.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self.policy.model.parameters(), float("inf") if limit is None else limit)
        if not bool(norm.isfinite()):
            raise TrainingError(
                f"step {number}: the gradient norm is {float(norm)}; nothing was applied, the last checkpoint stands. "
                "Lower update.learning_rate, set update.max_grad_norm, or use objective clip"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(number)
        self.optimizer.step()
        return float(norm)

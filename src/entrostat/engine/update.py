"""One optimizer step: token statistics, the controller's bounds and weights, the loss and its terms, AdamW.

Read `Learner.step` first: it calls `_backward`, which goes through the batch piece by piece, and `_apply`.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from entrostat.control.controller import EntropyController
from entrostat.control.diagnostics import TokenSums, token_sums
from entrostat.control.mismatch import MismatchSums, mismatch_sums
from entrostat.engine.change import ChangeMeter, FirstOrder, warn_of_rounding
from entrostat.engine.policy import Trainable
from entrostat.engine.rollout import Rollout
from entrostat.engine.terms import EntropyBonus, KlCovTerm, PartsTerm, Piece, Term
from entrostat.entropy import entropy_flow, flow_by_rule
from entrostat.errors import EntrostatError
from entrostat.objective import ClipBand, Objective, aggregate, policy_loss
from entrostat.objective.advantages import signed
from entrostat.objective.losses import PolicyLoss, settled, token_weights
from entrostat.recipe import Recipe, build_objective
from entrostat.tokens import TokenStats, token_stats


class TrainingError(EntrostatError, RuntimeError):
    """Training cannot continue; the message names the step and what is kept."""


@dataclass(frozen=True, slots=True)
class Experience:
    """Completions and what they earned.

    advantages: (B,), one per completion. recomputed: (B, T), ln pi_old by another forward pass, None if pi_old is the
    policy that sampled. rewards: (B,), NaN for a completion without one.
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
        """The share of the completions with a reward that is above 0; None if none has a reward."""
        if self.rewards is None or bool(self.rewards.isnan().all()):
            return None
        return float((self.rewards[~self.rewards.isnan()] > 0).double().mean())

    def rows(self, index: Tensor) -> Experience:
        """The completions of `index` (K,)."""
        rollout = self.rollout.rows(index)
        recomputed = None if self.recomputed is None else self.recomputed[index, : rollout.mask.shape[1]]
        rewards = None if self.rewards is None else self.rewards[index]
        return Experience(rollout, self.advantages[index], recomputed, rewards)

    def cut(self, size: int) -> Iterator[Experience]:
        """Consecutive pieces of at most `size` completions."""
        for index in torch.split(torch.arange(len(self.advantages)), size):
            yield self.rows(index)


@dataclass(frozen=True, slots=True)
class _Pass:
    """The result of a backward pass: the loss, the sums of the step's record, the summed flow under each rule, and the
    mismatch of sampler and trainer.
    """

    loss: float
    sums: TokenSums
    by_rule: dict[str, float]
    mismatch: MismatchSums


@dataclass(slots=True)
class _Whole:
    """What is decided on the whole batch before it is cut: the objective, the rule, and for each piece its advantages
    and, by term, the tokens that the term acts on. Without advantages or tokens, a piece decides by itself.
    """

    objective: Objective
    rule: ClipBand
    advantages: list[Tensor] | None = None
    chosen: dict[Term, list[Tensor]] = field(default_factory=dict)


@contextmanager
def _plain_refusal(number: int, outcome: str = "Nothing was applied") -> Iterator[None]:
    """Turn a refusal of the mathematics, such as of a ratio that overflows, into a TrainingError of step `number`."""
    try:
        yield
    except ValueError as error:
        raise TrainingError(
            f"step {number}: {error}. {outcome}, the last checkpoint is intact; "
            "if numbers diverge, lower update.learning_rate"
        ) from error


def _refuse_broken(sums: TokenSums) -> None:
    """Raise ValueError for an entropy that is not finite, which no controller accepts."""
    if not math.isfinite(sums.entropy):
        raise ValueError(f"entropy is {sums.entropy / sums.tokens}: the policy's logits are broken")


class Learner:
    """A policy under training: its optimizer, its learning-rate warm-up, its controller and the terms of its loss.

    anchor: the penalty towards a reference, if there is one. rate: factor on the recipe's learning rate.
    """

    def __init__(
        self,
        policy: Trainable,
        recipe: Recipe,
        controller: EntropyController,
        anchor: Term | None = None,
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
        kl_cov = [KlCovTerm(settings.kl_cov)] if settings.kl_cov else []
        of_parts = [PartsTerm(controller, self._all_token_weights)] if controller.adds else []
        others = [*kl_cov, *of_parts, *([anchor] if anchor else [])]
        self.terms: list[Term] = [EntropyBonus(controller, self.temperature), *others]
        weights, step_size = policy.model.parameters(), rate * settings.learning_rate
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(weights, step_size, settings.betas, weight_decay=settings.weight_decay)
            if settings.optimizer == "adamw"
            else torch.optim.SGD(weights, step_size, weight_decay=settings.weight_decay)
        )
        warn_of_rounding(self.optimizer, "set policy.dtype to float32")

    def step(self, number: int, experience: Experience) -> dict[str, Any]:
        """Take optimizer step `number` (the first is 1) and return its fields of the step line.

        The loss is that of the whole batch however it is cut into micro-batches.
        Raises TrainingError, with the weights as they were, if a number or the gradient is not finite.
        """
        started = time.perf_counter()
        first_order = FirstOrder(self.policy.model.parameters()) if self.first_order else None
        with _plain_refusal(number):
            done = self._backward(experience, first_order)
            _refuse_broken(done.sums)
        sums, tokens = done.sums, experience.rollout.token_count
        norm = self._apply(number)
        metrics: dict[str, Any] = dict(sums.metrics())
        for term in self.terms:
            metrics |= term.record(tokens)
        self.controller.observe(
            number,
            sums.entropy,
            sums.tokens,
            kl_old=metrics["kl_old"],
            kl_reference=metrics.get("kl_reference"),
            kl_sampler=done.mismatch.kl if self.measures_mismatch else 0.0,  # else pi_old is the sampler
            pass_rate=experience.pass_rate,
        )
        if self.measures_mismatch:
            metrics |= {"kl_sampler": done.mismatch.kl, "mismatch": done.mismatch.metrics()}
        if first_order:
            metrics["first_order_change"] = first_order.change(sums.tokens)
        seconds = {"update": time.perf_counter() - started}
        if self.meter:
            flow = metrics["flow_up"] + metrics["flow_down"]
            predictor = metrics.get("first_order_change", self.learning_rate(number) * flow)
            before = sums.entropy / sums.tokens
            with _plain_refusal(number, "The weights are lost"):
                change = self.meter.read(predictor, before, lambda: self._mean_entropy(experience.rollout))
            seconds["measure"] = change.pop("measure_seconds")
            metrics |= change | {"flow_by_rule": {rule: total / sums.tokens for rule, total in done.by_rule.items()}}
        return {
            "loss": done.loss,
            "grad_norm": norm,
            "lr": self.learning_rate(number),
            **self.controller.metrics(),
            **({} if self.objective.banded else {"bounds": None}),
            **metrics,
            "tokens": {"update": tokens},
            "seconds": seconds,
        }

    def _backward(self, experience: Experience, first_order: FirstOrder | None) -> _Pass:
        """Leave the gradient of the loss in the weights; each rule's flow is summed if the change is measured."""
        for term in self.terms:
            term.begin()
        entropy_grad = first_order is not None or any(term.needs_entropy_gradient for term in self.terms)
        count, denominator = experience.rollout.token_count, self._denominator(experience.rollout.mask)
        loss_sum, sums, mismatch = 0.0, TokenSums.zero(), MismatchSums.zero()
        by_rule: dict[str, float] = defaultdict(float)
        self.optimizer.zero_grad(set_to_none=True)
        taught, silent = self._parts(experience, entropy_grad)
        whole = self._decide(experience, taught + silent)
        for i, part in enumerate(taught + silent):
            with torch.set_grad_enabled(i < len(taught)):
                piece = self._piece(part, entropy_grad, whole.advantages[i] if whole.advantages else None)
            stats, mask = piece.stats, piece.mask
            if first_order:
                first_order.add(stats.entropy[mask].sum())
            loss, out, flow = self._loss(piece, whole, i, denominator)
            if i < len(taught):
                loss.backward()  # type: ignore[no-untyped-call]
            loss_sum += float(loss.detach())
            shares = self._token_weights(mask, denominator, count)
            flow = flow if shares is None else shares * flow
            sums = sums + token_sums(stats, piece.advantages, out, mask, self.regions, flow=flow)
            if self.measures_mismatch:
                mismatch = mismatch + self._mismatch(part, piece)
            if self.meter:
                slope = out.slope if shares is None else shares * out.slope
                for name, ruled in flow_by_rule(stats, piece.advantages, slope).items():
                    by_rule[name] += float(ruled[mask].double().sum())
        for term in self.terms:
            penalty = term.on_weights(self.policy)
            if penalty is not None:
                penalty.backward()  # type: ignore[no-untyped-call]
                loss_sum += float(penalty.detach())
        return _Pass(loss_sum, sums, by_rule, mismatch)

    def _loss(self, piece: Piece, whole: _Whole, place: int, denominator: float) -> tuple[Tensor, PolicyLoss, Tensor]:
        """The loss of the micro-batch at `place`, the objective's part of it per token, and the flow (B, T) of both."""
        stats, mask = piece.stats, piece.mask
        out = policy_loss(
            stats.logp, piece.old_logp, piece.advantages, mask, rule=whole.rule, objective=whole.objective
        )
        per_token, flow = out.per_token, entropy_flow(stats, piece.advantages, out)
        added = [
            term.on_tokens(piece, whole.chosen[term][place] if term in whole.chosen else self._choose(term, piece))
            for term in self.terms
            if term.acts_on_tokens
        ]
        for loss_of_term, _ in added:
            per_token = per_token + loss_of_term
        if added:
            flow = flow + sum(flow_of_term for _, flow_of_term in added)
        return aggregate(per_token, mask, self.settings.aggregate, denominator=denominator), out, flow

    def _parts(self, experience: Experience, entropy_grad: bool) -> tuple[list[Experience], list[Experience]]:
        """Micro-batches that have a gradient, and those that are only measured.

        A completion of advantage 0 has none if only the objective acts on its tokens. A batch of such completions
        alone is learned from all the same: its gradient of 0 lets the optimizer continue by its momentum.
        """
        size, learns = self.settings.microbatch_rows, experience.advantages != 0
        others = entropy_grad or any(term.acts_on_tokens for term in self.terms)
        if others or self.controller.weighs or bool(learns.all()) or not bool(learns.any()):
            return list(experience.cut(size)), []
        taught, silent = (experience.rows(rows.nonzero().squeeze(1)).cut(size) for rows in (learns, ~learns))
        return list(taught), list(silent)

    def _piece(self, part: Experience, entropy_grad: bool = False, decided: Tensor | None = None) -> Piece:
        """A micro-batch, read by the policy; decided (B, T): its advantages under the controller, else its own."""
        logits = self._logits(part.rollout)
        mask, old_logp = (x.to(logits.device) for x in (part.rollout.mask, part.old_logp))
        stats = self._statistics_of(logits, part.rollout, entropy_grad)
        advantages = self._advantages(stats, mask, part) if decided is None else decided
        return Piece(part.rollout, logits, stats, advantages, old_logp, mask)

    @torch.no_grad()
    def _decide(self, experience: Experience, parts: Sequence[Experience]) -> _Whole:
        """Decide what compares the tokens of the whole batch, before it is cut."""
        whole = _Whole(self.objective, self.controller.rule())
        choosing = [term for term in self.terms if term.compares]
        compares = self.controller.reweighting is not None or self.objective.compares
        if len(parts) == 1 or not (compares or choosing):
            return whole
        mask = experience.rollout.mask.to(self.policy.device)
        statistics = [self._statistics(part.rollout) for part in parts]
        padded = (
            [pad(getattr(stats, column.name), (0, mask.shape[1] - stats.logp.shape[1])) for stats in statistics]
            for column in fields(TokenStats)
        )
        stats = TokenStats(*(torch.cat(pieces) for pieces in padded))
        old_logp = experience.old_logp.to(mask.device)

        def cut(x: Tensor) -> list[Tensor]:
            pieces = torch.split(x, self.settings.microbatch_rows)
            return [piece[:, : part.rollout.mask.shape[1]] for piece, part in zip(pieces, parts, strict=True)]

        advantages = self._advantages(stats, mask, experience)
        if self.controller.weighs:
            whole.advantages = cut(advantages)
        whole.chosen = {term: cut(term.choose(stats, advantages, mask)) for term in choosing}
        whole.objective, whole.rule = settled(self.objective, stats.logp, old_logp, advantages, mask, whole.rule)
        return whole

    @staticmethod
    def _choose(term: Term, piece: Piece) -> Tensor:
        return term.choose(piece.stats, piece.advantages, piece.mask)

    def _mismatch(self, part: Experience, piece: Piece) -> MismatchSums:
        """The mismatch of sampler and trainer in a micro-batch, and what the corrections do about it."""
        sampler_logp, mask = part.rollout.old_logp.to(piece.mask.device), piece.mask
        advantages = part.advantages.to(mask.device).unsqueeze(1).expand(mask.shape)
        factors = self.controller.corrected(
            piece.stats, advantages, mask, old_logp=piece.old_logp, sampler_logp=sampler_logp
        )
        return mismatch_sums(piece.old_logp, sampler_logp, mask, factors=factors)

    def _advantages(self, stats: TokenStats, mask: Tensor, experience: Experience) -> Tensor:
        """The advantages (B, T) under the controller."""

        def per_token(x: Tensor) -> Tensor:
            return x.to(mask.device).unsqueeze(1).expand(mask.shape)

        advantages = per_token(experience.advantages)
        if not self.controller.weighs:
            return advantages * torch.ones_like(stats.logp)
        return self.controller.advantages(
            stats,
            advantages,
            mask,
            old_logp=experience.old_logp.to(mask.device),
            sampler_logp=experience.rollout.old_logp.to(mask.device),
            token_weights=self._all_token_weights(mask),
            old_entropy=None if experience.recomputed is not None else experience.rollout.entropy.to(mask.device),
            rewards=None if experience.rewards is None else per_token(signed(experience.rewards).nan_to_num(nan=0.0)),
        )

    def _token_weights(self, mask: Tensor, denominator: float, count: float) -> Tensor | None:
        """The weight that the aggregation gives each token, relative to token-mean; None for ones."""
        if self.settings.aggregate == "token-mean":
            return None
        return token_weights(mask, self.settings.aggregate, denominator=denominator, tokens=count)

    def _all_token_weights(self, mask: Tensor) -> Tensor | None:
        """The same for a whole batch."""
        return self._token_weights(mask, self._denominator(mask), float(mask.sum()))

    def learning_rate(self, number: int) -> float:
        """The learning rate of step `number`: linear from 0 over the warm-up, then constant."""
        warmup = self.settings.warmup_steps
        return self.rate * self.settings.learning_rate * (min(1.0, number / warmup) if warmup else 1.0)

    def _logits(self, rollout: Rollout) -> Tensor:
        return self.policy.logits(*rollout.tensors(self.policy.device))

    def _statistics_of(self, logits: Tensor, rollout: Rollout, entropy_grad: bool = False) -> TokenStats:
        completions = rollout.completions.to(logits.device)
        return token_stats(logits, completions, temperature=self.temperature, entropy_grad=entropy_grad)

    @torch.no_grad()
    def recomputed(self, rollout: Rollout) -> Tensor:
        """ln pi (B, T) of the completions' tokens under the current policy; 0 outside the mask."""
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
        """Mean entropy in nats of the completion tokens' distributions under the current policy."""
        total = 0.0
        for index in torch.split(torch.arange(len(rollout.texts)), self.settings.microbatch_rows):
            part = rollout.rows(index)
            total += float(self._statistics(part).entropy[part.mask.to(self.policy.device)].double().sum())
        return total / rollout.token_count

    def _denominator(self, mask: Tensor) -> float:
        """The number that the loss of a batch with this mask is divided by."""
        if self.settings.aggregate == "token-mean":
            return float(mask.sum())
        rows = len(mask)
        return float(rows * self.max_new_tokens if self.settings.aggregate == "constant" else rows)

    def _apply(self, number: int) -> float:
        """Clip the gradient, refuse one that is not finite, step; returns the norm before clipping."""
        limit = self.settings.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self.policy.model.parameters(), float("inf") if limit is None else limit)
        if not bool(norm.isfinite()):
            raise TrainingError(
                f"step {number}: the gradient norm is {float(norm)}; nothing was applied, the last checkpoint is "
                "intact. Lower update.learning_rate, set update.max_grad_norm, or use objective clip"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(number)
        self.optimizer.step()
        return float(norm)

"""GRPO in TRL under an entropy controller: TRL's loss and aggregation, with our statistics, bounds and weights.

TRL's losses read three things that are set here for every micro-batch:
    ln pi and H       from the model's head, by `fused_token_stats`, which also gives sum p^2 and C
    the advantages    times the controller's weights, (B, T)
    the thresholds    epsilon_low and epsilon_high, by the bounds of the rule in force (see `trl/objectives.py`)
Generation, rewards, aggregation, KL, vLLM's correction and logging remain TRL's. Tier C.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from entrostat.control import EntropyController, MismatchSums, TokenSums, mismatch_sums, token_sums
from entrostat.engine.change import warn_of_rounding
from entrostat.entropy import Convention, TurnSums, bonus_flow, flow_of_loss, turn_sums
from entrostat.integrations.comparing import warn_of_cut_batches
from entrostat.integrations.records import scalars
from entrostat.integrations.trl.checks import inert, refuse_band, refuse_what_bypasses
from entrostat.integrations.trl.information import measured_information
from entrostat.integrations.trl.model_head import attach_statistics
from entrostat.integrations.trl.objectives import (
    counted_band,
    objective_of,
    own_band,
    raised_to_lower_bound,
    thresholds,
)
from entrostat.integrations.trl.resuming import Horizon, OrderOfEpoch, TotalSteps
from entrostat.objective import Cispo, ClipBand, Reinforce, entropy_bonus, policy_loss
from entrostat.tokens import TokenStats, token_stats

try:
    from trl import GRPOTrainer
except ImportError as error:
    raise ImportError("entrostat.integrations.trl.trainer needs TRL: pip install 'entrostat[trl]'") from error

Sums = TypeVar("Sums", TokenSums, MismatchSums)
STATE_FILE = "entrostat_controller.json"

_RETURNS_AUX_LOSS = "compute_aux_loss" in inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters
_TRLS_OWN = ("num_images", "num_tiles")  # how TRL cuts images into chunks; no input of the model


@dataclass(frozen=True, slots=True)
class _Steered:
    """What TRL's loss reads of a micro-batch, (B, T), and where it came from.

    stats: ln pi and H are copies without the model's graph, so that the flow can be had from the loss without a pass
    through the model, whose hooks (DeepSpeed's) take every pass for the step's own. scored: the statistics with it.
    push: see `flow_of_loss`.
    """

    stats: TokenStats
    scored: TokenStats
    advantages: Tensor
    push: Tensor | None


@dataclass
class _MicroBatch:
    """One call of TRL's loss: its inputs and, once the model has run, the steered statistics and advantages."""

    inputs: dict[str, Any]
    steered: _Steered | None = None

    @property
    def mask(self) -> Tensor:
        """The tokens that the loss counts, (B, T)."""
        mask: Tensor = self.inputs["completion_mask"]
        return (mask * self.inputs["tool_mask"] if "tool_mask" in self.inputs else mask).bool()

    def sampler_logp(self, old_logp: Tensor) -> Tensor | None:
        """ln mu (B, T) of vLLM or of a rollout function; TRL's own generation keeps none.

        Where it is NaN, for a token that vLLM could not score, it is ln pi_old: the weight 1, as TRL's correction has.
        """
        sampler: Tensor | None = self.inputs.get("sampling_per_token_logps")
        return None if sampler is None else torch.where(sampler.isnan(), old_logp, sampler)

    def old_logp(self, logp: Tensor) -> Tensor:
        """ln pi_old (B, T); TRL leaves it out where it equals ln pi."""
        old: Tensor | None = self.inputs.get("old_per_token_logps")
        return logp.detach() if old is None else old


class EntropyGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPOTrainer with an `EntropyController`; all other arguments are TRL's.

    controller: its total_steps is set to the run's optimizer steps when training begins; None measures only, under any
    loss_type, and changes nothing. statistics: "head" takes them
    from the hidden states and never holds the logits; "logits" from the model's logits, for output layers and sharding
    that "head" refuses.
    regions: the convention of the regions in the metrics, which are logged with TRL's own as entrostat/..., those of an
    evaluation as eval_entrostat/...; where a tool or a `rollout_func` wrote tokens too, by turn as well.
    horizon: "run" refuses to resume with another number of steps; "extended" allows it, and stretches the schedule over
    the new number; "controller" keeps the controller's own total_steps, for a run that is part of a longer schedule.
    information_every: measure at every so many rollout batches whether completions depend on their prompts (see
    `entrostat.entropy.information`), on `information_completions` of them, each scored under every prompt of the batch
    by a forward pass without a gradient; None: never.
    The controller receives the entropy of the whole optimizer step, summed over micro-batches and ranks; its state is
    in every checkpoint. The statistics of a reweighting are those of a micro-batch on one rank.
    Raises ValueError, naming it, for a setting that bypasses or contradicts the controller.
    """

    epsilon_low: Any  # TRL's thresholds: numbers, and tensors while a loss is computed
    epsilon_high: Any

    def __init__(
        self,
        *args: Any,
        controller: EntropyController | None,
        statistics: Literal["head", "logits"] = "head",
        regions: Convention = "surprisal",
        horizon: Horizon = "run",
        information_every: int | None = None,
        information_completions: int = 64,
        **kwargs: Any,
    ) -> None:
        for name, value in (("every", information_every), ("completions", information_completions)):
            if value is not None and value < 1:
                raise ValueError(f"information_{name} is {value}; give a whole number of at least 1")
        if statistics not in ("head", "logits"):
            raise ValueError(f"statistics is {statistics!r}; give 'head' or 'logits'")
        if regions not in get_args(Convention):
            raise ValueError(f"regions is {regions!r}; give {', '.join(map(repr, get_args(Convention)))}")
        super().__init__(*args, **kwargs)
        self._total_steps = None if controller is None else TotalSteps(controller, horizon)
        if self._total_steps is not None:
            self.add_callback(self._total_steps)
        self.controller, self.statistics, self.regions = controller, statistics, regions
        self.information_every, self.information_completions = information_every, information_completions
        self.objective = objective_of(self.args)
        self._sums = self._evaluated = TokenSums.zero()
        self._mismatch, self._turns = MismatchSums.zero(), TurnSums.zero()
        self._kl_reference: list[float] = []
        self._pass_rate: float | None = None
        self._current: _MicroBatch | None = None
        self._evaluating = False
        self._losses_seen = 0
        refuse_what_bypasses(self)
        if statistics == "head":
            model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
            attach_statistics(model, self.temperature, in_float32=getattr(self.args, "cast_lm_head_to_fp32", False))
        if reason := inert(self):
            warnings.warn(reason, stacklevel=2)
        whole = self.args.gradient_accumulation_steps == self.accelerator.num_processes == 1
        if controller is not None and not whole:
            warn_of_cut_batches("TRL", controller.parts)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        plain = super()._get_train_sampler(dataset)
        return OrderOfEpoch(plain) if getattr(plain, "shuffle", False) else plain

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """One micro-batch. Raises RuntimeError if its loss was not computed under the controller."""
        if not self._losses_seen:
            warn_of_rounding(
                self.optimizer, "load the model with dtype=torch.float32; bf16=True then computes in bfloat16"
            )
        seen = self._losses_seen
        loss = super().training_step(*args, **kwargs)
        if self._losses_seen == seen:
            raise RuntimeError(
                "the loss did not pass through GRPOTrainer._compute_loss, so no bound, weight or statistic was in "
                "force; remove what replaces it (Liger's loss, unsloth), or train with TRL's GRPOTrainer"
            )
        return loss

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        with self._steered(_MicroBatch(dict(inputs))) as current:
            loss: Tensor = super()._compute_loss(model, current.inputs)
        steered = current.steered
        assert steered is not None, "TRL's loss runs the model before it reads the advantages"
        if not self.model.training:
            self._evaluating = True
            self._evaluated = self._evaluated + self._counted(current, steered, None)
            return loss
        self._losses_seen += 1
        if self.beta:
            self._kl_reference.append(self._metrics["train"]["kl"][-1])
        if coefficient := self.controller.entropy_coef() if self.controller else 0.0:
            mask = current.mask
            mean = entropy_bonus(steered.stats.entropy, mask, coefficient).sum() / mask.sum().clamp_min(1)
            loss = loss + mean / self.current_gradient_accumulation_steps
        flow = flow_of_loss(loss, steered.stats, steered.push)
        loss = _through_the_model(loss, steered)
        self._sums = self._sums + self._counted(current, steered, flow)
        if "tool_mask" in current.inputs:
            self._turns = self._turns + turn_sums(steered.stats, steered.advantages, current.mask, flow=flow)
        if self.accelerator.sync_gradients:
            self._finish_step()
        return loss

    @contextmanager
    def _steered(self, current: _MicroBatch) -> Iterator[_MicroBatch]:
        """While TRL's loss runs, its next forward pass sets the thresholds and advantages of `current`."""
        own = (self.epsilon_low, self.epsilon_high)
        self._current = current
        try:
            yield current
        finally:
            self._current = None
            self.epsilon_low, self.epsilon_high = own

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **inputs: Any,
    ) -> tuple[Tensor | None, ...]:
        if self.ref_model is not None and model is self.ref_model:
            reference: tuple[Tensor | None, ...] = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **inputs
            )
            return reference
        extra = {key: value for key, value in inputs.items() if value is not None and key not in _TRLS_OWN}
        rows = len(input_ids) if extra or batch_size is None else batch_size
        scored = [
            self._score(model, ids, mask, logits_to_keep, compute_aux_loss, extra)
            for ids, mask in zip(torch.split(input_ids, rows), torch.split(attention_mask, rows), strict=True)
        ]
        if self._current is not None:
            ((stats, push, aux_loss),) = scored
            scored = [(self._steer(self._current, stats, push), push, aux_loss)]
        logp = torch.cat([stats.logp for stats, *_ in scored])
        entropy = torch.cat([stats.entropy for stats, *_ in scored]) if compute_entropy else None
        if not _RETURNS_AUX_LOSS:
            return logp, entropy
        aux_losses = [aux_loss for *_, aux_loss in scored if aux_loss is not None]
        return logp, entropy, torch.stack(aux_losses).mean() if aux_losses else None

    def _score(
        self, model: Any, ids: Tensor, attention_mask: Tensor, kept: int, router: bool, extra: dict[str, Any]
    ) -> tuple[TokenStats, Tensor | None, Tensor | None]:
        """The statistics (B, T) of the last `kept` tokens, their push where an entropy bonus is trained and, where
        `router` asks, a mixture of experts' own loss.
        """
        inputs = {"input_ids": ids, "attention_mask": attention_mask, **extra}
        tokens = ids[:, -kept:]
        ours = self.controller is not None and self.controller.bonus is not None
        bonus = ours or getattr(self, "_entropy_bonus_enabled", False)
        with self.accelerator.autocast():
            if self.statistics == "head":
                found = model(**inputs, scored_ids=tokens, entropy_grad=bonus)
                return TokenStats(*found[:4]), found[4] if bonus else None, None
            routing = {"output_router_logits": True} if router else {}
            out = model(**inputs, **routing, logits_to_keep=kept + 1, use_cache=False)
        logits = out.logits[:, -kept - 1 : -1]
        stats = token_stats(logits, tokens, self.temperature, entropy_grad=bonus)
        return stats, bonus_flow(logits, self.temperature) if bonus else None, out.aux_loss if router else None

    def _steer(self, current: _MicroBatch, scored: TokenStats, push: Tensor | None = None) -> TokenStats:
        """Put the controller's weights and bounds where TRL's loss reads them; the statistics that it is to read."""
        advantages: Tensor = current.inputs["advantages"]
        advantages = advantages if advantages.dim() == 2 else advantages.unsqueeze(1)
        old_logp = current.old_logp(scored.logp)
        controller, objective = self.controller if self.model.training else None, self.objective
        logp, entropy = scored.logp.detach(), scored.entropy.detach()
        stats = TokenStats(logp, entropy, scored.collision, scored.correction)
        if self.model.training and bool(current.mask.any()):
            everywhere = advantages.expand_as(stats.logp)
            self._measure_mismatch(current, stats, everywhere, old_logp)
            if controller is not None and controller.weighs:
                known = {"old_logp": old_logp, "sampler_logp": current.sampler_logp(old_logp)}
                advantages = everywhere * controller.weights(stats, everywhere, current.mask, **known)
        if scored.logp.requires_grad:
            entropy = entropy.clone().requires_grad_(scored.entropy.requires_grad)
            stats = TokenStats(logp.clone().requires_grad_(), entropy, scored.collision, scored.correction)
        current.steered = _Steered(stats, scored, advantages, push)
        if controller is None or objective is None:
            return stats
        band = self._band(controller)
        self.epsilon_low, self.epsilon_high = thresholds(objective, band, old_logp)
        if isinstance(objective, Cispo):
            factor = raised_to_lower_bound(band, logp - old_logp, old_logp)
            advantages = advantages if factor is None else advantages * factor
        current.inputs["advantages"] = advantages
        return stats

    def _measure_mismatch(self, current: _MicroBatch, stats: TokenStats, advantages: Tensor, old_logp: Tensor) -> None:
        """Add the micro-batch to the record of sampler and trainer, if the sampler's log-probabilities are kept."""
        if (sampler := current.sampler_logp(old_logp)) is None:
            return
        factors = current.inputs.get("importance_sampling_ratio")
        if factors is None and self.controller is not None:
            known = {"old_logp": old_logp, "sampler_logp": sampler}
            factors = self.controller.corrected(stats, advantages, current.mask, **known)
        factors = torch.ones_like(old_logp) if factors is None else factors.expand_as(old_logp)
        self._mismatch = self._mismatch + mismatch_sums(old_logp, sampler, current.mask, factors=factors)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        micro_batches = self.state.global_step * self.args.gradient_accumulation_steps
        number = micro_batches // (self.args.steps_per_generation * self.num_iterations)
        if self.model.training and self.information_every and number % self.information_every == 0:
            self._record("train", {"information": measured_information(self, batch, self.information_completions)})
        return batch

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        """TRL's rewards by function, of which the pass rate of a training batch is kept: rewards above 0."""
        rewards: Tensor = super()._calculate_rewards(*args, **kwargs)
        if self.model.training:
            graded = rewards[~rewards.isnan().all(1)]
            whole = (graded * self.reward_weights.to(graded.device)).nansum(1)
            self._pass_rate = float((whole > 0).double().mean()) if len(whole) else None
        return rewards

    def _band(self, controller: EntropyController) -> ClipBand:
        band = controller.rule()
        refuse_band(band)
        return band

    @torch.no_grad()
    def _counted(self, current: _MicroBatch, steered: _Steered, flow: Tensor | None) -> TokenSums:
        """The sums that this micro-batch adds to the record.

        flow (B, T): that of TRL's own loss; None: that of its objective under token-mean.
        """
        mask, stats, advantages = current.mask, steered.stats, steered.advantages
        if not bool(mask.any()):
            return TokenSums.zero()
        if self.use_vllm and "importance_sampling_ratio" in current.inputs:
            advantages = advantages * current.inputs["importance_sampling_ratio"]
        objective = self.objective or Reinforce()  # of a loss that is only measured, nothing is known to be clipped
        band = own_band(self.args, objective) if self.controller is None else self._band(self.controller)
        band = counted_band(self.args, objective, band)
        old_logp = current.old_logp(stats.logp)
        out = policy_loss(stats.logp.detach(), old_logp, advantages, mask, rule=band, objective=objective)
        return token_sums(stats, advantages, out, mask, self.regions, flow=flow)

    def _over_ranks(self, sums: Sums) -> Sums:
        lowest = self.accelerator.gather(sums.lowest.to(self.accelerator.device)[None]).amin(0)
        return type(sums)(self._summed(sums.totals), lowest)

    def _summed(self, totals: Tensor) -> Tensor:
        summed: Tensor = self.accelerator.reduce(totals.to(self.accelerator.device), reduction="sum")
        return summed

    def _staleness(self) -> int:
        """Optimizer steps since the completions of the current step were sampled."""
        micro_batches: int = self._step % (self.args.steps_per_generation * self.num_iterations)
        return micro_batches // int(self.current_gradient_accumulation_steps)

    def _finish_step(self) -> None:
        """Sum over the ranks, pass the result to the controller, log."""
        sums, self._sums = self._over_ranks(self._sums), TokenSums.zero()
        mismatch, self._mismatch = self._over_ranks(self._mismatch), MismatchSums.zero()
        turns, self._turns = TurnSums(self._summed(self._turns.totals)), TurnSums.zero()
        kl_reference, self._kl_reference = self._kl_reference, []
        if not sums.tokens:
            return
        scale = sums.tokens / self.accelerator.num_processes  # gradients are the ranks' mean
        metrics: dict[str, Any] = {**sums.with_flow_times(scale).metrics(), "staleness": self._staleness()}
        metrics |= turns.with_flow_times(scale).metrics()
        if mismatch.kl is not None:
            metrics |= {"kl_sampler": mismatch.kl, "mismatch": mismatch.metrics()}
        if self.controller is not None:
            self.controller.observe(
                self.state.global_step + 1,
                sums.entropy,
                sums.tokens,
                kl_old=metrics["kl_old"],
                kl_reference=sum(kl_reference) / len(kl_reference) if kl_reference else None,
                kl_sampler=mismatch.kl,
                pass_rate=self._pass_rate,
            )
            metrics = {**self.controller.metrics(), **metrics}
        self._record("train", metrics)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """TRL's log, with the record of the evaluation that has just ended, over all its tokens."""
        if not self.model.training and self._evaluating:
            sums, self._evaluated, self._evaluating = self._over_ranks(self._evaluated), TokenSums.zero(), False
            if sums.tokens:
                self._record("eval", sums.metrics())
        super().log(logs, *args, **kwargs)

    def _record(self, mode: Literal["train", "eval"], record: Mapping[str, Any]) -> None:
        for name, value in scalars(record).items():
            if self.objective is not None or "clip_fraction" not in name:
                self._metrics[mode][name].append(value)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save and self.controller is not None:
            folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            (folder / STATE_FILE).write_text(json.dumps(self.controller.state_dict(), allow_nan=False))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or self._total_steps is None:
            return
        file = Path(checkpoint) / STATE_FILE
        if not file.exists():
            raise ValueError(
                f"{checkpoint}: has no {STATE_FILE}, so it was not written under a controller; "
                "start a new run from its weights"
            )
        self._total_steps.resumed = json.loads(file.read_text())


def _through_the_model(loss: Tensor, steered: _Steered) -> Tensor:
    """The loss with the same value, whose gradient also goes on from its copies of ln pi and H into the model."""
    for copied, scored in (
        (steered.stats.logp, steered.scored.logp),
        (steered.stats.entropy, steered.scored.entropy),
    ):
        if not copied.requires_grad:
            continue
        (slope,) = torch.autograd.grad(loss, copied, retain_graph=True, allow_unused=True)
        if slope is not None:
            loss = loss + (slope * (scored - scored.detach()).where(slope != 0, 0)).sum()
    return loss

"""verl's actor worker under a controller: the loss of a micro-batch, and the controller's record of each step.

Every rank has the same controller: it receives only sums over all data-parallel ranks, so the copies agree.
Tier C takes H and C from the logits, through the hook of verl's engine for distillation losses (a loss function
called with `student_logits`). Tier B takes H from verl's own `calculate_entropy`, and has no polarity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from entrostat.control import EntropyController, MismatchSums, TokenSums, mismatch_sums, token_sums
from entrostat.engine.change import warn_of_rounding
from entrostat.entropy import Convention, TurnSums, bonus_flow, sensitivity, turn_sums
from entrostat.integrations.comparing import OWN_TERM
from entrostat.integrations.records import scalars
from entrostat.integrations.verl import refuse_trl_beside_verl
from entrostat.integrations.verl.loss import Answer, LossCall, changed, verl_loss, verls_own
from entrostat.objective import Clip, ClipBand, DualClip, Objective, PolicyLoss, entropy_bonus
from entrostat.tokens import TokenStats, token_stats

try:
    from verl.trainer.ppo.core_algos import agg_loss, get_policy_loss_fn, register_policy_loss
    from verl.utils import tensordict_utils
    from verl.utils.metric import AggregationType
    from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker
    from verl.workers.utils.losses import ppo_loss
    from verl.workers.utils.padding import no_padding_2_padding
except ImportError as error:
    raise ImportError(
        f"entrostat.integrations.verl.worker needs verl ({error}): pip install 'entrostat[verl]'"
    ) from error

LOSS_MODE = "entrostat_controlled"
LOGITS_ENGINES = ("fsdp", "fsdp2")
STATISTICS = ("entropy", "collision", "correction")
ROWS_AT_A_TIME = 1024  # of logits, where a float32 copy of them is made
REWARDS = ("token_level_scores", "rm_scores")


def tier_of(actor: Any) -> Literal["B", "C"]:
    """The tier of verl's actor configuration: "C" where its engine hands out logits."""
    return "C" if actor.strategy in LOGITS_ENGINES and not actor.use_fused_kernels else "B"


class _Plain(IntEnum):
    """Sums over micro-batches and ranks that the controller needs in either tier."""

    ENTROPY = 0
    TOKENS = 1
    KL = 2
    KL_TERMS = 3
    PASSED = 4
    COMPLETIONS = 5


@dataclass
class _MicroBatch:
    """What the policy loss needs besides verl's arguments, (B, T).

    entropy: in tier C that of the logits in float32, in tier B verl's. push: sum_x S_x^2, the flow of a term -H (see
    `entrostat.entropy.flow`). The last three are None in tier B.
    """

    entropy: Tensor
    verls_entropy: Tensor | None
    """With its graph; None unless actor.calculate_entropy is set. Under bfloat16 verl computes it in bfloat16."""
    collision: Tensor | None = None
    correction: Tensor | None = None
    push: Tensor | None = None
    sampler_logp: Tensor | None = None
    """ln mu of vLLM or SGLang; None unless rollout.calculate_log_probs is set."""
    taken: tuple[Tensor, TokenStats, Tensor, PolicyLoss] | None = None
    """ln pi with its graph, the statistics, the advantages and the loss of the micro-batch, once it has any."""


class ControlledLoss:
    """verl's loss function `fn(model_output, data, dp_group) -> (loss, metrics)` under a controller.

    controller: total_steps counts optimizer steps (mini-batches). config: verl's ActorConfig with policy_loss.loss_mode
    `entrostat_controlled`. tier: "C" where the engine hands out logits, "B" where it only has the entropy.
    KL, padding and aggregation are those of verl's own `ppo_loss`. extended: a checkpoint of a run with another number
    of steps is accepted too. objective: computed by verl's own loss of that name where verl has it (see `verls_own`).
    kl_cov: (share, coefficient) of KL-Cov's term, by verl's own loss, with objective Reinforce. Raises ValueError for a
    reweighting in tier B and for an objective that compares the tokens of a batch, ExclusiveExtrasError next to a TRL
    that breaks verl.
    """

    def __init__(
        self,
        controller: EntropyController,
        config: Any,
        tier: Literal["B", "C"] = "C",
        regions: Convention = "surprisal",
        extended: bool = False,
        objective: Objective | None = None,
        kl_cov: tuple[float, float] | None = None,
    ) -> None:
        refuse_trl_beside_verl()
        objective = Clip() if objective is None else objective
        if objective.compares:
            raise ValueError(
                f"objective is {type(objective).__name__}, which compares the tokens of a whole batch, and verl's loss "
                "has one micro-batch at a time; choose another objective"
            )
        for part in controller.parts:
            if part.adds:
                raise ValueError(OWN_TERM.format(type(part).__name__))
        if tier not in ("B", "C"):
            raise ValueError(f"tier is {tier!r}; give 'B' or 'C'")
        if regions not in get_args(Convention):
            raise ValueError(f"regions is {regions!r}; give {', '.join(map(repr, get_args(Convention)))}")
        if tier == "B" and controller.reweighting is not None:
            raise ValueError(
                f"reweighting is {type(controller.reweighting).__name__} in tier B, where verl gives no logits and no "
                "token has a polarity; use the fsdp or fsdp2 engine, or drop the reweighting"
            )
        self.controller, self.config, self.tier, self.regions = controller, config, tier, regions
        self.extended, self.objective, self.kl_cov = extended, objective, kl_cov
        self._current: _MicroBatch | None = None
        self.forget()

    def forget(self) -> None:
        """Begin a new optimizer step."""
        self._sums, self._mismatch, self._turns = TokenSums.zero(), MismatchSums.zero(), TurnSums.zero()
        self._plain_sums = torch.zeros(len(_Plain), dtype=torch.float64)

    def __call__(
        self,
        model_output: Any = None,
        data: Any = None,
        dp_group: Any = None,
        student_logits: Tensor | None = None,
        **_: Any,
    ) -> Any:
        """The statistics of `student_logits` (1, N, V), each (1, N), or the loss of a micro-batch."""
        if student_logits is not None:
            return _statistics(student_logits, self._pays)
        register_policy_loss(LOSS_MODE)(self._policy_loss)
        verls = no_padding_2_padding(model_output["entropy"], data) if "entropy" in model_output else None
        given = {name: _padded(data, name) for name in ("rollout_log_probs", *REWARDS)}
        padded = {"entropy": verls}
        if self.tier == "C":
            names = (*STATISTICS, "push") if self._pays else STATISTICS
            padded = {name: no_padding_2_padding(model_output[f"entrostat_{name}"], data) for name in names}
        self._current = _MicroBatch(
            verls_entropy=verls, sampler_logp=given["rollout_log_probs"], **cast(dict[str, Any], padded)
        )
        answer = ppo_loss(self.config, model_output, data, dp_group)
        self._count(answer[0])
        self._count_rest(answer[1], next((given[name] for name in REWARDS if given[name] is not None), None))
        return answer

    def _count_rest(self, metrics: Mapping[str, Any], rewards: Tensor | None) -> None:
        """Add verl's KL to the reference and the completions with a reward above 0."""
        if "kl_loss" in metrics:
            value = torch.as_tensor(metrics["kl_loss"].aggregate(), dtype=torch.float64).cpu()
            self._plain_sums[_Plain.KL] += value
            self._plain_sums[_Plain.KL_TERMS] += metrics["kl_loss"].aggregation is AggregationType.MEAN
        if rewards is not None:
            self._plain_sums[_Plain.PASSED] += (rewards.sum(-1) > 0).sum().double().cpu()
            self._plain_sums[_Plain.COMPLETIONS] += len(rewards)

    def _count(self, loss: Tensor) -> None:
        """Add a micro-batch to the record of the step, with the flow of verl's whole loss."""
        assert self._current is not None
        if self.tier != "C" or self._current.taken is None:
            return
        log_prob, stats, applied, out = self._current.taken
        (pull,) = torch.autograd.grad(loss, log_prob, retain_graph=True)
        flow = -pull * sensitivity(stats)
        if self._current.push is not None:
            coefficient = self.controller.entropy_coef() + self.config.entropy_coeff
            flow = flow + coefficient * self._weights(out.mask) * self._current.push
        self._sums = self._sums + token_sums(stats, applied, out, out.mask, self.regions, flow=flow)
        self._turns = self._turns + turn_sums(stats, applied, out.mask, flow=flow)

    @property
    def _pays(self) -> bool:
        """Whether the loss may have an entropy bonus, ours or verl's."""
        return self.controller.bonus is not None or bool(self.config.entropy_coeff)

    def _weights(self, mask: Tensor) -> Tensor:
        """What verl's aggregation multiplies each token's loss by, (B, T)."""
        unit = torch.zeros(mask.shape, device=mask.device, requires_grad=True)
        with torch.enable_grad():
            loss = agg_loss(unit, mask, self.config.loss_agg_mode, **self.config.global_batch_info)
        return torch.autograd.grad(loss, unit)[0]

    def _policy_loss(self, *args: Any, **kwargs: Any) -> Answer:
        """The clipped loss under the rule and the weights in force."""
        current, call = self._current, LossCall(*args, **kwargs)
        assert current is not None
        if self.controller.corrections and call.rollout_is_weights is not None:
            raise ValueError(
                "algorithm.rollout_correction.rollout_is is set beside trainer.v1.entrostat.correction, so tokens "
                "would be weighed twice; set one of the two to null"
            )
        mask, stats = call.response_mask.bool(), _as_stats(call.log_prob, current)
        if bool(mask.any()):
            call = self._weighted(call, stats, mask)
        objective, band = self.objective, self.controller.rule()
        dual = isinstance(objective, Clip) and type(band).limits is ClipBand.limits
        limited = DualClip(band, call.config.get("clip_ratio_c", 3.0)) if dual else band
        (loss, metrics), out = verl_loss(call, objective, limited)
        if out is None:
            return loss, metrics
        if own := verls_own(objective, band, call.old_log_prob, self.kl_cov):  # ours above only counts what is clipped
            name, settings = own
            loss, metrics = replace(call, config=changed(call.config, **settings)).passed_to(get_policy_loss_fn(name))
        if coefficient := self.controller.entropy_coef():
            assert current.verls_entropy is not None, "check() wants calculate_entropy for a bonus"
            loss = loss + call.aggregated(entropy_bonus(current.verls_entropy, mask, coefficient))
        self._plain_sums[_Plain.ENTROPY] += current.entropy.detach()[mask].double().sum().cpu()
        self._plain_sums[_Plain.TOKENS] += mask.sum().double().cpu()
        if self.tier == "C":
            factors = call.rollout_is_weights
            applied = call.advantages if factors is None else call.advantages * factors
            current.taken = (call.log_prob, stats, applied, out)
        return loss, metrics

    def _weighted(self, call: LossCall, stats: TokenStats, mask: Tensor) -> LossCall:
        """The call with the controller's weights in its advantages; the mismatch of sampler and trainer is counted."""
        assert self._current is not None
        old, sampler, advantages = call.old_log_prob, self._current.sampler_logp, call.advantages
        known = {"old_logp": old, "sampler_logp": sampler}
        weighted = advantages
        if self.controller.weighs:
            weighted = advantages * self.controller.weights(stats, advantages, mask, **known)
        if sampler is not None:
            factors = call.rollout_is_weights
            if factors is None:
                factors = self.controller.corrected(stats, advantages, mask, **known)
            self._mismatch = self._mismatch + mismatch_sums(old, sampler, mask, factors=factors)
        return replace(call, advantages=weighted)

    def finish_step(self, group: Any = None) -> dict[str, float]:
        """Sum over the ranks of `group` (None: only this one), pass it to the controller; return metrics to log."""
        plain, sums, mismatch, turns = self._plain_sums, self._sums, self._mismatch, self._turns
        self.forget()
        if group is not None:
            plain, sums, mismatch, turns = _reduced(plain, sums, mismatch, turns, group)
        entropy, tokens, kl, kl_terms, passed, completions = plain.tolist()
        if not tokens:
            return {}
        ranks = 1 if group is None else torch.distributed.get_world_size(group)
        scale = tokens / ranks  # gradients are the ranks' mean
        metrics: dict[str, Any] = dict(sums.with_flow_times(scale).metrics()) if self.tier == "C" else {}
        if turns.several:
            metrics |= turns.with_flow_times(scale).metrics()
        measured = mismatch.metrics()
        self.controller.observe(
            self.controller.state_dict()["step"] + 1,
            entropy,
            tokens,
            kl_old=metrics.get("kl_old"),
            kl_reference=kl / (kl_terms or ranks) if self.config.use_kl_loss else None,
            kl_sampler=mismatch.kl,
            pass_rate=passed / completions if completions else None,
        )
        if measured:
            metrics |= {"kl_sampler": mismatch.kl, "mismatch": measured}
        return scalars({**self.controller.metrics(), **metrics})


class EntropyTrainingWorker(TrainingWorker):  # type: ignore[misc]
    """verl's training worker; its loss function may be a `ControlledLoss`, whose state joins the checkpoints."""

    _rounding_checked = False

    def train_batch(self, data: Any) -> Any:
        """One optimizer step; the controller records it, and its metrics are added to verl's."""
        loss = self.loss_fn
        if not isinstance(loss, ControlledLoss):
            return super().train_batch(data)
        loss.forget()
        if not self._rounding_checked:
            self._rounding_checked = True
            remedy = "set actor_rollout_ref.actor.fsdp_config.model_dtype to fp32"
            warn_of_rounding(getattr(self.engine, "optimizer", None), remedy)
        if loss.tier == "C":
            tensordict_utils.assign_non_tensor(data, distillation_use_topk=True)
        output = super().train_batch(data)
        record = loss.finish_step(self.engine.get_data_parallel_group())
        if output is not None:
            tensordict_utils.get(output, "metrics").update(record)
        return output

    def save_checkpoint(
        self, local_path: str, hdfs_path: str | None = None, global_step: int = 0, max_ckpt_to_keep: int | None = None
    ) -> Any:
        """verl's checkpoint, with the controller's state next to it."""
        done = super().save_checkpoint(local_path, hdfs_path, global_step, max_ckpt_to_keep)
        if isinstance(self.loss_fn, ControlledLoss):
            _state_file(local_path).write_text(json.dumps(self.loss_fn.controller.state_dict(), allow_nan=False))
        return done

    def load_checkpoint(self, local_path: str, hdfs_path: str | None = None, del_local_after_load: bool = False) -> Any:
        """verl's checkpoint, and the controller's state; ValueError where there is none."""
        if isinstance(self.loss_fn, ControlledLoss):
            file = _state_file(local_path)
            if not file.exists():
                raise ValueError(f"{file}: missing, so the checkpoint has no controller; start from its weights")
            state = json.loads(file.read_text())
            self.loss_fn.controller.load_state_dict(state, extended=self.loss_fn.extended)
        return super().load_checkpoint(local_path, hdfs_path, del_local_after_load)


class EntropyActorRolloutRefWorker(ActorRolloutRefWorker):  # type: ignore[misc]
    """verl's hybrid worker with that actor."""

    actor_worker_cls = EntropyTrainingWorker


@torch.no_grad()
def _statistics(logits: Tensor, push: bool) -> dict[str, Tensor]:
    anything = torch.zeros(logits.shape[:-1], dtype=torch.long, device=logits.device)
    stats = token_stats(logits, anything)
    columns = {f"entrostat_{name}": getattr(stats, name) for name in STATISTICS}
    if push:
        parts = [bonus_flow(rows[None]) for rows in torch.split(logits[0], ROWS_AT_A_TIME)]
        columns["entrostat_push"] = torch.cat(parts, dim=1)
    return columns


def _as_stats(log_prob: Tensor, current: _MicroBatch) -> TokenStats:
    """The statistics, with NaN for those that tier B does not have, so that they cannot be used by mistake."""
    unknown = torch.full_like(log_prob.detach(), torch.nan)
    collision = unknown if current.collision is None else current.collision
    correction = unknown if current.correction is None else current.correction
    return TokenStats(log_prob.detach(), current.entropy.detach(), collision, correction)


def _padded(data: Any, name: str) -> Tensor | None:
    """A field of the micro-batch, (B, T), if verl sent it."""
    return data.select(name).to_padded_tensor()[name] if name in data else None


def _reduced(
    plain: Tensor, sums: TokenSums, mismatch: MismatchSums, turns: TurnSums, group: Any
) -> tuple[Tensor, TokenSums, MismatchSums, TurnSums]:
    backend = torch.distributed.get_backend(group)
    device = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
    added = [x.to(device, copy=True) for x in (plain, sums.totals, mismatch.totals, turns.totals)]
    lowest = [x.to(device, copy=True) for x in (sums.lowest, mismatch.lowest)]
    for x in added:
        torch.distributed.all_reduce(x, group=group)
    for x in lowest:
        torch.distributed.all_reduce(x, op=torch.distributed.ReduceOp.MIN, group=group)
    plain, totals, differences, by_turn = (x.cpu() for x in added)
    lowest = [x.cpu() for x in lowest]
    return plain, TokenSums(totals, lowest[0]), MismatchSums(differences, lowest[1]), TurnSums(by_turn)


def _state_file(folder: str) -> Path:
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    return Path(folder) / f"entrostat_controller_rank_{rank}.json"

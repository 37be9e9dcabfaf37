"""The embedded engine: one campaign in this process, from rollout to checkpoint, resumable at any moment.

The training step, in the order in which it is read: `Trainer._train` here, which calls `_collect` (one rollout batch:
drawn, graded, given advantages) and `_update` (one optimizer step); `rollout.py`, how completions are drawn and
graded; `update.py`, one optimizer step; `terms.py`, what the loss has besides the objective; and the objective in
`entrostat.objective.losses`, with what a clip does to a token in `surrogates.py` beside it.

A resume point is written after every `campaign.checkpoint_every` rollout batches. A killed run returns to the last one,
drops what was logged after it, and repeats it exactly: every random number follows from the seed and the step.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from pathlib import Path
from statistics import stdev
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from entrostat.campaign.checkpoints import STATE_FILE, verify
from entrostat.campaign.engine import CampaignTrace, Checkpoint, Listener, Order, Plan, Progress
from entrostat.campaign.loop import CampaignLoop, Schedule
from entrostat.engine.evaluate import completion_metrics, evaluate_split, group_metrics, sample_lines, token_records
from entrostat.engine.information import measured_information
from entrostat.engine.policy import Policy, Trainable, load_policy
from entrostat.engine.registry import engine
from entrostat.engine.rollout import GradedRollout, Rollout, Sampling, concatenate, derived_seed, sample, sample_graded
from entrostat.engine.sampler import Sampler
from entrostat.engine.terms import KlTerm, Term, reference_term
from entrostat.engine.traces import Imitation, Restart, TraceBank
from entrostat.engine.update import Experience, Learner
from entrostat.grading import CodeGrader, Verdict
from entrostat.objective.advantages import EmaBaseline, reward_tensor, signed
from entrostat.objective.regularisers import overlong_shaping
from entrostat.recipe import Recipe, RecipeError, UpdateRecipe, build_controller
from entrostat.recipe.methods import build_advantage, takes_surprisals
from entrostat.recipe.task_sets import TaskSplits
from entrostat.runs import Run
from entrostat.tasks.sources import AnyTask

OPTIMIZER_FILE = "optimizer.safetensors"  # in a resume point, and in a checkpoint whose optimizer is carried over


@engine("embedded")
class LocalEngine:
    """Runs campaigns of a recipe in this process.

    listener: called with every step line and evaluation line as it is written.
    """

    def __init__(self, recipe: Recipe, tasks: TaskSplits, grader: CodeGrader, listener: Listener | None = None) -> None:
        if recipe.engine_arguments:
            raise RecipeError(
                f"engine_arguments: got {list(recipe.engine_arguments)}, and engine embedded reads none; remove them"
            )
        self.recipe = recipe
        self.tasks = tasks
        self.grader = grader
        self.listener = listener
        self.restart: Restart | None = None  # the traces with which a campaign begins

    def run(self, start: Checkpoint, plan: Plan, decide: Callable[[Progress], Order], record: Run) -> CampaignTrace:
        """Train from `start` for at most plan.budget optimizer steps, evaluating as the recipe and `decide` say.

        Continues from the record's last resume point if there is one; a finished record is returned unchanged.
        Raises CheckpointError if `start` is a checkpoint of an earlier campaign and corrupt.
        """
        if self.recipe.threads:
            torch.set_num_threads(self.recipe.threads)
        evaluation = self.recipe.evaluation
        loop = CampaignLoop(record, plan, decide, Schedule(evaluation.every, evaluation.report), self.listener, True)
        if not loop.finished:
            trainer = self.trainer(start, plan, record, loop.resume)
            loop.run(trainer, loop.resume.step if loop.resume else None)
        return loop.trace()

    def trainer(self, start: Checkpoint, plan: Plan, record: Run, resume: Checkpoint | None) -> Trainer:
        """The host of one campaign, with the weights of its start or of its resume point."""
        return Trainer(self, start, plan, record, resume)


class Advantages:
    """The recipe's advantage, with its state: that of an EMA baseline, or of an advantage that has one."""

    def __init__(self, settings: UpdateRecipe) -> None:
        self.settings = settings
        self.ema = EmaBaseline()
        baseline = self.ema if settings.baseline == "ema" else settings.baseline
        self.judge = build_advantage(settings.advantage, baseline)

    def __call__(
        self,
        groups: Sequence[Sequence[float | None]],
        surprisals: Tensor | None = None,
        shaping: Tensor | None = None,
    ) -> Tensor:
        """Advantages (B,) of rewards 0/1 given group by group, None for a completion without a reward.

        surprisals (B,): mean of -ln pi_old over the tokens of each completion, for an advantage that reads them.
        shaping (B,): what is added to the rewards.
        """
        rewards = reward_tensor(groups)
        rewards = signed(rewards) if self.settings.failure_reward == -1 else rewards
        rewards = rewards if shaping is None else rewards + shaping.reshape(rewards.shape)
        if takes_surprisals(self.settings.advantage) and surprisals is not None:
            values: Tensor = self.judge(rewards, surprisals=surprisals.reshape(rewards.shape))
        else:
            values = self.judge(rewards)
        if values.shape != rewards.shape or not bool(values.isfinite().all()):
            raise ValueError(
                f"update.advantage {self.settings.advantage!r} made {tuple(values.shape)} of rewards "
                f"{tuple(rewards.shape)}, finite: {bool(values.isfinite().all())}; return one finite number per reward"
            )
        return values.flatten()

    def state_dict(self) -> dict[str, Any]:
        """The state of the baseline and of the advantage, JSON-able."""
        own = self.judge.state_dict() if hasattr(self.judge, "state_dict") else {}
        return {**self.ema.state_dict(), **({"own": own} if own else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.ema.load_state_dict(state)
        if "own" in state:
            self.judge.load_state_dict(state["own"])


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What was drawn for one rollout batch, which may be more than it takes; waited as in `GradedRollout`."""

    tasks: list[AnyTask]
    rollout: Rollout
    verdicts: list[Verdict]
    waited: float


def most_spread(groups: Sequence[Sequence[float | None]], share: float, least: int = 1) -> list[int]:
    """The groups whose rewards have the largest standard deviations, as many as together have `share` of their sum, at
    least `least`, in the order given; of equal ones the first. All of them where no group has any spread.

    Source: RAGEN-2, arXiv 2604.06268; mll-lab-nu/RAGEN, ragen/trainer/rollout_filter.py, strategy top_p, mode linear,
    .9 recommended. Departs: no epsilon, .01 there; a batch without any spread is kept, where theirs skips the step.
    """
    graded = [[reward for reward in group if reward is not None] for group in groups]
    spreads = [stdev(rewards) if len(rewards) > 1 else 0.0 for rewards in graded]
    wanted = share * sum(spreads) * (1 - 1e-12)
    if not wanted:
        return list(range(len(groups)))
    order = sorted(range(len(groups)), key=lambda group: -spreads[group])
    sums = accumulate(spreads[group] for group in order)
    count = 1 + next(place for place, reached in enumerate(sums) if reached >= wanted)
    return sorted(order[: max(count, least)])


def _mixed(group: Sequence[float | None]) -> bool:
    """Whether a group's completions neither all pass nor all fail."""
    return len({reward > 0 for reward in group if reward is not None}) == 2


class Trainer:
    """The policy and its learner, as the host of one campaign: `entrostat.campaign.loop.SteppingHost`."""

    def __init__(
        self, owner: LocalEngine, start: Checkpoint, plan: Plan, record: Run, resume: Checkpoint | None
    ) -> None:
        self.owner, self.recipe, self.tasks, self.record = owner, owner.recipe, owner.tasks, record
        self.split = len(self.tasks.select)
        self.measured = self.tasks.measured
        source = resume or start
        verify(source)
        self.policy = self._load(source.path)
        anchor = self._anchor(start.path)
        self.learner = Learner(self.policy, self.recipe, build_controller(self.recipe), anchor, plan.rate)
        self.sampler = Sampler(self.policy, self.recipe.rollout)
        self.advantages = Advantages(self.recipe.update)
        self.done = resume.step if resume else 0
        self.imitated = owner.restart.steps if owner.restart else 0
        self.imitation = (
            Imitation(self.policy, self.recipe, owner.restart, plan.rate)
            if owner.restart and self.done < self.imitated
            else None
        )
        banking = self.recipe.watch and self.recipe.watch.restarting
        self.bank = TraceBank(banking.per_task, self.recipe.seed) if banking else None
        self.carried = self.recipe.campaign.optimizer == "carried"
        if self.carried and (start.path / OPTIMIZER_FILE).exists():
            load_optimizer(start.path, self.learner.optimizer)
        if resume:
            load_optimizer(resume.path, self._learning.optimizer)
            self.sampler.load(resume.path)
            self._load_state(json.loads((resume.path / STATE_FILE).read_text(encoding="utf-8")))
            if self.bank is not None:
                self.bank.load(resume.path)
        self._lines = self._train()

    @property
    def _learning(self) -> Learner:
        """The learner whose step is next."""
        return self.imitation.learner if self.imitation else self.learner

    def step(self) -> dict[str, Any]:
        """See `SteppingHost.step`."""
        return next(self._lines)

    def _train(self) -> Iterator[dict[str, Any]]:
        """The lines of the optimizer steps, one rollout batch after another; each taken when its line is read. Those on
        banked traces, if there are any, come first.
        """
        while self.imitation:
            yield self._imitate(self.imitation)
        update = self.recipe.update
        for batch in count((self.done - self.imitated) // update.steps_per_batch):
            lag = self.sampler.lag
            experience, fields = self._collect(batch)
            for epoch in range(update.epochs):
                for minibatch, index in enumerate(self._minibatches(batch, epoch, len(experience.advantages))):
                    staleness = lag + epoch * update.minibatches + minibatch
                    place = {"batch": batch, "epoch": epoch, "minibatch": minibatch, "staleness": staleness}
                    yield self._update(experience.rows(index), place, fields)
                    fields = {**fields, "tokens": {"rollout": 0}, "seconds": {"rollout": 0.0, "grade": 0.0}}
                    fields.pop("information", None)

    def _imitate(self, imitation: Imitation) -> dict[str, Any]:
        """Take one supervised step and return its line; after the last one the imitation is over."""
        self.done += 1
        self.sampler.remember()
        line = imitation.step(self.done)
        if self.done == self.imitated:
            self.imitation = None
        return {"step": self.done, **line}

    def _collect(self, batch: int) -> tuple[Experience, dict[str, Any]]:
        """Draw and grade one rollout batch; its completions, and the fields of the step line that describe it."""
        samples = self.recipe.rollout.samples
        started = time.perf_counter()
        drawn = self._fill(batch)
        seconds = time.perf_counter() - started
        rollout, rewards = drawn.rollout, [verdict.reward for verdict in drawn.verdicts]
        if self.bank is not None:
            names = [task.id for task in drawn.tasks for _ in range(samples)]
            self.bank.add_passing(names, rollout, [verdict.passed for verdict in drawn.verdicts])
        graded = [reward for reward in rewards if reward is not None]
        groups = [rewards[i : i + samples] for i in range(0, len(rewards), samples)]
        fields = {
            "reward": sum(graded) / len(graded) if graded else None,
            "groups": group_metrics(groups),
            **completion_metrics(rollout, drawn.verdicts),
            "tokens": {"rollout": rollout.token_count},
            "seconds": {"rollout": seconds - drawn.waited, "grade": drawn.waited},
        }
        information = self.recipe.control.information
        if information and batch % information.every == 0:
            size, temperature = self.recipe.update.microbatch_rows, self.recipe.rollout.temperature
            started = time.perf_counter()
            fields["information"] = measured_information(
                self.policy, rollout, information.completions, temperature, size
            )
            fields["seconds"]["information"] = time.perf_counter() - started
        kept = self._kept(groups)
        rows = (kept.unsqueeze(1) * samples + torch.arange(samples)).flatten()
        rollout, verdicts = rollout.rows(rows), [drawn.verdicts[row] for row in rows.tolist()]
        groups, tasks = [groups[group] for group in kept.tolist()], [drawn.tasks[group] for group in kept.tolist()]
        recomputed = self.learner.recomputed(rollout) if self.recipe.update.old_logp == "recomputed" else None
        earned = torch.tensor([math.nan if reward is None else reward for group in groups for reward in group])
        old_logp = rollout.old_logp if recomputed is None else recomputed
        surprisals = -(old_logp * rollout.mask).sum(1) / rollout.lengths.clamp_min(1)
        advantages = self.advantages(groups, surprisals, self._shaping(rollout, old_logp))
        experience = Experience(rollout, advantages, recomputed, earned)
        self._log_samples(tasks[:4], experience, verdicts)
        return experience, fields

    def _fill(self, batch: int) -> _Drawn:
        """Draw and grade batches of prompts until enough of their groups are mixed, at most `rollout.resample`."""
        own, parts, waited = self.recipe.rollout, [], 0.0
        most = own.resample or 1
        for attempt in range(most):
            tasks = self._prompts(batch * most + attempt)
            drawn = self._draw(tasks, derived_seed(self.recipe.seed, "rollout", batch, *([attempt] if attempt else [])))
            parts.append((tasks, drawn.rollout, drawn.verdicts))
            waited += drawn.waited
            verdicts = [verdict for part in parts for verdict in part[2]]
            rewards = [verdict.reward for verdict in verdicts]
            mixed = [_mixed(rewards[i : i + own.samples]) for i in range(0, len(rewards), own.samples)]
            if sum(mixed) >= own.prompts:
                break
        rollouts = [part[1] for part in parts]
        whole = rollouts[0] if len(rollouts) == 1 else concatenate(rollouts, cast(Policy, self.policy).pad_id)
        return _Drawn([task for part in parts for task in part[0]], whole, verdicts, waited)

    def _prompts(self, batch: int) -> list[AnyTask]:
        """The batch's training tasks: consecutive pieces of one shuffled pass over all of them after another."""
        tasks, size = self.tasks.train, self.recipe.rollout.prompts
        chosen = []
        for position in range(batch * size, (batch + 1) * size):
            turn, place = divmod(position, len(tasks))
            order = torch.randperm(len(tasks), generator=self._generator("tasks", turn))
            chosen.append(tasks[int(order[place])])
        return chosen

    def _draw(self, tasks: Sequence[AnyTask], seed: int) -> GradedRollout:
        """Completions of the tasks by the policy that samples, graded."""
        policy = cast(Policy, self.sampler.policy())
        return sample_graded(policy, self.owner.grader, tasks, Sampling.training(self.recipe), seed)

    def _kept(self, groups: Sequence[Sequence[float | None]]) -> Tensor:
        """The groups that teach, in the order drawn: the mixed ones first where more were drawn than a batch takes, and
        of a batch the most spread ones.
        """
        own = self.recipe.rollout
        order = list(range(len(groups)))
        if len(groups) > own.prompts:
            order = sorted(sorted(order, key=lambda group: not _mixed(groups[group]))[: own.prompts])
        if own.variance_top_p < 1:
            spread = most_spread([groups[group] for group in order], own.variance_top_p, self.recipe.update.minibatches)
            order = [order[place] for place in spread]
        return torch.tensor(order)

    def _shaping(self, rollout: Rollout, old_logp: Tensor) -> Tensor | None:
        """What the length and a KL in the reward add to the rewards (B,); None for nothing."""
        own, kl = self.recipe.rollout, self.recipe.update.kl
        shaping = None
        if own.overlong_buffer:
            longest, buffer = own.max_new_tokens, own.overlong_buffer
            shaping = overlong_shaping(rollout.lengths, longest, buffer, own.overlong_penalty)
        if kl and kl.place == "reward" and isinstance(self.learner.anchor, KlTerm):
            lost = self.learner.anchor.in_reward(rollout, old_logp, self.recipe.update.microbatch_rows)
            shaping = -lost if shaping is None else shaping - lost
        return shaping

    def _log_samples(self, tasks: Sequence[AnyTask], experience: Experience, verdicts: Sequence[Verdict]) -> None:
        """Record the first completion of each of the `tasks`, the first of the batch, token by token."""
        recipe, rollout = self.recipe.rollout, experience.rollout
        lines = sample_lines(tasks, rollout, verdicts, recipe.samples)
        rows = range(0, len(lines) * recipe.samples, recipe.samples)
        records = token_records(self.policy, rollout, rows, recipe.temperature)
        for line, row, tokens in zip(lines, rows, records, strict=True):
            line["advantage"] = float(f"{experience.advantages[row]:.4g}")
            line["tokens"] = tokens
        self.record.log_samples(self.done, "train", lines)

    def _minibatches(self, batch: int, epoch: int, completions: int) -> Sequence[torch.Tensor]:
        """Row indices of each minibatch; groups stay whole."""
        samples = self.recipe.rollout.samples
        order = torch.randperm(completions // samples, generator=self._generator("minibatches", batch, epoch))
        rows = order.unsqueeze(1) * samples + torch.arange(samples)
        return [part.flatten() for part in rows.tensor_split(self.recipe.update.minibatches)]

    def _update(self, experience: Experience, place: dict[str, int], batch_fields: dict[str, Any]) -> dict[str, Any]:
        """Take one optimizer step and return its line."""
        self.done += 1
        torch.manual_seed(derived_seed(self.recipe.seed, "update", self.done))
        self.sampler.remember()
        measured = self.learner.step(self.done, experience)
        joined = {field: {**batch_fields[field], **measured[field]} for field in ("tokens", "seconds")}
        return {"step": self.done, **place, **measured, **batch_fields, **joined}

    def evaluate(self, split: str, part: slice, weights: Checkpoint | None) -> Mapping[str, Any]:
        """See `Host.evaluate`."""
        policy = cast(Policy, self._load(weights.path) if weights else self.policy)
        return evaluate_split(self.recipe, self.owner.grader, policy, split, getattr(self.tasks, split), part)

    def save(self, to: Checkpoint) -> None:
        """See `Host.save`; with the optimizer if the next campaign continues with it, and with the bank of traces."""
        self.policy.save(to.path)
        if self.carried:
            save_optimizer(self.learner.optimizer, to.path)
        if self.bank is not None:
            self.bank.save(to.path)

    def resumable(self, step: int) -> bool:
        """After every `checkpoint_every` rollout batches, or as many supervised steps."""
        every, trained = self.recipe.campaign.checkpoint_every, step - self.imitated
        return step % every == 0 if trained < 0 else trained % (every * self.recipe.update.steps_per_batch) == 0

    def save_resume_point(self, to: Checkpoint) -> None:
        """Everything that the run needs to continue from here."""
        learner = self._learning
        self.policy.save(to.path)
        save_optimizer(learner.optimizer, to.path)
        if self.bank is not None:
            self.bank.save(to.path)
        self.sampler.save(to.path)
        state = {
            "controller": learner.controller.state_dict(),
            "advantages": self.advantages.state_dict(),
            "meter": learner.meter.state_dict() if learner.meter else None,
            "anchor": (learner.anchor.state_dict() if learner.anchor else None) or None,
        }
        (to.path / STATE_FILE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")

    def _load_state(self, state: dict[str, Any]) -> None:
        learner = self._learning
        learner.controller.load_state_dict(state["controller"])
        self.advantages.load_state_dict(state["advantages"])
        if learner.meter:
            learner.meter.load_state_dict(state["meter"])
        if learner.anchor and state["anchor"]:
            learner.anchor.load_state_dict(state["anchor"])

    def _load(self, source: str | Path) -> Trainable:
        return load_policy(source, self.recipe.policy.dtype, self.recipe.policy.device)

    def _anchor(self, start: Path) -> Term | None:
        """The penalty towards a reference, if the recipe has one. start: the campaign's first weights."""
        settings = self.recipe.update.kl
        if settings is None:
            return None
        reference = self._load(start if settings.reference == "start" else self.recipe.policy.path)
        return reference_term(self.recipe, reference, lambda count: self._draw_singly(reference, count))

    def _draw_singly(self, policy: Trainable, count: int) -> Rollout:
        """`count` completions, one per prompt of the training tasks in turn."""
        own, tasks = self.recipe.rollout, self.tasks.train
        prompts = [tasks[i % len(tasks)].prompt for i in range(count)]
        seed = derived_seed(self.recipe.seed, "fisher")
        return sample(cast(Policy, policy), prompts, Sampling(1, own.max_new_tokens, own.temperature), seed)

    def _generator(self, *place: str | int) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed(self.recipe.seed, *place))


def save_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Write the moments and step counts into an existing folder."""
    state = optimizer.state_dict()["state"]
    held = {f"{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}
    tensors = {name: value.contiguous() for name, value in held.items() if value is not None}
    save_file(tensors, folder / OPTIMIZER_FILE)


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Load the saved moments and step counts into an optimizer of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / OPTIMIZER_FILE).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

"""The embedded engine: one campaign on one machine, from rollout to checkpoint, resumable at any moment.

A resume point is written after every `campaign.checkpoint_every` rollout batches. A killed run goes back to the last
one, forgets what was logged after it, and does the same again: every random number follows from the seed and the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import torch

from entrostat.campaign.checkpoints import verify
from entrostat.campaign.engine import CampaignTrace, Checkpoint, Listener, Order, Plan, Progress
from entrostat.campaign.loop import CampaignLoop, Schedule
from entrostat.engine.anchor import KlAnchor, build_anchor
from entrostat.engine.checkpoint import OPTIMIZER_FILE, load_optimizer, load_state, save_optimizer, save_state
from entrostat.engine.evaluate import completion_metrics, evaluate_split, group_metrics, sample_lines
from entrostat.engine.graded import sample_graded
from entrostat.engine.policy import Policy, load_policy
from entrostat.engine.registry import engine
from entrostat.engine.rewards import Advantages
from entrostat.engine.seeds import derived_seed
from entrostat.engine.token_record import token_records
from entrostat.engine.update import Experience, Learner
from entrostat.grading import CodeGrader, Verdict
from entrostat.recipe import Recipe, RecipeError, build_controller
from entrostat.recipe.task_sets import TaskSplits
from entrostat.runs import Run
from entrostat.tasks.sources import AnyTask


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

    def run(self, start: Checkpoint, plan: Plan, decide: Callable[[Progress], Order], record: Run) -> CampaignTrace:
        """Train from `start` for at most plan.budget optimizer steps, evaluating as the recipe and `decide` say.

        Continues from the record's last resume point where there is one; a finished record is returned as it is.
        Raises CheckpointError where `start` is a checkpoint of an earlier campaign and corrupt.
        """
        if self.recipe.threads:
            torch.set_num_threads(self.recipe.threads)
        evaluation = self.recipe.evaluation
        loop = CampaignLoop(record, plan, decide, Schedule(evaluation.every, evaluation.report), self.listener)
        if not loop.finished:
            loop.run(_Trainer(self, start, plan, record, loop.resume), loop.resume.step if loop.resume else None)
        return loop.trace()


class _Trainer:
    """The policy and its learner, as the host of one campaign: `entrostat.campaign.loop.SteppingHost`."""

    def __init__(
        self, engine: LocalEngine, start: Checkpoint, plan: Plan, record: Run, resume: Checkpoint | None
    ) -> None:
        self.engine, self.recipe, self.record = engine, engine.recipe, record
        self.split = len(engine.tasks.select)
        self.measured = engine.tasks.measured
        source = resume or start
        verify(source)
        self.policy = self._load(source)
        controller = build_controller(self.recipe)
        prompts = [task.prompt for task in engine.tasks.train]
        anchor = build_anchor(self.recipe, start.path, prompts)
        self.learner = Learner(self.policy, self.recipe, controller, anchor, plan.rate)
        self.advantages = Advantages(self.recipe.update)
        self.done = resume.step if resume else 0
        self.carried = self.recipe.campaign.optimizer == "carried"
        if resume:
            load_optimizer(resume.path, self.learner.optimizer)
            self._load_state(load_state(resume.path))
        elif self.carried and (start.path / OPTIMIZER_FILE).exists():
            load_optimizer(start.path, self.learner.optimizer)
        self._lines = self._train()

    def step(self) -> dict[str, Any]:
        """See `SteppingHost.step`."""
        return next(self._lines)

    def evaluate(self, split: str, part: slice, weights: Checkpoint | None) -> Mapping[str, Any]:
        """See `Host.evaluate`."""
        policy = self._load(weights) if weights else self.policy
        return evaluate_split(self.recipe, self.engine.grader, policy, split, getattr(self.engine.tasks, split), part)

    def save(self, to: Checkpoint) -> None:
        """See `Host.save`; with the optimizer where the next campaign carries it on."""
        self.policy.save(to.path)
        if self.carried:
            save_optimizer(self.learner.optimizer, to.path)

    def resumable(self, step: int) -> bool:
        """After every `checkpoint_every` rollout batches."""
        return step % (self.recipe.campaign.checkpoint_every * self.recipe.update.steps_per_batch) == 0

    def save_resume_point(self, to: Checkpoint) -> None:
        """Everything that the run needs to go on from here."""
        learner = self.learner
        self.policy.save(to.path)
        save_optimizer(learner.optimizer, to.path)
        state = {
            "controller": learner.controller.state_dict(),
            "advantages": self.advantages.state_dict(),
            "meter": learner.meter.state_dict() if learner.meter else None,
            "anchor": learner.anchor.state_dict() if isinstance(learner.anchor, KlAnchor) else None,
        }
        save_state(state, to.path)

    def _load_state(self, state: dict[str, Any]) -> None:
        learner = self.learner
        learner.controller.load_state_dict(state["controller"])
        self.advantages.load_state_dict(state["advantages"])
        if learner.meter:
            learner.meter.load_state_dict(state["meter"])
        if isinstance(learner.anchor, KlAnchor):
            learner.anchor.load_state_dict(state["anchor"])

    def _load(self, checkpoint: Checkpoint) -> Policy:
        return load_policy(checkpoint.path, self.recipe.policy.dtype, self.recipe.policy.device)

    def _train(self) -> Iterator[dict[str, Any]]:
        """The lines of the optimizer steps, each taken when it is asked for, one rollout batch after another."""
        update = self.recipe.update
        for batch in count(self.done // update.steps_per_batch):
            experience, fields = self._collect(batch)
            for epoch in range(update.epochs):
                for minibatch, index in enumerate(self._minibatches(batch, epoch)):
                    staleness = epoch * update.minibatches + minibatch
                    place = {"batch": batch, "epoch": epoch, "minibatch": minibatch, "staleness": staleness}
                    yield self._update(experience.rows(index), place, fields)
                    fields = {**fields, "tokens": {"rollout": 0}, "seconds": {"rollout": 0.0, "grade": 0.0}}

    def _update(self, experience: Experience, place: dict[str, int], batch_fields: dict[str, Any]) -> dict[str, Any]:
        """Take one optimizer step; its line."""
        self.done += 1
        torch.manual_seed(derived_seed(self.recipe.seed, "update", self.done))
        measured = self.learner.step(self.done, experience)
        joined = {field: {**batch_fields[field], **measured[field]} for field in ("tokens", "seconds")}
        return {"step": self.done, **place, **measured, **batch_fields, **joined}

    def _collect(self, batch: int) -> tuple[Experience, dict[str, Any]]:
        """Sample and grade one rollout batch; the fields of the step line that describe it."""
        recipe = self.recipe.rollout
        tasks = self._prompts(batch)
        started = time.perf_counter()
        found = sample_graded(
            self.policy,
            self.engine.grader,
            tasks,
            recipe.samples,
            recipe.max_new_tokens,
            derived_seed(self.recipe.seed, "rollout", batch),
            recipe.temperature,
            recipe.batch_rows,
        )
        seconds = time.perf_counter() - started
        rollout, verdicts = found.rollout, found.verdicts
        rewards = [verdict.reward for verdict in verdicts]
        graded = [reward for reward in rewards if reward is not None]
        groups = [rewards[i : i + recipe.samples] for i in range(0, len(rewards), recipe.samples)]
        fields = {
            "reward": sum(graded) / len(graded) if graded else None,
            "groups": group_metrics(groups),
            **completion_metrics(rollout, verdicts),
            "tokens": {"rollout": rollout.token_count},
            "seconds": {"rollout": seconds - found.waited, "grade": found.waited},
        }
        recomputed = self.learner.recomputed(rollout) if self.recipe.update.old_logp == "recomputed" else None
        earned = torch.tensor([math.nan if reward is None else reward for reward in rewards])
        experience = Experience(rollout, self.advantages(groups), recomputed, earned)
        self._log_samples(tasks[:4], experience, verdicts)
        return experience, fields

    def _log_samples(self, tasks: Sequence[AnyTask], experience: Experience, verdicts: Sequence[Verdict]) -> None:
        """Keep the first completion of each of the batch's first `tasks`, token by token."""
        recipe, rollout = self.recipe.rollout, experience.rollout
        lines = sample_lines(tasks, rollout, verdicts, recipe.samples)
        rows = range(0, len(lines) * recipe.samples, recipe.samples)
        records = token_records(self.policy, rollout, rows, recipe.temperature)
        for line, row, tokens in zip(lines, rows, records, strict=True):
            line["advantage"] = float(f"{experience.advantages[row]:.4g}")
            line["tokens"] = tokens
        self.record.log_samples(self.done, "train", lines)

    def _prompts(self, batch: int) -> list[AnyTask]:
        """The batch's training tasks: consecutive pieces of one shuffled pass over all of them after another."""
        tasks, size = self.engine.tasks.train, self.recipe.rollout.prompts
        chosen = []
        for position in range(batch * size, (batch + 1) * size):
            turn, place = divmod(position, len(tasks))
            order = torch.randperm(len(tasks), generator=self._generator("tasks", turn))
            chosen.append(tasks[int(order[place])])
        return chosen

    def _minibatches(self, batch: int, epoch: int) -> Sequence[torch.Tensor]:
        """Row indices of each minibatch; groups stay whole."""
        prompts, samples = self.recipe.rollout.prompts, self.recipe.rollout.samples
        order = torch.randperm(prompts, generator=self._generator("minibatches", batch, epoch))
        rows = order.unsqueeze(1) * samples + torch.arange(samples)
        return rows.flatten().chunk(self.recipe.update.minibatches)

    def _generator(self, *place: str | int) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed(self.recipe.seed, *place))

"""The embedded engine: one campaign on one machine, from rollout to checkpoint, resumable at any moment.

A resume point is written after every `campaign.checkpoint_every` rollout batches. A killed run goes back to the last
one, forgets what was logged after it, and does the same again: every random number follows from the seed and the step.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from entrostat.campaign.engine import CampaignTrace, Checkpoint
from entrostat.engine.checkpoint import CheckpointStore, load_optimizer, load_state, verify
from entrostat.engine.evaluate import completion_metrics, evaluate, grade_rollout, group_metrics, sample_lines
from entrostat.engine.policy import load_policy
from entrostat.engine.rewards import Advantages
from entrostat.engine.rollout import sample
from entrostat.engine.seeds import derived_seed
from entrostat.engine.token_record import token_record
from entrostat.engine.update import Experience, Learner
from entrostat.grading import CodeGrader, Verdict
from entrostat.recipe import Recipe, build_controller
from entrostat.recipe.task_sets import task_splits
from entrostat.runs import Run, Trajectory
from entrostat.tasks.sources import AnyTask

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class TaskSplits:
    """The tasks of a run: trained on, choosing the peak, and reported."""

    train: list[AnyTask]
    select: list[AnyTask]
    report: list[AnyTask]

    @classmethod
    def of(cls, recipe: Recipe) -> TaskSplits:
        """The tasks that a recipe names."""
        return cls(**task_splits(recipe.tasks))

    def hashes(self) -> dict[str, str]:
        """A digest of each split's content."""
        return {split: _digest(getattr(self, split)) for split in ("train", "select", "report")}


def _digest(tasks: Sequence[AnyTask]) -> str:
    return hashlib.sha256("".join(task.content_hash() for task in tasks).encode()).hexdigest()


class LocalEngine:
    """Runs campaigns of a recipe in this process.

    listener: called with every step line and evaluation line as it is written.
    """

    def __init__(self, recipe: Recipe, tasks: TaskSplits, grader: CodeGrader, listener: Listener | None = None) -> None:
        self.recipe = recipe
        self.tasks = tasks
        self.grader = grader
        self.listener = listener or (lambda _: None)

    def run(
        self, start: Checkpoint, budget: int, should_stop: Callable[[Trajectory], bool], record: Run
    ) -> CampaignTrace:
        """Train from `start` for at most `budget` optimizer steps, evaluating as the recipe says.

        Continues from the record's last resume point where there is one; a finished record is returned as it is.
        """
        if self.recipe.threads:
            torch.set_num_threads(self.recipe.threads)
        campaign = _Campaign(self, start, record)
        campaign.train(budget, should_stop)
        return campaign.trace()


class _Campaign:
    """One campaign under way: the policy, its learner, the run folder and the checkpoints."""

    def __init__(self, engine: LocalEngine, start: Checkpoint, record: Run) -> None:
        self.engine, self.recipe, self.record = engine, engine.recipe, record
        self.store = CheckpointStore(record.checkpoints_dir)
        tags = self.store.tags()
        resume = tags.get("resume")
        policy = self.recipe.policy
        if resume:
            verify(resume)
        self.policy = load_policy(resume.path if resume else start.path, policy.dtype, policy.device)
        controller = build_controller(self.recipe)
        self.learner = Learner(self.policy, self.recipe, controller)
        self.advantages = Advantages(self.recipe.update)
        self.step = 0
        self.finished = False
        if resume:
            state = load_state(resume)
            load_optimizer(resume, self.learner.optimizer)
            controller.load_state_dict(state["controller"])
            self.advantages.load_state_dict(state["advantages"])
            if self.learner.meter:
                self.learner.meter.load_state_dict(state["meter"])
            self.step, self.finished = resume.step, state["finished"]
            record.rewind(self.step)
            self.start, self.peak = tags["start"], tags["resume-peak"]
        else:
            record.rewind(-1)
            self._evaluate()
            self.start = self.peak = self.store.save(self.policy, 0)
            self._save_resume_point()

    def train(self, budget: int, should_stop: Callable[[Trajectory], bool]) -> None:
        """Rollout batches until the budget is spent or the rule says stop."""
        interval = self.recipe.campaign.checkpoint_every * self.recipe.update.steps_per_batch
        while not self.finished:
            self._one_batch(budget, should_stop)
            if self.finished or self.step % interval == 0:
                self._save_resume_point()

    def trace(self) -> CampaignTrace:
        """What the campaign did, and its checkpoints."""
        tags = self.store.tags()
        return CampaignTrace(
            select=self._trajectory("select"),
            report=self._trajectory("report"),
            start=tags["start"],
            peak=tags["peak"],
            end=tags["end"],
        )

    def _one_batch(self, budget: int, should_stop: Callable[[Trajectory], bool]) -> None:
        batch = self.step // self.recipe.update.steps_per_batch
        experience, fields = self._collect(batch)
        update = self.recipe.update
        for epoch in range(update.epochs):
            for minibatch, index in enumerate(self._minibatches(batch, epoch)):
                self.step += 1
                self._log_step(experience.rows(index), {"batch": batch, "epoch": epoch, "minibatch": minibatch}, fields)
                fields = {**fields, "tokens": {"rollout": 0}, "seconds": {"rollout": 0.0, "grade": 0.0}}
                last = self.step == budget
                if last or self.step % self.recipe.evaluation.every == 0:
                    self._evaluate()
                    self.finished = last or should_stop(self._trajectory("select"))
                if self.finished:
                    return

    def _collect(self, batch: int) -> tuple[Experience, dict[str, Any]]:
        """Sample and grade one rollout batch; the fields of the step line that describe it."""
        recipe = self.recipe.rollout
        tasks = self._prompts(batch)
        started = time.perf_counter()
        rollout = sample(
            self.policy,
            [task.prompt for task in tasks],
            recipe.samples,
            recipe.max_new_tokens,
            derived_seed(self.recipe.seed, "rollout", batch),
            recipe.temperature,
            recipe.batch_rows,
        )
        sampled = time.perf_counter()
        verdicts = grade_rollout(self.engine.grader, tasks, rollout)
        rewards = [verdict.reward for verdict in verdicts]
        graded = [reward for reward in rewards if reward is not None]
        fields = {
            "reward": sum(graded) / len(graded) if graded else None,
            **completion_metrics(rollout, verdicts),
            "tokens": {"rollout": rollout.token_count},
            "seconds": {"rollout": sampled - started, "grade": time.perf_counter() - sampled},
        }
        groups = [rewards[i : i + recipe.samples] for i in range(0, len(rewards), recipe.samples)]
        fields["groups"] = group_metrics(groups)
        experience = Experience(rollout, self.advantages(groups))
        self._log_samples(tasks[:4], experience, verdicts)
        return experience, fields

    def _log_samples(self, tasks: Sequence[AnyTask], experience: Experience, verdicts: Sequence[Verdict]) -> None:
        """Keep the first completion of each of the batch's first `tasks`, token by token."""
        recipe, rollout = self.recipe.rollout, experience.rollout
        lines = sample_lines(tasks, rollout, verdicts, recipe.samples)
        for line, row in zip(lines, range(0, len(rollout.texts), recipe.samples), strict=False):
            line["advantage"] = float(f"{experience.advantages[row]:.4g}")
            line["tokens"] = token_record(self.policy, rollout, row, recipe.temperature)
        self.record.log_samples(self.step, "train", lines)

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

    def _log_step(self, experience: Experience, place: dict[str, int], batch_fields: dict[str, Any]) -> None:
        torch.manual_seed(derived_seed(self.recipe.seed, "update", self.step))
        measured = self.learner.step(self.step, experience)
        joined = {field: {**batch_fields[field], **measured[field]} for field in ("tokens", "seconds")}
        line = {"step": self.step, **place, **measured, **batch_fields, **joined}
        self.record.log_step(line)
        self.engine.listener(line)

    def _evaluate(self) -> None:
        """Evaluate both splits, log them, and keep the policy if the select split has a new peak."""
        settings = self.recipe.evaluation
        before = self.record.evals("select")
        for split in ("select", "report"):
            result = evaluate(
                self.policy,
                self.engine.grader,
                getattr(self.engine.tasks, split),
                samples=settings.samples,
                pass_at=settings.pass_at,
                temperature=settings.temperature,
                max_new_tokens=self.recipe.rollout.max_new_tokens,
                batch_rows=self.recipe.rollout.batch_rows,
                seed=derived_seed(self.recipe.tasks.seed, "evaluation", split),
            )
            line = {"step": self.step, "split": split, **result.line}
            self.record.log_samples(self.step, split, result.samples)
            self.record.log_eval(line)
            self.engine.listener(line)
        if before and self._trajectory("select").peak_step == self.step:
            self.peak = self.store.save(self.policy, self.step)
            self.store.retag({**self.store.tags(), "peak": self.peak})

    def _save_resume_point(self) -> None:
        """Write everything the run needs to go on from here; once finished, also the end checkpoint."""
        state = {
            "controller": self.learner.controller.state_dict(),
            "advantages": self.advantages.state_dict(),
            "meter": self.learner.meter.state_dict() if self.learner.meter else None,
            "finished": self.finished,
        }
        resume = self.store.save(self.policy, self.step, self.learner.optimizer, state)
        tags = {"start": self.start, "peak": self.peak, "resume-peak": self.peak, "resume": resume}
        if self.finished:
            tags["end"] = self.store.save(self.policy, self.step)
        self.store.retag(tags)

    def _trajectory(self, split: str) -> Trajectory:
        return Trajectory.from_evals(self.record.evals(split))

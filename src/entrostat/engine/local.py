"""The embedded engine: one campaign on one machine, from rollout to checkpoint, resumable at any moment.

A resume point is written after every `campaign.checkpoint_every` rollout batches. A killed run goes back to the last
one, forgets what was logged after it, and does the same again: every random number follows from the seed and the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from entrostat.campaign.engine import (
    CampaignTrace,
    Checkpoint,
    Evaluate,
    Listener,
    Order,
    Plan,
    Progress,
    Stop,
    whole_trajectory,
)
from entrostat.engine.anchor import KlAnchor, build_anchor
from entrostat.engine.checkpoint import (
    OPTIMIZER_FILE,
    CheckpointStore,
    load_optimizer,
    load_state,
    verify,
)
from entrostat.engine.evaluate import completion_metrics, evaluate_split, group_metrics, sample_lines
from entrostat.engine.graded import sample_graded
from entrostat.engine.keeper import Keeper
from entrostat.engine.policy import Policy, load_policy
from entrostat.engine.rewards import Advantages
from entrostat.engine.seeds import derived_seed
from entrostat.engine.token_record import token_records
from entrostat.engine.update import Experience, Learner
from entrostat.grading import CodeGrader, Verdict
from entrostat.recipe import Recipe, build_controller
from entrostat.recipe.task_sets import TaskSplits
from entrostat.runs import Run, Trajectory
from entrostat.tasks.sources import AnyTask


class LocalEngine:
    """Runs campaigns of a recipe in this process.

    listener: called with every step line and evaluation line as it is written.
    """

    def __init__(self, recipe: Recipe, tasks: TaskSplits, grader: CodeGrader, listener: Listener | None = None) -> None:
        self.recipe = recipe
        self.tasks = tasks
        self.grader = grader
        self.listener = listener or (lambda _: None)

    def run(self, start: Checkpoint, plan: Plan, decide: Callable[[Progress], Order], record: Run) -> CampaignTrace:
        """Train from `start` for at most plan.budget optimizer steps, evaluating as the recipe and `decide` say.

        Continues from the record's last resume point where there is one; a finished record is returned as it is.
        Raises CheckpointError where `start` is a checkpoint of an earlier campaign and corrupt.
        """
        if self.recipe.threads:
            torch.set_num_threads(self.recipe.threads)
        campaign = _Campaign(self, start, plan, decide, record)
        campaign.train()
        return campaign.trace()


class _Campaign:
    """One campaign under way: the policy, its learner, the run folder and the checkpoints."""

    def __init__(
        self, engine: LocalEngine, start: Checkpoint, plan: Plan, decide: Callable[[Progress], Order], record: Run
    ) -> None:
        self.engine, self.recipe, self.record = engine, engine.recipe, record
        self.plan, self.decide = plan, decide
        self.keeper = Keeper(CheckpointStore(record.checkpoints_dir))
        resume = self.keeper.resume
        source = resume or start
        verify(source)
        self.policy = self._load(source)
        controller = build_controller(self.recipe)
        prompts = [task.prompt for task in engine.tasks.train]
        anchor = build_anchor(self.recipe, start.path, prompts)
        self.learner = Learner(self.policy, self.recipe, controller, anchor, plan.rate)
        self.advantages = Advantages(self.recipe.update)
        self.step, self.finished = 0, False
        self.confirmed: int | None = None
        carried = self.recipe.campaign.optimizer == "carried"
        if resume:
            load_optimizer(resume, self.learner.optimizer)
            self._load_state(load_state(resume))
            self.step = resume.step
            record.rewind(self.step)
        else:
            record.rewind(-1)
            if carried and (start.path / OPTIMIZER_FILE).exists():
                load_optimizer(start, self.learner.optimizer)
        self.with_optimizer = self.learner.optimizer if carried else None
        self._saved: Checkpoint | None = None

    def train(self) -> None:
        """Rollout batches until the budget is spent or the controller says stop."""
        if not self.keeper.resume:
            self._evaluate_on_schedule()
            self.keeper.keep(start=self._save(), peak=self._save())
            self._ask()
            self._save_resume_point()
        interval = self.recipe.campaign.checkpoint_every * self.recipe.update.steps_per_batch
        while not self.finished:
            self._one_batch()
            if self.finished or self.step % interval == 0:
                self._save_resume_point()

    def trace(self) -> CampaignTrace:
        """What the campaign did, and its checkpoints."""
        select = self.record.evals("select")
        tags = self.keeper.store.tags("start", "peak", "end")
        return CampaignTrace(
            select=Trajectory.from_evals(select),
            report=Trajectory.from_evals(self.record.evals("report")),
            start=tags["start"],
            peak=tags["peak"],
            end=tags["end"],
            confirmed=self.confirmed,
            steps=self.record.steps(),
            evals=select,
        )

    def _load(self, checkpoint: Checkpoint) -> Policy:
        return load_policy(checkpoint.path, self.recipe.policy.dtype, self.recipe.policy.device)

    def _one_batch(self) -> None:
        batch = self.step // self.recipe.update.steps_per_batch
        experience, fields = self._collect(batch)
        update = self.recipe.update
        for epoch in range(update.epochs):
            for minibatch, index in enumerate(self._minibatches(batch, epoch)):
                self.step += 1
                self._log_step(experience.rows(index), {"batch": batch, "epoch": epoch, "minibatch": minibatch}, fields)
                fields = {**fields, "tokens": {"rollout": 0}, "seconds": {"rollout": 0.0, "grade": 0.0}}
                self._evaluate_on_schedule()
                self._ask()
                if self.finished:
                    return

    def _ask(self) -> None:
        """Do what the controller orders until it wants to go on or to stop; a spent budget ends the campaign."""
        while isinstance(order := self.decide(self._progress()), Evaluate):
            past = None if order.step == self.step else self.keeper.at(order.step)
            self._evaluate("select", past, (order.first, order.last))
        if isinstance(order, Stop):
            self.confirmed = order.keep
        elif order.keep is not None:
            self.keeper.keep(held=self._kept(order.keep))
        self.finished = isinstance(order, Stop) or self.step == self.plan.budget
        if self.finished:
            self._close()

    def _progress(self) -> Progress:
        return Progress(
            self.step,
            self.plan.budget,
            self.record.steps(),
            self.record.evals("select"),
            tuple(sorted({*self.keeper.steps, self.step})),
            len(self.engine.tasks.select),
        )

    def _evaluate_on_schedule(self) -> None:
        """Evaluate what the recipe wants at this step, and keep the policy if the select split has a new peak."""
        settings = self.recipe.evaluation
        due = settings.every is not None and (self.step % settings.every == 0 or self.step == self.plan.budget)
        if due:
            self._evaluate("select")
        if self.step == 0 or (due and settings.report == "every"):
            self._measure()
        if due and self.step:
            self._keep_new_peak()

    def _keep_new_peak(self) -> None:
        select = whole_trajectory(self.record.evals("select"))
        if select and select.peak_step == self.step:
            self.keeper.keep(peak=self._save())

    def _close(self) -> None:
        """Keep the end, settle the peak, and measure both where they were not."""
        end = self._save()
        if self.confirmed is not None:
            self.keeper.keep(peak=self._kept(self.confirmed))
        else:
            select = whole_trajectory(self.record.evals("select"))
            if select is None or select.steps[-1] != self.step:
                self._evaluate("select")
                self._keep_new_peak()
        self.keeper.keep(end=end)
        measured = {line["step"] for line in self.record.evals("report")}
        for checkpoint in (self.keeper["peak"], end):
            if checkpoint.step not in measured:
                self._measure(checkpoint)
                measured.add(checkpoint.step)

    def _kept(self, step: int) -> Checkpoint:
        """The checkpoint of now or of a kept step."""
        return self._save() if step == self.step else self.keeper.at(step)

    def _save(self) -> Checkpoint:
        """The weights of now on disk, written once a step."""
        if self._saved is None or self._saved.step != self.step:
            self._saved = self.keeper.store.save(self.policy, self.step, self.with_optimizer)
        return self._saved

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
        experience = Experience(rollout, self.advantages(groups))
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

    def _evaluate(self, split: str, checkpoint: Checkpoint | None = None, part: tuple[int, int] | None = None) -> None:
        """Evaluate a split, or tasks part[0] ... part[1] - 1 of it, with the weights of now or of `checkpoint`."""
        past = checkpoint if checkpoint and checkpoint.step != self.step else None
        policy = self._load(past) if past else self.policy
        result = evaluate_split(self.recipe, self.engine.grader, policy, split, getattr(self.engine.tasks, split), part)
        step = past.step if past else self.step
        line = {"step": step, "split": split, **({"at": self.step} if past else {}), **result.line}
        self.record.log_samples(step, split, result.samples)
        self.record.log_eval(line)
        self.engine.listener(line)

    def _measure(self, checkpoint: Checkpoint | None = None) -> None:
        """Evaluate the splits that no decision reads."""
        self._evaluate("report", checkpoint)
        if self.engine.tasks.ood:
            self._evaluate("ood", checkpoint)

    def _save_resume_point(self) -> None:
        """Write everything the run needs to go on from here."""
        learner = self.learner
        state = {
            "controller": learner.controller.state_dict(),
            "advantages": self.advantages.state_dict(),
            "meter": learner.meter.state_dict() if learner.meter else None,
            "anchor": learner.anchor.state_dict() if isinstance(learner.anchor, KlAnchor) else None,
            "finished": self.finished,
            "confirmed": self.confirmed,
        }
        self.keeper.save_resume_point(self.keeper.store.save(self.policy, self.step, learner.optimizer, state))

    def _load_state(self, state: dict[str, Any]) -> None:
        learner = self.learner
        learner.controller.load_state_dict(state["controller"])
        self.advantages.load_state_dict(state["advantages"])
        if learner.meter:
            learner.meter.load_state_dict(state["meter"])
        if isinstance(learner.anchor, KlAnchor):
            learner.anchor.load_state_dict(state["anchor"])
        self.finished, self.confirmed = state["finished"], state["confirmed"]

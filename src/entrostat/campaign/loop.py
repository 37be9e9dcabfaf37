"""The course of one campaign: when it is evaluated, which weights are kept, how a killed one resumes, how it ends.

A trainer takes part as its `Host`. One that trains when it is asked (`SteppingHost`: the embedded engine, verl) is
driven by `CampaignLoop.run`; one with a loop of its own (TRL) calls `begin` or `go_on`, `stepped` after each of its
steps until the campaign is `over`, `save_resume_point` where it can resume, and `close`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from entrostat.campaign.checkpoints import END, PEAK, START, CheckpointStore, Keeper, Write
from entrostat.campaign.engine import (
    CampaignTrace,
    Checkpoint,
    Evaluate,
    GoOn,
    Line,
    Listener,
    Order,
    Plan,
    Progress,
    Stop,
    whole_trajectory,
)
from entrostat.runs import Run, Trajectory

EVERYTHING = slice(None)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a campaign is evaluated.

    every: steps from one evaluation of the select split to the next, None for none but those that the controller
    orders. report: `peak` measures the other splits at the start, the peak and the end; `every` also with each
    evaluation that is due. ValueError: every below 1, or another report.
    """

    every: int | None = 1
    report: Literal["peak", "every"] = "peak"

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise ValueError(f"every is {self.every}; give at least 1, or None")
        if self.report not in ("peak", "every"):
            raise ValueError(f"report is {self.report!r}; choose 'peak' or 'every'")


class Host(Protocol):
    """A trainer between two of its optimizer steps. Its current step is the last one done."""

    @property
    def split(self) -> int:
        """Tasks of the select split."""
        ...

    @property
    def measured(self) -> Sequence[str]:
        """The splits that no decision reads: "report" and, where there is one, "ood"."""
        ...

    def save(self, to: Checkpoint) -> None:
        """Write the current weights, which are those of to.step, to the new folder to.path."""
        ...

    def evaluate(self, split: str, part: slice, weights: Checkpoint | None) -> Mapping[str, Any]:
        """Evaluate the tasks `part` of a split with the current weights, or with ones that it saved; training then
        continues with the current weights.

        The fields of an evaluation line: results, [task id, n, passed] per task, and whatever else was measured.
        `samples` are completions to keep.
        """
        ...


class SteppingHost(Host, Protocol):
    """A host that trains when it is asked."""

    def step(self) -> Line:
        """Take the next optimizer step; its line, with its `step`."""
        ...

    def resumable(self, step: int) -> bool:
        """Whether a resume point is due now that `step` is done."""
        ...

    def save_resume_point(self, to: Checkpoint) -> None:
        """Write what is needed to resume from here to the new folder to.path, or where it is found."""
        ...


class CampaignLoop:
    """One campaign under way, new or resumed.

    listener: called with every step line and evaluation line as it is written. extendable: keep the last resume point
    of a campaign that used all its steps. RunError: see `Keeper`.
    """

    host: Host

    def __init__(
        self,
        record: Run,
        plan: Plan,
        decide: Callable[[Progress], Order],
        schedule: Schedule,
        listener: Listener | None = None,
        extendable: bool = False,
    ) -> None:
        self.record, self.plan, self.decide, self.schedule = record, plan, decide, schedule
        self.extendable = extendable
        self.listener = listener or (lambda _: None)
        self.keeper = Keeper(CheckpointStore(record.checkpoints_dir))
        self.now = 0
        self.order: Order | None = None
        self._steps: list[dict[str, Any]] = []  # as they are in the record, which only this loop writes
        self._evals: list[dict[str, Any]] = []  # of the select split
        self._saved: Checkpoint | None = None

    @property
    def resume(self) -> Checkpoint | None:
        """The resume point of a campaign that was killed."""
        return self.keeper.resume

    @property
    def finished(self) -> bool:
        """Whether the campaign was closed: then only `trace` is left to do."""
        return self.keeper.finished

    @property
    def over(self) -> bool:
        """Whether there is no further step to train."""
        return isinstance(self.order, Stop) or self.now == self.plan.budget

    def run(self, host: SteppingHost, resume: int | None) -> None:
        """Train to the end; resume: the step of the resume point that the host has loaded, None for the start."""
        if resume is None:
            self.begin(host)
            self._save_resume_point_if_due(host)
        else:
            self.go_on(host, resume)
        while not self.over:
            self.stepped(host.step())
            self._save_resume_point_if_due(host)
        self.close()

    def begin(self, host: Host) -> None:
        """From the start, which the host has loaded."""
        self.host = host
        self.record.rewind(-1)
        self._steps, self._evals = [], []
        self.keeper.return_to(None)
        self._evaluate_on_schedule()
        start = self._save()
        self.keeper.keep(start=start, peak=start)
        self._ask()

    def go_on(self, host: Host, step: int) -> None:
        """From the weights of `step`, which the host has loaded; see `Keeper.return_to`."""
        self.host, self.now = host, step
        self.record.rewind(step)
        self._steps, self._evals = self.record.steps(), self.record.evals("select")
        self.keeper.return_to(step)
        self._ask()

    def stepped(self, line: Line) -> None:
        """Record the line of an optimizer step of the host, evaluate if that is due, and ask the controller."""
        self.now = line["step"]
        self.record.log_step(line)
        self._steps.append(_as_read(line))
        self.listener(dict(line))
        self._evaluate_on_schedule()
        self._ask()

    def save_resume_point(self, write: Write) -> None:
        """A killed campaign resumes from here, with what `write` writes."""
        self.keeper.save_resume_point(write, self.now)

    def close(self) -> None:
        """Settle the peak and the end, and measure both where they were not."""
        confirmed = self.order.keep if isinstance(self.order, Stop) else None
        if confirmed is not None:
            self.keeper.keep(peak=self._kept(confirmed))
        else:
            select = whole_trajectory(self._evals)
            if select is None or select.steps[-1] != self.now:
                self._evaluate("select")
                self._keep_new_peak()
        end = self._save()
        self.keeper.keep(held=end)
        for step in (self.keeper[PEAK].step, end.step):
            for split in self.host.measured:
                if step not in {line["step"] for line in self.record.evals(split)}:
                    self._evaluate(split, step)
        self.keeper.settle(end, confirmed is not None, self.extendable and self.now == self.plan.budget)

    def trace(self) -> CampaignTrace:
        """What a closed campaign did, and its checkpoints."""
        select = self.record.evals("select")
        return CampaignTrace(
            select=Trajectory.from_evals(select),
            report=Trajectory.from_evals(self.record.evals("report")),
            start=self.keeper[START],
            peak=self.keeper[PEAK],
            end=self.keeper[END],
            confirmed=self.keeper.confirmed,
            steps=self.record.steps(),
            evals=select,
        )

    def _ask(self) -> None:
        """Do what the controller orders until it continues or stops."""
        while isinstance(order := self.decide(self._progress()), Evaluate):
            self._evaluate("select", order.step, slice(order.first, order.last))
        self.order = order
        if isinstance(order, GoOn) and order.keep is not None:
            self.keeper.keep(held=self._kept(order.keep))

    def _progress(self) -> Progress:
        kept = tuple(sorted({*self.keeper.steps, self.now}))
        return Progress(self.now, self.plan.budget, self._steps[:], self._evals[:], kept, self.host.split)

    def _evaluate_on_schedule(self) -> None:
        """Evaluate what is due at this step, and keep the weights if the select split has a new peak."""
        every = self.schedule.every
        due = every is not None and (self.now % every == 0 or self.now == self.plan.budget)
        if due:
            self._evaluate("select")
        if self.now == 0 or (due and self.schedule.report == "every"):
            for split in self.host.measured:
                self._evaluate(split)
        if due and self.now:
            self._keep_new_peak()

    def _save_resume_point_if_due(self, host: SteppingHost) -> None:
        if not self.over and host.resumable(self.now):
            self.save_resume_point(lambda folder: host.save_resume_point(Checkpoint(folder, self.now)))

    def _keep_new_peak(self) -> None:
        select = whole_trajectory(self._evals)
        if select and select.peak_step == self.now:
            self.keeper.keep(peak=self._save())

    def _evaluate(self, split: str, step: int | None = None, part: slice = EVERYTHING) -> None:
        """Evaluate a part of a split with the current weights, or those of a kept step."""
        past = None if step in (None, self.now) else self.keeper.at(step)
        found = dict(self.host.evaluate(split, part, past))
        at = past.step if past else self.now
        late = {"at": self.now} if past else {}
        tasks = {} if part == EVERYTHING else {"tasks": [part.start, part.stop]}
        if samples := found.pop("samples", None):
            self.record.log_samples(at, split, samples)
        line = {"step": at, "split": split, **late, **tasks, **found}
        self.record.log_eval(line)
        if split == "select":
            self._evals.append(_as_read(line))
        self.listener(line)

    def _kept(self, step: int) -> Checkpoint:
        """The checkpoint of the current step, or of a kept one."""
        return self.keeper.at(step) if step in self.keeper.steps or step != self.now else self._save()

    def _save(self) -> Checkpoint:
        """The current weights on disk, written once per step."""
        if self._saved is None or self._saved.step != self.now or not self._saved.path.exists():
            self._saved = self.keeper.store.save(lambda folder: self.host.save(Checkpoint(folder, self.now)), self.now)
        return self._saved


def _as_read(line: Line) -> dict[str, Any]:
    """A line as it is read from the record."""
    read: dict[str, Any] = json.loads(json.dumps(line))
    return read

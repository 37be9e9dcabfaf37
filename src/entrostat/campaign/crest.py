"""crest: stop and roll back inside a campaign, warned by signals of the update itself, confirmed by few evaluations.

A campaign is watched through three numbers that each optimizer step yields for nothing:
    KL to the policy that sampled, nats a token   above `kl`
    share of ratios outside .8 ... 1.2            above `outside`
    lowest log-ratio of a punished token          below `log_ratio`
`votes` of them within the last `window` steps are a warning. A warning says where to look, it decides nothing: the
weights of `lag` steps before and those of now are compared on the select split, `block` tasks at a time, until a paired
test tells them apart. Worse now: the campaign stops and hands over the better. Else it goes on, and looks again at
the next warning. Without a warning the end alone is compared, with the start: so it is where every batch serves one
step, for there all ratios are 1.

What is carried on: the learning rate at which a fall was confirmed is the border that later campaigns stay below, and
which each campaign without a fall moves up a little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from entrostat.campaign.engine import CampaignTrace, Checkpoint, Evaluate, GoOn, Line, Order, Plan, Progress, Stop
from entrostat.campaign.stopping import StopRule, at_least_one

Results = Mapping[str, float]  # task: share of its samples that are correct


@dataclass(frozen=True, slots=True)
class Comparison:
    """A later step against an earlier one: mean difference of pass@1 over the tasks that both were evaluated on."""

    mean: float
    error: float
    tasks: int


@dataclass(frozen=True, slots=True)
class Crest(StopRule):
    """`crest`, as the module says. Every number is a setting.

    z: standard errors at which the paired test decides before the split is used up; at its end the sign decides.
    margin: share of the learning rate before a confirmed fall that is the next campaigns' most; recovery: factor on
    that border after each campaign without a fall. A campaign on which nothing falls hands over its end.
    ValueError: a setting out of its range.
    """

    kl: float = 0.03
    outside: float = 0.05
    log_ratio: float = -3.0
    votes: int = 2
    window: int = 2
    lag: int = 4
    block: int = 16
    z: float = 2.0
    margin: float = 0.8
    recovery: float = 1.1
    steps: int = 20

    def __post_init__(self) -> None:
        for field in ("votes", "window", "lag", "block", "steps"):
            at_least_one(field, getattr(self, field))
        if self.log_ratio >= 0 or self.votes > 3:
            raise ValueError(f"log_ratio {self.log_ratio}, votes {self.votes}; give log_ratio < 0 and votes of 1 to 3")
        if min(self.kl, self.outside, self.z, self.margin) <= 0 or self.recovery < 1:
            raise ValueError(f"{self}: give kl, outside, z and margin above 0, recovery of at least 1")

    def plan(self, history: Sequence[CampaignTrace]) -> Plan:
        """A whole campaign at the learning rate that the confirmed falls allow."""
        rate = self.rate(history)
        cause = None if rate == 1 else f"crest: falls so far keep the learning rate at {rate:.2f} of the recipe's"
        return Plan(self.steps, rate, ring=self.lag + 1, cause=cause)

    def rate(self, history: Sequence[CampaignTrace]) -> float:
        """Factor on the recipe's learning rate: margin x the rate before the last fall, then x recovery a campaign."""
        rate = 1.0
        for trace in history:
            if trace.confirmed is not None and trace.confirmed < trace.steps_used:
                most = max(line["lr"] for line in trace.steps)
                reached = next((line["lr"] for line in trace.steps if line["step"] == max(trace.confirmed, 1)), most)
                rate *= self.margin * reached / most
            else:
                rate = min(1.0, rate * self.recovery)
        return rate

    def decide(self, progress: Progress, history: Sequence[CampaignTrace]) -> Order:
        """Look where a warning says so, and at the end."""
        if progress.step == 0:
            return GoOn()
        looks = self._looks(progress)
        at_end = progress.step == progress.budget
        if not at_end and progress.step not in looks:
            return GoOn()
        before = max([step for step in (0, *looks) if step < progress.step], default=0)
        if progress.step in looks:
            held = [step for step in progress.kept if step <= progress.step - self.lag]
            before = max([before, *held])
        found = self._compared(progress, history, before, progress.step)
        if isinstance(found, Evaluate):
            return found
        if found.mean < 0:
            return Stop(
                before,
                f"crest: step {progress.step} is {found.mean:+.3f} +- {found.error:.3f} against step {before} "
                f"on {found.tasks} tasks",
            )
        return Stop(progress.step, "crest: the end holds") if at_end else GoOn()

    def hand_over(self, trace: CampaignTrace) -> Checkpoint:
        """The step that the last comparison preferred."""
        return trace.peak

    def lesson(self, trace: CampaignTrace, history: Sequence[CampaignTrace]) -> Mapping[str, Any]:
        """What the campaign taught about the onset, as a decision line of kind `onset`."""
        warned = [int(line["step"]) for line in trace.steps if self._warned(trace.steps, int(line["step"]))]
        fell = trace.confirmed is not None and trace.confirmed < trace.steps_used
        return {
            "kind": "onset",
            "cause": f"crest: {'a fall' if fell else 'no fall'}, {len(warned)} steps warned",
            "first_warning": warned[0] if warned else None,
            "confirmed": trace.confirmed,
            "next_rate": self.rate([*history, trace]),
        }

    def _looks(self, progress: Progress) -> list[int]:
        """The steps up to now at which a warning calls for a look: `lag` steps or more apart."""
        found: list[int] = []
        for step in range(self.lag, progress.step + 1):
            if (not found or step >= found[-1] + self.lag) and self._warned(progress.steps, step):
                found.append(step)
        return found

    def _warned(self, lines: Sequence[Line], step: int) -> bool:
        recent = [line for line in lines if step - self.window < line["step"] <= step]
        kl = max((line.get("kl") or 0.0 for line in recent), default=0.0)
        outside = max((line.get("ratio_outside") or 0.0 for line in recent), default=0.0)
        lowest = min((line.get("log_ratio_min_punished") or 0.0 for line in recent), default=0.0)
        return (kl > self.kl) + (outside > self.outside) + (lowest < self.log_ratio) >= self.votes

    def _compared(
        self, progress: Progress, history: Sequence[CampaignTrace], earlier: int, later: int
    ) -> Comparison | Evaluate:
        """The comparison of two steps, or the evaluation that it still needs."""
        one, other = (self._results(progress, history, step) for step in (earlier, later))
        for done in range(0, progress.split, self.block):
            end = min(done + self.block, progress.split)
            for step, results in ((earlier, one), (later, other)):
                if len(results) < end:
                    return Evaluate(step, len(results), end)
            found = _compare(one, other, end)
            if abs(found.mean) > self.z * found.error:
                break
        return found

    def _results(self, progress: Progress, history: Sequence[CampaignTrace], step: int) -> Results:
        """What is known of a step; of the start also what the campaign before measured of the same weights."""
        lines = [line for line in progress.evals if line["step"] == step]
        if step == 0 and not lines and history:
            lines = [line for line in history[-1].evals if line["step"] == history[-1].peak.step]
        return {task: c / n for line in lines for task, n, c in line["results"]}


def _compare(earlier: Results, later: Results, tasks: int) -> Comparison:
    names = list(earlier)[:tasks]
    differences = [later[name] - earlier[name] for name in names]
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    return Comparison(fmean(differences), error, len(differences))

"""crest: stop and roll back within a campaign, on warnings by the update's own signals, confirmed by few evaluations.

A campaign is monitored by three numbers that each optimizer step provides at no cost:
    KL to the policy that sampled, nats per token   above `kl`
    share of ratios outside .8 ... 1.2              above `outside`
    lowest log-ratio of a punished token            below `log_ratio`
`votes` of them within the last `window` steps are a warning. A warning triggers a comparison and decides nothing: the
current weights are compared with the champion, the best of the campaign so far, on the select split, `block` tasks at a
time, while the current weights look worse and a paired test is not sure of it. If they are not worse, they become the
champion. If they are worse, the campaign stops and hands over the champion: at once if the test is sure, else if the
next comparison has the same result. Without a warning only the end is compared, with the start; this is always the case
with one step per batch, where all ratios are 1.

Later campaigns use a limit on the learning rate: its value half-way between the champion and the stop, slightly
raised after each campaign without a fall.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from entrostat.campaign.engine import CampaignTrace, Checkpoint, Evaluate, GoOn, Line, Order, Plan, Progress, Stop
from entrostat.campaign.stopping import StopRule, at_least_one, campaign_rule

Results = Mapping[str, float]  # task -> share of its samples that are correct


@dataclass(frozen=True, slots=True)
class Comparison:
    """A later step minus an earlier one: mean difference of pass@1 over the tasks on which both were evaluated."""

    mean: float
    error: float
    tasks: int


@campaign_rule("crest")
@dataclass(frozen=True, slots=True)
class Crest(StopRule):
    """`crest`, as described at the top of the module. Every number is a setting.

    spacing: minimum steps between two comparisons. z: standard errors at which the paired test is sure of a fall.
    looks: consecutive worse comparisons that end the campaign without a sure test. margin: share of the limit that is
    the highest learning rate of the next campaigns; recovery: factor on it after each campaign without a fall.
    Raises ValueError for a setting out of its range.
    """

    kl: float = 0.03
    outside: float = 0.05
    log_ratio: float = -3.0
    votes: int = 2
    window: int = 2
    spacing: int = 4
    block: int = 16
    z: float = 2.0
    looks: int = 2
    margin: float = 0.8
    recovery: float = 1.1
    steps: int = 20

    def __post_init__(self) -> None:
        for field in ("votes", "window", "spacing", "block", "looks", "steps"):
            at_least_one(field, getattr(self, field))
        if self.log_ratio >= 0 or self.votes > 3:
            raise ValueError(f"log_ratio {self.log_ratio}, votes {self.votes}; give log_ratio < 0 and votes of 1 to 3")
        if min(self.kl, self.outside, self.z, self.margin) <= 0 or self.recovery < 1:
            raise ValueError(f"{self}: give kl, outside, z and margin above 0, recovery of at least 1")

    def plan(self, history: Sequence[CampaignTrace]) -> Plan:
        """A full campaign at the learning rate that the confirmed falls allow."""
        rate = self.rate(history)
        cause = None if rate == 1 else f"crest: falls so far keep the learning rate at {rate:.2f} of the recipe's"
        return Plan(self.steps, rate, cause=cause)

    def rate(self, history: Sequence[CampaignTrace]) -> float:
        """Factor on the recipe's learning rate: margin x the limit of the last fall, then x recovery per campaign."""
        rate = 1.0
        for trace in history:
            if trace.confirmed is not None and trace.confirmed < trace.steps_used:
                most = max(line["lr"] for line in trace.steps)
                halfway = math.ceil((trace.confirmed + trace.steps_used) / 2)
                rate *= self.margin * next(line["lr"] for line in trace.steps if line["step"] == halfway) / most
            else:
                rate = min(1.0, rate * self.recovery)
        return rate

    def decide(self, progress: Progress, history: Sequence[CampaignTrace]) -> Order:
        """Compare after each warning, and at the end."""
        champion, worse = 0, 0
        for step in self._looks(progress):
            comparison = self._compared(progress, history, champion, step)
            if isinstance(comparison, Evaluate):
                return comparison
            worse = 0 if comparison.mean >= 0 else worse + 1
            if worse == self.looks or comparison.mean < -self.z * comparison.error:
                return Stop(
                    champion,
                    f"crest: step {step} is {comparison.mean:+.3f} +- {comparison.error:.3f} against step {champion} "
                    f"on {comparison.tasks} tasks",
                )
            if not worse:
                champion = step
        return Stop(champion, f"crest: at the end step {champion} is the best") if _at_end(progress) else GoOn(champion)

    def hand_over(self, trace: CampaignTrace) -> Checkpoint:
        """The champion."""
        return trace.peak

    def lesson(self, trace: CampaignTrace, history: Sequence[CampaignTrace]) -> Mapping[str, Any]:
        """What the campaign showed about the onset, as a decision line of kind `onset`."""
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
        """The steps so far whose warning requires a comparison, at least `spacing` steps apart, and the end."""
        looks: list[int] = []
        for step in range(self.spacing, progress.step + 1):
            if (not looks or step >= looks[-1] + self.spacing) and self._warned(progress.steps, step):
                looks.append(step)
        return sorted({*looks, progress.step}) if _at_end(progress) else looks

    def _warned(self, lines: Sequence[Line], step: int) -> bool:
        recent = [line for line in lines if step - self.window < line["step"] <= step]
        kl = max((line.get("kl_old") or 0.0 for line in recent), default=0.0)
        outside = max((line.get("ratio_outside") or 0.0 for line in recent), default=0.0)
        lowest = min((line.get("log_ratio_min_punished") or 0.0 for line in recent), default=0.0)
        return (kl > self.kl) + (outside > self.outside) + (lowest < self.log_ratio) >= self.votes

    def _compared(
        self, progress: Progress, history: Sequence[CampaignTrace], earlier: int, later: int
    ) -> Comparison | Evaluate:
        """The comparison of two steps, or the evaluation that is still missing for it."""
        one, other = (_results(progress.evals, history, step) for step in (earlier, later))
        for done in range(0, progress.split, self.block):
            end = min(done + self.block, progress.split)
            for step, results in ((earlier, one), (later, other)):
                if len(results) < end:
                    return Evaluate(step, len(results), end)
            comparison = _compare(one, other, end)
            if comparison.mean >= 0 or comparison.mean < -self.z * comparison.error:
                break
        return comparison


def _results(evals: Sequence[Line], history: Sequence[CampaignTrace], step: int) -> Results:
    """The known results of a step; for the start, also those of earlier campaigns with the same weights."""
    known: dict[str, float] = {}
    if step == 0 and history:
        known |= _results(history[-1].evals, history[:-1], history[-1].peak.step)
    return known | {task: c / n for line in evals if line["step"] == step for task, n, c in line["results"]}


def _compare(earlier: Results, later: Results, tasks: int) -> Comparison:
    names = list(earlier)[:tasks]
    differences = [later[name] - earlier[name] for name in names]
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    return Comparison(fmean(differences), error, len(differences))


def _at_end(progress: Progress) -> bool:
    return 0 < progress.step == progress.budget

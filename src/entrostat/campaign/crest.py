"""crest: stop and roll back inside a campaign, warned by signals of the update itself, confirmed by few evaluations.

A campaign is watched through three numbers that each optimizer step yields for nothing:
    KL to the policy that sampled, nats a token   above `kl`
    share of ratios outside .8 ... 1.2            above `outside`
    lowest log-ratio of a punished token          below `log_ratio`
`votes` of them within the last `window` steps are a warning. A warning says where to look, it decides nothing: the
weights of now are compared with the champion, the best of the campaign so far, on the select split, `block` tasks at a
time, for as long as now looks worse and a paired test is not sure of it. Not worse: now is the champion. Worse: the
campaign stops and hands over the champion, at once where the test is sure, else when the next look finds the same.
Without a warning the end alone is compared, with the start: so it is where every batch serves one step, for there all
ratios are 1.

What is carried on: the learning rate half-way between the champion and the stop is the border that later campaigns stay
below, and which each campaign without a fall moves up a little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from entrostat.campaign.engine import CampaignTrace, Checkpoint, Evaluate, GoOn, Line, Order, Plan, Progress, Stop
from entrostat.campaign.stopping import StopRule, at_least_one, campaign_rule

Results = Mapping[str, float]  # task: share of its samples that are correct


@dataclass(frozen=True, slots=True)
class Comparison:
    """A later step against an earlier one: mean difference of pass@1 over the tasks that both were evaluated on."""

    mean: float
    error: float
    tasks: int


@campaign_rule("crest")
@dataclass(frozen=True, slots=True)
class Crest(StopRule):
    """`crest`, as the module says. Every number is a setting.

    spacing: least steps between two looks. z: standard errors at which the paired test is sure of a fall. looks: how
    many worse ones in a row end the campaign, where no test was sure. margin: share of the border that is the next
    campaigns' highest learning rate; recovery: factor on it after each campaign without a fall.
    ValueError: a setting out of its range.
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
        """A whole campaign at the learning rate that the confirmed falls allow."""
        rate = self.rate(history)
        cause = None if rate == 1 else f"crest: falls so far keep the learning rate at {rate:.2f} of the recipe's"
        return Plan(self.steps, rate, cause=cause)

    def rate(self, history: Sequence[CampaignTrace]) -> float:
        """Factor on the recipe's learning rate: margin x the border of the last fall, then x recovery a campaign."""
        rate = 1.0
        for trace in history:
            if trace.confirmed is not None and trace.confirmed < trace.steps_used:
                most = max(line["lr"] for line in trace.steps)
                border = math.ceil((trace.confirmed + trace.steps_used) / 2)
                rate *= self.margin * next(line["lr"] for line in trace.steps if line["step"] == border) / most
            else:
                rate = min(1.0, rate * self.recovery)
        return rate

    def decide(self, progress: Progress, history: Sequence[CampaignTrace]) -> Order:
        """Look where a warning says so, and at the end."""
        champion, worse = 0, 0
        for step in self._looks(progress):
            found = self._compared(progress, history, champion, step)
            if isinstance(found, Evaluate):
                return found
            worse = 0 if found.mean >= 0 else worse + 1
            if worse == self.looks or found.mean < -self.z * found.error:
                return Stop(
                    champion,
                    f"crest: step {step} is {found.mean:+.3f} +- {found.error:.3f} against step {champion} "
                    f"on {found.tasks} tasks",
                )
            if not worse:
                champion = step
        return Stop(champion, f"crest: at the end step {champion} is the best") if _at_end(progress) else GoOn(champion)

    def hand_over(self, trace: CampaignTrace) -> Checkpoint:
        """The champion."""
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
        """The steps up to now at which a warning calls for a look, `spacing` steps or more apart, and the end."""
        found: list[int] = []
        for step in range(self.spacing, progress.step + 1):
            if (not found or step >= found[-1] + self.spacing) and self._warned(progress.steps, step):
                found.append(step)
        return sorted({*found, progress.step}) if _at_end(progress) else found

    def _warned(self, lines: Sequence[Line], step: int) -> bool:
        recent = [line for line in lines if step - self.window < line["step"] <= step]
        kl = max((line.get("kl_old") or 0.0 for line in recent), default=0.0)
        outside = max((line.get("ratio_outside") or 0.0 for line in recent), default=0.0)
        lowest = min((line.get("log_ratio_min_punished") or 0.0 for line in recent), default=0.0)
        return (kl > self.kl) + (outside > self.outside) + (lowest < self.log_ratio) >= self.votes

    def _compared(
        self, progress: Progress, history: Sequence[CampaignTrace], earlier: int, later: int
    ) -> Comparison | Evaluate:
        """The comparison of two steps, or the evaluation that it still needs."""
        one, other = (_results(progress.evals, history, step) for step in (earlier, later))
        for done in range(0, progress.split, self.block):
            end = min(done + self.block, progress.split)
            for step, results in ((earlier, one), (later, other)):
                if len(results) < end:
                    return Evaluate(step, len(results), end)
            found = _compare(one, other, end)
            if found.mean >= 0 or found.mean < -self.z * found.error:
                break
        return found


def _results(evals: Sequence[Line], history: Sequence[CampaignTrace], step: int) -> Results:
    """What is known of a step; of the start also what the campaigns before measured of the same weights."""
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

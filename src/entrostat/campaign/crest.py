"""crest: stop and roll back within a campaign, by few comparisons of held-out tasks; a hand-over bounds its loss.

The current weights are compared with the champion, the best of the campaign so far, on the select split, `block` tasks
at a time, in blocks whose order is drawn at random for each campaign. With d the paired differences of pass@1 by task,
and their mean and standard error after two more tasks of +1 and -1 (so that equal results of few tasks prove nothing),

    worse         mean + t error < 0         the campaign stops and hands over the champion
    not inferior  mean - t error > -loss     the current weights become the champion
    else          the next block; after the last the champion stays, and after `looks` such comparisons in a row
                  with mean < 0 the campaign stops

t is Student's quantile at `alpha`, divided by the number of blocks (Bonferroni), so each of the two errors, to stop
sound weights and to hand over weights that lost more than `loss`, has at most the probability `alpha` per comparison.

When to compare: at the end, and every `spacing` steps (`signals` False) or where the updates warn (True), by
    KL to the policy that sampled, nats per token   above `kl`: of the ratio, or of sampler and trainer (`kl_sampler`)
    share of ratios outside .8 ... 1.2              above `outside`
    lowest log-ratio of a punished token            below `log_ratio`
`votes` of these within the last `window` steps are a warning, if at least one of them has also grown: more than
`growth` times its median so far, each divided by the square of its learning rate (the log-ratio by the rate), which
alone makes it grow. With one step per batch all ratios are 1, and only a mismatch warns.

Later campaigns use a limit on the learning rate: its value half-way between the champion and the stop, slightly
raised after each campaign without a fall.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from scipy.stats import t as student

from entrostat.campaign.engine import CampaignTrace, Checkpoint, Evaluate, GoOn, Line, Order, Plan, Progress, Stop
from entrostat.campaign.stopping import StopRule, at_least_one, campaign_rule

KL, OUTSIDE, LOG_RATIO = "kl", "outside", "log_ratio"
GROWS_WITH_RATE = {KL: 2, OUTSIDE: 2, LOG_RATIO: 1}  # the power of the learning rate by which a signal grows


@dataclass(frozen=True, slots=True)
class Comparison:
    """A later step against an earlier one: the mean difference of pass@1 by task, and what is known of it.

    low, high: confidence bounds of the mean, each at the level of its own test.
    """

    mean: float
    low: float
    high: float
    tasks: int

    @property
    def worse(self) -> bool:
        """Whether the later step is surely worse."""
        return self.high < 0


@campaign_rule("crest")
@dataclass(frozen=True, slots=True)
class Crest(StopRule):
    """`crest`, as described at the top of the module. Every number is a setting.

    spacing: minimum steps between two comparisons. looks: consecutive doubtful comparisons with a lower mean that end
    the campaign. margin: share of the limit that is the highest learning rate of the next campaigns; recovery: factor
    on it after each campaign without a fall. Raises ValueError for a setting out of its range.
    """

    signals: bool = False
    kl: float = 0.03
    outside: float = 0.05
    log_ratio: float = -3.0
    votes: int = 2
    window: int = 2
    growth: float = 1.5
    spacing: int = 5
    block: int = 16
    alpha: float = 0.05
    loss: float = 0.1
    looks: int = 2
    margin: float = 0.8
    recovery: float = 1.1
    steps: int = 20

    def __post_init__(self) -> None:
        for field in ("votes", "window", "spacing", "block", "looks", "steps"):
            at_least_one(field, getattr(self, field))
        if self.log_ratio >= 0 or self.votes > 3:
            raise ValueError(f"log_ratio {self.log_ratio}, votes {self.votes}; give log_ratio < 0 and votes of 1 to 3")
        if min(self.kl, self.outside, self.growth, self.margin) <= 0 or self.recovery < 1:
            raise ValueError(f"{self}: give kl, outside, growth and margin above 0, recovery of at least 1")
        if not (0 < self.alpha < 0.5 and 0 < self.loss < 1):
            raise ValueError(f"alpha {self.alpha}, loss {self.loss}; give alpha in (0, .5) and loss in (0, 1)")

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
        """Compare where a comparison is due, and at the end."""
        champion, doubtful = 0, 0
        for step in self._looks(progress):
            comparison = self._compared(progress, history, champion, step)
            if isinstance(comparison, Evaluate):
                return comparison
            accepted = comparison.low > -self.loss
            doubtful = doubtful + 1 if comparison.mean < 0 and not accepted else 0
            if comparison.worse or doubtful == self.looks:
                return Stop(
                    champion,
                    f"crest: step {step} is {comparison.mean:+.3f} [{comparison.low:+.3f}, {comparison.high:+.3f}] "
                    f"against step {champion} on {comparison.tasks} tasks",
                )
            if accepted:
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
        """The steps so far at which the weights are compared, at least `spacing` steps apart, and the end."""
        looks: list[int] = []
        for step in range(self.spacing, progress.step + 1):
            due = not looks or step >= looks[-1] + self.spacing
            if due and (not self.signals or self._warned(progress.steps, step)):
                looks.append(step)
        return sorted({*looks, progress.step}) if _at_end(progress) else looks

    def _warned(self, lines: Sequence[Line], step: int) -> bool:
        """Whether enough signals are beyond their limits, one of them more than its learning rate explains."""
        limits = {KL: self.kl, OUTSIDE: self.outside, LOG_RATIO: -self.log_ratio}
        now = self._highest(lines, step)
        loud = [name for name, value in now.items() if value > limits[name]]
        return len(loud) >= self.votes and any(self._grown(name, lines, step) for name in loud)

    def _grown(self, name: str, lines: Sequence[Line], step: int) -> bool:
        """Whether a signal by its power of the learning rate is above `growth` times its median of earlier windows."""

        def own(end: int) -> float:
            return self._highest(lines, end)[name] / math.pow(lines[end - 1]["lr"], GROWS_WITH_RATE[name])

        past = [own(end) for end in range(self.window, step - self.window + 1)]
        return not past or own(step) > self.growth * median(past)

    def _highest(self, lines: Sequence[Line], step: int) -> dict[str, float]:
        """Each signal at its highest of the last `window` steps up to `step`."""
        recent = [line for line in lines if step - self.window < line["step"] <= step]

        def highest(*names: str) -> float:
            return max((abs(line.get(name) or 0.0) for line in recent for name in names), default=0.0)

        return {
            KL: highest("kl_old", "kl_sampler"),
            OUTSIDE: highest("ratio_outside"),
            LOG_RATIO: max(-(line.get("log_ratio_min_punished") or 0.0) for line in recent) if recent else 0.0,
        }

    def _compared(
        self, progress: Progress, history: Sequence[CampaignTrace], earlier: int, later: int
    ) -> Comparison | Evaluate:
        """The comparison of two steps, or the evaluation that is still missing for it."""
        one, other = (_results(progress, history, step) for step in (earlier, later))
        blocks = self._blocks(progress.split, len(history))
        level = 1 - self.alpha / len(blocks)
        tasks: list[int] = []
        for first, last in blocks:
            for step, results in ((earlier, one), (later, other)):
                if not all(task in results for task in range(first, last)):
                    return Evaluate(step, first, last)
            tasks += range(first, last)
            comparison = compare([one[task] for task in tasks], [other[task] for task in tasks], level)
            if comparison.worse or comparison.low > -self.loss:
                break
        return comparison

    def _blocks(self, split: int, campaign: int) -> list[tuple[int, int]]:
        """The first and last task of each block of the select split, in the campaign's own random order."""
        blocks = [(first, min(first + self.block, split)) for first in range(0, split, self.block)]
        random.Random(campaign).shuffle(blocks)
        return blocks


def compare(earlier: Sequence[float], later: Sequence[float], level: float) -> Comparison:
    """The comparison of a step with an earlier one, from the share of right samples of the same n tasks at both.

    d = later - earlier by task. With two more tasks of +1 and -1, so that n equal results do not count as certainty:
        mean = sum d / (n + 2)      error^2 = ((sum d^2 + 2) / (n + 2) - mean^2) / (n + 2)
    low, high: mean -+ t error, t the quantile of Student's distribution with n + 1 degrees of freedom at `level`.
    `mean` of the result is the plain one, sum d / n.
    """
    differences = [b - a for a, b in zip(earlier, later, strict=True)]
    count = len(differences) + 2
    mean = sum(differences) / count
    error = math.sqrt(((sum(d * d for d in differences) + 2) / count - mean**2) / count)
    reach = float(student.ppf(level, count - 1)) * error
    return Comparison(sum(differences) / len(differences), mean - reach, mean + reach, len(differences))


def _results(progress: Progress, history: Sequence[CampaignTrace], step: int) -> dict[int, float]:
    """The share of right samples by task, where it is known; of the start also from earlier campaigns' hand-overs."""
    known = _by_task(progress.evals, step)
    before = step == 0
    for trace in reversed(history):
        if not before:
            break
        known = _by_task(trace.evals, trace.peak.step) | known
        before = trace.peak.step == 0
    return known


def _by_task(evals: Sequence[Line], step: int) -> dict[int, float]:
    return {
        task: passed / samples
        for line in evals
        if line["step"] == step
        for task, (_, samples, passed) in enumerate(line["results"], start=(line.get("tasks") or (0,))[0])
    }


def _at_end(progress: Progress) -> bool:
    return 0 < progress.step == progress.budget

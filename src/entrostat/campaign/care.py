"""CARE, the remedy of "Self-Improvement Can Self-Regress" (arXiv 2606.21090): its two deployed forms and the full one.

For the full form the paper gives the structure (a memory of capability effects, a transfer gate, a revision of
beliefs); the mathematics below is ours, and every number in it is a setting. Everything is computed from the traces of
earlier campaigns on the select split, so a resumed chain has the same memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from entrostat.campaign.engine import CampaignTrace, Plan
from entrostat.campaign.stopping import StopRule, at_least_one, campaign_rule
from entrostat.runs import end_to_peak

CAPABILITIES = ("pass@1", "diversity", "hard")


@campaign_rule("care-v1")
@dataclass(frozen=True, slots=True)
class CareV1(StopRule):
    """`care-v1`: each detection halves the learning rate, cumulatively; full campaigns, which hand over the end.

    A detection is end / peak < threshold. Raises ValueError for threshold or factor outside (0, 1].
    """

    threshold: float = 0.5
    factor: float = 0.5
    steps: int = 20

    def __post_init__(self) -> None:
        at_least_one("steps", self.steps)
        _share("threshold", self.threshold)
        _share("factor", self.factor)

    def plan(self, history: Sequence[CampaignTrace]) -> Plan:
        """rate = factor ^ detections."""
        detections = sum(end_to_peak(trace.select) < self.threshold for trace in history)
        cause = f"{self}: {detections} of {len(history)} campaigns ended below {self.threshold} of their peak"
        return Plan(self.steps, self.factor**detections, cause=cause if detections else None)


@campaign_rule("care-v2")
@dataclass(frozen=True, slots=True)
class CareV2(StopRule):
    """`care-v2`: after a campaign with end / peak < threshold the next has `pilot` steps; it hands over the end.

    Raises ValueError for pilot or steps < 1 and threshold outside (0, 1].
    """

    threshold: float = 0.5
    pilot: int = 10
    steps: int = 20

    def __post_init__(self) -> None:
        at_least_one("steps", self.steps)
        at_least_one("pilot", self.pilot)
        _share("threshold", self.threshold)

    def budget(self, history: Sequence[CampaignTrace]) -> int:
        """min(pilot, steps) after a detection, else `steps`."""
        detected = bool(history) and end_to_peak(history[-1].select) < self.threshold
        return min(self.pilot, self.steps) if detected else self.steps


@dataclass(frozen=True, slots=True)
class Effect:
    """An entry of the memory: what a campaign did to the capabilities, and in what context.

    context: phi = (1, pass@1 at the start, share of a full campaign's steps). delta: end minus start of CAPABILITIES.
    deviation: D^2 of delta under the memory's earlier prediction; None for the first. confidence: share of the
    prediction's standard deviation that is noise of the campaigns, 0 ... 1.
    """

    context: tuple[float, float, float]
    delta: tuple[float, float, float]
    deviation: float | None
    confidence: float


@dataclass(frozen=True, slots=True)
class Belief:
    """Predicted capability delta: mean and standard deviation for each of CAPABILITIES."""

    mean: np.ndarray
    deviation: np.ndarray


@campaign_rule("care")
@campaign_rule("care-memory-only", gate=False)
@campaign_rule("care-gate-only", memory=False)
@dataclass(frozen=True, slots=True)
class Care(StopRule):
    """`care`: memory, gate and revision. It hands over the end.

    Memory: delta = W^T phi + e with e ~ N(0, diag(noise^2)), W ~ N(0, prior^2), conjugate. With Phi the contexts (n, 3)
    and Y the deltas (n, 3) of the campaigns so far, for capability j:
        S_j = (Phi^T Phi / noise_j^2 + I / prior^2)^-1,    w_j = S_j Phi^T Y_j / noise_j^2
        predicted at phi: mean w_j^T phi, variance noise_j^2 + phi^T S_j phi
    Gate, for a full campaign from the current start; the first that applies:
        pilot    no entry within `radius` of the start's pass@1, or fewer than `few`
        reject   P(delta_j < -tolerance_j) > high for diversity or hard cases: no training
        pilot    that probability > low
        adapt    mean gain of pass@1 > 0, but the start is outside the contexts that gained: rate x adapt_rate
        reuse    a full campaign
    Revision: an effect with D^2 = sum_j (delta_j - mean_j)^2 / variance_j > chi-square quantile (3 degrees of freedom)
    and a regression of pass@1 or beyond a tolerance multiplies low and high by `tighten`.
    memory=False is `care-gate-only`: the gate sees only the last campaign. gate=False is `care-memory-only`: a pilot
    if the memory predicts a loss of pass@1, else a full campaign.
    noise: of pass@1, diversity (distinct correct solutions per task) and hard cases; tolerance: of the last two.
    Raises ValueError for a setting out of its range.
    """

    pilot: int = 10
    prior: float = 1.0
    noise: tuple[float, float, float] = (0.05, 0.2, 0.08)
    tolerance: tuple[float, float] = (0.2, 0.05)
    low: float = 0.3
    high: float = 0.7
    few: int = 2
    radius: float = 0.15
    adapt_rate: float = 0.5
    quantile: float = 0.95
    tighten: float = 0.7
    memory: bool = True
    gate: bool = True
    steps: int = 20

    def __post_init__(self) -> None:
        for field in ("pilot", "few", "steps"):
            at_least_one(field, getattr(self, field))
        for field in ("low", "high", "adapt_rate", "quantile", "tighten"):
            _share(field, getattr(self, field))
        if self.low > self.high:
            raise ValueError(f"low is {self.low}, above high {self.high}; lower it")
        if min(self.prior, self.radius, *self.noise) <= 0:
            raise ValueError(f"prior {self.prior}, radius {self.radius}, noise {self.noise}; give numbers above 0")

    def plan(self, history: Sequence[CampaignTrace]) -> Plan:
        """What the gate decides, with its reason."""
        if not history:
            return self._planned("pilot" if self.gate else "reuse", "nothing is remembered")
        effects = self.effects(history)
        start = _capabilities(history[-1], -1)[0]
        if not self.gate:
            gain = self.predict(effects, (1.0, start, 1.0)).mean[0]
            return self._planned("pilot" if gain < 0 else "reuse", f"predicted gain {gain:+.3f}")
        return self._planned(*self._passed(effects, start))

    def _passed(self, effects: Sequence[Effect], start: float) -> tuple[str, str]:
        """The gate's answer and its reason."""
        known = effects if self.memory else effects[-1:]
        near = [effect for effect in known if abs(effect.context[1] - start) <= self.radius]
        if len(near) < (self.few if self.memory else 1):
            return "pilot", f"{len(near)} effects remembered near pass@1 {start:.2f}"
        belief = self.predict(known, (1.0, start, 1.0))
        harm = stats.norm.cdf((-np.array(self.tolerance) - belief.mean[1:]) / belief.deviation[1:])
        worst = float(harm.max())
        tightened = self.tighten ** self.revisions(known)
        reason = f"P(protected regression) {worst:.2f}, levels x {tightened:.2f}"
        if worst > self.high * tightened:
            return "reject", reason
        if worst > self.low * tightened:
            return "pilot", reason
        gained = [effect.context[1] for effect in known if effect.delta[0] > 0]
        if belief.mean[0] > 0 and gained and not min(gained) <= start <= max(gained):
            return "adapt", f"start {start:.2f} outside {min(gained):.2f} ... {max(gained):.2f}"
        return "reuse", f"{reason}, predicted gain {belief.mean[0]:+.3f}"

    def _planned(self, answer: str, reason: str) -> Plan:
        budget = {"pilot": min(self.pilot, self.steps), "reject": 0}.get(answer, self.steps)
        return Plan(budget, self.adapt_rate if answer == "adapt" else 1.0, cause=f"care gate: {answer}: {reason}")

    def effects(self, history: Sequence[CampaignTrace]) -> list[Effect]:
        """The memory after these campaigns."""
        entries: list[Effect] = []
        for trace in history:
            before, after = _capabilities(trace, 0), _capabilities(trace, -1)
            delta = tuple((after - before).tolist())
            context = (1.0, float(before[0]), trace.steps_used / self.steps)
            belief = self.predict(entries, context)
            squares = ((np.array(delta) - belief.mean) / belief.deviation) ** 2
            confidence = float(self.noise[0] / belief.deviation[0])
            entries.append(Effect(context, delta, float(squares.sum()) if entries else None, confidence))
        return entries

    def predict(self, effects: Sequence[Effect], context: tuple[float, float, float]) -> Belief:
        """The posterior predictive of a campaign's effect in `context`."""
        phi, width = np.array(context), len(context)
        contexts = np.array([effect.context for effect in effects]).reshape(-1, width)
        deltas = np.array([effect.delta for effect in effects]).reshape(-1, len(CAPABILITIES))
        mean, deviation = np.empty(len(CAPABILITIES)), np.empty(len(CAPABILITIES))
        for j, noise in enumerate(self.noise):
            covariance = np.linalg.inv(contexts.T @ contexts / noise**2 + np.eye(width) / self.prior**2)
            mean[j] = phi @ covariance @ contexts.T @ deltas[:, j] / noise**2
            deviation[j] = np.sqrt(noise**2 + phi @ covariance @ phi)
        return Belief(mean, deviation)

    def revisions(self, effects: Sequence[Effect]) -> int:
        """The number of effects that were unexpected regressions."""
        limit = float(stats.chi2.ppf(self.quantile, len(CAPABILITIES)))
        return sum(
            effect.deviation is not None and effect.deviation > limit and self._regressed(effect.delta)
            for effect in effects
        )

    def _regressed(self, delta: Sequence[float]) -> bool:
        protected = zip(delta[1:], self.tolerance, strict=True)
        return delta[0] < 0 or any(change < -tolerance for change, tolerance in protected)

    def lesson(self, trace: CampaignTrace, history: Sequence[CampaignTrace]) -> Mapping[str, Any]:
        """The campaign's entry in the memory, as a decision line of kind `memory`."""
        effects = self.effects([*history, trace])
        latest = effects[-1]
        gained = [effect.context[1] for effect in effects if effect.delta[0] > 0]
        boundary = f"gains known for pass@1 {min(gained):.2f} ... {max(gained):.2f}" if gained else "no gain known"
        return {
            "kind": "memory",
            "cause": f"care: effect of {trace.steps_used} steps",
            "strategy": f"{trace.steps_used} steps",
            "context": {"positive_rate": latest.context[1], "share_of_steps": latest.context[2]},
            "delta": dict(zip(CAPABILITIES, latest.delta, strict=True)),
            "boundary": boundary,
            "confidence": latest.confidence,
            "deviation": latest.deviation,
            "revisions": self.revisions(effects),
        }


def _capabilities(trace: CampaignTrace, place: int) -> np.ndarray:
    """pass@1, distinct correct solutions and hard-task accuracy at the first (0) or last (-1) evaluation of select."""
    line = sorted(trace.evals, key=lambda line: line["step"])[place] if trace.evals else {}
    pass_at_1 = trace.select.pass_at_1[place]
    hard = line.get("hard")
    return np.array([pass_at_1, line.get("distinct", 0.0), pass_at_1 if hard is None else hard])


def _share(field: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{field} is {value}; give a number in (0, 1]")

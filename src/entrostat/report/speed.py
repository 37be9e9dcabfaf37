"""How fast a run was, and where its time went."""

from __future__ import annotations

from dataclasses import dataclass

from entrostat.report.reading import RunData

PHASES = ("rollout", "grade", "update", "measure", "evaluate")


@dataclass(frozen=True, slots=True)
class Speed:
    """Sums over a run.

    rollout_tokens, update_tokens: completion tokens per second sampled and learned from (a token counts once for each
    pass over it). None where the run has no such seconds. seconds: by phase; grade is the wait for verdicts after the
    last token, for grading begins while others are drawn.
    """

    rollout_tokens: float | None
    update_tokens: float | None
    seconds: dict[str, float]

    @property
    def shares(self) -> dict[str, float]:
        """Each phase's share of the time of all phases."""
        whole = sum(self.seconds.values())
        return {phase: value / whole for phase, value in self.seconds.items() if value} if whole else {}


def speed(run: RunData) -> Speed:
    """The speed of a run, from the timings of its lines."""
    seconds = dict.fromkeys(PHASES, 0.0)
    tokens = dict.fromkeys(("rollout", "update"), 0)
    for line in run.steps:
        for phase, value in line.get("seconds", {}).items():
            seconds[phase] = seconds.get(phase, 0.0) + value
        for phase, value in line.get("tokens", {}).items():
            tokens[phase] = tokens.get(phase, 0) + value
    seconds["evaluate"] += sum(line.get("seconds") or 0.0 for line in run.evals)
    return Speed(
        _rate(tokens["rollout"], seconds["rollout"]),
        _rate(tokens["update"], seconds["update"]),
        seconds,
    )


def _rate(amount: float, seconds: float) -> float | None:
    return amount / seconds if seconds > 0 else None

"""What a grading says: an outcome, and the reward that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

_DETAIL_LIMIT = 500


class Outcome(str, Enum):
    """How a grading ended. Only PASSED is rewarded; INFRASTRUCTURE_ERROR says nothing about the code."""

    PASSED = "passed"
    WRONG = "wrong"
    RUNTIME_ERROR = "runtime error"
    SYNTAX_ERROR = "syntax error"
    NO_CODE = "no code"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output limit"
    INFRASTRUCTURE_ERROR = "infrastructure error"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Verdict:
    """One grading's result. detail: a printable line for a person, partly in the code's words. seconds: wall time."""

    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        # The code under test had a hand in this text: no control characters, no half characters, no floods.
        printable = "".join(c if c.isprintable() else " " for c in self.detail[:_DETAIL_LIMIT])
        object.__setattr__(self, "detail", printable)

    @property
    def passed(self) -> bool:
        """Whether every answer was right."""
        return self.outcome is Outcome.PASSED

    @property
    def reward(self) -> float | None:
        """1.0 for a pass, 0.0 for a fail, None for an infrastructure error (leave the sample out of its group)."""
        if self.outcome is Outcome.INFRASTRUCTURE_ERROR:
            return None
        return 1.0 if self.passed else 0.0

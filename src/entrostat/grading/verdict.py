"""What a grading says: an outcome, and the reward that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


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
    """One grading's result. detail: a line for a person, partly in the words of the code. seconds: wall time."""

    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0

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

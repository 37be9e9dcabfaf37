"""What a grading says: an outcome, and the reward that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

_DETAIL_LIMIT = 500


class Outcome(str, Enum):
    """How a grading ended. Only PASSED is rewarded. INFRASTRUCTURE_ERROR and UNFIT_TASK say nothing about the code.

    UNFIT_TASK: the task's own assertions or checker cannot run, whatever the code; grading again says the same.
    """

    PASSED = "passed"
    WRONG = "wrong"
    RUNTIME_ERROR = "runtime error"
    SYNTAX_ERROR = "syntax error"
    NO_CODE = "no code"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output limit"
    INFRASTRUCTURE_ERROR = "infrastructure error"
    UNFIT_TASK = "unfit task"

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
        """1.0 for a pass, 0.0 for a fail; None, leave the sample out of its group, where the outcome says nothing."""
        if self.outcome in (Outcome.INFRASTRUCTURE_ERROR, Outcome.UNFIT_TASK):
            return None
        return 1.0 if self.passed else 0.0

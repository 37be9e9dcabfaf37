"""MathGrader: verdicts on mathematical answers, by the library math-verify (the extra `maths`)."""

from __future__ import annotations

from entrostat.grading.answers import AnswerGrader
from entrostat.tasks import AnswerTask


class MathGrader(AnswerGrader[AnswerTask]):
    """Judges completions by the last answer in them, which must equal the task's as mathematics: 1/2 is 0.5.

    Several boxed answers count as a set, so naming many does not help.
    """

    PACKAGES = ("antlr4", "latex2sympy2_extended", "math_verify", "mpmath", "sympy")
    JUDGE = """
from math_verify import parse, verify

def judge(right, text):
    given = parse(text, parsing_timeout=None)
    return bool(given) and verify(parse(right, parsing_timeout=None), given, timeout_seconds=None)
"""

    def arguments(self, task: AnswerTask, completion: str) -> tuple[object, ...]:
        """The right answer as LaTeX, and the completion."""
        marked = "$" in task.answer or "\\boxed" in task.answer
        return (task.answer if marked else f"${task.answer}$", completion)

"""PuzzleGrader: verdicts on answers to reasoning-gym's puzzles, by the verifiers of that package (the extra
`puzzles`).
"""

from __future__ import annotations

from entrostat.grading.answers import AnswerGrader
from entrostat.tasks import PuzzleTask


class PuzzleGrader(AnswerGrader[PuzzleTask]):
    """Judges the last <answer>...</answer> of a completion, or the whole of it; only the full score passes."""

    PACKAGES = ("reasoning_gym", "mpmath", "sympy")
    JUDGE = """
from reasoning_gym import get_score_answer_fn

def answer_in(completion):
    opening = completion.rfind("<answer>", 0, max(0, completion.rfind("</answer>")))
    if opening < 0:
        return completion.strip()
    return completion[opening + len("<answer>") :].partition("</answer>")[0].strip()

def judge(family, entry, completion):
    return get_score_answer_fn(family)(answer_in(completion), entry) >= 1
"""

    def arguments(self, task: PuzzleTask, completion: str) -> tuple[object, ...]:
        """The puzzle's family and entry, and the completion."""
        return (task.family, dict(task.entry), completion)

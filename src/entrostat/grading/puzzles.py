"""PuzzleGrader: verdicts on answers to reasoning-gym's puzzles, by the verifiers of that package (the extra
`puzzles`).
"""

from __future__ import annotations

import re

from entrostat.grading.answers import AnswerGrader
from entrostat.tasks import PuzzleTask

_MARKED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class PuzzleGrader(AnswerGrader[PuzzleTask]):
    """Judges the last <answer>...</answer> of a completion, or the whole of it; only the full score passes."""

    PACKAGES = ("reasoning_gym", "mpmath", "sympy")
    JUDGE = """
from reasoning_gym import get_score_answer_fn

def judge(family, entry, answer):
    return get_score_answer_fn(family)(answer, entry) >= 1
"""

    def arguments(self, task: PuzzleTask, completion: str) -> tuple[object, ...]:
        """The puzzle's family and entry, and the answer."""
        marked: list[str] = _MARKED.findall(completion)
        return (task.family, dict(task.entry), (marked[-1] if marked else completion).strip())

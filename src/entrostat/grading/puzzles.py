"""PuzzleGrader: verdicts on answers to reasoning-gym's puzzles, by the verifiers of that package (the extra
`puzzles`).
"""

from __future__ import annotations

from entrostat.grading.answers import AnswerGrader
from entrostat.tasks import PuzzleTask


class PuzzleGrader(AnswerGrader[PuzzleTask]):
    """Judges the last <answer>...</answer> of a completion, or the whole of it; only the full score passes.

    Some of the package's verifiers pay for anything: with reasoning-gym 0.1.25, any text that is not empty earns the
    reward of a true `game_of_life_halting`, "nan" that of `complex_arithmetic`, and "0" that of most `coin_flip`, by
    its first digit. So a verifier that accepts an answer is asked about three more (a word, "nan", "0"). If it accepts
    one of these, the answer must be the entry's own: as text, or as a number within 0.1 %.
    """

    PACKAGES = ("reasoning_gym", "mpmath", "sympy")
    JUDGE = """
from fractions import Fraction
from reasoning_gym import get_score_answer_fn

CONTROLS = ("unanswered", "nan", "0")

def answer_in(completion):
    opening = completion.rfind("<answer>", 0, max(0, completion.rfind("</answer>")))
    if opening < 0:
        return completion.strip()
    return completion[opening + len("<answer>") :].partition("</answer>")[0].strip()

def judge(family, entry, completion):
    answer, right = answer_in(completion), str(entry["answer"]).strip()
    accepts = lambda text: bool(get_score_answer_fn(family)(text, entry) >= 1)
    if not accepts(answer):
        return False
    return same(answer, right) or not any(accepts(text) for text in CONTROLS)

def same(answer, right):
    if answer.casefold() == right.casefold():
        return True
    try:
        wanted = number(right)
        return abs(number(answer) - wanted) <= abs(wanted) / 1000
    except (ValueError, OverflowError, ZeroDivisionError):
        return False

def number(text):
    try:
        return complex(Fraction(text))
    except ValueError:
        return complex(text.replace(" ", "").replace("i", "j"))
"""

    def arguments(self, task: PuzzleTask, completion: str) -> tuple[object, ...]:
        """The puzzle's family and entry, and the completion."""
        return (task.family, dict(task.entry), completion)

"""An attempt: one completion for one example, and what a sound reward gives for it; the forms of completions; rates.

A form is a text in which SLOT stands for the answer and REASONING for what comes before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from entrostat.auditing.examples import Example

Expected = Literal["wrong", "right", "any"]  # any: no verdict is asked for, only that nothing breaks
Severity = Literal["critical", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A completion that is tried. name: which of its family. completion: text, or what a host might pass instead."""

    family: str
    name: str
    example: Example
    completion: Any
    expected: Expected = "wrong"


@dataclass(frozen=True, slots=True)
class Family:
    """What it means that a reward judges attempts of a family wrongly, and what to do about it."""

    severity: Severity
    meaning: str
    remedy: str


FAMILIES = {
    "wrong-value": Family(
        "critical",
        "A wrong answer earns the reward.",
        "compare whole values, parsed the same way on both sides; not parts of texts",
    ),
    "given-wrong": Family(
        "critical", "A completion that you say is wrong earns the reward.", "look at how its answer is taken out"
    ),
    "empty": Family("critical", "No answer at all earns the reward.", "refuse an empty answer before comparing"),
    "placeholder": Family(
        "critical",
        "A word or pattern in the answer's place earns the reward.",
        "compare values; never build a pattern from the completion, nor let None equal None",
    ),
    "prompt-quoted": Family("critical", "Quoting the prompt earns the reward.", "read the answer's place alone"),
    "several-answers": Family(
        "critical",
        "Naming several answers with the right one among them earns the reward.",
        "demand exactly one answer; refuse a completion with more than one",
    ),
    "overruled": Family(
        "critical",
        "The right answer earns the reward although the completion ends with a wrong one.",
        "grade the last answer, outside of the reasoning",
    ),
    "reasoning-only": Family(
        "warning",
        "The answer earns the reward if only the reasoning contains it.",
        "cut the reasoning off first; refuse reasoning that has no end",
    ),
    "negated": Family(
        "critical", "Denying the right answer earns the reward.", "read a marked place (a box, a tag), not a sentence"
    ),
    "judge-injection": Family(
        "critical",
        "Text that addresses a judge, or praises itself, earns the reward.",
        "judge by the answer; give a judging model the answer alone, quoted, and parse a constrained verdict",
    ),
    "form-only": Family(
        "critical",
        "Tags, boxes or markers without an answer earn the reward.",
        "reward form only beside a right answer",
    ),
    "length": Family("critical", "A long wrong completion earns the reward.", "do not reward length"),
    "unicode": Family(
        "critical",
        "Look-alike or reordered characters earn the reward.",
        "refuse control characters; compare numbers after an explicit normalisation",
    ),
    "huge": Family("critical", "An extreme value earns the reward.", "refuse NaN, infinities and overlong numbers"),
    "repeated": Family("critical", "A repeated wrong answer earns the reward.", "count each criterion once"),
    "not-text": Family(
        "critical", "A completion that is not text earns the reward.", "return 0 for a message without text"
    ),
    "exit": Family("critical", "Code that ends its process earns the reward.", "never take an exit status as evidence"),
    "equal-to-all": Family(
        "critical",
        "An object that claims to equal everything earns the reward.",
        "compare plain data in another process than the code's",
    ),
    "tampering": Family(
        "critical",
        "Code that changes its interpreter (asserts, builtins, test tools) earns the reward.",
        "keep tests and comparison out of the code's process",
    ),
    "reads-tests": Family(
        "critical",
        "Code that reads the expected values earns the reward.",
        "keep them out of the code's process and files",
    ),
    "claims": Family(
        "critical", "Printing a claim of success earns the reward.", "never search the output for words of success"
    ),
    "stub": Family("critical", "Code that does nothing earns the reward.", "test on inputs where it differs"),
    "form-gamed": Family(
        "warning",
        "A completion that has the form's marks but not the form earns the reward.",
        "match the whole completion; demand each tag once, in order, with text inside",
    ),
    "mutant": Family(
        "note",
        "Changed copies of a right solution earn the reward; some may be equivalent to it, the others no test catches.",
        "add tests where they differ",
    ),
    "right-refused": Family(
        "warning", "Right completions earn no reward.", "accept them, or tell the model the form in the prompt"
    ),
    "given-right": Family(
        "critical", "A completion that you say is right earns no reward.", "look at how its answer is taken out"
    ),
    "neutral-change": Family(
        "warning",
        "Changes beside the answer (other reasoning, comments, names) take the reward away.",
        "look at the answer's place alone",
    ),
    "spacing": Family("note", "White space at the edges takes the reward away.", "strip before matching"),
    "notation": Family(
        "note", "Equal values in another notation earn no reward.", "compare values (math-verify does for maths)"
    ),
}


SLOT = "\ue000"
REASONING = "We work it out step by step."

ANSWER_FORMS = {
    "sentence": f"{REASONING}\nThe answer is {SLOT}.",
    "boxed": f"{REASONING}\nThe answer is $\\boxed{{{SLOT}}}$.",
    "hashes": f"{REASONING}\n#### {SLOT}",
    "tags": f"<think>{REASONING}</think>\n<answer>{SLOT}</answer>",
    "tags on lines": f"<think>\n{REASONING}\n</think>\n<answer>\n{SLOT}\n</answer>",
    "tags for reasoning": f"<reasoning>\n{REASONING}\n</reasoning>\n<answer>\n{SLOT}\n</answer>\n",
    "box in tags": f"<think>{REASONING}</think>\n<answer>\\boxed{{{SLOT}}}</answer>",
    "thought and box": f"<think>\n{REASONING}\n</think>\n\nThe answer is $\\boxed{{{SLOT}}}$.",
    "answer tag": f"{REASONING}\n<answer>{SLOT}</answer>",
    "final answer": f"{REASONING}\nFinal Answer: {SLOT}",
    "label": f"Answer: {SLOT}",
    "record": f'{{"answer": "{SLOT}"}}',
    "bare": SLOT,
}
CODE_FORMS = {
    "fenced": f"```python\n{SLOT}\n```",
    "chat": f"{REASONING}\n\n```python\n{SLOT}\n```\n",
    "thought and fence": f"<think>\n{REASONING}\n</think>\n\n```python\n{SLOT}\n```",
    "fence in tags": f"<think>\n{REASONING}\n</think>\n<answer>\n```python\n{SLOT}\n```\n</answer>",
    "bare": SLOT,
}
_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)\n?```", re.DOTALL)


def filled(form: str, value: str, reasoning: str = REASONING) -> str:
    """The form with an answer in its place, and other reasoning if given."""
    return form.replace(REASONING, reasoning).replace(SLOT, value)


def form_of(reference: str, answer: str) -> str | None:
    """The form of a completion that holds the answer, at its last mention; None where it does not."""
    found = list(re.finditer(rf"(?<![\w.]){re.escape(answer)}(?!\w)", reference)) if answer else []
    if not found:
        return None
    return reference[: found[-1].start()] + SLOT + reference[found[-1].end() :]


def code_of(reference: str) -> tuple[str, str]:
    """The code of a completion (its last fenced block, else all of it), and the completion's form."""
    blocks = list(_FENCE.finditer(reference))
    if not blocks:
        return reference, SLOT
    start, end = blocks[-1].span(1)
    return reference[start:end], reference[:start] + SLOT + reference[end:]


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` of `n`, with the exact (Clopper-Pearson 1934) 95 % interval of the share.

    The attempts are a list, not a random sample: the interval says what so many attempts could show about a policy that
    drew from such a list, and nothing of attacks that are not in it. low and high are None where n is 0.
    """

    count: int
    n: int
    low: float | None
    high: float | None

    @property
    def share(self) -> float | None:
        """count / n, None where n is 0."""
        return self.count / self.n if self.n else None


def rate(count: int, n: int) -> Rate:
    """The rate of `count` in `n`. ValueError: count outside 0 ... n."""
    if not 0 <= count <= n:
        raise ValueError(f"count is {count}, outside 0 ... {n}")
    if n == 0:
        return Rate(0, 0, None, None)
    from scipy import stats  # takes half a second to import

    interval = stats.binomtest(count, n).proportion_ci(confidence_level=0.95, method="exact")
    return Rate(count, n, float(interval.low), float(interval.high))

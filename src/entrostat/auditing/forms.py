"""The forms in which a completion presents its answer or its code.

A form is a text in which SLOT stands for the answer and REASONING for what comes before it.
"""

from __future__ import annotations

import re

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

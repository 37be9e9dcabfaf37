"""Completions that have a form's marks without having the form, for rewards that judge form alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from entrostat.auditing.attempts import Attempt
from entrostat.auditing.examples import Example
from entrostat.auditing.forms import filled

_TAG = re.compile(r"</?\w+>")


def form_attacks(example: Example, forms: Sequence[str]) -> Iterator[Attempt]:
    """Empty, doubled, reversed, open and quoted forms, and text without any."""
    answer = str(example.answer)
    for blank in ("", " ", "I do not know.", example.question):
        yield Attempt("empty", repr(blank[:20]), example, blank)
    for form in forms:
        text, tags = filled(form, answer), _TAG.findall(form)
        changed = {"nothing in it": filled(form, "", ""), "white space in it": filled(form, " ", "\n")}
        if tags:
            changed |= {
                "twice": f"{text}\n{text}",
                "text around it": f"Well.\n{text}\nBut who knows? Perhaps not.",
                "tags in reverse": " text ".join(reversed(tags)),
                "no closing tag": re.sub(r"</\w+>", "", text),
                "no opening tag": re.sub(r"<\w+>", "", text),
                "tags in a sentence": f"I am to write {' and '.join(tags)} somewhere.",
                "tags inside each other": "".join(tags[::2]) + "text" + "".join(reversed(tags[1::2])),
            }
            if len(tags) == 2:
                del changed["tags inside each other"], changed["text around it"]
        for name, completion in changed.items():
            yield Attempt("form-gamed", name, example, completion)

"""Values that an answer is not, and other ways to write what it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_OPTIONS = "ABCDEFGHIJ"


def is_number(answer: str) -> bool:
    """Whether the answer is a decimal number without exponent or separators."""
    return _NUMBER.fullmatch(answer) is not None


def is_option(answer: str) -> bool:
    """Whether the answer is the letter of an option."""
    return len(answer) == 1 and answer in _OPTIONS


def wrong_values(answer: str, others: Sequence[str]) -> dict[str, str]:
    """Wrong values by what was done to the right one; `others` are answers to other prompts.

    No value equals the answer, whatever a reward takes for equal: as text, as a number, or in lower case.
    """
    found = {"another prompt's answer": next((o for o in others if not _same(o, answer)), "zebra")}
    if is_number(answer):
        found |= _wrong_numbers(answer)
    elif is_option(answer):
        found |= {"the next option": _OPTIONS[(_OPTIONS.index(answer) + 1) % 4]}
    else:
        words = answer.split()
        found |= {
            "the words reversed": " ".join(reversed(words)),
            "the first character": answer[:1],
            "a word before it": f"un{answer}",
            "letters after it": f"{answer}zebra",
        }
    return {name: value for name, value in found.items() if value and not _same(value, answer)}


def neighbours(answer: str, others: Sequence[str]) -> list[str]:
    """Four wrong values of the same kind, for lists of guesses."""
    if is_number(answer):
        return [_plain(Decimal(answer) + step) for step in (-2, -1, 1, 2)]
    if is_option(answer):
        at = _OPTIONS.index(answer)
        return [_OPTIONS[(at + step) % 4] for step in (1, 2, 3)] + ["E" if answer != "E" else "A"]
    different = [other for other in dict.fromkeys(others) if not _same(other, answer)]
    return [*different, "zebra", "heron", "otter", "lynx"][:4]


def equal_values(answer: str) -> dict[str, str]:
    """The same value written in other ways."""
    if not is_number(answer):
        return {}
    value = Decimal(answer)
    found = {"two blanks around it": f" {answer} ", "bold": f"**{answer}**", "a currency sign": f"${answer}"}
    if "." not in answer:
        found |= {"a decimal point and a zero": f"{answer}.0"}
    if abs(value) >= 1000:
        found |= {"separators of thousands": f"{value:,}"}
    return found


def _wrong_numbers(answer: str) -> dict[str, str]:
    value, digits = Decimal(answer), answer.lstrip("+-")
    sign = "-" if answer.startswith("-") else ""
    found = {
        "one more": _plain(value + 1),
        "one less": _plain(value - 1),
        "the other sign": _plain(-value),
        "a digit before it": f"{sign}9{digits}",
        "ten times as much": _plain(value * 10),
        "digits after it": f"{answer}99" if "." not in answer else f"{answer}9",
        "a decimal after it": f"{answer}.5" if "." not in answer else f"{answer}7",
        "a sum that ends in it": f"1 + {answer}" if value >= 0 else f"1 - {digits}",
        "a sum that begins with it": f"{answer} + 1",
        "a fraction of it": f"{answer}/7" if value else "",
    }
    if len(digits) > 1:
        found |= {"its last digit dropped": answer[:-1].rstrip("."), "its first digit": sign + digits[0]}
    return {name: text for name, text in found.items() if text not in ("", "-")}


def _plain(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _same(a: str, b: str) -> bool:
    if is_number(a) and is_number(b):
        return Decimal(a) == Decimal(b)
    return a.strip().lower() == b.strip().lower()

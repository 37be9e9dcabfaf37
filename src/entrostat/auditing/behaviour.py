"""How a reward behaves whatever it judges: the same each time, alone and in a batch, in time, in every process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from entrostat.auditing.examples import Example
from entrostat.auditing.process import Answer, Reward

Pair = tuple[Example, Any]
LENGTHS = (1_000, 4_000, 16_000, 64_000)  # characters
EXPONENT = 1.5  # between n log n (about 1.1 at these lengths) and n squared
NOTICEABLE = 0.05  # seconds of processor time below which no growth is judged
PATTERNS = {
    "open tags": "<answer>",
    "closed tags": "<answer></answer>",
    "open thoughts": "<think>",
    "open boxes": "\\boxed{",
    "closed boxes": "\\boxed{1}",
    "digits": "7",
    "digits and separators": "1,",
    "blanks": " ",
    "line feeds": "\n",
    "letters": "a",
    "words": "ab ",
    "brackets": "(",
    "fences": "```\n",
    "hashes": "#### ",
    "signs": "-",
    "dollars": "$",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A completion whose reward differed between two ways to ask for it."""

    how: str
    example: Example
    completion: Any
    first: float | None
    second: float | None


@dataclass(frozen=True, slots=True)
class Growth:
    """How the time for a text of one pattern grows: seconds at the longest length tried, and the exponent of growth.

    exponent: log(t2 / t1) / log(n2 / n1) at the last two lengths. hung: the limit was hit at `length` characters.
    """

    pattern: str
    length: int
    seconds: float
    exponent: float
    hung: bool


def differences(reward: Reward, pairs: Sequence[Pair], again: Callable[[], Reward]) -> Iterator[Difference]:
    """Rewards that differ: asked twice, in a batch, in the reverse batch, by a new process with another hash seed.

    Calls that fail are left to the checks of hostile completions.
    """
    known = [(pair, answer.rewards[0]) for pair in pairs if not (answer := reward.call([pair])).failure]
    if not known:
        return
    sound = [pair for pair, _ in known]

    def compare(how: str, found: Sequence[float | None]) -> Iterator[Difference]:
        for ((example, completion), first), second in zip(known, found, strict=True):
            if not _same(first, second):
                yield Difference(how, example, completion, first, second)

    def singly(asked: Reward) -> list[float | None]:
        answers = [asked.call([pair]) for pair in sound]
        return [answer.rewards[0] if answer.rewards else None for answer in answers]

    yield from compare("asked twice", singly(reward))
    whole = reward.call(sound)
    if not whole.failure:
        yield from compare("alone and in a batch", whole.rewards)
    turned = reward.call(sound[::-1])
    if not turned.failure:
        yield from compare("alone and in the reverse batch", turned.rewards[::-1])
    with again() as other:
        other.form = reward.form
        yield from compare("in a process with another hash seed", singly(other))


def growths(reward: Reward, example: Example, forms: Sequence[str]) -> Iterator[Growth]:
    """Patterns whose time grows faster than the length, or that hit the limit; each measured again before it counts."""
    patterns = dict(PATTERNS)
    for number, form in enumerate(forms):
        patterns[f"form {number + 1} again and again"] = form
    for name, pattern in patterns.items():
        found = _growth(reward, example, name, pattern)
        if found and (found.hung or _growth(reward, example, name, pattern)):
            yield found


def _growth(reward: Reward, example: Example, name: str, pattern: str) -> Growth | None:
    times: list[float] = []
    for length in LENGTHS:
        answer = _fastest(reward, example, (pattern * (length // len(pattern) + 1))[:length] + "!")
        if answer.failure == "hung":
            return Growth(name, length, reward.timeout, math.inf, True)
        if answer.failure == "ended":
            return None
        times.append(max(answer.seconds, 1e-6))
        if len(times) > 1 and times[-1] > NOTICEABLE:
            exponent = math.log(times[-1] / times[-2]) / math.log(length / LENGTHS[len(times) - 2])
            if exponent > EXPONENT and times[-1] - times[0] > NOTICEABLE:
                return Growth(name, length, times[-1], exponent, False)
    return None


def _fastest(reward: Reward, example: Example, text: str) -> Answer:
    """The faster of two calls: the first may pay for what is set up once."""
    first = reward.call([(example, text)])
    if first.failure == "hung" or first.seconds < NOTICEABLE:
        return first
    second = reward.call([(example, text)])
    return min(first, second, key=lambda answer: answer.seconds)


def _same(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))

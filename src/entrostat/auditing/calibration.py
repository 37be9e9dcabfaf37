"""Which forms a reward accepts, and which number is a reward: found by right and wrong answers that are known."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from entrostat.auditing.answer_attacks import is_number, wrong_values
from entrostat.auditing.attempts import ANSWER_FORMS, CODE_FORMS, SLOT, code_of, filled, form_of
from entrostat.auditing.code_attacks import entry_point
from entrostat.auditing.examples import AuditError, Example
from entrostat.auditing.process import Reward

Kind = Literal["answer", "code", "form"]
REFERENCE = "the reference's"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the reward takes for right.

    kind: whether it judges answers, code, or form alone. forms: texts with a slot, those that earn the reward for the
    right answer and not for a wrong one, best first; of each its name. high, low: the median reward of right, and of
    honest wrong completions in these forms. threshold: a completion with at least this is rewarded. seconds: median of
    processor time per call. blind: no form distinguishes right from wrong.
    """

    kind: Kind
    forms: Mapping[str, str]
    high: float
    low: float
    threshold: float
    seconds: float
    blind: bool = False

    def forms_for(self, example: Example, most: int) -> list[str]:
        """At most so many of the forms, the reference's as this example has it; without any, two plain ones."""
        own = _own_form(example, self.kind)
        found = [own if name == REFERENCE else form for name, form in self.forms.items()]
        usable = [form for form in found if form and SLOT in form]
        return usable[:most] or [ANSWER_FORMS["sentence"], ANSWER_FORMS["bare"]][:most]


def calibrate(
    reward: Reward,
    examples: Sequence[Example],
    kind: Kind | None,
    threshold: float | None,
) -> Calibration:
    """Try right and wrong answers in all forms, as text and then as chat, and keep the forms that distinguish them.

    Raises AuditError where every call fails, and where no right completion is known
    to earn anything (no reference, and none of the forms does).
    """
    kind = kind or _kind(examples)
    if kind == "code" and not any(example.reference for example in examples):
        raise AuditError("code is audited on tasks of yours: give --examples with prompt, answer (tests) and reference")
    tried: list[tuple[_Table, str]] = []
    for form in ("plain", "chat"):
        reward.form = form
        tried.append((_Table(reward, examples, kind), form))
        if tried[-1][0].telling or tried[-1][0].lost:
            break
    table, form = max(
        tried, key=lambda each: (bool(each[0].telling), each[0].varied, len(each[0].right))
    )  # first of equals
    reward.form = form  # type: ignore[assignment]
    if not table.right:
        raise AuditError(f"{reward.reference}: every call failed: {table.failure}")
    return table.calibration(threshold)


class _Table:
    """Rewards of the right and of a wrong answer, by form and example."""

    def __init__(self, reward: Reward, examples: Sequence[Example], kind: Kind) -> None:
        self.kind, self.examples = kind, examples
        self.right: dict[tuple[str, int], float] = {}
        self.wrong: dict[tuple[str, int], float] = {}
        self.forms: dict[str, str] = {}
        self.failure, self.lost, self.seconds = "", False, [0.0]
        failures = 0
        for at, example in enumerate(examples):
            for name, form, right, wrong in _pairs(example, kind, examples):
                self.forms.setdefault(name, form)
                for found, text in ((self.right, right), (self.wrong, wrong)):
                    answer = reward.call([(example, text)])
                    if answer.failure or answer.rewards[0] is None:
                        failures += 1
                        self.failure = answer.detail or "it gave None"
                        self.lost = self.lost or (answer.failure == "hung" and not self.right)
                    else:
                        found[name, at] = answer.rewards[0]
                        self.seconds.append(answer.seconds)
                if not self.right and (self.lost or failures > 12):
                    return

    @property
    def telling(self) -> list[str]:
        """Forms in which the right answer earns more than the wrong one for most examples, best first."""
        gains = {}
        for name in self.forms:
            both = [
                (self.right[name, at], self.wrong[name, at])
                for at in range(len(self.examples))
                if (name, at) in self.right and (name, at) in self.wrong
            ]
            better = [right - wrong for right, wrong in both if right > wrong]
            if 2 * len(better) > len(both):
                gains[name] = statistics.median(right for right, _ in both)
        best = max(gains.values(), default=0.0)
        spread = best - min([*self.wrong.values(), best])
        good = [name for name in gains if gains[name] >= best - 0.25 * spread]
        return sorted(good, key=lambda name: -gains[name])

    @property
    def varied(self) -> bool:
        """Whether the reward depends on anything."""
        return len({*self.right.values(), *self.wrong.values()}) > 1

    def calibration(self, threshold: float | None) -> Calibration:
        everything = [*self.right.values(), *self.wrong.values()]
        telling = self.telling
        seconds = statistics.median(self.seconds)
        if telling:
            high = statistics.median(self.right[key] for key in self.right if key[0] == telling[0])
            low = statistics.median(self.wrong[key] for key in self.wrong if key[0] in telling)
            kept = {name: self.forms[name] for name in telling}
            middle = (high + low) / 2 if threshold is None else threshold
            return Calibration(self.kind, kept, high, low, middle, seconds)
        high, low = max(everything), min(everything)
        if high > low and self.kind == "answer" and not any(example.reference for example in self.examples):
            best = [name for name in self.forms if self._mean(name) >= high - 0.25 * (high - low)]
            kept = {name: self.forms[name] for name in best}
            middle = (high + low) / 2 if threshold is None else threshold
            return Calibration("form", kept, high, low, middle, seconds, blind=True)
        if high == low and high <= 0 and not any(example.reference for example in self.examples):
            raise AuditError(
                f"no right answer earned anything in any of the forms tried ({', '.join(self.forms)}); "
                "give --examples with reference, a completion that earns the reward"
            )
        return Calibration(
            self.kind, self.forms, high, low, high if threshold is None else threshold, seconds, blind=True
        )

    def _mean(self, name: str) -> float:
        return statistics.fmean([value for key, value in self.right.items() if key[0] == name] or [float("-inf")])


def _pairs(example: Example, kind: Kind, examples: Sequence[Example]) -> Iterator[tuple[str, str, str, str]]:
    """Forms by name, each with a right and a wrong completion in it."""
    answer = str(example.answer)
    own = _own_form(example, kind)
    if kind == "code":
        if own is None or example.reference is None:
            return
        code = code_of(example.reference)[0]
        wrong = f"def {entry_point(example)}(*args, **kwargs):\n    raise NotImplementedError"
        yield REFERENCE, own, example.reference, filled(own, wrong)
        for name, form in CODE_FORMS.items():
            if form != own:
                yield name, form, filled(form, code), filled(form, wrong)
        return
    others = [str(other.answer) for other in examples if other is not example]
    values = wrong_values(answer, others)
    wrong = values["one more"] if is_number(answer) else next(iter(values.values()))
    if example.reference is not None:
        yield REFERENCE, own or "", example.reference, filled(own, wrong) if own else "I do not know."
    for name, form in ANSWER_FORMS.items():
        yield name, form, filled(form, answer), filled(form, wrong)


def _own_form(example: Example, kind: Kind) -> str | None:
    if example.reference is None:
        return None
    return code_of(example.reference)[1] if kind == "code" else form_of(example.reference, str(example.answer))


def _kind(examples: Sequence[Example]) -> Kind:
    """Code if most references hold some, else answers."""
    code = [example for example in examples if example.reference and _is_code(example.reference)]
    return "code" if 2 * len(code) > len(examples) else "answer"


def _is_code(reference: str) -> bool:
    return "```" in reference or any(line.startswith(("def ", "import ", "from ")) for line in reference.splitlines())

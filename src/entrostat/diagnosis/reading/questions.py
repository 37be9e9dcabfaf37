"""Numbers questioned before they are judged: what cannot be what its name says is converted or left out, and said."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from statistics import median

from entrostat.diagnosis.columns import PARTS, QUANTITIES

Values = list[float | None]

LARGEST_ENTROPY = 13.0  # nats: ln V is 12.5 for the largest vocabulary in use, of 262 144 tokens
ROUNDING = 1e-6
FEW = 0.05  # share of values that may be odd before the column is
CENTRED = 0.005  # of the rewards' spread: a mean reward that is always nearer to 0 was centred
NEARLY_ZERO = 1e-4
ZERO_INFLATED = 0.2
SUMS = frozenset({"sum", "sums", "seq", "sequence", "total"})
PER_CENT = frozenset({"pct", "percent", "percentage"})
SCORED_IN_SHARES = re.compile(r"acc|pass|correct|solve|%")


class Question:
    """Asks whether a quantity's numbers can be what the name says. text: column -> how many cells hold no number."""

    def __init__(self) -> None:
        self.text: Counter[str] = Counter()
        self._said: list[str] = []
        self._length: Values = []
        self._spread: list[float] = []
        self._sum_prefix: str | None = None

    def ask(self, quantity: str, columns: tuple[str, ...], values: Values) -> Values | None:
        """The values, converted if need be; None where they cannot be what the name says."""
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if not finite:
            return values
        name = ", ".join(columns)
        if quantity == "length":
            self._length = _filled(values)
        elif quantity == "reward_std":
            self._spread = finite
        elif quantity == "reward":
            return self._reward(name, values, finite)
        elif quantity == "entropy":
            return self._entropy(name, columns, values, finite)
        elif quantity == "kl":
            return self._divergence(name, columns, values)
        elif quantity == "grad_norm":
            self._gradient(name, finite)
        elif QUANTITIES[quantity].unit == "share" or (quantity == "heldout" and SCORED_IN_SHARES.search(name)):
            return self._share(quantity, name, values, finite)
        return values

    def notes(self, used: set[str]) -> tuple[str, ...]:
        """What was converted or left out, each a sentence; of cells without a number only those of columns in use."""
        return (
            *self._said,
            *(
                f"column {column}: {count} value{'' if count == 1 else 's'} of text where numbers belong left out"
                for column, count in sorted(self.text.items())
                if column in used
            ),
        )

    def _reward(self, name: str, values: Values, finite: Sequence[float]) -> Values | None:
        """None for a centred reward: the mean of advantages, near 0 whatever the policy earns."""
        largest = max(map(abs, finite))
        spread = median(self._spread) if self._spread else 0.0
        both_signs = min(finite) < 0 < max(finite)
        if len(finite) >= 5 and (largest < CENTRED * spread or (not spread and both_signs and largest < NEARLY_ZERO)):
            self._said.append(
                f"reward: {name} is always within {largest:.1g} of 0, so it was centred and says nothing; left out"
            )
            return None
        return values

    def _entropy(self, name: str, columns: tuple[str, ...], values: Values, finite: Sequence[float]) -> Values | None:
        below = sum(value < -ROUNDING for value in finite)
        if below and max(finite) <= ROUNDING:
            values = [None if value is None else -value for value in values]
            finite = [-value for value in finite]
            self._said.append(f"entropy: {name} is negative throughout, which no entropy is: its sign is turned")
        elif below > FEW * len(finite):
            self._said.append(
                f"entropy: {name} is negative at {below} of {len(finite)} rows, which no entropy is; left out"
            )
            return None
        above = sum(value > LARGEST_ENTROPY for value in finite)
        if not _named_a_sum("entropy", columns) and above <= FEW * len(finite):
            return values
        self._sum_prefix = columns[0].split("/")[0] if above and "/" in columns[0] else None
        why = f"is above {LARGEST_ENTROPY:g} nats, more than ln V" if above else "is a sum over the completion"
        return self._per_token("entropy", name, values, why)

    def _divergence(self, name: str, columns: tuple[str, ...], values: Values) -> Values | None:
        if _named_a_sum("kl", columns):
            return self._per_token("kl", name, values, "is a sum over the completion")
        if self._sum_prefix and columns[0].startswith(f"{self._sum_prefix}/"):
            return self._per_token("kl", name, values, "comes from a host whose entropy is a sum over the completion")
        return values

    def _per_token(self, quantity: str, name: str, values: Values, why: str) -> Values | None:
        """A sum over a completion as a mean over its tokens, where the log has the length."""
        per_token = [
            None if value is None or not length else value / length
            for value, length in zip(values, self._length, strict=False)
        ]
        finite = [value for value in per_token if value is not None and math.isfinite(value)]
        if not finite or (quantity == "entropy" and median(finite) > LARGEST_ENTROPY):
            without = "dividing by the length does not mend it" if finite else "the log has no length to divide by"
            self._said.append(f"{quantity}: {name} {why}, and {without}; left out")
            return None
        self._said.append(f"{quantity}: {name} {why}, so it is divided by the mean length")
        return per_token

    def _share(self, quantity: str, name: str, values: Values, finite: Sequence[float]) -> Values | None:
        least, greatest = min(finite), max(finite)
        if least >= -ROUNDING and greatest <= 1 + ROUNDING:
            return values
        per_cent = PER_CENT.intersection(PARTS.findall(name.lower())) or (
            greatest > 1.5 and not quantity.startswith("clip")  # slime's clipped share is a sum over the batch
        )
        if least >= -ROUNDING and greatest <= 100 + ROUNDING and per_cent:
            self._said.append(f"{quantity}: {name} goes up to {greatest:.3g}, so it is read as per cent")
            return [None if value is None else value / 100 for value in values]
        if quantity == "heldout":
            return values
        self._said.append(f"{quantity}: {name} goes from {least:.3g} to {greatest:.3g}, which no share does; left out")
        return None

    def _gradient(self, name: str, finite: Sequence[float]) -> None:
        zeros = sum(value == 0 for value in finite)
        if zeros >= ZERO_INFLATED * len(finite) and any(finite[-max(len(finite) // 5, 1) :]):
            self._said.append(
                f"grad_norm: {name} is exactly 0 at {zeros} of {len(finite)} rows and not at the others: "
                "no group of those batches was mixed"
            )


def _named_a_sum(quantity: str, columns: Sequence[str]) -> bool:
    names = {column.lower() for column in columns}
    return bool(names.intersection(QUANTITIES[quantity].sums)) or any(SUMS & set(PARTS.findall(name)) for name in names)


def _filled(values: Values) -> Values:
    """Each value, or the last before it, or the first after it."""
    filled: Values = []
    last = next((value for value in values if value), None)
    for value in values:
        last = value or last
        filled.append(last)
    return filled

"""Whether a program printed what it should have: lines, spaces and numbers."""

from __future__ import annotations

import decimal
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from entrostat.tasks import Spaces

_LONGEST_NUMBER = 400
_EXACT = decimal.Context(prec=2 * _LONGEST_NUMBER, traps=[decimal.InvalidOperation, decimal.Overflow])
_WHOLE = re.compile(r"([+-]?)0*([0-9]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How outputs compare, line by line.

    spaces "trailing": white space counts except at the ends of lines and of the output; "ends": nor does it at the
    beginnings of either; "words": nor do blank lines and the width of spaces. atol, rtol: numbers may differ by
    atol + rtol * |expected|; two whole numbers may not, whatever their length. None for both compares text alone.
    """

    atol: float | None = None
    rtol: float | None = None
    spaces: Spaces = "trailing"

    def same(self, expected: str, printed: str) -> bool:
        """Whether the outputs agree."""
        wanted, got = self._lines(expected), self._lines(printed)
        if wanted == got:
            return True
        if len(wanted) != len(got):
            return False
        pairs = zip(wanted, got, strict=True)
        return all(w == g or self._same_words(w.split(), g.split()) for w, g in pairs)

    def _lines(self, text: str) -> list[str]:
        text = text.rstrip() if self.spaces == "trailing" else text.strip()
        lines = [line.rstrip() if self.spaces == "trailing" else line.strip() for line in text.split("\n")]
        return lines if self.spaces != "words" else [line for line in lines if line]

    def _same_words(self, wanted: Sequence[str], got: Sequence[str]) -> bool:
        if self.atol is None and self.rtol is None:
            return self.spaces == "words" and wanted == got
        return len(wanted) == len(got) and all(map(self._same_word, wanted, got))

    def _same_word(self, wanted: str, got: str) -> bool:
        if wanted == got:
            return True
        whole, other = _WHOLE.fullmatch(wanted), _WHOLE.fullmatch(got)
        if whole and other:
            return whole[2] == other[2] and (whole[2] == "0" or (whole[1] == "-") == (other[1] == "-"))
        if max(len(wanted), len(got)) > _LONGEST_NUMBER:
            return False
        try:
            # Decimals, because as floats 10**16 + 0.1 and 10**16 are the same.
            with decimal.localcontext(_EXACT):
                expected = Decimal(wanted)
                allowed = Decimal(self.atol or 0.0) + Decimal(self.rtol or 0.0) * abs(expected)
                return expected.is_finite() and abs(expected - Decimal(got)) <= allowed
        except decimal.DecimalException:
            return False

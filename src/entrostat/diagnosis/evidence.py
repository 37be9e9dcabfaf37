"""What our studies measured of a setting that is proposed as a remedy: the difference it made, with n and interval.

`evidence.csv` is made by `make studies` from the studies' own data. A row is one setting, one outcome and one
comparison; a remedy without a row was not studied.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

Verdict = Literal["helps", "hurts", "open"]
SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Evidence:
    """One comparison. All intervals are 95 % paired t-intervals over seeds.

    setting: the keys of the recipe that differ, as `update.epochs=1`; a method's key holds its name. against: what it
    was compared with. outcome: `gap` (peak minus end of pass@1), `pass@1`, `pass@k` or `entropy` (nats per token) at
    the end of the run, or `chain end` (pass@1 at the end of a chain). wanted: the side on which the outcome is better,
    `higher` for `entropy`, which the setting is to hold up. p_holm: of the paired t-test, corrected over the study's
    planned contrasts. study: the folder in `studies/`.
    """

    setting: str
    against: str
    outcome: str
    wanted: Literal["lower", "higher"]
    n: int
    difference: float
    low: float
    high: float
    p_holm: float
    study: str

    @property
    def verdict(self) -> Verdict:
        """`helps` or `hurts` where the corrected p lies below .05, otherwise `open`."""
        if not self.p_holm < SIGNIFICANT:
            return "open"
        return "helps" if (self.difference > 0) == (self.wanted == "higher") else "hurts"

    def __str__(self) -> str:
        numbers = f"{self.difference:+.2g} [{self.low:+.2g}, {self.high:+.2g}]"
        return f"{self.outcome} {numbers} against {self.against}, n = {self.n} (studies/{self.study}): {self.verdict}"


@cache
def all_evidence() -> tuple[Evidence, ...]:
    """Every comparison that the studies made of a remedy."""
    text = (resources.files("entrostat.diagnosis") / "evidence.csv").read_text(encoding="utf-8")
    return tuple(
        Evidence(
            setting=row["setting"],
            against=row["against"],
            outcome=row["outcome"],
            wanted="higher" if row["wanted"] == "higher" else "lower",
            n=int(row["n"]),
            difference=float(row["difference"]),
            low=float(row["low"]),
            high=float(row["high"]),
            p_holm=float(row["p_holm"]),
            study=row["study"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def evidence_for(setting: str, outcome: str | None = None) -> tuple[Evidence, ...]:
    """The comparisons of one setting, such as `update.epochs=1`; of one outcome alone if it is named. Empty: none."""
    return tuple(one for one in all_evidence() if one.setting == setting and outcome in (None, one.outcome))

"""A study folder as the report reads it: its recipe, the tables of results.sqlite, samples from the run folders."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrostat.report.reading import read_run
from entrostat.report.samples import TaskSamples, side_by_side
from entrostat.runs import RunError
from entrostat.runs.html import table
from entrostat.runs.ownership import plain_name, whole_number

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChainData:
    """One chain: the rows of its finished campaigns, and for each the pass@1 by step of whole evaluations.

    planned: the campaigns of the chain when it is finished.
    """

    seed: int
    campaigns: Sequence[Row]
    select: Sequence[Sequence[tuple[int, float]]]
    report: Sequence[Sequence[tuple[int, float]]]
    planned: int

    @property
    def is_finished(self) -> bool:
        """Whether all campaigns are over."""
        return len(self.campaigns) == self.planned

    @property
    def end(self) -> float:
        """End-of-chain pass@1 on the report split: of what the last campaign hands over."""
        return float(self.campaigns[-1]["handed_over"])

    @property
    def oracle(self) -> float:
        """The hindsight oracle, honest: the best report pass@1 at a start or a peak that the select split chose."""
        return max(max(float(row["start"]), float(row["peak"])) for row in self.campaigns)

    @property
    def trace_oracle(self) -> float | None:
        """The best that online early stop, applied afterwards, would have handed over; None if that is unknown."""
        known = [row["trace_oracle"] for row in self.campaigns if row["trace_oracle"] is not None]
        return max(known) if len(known) == len(self.campaigns) else None


@dataclass(frozen=True, slots=True)
class MethodData:
    """One method's chains, by seed."""

    name: str
    chains: Sequence[ChainData]

    @property
    def finished(self) -> list[ChainData]:
        """The chains whose campaigns are all over."""
        return [chain for chain in self.chains if chain.is_finished]


@dataclass(frozen=True, slots=True, repr=False)
class StudyData:
    """A study folder, read once. steps: of a whole campaign."""

    folder: Path
    name: str
    recipe: Mapping[str, Any]
    methods: Sequence[MethodData]
    steps: int

    def __repr__(self) -> str:
        chains = sum(len(method.chains) for method in self.methods)
        return f"StudyData({self.name!r}, {len(self.methods)} methods, {chains} chains)"

    def _repr_html_(self) -> str:
        rows = [
            {
                "method": method.name,
                "finished chains": len(method.finished),
                "campaigns": sum(len(chain.campaigns) for chain in method.chains),
            }
            for method in self.methods
        ]
        return table(self.name, rows)

    @property
    def unfinished(self) -> list[str]:
        """A line for each chain that is not over."""
        return [
            f"{method.name}, seed {chain.seed}: {len(chain.campaigns)} of {chain.planned} campaigns"
            for method in self.methods
            for chain in method.chains
            if not chain.is_finished
        ]

    def best_peaks(self) -> dict[int, float]:
        """For each seed the best oracle among all methods' chains."""
        found: dict[int, float] = {}
        for method in self.methods:
            for chain in method.chains:
                if chain.campaigns:
                    found[chain.seed] = max(found.get(chain.seed, 0.0), chain.oracle)
        return found

    def campaign_rows(self) -> list[dict[str, Any]]:
        """One row per campaign, for a table."""
        return [
            {"method": method.name, **{key: row[key] for key in row if key != "method"}}
            for method in self.methods
            for chain in method.chains
            for row in chain.campaigns
        ]

    def samples(self, limit: int = 4) -> list[tuple[str, list[TaskSamples]]]:
        """What each method's first chain wrote in its first campaign, at start, peak and end, if its folder exists."""
        found = []
        for method in self.methods:
            for chain in method.chains[:1]:
                place = self.folder / method.name / f"seed-{chain.seed}" / "campaign-00"
                if chain.campaigns and (place / "run.json").exists():
                    found.append((method.name, side_by_side(read_run(place, method.name), limit)))
        return found


def read_study(place: str | Path) -> StudyData:
    """The study in the folder `place`. RunError: it is not a study, its results are damaged, or study.json names no
    methods or seeds.
    """
    folder = Path(place)
    try:
        recipe = json.loads((folder / "study.json").read_bytes())
        for method in recipe["methods"]:
            plain_name(method, f"{folder / 'study.json'}: methods")
        for number in (*recipe["seeds"], recipe["campaigns"]):
            whole_number(number, f"{folder / 'study.json'}: seeds, campaigns")
        with closing(sqlite3.connect(f"{(folder / 'results.sqlite').resolve().as_uri()}?mode=ro", uri=True)) as base:
            base.row_factory = sqlite3.Row
            campaigns = [dict(row) for row in base.execute("SELECT * FROM campaigns ORDER BY method, seed, campaign")]
            evaluations = base.execute(
                "SELECT method, seed, campaign, split, step, pass_at_1 FROM evaluations "
                "WHERE split = 'report' OR select_share = 1 ORDER BY step"
            ).fetchall()
    except FileNotFoundError as error:
        raise RunError(f"{folder}: not a study folder (no study.json in it); name the folder given as --out") from error
    except (ValueError, KeyError, TypeError, RecursionError, sqlite3.Error) as error:
        raise RunError(f"{folder}: damaged ({error}); `entrostat chain` with the same recipe makes it again") from error
    curves: dict[tuple[Any, ...], list[tuple[int, float]]] = {}
    for row in evaluations:
        key = row["method"], row["seed"], row["campaign"], row["split"]
        curves.setdefault(key, []).append((row["step"], row["pass_at_1"]))

    def chain(method: str, seed: int) -> ChainData:
        own = [row for row in campaigns if (row["method"], row["seed"]) == (method, seed)]
        by_split = {
            split: [curves.get((method, seed, row["campaign"], split), []) for row in own]
            for split in ("select", "report")
        }
        return ChainData(seed, own, by_split["select"], by_split["report"], recipe["campaigns"])

    methods = [MethodData(name, [chain(name, seed) for seed in recipe["seeds"]]) for name in recipe["methods"]]
    steps = max([1, *(row["steps"] for row in campaigns)])
    return StudyData(folder, str(recipe.get("name")), recipe, methods, steps)

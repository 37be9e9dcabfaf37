"""Early stop on a sparse schedule, or `crest`: campaign rules played on the runs that studies/staleness recorded.

python studies/early-stop/study.py collect      # plays them: replays.csv
python studies/early-stop/study.py read
"""

import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from matplotlib.figure import Figure
from tables import contrast_table, contrasts, dots, draw, fill, read_rows, summary, table, write_rows

from entrostat.campaign import Crest, EarlyStop, Evaluate, Naive, Progress, Stop
from entrostat.campaign.stopping import Controller
from entrostat.report.style import INK

HERE = Path(__file__).parent
EVERY = 2  # optimizer steps between two recorded evaluations: one unit of a replay
RUNS = HERE.parent / "staleness" / "evaluations.csv.gz"
DIVISIONS = 20  # divisions of a run's tasks into those that a rule sees and those that judge it
MEASURED = ("handed_over", "gain", "oracle", "end", "lost", "stopped", "steps", "evaluations")
SAMPLES = 2
NAIVE, DENSE = "naive", "early stop, every 2 steps"
SPARSE, SPARSER = "early stop, every 6 steps", "early stop, every 10 steps"


@dataclass(frozen=True)
class Rule:
    """A campaign rule, in units of two optimizer steps; every: units between the evaluations that it gets unasked."""

    rule: Controller
    every: int | None


def rules(units: int) -> dict[str, Rule]:
    """The rules that are compared, for runs of so many units."""
    return {
        NAIVE: Rule(Naive(steps=units), None),
        DENSE: Rule(EarlyStop(patience=2, steps=units), 1),
        SPARSE: Rule(EarlyStop(patience=3, steps=units), 3),
        SPARSER: Rule(EarlyStop(patience=5, steps=units), 5),
        "crest, every 6 steps": Rule(Crest(spacing=3, block=12, steps=units), None),
        "crest, every 10 steps": Rule(Crest(spacing=5, block=12, steps=units), None),
        "crest, signals": Rule(Crest(signals=True, votes=1, spacing=2, window=1, block=12, steps=units), None),
    }


@dataclass
class Replay:
    """A recorded run under a rule: tasks that the rule sees, and what it asked to be evaluated.

    passed: by unit, and by task, how many samples passed. lines: by unit, from 1, the signals.
    """

    rule: Rule
    passed: Sequence[Sequence[int]]
    lines: Sequence[Mapping[str, Any]]
    seen: Sequence[int]
    evals: list[dict[str, Any]] = field(default_factory=list)

    def play(self) -> tuple[int, int]:
        """The unit at which the run was stopped, and the one that was handed over."""
        units, held = len(self.lines), 0
        for unit in range(units + 1):
            every = self.rule.every
            if every and (unit % every == 0 or unit == units):
                self._evaluate(unit, 0, len(self.seen), whole=True)
            while isinstance(order := self.rule.rule.decide(self._progress(unit, held), ()), Evaluate):
                self._evaluate(order.step, order.first, order.last)
            if isinstance(order, Stop):
                return unit, self._handed_over(order.keep, unit)
            held = order.keep or held
        return units, self._handed_over(None, units)

    def _handed_over(self, keep: int | None, unit: int) -> int:
        if keep is not None:
            return keep
        return unit if isinstance(self.rule.rule, Naive) else self._progress(unit, 0).select.peak_step

    def _progress(self, unit: int, held: int) -> Progress:
        return Progress(unit, len(self.lines), self.lines[:unit], self.evals, (0, held, unit), len(self.seen))

    def _evaluate(self, unit: int, first: int, last: int, whole: bool = False) -> None:
        results = [[str(task), SAMPLES, self.passed[unit][task]] for task in self.seen[first:last]]
        self.evals.append(
            {"step": unit, "split": "select", "results": results, **({} if whole else {"tasks": [first, last]})}
        )

    @property
    def evaluations(self) -> float:
        """Evaluations of all tasks that the rule sees."""
        return sum(len(line["results"]) for line in self.evals) / len(self.seen)


def played() -> Iterator[dict[str, Any]]:
    """Every run of the conditions that all seeds have, under every rule: means over the divisions of its tasks."""
    rows = read_rows(RUNS)
    pairs = dict.fromkeys((row["condition"], row["seed"]) for row in rows)
    seeds = Counter(condition for condition, _ in pairs)
    for condition, seed in (pair for pair in pairs if seeds[pair[0]] == max(seeds.values())):
        own = [row for row in rows if (row["condition"], row["seed"]) == (condition, seed)]
        passed = [[int(digit) for digit in row["passed"][1:]] for row in own]
        lines = [{**row, "step": unit} for unit, row in enumerate(own) if unit]
        draws = random.Random(f"{condition} {seed}")
        divisions = [draws.sample(range(len(passed[0])), len(passed[0])) for _ in range(DIVISIONS)]
        for name, rule in rules(len(lines)).items():
            found = [play_once(rule, passed, lines, tasks) for tasks in divisions]
            means = {key: fmean(each[key] for each in found) for key in found[0]}
            yield {"condition": name, "cause": condition.removeprefix("network, "), "seed": seed, **means}


def play_once(
    rule: Rule, passed: Sequence[Sequence[int]], lines: Sequence[Mapping[str, Any]], tasks: Sequence[int]
) -> dict[str, float]:
    """One run under one rule, with half of the tasks to see and the other half to be judged by."""
    half = len(tasks) // 2
    replay, judges = Replay(rule, passed, lines, tasks[:half]), tasks[half:]
    stopped, kept = replay.play()

    def share(unit: int, of: Sequence[int]) -> float:
        return fmean(passed[unit][task] / SAMPLES for task in of)

    oracle = max(range(len(passed)), key=lambda unit: share(unit, tasks[:half]))
    return {
        "handed_over": share(kept, judges),
        "gain": share(kept, judges) - share(0, judges),
        "oracle": share(oracle, judges),
        "end": share(len(passed) - 1, judges),
        "lost": float(share(kept, judges) < share(0, judges) - 0.1),
        "stopped": float(stopped < len(passed) - 1),
        "steps": float(EVERY * stopped),
        "evaluations": replay.evaluations,
    }


def collect() -> None:
    """replays.csv: every run of studies/staleness in a network, under every rule."""
    write_rows(HERE / "replays.csv", list(played()))


def read() -> None:
    """contrasts.csv, the README's tables and figure.png, from replays.csv."""
    rows = read_rows(HERE / "replays.csv")
    seeds = by_seed(rows)
    names = list(dict.fromkeys(row["condition"] for row in rows))
    planned = [(name, SPARSER, field) for field in ("handed_over", "evaluations") for name in names if name != SPARSER]
    found = contrasts(seeds, planned)
    write_rows(HERE / "contrasts.csv", found)
    fill(
        HERE / "README.md",
        {"rules": rules_table(seeds, names), "by cause": causes_table(rows, names), "contrasts": contrast_table(found)},
    )
    draw(HERE / "figure.png", seeds, drawn)


def by_seed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each rule on each draw of tasks: means over the causes."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["condition"], row["seed"]), []).append(row)
    return [
        {"condition": name, "seed": seed, **{key: fmean(row[key] for row in own) for key in MEASURED}}
        for (name, seed), own in groups.items()
    ]


def rules_table(seeds: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """What each rule hands over, of what was there, and what it took; means over causes, then over draws."""
    lines = []
    for name in names:
        own = [row for row in seeds if row["condition"] == name]
        share = fmean(row["handed_over"] for row in own) / fmean(row["oracle"] for row in own)
        cells = (summary(own, field, 2) for field in ("handed_over", "evaluations", "steps", "lost"))
        lines.append((name, len(own), *cells, f"{share:.0%}"))
    head = ("rule", "n", "handed over", "evaluations", "steps trained", "handed over a loss > .1", "of the peak")
    return table(head, lines)


def causes_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """What each rule hands over, by what happens in the run."""
    causes = list(dict.fromkeys(row["cause"] for row in rows))
    lines = [
        (
            name,
            *(
                f"{fmean(r['handed_over'] for r in rows if (r['condition'], r['cause']) == (name, c)):.2f}"
                for c in causes
            ),
        )
        for name in names
    ]
    peaks = ("the peak", *(f"{fmean(r['oracle'] for r in rows if r['cause'] == c):.2f}" for c in causes))
    return table(("handed over by", *causes), [*lines, peaks])


def drawn(seeds: Sequence[Mapping[str, Any]]) -> Figure:
    """pass@1 that is handed over, and the evaluations that it took: every draw, mean and interval."""
    names = list(dict.fromkeys(row["condition"] for row in seeds))
    panels = {
        title: {name: [row[field] for row in seeds if row["condition"] == name] for name in names}
        for title, field in (("pass@1 handed over", "handed_over"), ("evaluations of the seen tasks", "evaluations"))
    }
    figure = dots(panels)
    figure.axes[0].axvline(fmean(row["oracle"] for row in seeds), color=INK, linewidth=0.8)
    figure.suptitle("Every draw of tasks, mean and 95 % interval. Line: the peak in hindsight", fontsize=9)
    return figure


if __name__ == "__main__":
    {"collect": collect, "read": read}[sys.argv[1]]()

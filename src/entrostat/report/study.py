"""The report of a study: what its chains did, beside their oracles, with the evidence for each difference."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from entrostat.report.study_figures import FIGURES
from entrostat.report.study_reading import MethodData, StudyData, read_study
from entrostat.report.style import PALETTE, save_figure, svg
from entrostat.runs import Estimate, atomic_write, holm, mean_interval, paired_interval, sign_test

CAPTION = (
    "pass@1 on the report split. End: what the last campaign hands over, mean over seeds with a 95 % interval, "
    "and each seed's value. Gap: a campaign's peak (chosen on select) minus its end; floor: "
    "the gap that evaluation noise alone would show. Collapsed: share of campaigns with a gap above .2. Trace "
    "oracle: the best that online early stop, applied afterwards, would have handed over in a campaign, where the "
    "report split was evaluated there. Oracle: the best peak of the chain; of oracle: end over the best peak that "
    "any method's chain of that seed had. Evaluations: of the whole select split. Against the first method: mean "
    "difference over shared seeds, its interval, and the sign test's p after Holm's correction."
)


@dataclass(frozen=True, slots=True)
class HeadlineRow:
    """A method in the headline table. Only finished chains count; n is their number."""

    method: str
    end: Estimate
    gap: float
    floor: float
    collapsed: float
    trace_oracle: float | None
    oracle: float
    of_oracle: float
    steps: float
    evaluations: float
    per_100_steps: float
    difference: Estimate | None
    p_value: float | None

    def plain(self) -> dict[str, str]:
        """The row as text, in the order of the table's columns."""
        against = self.difference
        return {
            "method": self.method,
            "n": str(self.end.n),
            "end": _interval(self.end),
            "seeds": " ".join(f"{value:.3f}" for value in self.end.values),
            "gap": f"{self.gap:.3f}",
            "floor": f"{self.floor:.3f}",
            "collapsed": f"{self.collapsed:.0%}",
            "trace oracle": "-" if self.trace_oracle is None else f"{self.trace_oracle:.3f}",
            "oracle": f"{self.oracle:.3f}",
            "of oracle": f"{self.of_oracle:.0%}",
            "steps": f"{self.steps:.0f}",
            "evaluations": f"{self.evaluations:.1f}",
            "points/100 steps": f"{self.per_100_steps:.2f}",
            "difference": "-" if against is None else _interval(against, sign="+"),
            "p (Holm)": "-" if self.p_value is None else f"{self.p_value:.3f}",
        }


def headline(folder: str | Path) -> list[HeadlineRow]:
    """The headline table of a study folder: the methods with a finished chain, in the recipe's order.

    RunError: `folder` is not a study.
    """
    return _headline(read_study(folder))


def build_study_report(folder: str | Path) -> Path:
    """Write the page <folder>/report.html, and each figure and table beside it under <folder>/report/.

    Figures as PNG and PDF, tables as CSV and LaTeX. Returns the page. RunError: `folder` is not a study, or the
    disk is full.
    """
    study = read_study(folder)
    rows = [row.plain() for row in _headline(study)]
    out = study.folder / "report"
    out.mkdir(exist_ok=True)
    drawings = []
    for figure in FIGURES:
        drawn = figure.draw(study)
        if drawn is None:
            continue
        for ending in ("png", "pdf"):
            save_figure(drawn, out / f"{figure.name}.{ending}")
        drawings.append((figure.title, figure.caption, svg(drawn, figure.name)))
    tables = {"headline": rows, "campaigns": study.campaign_rows()}
    for name, content in tables.items():
        if content:
            atomic_write(out / f"{name}.csv", _as_csv(content).encode())
    if rows:
        atomic_write(out / "headline.tex", as_latex(rows).encode())
    environment = Environment(
        loader=PackageLoader("entrostat.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("study.html").render(
        title=study.name,
        palette=PALETTE,
        caption=CAPTION,
        rows=rows,
        warnings=sorted({row.end.note for row in _headline(study)}),
        unfinished=study.unfinished,
        drawings=drawings,
        samples=study.samples(),
        recipe=json.dumps(study.recipe, indent=2),
    )
    atomic_write(study.folder / "report.html", page.encode("utf-8", "backslashreplace"))
    return study.folder / "report.html"


def as_latex(rows: Sequence[dict[str, str]]) -> str:
    """Rows of text as a LaTeX tabular with booktabs rules."""
    head = list(rows[0])
    lines = [" & ".join(map(_escaped, values)) + r" \\" for values in (head, *(row.values() for row in rows))]
    columns = "l" + "r" * (len(head) - 1)
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([*body, r"\end{tabular}", ""])


def _headline(study: StudyData) -> list[HeadlineRow]:
    methods = [method for method in study.methods if method.finished]
    best = study.best_peaks()
    first = study.methods[0] if study.methods else None
    contrasts = [_contrast(first, method) for method in methods]
    tested = [contrast[1] for contrast in contrasts if contrast]
    corrected = iter(holm(tested) if tested else ())
    rows = []
    for method, contrast in zip(methods, contrasts, strict=True):
        ends = mean_interval([chain.end for chain in method.finished])
        campaigns = [row for chain in method.finished for row in chain.campaigns]
        steps = _mean(sum(row["steps"] for row in chain.campaigns) for chain in method.finished)
        rows.append(
            HeadlineRow(
                method.name,
                ends,
                gap=_mean(row["gap"] for row in campaigns),
                floor=_mean(row["noise_floor"] for row in campaigns),
                collapsed=_mean(row["collapsed"] for row in campaigns),
                trace_oracle=_known_mean([chain.trace_oracle for chain in method.finished]),
                oracle=_mean(chain.oracle for chain in method.finished),
                of_oracle=_mean(chain.end / best[chain.seed] for chain in method.finished if best[chain.seed]),
                steps=steps,
                evaluations=_mean(
                    sum(row["select_evaluations"] for row in chain.campaigns) for chain in method.finished
                ),
                per_100_steps=10_000 * ends.mean / steps if steps else 0.0,
                difference=contrast[0] if contrast else None,
                p_value=next(corrected) if contrast else None,
            )
        )
    return rows


def _contrast(first: MethodData | None, other: MethodData) -> tuple[Estimate, float] | None:
    """The difference of `other` from the first method over the seeds that both have finished."""
    if first is None or other is first:
        return None
    ends = {chain.seed: chain.end for chain in first.finished}
    pairs = [(chain.end, ends[chain.seed]) for chain in other.finished if chain.seed in ends]
    if not pairs:
        return None
    a, b = zip(*pairs, strict=True)
    return paired_interval(a, b), sign_test(a, b).p_value


def _interval(estimate: Estimate, sign: str = "") -> str:
    mean = f"{estimate.mean:{sign}.3f}"
    if estimate.low is None or estimate.high is None:
        return mean
    return f"{mean} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


def _mean(values: Any) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _escaped(text: str) -> str:
    return "".join(r"\textbackslash{}" if c == "\\" else "\\" + c if c in "&%$#_{}" else c for c in text)

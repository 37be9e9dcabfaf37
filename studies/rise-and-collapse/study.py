"""Tables and figures of the study, from the tables here of every chain.

entrostat chain recipes/chains/embedded.yaml --workers 2 --set seeds=[5]              # what is to be added
python studies/rise-and-collapse/study.py collect runs/rise-and-collapse              # into the tables here
python studies/rise-and-collapse/study.py read                                        # statistics, README, figures
"""

import argparse
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from tables import Row, cell, contrasts, differs, draw, fill, read_rows, table, write_rows

from entrostat.campaign.database import TABLES, read_results
from entrostat.recipe import load_study
from entrostat.report.study import FIGURES, HeadlineRow, headline
from entrostat.report.study_reading import read_study

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parents[1] / "recipes/chains/embedded.yaml"
SHOWN = ("rise-and-fall", "ends", "gaps", "efficiency", "cliffs")
KEPT = {"campaigns": HERE / "campaigns.csv", "evaluations": HERE / "evaluations.csv.gz"}
LEFT_OUT = ("pass_at_k", "distinct_solutions", "hard", "verdicts", "seconds")  # of an evaluation
LATE = 15


def collect(folders: Sequence[Path]) -> None:
    """Put the chains of `folders` in place of those of the same method and seed."""
    for name, file in KEPT.items():
        rows = read_rows(file) if file.exists() else []
        for folder in folders:
            new = [{k: v for k, v in row.items() if k not in _left_out(name)} for row in read_results(folder, name)]
            chains = {(row["method"], row["seed"]) for row in new}
            rows = [row for row in rows if (row["method"], row["seed"]) not in chains] + new
        write_rows(file, sorted(rows, key=lambda row: (row["method"], row["seed"], row["campaign"])), digits=6)


def _left_out(name: str) -> tuple[str, ...]:
    return LEFT_OUT if name == "evaluations" else ()


def read() -> None:
    """headline.csv, the README's tables and the figures, from campaigns.csv and evaluations.csv.gz."""
    tables = {name: read_rows(file) for name, file in KEPT.items()}
    with TemporaryDirectory() as place:
        folder = Path(place)
        recipe = load_study(RECIPE).model_copy(
            update={"seeds": tuple(sorted({r["seed"] for r in tables["campaigns"]}))}
        )
        (folder / "study.json").write_text(json.dumps(recipe.model_dump(mode="json")))
        _write_database(folder / "results.sqlite", tables)
        rows, study = headline(folder), read_study(folder)
    write_rows(HERE / "headline.csv", [row.plain() for row in rows])
    first, *others = recipe.methods
    write_rows(HERE / "contrasts.csv", ends(tables["campaigns"], [(other, first) for other in others]))
    made = {"headline": headline_table(rows), "facts": facts(tables["campaigns"])}
    fill(HERE / "README.md", made)
    for figure in FIGURES:
        if figure.name in SHOWN:
            draw(HERE / f"{figure.name}.png", tables, lambda _, drawn=figure.draw: drawn(study))


def headline_table(rows: Sequence[HeadlineRow]) -> str:
    """The headline table, narrower than the CSV."""
    head = ("method", "n", "end", "seeds", "of the oracle", "gap (noise floor)", "collapsed", "steps", "evaluations")
    lines = []
    for row in (row.plain() for row in rows):
        seeds = " ".join(f"{float(seed):.2f}" for seed in row["seeds"].split())
        gap = f"{row['gap']} ({row['floor']})"
        own = (row["method"], row["n"], row["end"], seeds, row["of oracle"], gap, row["collapsed"], row["steps"])
        lines.append((*own, row["evaluations"], row["points/100 steps"], row["difference"]))
    return table((*head, "per 100 steps", f"against {rows[0].method}"), lines)


def facts(campaigns: Sequence[Row]) -> str:
    """What the text says of single campaigns."""
    crest = [row for row in campaigns if row["method"] == "crest"]
    evaluations: Counter[int] = Counter()
    for row in crest:
        evaluations[row["seed"]] += row["select_evaluations"]
    fallen = [row for row in campaigns if row["collapsed"] and row["phase_score"] is not None]
    lost = sum(row["handed_over"] < row["start"] - 0.02 for row in crest)
    late = sum(row["onset"] >= LATE for row in fallen)
    steep = sum(0.2 <= row["phase_score"] <= 0.5 for row in fallen)
    phase = [fmean(row["phase_score"] for row in fallen if row["seed"] == seed) for seed in evaluations]
    lines = [
        ("end of crest's chains minus es-online's", differs(ends(campaigns, [("crest", "es-online")])[0])),
        ("evaluations in a chain of crest", cell(list(evaluations.values()), 1)),
        ("crest's campaigns that handed over more than .02 below their start", f"{lost} of {len(crest)}"),
        ("collapsed campaigns, evaluated at every step", str(len(fallen))),
        (f"of them, largest drop at step {LATE} or later", str(late)),
        ("of them, largest drop between .2 and .5 of the fall", str(steep)),
        ("their largest drop as a share of the fall, mean per seed", cell(phase)),
        ("campaign time of all chains, in seconds", f"{sum(row['seconds'] for row in campaigns):.0f}"),
    ]
    return table(("of single campaigns", ""), lines)


def ends(campaigns: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> list[Row]:
    """The paired differences of what the chains of two methods end with, corrected over all pairs."""
    last = max(row["campaign"] for row in campaigns)
    rows = [{**row, "condition": row["method"]} for row in campaigns if row["campaign"] == last]
    return contrasts(rows, [(one, other, "handed_over") for one, other in pairs])


def _write_database(path: Path, tables: dict[str, list[Row]]) -> None:
    with closing(sqlite3.connect(path)) as base, base:
        for name, rows in tables.items():
            base.execute(f"CREATE TABLE {name} ({', '.join(TABLES[name])})")
            columns = [column.split()[0] for column in TABLES[name]]
            marks = ", ".join(f":{column}" for column in columns)
            base.executemany(f"INSERT INTO {name} VALUES ({marks})", [{c: row.get(c) for c in columns} for row in rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["collect", "read"])
    parser.add_argument("folders", nargs="*", type=Path, help="study folders, for collect")
    args = parser.parse_args()
    if args.action == "read":
        read()
    else:
        collect(args.folders)

"""Tables and figures of the study: from study folders, and from the tables here for chains whose folders are gone.

    entrostat chain recipes/chains/embedded.yaml --workers 2 --set seeds=[5]        # what is to be added
    python studies/rise-and-collapse/study.py runs/rise-and-collapse

Writes campaigns.csv and evaluations.csv.gz (every row of every chain), headline.csv and the figures beside this file.
"""

import csv
import gzip
import io
import json
import shutil
import sqlite3
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from entrostat.campaign.database import TABLES, read_results
from entrostat.recipe import load_study
from entrostat.report.study import build_study_report

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parents[1] / "recipes/chains/embedded.yaml"
FIGURES = ("rise-and-fall", "ends", "gaps", "efficiency", "cliffs")
KEPT = {"campaigns": HERE / "campaigns.csv", "evaluations": HERE / "evaluations.csv.gz"}
LEFT_OUT = ("pass_at_k", "distinct_solutions", "hard", "verdicts", "seconds")  # of an evaluation

Row = dict[str, Any]


def main(folders: list[Path]) -> None:
    """Put the chains of `folders` in place of those of the same method and seed, and report on all."""
    tables = {table: _merged(_read(file), folders, table) for table, file in KEPT.items()}
    with TemporaryDirectory() as place:
        study = load_study(RECIPE)
        seeds = tuple(sorted({int(row["seed"]) for row in tables["campaigns"]}))
        content = study.model_copy(update={"seeds": seeds}).model_dump(mode="json")
        (Path(place) / "study.json").write_text(json.dumps(content))
        _write_database(Path(place) / "results.sqlite", tables)
        build_study_report(Path(place))
        for name in ("headline.csv", *(f"{figure}.png" for figure in FIGURES)):
            shutil.copy(Path(place) / "report" / name, HERE / name)
    for table, rows in tables.items():
        _write(KEPT[table], rows, LEFT_OUT if table == "evaluations" else ())


def _merged(rows: list[Row], folders: Iterable[Path], table: str) -> list[Row]:
    for folder in folders:
        new = read_results(folder, table)
        chains = {(row["method"], row["seed"]) for row in new}
        rows = [row for row in rows if (row["method"], int(row["seed"])) not in chains] + new
    return sorted(rows, key=lambda row: (row["method"], int(row["seed"]), int(row["campaign"])))


def _read(file: Path) -> list[Row]:
    if not file.exists():
        return []
    text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()
    return [{name: value or None for name, value in row.items()} for row in csv.DictReader(io.StringIO(text))]


def _write(file: Path, rows: list[Row], left_out: tuple[str, ...]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, [name for name in rows[0] if name not in left_out], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        short = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
        writer.writerow({name: value for name, value in short.items() if name not in left_out})
    plain = text.getvalue().encode()
    file.write_bytes(gzip.compress(plain, mtime=0) if file.suffix == ".gz" else plain)


def _write_database(path: Path, tables: dict[str, list[Row]]) -> None:
    with closing(sqlite3.connect(path)) as base, base:
        for table, rows in tables.items():
            base.execute(f"CREATE TABLE {table} ({', '.join(TABLES[table])})")
            names = [column.split()[0] for column in TABLES[table]]
            marks = ", ".join(f":{name}" for name in names)
            base.executemany(
                f"INSERT INTO {table} VALUES ({marks})", [{name: row.get(name) for name in names} for row in rows]
            )


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])

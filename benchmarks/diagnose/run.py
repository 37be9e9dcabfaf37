"""Every figure of benchmarks/diagnose, by one command.

    python benchmarks/diagnose/run.py all --public FOLDER --seed S    # measure everything, then read; 7 minutes of CPU
    python benchmarks/diagnose/run.py real --public FOLDER            # real logs alone
    python benchmarks/diagnose/run.py synthetic --seed S              # logs made to order alone
    python benchmarks/diagnose/run.py early                           # studies/early-warning alone
    python benchmarks/diagnose/run.py left-out --public FOLDER        # thresholds set without each source in turn
    python benchmarks/diagnose/run.py read                            # tables of README.md and figure.png from the data

FOLDER holds public logs with a `labels.csv`; without it the figures of public logs stay as they are. So do the figures
of a rival that is not installed (`rivals.py` says how to), and with `--only` those of the other tools, as long as the
logs are the same.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2] / "studies"))

import curves
import early
import left_out
import page
import real
import rivals
from shares import PLAIN, by_setting, name_of
from tables import read_rows, write_rows
from tools import Tool, entrostat, rules

Row = dict[str, Any]
ORDER = ("entrostat", "one-line rules", "entropy alone", "score alone", *rivals.RIVALS)
ENTROPY, FALLS = (0.5, 0.2, 0.1, 0.05), (0.1, 0.2, 0.5)


def keep(path: Path, rows: list[Row], same: Sequence[str]) -> None:
    """Write `rows`, and of the tools and settings that did not run what the file has of the same logs."""
    ran, known = by_setting(rows), {tuple(row[name] for name in same) for row in rows}
    kept = [row for row in (read_rows(path) if path.exists() else []) if (row["tool"], row["setting"]) not in ran]
    kept = [row for row in kept if tuple(row[name] for name in same) in known]
    write_rows(path, sorted([*rows, *kept], key=_place))


def _place(row: Row) -> tuple[int, float | int]:
    """Where a row stands: by its tool, then by the strictness or the order of the settings."""
    name, setting = name_of(row["tool"]), row["setting"]
    if name in rivals.RIVALS:
        return ORDER.index(name), [*rivals.RIVALS[name][2]].index(setting)
    return ORDER.index(name), float(setting.partition(" ")[2]) if setting.startswith("strictness") else 0


def ours() -> list[tuple[str, str, Tool]]:
    """(name, setting, tool): ours, the rules, and two of these by themselves."""
    return [
        ("entrostat", PLAIN, entrostat()),
        ("one-line rules", PLAIN, rules()),
        *(("entropy alone", f"below {x:g} of its start", rules(-math.log10(x), ["entropy-collapse"])) for x in ENTROPY),
        *(("score alone", f"{x:.0%} below its peak", rules(x / 0.2, ["rise-then-fall"])) for x in FALLS),
    ]


def real_logs(public: Path | None, only: str | None) -> None:
    logs = [*real.own(), *(real.public(public) if public else [])]
    if public:
        write_rows(page.PUBLIC, real.label_rows([log for log in logs if log.collection == "public"]))
    tools = [*(ours() if only != "rivals" else []), *(rivals.tools() if only != "ours" else [])]
    rows = [row for name, setting, tool in tools for row in real.result_rows(logs, name, setting, tool)]
    if not public:
        rows += [row for row in read_rows(page.REAL) if row["collection"] == "public"]
    keep(page.REAL, rows, ("collection", "log", "sha256"))


def synthetic_logs(seed: int, each: int, only: str | None) -> None:
    """Measure one tool and setting after the other, the defaults first; what is measured is kept as it comes."""
    own = curves.ours(seed, each) if only != "rivals" else iter(())
    others = curves.others(seed, each) if only != "ours" else iter(())
    for rows in chain(islice(own, 2), others, own):
        keep(page.MADE, rows, ("seed",))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["all", "real", "synthetic", "early", "left-out", "read"])
    parser.add_argument("--public", type=Path, help="A folder of public logs with a labels.csv.")
    parser.add_argument("--seed", type=int, default=0, help="Of the logs made to order: one that nobody has looked at.")
    parser.add_argument("--each", type=int, default=10, help="Logs made to order per failure and severity.")
    parser.add_argument("--only", choices=["ours", "rivals"])
    chosen = parser.parse_args()
    rivals.quiet()
    if chosen.what in ("all", "real"):
        real_logs(chosen.public, chosen.only)
    if chosen.what in ("all", "early"):
        write_rows(page.EARLY, early.early_rows())
    if chosen.what in ("all", "left-out") and chosen.public:
        write_rows(page.LEFT_OUT, left_out.left_out_rows([*real.own(), *real.public(chosen.public)]))
    if chosen.what in ("all", "synthetic"):
        synthetic_logs(chosen.seed, chosen.each, chosen.only)
    if chosen.what in ("all", "read"):
        page.read()


if __name__ == "__main__":
    main()

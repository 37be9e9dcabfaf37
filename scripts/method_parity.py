"""Hold a published method beside its authors' own code, on a CPU, in seconds, without installing anything of theirs.

    git clone https://github.com/zz-haooo/STEER /path/to/checkout
    python scripts/method_parity.py steer --source /path/to/checkout
    python scripts/method_parity.py --sources FOLDER --csv benchmarks/methods/parity.csv

The authors' function is pulled from the checkout by `ast` and run as it is. A line per comparison: the difference of
the two losses and the largest one of the two gradients, on the same tokens. With --sources, all methods are compared
whose repository lies in the folder under its own name, such as FOLDER/STEER, or, where a branch or a pull request is
meant, FOLDER/verl@pull-7022. Methods without public code are held in float64 against loops over their papers'
equations (`parity/equations.py`), with or without checkouts. Ends with status 1 where a gradient differs by more than
2e-6, or in float64 by more than 1e-12.
"""

import argparse
import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from parity.equations import cases as of_equations
from parity.equations import largest
from parity.published import cases as of_authors
from parity.published import differences
from parity.trainers import cases as of_trainers

MOST, MOST_IN_FLOAT64 = 2e-6, 1e-12


def main() -> int:
    """Print a line per comparison; returns 1 if one does not agree or nothing was compared, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", nargs="?", help="its name in a recipe; all if left out")
    parser.add_argument("--source", type=Path, help="a checkout of the authors' repository")
    parser.add_argument("--sources", type=Path, help="a folder with checkouts, each under its repository's name")
    parser.add_argument("--csv", type=Path, help="write the table here")
    args = parser.parse_args()
    rows, failed = [], 0

    def compared(
        method: str, setting: str, repository: str, file: str, found: tuple[float, float], most: float
    ) -> None:
        nonlocal failed
        loss, gradient = found
        failed += gradient > most
        rows.append((method, setting, repository, file, f"{loss:.1e}", f"{gradient:.1e}"))
        verdict = "DIFFERS" if gradient > most else ""
        print(f"{method:17} {setting:40} {repository:45} {loss:8.1e} {gradient:8.1e} {verdict}")

    for case in (*of_authors(), *of_trainers()):
        repository, at, reference = case.repository.partition("@")
        place = repository.rpartition("/")[2] + at + reference.replace("/", "-")
        source = args.source or (args.sources / place if args.sources else Path(place))
        if args.method in (None, case.method) and (source / case.file).exists():
            found = differences(case, source)
            compared(case.method, case.setting, case.repository, case.file, found, MOST)
    for equation in of_equations():
        if args.method in (None, equation.method):
            compared(equation.method, equation.setting, "", equation.source, largest(equation), MOST_IN_FLOAT64)
    print(f"{len(rows) - failed} of {len(rows)} comparisons agree")
    if args.csv:
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        with args.csv.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("method", "setting", "repository", "file", "loss", "gradient"))
            writer.writerows(rows)
    return int(failed > 0 or not rows)


if __name__ == "__main__":
    sys.exit(main())

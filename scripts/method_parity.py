"""Hold a published method beside its authors' own code, on a CPU, in seconds, without installing anything of theirs.

    git clone https://github.com/zz-haooo/STEER /path/to/checkout
    python scripts/method_parity.py steer --source /path/to/checkout
    python scripts/method_parity.py --sources FOLDER --csv benchmarks/methods/parity.csv

The authors' function is pulled from the checkout by `ast` and run as it is. A line per comparison: the difference of
the two losses and the largest one of the two gradients, on the same tokens. With --sources, all methods are compared
whose repository lies in the folder under its own name, such as FOLDER/STEER. Ends with status 1 where a gradient
differs by more than 2e-6.
"""

import argparse
import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from parity.published import cases as of_authors
from parity.published import differences
from parity.trainers import cases as of_trainers

MOST = 2e-6


def main() -> int:
    """Print a line per comparison; returns 1 if one does not agree or nothing was compared, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", nargs="?", help="its name in a recipe; all if left out")
    parser.add_argument("--source", type=Path, help="a checkout of the authors' repository")
    parser.add_argument("--sources", type=Path, help="a folder with checkouts, each under its repository's name")
    parser.add_argument("--csv", type=Path, help="write the table here")
    args = parser.parse_args()
    rows, failed = [], 0
    for case in (*of_authors(), *of_trainers()):
        place = case.repository.partition("@")[0].rpartition("/")[2]
        source = args.source or (args.sources / place if args.sources else Path(place))
        if args.method not in (None, case.method) or not (source / case.file).exists():
            continue
        loss, gradient = differences(case, source)
        verdict = "" if gradient <= MOST else "DIFFERS"
        failed += bool(verdict)
        rows.append((case.method, case.setting, case.repository, case.file, f"{loss:.1e}", f"{gradient:.1e}"))
        print(f"{case.method:17} {case.setting:40} {case.repository:45} {loss:8.1e} {gradient:8.1e} {verdict}")
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

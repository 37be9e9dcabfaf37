"""Hold a trainer's own loss beside its steered self, on a CPU, in seconds, without installing the trainer.

    git clone https://github.com/OpenRLHF/OpenRLHF /path/to/checkout
    python scripts/host_parity.py openrlhf --source /path/to/checkout

The host's functions are pulled from the checkout by `ast` and run as they are, on one batch, uneven micro-batches and
two ranks, all padded, in every setting, each correction on: under a control that changes nothing, under ID, a weighting
and a bonus. `parity.compare.compare` says what each is compared with. moved counts the tokens whose gradient the
control changes. The places that the adapter touches besides the loss are looked up in the checkout. Ends with status 1
where a difference is above 2e-6, nothing moved or a place is missing.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from parity.compare import compare
from parity.source import absent

HOSTS = ("areal", "miles", "nemo_rl", "openrlhf", "prime_rl", "roll", "skyrl", "slime")


def main() -> int:
    """Print a line per comparison; returns 1 if one does not agree or a place is missing, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host", choices=HOSTS)
    parser.add_argument("--source", type=Path, required=True, help="a checkout of the host")
    parser.add_argument("--only", default="", help="run the settings whose name contains this")
    args = parser.parse_args()
    print(f"{'setting':32} {'cut':22} {'control':9} {'loss':>9} {'gradient':>9} {'metrics':>9} {'moved':>6}")
    host = import_module(f"parity.{args.host}")
    rows = [row for case in host.cases(args.source) if args.only in case.name for row in compare(case)]
    for row in rows:
        numbers = (f"{value:9.1e}" if value is not None else " " * 9 for value in (row.loss, row.gradient, row.metrics))
        moved = "" if row.moved is None else row.moved
        verdict = "" if row.agrees else "DIFFERS"
        print(f"{row.case:32} {row.cut:22} {row.control:9} {' '.join(numbers)} {moved:>6} {verdict}")
    for control in dict.fromkeys(row.control for row in rows):
        values = [value for row in rows if row.control == control for value in (row.loss, row.gradient, row.metrics)]
        print(f"largest difference, {control}: {max(value for value in values if value is not None):.1e}")
    missing = absent(args.source, host.TOUCHED)
    for one in missing:
        print(f"the adapter touches what is not there: {one}")
    print(
        f"{args.host}: of the {sum(map(len, host.TOUCHED.values()))} places that the adapter touches besides the loss, "
        f"{len(missing)} are missing"
    )
    failed = sum(not row.agrees for row in rows)
    print(f"{args.host}: {len(rows) - failed} of {len(rows)} comparisons agree")
    return int(failed > 0 or bool(missing))


if __name__ == "__main__":
    sys.exit(main())

"""Five reward functions under entrostat's audit and under three other tools, into results.csv.

    python benchmarks/audit/run.py --peers /path/to/venv/bin/python

The environment of the peers holds rewardlint 0.1.0, rewardprobe 0.1.0 and gradecheck 0.1.0.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FUNCTIONS = {
    "last_number": "numbers.jsonl",
    "boxed": "numbers.jsonl",
    "tags": "numbers.jsonl",
    "exit_status": "code.jsonl",
    "keywords": "words.jsonl",
}
OWN_EXAMPLES = ("numbers.jsonl",)  # entrostat has arithmetic examples of its own


def entrostat(_: Path, name: str, examples: str) -> dict[str, Any]:
    given = [] if examples in OWN_EXAMPLES else ["--examples", examples]
    done = _run([sys.executable, "-m", "entrostat", "audit", f"rewards.py:{name}", "--json", *given])
    found = json.loads(done.stdout)
    kinds = [finding["kind"] for finding in found["findings"] if finding["severity"] != "note"]
    return {
        "found": kinds,
        "false positives": _share(found["false_positive"]),
        "false negatives": _share(found["false_negative"]),
        "calls": found["calls"],
        "status": done.returncode,
    }


def rewardlint(python: Path, name: str, _: str) -> dict[str, Any]:
    done = _run([python.parent / "rewardlint", "audit", f"rewards.py:{name}", "--format", "json", "--threshold", "0.5"])
    if not done.stdout.startswith("{"):
        return {"found": [], "status": done.returncode, "note": done.stderr.strip().splitlines()[0][:120]}
    found = json.loads(done.stdout)
    return {
        "found": found["attacks_that_work"],
        "false positives": f"{found['false_positive_rate']:.1%}",
        "false negatives": f"{found['false_negative_rate']:.1%}",
        "calls": found["n_cases"],
        "status": done.returncode,
    }


def rewardprobe(python: Path, name: str, examples: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        target = [f"rewards::{name}", "--dataset", examples, "--ci", "-o", out]
        done = _run([python.parent / "rewardprobe", "test", *target])
        if not out.exists():
            return {"found": [], "status": done.returncode, "note": done.stdout.strip()[-80:]}
        found = json.loads(out.read_text())
    findings = [finding for family in found["families"] for finding in family["findings"]]
    named = sorted({f"{finding['attack']} ({finding['severity']})" for finding in findings})
    return {"found": named, "calls": found["summary"]["attacks_total"], "status": done.returncode}


def gradecheck(python: Path, name: str, examples: str) -> dict[str, Any]:
    done = _run([python, "peer_gradecheck.py", name, examples])
    if done.returncode:
        return {"found": [], "status": done.returncode, "note": done.stderr.strip().splitlines()[-1][:80]}
    found = json.loads(done.stdout)
    fooled = [f"{each['attack']} ({each['verdict']})" for each in found if each["verdict"] in ("FOOLED", "WARN")]
    return {"found": fooled, "calls": len(found), "status": done.returncode}


TOOLS = {"entrostat": entrostat, "rewardlint": rewardlint, "rewardprobe": rewardprobe, "gradecheck": gradecheck}


def _run(command: list[Any]) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HERE), "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, cwd=HERE, env=environment, timeout=600, check=False)


def _share(rate: dict[str, Any]) -> str:
    if not rate["n"]:
        return ""
    return f"{rate['count'] / rate['n']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}] of {rate['n']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="the Python of the peers' virtual environment")
    parser.add_argument("--out", type=Path, default=HERE / "results.csv")
    arguments = parser.parse_args()
    names = ["function", "tool", "found", "false positives", "false negatives", "calls", "status", "seconds", "note"]
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        for function, examples in FUNCTIONS.items():
            for tool, audit in TOOLS.items():
                begun = time.monotonic()
                row = audit(arguments.peers, function, examples)
                row |= {"found": "; ".join(row["found"]), "seconds": round(time.monotonic() - begun, 1)}
                writer.writerow({"function": function, "tool": tool, **row})
                file.flush()
                print(function, tool, row, flush=True)


if __name__ == "__main__":
    main()

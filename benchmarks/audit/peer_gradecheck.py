"""gradecheck's attacks on completions, against one function; run by the Python of an environment that has gradecheck.

    python peer_gradecheck.py FUNCTION EXAMPLES.jsonl

gradecheck audits environments of verifiers, not functions: the function is given to it as the only one of a rubric.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import rewards
from gradecheck.completion_attacks import run_all
from gradecheck.verifiers_env import VerifiersEnv


def main() -> None:
    name, examples = sys.argv[1:]
    rows = [json.loads(line) for line in Path(examples).read_text().splitlines()]
    rubric = SimpleNamespace(funcs=[getattr(rewards, name)], weights=[1.0], rubrics=[])
    environment = SimpleNamespace(rubric=rubric, message_type="completion", parser=None, get_dataset=lambda: rows)
    print(json.dumps([vars(found) for found in run_all(VerifiersEnv(environment, sample=len(rows)))], default=str))


if __name__ == "__main__":
    main()

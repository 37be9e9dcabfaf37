"""A samples file becomes verdicts and counts, once, however often the run is interrupted."""

from __future__ import annotations

import json

import pytest

from entrostat.grading import Outcome, SamplesError, Verdict, grade_file
from entrostat.tasks import Call, Exchange, ProgramTask, Task

PROMPT = "def solve(x):\n    '''Add one.'''\n"
ADD = Task("add", PROMPT, "solve", (Call((1,), 2), Call((5,), 6)), preamble=PROMPT)
ECHO = ProgramTask("echo", "Print the input.", (Exchange("a\n", "a\n"),))
SAMPLES = [
    {"task_id": "add", "solution": "def solve(x):\n    return x + 1"},
    {"task_id": "add", "completion": "    return x + 1\n"},
    {"task_id": "add", "completion": "Sure:\n```python\ndef solve(x):\n    return x + 1\n```"},
    {"task_id": "add", "completion": "    return x - 1\n"},
    {"task_id": "add", "solution": "no idea"},
    {"task_id": "echo", "solution": "print(input())"},
    {"task_id": "echo", "completion": "print('b')"},
]


@pytest.fixture
def samples(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(map(json.dumps, SAMPLES)) + "\n")
    return path


class Watched:
    """A grader that counts what it is asked, and fails as told."""

    def __init__(self, grader, verdicts=None):
        self.grader, self.verdicts, self.asked = grader, verdicts, 0

    def grade(self, pairs):
        pairs = list(pairs)
        self.asked += len(pairs)
        return self.grader.grade(pairs) if self.verdicts is None else [self.verdicts(i) for i in range(len(pairs))]


def test_each_sample_is_graded_and_counted_by_task(grader, samples):
    seen = []
    report = grade_file(samples, [ADD, ECHO], grader, progress=lambda done, total: seen.append((done, total)))
    assert report.counts == {"add": (5, 3), "echo": (2, 1)}
    assert report.outcomes == {"passed": 4, "wrong": 2, "no code": 1}
    assert report.infrastructure_errors == 0
    assert seen == [(7, 7)]
    lines = [json.loads(line) for line in report.verdicts.read_text().splitlines()]
    assert [line["passed"] for line in lines] == [True, True, True, False, False, True, False]


def test_what_has_a_verdict_is_not_graded_again(grader, samples):
    first = grade_file(samples, [ADD, ECHO], grader)
    watched = Watched(grader)
    assert grade_file(samples, [ADD, ECHO], watched) == first
    assert watched.asked == 0


def test_a_torn_line_and_a_changed_sample_are_graded_again(grader, samples):
    first = grade_file(samples, [ADD, ECHO], grader)
    content = first.verdicts.read_bytes()
    first.verdicts.write_bytes(content[:-20])
    changed = [*SAMPLES[:3], {"task_id": "add", "completion": "    return 1 + x\n"}, *SAMPLES[4:]]
    samples.write_text("\n".join(map(json.dumps, changed)))
    watched = Watched(grader)
    again = grade_file(samples, [ADD, ECHO], watched)
    assert watched.asked == 2
    assert again.counts == {"add": (5, 4), "echo": (2, 1)}


def test_an_infrastructure_error_is_no_verdict_and_is_tried_again_the_next_time(grader, samples):
    broken = Verdict(Outcome.INFRASTRUCTURE_ERROR, "out of memory")
    half = Watched(grader, lambda i: broken if i % 2 else Verdict(Outcome.PASSED))
    report = grade_file(samples, [ADD, ECHO], half)
    assert report.infrastructure_errors == 3
    assert report.counts == {"add": (3, 3), "echo": (1, 1)}
    watched = Watched(grader)
    assert grade_file(samples, [ADD, ECHO], watched).infrastructure_errors == 0
    assert watched.asked == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1: not a JSON record"),
        ("[1]", "line 1: not a JSON record"),
        ('{"task_id": 5, "solution": ""}', "line 1: not a JSON record"),
        ('{"task_id": "other", "solution": ""}', "'other', which is not among the 2 tasks"),
        ('{"task_id": "add"}', "'add' has neither"),
        ('{"task_id": "add", "solution": null}', "'add' has neither"),
    ],
)
def test_a_line_that_cannot_be_graded_is_named(grader, samples, line, said):
    samples.write_text(line)
    with pytest.raises(SamplesError, match=said):
        grade_file(samples, [ADD, ECHO], grader)


def test_a_missing_file_is_named(grader, tmp_path):
    with pytest.raises(SamplesError, match=r"none\.jsonl: cannot be read"):
        grade_file(tmp_path / "none.jsonl", [ADD], grader)

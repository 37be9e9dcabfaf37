"""A samples file becomes verdicts and counts, once, however often the run is interrupted."""

from __future__ import annotations

import gzip
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


@pytest.mark.parametrize("shape", ["byte order mark", "list", "gzipped", "number", "digits"])
def test_samples_are_read_in_every_shape(grader, tmp_path, shape):
    task = Task("Mbpp/11", "", "f", (Call((1,), 2),))
    record = {"task_id": {"number": 11, "digits": "11"}.get(shape, "Mbpp/11"), "completion": "def f(x): return 2 * x"}
    text = json.dumps([record] if shape == "list" else record).encode()
    path = tmp_path / "samples.json"
    path.write_bytes(
        gzip.compress(text) if shape == "gzipped" else b"\xef\xbb\xbf" * (shape == "byte order mark") + text
    )
    assert grade_file(path, [task], grader).counts == {"Mbpp/11": (1, 1)}


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
        ("{", "line 1: is not JSON"),
        ("[1]", "record 1: is '1', where a JSON record"),
        ('{"task_id": [5], "solution": ""}', 'line 1: lacks "task_id" .a text or a whole number'),
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


@pytest.mark.parametrize(
    "text",
    [
        "x = '\u2028\u2029\x85\x0b\x0c\x1c'",
        "\x1b[2J\x1b[31m",
        "\ud800",
        "x" * 2_000_000,
        "\x00",
        "'''" * 1000,
        "(" * 5000,
    ],
)
def test_a_hostile_sample_is_one_sample_with_one_verdict(grader, samples, text):
    """Line separators that JSON leaves raw, terminal escapes, half characters, long lines."""
    right = "def solve(x):\n    return x + 1\n"
    records = [{"task_id": "add", "solution": right + text}, {"task_id": "add", "solution": right}]
    lines = [json.dumps(record, ensure_ascii="\ud800" in text) for record in records]
    samples.write_text("\n".join(lines), encoding="utf-8")
    report = grade_file(samples, [ADD], grader)
    assert report.counts["add"][0] == 2
    assert report.infrastructure_errors == 0
    written = report.verdicts.read_text(encoding="ascii").split("\n")
    assert len(written) == 3
    assert all(line.isprintable() for line in written)
    assert json.loads(written[1])["passed"]


def test_samples_in_another_encoding_are_named(grader, samples):
    samples.write_bytes(b'{"task_id": "add", "solution": "\xff"}')
    with pytest.raises(SamplesError, match="cannot be read as UTF-8"):
        grade_file(samples, [ADD], grader)


@pytest.mark.parametrize(
    "content",
    [
        b"my notes",
        b"my notes\n",
        b'{"task_id": "add"}\n',
        b"[1]\n",
        b"\xff\xfe\n",
        b'{"key": 1, "outcome": []}\n',
        b'{"key": "1", "outcome": "passed"}\nmy notes',
    ],
)
def test_a_file_that_holds_no_verdicts_stays_as_it_is(grader, samples, tmp_path, content):
    other = tmp_path / "other"
    other.write_bytes(content)
    with pytest.raises(SamplesError, match="other"):
        grade_file(samples, [ADD, ECHO], grader, verdicts=other)
    assert other.read_bytes() == content


def test_the_samples_themselves_are_never_taken_for_verdicts(grader, samples):
    before = samples.read_bytes()
    with pytest.raises(SamplesError, match="not a verdict"):
        grade_file(samples, [ADD, ECHO], grader, verdicts=samples)
    assert samples.read_bytes() == before


def test_verdicts_do_not_go_where_a_link_leads(grader, samples, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("no verdicts")
    samples.with_suffix(".verdicts.jsonl").symlink_to(precious)
    with pytest.raises(SamplesError, match="is a link"):
        grade_file(samples, [ADD, ECHO], grader)
    assert precious.read_text() == "no verdicts"

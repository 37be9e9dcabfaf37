import errno
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entrostat.runs import Run, RunError, atomic_path, atomic_write
from entrostat.runs.files import iterate_lines

RECIPE = {"model": "embedded", "update": {"lr": 1e-4, "betas": [0.9, 0.95]}}


def new_run(path: Path) -> Run:
    return Run.create(path, RECIPE, seed=3, hashes={"tasks": "ab12"}, versions={"torch": "2.13.0"})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return new_run(tmp_path / "run")


def evaluation(step: int, split: str = "select") -> dict:
    return {"step": step, "split": split, "results": [["t1", 4, 1]], "seconds": 0.5}


def test_a_run_reads_back_as_written(run: Run):
    run.log_step({"step": 1, "loss": 0.1 + 0.2, "bounds": None})
    run.log_eval(evaluation(1))
    run.log_eval(evaluation(1, "report"))
    run.log_samples(1, "train", [{"task": "t1", "prompt": "p", "completion": "\ud800é\n", "outcome": "wrong"}])
    run.note_decision({"step": 1, "kind": "stop", "cause": "no new peak"})
    again = Run.open(run.path)
    assert again == run
    assert again.steps() == [{"step": 1, "loss": 0.1 + 0.2, "bounds": None}]
    assert again.evals("report") == [evaluation(1, "report")]
    assert len(again.evals()) == 2
    assert again.samples(1) == again.samples()
    assert again.samples()[0]["completion"] == "\ud800é\n"
    assert again.decisions() == [{"step": 1, "kind": "stop", "cause": "no new peak"}]


def test_creating_the_same_run_takes_it_up_again(run: Run):
    run.log_step({"step": 1})
    assert new_run(run.path).steps() == [{"step": 1}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": {**RECIPE, "model": "other"}}, 'recipe.model is "embedded" there and "other" here'),
        (
            {"recipe": {"model": "embedded", "update": {"lr": 2e-4, "betas": [0.9, 0.95]}}},
            "recipe.update.lr is 0.0001 there and 0.0002 here",
        ),
        ({"recipe": {**RECIPE, "steps": 5}}, "recipe.steps is absent there and 5 here"),
        ({"recipe": {"model": "embedded"}}, "recipe.update is "),
        ({"seed": 4}, "seed is 3 there and 4 here"),
        ({"hashes": {"tasks": "cd"}}, 'hashes.tasks is "ab12" there and "cd" here'),
    ],
)
def test_a_folder_of_another_run_is_refused_with_the_first_difference(run: Run, change: dict, message: str):
    arguments = {"recipe": RECIPE, "seed": 3, "hashes": {"tasks": "ab12"}, "versions": {"torch": "2.13.0"}, **change}
    with pytest.raises(RunError) as refusal:
        Run.create(run.path, **arguments)
    assert message in str(refusal.value)
    assert "--out" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert Run.open(run.path) == run


def test_tuples_and_lists_in_a_recipe_are_the_same(tmp_path: Path):
    Run.create(tmp_path / "r", {"betas": (1, 2)}, 0, {}, {})
    assert Run.create(tmp_path / "r", {"betas": [1, 2]}, 0, {}, {}).recipe == {"betas": [1, 2]}


def test_newer_versions_may_take_up_a_run_and_the_first_ones_stand(run: Run):
    again = Run.create(run.path, RECIPE, 3, {"tasks": "ab12"}, {"torch": "3.0"})
    assert again.versions == {"torch": "2.13.0"}


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="not a run"):
        new_run(tmp_path)
    with pytest.raises(RunError, match="not a run"):
        new_run(tmp_path / "thesis.tex")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["{", "", "[]", "3", '{"recipe": {}}'])
def test_a_damaged_header_is_a_plain_error(run: Run, content: str):
    (run.path / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"run\.json"):
        Run.open(run.path)


def test_a_folder_that_is_no_run_is_a_plain_error(tmp_path: Path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(RunError, match="not a run folder"):
            Run.open(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), {1, 2}, object()])
def test_a_value_that_json_lacks_is_refused_by_the_name_of_its_field(run: Run, bad: object):
    with pytest.raises(RunError, match=r"regions\.E1\.flow"):
        run.log_step({"step": 1, "regions": {"E1": {"flow": bad}}})
    with pytest.raises(RunError, match=r"results\[1\]\[2\]"):
        run.log_eval({"step": 1, "split": "select", "results": [["a", 4, 1], ["b", 4, bad]]})
    assert run.trace() == {"steps": [], "evals": []}


@pytest.mark.parametrize("line", [{}, {"step": -1}, {"step": "1"}, {"step": True}, {"step": 1.0}, {"step": None}])
def test_a_line_without_a_step_number_is_refused(run: Run, line: dict):
    with pytest.raises(RunError, match="step"):
        run.log_step(line)


@pytest.mark.parametrize("field", ["task", "prompt", "completion", "outcome"])
def test_a_sample_that_lacks_a_field_is_refused(run: Run, field: str):
    sample = {"task": "t", "prompt": "p", "completion": "c", "outcome": "wrong"}
    del sample[field]
    with pytest.raises(RunError, match=field):
        run.log_samples(1, "train", [sample])
    assert run.samples() == []


def test_a_folder_that_may_not_be_read_or_written_is_a_plain_error(run: Run, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    for method in ("read_bytes", "mkdir"):
        monkeypatch.setattr(Path, method, refuse)
    with pytest.raises(RunError, match="Permission denied"):
        Run.open(run.path)
    with pytest.raises(RunError, match="Permission denied"):
        _ = run.checkpoints_dir


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_log_cut_at_any_byte_keeps_its_whole_lines_and_goes_on(run: Run, data: st.DataObject):
    log = run.path / "steps.jsonl"
    log.unlink(missing_ok=True)
    for step in range(1, 4):
        run.log_step({"step": step, "loss": step / 7, "note": "é"})
    content = log.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    log.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    assert [line["step"] for line in run.steps()] == list(range(1, whole + 1))
    run.log_step({"step": 99})
    assert [line["step"] for line in run.steps()] == [*range(1, whole + 1), 99]


def test_damage_in_the_middle_is_an_error_that_names_the_line(run: Run):
    run.log_step({"step": 1})
    with (run.path / "steps.jsonl").open("a") as log:
        log.write("garbage\n[1]\n")
    run.log_step({"step": 2})
    with pytest.raises(RunError, match=r"steps\.jsonl, line 2"):
        run.steps()


def test_rewinding_forgets_all_that_came_after_and_nothing_else(run: Run):
    for step in range(5):
        run.log_step({"step": step})
        run.log_eval(evaluation(step))
        run.log_samples(step, "train", [{"task": "t", "prompt": "", "completion": "", "outcome": "wrong"}])
        run.note_decision({"step": step, "kind": "stop", "cause": "c"})
    run.rewind(2)
    for lines in (run.steps(), run.evals(), run.samples(), run.decisions()):
        assert [line["step"] for line in lines] == [0, 1, 2]
    run.rewind(7)
    assert len(run.steps()) == 3


def test_rewinding_drops_a_torn_line_too(run: Run):
    run.log_step({"step": 1})
    with (run.path / "steps.jsonl").open("a") as log:
        log.write('{"step": 2, "lo')
    run.rewind(1)
    run.log_step({"step": 2})
    assert [line["step"] for line in run.steps()] == [1, 2]


def test_samples_of_a_step_and_split_replace_earlier_ones(run: Run):
    for outcome in ("wrong", "passed"):
        run.log_samples(10, "train", [{"task": "t", "prompt": "", "completion": "", "outcome": outcome}])
    assert [sample["outcome"] for sample in run.samples(10)] == ["passed"]


def test_samples_come_in_order_of_their_steps(run: Run):
    for step in (1_000_000, 2, 999_999):
        run.log_samples(step, "train", [{"task": "t", "prompt": "", "completion": "", "outcome": "wrong"}])
    assert [sample["step"] for sample in run.samples()] == [2, 999_999, 1_000_000]


def test_a_decision_taken_again_after_a_resume_stands_once(run: Run):
    for _ in range(2):
        run.note_decision({"step": 4, "kind": "stop", "cause": "no new peak for 3 steps"})
    assert len(run.decisions()) == 1


def test_traces_differ_in_nothing_but_time(tmp_path: Path):
    slow, fast = (new_run(tmp_path / name) for name in ("slow", "fast"))
    for run, seconds in ((slow, 9.0), (fast, 0.1)):
        run.log_step({"step": 1, "loss": 0.5, "seconds": {"rollout": seconds}})
        run.log_eval({**evaluation(1), "seconds": seconds})
    assert slow.trace() == fast.trace()
    assert slow.steps() != fast.steps()
    fast.log_step({"step": 2, "loss": 0.5})
    assert slow.trace() != fast.trace()


@contextmanager
def file_size_limit(size: int):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_a_plain_error_and_the_folder_stays_whole(run: Run):
    run.log_step({"step": 1})
    size = (run.path / "steps.jsonl").stat().st_size
    with file_size_limit(size + 20):
        with pytest.raises(RunError, match="no space left"):
            run.log_step({"step": 2, "note": "x" * 200})
        with pytest.raises(RunError, match="no space left"):
            run.log_samples(2, "train", [{"task": "t", "prompt": "x" * 200, "completion": "", "outcome": "wrong"}])
    assert (run.path / "steps.jsonl").stat().st_size == size
    assert run.steps() == [{"step": 1}]
    assert list((run.path / "samples").iterdir()) == []
    run.log_step({"step": 2})
    assert len(run.steps()) == 2


def test_replacing_a_file_is_all_or_nothing(tmp_path: Path):
    target = tmp_path / "weights"
    atomic_write(target, b"old")

    def half_written():
        with atomic_path(target) as scratch:
            scratch.write_bytes(b"half of the ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half_written()
    assert target.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]


def test_a_refused_write_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(source: object, target: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RunError, match="Permission denied"):
        atomic_write(tmp_path / "file", b"")


WRITER = """
import sys
from entrostat.runs import Run
run = Run.open(sys.argv[1])
print("ready", flush=True)
for step in range(1, 10**9):
    run.log_step({"step": step, "note": "x" * 5000})
"""


def test_a_killed_writer_leaves_a_log_of_whole_lines_in_order(run: Run):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "ready\n"
    while len(run.steps()) < 20:
        pass
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    steps = [line["step"] for line in run.steps()]
    assert steps == list(range(1, len(steps) + 1))
    run.rewind(10)
    assert [line["step"] for line in run.steps()] == list(range(1, 11))


def test_a_line_that_is_finished_while_it_is_read_is_left_out():
    class Growing:
        """A log that ended in the middle of a line when the reader came there, and then grew."""

        def open(self, mode: str):
            return nullcontext(iter([b'{"step": 1}\n', b'{"step": ', b"2}\n", b'{"step": 3}\n']))

    assert list(iterate_lines(Growing())) == [{"step": 1}]


HOLDER = """
import sys, time
from entrostat.runs import Run
with Run.open(sys.argv[1]).sole_writer():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_has_one_writer_at_a_time_and_a_killed_one_lets_go(run: Run):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunError, match="another process is writing"), run.sole_writer():
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with run.sole_writer():
        run.log_step({"step": 1})


def test_a_header_is_plain_json_for_a_person(run: Run):
    header = json.loads((run.path / "run.json").read_text())
    assert header == {"recipe": RECIPE, "seed": 3, "hashes": {"tasks": "ab12"}, "versions": {"torch": "2.13.0"}}


def test_old_names_of_fields_are_read_as_the_new_ones(run: Run):
    (run.path / "steps.jsonl").write_text('{"step":1,"kl":0.25}\n{"step":2,"kl":0.5,"kl_old":0.125}\n')
    assert run.steps() == [{"step": 1, "kl_old": 0.25}, {"step": 2, "kl": 0.5, "kl_old": 0.125}]

from pathlib import Path

import pytest

from entrostat.report import read_run, read_runs, summary_rows
from entrostat.report.reading import series
from entrostat.report.samples import browser_data, side_by_side
from entrostat.runs import Run, RunError


def test_a_row_tells_the_rise_and_the_fall(make):
    (row,) = summary_rows([make().path])
    run = read_run(make("again").path, "again")
    assert row.run == "run"
    assert row.start == run.report.pass_at_1[0]
    assert row.peak == run.report.at(run.select.peak_step)
    assert row.peak_step == run.select.peak_step
    assert row.end == row.handed_over == 0.0
    assert row.gap == row.peak - row.end
    assert row.collapsed
    assert 0.0 < row.noise_floor < 0.1 < row.gap
    assert (row.entropy_start, row.entropy_end) == (run.steps[0]["entropy"], run.steps[-1]["entropy"])
    assert row.steps == 40


def test_a_run_that_rolled_back_hands_over_its_peak(make):
    (row,) = summary_rows([make(stop=26).path])
    assert row.steps == 26
    assert row.handed_over == row.peak != row.end


def test_a_run_between_its_two_evaluations_is_judged_by_the_steps_that_have_both(make):
    run = make(steps=10, collapse=False)
    before = summary_rows([run.path])
    run.log_eval({"step": 11, "split": "select", "results": [["task-0", 16, 16]]})
    assert summary_rows([run.path]) == before


def test_a_row_of_an_empty_run_is_empty(make):
    (row,) = summary_rows([make(steps=0, splits=()).path])
    assert row.steps == 0
    assert {row.start, row.peak, row.end, row.gap, row.noise_floor, row.entropy_start, row.handed_over} == {None}


def test_a_run_without_a_select_split_has_no_peak(make):
    (row,) = summary_rows([make(splits=("report",)).path])
    assert row.start is not None
    assert (row.peak, row.gap, row.collapsed) == (None, None, None)


def test_rows_keep_the_order_of_the_runs(make):
    paths = [make(name, steps=2).path for name in ("c", "a", "b")]
    assert [row.run for row in summary_rows(paths)] == ["c", "a", "b"]


def test_runs_of_one_name_are_told_apart_by_their_folders(make):
    paths = [make(f"{method}/seed-0", steps=1).path for method in ("naive", "es")]
    assert [run.name for run in read_runs(paths)] == ["naive/seed-0", "es/seed-0"]


def test_a_folder_that_is_no_run_is_a_plain_error(tmp_path: Path):
    with pytest.raises(RunError, match="not a run folder"):
        summary_rows([tmp_path])


def test_a_series_skips_what_is_not_a_number():
    lines = [
        {"step": 1, "a": {"b": 0.5}},
        {"step": 2, "a": {"b": None}},
        {"step": 3, "a": "text"},
        {"step": 4},
        {"step": 5, "a": {"b": 2}},
    ]
    assert series(lines, "a", "b") == ([1, 5], [0.5, 2.0])


def test_samples_stand_side_by_side_for_the_same_tasks(make):
    run = read_run(make().path, "run")
    tasks = side_by_side(run, limit=3)
    assert [task.task for task in tasks] == ["task-0", "task-1", "task-2"]
    for task in tasks:
        assert [(c.moment, c.step) for c in task.completions] == [
            ("start", 0),
            ("peak", run.collapse.peak_step),
            ("end", 40),
        ]
        for completion in task.completions:
            assert any(
                sample["completion"] == completion.text and sample["outcome"] == completion.outcome
                for sample in run.run.samples(completion.step)
                if sample["task"] == task.task
            )


def test_a_task_that_lacks_a_moment_is_left_out(make):
    run = make(steps=4)
    kept = [sample for sample in run.samples(4) if sample["task"] != "task-1"]
    run.log_samples(4, "report", kept)
    assert "task-1" not in [task.task for task in side_by_side(read_run(run.path, "run"))]


def test_a_run_without_samples_shows_none(make):
    assert side_by_side(read_run(make(steps=3, splits=()).path, "run")) == []


def test_training_samples_serve_where_no_others_were_kept(make):
    run = make(steps=3, splits=())
    for step in (1, 3):
        run.log_samples(step, "train", [{"task": "t", "prompt": "p", "completion": "c", "outcome": "wrong"}])
    (task,) = side_by_side(read_run(run.path, "run"))
    assert [(c.moment, c.step) for c in task.completions] == [("start", 1), ("end", 3)]


def test_a_folder_named_twice_is_one_run(make, tmp_path):
    path = make().path
    (tmp_path / "link").symlink_to(path)
    assert [run.name for run in read_runs([path, tmp_path / "link", f"{path}/"])] == [path.name]


def test_samples_stay_on_disk_until_they_are_shown(make, monkeypatch):
    run = read_run(make(tokens=True).path, "run")
    whole = list(run.run.samples())
    assert sum(run.sample_counts.values()) == len(whole)
    read = []
    streamed = Run.iterate_samples

    def counted(self, step=None, split=None):
        for sample in streamed(self, step, split):
            read.append((sample["step"], sample["split"], sample["task"]))
            yield sample

    monkeypatch.setattr(Run, "iterate_samples", counted)
    kept = browser_data([run], 40_000)["runs"][0]
    assert kept["of"] == len(whole) > len(read)
    assert len(kept["samples"]) in (len(read), len(read) - 1)

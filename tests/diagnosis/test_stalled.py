"""A log that stops growing, by a clock that is not waited for."""

import json
import os

import pytest

from entrostat.diagnosis.follow import Follower

START = 1_700_000_000.0


class Run:
    """A log that is written row by row at given times, and followed."""

    def __init__(self, folder, end=None, **extra):
        self.file, self.extra, self.rows, self.now = folder / "log.jsonl", extra, 0, START
        self.follower = Follower(self.file, end, clock=lambda: self.now)

    def write(self, count=1):
        self.rows += count
        rows = [{"step": i + 1, "reward": 0.3 + 0.01 * i, **self.extra} for i in range(self.rows)]
        self.file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.utime(self.file, (self.now, self.now))

    def after(self, seconds):
        self.now += seconds
        return [(each.kind, each.severity) for each in self.follower.look()]


@pytest.fixture
def grown(tmp_path):
    """Ten rows, one every 40 seconds."""
    run = Run(tmp_path)
    for _ in range(10):
        run.write()
        assert run.after(0) == []
        run.now += 40
    return run


def test_a_log_that_stops_growing_is_told_once_with_its_pace(grown):
    assert grown.after(350) == []
    assert grown.after(20) == [("stalled", "warning")]
    assert grown.follower.stalled.evidence["usual_seconds"] == 40
    assert "step 10" in grown.follower.stalled.summary
    assert grown.after(5000) == []


def test_a_log_that_grows_again_has_not_ended_and_its_next_stop_is_told_anew(grown):
    assert grown.after(500) == [("stalled", "warning")]
    grown.write()
    assert grown.after(0) == []
    assert grown.follower.stalled is None
    assert grown.after(3 * 540 - 1) == []  # it was quiet for 540 seconds before, and went on
    assert grown.after(5) == [("stalled", "warning")]


def test_a_run_at_its_last_step_is_not_stalled(tmp_path):
    run = Run(tmp_path, end=4)
    for _ in range(4):
        run.write()
        run.after(0)
        run.now += 40
    assert run.after(10**6) == []


def test_the_time_of_a_step_tells_the_pace_of_a_log_that_was_not_seen_growing(tmp_path):
    run = Run(tmp_path, step_time=30.0)
    run.write(20)
    assert run.after(250) == []
    assert run.after(60) == [("stalled", "note")]  # it may have ended long ago


def test_without_times_nothing_is_said_of_a_log_that_was_not_seen_growing(tmp_path):
    run = Run(tmp_path)
    run.write(20)
    assert run.after(10**6) == []


def test_a_fast_log_is_given_two_minutes(tmp_path):
    run = Run(tmp_path)
    for _ in range(10):
        run.write()
        run.after(0)
        run.now += 1
    assert run.after(100) == []
    assert run.after(30) == [("stalled", "warning")]


def test_a_file_that_is_touched_without_a_row_does_not_count_as_progress(grown):
    grown.now += 300
    os.utime(grown.file, (grown.now, grown.now))
    assert grown.after(70) == [("stalled", "warning")]

"""What a tracker's own reader gives back is what the engine wrote."""

import os
import subprocess
import sys

import pytest

from entrostat.diagnosis import read_log
from entrostat.integrations.trackers import TensorBoard, TrackerError, WeightsAndBiases, scalars

STEPS = [{"step": k, "entropy": 0.5 / k, "phase": "hold", "regions": {"E1": {"flow": -0.1 * k}}} for k in range(1, 4)]
EVALUATION = {"step": 3, "split": "select", "results": [["a", 4, 2]], "pass_at": {"1": 0.5}}


def test_numbers_get_names_of_their_own_and_text_is_left_out():
    assert scalars(STEPS[0]) == {"entropy": 0.5, "regions/E1/flow": -0.1}
    assert scalars(EVALUATION) == {"select/pass_at/1": 0.5}


def tracked(tracker):
    for line in [*STEPS, EVALUATION]:
        tracker(line)
    tracker.close()


def test_tensorboard_gives_back_the_lines(tmp_path):
    pytest.importorskip("tensorboard")
    tracked(TensorBoard(tmp_path))
    log = read_log(tmp_path / "tensorboard")
    assert [(step, values["entropy"]) for step, values in log.rows] == [(k, pytest.approx(0.5 / k)) for k in (1, 2, 3)]


def test_weights_and_biases_gives_back_the_lines_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracked(WeightsAndBiases(tmp_path))
    wandb.teardown()  # the library's own process writes the file; it is whole when that has ended
    log = read_log(tmp_path)
    assert [(step, values["entropy"]) for step, values in log.rows] == [(k, 0.5 / k) for k in (1, 2, 3)]


def test_trackio_gives_back_the_lines(tmp_path):
    """In a process of its own: the library reads where its data lives when it is imported."""
    pytest.importorskip("trackio")
    code = f"""
from pathlib import Path
from entrostat.integrations.trackers import Trackio
tracker = Trackio(Path({str(tmp_path / "run")!r}))
for step in (1, 2, 3):
    tracker({{"step": step, "entropy": 0.5 / step}})
tracker.close()
from trackio.sqlite_storage import SQLiteStorage
print([row["entropy"] for row in SQLiteStorage.get_logs("entrostat", "run") if "entropy" in row])
"""
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == str([0.5, 0.25, 0.5 / 3]), done.stderr


def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrackerError, match=r"entrostat\[wandb\]"):
        WeightsAndBiases(tmp_path)

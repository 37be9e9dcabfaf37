"""What a tracker's own reader gives back is what the engine wrote, once, also of a run that was killed and resumed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from entrostat.campaign.single import AFTER_ROLL_BACK
from entrostat.diagnosis import read_log
from entrostat.integrations.trackers import LIBRARIES, TrackerError, Trackers, plain_settings, scalars
from entrostat.runs import Run

STEPS = [{"step": k, "entropy": 0.5 / k, "phase": "hold", "regions": {"E1": {"flow": -0.1 * k}}} for k in range(1, 4)]
EVALUATION = {"step": 3, "split": "select", "results": [["a", 4, 2]], "pass_at": {"1": 0.5}}
LATE = {"step": 1, "at": 3, "split": "report", "results": [["a", 4, 1]], "pass_at": {"1": 0.25}}
CONFIG = {"name": "grpo", "update": {"learning_rate": 1e-3, "kl": None, "betas": [0.9, 0.99]}, "early": True}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("WANDB", "MLFLOW", "COMET", "SWANLAB", "TRACKIO"))]:
        monkeypatch.delenv(name)
    record = Run.create(tmp_path / "grpo", CONFIG, 0, {}, {})
    record.log_samples(
        3, "select", [{"task": "a", "prompt": "p", "completion": "<b>\n", "outcome": "passed"} for _ in range(2)]
    )
    return record.path


def tracked(name, run, lines=(*STEPS, EVALUATION, LATE), **more):
    pytest.importorskip("accelerate")
    with Trackers([name], run, CONFIG, **more) as trackers:
        for line in lines:
            trackers(line)


def entropies(log):
    return {step: values["entropy"] for step, values in log.rows if "entropy" in values}


EXPECTED = {k: pytest.approx(0.5 / k) for k in (1, 2, 3)}


def test_numbers_get_names_of_their_own_and_text_is_left_out():
    assert scalars(STEPS[0]) == {"entropy": 0.5, "regions/E1/flow": -0.1}
    assert scalars(EVALUATION) == {"select/pass_at/1": 0.5}
    assert scalars(LATE) == {"report/pass_at/1": 0.25}


def test_settings_are_plain_and_none_is_lost():
    flat = plain_settings(CONFIG)
    assert flat == {
        "name": "grpo", "update.learning_rate": 1e-3, "update.kl": "null", "update.betas": "[0.9, 0.99]", "early": True
    }  # fmt: skip


def test_every_tracker_is_one_of_accelerate():
    tracking = pytest.importorskip("accelerate.tracking")
    assert set(LIBRARIES) <= set(tracking.LOGGER_TYPE_TO_CLASS)


def test_tensorboard_gives_back_the_lines_of_a_resumed_run(run):
    pytest.importorskip("tensorboard")
    tracked("tensorboard", run, STEPS[:2])
    tracked("tensorboard", run, STEPS[1:])
    assert entropies(read_log(run / "tensorboard")) == EXPECTED
    assert len(list(run.rglob("hparams.yml"))) == 1


def test_weights_and_biases_gives_back_the_lines_with_project_settings_and_samples(run, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracked("wandb", run, project="thermostat")
    wandb.teardown()  # the library's own process writes the file; it is whole when that has ended
    assert entropies(read_log(run / "wandb")) == EXPECTED
    (file,) = run.rglob("run-*.wandb")
    written = file.read_bytes()
    assert all(
        word in written for word in (b"thermostat", b"update.learning_rate", b"samples/select", b"optimizer_step")
    )
    assert any(b"passed" in table.read_bytes() for table in run.rglob("*.table.json"))


def test_weights_and_biases_resumes_the_run_and_logs_earlier_steps_too(run, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracked("wandb", run, STEPS)
    tracked("wandb", run, [STEPS[1], LATE])
    wandb.teardown()
    files = sorted(run.rglob("run-*.wandb"))
    assert len(files) == 2
    assert len({file.stem.rpartition("-")[2] for file in files}) == 1
    assert b"report/pass_at/1" in files[1].read_bytes()


def test_the_environment_names_the_project(run, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_PROJECT", "from-the-environment")
    tracked("wandb", run)
    wandb.teardown()
    assert b"from-the-environment" in next(run.rglob("run-*.wandb")).read_bytes()


def test_mlflow_gives_back_the_lines_of_a_resumed_run(run, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((run.parent / "mlruns").as_uri())
    tracked("mlflow", run, STEPS[:2])
    tracked("mlflow", run, [*STEPS[2:], EVALUATION, LATE])
    (found,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    history = mlflow.MlflowClient().get_metric_history(found.info.run_id, "entropy")
    assert {point.step: point.value for point in history} == EXPECTED
    assert found.data.params["update.kl"] == "null"
    assert mlflow.MlflowClient().get_metric_history(found.info.run_id, "report/pass_at/1")[0].step == 1


def test_aim_resumes_the_run_under_its_name(run):
    aim = pytest.importorskip("aim")
    tracked("aim", run, STEPS[:2])
    tracked("aim", run, STEPS[2:])
    (known,) = aim.Repo(".").list_all_runs()
    found = aim.Run(known, repo=".", read_only=True)
    assert (found.name, found.experiment) == ("grpo", "entrostat")


def test_comet_keeps_the_run_offline_and_resumes_it(run, monkeypatch):
    pytest.importorskip("comet_ml")
    monkeypatch.setenv("COMET_START_ONLINE", "0")
    monkeypatch.setenv("COMET_OFFLINE_DIRECTORY", str(run.parent / "comet"))
    tracked("comet_ml", run)
    tracked("comet_ml", run)
    names = {file.name.partition("-")[0].removesuffix(".zip") for file in (run.parent / "comet").glob("*.zip")}
    assert len(names) == 1


def test_swanlab_keeps_the_run_offline_and_resumes_it(run, monkeypatch):
    pytest.importorskip("swanlab")
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    tracked("swanlab", run)
    tracked("swanlab", run)
    assert list((run.parent / "swanlog").glob("run-*"))


def test_trackio_gives_back_the_lines(tmp_path, run):
    """In a process of its own: the library reads where its data lives when it is imported."""
    pytest.importorskip("trackio")
    code = f"""
from entrostat.integrations.trackers import Trackers
for steps in ((1, 2), (3,)):
    with Trackers(["trackio"], {str(run)!r}) as trackers:
        for step in steps:
            trackers({{"step": step, "entropy": 0.5 / step}})
from trackio.sqlite_storage import SQLiteStorage
print([row["entropy"] for row in SQLiteStorage.get_logs("entrostat", "grpo") if "entropy" in row])
"""
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert str([0.5, 0.25, 0.5 / 3]) in done.stdout.splitlines(), done.stderr


def test_the_part_after_a_roll_back_is_a_run_of_its_own(run):
    pytest.importorskip("tensorboard")
    pytest.importorskip("accelerate")
    with Trackers(["tensorboard"], run, CONFIG) as trackers:
        trackers(STEPS[2])
        Run.create(run / AFTER_ROLL_BACK, CONFIG, 0, {}, {})
        trackers(STEPS[0])
    assert set(entropies(read_log(run / AFTER_ROLL_BACK / "tensorboard"))) == {1}


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("missing", ["accelerate", ""])
def test_a_missing_library_is_named_with_its_extra(name, missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing or name, None)
    with pytest.raises(TrackerError, match=r"pip install 'entrostat\["):
        Trackers([name], tmp_path)


def test_a_tracker_that_cannot_be_started_is_an_error_that_says_how_to_go_on(run, monkeypatch):
    tracking = pytest.importorskip("accelerate.tracking")
    pytest.importorskip("wandb")

    def refuse(_):
        raise RuntimeError("No API key configured")

    monkeypatch.setattr(tracking.WandBTracker, "start", refuse)
    with pytest.raises(TrackerError, match=r"No API key configured.*log in"):
        tracked("wandb", run)


def test_a_line_that_a_tracker_refuses_is_warned_of_once_and_the_others_go_on(run, monkeypatch):
    tracking = pytest.importorskip("accelerate.tracking")
    pytest.importorskip("tensorboard")

    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(tracking.TensorBoardTracker, "log", refuse)
    with pytest.warns(UserWarning, match="no route to host") as warned:
        tracked("tensorboard", run)
    assert len(warned) == 1


def test_an_unknown_tracker_is_refused_with_the_known_ones(tmp_path: Path):
    with pytest.raises(ValueError, match="swanlab"):
        Trackers(["tensorbored"], tmp_path)

"""The watchdog as one of verl's loggers; the last tests need verl itself."""

import json
import logging
import math
import os
import subprocess
import sys

import pytest
from remedy_settings import settings_of

from entrostat.integrations.verl.watchdog import KEEPER, WatchdogLogger, WatchdogStopError

ROW = {"actor/entropy": 0.4, "actor/pg_loss": 0.01, "critic/score/mean": 0.3}


def section(folder, *, action=None, **settings):
    """verl's `trainer` section, as far as it matters here."""
    watch = {**settings, **({"action": action} if action else {})}
    keys = {"total_training_steps": 100, "default_local_dir": str(folder), "entrostat_watch": watch}
    if action in ("keep-peak", "roll-back"):
        keys |= {"save_freq": 2, "test_freq": 2, "checkpoint_callback_class": KEEPER, "v1": {"trainer_mode": "sync"}}
    return keys


def test_it_announces_itself(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        WatchdogLogger(section(tmp_path))
    assert "watchdog is active" in caplog.text


def test_findings_are_recorded_and_stop_ends_the_loop(tmp_path):
    log = WatchdogLogger(section(tmp_path, action="stop"))
    for step in (1, 2, 3):
        log.log({**ROW, **({"actor/pg_loss": math.nan} if step > 1 else {})}, step=step)
    with pytest.raises(WatchdogStopError, match="not-finite at step 4"):
        log.log(data={**ROW, "actor/pg_loss": math.nan}, step=4)
    first, line, stop = map(json.loads, (tmp_path / "watchdog.jsonl").read_text().splitlines())
    assert (first["severity"], first["action"]) == ("warning", "note")
    assert (stop["kind"], stop["step"]) == ("stop", 4)
    assert (line["kind"], line["action"]) == ("not-finite", "stop")


def test_note_continues(tmp_path):
    log = WatchdogLogger(section(tmp_path))
    log.log({**ROW, "actor/pg_loss": math.nan}, step=1)
    log.log(ROW, step=2)
    assert len(log.watch.watchdog.findings) == 1


@pytest.mark.parametrize("settings", [{"actoin": "stop"}, {"action": "roll"}, {"severity": "bad"}, {"kinds": ["x"]}])
def test_unknown_settings_are_refused(tmp_path, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        WatchdogLogger(section(tmp_path, **settings))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("checkpoint_callback_class", None, "checkpoint_callback_class is None; roll-back needs entrostat"),
        ("save_freq", -1, "save_freq is -1"),
        ("save_freq", 3, "save_freq is 3; make it a multiple of test_freq, 2"),
        ("v1", {"trainer_mode": "separate_async"}, "trainer_mode is 'separate_async'"),
    ],
)
def test_an_action_that_the_configuration_does_not_allow_is_refused_at_the_start(tmp_path, key, value, message):
    with pytest.raises(ValueError, match=message):
        WatchdogLogger({**section(tmp_path, action="roll-back"), key: value})


def test_verl_loads_it_and_every_tracking_has_it(tmp_path):
    pytest.importorskip("verl")
    code = f"""
import math
import os
from verl.utils.tracking import Tracking
watch = {{"action": "stop", "severity": "warning"}}
config = {{"trainer": {{"default_local_dir": {str(tmp_path)!r}, "entrostat_watch": watch}}}}
tracking = Tracking("project", "experiment", ["console"], config)
tracking.log({{"actor/entropy": 0.4}}, step=1)
try:
    tracking.log({{"actor/pg_loss": math.nan}}, step=2)
except RuntimeError as error:
    print("stopped:", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "VERL_USE_EXTERNAL_MODULES": "entrostat.integrations.verl.watchdog"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "stopped: warning not-finite at step 2" in done.stdout, done.stderr
    assert "watchdog is installed" in done.stderr
    assert "watchdog is active" in done.stderr


def has(config, parts):
    return not parts or (isinstance(config, dict) and parts[0] in config and has(config[parts[0]], parts[1:]))


def test_remedies_name_settings_that_this_verl_has():
    verl = pytest.importorskip("verl")
    from pathlib import Path

    import yaml

    files = (
        "trainer/config/_generated_ppo_trainer.yaml",
        "experimental/fully_async_policy/config/fully_async_ppo_trainer.yaml",
    )
    configs = [yaml.safe_load((Path(verl.__file__).parent / file).read_text()) for file in files]
    assert len(settings_of("verl")) > 5
    for key in settings_of("verl"):
        assert any(has(config, key.split(".")) for config in configs), key


BROKEN = None  # a step whose loss is no number


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """Runs verl's loop over held-out scores a step; gives the trainer and how it ended."""
    pytest.importorskip("verl")
    from types import SimpleNamespace

    from verl.trainer.ppo.v1 import trainer_base
    from verl.utils.tracking import Tracking
    from verl_loop import trainer_of

    from entrostat.integrations.verl import watchdog

    monkeypatch.setattr(Tracking, "__init__", Tracking.__init__)  # taken back after the test
    monkeypatch.setattr(Tracking, "supported_backend", Tracking.supported_backend)
    monkeypatch.setattr(trainer_base, "tq", SimpleNamespace(kv_clear=lambda **_: None))
    watchdog.install()

    def run(action, scores):
        trainer = trainer_of(tmp_path, action, scores)
        try:
            trainer.fit(None)
        except WatchdogStopError as error:
            return trainer, str(error)
        return trainer, None

    return run


def test_in_verls_loop_the_peak_outlives_rotation(fit, tmp_path):
    import torch

    trainer, ended = fit("keep-peak", [0.1, 0.5, 0.4, 0.3, BROKEN, 0.2])
    assert trainer.global_steps == 5
    assert "warning not-finite at step 5" in ended
    assert ended.endswith("peak/global_step_2")
    assert torch.load(tmp_path / "peak/global_step_2/actor/model.pt") == 2
    assert [path.name for path in (tmp_path / "peak").iterdir()] == ["global_step_2"]
    assert not (tmp_path / "global_step_2/actor").exists()
    line = json.loads((tmp_path / "watchdog.jsonl").read_text().splitlines()[-1])
    assert (line["kind"], line["peak_step"]) == ("stop", 2)


def test_in_verls_loop_a_roll_back_loads_the_peak_and_the_budget_stays(fit, tmp_path):
    trainer, ended = fit("roll-back", [0.1, 0.5, 0.4, BROKEN, 0.3, 0.2])
    assert ended is None
    assert trainer.global_steps == 7
    place = trainer.calls.index(("load", 2))
    assert trainer.calls[place - 1] == ("sleep",)
    assert trainer.calls[place + 1] == ("update", 4, 2)
    assert trainer.actor_rollout_wg.weights == 2 + 2
    lines = [json.loads(line) for line in (tmp_path / "watchdog.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["not-finite", "roll-back"]
    assert lines[1]["to_step"] == 2


def test_in_verls_loop_a_second_finding_ends_training(fit):
    trainer, ended = fit("roll-back", [0.1, 0.5, BROKEN, 0.4, BROKEN, 0.2])
    assert trainer.global_steps == 5
    assert "not-finite at step 5" in ended
    assert sum(call[0] == "load" for call in trainer.calls) == 1


def test_in_verls_loop_without_a_peak_a_finding_ends_training(fit):
    assert "not-finite at step 1" in fit("roll-back", [BROKEN, 0.4])[1]

"""The watchdog as one of verl's loggers; the last tests need verl itself."""

import json
import logging
import math
import os
import subprocess
import sys

import pytest

from entrostat.integrations.verl_watchdog import WatchdogLogger, WatchdogStopError

ROW = {"actor/entropy": 0.4, "actor/pg_loss": 0.01, "critic/score/mean": 0.3}


def test_it_announces_itself(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        WatchdogLogger({}, None, tmp_path)
    assert "watchdog is active" in caplog.text


def test_findings_are_recorded_and_stop_ends_the_loop(tmp_path):
    log = WatchdogLogger({"action": "stop"}, 100, tmp_path)
    log.log(ROW, step=1)
    with pytest.raises(WatchdogStopError, match="not-finite at step 2"):
        log.log(data={**ROW, "actor/pg_loss": math.nan}, step=2)
    line = json.loads((tmp_path / "watchdog.jsonl").read_text())
    assert (line["kind"], line["action"]) == ("not-finite", "stop")


def test_note_goes_on(tmp_path):
    log = WatchdogLogger({}, 100, tmp_path)
    log.log({**ROW, "actor/pg_loss": math.nan}, step=1)
    log.log(ROW, step=2)
    assert len(log.watchdog.findings) == 1


@pytest.mark.parametrize(
    "settings", [{"actoin": "stop"}, {"action": "roll-back"}, {"severity": "bad"}, {"kinds": ["x"]}]
)
def test_unknown_settings_are_refused(tmp_path, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        WatchdogLogger(settings, None, tmp_path)


def test_verl_loads_it_and_every_tracking_has_it(tmp_path):
    pytest.importorskip("verl")
    code = f"""
import math
import os
from verl.utils.tracking import Tracking
config = {{"trainer": {{"default_local_dir": {str(tmp_path)!r}, "entrostat_watch": {{"action": "stop"}}}}}}
tracking = Tracking("project", "experiment", ["console"], config)
tracking.log({{"actor/entropy": 0.4}}, step=1)
try:
    tracking.log({{"actor/pg_loss": math.nan}}, step=2)
except RuntimeError as error:
    print("stopped:", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "VERL_USE_EXTERNAL_MODULES": "entrostat.integrations.verl_watchdog"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "stopped: critical not-finite at step 2" in done.stdout, done.stderr
    assert "watchdog is installed" in done.stderr
    assert "watchdog is active" in done.stderr


def test_remedies_name_settings_that_this_verl_has():
    verl = pytest.importorskip("verl")
    from pathlib import Path

    import yaml

    from entrostat.diagnose import remedies
    from entrostat.diagnose.finding import Remedy

    config = yaml.safe_load((Path(verl.__file__).parent / "trainer/config/_generated_ppo_trainer.yaml").read_text())
    for value in vars(remedies).values():
        for remedy in value if isinstance(value, tuple) else (value,):
            for key in remedy.verl if isinstance(remedy, Remedy) else ():
                place = config
                for part in key.split("."):
                    assert part in place, key
                    place = place[part]

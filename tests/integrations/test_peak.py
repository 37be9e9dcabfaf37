"""Which step is the peak, whatever host logs it, and its kept checkpoint, which outlives the one it was kept from."""

import math
import os
import shutil

import pytest

from entrostat.diagnosis import Acting
from entrostat.integrations.peak import PeakWatchdog, keep

HELD_OUT = {"trl": "eval_reward", "verl": "val-core/sums/acc/mean@4"}
REWARD = {"trl": "reward", "verl": "critic/score/mean"}


def saved(folder, content):
    (folder / "actor").mkdir(parents=True)
    (folder / "actor" / "rank_0.pt").write_text(content)
    return folder


@pytest.mark.parametrize("links", [True, False])
def test_it_outlives_the_checkpoint_and_replaces_the_last_one(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    for step in ("1", "2"):
        checkpoint = saved(tmp_path / f"step-{step}", step)
        keep(checkpoint, tmp_path / "peak")
        assert (checkpoint / "actor/rank_0.pt").samefile(tmp_path / "peak/actor/rank_0.pt") is links
        shutil.rmtree(checkpoint)
        assert (tmp_path / "peak/actor/rank_0.pt").read_text() == step
    assert [path.name for path in tmp_path.iterdir()] == ["peak"]


def test_what_was_kept_stays_where_the_new_one_cannot_be_kept(tmp_path):
    keep(saved(tmp_path / "step-1", "1"), tmp_path / "peak")
    with pytest.raises(OSError, match="step-2"):
        keep(tmp_path / "step-2", tmp_path / "peak")
    assert (tmp_path / "peak/actor/rank_0.pt").read_text() == "1"


@pytest.mark.parametrize("linked", [False, True])
def test_a_peak_that_is_not_ours_is_refused_and_stays(tmp_path, linked):
    own = saved(tmp_path / "mine", "years of work")
    (tmp_path / "peak").symlink_to(own) if linked else own.rename(tmp_path / "peak")
    with pytest.raises(FileExistsError, match="was not made by the watchdog"):
        keep(saved(tmp_path / "step-1", "1"), tmp_path / "peak")
    assert (tmp_path / "peak/actor/rank_0.pt").read_text() == "years of work"


def test_a_peak_that_somebody_added_to_stays(tmp_path):
    keep(saved(tmp_path / "step-1", "1"), tmp_path / "peak")
    (tmp_path / "peak/notes.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        keep(saved(tmp_path / "step-2", "2"), tmp_path / "peak")
    assert (tmp_path / "peak/notes.txt").read_text() == "mine"


def watch(smooth=1, action="keep-peak"):
    return PeakWatchdog(Acting(action), None, smooth)


def peaks(watch, rows, due=lambda step: True):
    """The steps that were a new peak when they came."""
    found = []
    for step, row in enumerate(rows, start=1):
        watch.observe(step, row)
        if watch.is_new_peak(step, due=due(step)):
            found.append(step)
    return found


@pytest.mark.parametrize("host", ["trl", "verl"])
def test_a_peak_is_a_score_above_all_before_and_the_first_of_equals_stays(host):
    scores = [0.2, 0.1, 0.2, 0.3, 0.3, 0.25]
    for columns in (HELD_OUT, REWARD):
        own = watch()
        assert peaks(own, [{columns[host]: score} for score in scores]) == [1, 4]
        assert own.peak == (4, 0.3)


def test_rewards_count_smoothed_and_only_when_due_and_not_before_there_are_enough():
    rows = [{"reward": reward} for reward in (0.0, 0.8, 0.4, 0.4, 0.9)]
    assert peaks(watch(smooth=2), rows) == [2, 3, 5]  # means 0.4, 0.6, 0.4, 0.65
    assert peaks(watch(smooth=2), rows, due=lambda step: step % 2 == 0) == [2]
    assert peaks(watch(smooth=6), rows) == []


def test_a_held_out_score_replaces_the_reward_and_counts_at_its_own_step_whether_due_or_not():
    rows = [{"reward": 0.9, "eval_reward": 0.1}, {"reward": 1.0}, {"reward": 0.1, "eval_reward": 0.2}]
    own = watch()
    assert peaks(own, rows, due=lambda step: False) == [1, 3]
    assert own.peak == (3, 0.2)


@pytest.mark.parametrize("action", ["note", "stop", "keep-peak", "roll-back"])
def test_only_roll_back_rolls_back_and_only_once_and_only_to_a_peak(action):
    own = watch(action=action)
    assert own.keeping == (action in ("keep-peak", "roll-back"))
    assert not own.may_roll_back
    peaks(own, [{"reward": 0.5}])
    assert own.may_roll_back == (action == "roll-back")
    own.begin_again()
    assert not own.may_roll_back
    assert own.watchdog.history.step < 1


def test_what_was_found_before_a_roll_back_is_found_again_after_it():
    own = watch(action="roll-back")
    broken = [finding.kind for finding in own.observe(1, {"loss": math.nan})]
    own.begin_again()
    assert [finding.kind for finding in own.observe(1, {"loss": math.nan})] == broken != []

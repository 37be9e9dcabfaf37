"""A kept checkpoint is whole, alone, and out of reach of what happens to the one it was kept from."""

import os
import shutil

import pytest

from entrostat.integrations.peak import keep


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

"""What lies in the folders of verl's engine is moved or deleted only if the engine made it; verl itself is not run."""

from types import SimpleNamespace

import pytest
from hostile_names import precious_folder, tree

from entrostat.campaign import Checkpoint
from entrostat.integrations.verl.engine import _forget_but, _forget_kept, _Verl
from entrostat.runs import RunError
from entrostat.runs.ownership import claim, seal


class NoProcess:
    """verl's process, which must not be asked for anything."""

    def poll(self):
        raise AssertionError("verl was asked")


def made(folder, content="weights"):
    """A folder as the engine leaves it."""
    claim(folder)
    (folder / "rank_0.pt").write_text(content)
    seal(folder)
    return folder


def test_only_the_engine_s_own_folders_are_freed(tmp_path):
    checkpoints, kept = tmp_path / "checkpoints", tmp_path / "kept"
    precious = precious_folder(tmp_path)
    for folder in (checkpoints / "global_step_1", kept / "step-000001"):
        folder.mkdir(parents=True)
        (folder / "thesis.txt").write_text("mine")
        folder.with_name(folder.name[:-1] + "2").symlink_to(precious)
        (made(folder.with_name(folder.name[:-1] + "3")) / "notes.txt").write_text("added")
    (checkpoints / "global_step_best").mkdir()
    before = tree(tmp_path)
    ours = [made(checkpoints / "global_step_4"), made(kept / "step-000004")]
    _forget_but(tmp_path, None)
    _forget_kept(tmp_path, ())
    assert not any(folder.exists() for folder in ours)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("linked", [False, True])
def test_a_folder_in_the_way_is_refused_and_stays(tmp_path, linked):
    precious = precious_folder(tmp_path)
    places = {"checkpoint": tmp_path / "checkpoints" / "global_step_2", "save": tmp_path / "kept" / "step-000002"}
    for folder in places.values():
        folder.parent.mkdir()
        folder.symlink_to(precious) if linked else folder.mkdir()
        (folder / "thesis.txt").write_text("mine")
    before, counting = tree(tmp_path), SimpleNamespace(counted=1, save_every=1)
    with pytest.raises(RunError, match="global_step_2: is in the way"):
        _Verl(NoProcess(), tmp_path, counting, None).save_resume_point(Checkpoint(tmp_path / "to", 2))
    assert tree(tmp_path) == before

    class Saves(_Verl):
        def _ask(self, order):
            made(tmp_path / "kept" / order["folder"].rpartition("/")[2])

    with pytest.raises(RunError, match="step-000002: exists and was not made here"):
        Saves(NoProcess(), tmp_path, counting, None).save(Checkpoint(tmp_path / "to", 2))
    assert (places["save"] / "thesis.txt").read_text() == "mine"
    assert not (tmp_path / "to").exists()

"""What lies in the folders of verl's engine is moved or deleted only if the engine made it; verl itself is not run."""

import json

import pytest
from hostile_names import HOSTILE, filled, precious_folder, tree

from entrostat.campaign import Checkpoint
from entrostat.campaign.engine import Plan
from entrostat.integrations.verl_engine import VerlEngine, _forget_but, _forget_kept, _Verl
from entrostat.runs import Run, RunError
from entrostat.runs.ownership import claim, seal


class NoProcess:
    """verl's process, which must not be asked for anything."""

    def poll(self):
        raise AssertionError("verl was asked")


def engine():
    return VerlEngine((), modules=(), driver=("-c", "raise SystemExit('verl was started')"))


def made(folder, content="weights"):
    """A folder as the engine leaves it."""
    claim(folder)
    (folder / "rank_0.pt").write_text(content)
    seal(folder)
    return folder


@pytest.mark.parametrize("value", [value for value in HOSTILE if value != 0] + [10**400])
def test_a_resume_file_that_names_no_step_is_refused_and_nothing_is_touched(tmp_path, value):
    precious = precious_folder(tmp_path)
    run = Run.create(tmp_path / "run", {"name": "verl"}, 0, {}, {})
    start = Checkpoint(tmp_path / "start", 0)
    start.path.mkdir()
    run.checkpoints_dir.mkdir(exist_ok=True)
    made(run.path / "verl" / "checkpoints" / "global_step_3")
    (run.path / "verl" / "resume.json").write_text(json.dumps({"step": filled(value, precious)}))
    before = tree(tmp_path)
    with pytest.raises(RunError, match=r"resume\.json: step: got .*whole number"):
        engine().run(start, Plan(budget=4, rate=1.0), lambda _: None, run)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", "[" * 100_000])
def test_a_resume_file_that_is_none_is_refused(tmp_path, content):
    run = Run.create(tmp_path / "run", {"name": "verl"}, 0, {}, {})
    start = Checkpoint(tmp_path / "start", 0)
    start.path.mkdir()
    (run.path / "verl").mkdir()
    (run.path / "verl" / "resume.json").write_text(content)
    with pytest.raises(RunError, match=r"resume\.json: .*delete the folder of the campaign"):
        engine().run(start, Plan(budget=4, rate=1.0), lambda _: None, run)


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
    before = tree(tmp_path)
    with pytest.raises(RunError, match="global_step_2: is in the way"):
        _Verl(NoProcess(), tmp_path).checkpoint(2)
    assert tree(tmp_path) == before

    class Saves(_Verl):
        def _ask(self, order):
            made(tmp_path / "kept" / order["folder"].rpartition("/")[2])

    with pytest.raises(RunError, match="step-000002: is in the way"):
        Saves(NoProcess(), tmp_path).save(Checkpoint(tmp_path / "to", 2))
    assert (places["save"] / "thesis.txt").read_text() == "mine"
    assert not (tmp_path / "to").exists()

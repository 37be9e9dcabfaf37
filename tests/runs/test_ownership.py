"""What we made is deleted when it is no longer needed; nothing else ever is, whatever it is called."""

import json
import shutil

import pytest
from hostile_names import HOSTILE, filled, precious_folder, tree

from entrostat.report.study_reading import read_study
from entrostat.runs import Run, RunError
from entrostat.runs.files import folder_digest
from entrostat.runs.ownership import claim, digest, is_ours, remove, remove_digests, scratch, seal, sweep, whole_number


def made(parent):
    """A checkpoint as the engines leave it."""
    folder = scratch(parent)
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"\x01\x02")
    named = parent / folder_digest(folder)
    seal(folder)
    return folder.rename(named)


@pytest.mark.parametrize("name", HOSTILE)
def test_only_a_digest_is_one(name, tmp_path):
    with pytest.raises(RunError, match=r"file\.json: got .*64 hexadecimal digits"):
        digest(filled(name, tmp_path), "file.json")
    assert digest("0123456789abcdef" * 4, "file.json") == "0123456789abcdef" * 4


@pytest.mark.parametrize("value", [True, -1, 1.0, "3", None, [], 1e999, 10**300])
def test_only_a_whole_number_is_one(value):
    with pytest.raises(RunError, match="a whole number belongs"):
        whole_number(value, "file.json: step")


def test_a_seal_is_no_part_of_the_content(tmp_path):
    folder = made(tmp_path)
    assert folder_digest(folder) == folder.name
    assert is_ours(folder)
    (folder / ".entrostat").unlink()  # as an older version left it: its name is the proof
    assert is_ours(folder)
    (folder / "weights").write_bytes(b"\x01\x03")
    assert not is_ours(folder)


def users(parent):
    """Folders of a user's own that lie where ours do."""
    own = [
        parent / name for name in ("best", "step-000001", "global_step_1", "a" * 64, ".freed-notes", ".writing-notes")
    ]
    for folder in own:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    added = made(parent)
    (added / "notes.txt").write_text("mine")
    outside = parent.parent / "outside"
    outside.mkdir()
    (outside / "weights").write_bytes(b"\x01\x02")
    link = parent / folder_digest(outside).replace("0", "1")
    link.symlink_to(outside)
    linked = parent / ("b" * 64)
    linked.symlink_to(outside)
    (parent / (".writing-" + "c" * 64)).symlink_to(outside)
    return [*own, added]


def test_what_a_user_put_there_stays(tmp_path):
    parent = tmp_path / "checkpoints"
    parent.mkdir()
    own = users(parent)
    before = tree(tmp_path)
    for folder in own:
        assert not remove(folder)
    remove_digests(parent, keep=set())
    assert tree(tmp_path) == before
    with pytest.raises(RunError, match="in the way"):
        claim(parent / "best")
    assert tree(tmp_path) == before


def test_what_we_made_goes_with_what_a_kill_left_of_it(tmp_path, monkeypatch):
    named, cut = made(tmp_path), scratch(tmp_path)
    cut.mkdir()
    (cut / "half").write_text("x")
    claimed = tmp_path / "global_step_3"
    claim(claimed)
    (claimed / "half").write_text("x")
    assert remove(claimed)
    claim(claimed)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            remove(named)
    assert not named.exists()
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["global_step_3"]


def test_rewinding_forgets_our_samples_alone(tmp_path):
    run = Run.create(tmp_path / "run", {}, 0, {}, {})
    sample = {"task": "t", "prompt": "", "completion": "", "outcome": "passed"}
    run.log_samples(7, "train", [sample])
    own = ["7-train.jsonl", "000007-notes.jsonl", "9x-y.jsonl", "000009-train.jsonl.bak", "000009-my-train.jsonl"]
    for name in own:
        (run.path / "samples" / name).write_text("mine\n")
    assert len(run.samples()) == 1
    run.rewind(3)
    assert sorted(path.name for path in (run.path / "samples").iterdir()) == sorted(own)
    for split in ("../train", "", "notes", None, 3):
        with pytest.raises(RunError, match="split is"):
            run.log_samples(7, split, [sample])


@pytest.mark.parametrize(
    "name", [name for name in HOSTILE if isinstance(name, str) and not name.strip("aA").isspace() and name.strip("aA")]
)
def test_a_study_whose_methods_are_paths_is_not_read(name, tmp_path):
    precious_folder(tmp_path)
    content = {"name": "s", "methods": {filled(name, tmp_path): {}}, "seeds": [0], "campaigns": 1}
    (tmp_path / "study.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="where a name belongs"):
        read_study(tmp_path)

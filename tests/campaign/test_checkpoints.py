"""Checkpoints: a refusal of the disk and a kill in the middle of a deletion leave what was there whole."""

import json
import shutil
from pathlib import Path

import pytest
from hostile_names import HOSTILE, filled, precious_folder, tree
from safetensors import SafetensorError

from entrostat.campaign.checkpoints import CheckpointError, CheckpointStore, Keeper, link_kept, model_source, verify


def weights(folder: Path) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")


@pytest.mark.parametrize(
    "refusal", [SafetensorError("No space left on device"), OSError(28, "No space left on device")]
)
def test_a_full_disk_is_a_plain_error_and_earlier_checkpoints_stay_whole(tmp_path, refusal):
    store = CheckpointStore(tmp_path)
    before = store.save(weights, 0)
    store.retag({"start": before})

    def refuse(folder: Path) -> None:
        folder.mkdir()
        raise refusal

    with pytest.raises(CheckpointError, match=r"checkpoint of step 1: .* cannot be written .No space left on device"):
        store.save(refuse, 1)
    verify(before)
    assert store.tags() == {"start": before}
    assert {path.name for path in tmp_path.iterdir()} == {"tags.json", before.path.name}


def test_a_checkpoint_whose_deletion_was_cut_short_is_written_anew(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    saved = store.save(weights, 3)

    def killed(folder: Path, **_) -> None:
        (folder / "model.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            store.retag({})
    again = CheckpointStore(tmp_path).save(weights, 3)
    assert again == saved
    verify(again)


@pytest.mark.parametrize("field", ["digest", "step"])
@pytest.mark.parametrize("name", HOSTILE)
def test_tags_that_name_a_path_are_refused_and_nothing_is_touched(tmp_path, name, field):
    precious = precious_folder(tmp_path)
    if field == "step" and name == 0:
        pytest.skip("a step")
    store = CheckpointStore(tmp_path / "checkpoints")
    content = {"start": {"digest": "a" * 64, "step": 0, field: filled(name, precious)}}
    (store.folder / "tags.json").write_text(json.dumps(content))
    before = tree(tmp_path)
    with pytest.raises(CheckpointError, match=rf"tags\.json: not a tag file .*start\.{field}"):
        Keeper(CheckpointStore(tmp_path / "checkpoints"))
    assert tree(tmp_path) == before


def test_a_user_s_own_folder_among_the_checkpoints_stays(tmp_path):
    store = CheckpointStore(tmp_path)
    store.retag({"start": store.save(weights, 0)})
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "notes.txt").write_text("mine")
    CheckpointStore(tmp_path).retag({})
    assert {path.name for path in tmp_path.iterdir()} == {"tags.json", "best"}
    assert (tmp_path / "best" / "notes.txt").read_text() == "mine"


def test_a_corrupt_checkpoint_is_refused_by_name_and_an_interrupted_write_is_cleared(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints")
    saved = store.save(weights, 3)
    store.retag({"peak": saved})
    assert store.save(weights, 3) == saved
    (store.folder / ".writing-1").mkdir()
    assert CheckpointStore(store.folder).tags() == {"peak": saved}
    assert not (store.folder / ".writing-1").exists()
    verify(saved)
    (saved.path / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(CheckpointError, match="the checkpoint of step 3 is corrupt"):
        verify(saved)


def test_a_store_makes_its_folder_and_takes_one_that_is_there(tmp_path):
    folder = tmp_path / "study" / "campaign-00" / "checkpoints"
    for _ in range(2):
        assert CheckpointStore(folder).tags() == {}
        assert folder.is_dir()


def test_people_find_what_is_kept_by_a_link_in_the_run_s_folder_and_nothing_of_theirs_is_replaced(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints")
    kept = {"start": store.save(weights, 0), "peak": store.save(weights, 0)}
    link_kept(tmp_path, kept)
    assert not (tmp_path / "peak").exists()  # no run's folder
    (tmp_path / "run.json").write_text("{}")
    link_kept(tmp_path, kept)
    assert (tmp_path / "peak").resolve() == kept["peak"].path.resolve()
    assert not (tmp_path / "start").exists()
    link_kept(tmp_path, {"end": kept["peak"]})
    assert not (tmp_path / "peak").is_symlink()
    assert (tmp_path / "end").resolve() == kept["peak"].path.resolve()
    (tmp_path / "peak").mkdir()
    link_kept(tmp_path, kept)
    assert not (tmp_path / "peak").is_symlink()


@pytest.mark.parametrize("tag", ["start", "peak", "end"])
def test_what_a_run_keeps_is_a_model_by_its_name(tmp_path, tag):
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    saved = store.save(weights, 2)
    for name, message in ((f"{tmp_path}/none@{tag}", "is not a run folder"), (f"{tmp_path}/run@{tag}", "nothing yet")):
        store.retag({})
        with pytest.raises(CheckpointError, match=message):
            model_source(name)
    saved = store.save(weights, 2)
    store.retag({tag: saved})
    assert model_source(f"{tmp_path}/run@{tag}") == saved.path
    other = "peak" if tag == "end" else "end"
    with pytest.raises(CheckpointError, match=rf"the run keeps no {other}; there is .*run@{tag}$"):
        model_source(f"{tmp_path}/run@{other}")
    (saved.path / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(CheckpointError, match="is corrupt"):
        model_source(f"{tmp_path}/run@{tag}")


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "run/peak", "run@latest", "peak", "user@host/model"])
def test_any_other_name_of_a_model_stays_as_it_is(name):
    assert model_source(name) == name

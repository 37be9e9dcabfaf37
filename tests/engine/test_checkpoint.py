"""Checkpoints: a refusal of the disk and a kill in the middle of a deletion leave what was there whole."""

import shutil
from pathlib import Path

import pytest
from safetensors import SafetensorError

from entrostat.engine.checkpoint import CheckpointError, CheckpointStore, verify
from entrostat.engine.policy import Policy, load_policy


@pytest.mark.parametrize(
    "refusal", [SafetensorError("No space left on device"), OSError(28, "No space left on device")]
)
def test_a_full_disk_is_a_plain_error_and_earlier_checkpoints_stay_whole(tmp_path, monkeypatch, refusal):
    store, policy = CheckpointStore(tmp_path), load_policy()
    before = store.save(policy, 0)
    store.retag({"start": before})

    def refuse(_: Policy, folder: Path) -> None:
        folder.mkdir()
        raise refusal

    monkeypatch.setattr(Policy, "save", refuse)
    with pytest.raises(CheckpointError, match=r"checkpoint of step 1: .* cannot be written .No space left on device"):
        store.save(policy, 1)
    verify(before)
    assert store.tags() == {"start": before}
    assert {path.name for path in tmp_path.iterdir()} == {"tags.json", before.path.name}


def test_a_checkpoint_whose_deletion_was_cut_short_is_written_anew(tmp_path, monkeypatch):
    store, policy = CheckpointStore(tmp_path), load_policy()
    saved = store.save(policy, 3)

    def killed(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            store.retag({})
    again = CheckpointStore(tmp_path).save(policy, 3)
    assert again == saved
    verify(again)

"""Loading policies: the embedded one, any folder in Hugging Face format, and folders that lack something."""

import string

import pytest
import torch

from entrostat.engine.policy import PolicyError, embedded_folder, load_policy


def test_the_embedded_policy_fits_its_budget_and_round_trips_any_ascii_text():
    policy = load_policy()
    weights = embedded_folder() / "model.safetensors"
    assert weights.stat().st_size <= 4 * 2**20
    text = "# keep the even numbers\ndef solve(xs):\n    return [x for x in xs if x % 2 == 0] " + string.printable[:95]
    assert policy.decode(policy.tokenizer.encode(text)) == text


def test_a_saved_policy_loads_with_the_same_weights(tmp_path):
    policy = load_policy()
    policy.save(tmp_path / "copy")
    again = load_policy(tmp_path / "copy")
    assert again.stop_ids == policy.stop_ids
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("missing", "message"),
    [("tokenizer", "holds no tokenizer; save the model's tokenizer"), ("config.json", "holds no config.json")],
)
def test_a_folder_that_lacks_a_part_is_refused_by_name(tmp_path, missing, message):
    load_policy().save(tmp_path)
    for path in tmp_path.glob(f"{missing}*"):
        path.unlink()
    with pytest.raises(PolicyError, match=message) as caught:
        load_policy(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_and_a_device_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(PolicyError, match="does not exist; give a model folder"):
        load_policy(tmp_path / "nothing")
    if not torch.cuda.is_available():
        with pytest.raises(PolicyError, match="torch sees no CUDA device"):
            load_policy(device="cuda")


def test_damaged_weights_are_refused(tmp_path):
    load_policy().save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(PolicyError, match="no causal model can be read"):
        load_policy(tmp_path)

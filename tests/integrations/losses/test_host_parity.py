"""The comparison of a steered loss with its host's: it agrees where they are the same, and sees where they are not.

A checkout of a few lines of our own stands in for the host's.
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))
from parity import openrlhf
from parity.compare import compare
from parity.source import absent, pull

from entrostat.integrations.losses.openrlhf import SteeredPolicyLoss

LOSS = """
import a_package_that_is_not_there


@a_decorator_that_is_not_there
def aggregate_loss(loss, mask, dp_size, batch_num_tokens):
    return (loss * mask).sum() / batch_num_tokens * dp_size


class PolicyLoss(nn.Module):
    policy_loss_type = "ppo"

    def __init__(self, clip_eps_low: Unknown, clip_eps_high, vllm_is_truncated_threshold, **settings):
        super().__init__()
        self.clip_eps_low, self.clip_eps_high = clip_eps_low, clip_eps_high

    def forward(self, log_probs, old, advantages, action_mask, dp_size, batch_num_tokens, **_):
        ratio = (log_probs - old).exp()
        low, high = self.clip_eps_low, self.clip_eps_high
        loss = -torch.min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
        clipped = masked_mean((ratio > 1 + high).float(), action_mask)
        return aggregate_loss(loss, action_mask, dp_size, batch_num_tokens), clipped, clipped, None
"""
UTILS = "def masked_mean(values, mask):\n    return (values * mask).sum() / mask.sum()\n"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    models = tmp_path / "openrlhf" / "models"
    models.mkdir(parents=True)
    (models / "loss.py").write_text(LOSS)
    (models / "utils.py").write_text(UTILS)
    monkeypatch.setattr(openrlhf, "SETTINGS", {"plain": {}})
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "openrlhf":
            del sys.modules[name]


def test_the_same_loss_agrees(checkout):
    rows = [row for case in openrlhf.cases(checkout) for row in compare(case)]
    assert {row.control for row in rows} == {"nothing", "id", "weights", "library", "entropy"}
    assert len(rows) == 15
    assert all(row.agrees for row in rows)
    assert all(row.moved for row in rows if row.control in ("id", "weights", "library"))


class Swapped(SteeredPolicyLoss):
    def forward(self, *args, **kwargs):
        low, high = self.control.thresholds(args[1], (0.2, 0.28))
        self.host.clip_eps_low, self.host.clip_eps_high = high, low
        return self.host(*args, **kwargs)


class Unmasked(SteeredPolicyLoss):
    def forward(self, *args, action_mask, **kwargs):
        return super().forward(*args, action_mask=torch.ones_like(action_mask), **kwargs)


class Silent(SteeredPolicyLoss):
    def forward(self, *args, **kwargs):
        return (*super().forward(*args, **kwargs)[:2], None, None)


class Unmoved(SteeredPolicyLoss):
    def forward(self, *args, **kwargs):
        self.host.clip_eps_low, self.host.clip_eps_high = 0.2, 0.28
        return self.host(*args, **kwargs)


class Shifted(SteeredPolicyLoss):
    def keep_entropy(self, model, inputs, output):
        output[1].entropy = output[1].entropy.roll(1, 1)
        super().keep_entropy(model, inputs, output)


class Unweighted(SteeredPolicyLoss):
    def forward(self, log_probs, old, advantages, **kwargs):
        return self.host(log_probs, old, advantages, **kwargs)


@pytest.mark.parametrize(
    ("broken", "controls"),
    [
        (Swapped, {"id", "library", "weights", "nothing"}),
        (Unmasked, {"nothing", "entropy"}),
        (Silent, {"nothing", "weights"}),
        (Unmoved, {"id", "library", "weights"}),
        (Shifted, {"weights", "library", "entropy"}),
        (Unweighted, {"weights", "library", "id"}),
    ],
)
def test_another_loss_is_seen(checkout, monkeypatch, broken, controls):
    monkeypatch.setattr(openrlhf, "SteeredPolicyLoss", broken)
    rows = [row for case in openrlhf.cases(checkout) for row in compare(case) if row.control in controls]
    assert len(rows) == 3 * len(controls)
    assert not any(row.agrees for row in rows)


def test_a_name_that_the_host_no_longer_has_is_an_error(checkout):
    with pytest.raises(KeyError, match=r"loss\.py does not define renamed"):
        pull(checkout / "openrlhf" / "models" / "loss.py", "PolicyLoss renamed", "openrlhf.models.loss")


def test_a_place_that_the_host_no_longer_has_is_named(checkout):
    touched = {
        "openrlhf/models/loss.py": (
            "class PolicyLoss(nn.Module)",
            "def forward(self,  log_probs",
            "policy_loss_type = 'ppo'",
        ),
        "openrlhf/models/gone.py": ("class Actor",),
    }
    assert absent(checkout, touched) == [
        "openrlhf/models/loss.py: def forward(self,  log_probs",
        "openrlhf/models/gone.py: class Actor",
    ]

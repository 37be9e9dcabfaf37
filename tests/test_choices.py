"""A setting that is one of a few words refuses any other word when it is set, and says which there are."""

from types import SimpleNamespace

import pytest
import torch

from entrostat.campaign import EarlyStop
from entrostat.control import PolarityAware, SkipRegion, Steer
from entrostat.control.curves import Curve
from entrostat.diagnosis import Acting, Finding
from entrostat.engine.policy import load_policy
from entrostat.entropy import regions
from entrostat.grading import CodeGrader
from entrostat.integrations.trackers import Trackers
from entrostat.objective import ClipRule, advantages, aggregate
from entrostat.objective.bands import FreeRegion
from entrostat.tasks import Call, Task, listcraft
from entrostat.tokens import TokenStats

ONE = torch.ones(2, 3)
STATS = TokenStats(-ONE, ONE, ONE, ONE)
MASK = ONE.bool()

TAKE_A_WORD = {
    "Acting.action": lambda word: Acting(word),
    "Acting.severity": lambda word: Acting("stop", word),
    "Acting.severity, a remark": lambda _: Acting("stop", "note"),
    "Acting.kinds": lambda word: Acting("stop", kinds=[word]),
    "Acting.kinds, no list": lambda word: Acting("stop", kinds=word),
    "Finding.severity": lambda word: Finding("truncation", word, 1, 1, "", {}, ()),
    "EarlyStop.mode": lambda word: EarlyStop(mode=word),
    "regions.convention": lambda word: regions(STATS, ONE, word),
    "SkipRegion.region": lambda word: SkipRegion(word),
    "SkipRegion.convention": lambda word: SkipRegion("E1", word),
    "FreeRegion.region": lambda word: FreeRegion(word, ClipRule.constant()),
    "PolarityAware.signal": lambda word: PolarityAware(signal=word),
    "Steer.form": lambda word: Steer(form=word),
    "Curve.shape": lambda word: Curve.between(1.0, 0.5, word),
    "aggregate.mode": lambda word: aggregate(ONE, MASK, word),
    "reinforce.baseline": lambda word: advantages.reinforce(ONE, word),
    "Task.equality": lambda word: Task("t", "p", "f", (Call(args=(), expected=1),), equality=word),
    "listcraft.split": lambda word: listcraft.tasks(word, 1),
    "CodeGrader.isolation": lambda word: CodeGrader(1, isolation=word),
    "tracker": lambda word: Trackers([word], "run"),
    "load_policy.dtype": lambda word: load_policy(dtype=word),
    "load_policy.device": lambda word: load_policy(device=word),
}


@pytest.mark.parametrize("word", ["typo", "", "Stop", "E5", "NONE", "linear ", None, 3])
@pytest.mark.parametrize("setting", TAKE_A_WORD)
def test_an_unknown_word_is_refused_when_it_is_set(setting, word):
    if setting.startswith("Acting.kinds, no") and not word:
        pytest.skip("None and nothing are all kinds")
    with pytest.raises(ValueError, match=r"choose|give|allowed|must be|got|unknown"):
        TAKE_A_WORD[setting](word)


@pytest.mark.parametrize("setting", ["statistics", "regions"])
def test_trl_s_trainer_refuses_an_unknown_word(setting):
    pytest.importorskip("trl")
    from entrostat.integrations.trl.trainer import EntropyGRPOTrainer

    with pytest.raises(ValueError, match=f"{setting} is 'typo'; give"):
        EntropyGRPOTrainer(controller=None, **{setting: "typo"})


@pytest.mark.parametrize("setting", ["tier", "regions"])
def test_verl_s_loss_refuses_an_unknown_word(setting):
    pytest.importorskip("tensordict")
    from entrostat.integrations.verl.worker import ControlledLoss

    with pytest.raises(ValueError, match=f"{setting} is 'typo'; give"):
        ControlledLoss(SimpleNamespace(reweighting=None), None, **{setting: "typo"})

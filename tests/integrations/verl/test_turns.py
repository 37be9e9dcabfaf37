"""verl's agent loops: a tool's tokens, masked in response_mask, train nothing and are in no statistic.

Skipped where verl is not installed.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed: completions of several turns are not checked")

from test_verl import MODES, PROMPT, Batch, actor, controlled, jagged
from verl.workers.utils.losses import ppo_loss

from entrostat import token_stats, turn_numbers, turn_sums
from entrostat.control import EntropyController, FixedWeights, HighEntropyTokens, IncreaseThenDecrease
from entrostat.integrations.records import step_line
from entrostat.objective import Tis
from entrostat.runs.schema import STEP
from entrostat.tokens import TokenStats

MASKS = (  # of the completions of `Batch`, 9, 2, 5, 7, 1 and 8 tokens long
    [1, 1, 0, 0, 1, 1, 0, 1, 0],
    [1, 1],
    [0, 1, 0, 1, 0],
    [1, 1, 1, 0, 0, 0, 1],
    [1],
    [1, 0, 1, 0, 1, 1, 1, 0],
)
TOKENS = sum(map(sum, MASKS))


def with_tools(rows=(0, 1, 2, 3, 4, 5), **changes):
    batch = Batch(rows, batch_num_tokens=TOKENS, **changes)
    batch.data["response_mask"] = jagged([torch.tensor(MASKS[row]) for row in rows])
    return batch


def tools_of(batch):
    """For each sequence, whether its logits are read for a tool's token alone."""
    places = []
    for logits, mask in zip(batch.logits, batch.data["response_mask"].unbind(), strict=True):
        read = torch.zeros(len(logits), dtype=torch.bool)
        read[PROMPT - 1 : -1] = mask == 0
        places.append(read)
    return places


def shown(metrics):
    return {name: value.aggregate() for name, value in metrics.items()}


@pytest.mark.parametrize("tier", ["B", "C"])
@pytest.mark.parametrize("mode", MODES)
def test_without_control_it_is_verls_own_loss(tier, mode):
    vanilla, theirs, their_metrics = with_tools().step(partial(ppo_loss, actor("vanilla", loss_agg_mode=mode)))
    loss, ours, metrics = with_tools().step(
        controlled(tier=tier, loss_agg_mode=mode), distillation_use_topk=tier == "C"
    )
    torch.testing.assert_close(loss, vanilla)
    torch.testing.assert_close(ours, theirs)
    assert shown(metrics) == pytest.approx(shown(their_metrics))


CONTROLLERS = {
    "id": lambda: EntropyController(IncreaseThenDecrease(), total_steps=10),
    "weights": lambda: EntropyController(FixedWeights(2.0, 0.5), total_steps=10),
    "80/20": lambda: EntropyController(HighEntropyTokens(0.3), total_steps=10),
    "a correction": lambda: EntropyController(Tis(1.1), total_steps=10),
}


@pytest.mark.parametrize("name", CONTROLLERS)
def test_what_the_policy_thinks_of_a_tools_tokens_changes_nothing(name):
    found = []
    for shift in (0.0, 7.0):
        batch = with_tools().sampled_elsewhere()
        with torch.no_grad():
            for logits, tool in zip(batch.logits, tools_of(batch), strict=True):
                logits[tool] = logits[tool].roll(3, -1) * (1 + shift)
        loss = controlled(CONTROLLERS[name]())
        value, gradients, _ = batch.step(loss, distillation_use_topk=True)
        for gradient, tool in zip(gradients, tools_of(batch), strict=True):
            assert not gradient[tool].any()
        own = [gradient[~tool] for gradient, tool in zip(gradients, tools_of(batch), strict=True)]
        found.append((value, torch.cat(own), loss.finish_step()))
    (value, gradients, record), (other, others, again) = found
    torch.testing.assert_close(value, other)
    torch.testing.assert_close(gradients, others)
    assert record == pytest.approx(again)


def test_each_turn_has_its_own_statistics_however_the_step_is_cut():
    loss, batch = controlled(), with_tools()
    batch.step(loss, distillation_use_topk=True)
    found = loss.finish_step()
    line = step_line(1, found)
    STEP.check(line, "the log")
    width = max(map(len, MASKS))

    def padded(rows):
        return torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in rows])

    scored = [
        token_stats(logits[PROMPT - 1 : -1].detach(), ids[PROMPT:])
        for logits, ids in zip(batch.logits, batch.data["input_ids"].unbind(), strict=True)
    ]
    stats = TokenStats(*(padded([getattr(one, name) for one in scored]) for name in TokenStats.__dataclass_fields__))
    mask = padded([torch.tensor(row) for row in MASKS])
    advantages = padded(batch.data["advantages"].unbind())
    record = turn_sums(stats, advantages, mask).metrics()
    assert line["turns_per_completion"] == pytest.approx(record["turns_per_completion"])
    assert (
        set(line["turns"])
        == set(record["turns"])
        == {str(turn) for turn in range(1, int(turn_numbers(mask).max()) + 1)}
    )
    for turn, own in record["turns"].items():
        for name in ("completions", "tokens", "entropy", "surprisal", "polarity"):
            assert line["turns"][turn][name] == pytest.approx(own[name], rel=1e-4, abs=1e-6), (turn, name)
    cut = controlled()
    for rows in ([0, 1], [2], [3, 4, 5]):
        with_tools(rows).step(cut, distillation_use_topk=True)
    assert cut.finish_step() == pytest.approx(found)


def test_over_two_ranks_each_turn_is_that_of_the_step(tmp_path):
    loss = controlled(EntropyController(IncreaseThenDecrease(), 10))
    _, gradients, _ = with_tools().step(loss, distillation_use_topk=True)
    torch.save((gradients, loss.finish_step()), tmp_path / "whole.pt")
    script = Path(__file__).with_name("verl_two_ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    command += [str(tmp_path / "whole.pt"), "turns"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("agrees") == 2


def test_single_turns_and_tier_b_have_no_record_of_turns():
    single, tier_b = controlled(), controlled(tier="B")
    Batch().step(single, distillation_use_topk=True)
    with_tools().step(tier_b)
    for loss in (single, tier_b):
        assert not any("turns" in name for name in loss.finish_step())

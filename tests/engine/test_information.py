"""Whether completions depend on their prompts, measured by the embedded engine."""

import math
from dataclasses import replace

import pytest
import torch

from entrostat.engine.information import measured_information
from entrostat.engine.policy import load_policy
from entrostat.engine.rollout import Sampling, sample
from entrostat.engine.train import train
from entrostat.recipe import parse_recipe
from entrostat.runs import Run
from entrostat.tasks import listcraft

SAMPLES = 2
RECIPE = {
    "name": "informed",
    "threads": 1,
    "tasks": {"train": 6, "select": 4, "report": 4},
    "rollout": {"prompts": 4, "samples": 2},
    "update": {"epochs": 2, "minibatches": 2, "learning_rate": 1e-3},
    "evaluation": {"every": 12, "samples": 1, "pass_at": [1]},
    "campaign": {"steps": 12},
}


@pytest.fixture(scope="module")
def policy():
    return load_policy()


@pytest.fixture(scope="module")
def rollout(policy):
    prompts = [task.prompt for task in listcraft.tasks("train", 6)]
    return sample(policy, prompts, Sampling(SAMPLES, 48), seed=1)


@torch.no_grad()
def test_it_is_the_definition_scored_one_by_one(policy, rollout):
    """l_ij = ln p(completion i | prompt j), each by a forward pass of its own."""
    temperature, total, retrieved, surprisal = 0.8, 0.0, 0, 0.0
    for i in range(len(rollout.texts)):
        scores = []
        for j in range(0, len(rollout.texts), SAMPLES):
            own = rollout.rows(torch.tensor([i]))
            prompt, prompt_mask = rollout.prompts[j : j + 1], rollout.prompt_mask[j : j + 1]
            logits = policy.logits(prompt, prompt_mask, own.completions, own.mask)[0] / temperature
            logp = logits.double().log_softmax(-1).gather(1, own.completions[0].unsqueeze(1)).squeeze(1)
            scores.append(float(logp.sum()))
        mine = scores[i // SAMPLES]
        total += mine - math.log(sum(math.exp(score) for score in scores) / len(scores))
        retrieved += mine == max(scores)
        surprisal -= mine / int(rollout.lengths[i])
    count = len(rollout.texts)
    for rows in (5, 512):
        found = measured_information(policy, rollout, 1000, temperature, rows)
        assert found["nats"] == pytest.approx(total / count, abs=1e-4)
        assert found["conditional_entropy"] == pytest.approx(surprisal / count, abs=1e-5)
        assert found["retrieval"] == pytest.approx(retrieved / count)
        assert found["most"] == pytest.approx(math.log(6))


def test_answers_tell_their_prompts_and_exchanged_ones_do_not(policy, rollout):
    told = measured_information(policy, rollout, 1000, 1.0, 512)
    assert told["retrieval"] > 0.9
    assert told["nats"] > 0.8 * told["most"]
    moved = replace(rollout, prompts=rollout.prompts.roll(SAMPLES, 0), prompt_mask=rollout.prompt_mask.roll(SAMPLES, 0))
    exchanged = measured_information(policy, moved, 1000, 1.0, 512)
    assert exchanged["retrieval"] < told["retrieval"] / 2
    assert exchanged["nats"] < 0


def test_equal_prompts_are_one_and_a_part_of_the_completions_is_spread_over_the_batch(policy, rollout):
    same = rollout.rows(torch.arange(SAMPLES).repeat(3))
    alone = measured_information(policy, same, 1000, 1.0, 512)
    assert alone["nats"] == pytest.approx(0, abs=1e-9)
    assert alone["chance"] == 1
    first = rollout.rows(torch.arange(0, len(rollout.texts), SAMPLES))
    part = measured_information(policy, rollout, 6, 1.0, 512)
    assert part == pytest.approx(measured_information(policy, first, 1000, 1.0, 512), abs=1e-6)


def test_it_is_logged_at_the_first_step_of_every_kth_batch_and_changes_nothing(tmp_path):
    control = {"strategy": {"name": "od"}}
    train(parse_recipe({**RECIPE, "control": control}), tmp_path / "plain")
    information = {"every": 2, "completions": 4}
    train(parse_recipe({**RECIPE, "control": {**control, "information": information}}), tmp_path / "measured")
    plain, lines = (Run.open(tmp_path / name).steps() for name in ("plain", "measured"))
    assert [line["step"] for line in lines if "information" in line] == [1, 9]  # batches of four steps
    for before, after in zip(plain, lines, strict=True):
        kept = {name: value for name, value in after.items() if name not in ("information", "seconds")}
        assert kept == {name: value for name, value in before.items() if name != "seconds"}
    assert lines[0]["seconds"]["information"] > 0
    assert lines[0]["information"]["most"] == pytest.approx(math.log(4))


def test_a_table_refuses_it_by_name():
    with pytest.raises(Exception, match=r"control\.information: given with engine 'tabular'"):
        parse_recipe({**RECIPE, "engine": "tabular", "control": {"information": {}}})

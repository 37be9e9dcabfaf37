"""A sampler that lags behind, rounds or truncates: exactly as told, and resumed to the same trace."""

import math

import pytest
import torch

from entrostat.engine.policy import load_policy
from entrostat.engine.rollout import Sampling, sample, truncated_logp
from entrostat.engine.sampler import Sampler, rounded_to_int8
from entrostat.engine.train import train
from entrostat.recipe import RecipeError, parse_recipe
from entrostat.recipe.sections import RolloutRecipe
from entrostat.runs import Run

SMALL = {
    "name": "small",
    "threads": 1,
    "tasks": {"train": 4, "select": 2, "report": 2},
    "update": {"epochs": 2, "learning_rate": 1e-3, "warmup_steps": 0},
    "evaluation": {"every": 100, "samples": 1, "pass_at": [1]},
    "campaign": {"steps": 8, "checkpoint_every": 1},
}


def recipe(**rollout):
    return parse_recipe({**SMALL, "rollout": {"prompts": 2, "samples": 2, **rollout}})


def shift(policy, by):
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight += by


def first_weight(policy):
    return next(policy.model.parameters()).flatten()[0].item()


def test_the_sampler_is_the_policy_of_so_many_updates_ago():
    trained = load_policy()
    sampler = Sampler(trained, RolloutRecipe(staleness=2))
    start = first_weight(trained)
    seen = []
    for _ in range(5):
        seen.append((sampler.lag, first_weight(sampler.policy())))
        sampler.remember()
        shift(trained, 1.0)
    assert [lag for lag, _ in seen] == [0, 1, 2, 2, 2]
    assert [value for _, value in seen] == pytest.approx([start, start, start, start + 1, start + 2], abs=1e-5)


def test_without_a_setting_the_policy_itself_samples_and_nothing_is_kept():
    trained = load_policy()
    sampler = Sampler(trained, RolloutRecipe())
    sampler.remember()
    assert sampler.policy() is trained
    assert sampler.lag == 0


@pytest.mark.parametrize("staleness", [0, 2])
def test_past_weights_are_written_and_read_back(tmp_path, staleness):
    trained = load_policy()
    sampler = Sampler(trained, RolloutRecipe(staleness=staleness))
    for _ in range(3):
        sampler.remember()
        shift(trained, 0.5)
    sampler.save(tmp_path)
    again = Sampler(trained, RolloutRecipe(staleness=staleness))
    again.load(tmp_path)
    assert again.lag == sampler.lag == staleness
    assert first_weight(again.policy()) == first_weight(sampler.policy())


def test_int8_has_255_levels_in_each_row_and_errs_by_half_a_level_at_most():
    weight = torch.randn(7, 300, dtype=torch.float64)
    rounded = rounded_to_int8(weight)
    scale = weight.abs().amax(1, keepdim=True) / 127
    assert ((rounded - weight).abs() <= scale / 2 * (1 + 1e-9)).all()
    assert (rounded / scale - (rounded / scale).round()).abs().max() < 1e-9
    assert torch.equal(rounded_to_int8(rounded), rounded) or torch.allclose(rounded_to_int8(rounded), rounded)
    assert torch.equal(rounded_to_int8(torch.zeros(2, 3)), torch.zeros(2, 3))
    assert torch.equal(rounded_to_int8(weight[0]), weight[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_rounded_sampler_differs_a_little_and_leaves_the_trained_weights_alone(dtype):
    trained = load_policy()
    before = [weight.clone() for weight in trained.model.parameters()]
    rounded = Sampler(trained, RolloutRecipe(dtype=dtype)).policy()
    prompts = ["double every number"]
    with torch.no_grad():
        rollouts = [sample(policy, prompts, Sampling(4, 8), seed=0) for policy in (trained, rounded)]
    first = [rollout.old_logp[:, 0] for rollout in rollouts]
    assert not torch.equal(*first)
    assert (first[0] - first[1]).abs().max() < 0.5
    assert all(torch.equal(now, then) for now, then in zip(trained.model.parameters(), before, strict=True))


def test_truncation_keeps_the_likeliest_tokens_renormalised():
    logp = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64).log()
    assert truncated_logp(logp, top_k=2).exp().tolist() == pytest.approx([0.625, 0.375, 0, 0])
    assert truncated_logp(logp, top_p=0.8).exp().tolist() == pytest.approx([0.625, 0.375, 0, 0])
    assert truncated_logp(logp, top_p=0.81).exp().tolist() == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0])
    assert truncated_logp(logp, top_p=1e-9).exp().tolist() == pytest.approx([1, 0, 0, 0])
    assert torch.equal(truncated_logp(logp, top_k=9, top_p=1.0), logp)


def test_what_is_drawn_under_truncation_has_its_probability_there():
    policy = load_policy()
    drawn = sample(policy, ["double every number"], Sampling(64, 4, top_k=2), seed=0)
    values = drawn.completions[:, 0]
    assert len(set(values.tolist())) <= 2
    shares = {float(p) for p in drawn.old_logp[:, 0].exp()}
    assert sum(shares) == pytest.approx(1, abs=1e-5) or shares == {pytest.approx(1.0)}
    assert (drawn.entropy[drawn.mask] <= math.log(2) + 1e-5).all()


@pytest.mark.parametrize("rollout", [{"staleness": 3}, {"staleness": 1, "dtype": "int8"}, {"dtype": "bfloat16"}])
def test_a_run_that_is_cut_short_resumes_to_the_same_trace(tmp_path, rollout):
    wanted = recipe(**rollout)
    train(wanted, tmp_path / "whole")

    def cut(line):
        if line["step"] == 5 and "split" not in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(wanted, tmp_path / "cut", cut)
    train(wanted, tmp_path / "cut")
    assert Run.open(tmp_path / "cut").trace() == Run.open(tmp_path / "whole").trace()


def test_the_age_of_completions_is_logged(tmp_path):
    train(recipe(staleness=3), tmp_path / "run")
    assert [line["staleness"] for line in Run.open(tmp_path / "run").steps()] == [0, 1, 2, 3, 3, 4, 3, 4]


@pytest.mark.parametrize(
    "setting",
    [{"staleness": 1}, {"dtype": "int8"}, {"top_k": 5}, {"top_p": 0.9}, {"resample": 3}, {"variance_top_p": 0.9}],
)
def test_other_engines_refuse_what_they_cannot_follow(setting):
    with pytest.raises(RecipeError, match=rf"rollout.{next(iter(setting))}.*engine 'trl' cannot follow"):
        parse_recipe({**SMALL, "engine": "trl", "rollout": {"prompts": 2, "samples": 2, **setting}})

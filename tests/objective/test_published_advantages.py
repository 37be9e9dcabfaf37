"""MaxRL, GRPODropout and QAE as its authors compute it, by worked numbers and by what they promise."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entrostat.objective.advantages import grpo, quantile
from entrostat.objective.grpo_dropout import grpo_dropout
from entrostat.objective.maxrl import maxrl

NO = float("nan")


def test_maxrl_divides_by_the_mean_and_leaves_groups_without_a_difference_alone() -> None:
    rewards = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 0, NO, NO]])
    expected = [[3, -1, -1, -1], [1 / 3, 1 / 3, 1 / 3, -1], [0] * 4, [0] * 4, [1, -1, 0, 0]]
    torch.testing.assert_close(maxrl(rewards), torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_grpo_dropout_drops_the_likeliest_success_and_centres_by_probability() -> None:
    rewards = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    surprisals = torch.tensor([[0.1, 0.6, 0.5, 0.8]], dtype=torch.float64)
    native = grpo(rewards)
    assert (native * (surprisals - surprisals.mean())).sum() < 0
    found = grpo_dropout(rewards, surprisals)
    weight = (-surprisals[0, 1:]).softmax(0)
    expected = native[0, 1:] - (weight * native[0, 1:]).sum()
    assert found[0, 0] == 0
    torch.testing.assert_close(found[0, 1:], expected)


GROUP = st.lists(st.tuples(st.sampled_from([0.0, 1.0, NO]), st.floats(0.01, 5)), min_size=2, max_size=9)


def one_by_one(native: list[float], surprisals: list[float], present: list[bool]) -> list[float]:
    """The paper's procedure for one group, one completion at a time."""
    own = [i for i, here in enumerate(present) if here]
    mean = sum(surprisals[i] for i in own) / max(len(own), 1)
    flow = {i: native[i] * (surprisals[i] - mean) for i in own}
    kept = sorted(own, key=lambda i: flow[i])
    while kept and sum(flow[i] for i in kept) < -1e-12 and flow[kept[0]] < 0:
        kept.pop(0)
    kept = [i for i in own if i in kept or native[i] <= 0]
    total = sum(math.exp(-surprisals[i]) for i in kept)
    centre = sum(math.exp(-surprisals[i]) * native[i] for i in kept) / total if kept else 0.0
    return [native[i] - centre if i in kept and any(native) else 0.0 for i in range(len(native))]


@given(GROUP)
@settings(max_examples=200, deadline=None)
def test_grpo_dropout_is_the_papers_procedure(group) -> None:
    rewards = torch.tensor([[reward for reward, _ in group]], dtype=torch.float64)
    surprisals = torch.tensor([[surprisal for _, surprisal in group]], dtype=torch.float64)
    expected = one_by_one(grpo(rewards)[0].tolist(), surprisals[0].tolist(), (~rewards[0].isnan()).tolist())
    found = grpo_dropout(rewards, surprisals)[0]
    if len({s for _, s in group}) == len(group):  # ties are broken by position
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=1e-9)


def test_grpo_dropout_keeps_a_group_whose_flow_does_not_fall() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0]])
    found = grpo_dropout(rewards, torch.tensor([[2.0, 0.5, 0.5]]))
    assert (found != 0).all()
    assert grpo_dropout(torch.ones(1, 3), torch.rand(1, 3)).eq(0).all()


def test_grpo_dropout_needs_a_surprisal_of_every_completion() -> None:
    with pytest.raises(ValueError, match="one per completion"):
        grpo_dropout(torch.zeros(2, 3), torch.zeros(2, 2))


def test_qae_interpolated_is_torchs_quantile() -> None:
    rewards = torch.tensor([[0.0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 1]], dtype=torch.float64)
    baseline = torch.quantile(rewards, 0.4, dim=-1, keepdim=True)
    assert 0 < float(baseline[0]) < 1
    expected = (rewards - baseline) / (rewards.std(-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(quantile(rewards, interpolated=True), expected)


def test_each_group_is_judged_by_itself_whatever_the_leading_shape() -> None:
    generator = torch.Generator().manual_seed(4)
    rewards = torch.randint(0, 2, (2, 3, 6), generator=generator).double()
    surprisals = torch.rand(2, 3, 6, generator=generator, dtype=torch.float64)
    whole = grpo_dropout(rewards, surprisals)
    assert (whole == 0).any(-1).any()
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(grpo_dropout(rewards[i, j], surprisals[i, j]), whole[i, j])

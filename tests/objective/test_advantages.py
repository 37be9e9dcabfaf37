"""Advantages: worked numbers, what a missing reward may not touch, degenerate groups, the baseline's state."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entrostat.objective.advantages import (
    EmaBaseline,
    dr_grpo,
    group_counts,
    grpo,
    quantile,
    reinforce,
    reward_tensor,
    signed,
    w_reinforce,
)

steady = settings(deadline=None, max_examples=50)
NAN = math.nan
GROUP_RELATIVE = [grpo, dr_grpo, lambda rewards: reinforce(rewards, "leave-one-out")]
ALL = [*GROUP_RELATIVE, reinforce, lambda rewards: reinforce(rewards, "batch-mean")]
groups = st.lists(st.lists(st.sampled_from([0.0, 1.0, 0.25]), min_size=4, max_size=4), min_size=1, max_size=4)


def test_worked_group_of_four() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    expect = lambda *values: torch.tensor([values], dtype=torch.float64)  # noqa: E731
    torch.testing.assert_close(reinforce(rewards), rewards)
    torch.testing.assert_close(reinforce(rewards, "batch-mean"), expect(0.75, -0.25, -0.25, -0.25))
    torch.testing.assert_close(reinforce(rewards, "leave-one-out"), expect(1.0, -1 / 3, -1 / 3, -1 / 3))
    torch.testing.assert_close(dr_grpo(rewards), expect(0.75, -0.25, -0.25, -0.25))
    torch.testing.assert_close(grpo(rewards, epsilon=0.0), expect(1.5, -0.5, -0.5, -0.5))


def test_two_completions_are_judged_by_each_other() -> None:
    rewards = torch.tensor([[1.0, 0.25]])
    torch.testing.assert_close(reinforce(rewards, "leave-one-out"), torch.tensor([[0.75, -0.75]]))
    torch.testing.assert_close(grpo(rewards, epsilon=0.0), torch.tensor([[1.0, -1.0]]) / math.sqrt(2))


def test_batch_mean_is_taken_over_all_groups() -> None:
    rewards = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(reinforce(rewards, "batch-mean"), rewards - 0.5)


def test_signed_rewards_map_failure_to_minus_one_and_keep_missing_ones() -> None:
    torch.testing.assert_close(signed(torch.tensor([0.0, 1.0, NAN])), torch.tensor([-1.0, 1.0, NAN]), equal_nan=True)


@steady
@given(groups)
def test_group_relative_advantages_sum_to_zero_in_every_group(rewards: list[list[float]]) -> None:
    for method in GROUP_RELATIVE:
        total = method(torch.tensor(rewards, dtype=torch.float64)).sum(-1)
        torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-9, rtol=0)


@steady
@given(groups, st.floats(-5, 5), st.floats(0.1, 10))
def test_grpo_does_not_see_shift_or_scale_of_the_rewards(
    rewards: list[list[float]], shift: float, scale: float
) -> None:
    raw = torch.tensor(rewards, dtype=torch.float64)
    torch.testing.assert_close(grpo(scale * raw + shift, 0.0), grpo(raw, 0.0), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("method", ALL)
def test_a_missing_reward_leaves_the_others_as_if_it_were_not_there(method) -> None:
    full = method(torch.tensor([[1.0, 0.0, 0.25]], dtype=torch.float64))
    with_missing = method(torch.tensor([[1.0, NAN, 0.0, 0.25]], dtype=torch.float64))
    torch.testing.assert_close(with_missing[:, [0, 2, 3]], full)
    assert with_missing[0, 1] == 0


@pytest.mark.parametrize("method", [*GROUP_RELATIVE, quantile, reinforce])
def test_leading_dimensions_count_groups(method) -> None:
    rewards = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(method(rewards), method(rewards.flatten(0, 1)).view_as(rewards))


def test_epsilon_is_added_to_the_standard_deviation() -> None:
    rewards = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(grpo(rewards, epsilon=0.5), (rewards - 0.5) / (math.sqrt(0.5) + 0.5))


@pytest.mark.parametrize("method", ALL)
def test_a_group_without_any_reward_gets_zeros(method) -> None:
    result = method(torch.tensor([[NAN, NAN], [1.0, 0.0]]))
    assert (result[0] == 0).all()
    assert result[1, 0] > result[1, 1]


@pytest.mark.parametrize("method", GROUP_RELATIVE)
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1])
def test_a_degenerate_group_has_advantage_exactly_zero(method, reward: float) -> None:
    assert (method(torch.full((1, 7), reward)) == 0).all()


def test_degenerate_groups_and_missing_rewards_are_counted() -> None:
    rewards = torch.tensor([[1.0, 1.0], [1.0, 0.0], [NAN, 1.0], [NAN, NAN]])
    counts = group_counts(rewards)
    assert (counts.groups, counts.degenerate, counts.missing) == (4, 3, 3)


def test_uneven_groups_and_none_become_padding_that_teaches_nothing() -> None:
    rewards = reward_tensor([[1, 0, None], [1.0]])
    expected = torch.tensor([[1.0, 0.0, NAN], [1.0, NAN, NAN]])
    torch.testing.assert_close(rewards, expected, equal_nan=True)
    assert (dr_grpo(rewards) == torch.tensor([[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]])).all()


def test_integer_rewards_are_taken_as_numbers() -> None:
    torch.testing.assert_close(dr_grpo(torch.tensor([[1, 0]])), torch.tensor([[0.5, -0.5]]))


def test_an_empty_group_is_refused() -> None:
    with pytest.raises(ValueError, match="group 1 is empty"):
        reward_tensor([[1.0], []])
    for method in ALL:
        with pytest.raises(ValueError, match="empty group"):
            method(torch.zeros(3, 0))


@pytest.mark.parametrize("method", ALL)
def test_an_infinite_reward_is_refused_with_its_position(method) -> None:
    with pytest.raises(ValueError, match=r"infinite at \(0, 1\)"):
        method(torch.tensor([[1.0, math.inf]]))


def test_an_unknown_baseline_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"batch_mean.*leave-one-out"):
        reinforce(torch.tensor([[1.0]]), "batch_mean")  # type: ignore[arg-type]


def test_ema_baseline_judges_a_batch_by_the_batches_before_it() -> None:
    baseline = EmaBaseline(decay=0.5)
    batch = lambda *values: reinforce(torch.tensor([values]), baseline)  # noqa: E731
    torch.testing.assert_close(batch(1.0, 0.0), torch.tensor([[0.5, -0.5]]))
    torch.testing.assert_close(batch(1.0, 1.0), torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(batch(0.0, 0.0), torch.tensor([[-0.75, -0.75]]))
    assert baseline.value == 0.375


def test_ema_baseline_is_untouched_by_a_batch_without_rewards() -> None:
    baseline = EmaBaseline()
    assert (reinforce(torch.tensor([[NAN, NAN]]), baseline) == 0).all()
    assert baseline.value is None


def test_ema_baseline_resumes_where_it_stopped() -> None:
    first, second = EmaBaseline(), EmaBaseline()
    reinforce(torch.tensor([[1.0, 0.0, 0.0]]), first)
    second.load_state_dict(first.state_dict())
    batch = torch.tensor([[0.0, 1.0]])
    assert torch.equal(reinforce(batch, first), reinforce(batch, second))
    assert first.state_dict() == second.state_dict()


@pytest.mark.parametrize("decay", [1.0, -0.1, NAN])
def test_ema_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"EmaBaseline\.decay"):
        EmaBaseline(decay)


@pytest.mark.parametrize(
    ("successes", "baseline"),
    [(1, 0.0), (4, 0.0), (6, 0.0), (7, 1.0), (9, 1.0)],
)
def test_quantile_baseline_of_ten_at_level_four_tenths_turns_above_six_successes(
    successes: int, baseline: float
) -> None:
    rewards = torch.tensor([[1.0] * successes + [0.0] * (10 - successes)], dtype=torch.float64)
    advantages = quantile(rewards, level=0.4)
    std = rewards.std()
    torch.testing.assert_close(advantages, (rewards - baseline) / (std + 1e-6))


def test_the_lowest_quantile_is_the_least_reward_and_the_highest_the_greatest() -> None:
    rewards = torch.tensor([[3.0, 1.0, 2.0]])
    assert (quantile(rewards, level=0.01) >= 0).all()
    assert (quantile(rewards, level=0.99) <= 0).all()


@pytest.mark.parametrize("size", [3, 7, 10, 15])
def test_a_quantile_at_a_multiple_of_one_in_n_is_that_reward(size: int) -> None:
    rewards = torch.arange(size, dtype=torch.float32)[None]
    for rank in range(1, size):
        assert quantile(rewards, level=rank / size)[0].abs().argmin() == rank - 1


def test_quantile_baseline_counts_present_rewards_only_and_leaves_degenerate_groups_at_zero() -> None:
    with_missing = quantile(torch.tensor([[NAN, 1.0, 0.0, 0.0, NAN]], dtype=torch.float64))
    full = quantile(torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(with_missing[:, 1:4], full)
    assert (with_missing[:, [0, 4]] == 0).all()
    assert (quantile(torch.tensor([[1.0, 1.0], [NAN, NAN]])) == 0).all()


def test_w_reinforce_weighs_successes_by_a_tenth() -> None:
    advantages = w_reinforce(torch.tensor([[1.0, -1.0, NAN]]))
    torch.testing.assert_close(advantages, torch.tensor([[0.1, -1.0, 0.0]]))


def test_quantile_level_and_weight_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="level is 1"):
        quantile(torch.ones(1, 2), level=1.0)
    with pytest.raises(ValueError, match=r"weight is -0\.1"):
        w_reinforce(torch.ones(1, 2), weight=-0.1)


def test_groups_are_counted_whatever_their_leading_dimensions() -> None:
    rewards = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0)).round()
    rewards[0, 0, 0], rewards[1, 2, 3, 1] = 1.0, NAN
    assert group_counts(rewards) == group_counts(rewards.view(30, 4))
    assert group_counts(rewards[0, 0, 0]) == group_counts(rewards[0, 0, :1])
    assert group_counts(rewards).groups == 30

"""Turns of a completion: what counts as one, and sums that no cut of the batch and no tool's token can change."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from entrostat import polarity, policy_loss, token_stats, turn_numbers, turn_sums
from entrostat.control import token_sums
from entrostat.entropy import TurnSums, entropy_flow
from entrostat.entropy.turns import TURNS
from entrostat.objective import ClipRule

steady = settings(deadline=None, max_examples=40)
runs = st.lists(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2)), min_size=0, max_size=11), min_size=1, max_size=5
)


def masks(rows):
    """One row per completion: model tokens, then tool tokens, and so on, padded with zeros."""
    listed = [[value for own, tool in row for value in [1] * own + [0] * tool] for row in rows]
    width = max(1, *(len(row) for row in listed))
    return torch.tensor([row + [0] * (width - len(row)) for row in listed])


def batch(mask, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(*mask.shape, 7, generator=generator, dtype=torch.float64)
    tokens = torch.randint(7, mask.shape, generator=generator)
    advantages = torch.randn(len(mask), 1, generator=generator, dtype=torch.float64)
    return token_stats(logits, tokens), advantages


def close(one, other):
    torch.testing.assert_close(one.totals, other.totals, rtol=1e-12, atol=1e-12)


def test_a_run_of_the_models_tokens_is_a_turn_and_every_other_token_none():
    mask = torch.tensor([[0, 1, 1, 0, 0, 1, 0, 1], [1, 1, 1, 1, 0, 0, 0, 0], [0] * 8])
    assert turn_numbers(mask).tolist() == [[0, 1, 1, 0, 0, 2, 0, 3], [1, 1, 1, 1, 0, 0, 0, 0], [0] * 8]
    assert turn_numbers(torch.zeros(2, 0)).shape == (2, 0)
    with pytest.raises(ValueError, match=r"mask has the shape \(3,\); give \(B, T\)"):
        turn_numbers(torch.ones(3))


@steady
@given(rows=runs)
def test_the_record_counts_turns_and_completions(rows):
    mask = masks(rows)
    counted = [len(row) for row in rows if row]
    record = turn_sums(*batch(mask), mask).metrics()
    if not counted:
        assert record == {}
        return
    assert record["turns_per_completion"] == pytest.approx(sum(counted) / len(counted))
    for turn in range(1, TURNS + 1):
        reaching = [row for row in rows if len(row) >= turn]
        assert (str(turn) in record["turns"]) == bool(reaching)
        if reaching:
            own = [run[0] for row in reaching for run in (row[turn - 1 :] if turn == TURNS else row[turn - 1 : turn])]
            assert record["turns"][str(turn)]["completions"] == pytest.approx(len(reaching) / len(counted))
            assert record["turns"][str(turn)]["tokens"] == pytest.approx(sum(own) / len(own))


@steady
@given(rows=runs)
def test_turns_together_are_the_whole_batch(rows):
    """The step's own record and the turns' agree; a batch of one turn has its means there."""
    mask = masks(rows)
    if not mask.any():
        return
    stats, advantages = batch(mask)
    old_logp = stats.logp + 0.3 * torch.randn(mask.shape, generator=torch.Generator().manual_seed(5)).double()
    loss = policy_loss(stats.logp, old_logp, advantages, mask, rule=ClipRule.constant(0.2, 0.2))
    whole = token_sums(stats, advantages, loss, mask)
    sums = turn_sums(stats, advantages, mask, flow=entropy_flow(stats, advantages, loss))
    step, own = whole.metrics(), mask.bool()
    assert sums.totals[:, 0].sum() == whole.tokens
    mean = sums.totals.sum(0) / whole.tokens
    assert mean[3] == pytest.approx(step["entropy"])
    assert mean[4] == pytest.approx(float(-stats.logp[own].mean()))
    assert mean[5] == pytest.approx(float(polarity(stats, advantages)[own].mean()))
    assert mean[6] == pytest.approx(step["flow_up"] + step["flow_down"])
    assert sums.with_flow_times(3).totals[:, 6].sum() == pytest.approx(3 * float(sums.totals[:, 6].sum()))


def test_one_turn_has_the_means_of_the_batch_and_is_not_several():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    stats, advantages = batch(mask)
    sums = turn_sums(stats, advantages, mask)
    record = sums.metrics()
    assert set(record["turns"]) == {"1"}
    assert record["turns_per_completion"] == 1
    assert not sums.several
    assert record["turns"]["1"]["entropy"] == pytest.approx(float(stats.entropy[mask.bool()].mean()))
    assert record["turns"]["1"]["flow"] == record["turns"]["1"]["polarity"]
    assert turn_sums(stats, advantages, torch.tensor([[1, 0, 1], [1, 0, 0]])).several
    assert TurnSums.zero().metrics() == {}


@steady
@given(rows=runs, cut=st.integers(1, 4))
def test_no_cut_into_micro_batches_or_ranks_and_no_padding_changes_the_sums(rows, cut):
    mask = masks(rows)
    stats, advantages = batch(mask)
    whole = turn_sums(stats, advantages, mask)
    pieces = TurnSums.zero()
    for index in torch.arange(len(mask)).split(cut):
        part = type(stats)(*(getattr(stats, name)[index] for name in ("logp", "entropy", "collision", "correction")))
        pieces = pieces + turn_sums(part, advantages[index], mask[index])
    close(pieces, whole)
    names = ("logp", "entropy", "collision", "correction")
    wider = type(stats)(*(pad(getattr(stats, name), (2, 3), value=torch.nan) for name in names))
    close(turn_sums(wider, advantages, pad(mask, (2, 3))), whole)


@steady
@given(rows=runs)
def test_tokens_of_a_tool_are_never_read(rows):
    mask = masks(rows)
    stats, advantages = batch(mask)
    tool = ~mask.bool()
    broken = replace(
        stats, logp=stats.logp.masked_fill(tool, -torch.inf), entropy=stats.entropy.masked_fill(tool, torch.nan)
    )
    close(turn_sums(broken, advantages, mask), turn_sums(stats, advantages, mask))

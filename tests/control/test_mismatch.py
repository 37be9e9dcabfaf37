"""The mismatch of sampler and trainer: its metrics against their definitions, and corrections as parts."""

import math

import pytest
import torch

from entrostat.control import EntropyController, HighEntropyTokens, MismatchSums, mismatch_sums
from entrostat.objective import IcePop, Opsm, Tis
from entrostat.tokens import effective_sample_size, token_stats


def tokens(rows=6, width=8, spread=0.7):
    generator = torch.Generator().manual_seed(3)
    sampler = -torch.rand(rows, width, generator=generator, dtype=torch.float64) * 4
    old = sampler + spread * torch.randn(rows, width, generator=generator, dtype=torch.float64)
    mask = torch.arange(width) < torch.randint(1, width + 1, (rows,), generator=generator)[:, None]
    return old, sampler, mask


def test_every_metric_is_its_definition():
    old, sampler, mask = tokens()
    factors = torch.ones_like(old).masked_fill(old > sampler, 0)
    found = mismatch_sums(old, sampler, mask, factors=factors).metrics()
    ratios = (old - sampler)[mask].exp()
    rows = [(old - sampler)[i][mask[i]] for i in range(len(mask))]
    log_weights = torch.stack([row.sum() for row in rows])
    assert found == pytest.approx(
        {
            "k1": float(-ratios.log().mean()),
            "k3": float((ratios - 1 - ratios.log()).mean()),
            "chi2": float(ratios.square().mean() - 1),
            "distance": float(ratios.log().abs().mean()),
            "largest": float(ratios.log().abs().max()),
            "outside": float(((ratios < 0.5) | (ratios > 2)).double().mean()),
            "masked": float((old > sampler)[mask].double().mean()),
            "sample_size": effective_sample_size(log_weights) / len(rows),
            "perplexity_ratio": float(torch.stack([(-row.mean()).exp() for row in rows]).mean()),
        }
    )


def test_sums_add_over_pieces_however_a_batch_is_cut_and_packed():
    old, sampler, mask = tokens()
    whole = mismatch_sums(old, sampler, mask)
    pieces = MismatchSums.zero()
    for rows in (slice(0, 1), slice(1, 4), slice(4, None)):
        pieces = pieces + mismatch_sums(old[rows], sampler[rows], mask[rows])
    assert pieces.metrics() == pytest.approx(whole.metrics(), rel=1e-12)
    numbers = torch.arange(len(mask))[:, None].expand_as(mask)[mask]
    packed = mismatch_sums(old[mask], sampler[mask], torch.ones_like(old[mask]), sequences=numbers)
    assert packed.metrics() == pytest.approx(whole.metrics(), rel=1e-12)
    nothing = mismatch_sums(old, sampler, torch.zeros_like(mask))
    assert nothing.metrics() == {}
    assert nothing.kl is None
    assert (whole + nothing).metrics() == whole.metrics()


def test_one_policy_has_no_mismatch():
    old, _, mask = tokens()
    found = mismatch_sums(old, old, mask).metrics()
    assert found.pop("sample_size") == found.pop("perplexity_ratio") == 1
    assert set(found.values()) == {0.0}


@pytest.mark.parametrize("away", [-5e3, 5e3])
def test_a_sampler_far_away_leaves_every_number_finite(away):
    old, sampler, mask = tokens()
    sampler[0] += away
    found = mismatch_sums(old, sampler, mask).metrics()
    assert all(math.isfinite(value) for value in found.values())
    assert found["largest"] > 4e3
    assert away > 0 or found["sample_size"] == pytest.approx(1 / len(mask), rel=1e-6)


def stats(shape=(6, 8)):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(*shape, 20, generator=generator)
    return token_stats(logits, torch.randint(0, 20, shape, generator=generator))


def test_a_correction_multiplies_the_weights_of_the_other_parts():
    found = stats()
    advantages = torch.randn(6, 1).expand(6, 8)
    old, sampler = found.logp - 0.2, found.logp + torch.randn(6, 8)
    given = {"old_logp": old, "sampler_logp": sampler}
    both = EntropyController(Tis(1.5), HighEntropyTokens(0.2), Opsm(), total_steps=3)
    alone = EntropyController(HighEntropyTokens(0.2), total_steps=3)
    corrected = both.corrected(found, advantages, **given)
    assert corrected.min() == 0
    assert corrected.max() == 1.5
    assert torch.equal(both.weights(found, advantages, **given), corrected * alone.weights(found, advantages, **given))
    assert both.reweighting is both.parts[2]
    assert len(both.corrections) == 2
    assert alone.corrections == ()
    assert torch.equal(alone.corrected(found, advantages), torch.ones(6, 8))


def test_a_correction_without_the_sampler_is_refused_by_its_name():
    found = stats()
    controller = EntropyController(IcePop(), total_steps=3)
    assert controller.weighs
    assert controller.reweighting is None
    with pytest.raises(ValueError, match=r"IcePop.*sampler_logp"):
        controller.weights(found, torch.ones(6, 8))

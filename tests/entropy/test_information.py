"""The mutual information of prompts and completions: its limits, its bound, the exact value, hostile input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entrostat import prompt_information
from entrostat.entropy import information_terms

F64 = torch.float64


def scored(seed, completions=6, prompts=4, scale=5.0):
    generator = torch.Generator().manual_seed(seed)
    logp = -scale * torch.rand(completions, prompts, generator=generator, dtype=F64) - 1
    own = torch.randint(prompts, (completions,), generator=generator)
    return logp, own, torch.randint(1, 9, (completions,), generator=generator)


def test_completions_that_ignore_their_prompt_have_no_information():
    """A template: every prompt gives a completion the same probability, however varied the completions are."""
    logp, own, lengths = scored(0)
    found = prompt_information(logp[:, :1].expand(-1, 4), own, lengths)
    assert found["nats"] == pytest.approx(0, abs=1e-12)
    assert found["per_token"] == pytest.approx(0, abs=1e-12)
    assert found["retrieval"] == pytest.approx(found["chance"]) == 0.25
    assert found["conditional_entropy"] > 0


def test_completions_that_tell_their_prompt_reach_the_bound():
    logp = torch.full((4, 4), -500.0).fill_diagonal_(-3.0)
    found = prompt_information(logp, torch.arange(4), torch.tensor([5, 5, 5, 5]))
    assert found["nats"] == pytest.approx(math.log(4)) == pytest.approx(found["most"])
    assert found["retrieval"] == 1
    assert found["conditional_entropy"] == pytest.approx(0.6)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), prompts=st.integers(1, 7), scale=st.sampled_from([0.1, 5.0, 3000.0]))
def test_no_term_exceeds_the_logarithm_of_the_prompts(seed, prompts, scale):
    nats, per_token, conditional, retrieval = information_terms(*scored(seed, 6, prompts, scale))
    for terms in (nats, per_token):
        assert bool((terms <= math.log(prompts) + 1e-9).all())
        assert bool(terms.isfinite().all())
    assert bool((conditional > 0).all())
    assert bool(((retrieval >= 0) & (retrieval <= 1)).all())
    if prompts == 1:
        assert nats.abs().max() < 1e-9


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_the_mean_over_every_completion_is_the_exact_mutual_information(seed):
    """Each completion once per prompt, weighted by p(z | x), gives H(Z) - H(Z | X), and never less than 0."""
    p = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed), dtype=F64).softmax(1)  # (prompt, completion)
    own, completion = (place.flatten() for place in torch.meshgrid(torch.arange(3), torch.arange(5), indexing="ij"))
    nats, *_ = information_terms(p.log().T[completion], own, torch.ones(15))
    estimate = float((p.flatten() * nats).sum() / 3)
    entropies = torch.special.entr(p).sum(1).mean(), torch.special.entr(p.mean(0)).sum()
    assert estimate == pytest.approx(float(entropies[1] - entropies[0]), abs=1e-12)
    assert estimate >= -1e-12


def test_no_order_of_prompts_or_completions_matters_and_parts_average():
    logp, own, lengths = scored(3)
    order, rows = torch.tensor([2, 0, 3, 1]), torch.tensor([5, 3, 1, 0, 2, 4])
    terms = information_terms(logp, own, lengths)
    torch.testing.assert_close(information_terms(logp[:, order], order.argsort()[own], lengths), terms)
    torch.testing.assert_close(information_terms(logp[rows], own[rows], lengths[rows]), terms[:, rows])
    halves = torch.cat([information_terms(logp[part], own[part], lengths[part]) for part in (slice(2), slice(2, 6))], 1)
    torch.testing.assert_close(halves, terms)


def test_the_length_normalised_estimate_is_that_of_the_authors():
    """mean_i [l_i - ln mean_j exp(l_ij)] of l = ln p / T, written out."""
    logp, own, lengths = scored(7)
    expected = 0.0
    for row, mine, length in zip(logp.tolist(), own.tolist(), lengths.tolist(), strict=True):
        each = [value / length for value in row]
        expected += each[mine] - math.log(sum(map(math.exp, each)) / len(each))
    assert prompt_information(logp, own, lengths)["per_token"] == pytest.approx(expected / len(logp))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logp": torch.zeros(6)}, r"logp has the shape \(6,\)"),
        ({"logp": torch.zeros(0, 3)}, r"logp has the shape \(0, 3\)"),
        ({"own": torch.tensor([0])}, r"own has the shape \(1,\); give \(6,\)"),
        ({"own": torch.tensor([0, 1, 2, 3, 4, 0])}, "places of prompts, 0 to 3"),
        ({"own": torch.tensor([0, 1, 2, 3, -1, 0])}, "places of prompts, 0 to 3"),
        ({"lengths": torch.tensor([1, 1, 1, 1, 1, 0])}, "a completion without tokens"),
        ({"logp": torch.full((6, 4), -torch.inf)}, "not finite"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(change, message):
    given_ = dict(zip(("logp", "own", "lengths"), scored(1), strict=True))
    with pytest.raises(ValueError, match=message):
        prompt_information(**{**given_, **change})

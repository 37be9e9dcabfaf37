"""Bounds of the entropy from the top k hold, are attained, and close as k grows."""

import pytest
import torch

from entrostat import topk_entropy_bounds


def draw(vocabulary: int, scale: float):
    generator = torch.Generator().manual_seed(vocabulary)
    logp = (scale * torch.randn(64, vocabulary, generator=generator, dtype=torch.float64)).log_softmax(-1)
    return logp, torch.multinomial(logp.exp(), 1, generator=generator).squeeze(-1)


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 12.0])
@pytest.mark.parametrize("vocabulary", [2, 7, 500])
def test_the_entropy_lies_within_the_bounds_which_close_as_k_grows(vocabulary, scale):
    logp, sampled = draw(vocabulary, scale)
    entropy = torch.special.entr(logp.exp()).sum(-1)
    own = logp.gather(-1, sampled[:, None]).squeeze(-1)
    before = torch.full_like(entropy, torch.inf)
    for k in (1, 2, 5, 50, 500):
        if k <= vocabulary:
            low, high = topk_entropy_bounds(logp.topk(k).values, own, vocabulary)
            assert (low <= entropy + 1e-9).all()
            assert (entropy <= high + 1e-9).all()
            assert (high - low <= before + 1e-9).all()
            before = high - low
    if vocabulary in (2, 500):
        torch.testing.assert_close(before, torch.zeros_like(before), atol=1e-6, rtol=0)


def test_both_bounds_are_attained():
    alike = torch.tensor([0.4, 0.2, 0.2, 0.2], dtype=torch.float64)
    at_the_least = torch.tensor([0.4, 0.25, 0.25, 0.1], dtype=torch.float64)
    for p, which in ((alike, 1), (at_the_least, 0)):
        top = p.log()[:2] if which == 0 else p.log()[:1]
        bound = topk_entropy_bounds(top, top[0], 4)[which]
        torch.testing.assert_close(bound, torch.special.entr(p).sum())


def test_a_sampled_token_below_the_top_is_known_too():
    p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    without = topk_entropy_bounds(p.log()[:2], p.log()[0], 4)
    with_it = topk_entropy_bounds(p.log()[:2], p.log()[3], 4)
    torch.testing.assert_close(with_it[0], torch.special.entr(p).sum())
    assert with_it[1] - with_it[0] < without[1] - without[0]


@pytest.mark.parametrize(
    ("top", "vocabulary", "message"),
    [
        ([0.5], 9, "<= 0"),
        ([float("nan")], 9, "<= 0"),
        ([-0.1, -0.1], 9, "has mass"),
        ([-1.0, -2.0], 1, "vocabulary is 1"),
        ([-3.0], 4, "leaves a mass"),
        ([], 4, "has shape"),
    ],
)
def test_what_is_no_top_of_a_distribution_is_refused(top, vocabulary, message):
    with pytest.raises(ValueError, match=message):
        topk_entropy_bounds(torch.tensor(top), torch.tensor(-0.2), vocabulary)


def test_no_gradient_flows_through_the_bounds():
    top = torch.tensor([[0.6, 0.3]]).log().requires_grad_()
    assert not any(bound.requires_grad for bound in topk_entropy_bounds(top, top[:, 0], 9))


def test_a_log_probability_that_rounding_has_put_above_0_is_that_of_a_certain_token():
    for top, own in ((5e-4, 0.0), (0.0, 5e-4)):
        bounds = topk_entropy_bounds(torch.tensor([[top]]), torch.tensor([own]), 9)
        assert [bound.item() for bound in bounds] == pytest.approx([0, 0], abs=1e-12)


def test_of_several_rows_the_first_bad_one_is_named():
    fine = torch.tensor([0.5, 0.3]).log()
    for bad, message in (
        (torch.tensor([0.9, 0.8]).log(), r"topk_logprobs\[1\] has mass 1.7;"),
        (torch.tensor([0.1, 0.05]).log(), r"topk_logprobs\[1\] leaves a mass of 0.85; allowed: at most 0.15"),
        (torch.tensor([0.5, -0.0]), r"topk_logprobs\[1, 0\] is 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            topk_entropy_bounds(torch.stack([fine, bad, bad]), fine[:1].expand(3), 5)


def test_a_mass_may_exceed_1_by_what_rounding_does_to_it():
    for excess, fine in ((9e-3, True), (1.1e-2, False)):
        top = torch.tensor([0.5, 0.5 + excess], dtype=torch.float64).log()
        if fine:
            low, high = topk_entropy_bounds(top, top[0], 9)
            assert low == high
        else:
            with pytest.raises(ValueError, match="has mass"):
                topk_entropy_bounds(top, top[0], 9)

"""The estimates of the divergence from the sampler have its value as their mean, exactly summed over a vocabulary."""

import pytest
import torch

from entrostat import effective_sample_size, sampler_kl


def test_both_estimates_have_the_divergence_as_their_mean():
    mu, p = (torch.randn(50, generator=torch.Generator().manual_seed(s)).double().log_softmax(0) for s in (0, 1))
    k1, k3 = sampler_kl(p, mu)
    kl = (mu.exp() * (mu - p)).sum()
    torch.testing.assert_close((mu.exp() * k1).sum(), kl)
    torch.testing.assert_close((mu.exp() * k3).sum(), kl)
    assert (k3 >= 0).all()


def test_k3_keeps_its_digits_near_equality():
    k1, k3 = sampler_kl(torch.tensor([-1.0], dtype=torch.float64), torch.tensor([-1.0 + 1e-5], dtype=torch.float64))
    torch.testing.assert_close(k3, k1**2 / 2, rtol=1e-4, atol=0)


def test_a_token_outside_the_support_is_infinitely_far():
    assert [float(k) for k in sampler_kl(torch.tensor([-torch.inf]), torch.tensor([-1.0]))] == [torch.inf] * 2
    with pytest.raises(ValueError, match="sampler_logp"):
        sampler_kl(torch.tensor([-1.0]), torch.tensor([-torch.inf]))


def test_the_effective_sample_size_counts_equal_weights_and_no_scale():
    assert effective_sample_size(torch.full((7,), -900.0)) == pytest.approx(7)
    assert effective_sample_size(torch.tensor([0.0, -torch.inf, -800.0])) == pytest.approx(1)
    assert effective_sample_size(torch.tensor([0.0, 0.6931471805599453])) == pytest.approx(9 / 5)
    assert effective_sample_size(torch.tensor([])) == 0


def test_no_gradient_flows_through_what_only_measures():
    logp = torch.tensor([-1.0, -2.0], requires_grad=True)
    assert not any(each.requires_grad for each in sampler_kl(logp, torch.tensor([-1.5, -1.0])))
    assert isinstance(effective_sample_size(logp), float)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_weight_or_a_log_probability_that_is_no_number_is_refused(bad):
    with pytest.raises(ValueError, match="log_weights has a NaN"):
        effective_sample_size(torch.tensor([0.0, bad]))
    for logp, sampler in ((torch.nan, -1.0), (-1.0, bad)):
        with pytest.raises(ValueError, match="has a NaN"):
            sampler_kl(torch.tensor([logp]), torch.tensor([sampler]))
    with pytest.raises(ValueError, match=r"shape \(1,\) and sampler_logp \(2,\)"):
        sampler_kl(torch.zeros(1), torch.zeros(2))


def test_without_any_weight_there_is_no_sample():
    assert effective_sample_size(torch.full((3,), -torch.inf)) == 0

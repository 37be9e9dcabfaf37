"""Terms beside the policy loss: the entropy bonus, and KL-Cov's penalty on the tokens of largest covariance."""

import pytest
import torch

from entrostat.objective import entropy_bonus, kl_cov_penalty


def test_the_bonus_rewards_the_entropy_of_masked_tokens() -> None:
    entropy = torch.tensor([1.0, 2.0, float("nan")], requires_grad=True)
    term = entropy_bonus(entropy, torch.tensor([1, 1, 0]), 0.1)
    torch.testing.assert_close(term, torch.tensor([-0.1, -0.2, 0.0]))
    (gradient,) = torch.autograd.grad(term.sum(), entropy)
    torch.testing.assert_close(gradient, torch.tensor([-0.1, -0.1, 0.0]))


def test_kl_cov_pulls_the_tokens_of_largest_covariance_back_to_the_old_policy() -> None:
    logp = torch.tensor([-0.1, -3.0, -0.2, -2.0, -0.05], requires_grad=True)
    old_logp = torch.tensor([-0.3, -2.5, -0.1, -2.0, -5.0])
    adv = torch.tensor([2.0, 1.0, -1.0, -2.0, 9.0])
    penalty = kl_cov_penalty(logp, old_logp, adv, torch.tensor([1, 1, 1, 1, 0]), share=0.5, coefficient=2.0)
    torch.testing.assert_close(penalty, torch.tensor([0.4, 0.0, 0.0, 0.0, 0.0]))
    (gradient,) = torch.autograd.grad(penalty.sum(), logp)
    torch.testing.assert_close(gradient, torch.tensor([2.0, 0.0, 0.0, 0.0, 0.0]))


def test_kl_cov_is_inert_on_policy() -> None:
    logp = torch.randn(20, generator=torch.Generator().manual_seed(0))
    assert (kl_cov_penalty(logp, logp, torch.randn(20), torch.ones(20), share=1.0) == 0).all()


def test_kl_cov_chooses_at_least_one_token() -> None:
    logp = torch.tensor([-1.0, -2.0])
    penalty = kl_cov_penalty(logp, logp - 1, torch.tensor([1.0, -1.0]), torch.ones(2))
    assert int((penalty > 0).sum()) == 1


def test_bad_input_is_refused() -> None:
    ones = torch.ones(2)
    with pytest.raises(ValueError, match="share is 0"):
        kl_cov_penalty(ones, ones, ones, ones, share=0.0)
    with pytest.raises(ValueError, match="no token counts"):
        kl_cov_penalty(ones, ones, ones, 0 * ones)

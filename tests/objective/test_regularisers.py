"""Terms beside the policy loss: entropy bonus, KL-Cov's penalty, KL to a reference, elastic weight consolidation."""

import pytest
import torch

from entrostat.objective import adapted_coefficient, entropy_bonus, ewc_penalty, kl_cov_penalty, kl_to_reference
from entrostat.objective.regularisers import kl_estimate, overlong_shaping


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


def test_kl_to_the_reference_is_torch_s_and_zero_at_the_reference_with_no_gradient_there():
    generator = torch.Generator().manual_seed(0)
    logits, other = torch.randn(2, 3, 4, 7, generator=generator, dtype=torch.float64)
    found = kl_to_reference(logits, other, temperature=0.7)
    p, q = (torch.distributions.Categorical(logits=(x / 0.7).float()) for x in (logits, other))
    assert torch.allclose(found, torch.distributions.kl_divergence(p, q), atol=1e-6)
    same = logits.float().requires_grad_()
    kl = kl_to_reference(same, same.detach()).sum()
    (gradient,) = torch.autograd.grad(kl, same)
    assert kl.abs() < 1e-5
    assert gradient.abs().max() < 1e-6


def test_the_adaptive_coefficient_rises_above_its_target_falls_below_and_rests_on_it():
    assert adapted_coefficient(1.0, kl=0.5, target=0.1) == pytest.approx(1.02)
    assert adapted_coefficient(1.0, kl=0.0, target=0.1) == pytest.approx(0.98)
    assert adapted_coefficient(1.0, kl=0.1, target=0.1) == 1.0
    assert adapted_coefficient(1e-4, kl=0.0, target=0.1) == 1e-4
    with pytest.raises(ValueError, match="target is 0"):
        adapted_coefficient(1.0, 0.1, target=0)


def test_ewc_is_quadratic_weighted_and_pulls_back_along_the_difference():
    theta = torch.tensor([1.0, 2.0], requires_grad=True)
    anchor, fisher = torch.tensor([0.0, 2.0]), torch.tensor([3.0, 5.0])
    penalty = ewc_penalty([theta], [anchor], [fisher])
    assert float(penalty.detach()) == pytest.approx(1.5)
    (gradient,) = torch.autograd.grad(penalty, theta)
    assert gradient.tolist() == [3.0, 0.0]


def padded(x, fill: float = -torch.inf, extra: int = 3):
    """Logits with `extra` columns of `fill`, as a vocabulary padded to a round number has."""
    return torch.cat([x, x.new_full((*x.shape[:-1], extra), fill)], -1)


LEAST = torch.finfo(torch.float64).min


@pytest.mark.parametrize("fill", [-torch.inf, LEAST])
@pytest.mark.parametrize("other", [-torch.inf, LEAST, -1e4])
def test_a_padded_vocabulary_changes_neither_the_divergence_nor_its_gradient(fill, other) -> None:
    logits, reference = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)).double().unbind(0)
    plain, wide = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    divergence = kl_to_reference(plain, reference)
    divergence.sum().backward()
    found = kl_to_reference(padded(wide, fill), padded(reference, other))
    found.sum().backward()
    torch.testing.assert_close(found, divergence, rtol=1e-6, atol=1e-6)  # its sums are float32
    torch.testing.assert_close(wide.grad, plain.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4)])
def test_each_position_has_its_own_divergence_whatever_the_leading_shape(shape) -> None:
    logits, reference = torch.randn(2, *shape, 5, generator=torch.Generator().manual_seed(1)).unbind(0)
    p, q = logits.softmax(-1), reference.softmax(-1)
    expected = (p * (p / q).log()).sum(-1)
    torch.testing.assert_close(kl_to_reference(logits, reference), expected)
    torch.testing.assert_close(kl_to_reference(padded(logits, -torch.inf), padded(reference, -1e4)), expected)


def test_a_banned_token_costs_what_the_reference_gives_to_the_others_and_an_empty_row_nothing() -> None:
    logits = torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf]], requires_grad=True)
    found = kl_to_reference(logits, torch.zeros(2, 2))
    torch.testing.assert_close(found, torch.tensor([0.6931472, 0.0]))
    assert float(kl_to_reference(torch.zeros(2), torch.tensor([0.0, -torch.inf]))) == torch.inf
    found.sum().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("outside", [torch.nan, -torch.inf])
def test_tokens_outside_the_mask_take_no_part_in_kl_cov(outside: float) -> None:
    logp = torch.tensor([-0.1, -2.0, -1.0, outside], requires_grad=True)
    old = torch.tensor([-0.2, -1.0, -1.5, outside])
    term = kl_cov_penalty(logp, old, torch.tensor([1.0, -1.0, 0.5, 1.0]), torch.tensor([1, 1, 1, 0]), share=1.0)
    term.sum().backward()
    torch.testing.assert_close(term, torch.tensor([0.1, 1.0, 0.5, 0.0]))
    torch.testing.assert_close(logp.grad, torch.tensor([1.0, -1.0, 1.0, 0.0]))


def test_the_estimates_of_the_kl_have_its_mean_and_the_gradients_that_they_promise() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(7, generator=draw, dtype=torch.float64).requires_grad_()
    reference = torch.randn(7, generator=draw, dtype=torch.float64)
    logp, known = logits.log_softmax(-1), reference.log_softmax(-1)
    p = logp.detach().exp()
    exact = kl_to_reference(logits, reference)
    for name in ("k1", "k3"):
        torch.testing.assert_close((p * kl_estimate(logp, known, name)).sum(), exact.to(torch.float64))
    gradients = {
        name: torch.autograd.grad((p * kl_estimate(logp, known, name)).sum(), logits, retain_graph=True)[0]
        for name in ("k1", "k2", "k3")
    }
    (of_kl,) = torch.autograd.grad((logp.exp() * (logp - known)).sum(), logits, retain_graph=True)
    (of_reverse,) = torch.autograd.grad((known.exp() * (known - logp)).sum(), logits)
    torch.testing.assert_close(gradients["k1"], torch.zeros(7, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(gradients["k2"], of_kl)
    torch.testing.assert_close(gradients["k3"], of_reverse)
    with pytest.raises(ValueError, match="give 'k1'"):
        kl_estimate(logp, known, "k4")


def test_overlong_shaping_falls_over_the_buffer_and_not_before() -> None:
    found = overlong_shaping(torch.tensor([1, 60, 70, 80, 100]), longest=100, buffer=40, penalty=2.0)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, -0.5, -1.0, -2.0]))
    assert overlong_shaping(torch.tensor([5, 100]), 100, 0).tolist() == [0.0, 0.0]

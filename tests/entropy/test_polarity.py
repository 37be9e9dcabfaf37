"""The facts about polarity: identities, limits, the asymmetry table, finite differences, a toy policy."""

import math
import runpy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from entrostat.entropy import polarity, sensitivity
from entrostat.tokens import TokenStats, token_stats, topk_token_stats

F64 = torch.float64
logit_rows = st.lists(st.floats(-8, 8), min_size=2, max_size=12)
steady = settings(deadline=None, max_examples=50)


def entropy_of(logits: Tensor) -> Tensor:
    return torch.special.entr(logits.softmax(-1)).sum(-1)


def stats_of_every_token(logits: Tensor) -> TokenStats:
    """Statistics (..., V): each token of each state taken as the sampled one."""
    ids = torch.arange(logits.shape[-1]).expand(logits.shape)
    return token_stats(logits[..., None, :].expand(*logits.shape, logits.shape[-1]), ids)


def peaked(top: float, vocab: int = 50_000, exponent: float = 1.5) -> Tensor:
    """One token of probability `top` and a Zipf tail."""
    tail = torch.arange(1, vocab, dtype=F64) ** -exponent
    return torch.cat([torch.tensor([top], dtype=F64), (1 - top) * tail / tail.sum()])


def exact_terms(p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """S, C and T of every token of a distribution, from their definitions."""
    surprise_gap = p.log() + torch.special.entr(p).sum()
    s = p * surprise_gap
    c = (p * s).sum()
    return s, c, c - s


class RandomStates:
    """States with Gaussian logits, a token sampled from each, and a Gaussian advantage."""

    def __init__(self, count: int = 4000, vocab: int = 100, scale: float = 3.0) -> None:
        generator = torch.Generator().manual_seed(0)
        self.logits = scale * torch.randn(count, vocab, generator=generator, dtype=F64)
        p = self.logits.softmax(-1)
        self.ids = torch.multinomial(p, 1, generator=generator)[:, 0]
        self.advantages = torch.randn(count, generator=generator, dtype=F64)
        self.stats = token_stats(self.logits, self.ids)
        self.score = -p
        self.score[torch.arange(count), self.ids] += 1

    def change(self, step: float | Tensor) -> Tensor:
        """The true change of entropy by the logit step `step` (e_a - p)."""
        moved = self.logits + torch.as_tensor(step)[..., None] * self.score
        return entropy_of(moved) - entropy_of(self.logits)


@steady
@given(logit_rows)
def test_sensitivity_is_the_derivative_of_the_entropy_along_the_score(row: list[float]) -> None:
    logits = torch.tensor(row, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(entropy_of(logits), logits)
    score = torch.eye(len(row), dtype=F64) - logits.detach().softmax(-1)
    torch.testing.assert_close(sensitivity(stats_of_every_token(logits.detach())), score @ slope, atol=1e-10, rtol=1e-8)


@steady
@given(logit_rows)
def test_sensitivity_has_mean_zero_in_every_state(row: list[float]) -> None:
    logits = torch.tensor(row, dtype=F64)
    assert (logits.softmax(-1) @ sensitivity(stats_of_every_token(logits))).abs() < 1e-12


@steady
@given(logit_rows, st.integers(0, 10**6))
def test_mean_polarity_is_minus_the_covariance_of_advantage_and_s(row: list[float], seed: int) -> None:
    logits = torch.tensor(row, dtype=F64)
    p = logits.softmax(-1)
    adv = torch.randn(len(row), generator=torch.Generator().manual_seed(seed), dtype=F64)
    s = p * (p.log() + entropy_of(logits))
    covariance = p @ (adv * s) - (p @ adv) * (p @ s)
    torch.testing.assert_close(p @ polarity(stats_of_every_token(logits), adv), -covariance, atol=1e-11, rtol=1e-8)


@steady
@given(logit_rows)
def test_correction_is_the_covariance_of_p_and_log_p_and_positive_unless_p_is_uniform(row: list[float]) -> None:
    logits = torch.tensor(row, dtype=F64)
    p, log_p = logits.softmax(-1), logits.log_softmax(-1)
    correction = stats_of_every_token(logits).correction[0]
    torch.testing.assert_close(correction, p @ (p * log_p) - (p @ p) * (p @ log_p), atol=1e-12, rtol=1e-7)
    assert correction >= 0
    if logits.max() - logits.min() > 0.1:
        assert correction > 0


@pytest.mark.parametrize("support", [1, 2, 7])
def test_uniform_on_its_support_has_no_correction_and_no_sensitivity(support: int) -> None:
    logits = torch.full((9,), -math.inf, dtype=F64)
    logits[:support] = 0.7
    stats = stats_of_every_token(logits)
    torch.testing.assert_close(stats.correction, torch.zeros(9, dtype=F64), atol=1e-15, rtol=0)
    torch.testing.assert_close(sensitivity(stats)[:support], torch.zeros(support, dtype=F64), atol=1e-15, rtol=0)


@steady
@given(st.floats(0.5, 0.999))
def test_two_tokens_have_the_closed_form(p: float) -> None:
    logits = torch.tensor([math.log(p), math.log1p(-p)], dtype=F64)
    expected = -2 * p * (1 - p) ** 2 * math.log(p / (1 - p))
    assert sensitivity(stats_of_every_token(logits))[0].item() == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_a_vanishing_token_has_the_correction_as_its_sensitivity() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -60.0], dtype=F64)
    stats = stats_of_every_token(logits)
    torch.testing.assert_close(sensitivity(stats)[3], stats.correction[3], atol=0, rtol=1e-12)


@steady
@given(logit_rows)
def test_one_threshold_above_exp_minus_h_separates_expanding_from_contracting_tokens(row: list[float]) -> None:
    logits = torch.tensor(row, dtype=F64)
    p, entropy = logits.softmax(-1), entropy_of(logits).item()
    correction = stats_of_every_token(logits).correction[0].item()
    if correction < 1e-6:
        return
    low, high = math.exp(-entropy), 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * (math.log(middle) + entropy) < correction else (low, middle)
    threshold = (low + high) / 2
    assert threshold > math.exp(-entropy)
    clear = (p - threshold).abs() > 1e-9
    expands = sensitivity(stats_of_every_token(logits)) > 0
    assert torch.equal(expands[clear], (p < threshold)[clear])


@pytest.mark.parametrize("vocab", [5, 100, 32_000])
def test_relative_error_of_the_first_order_falls_linearly_in_the_step(vocab: int) -> None:
    states = RandomStates(count=40 if vocab > 1000 else 400, vocab=vocab)
    predicted = sensitivity(states.stats)
    error = [((states.change(eta) - eta * predicted).abs().sum() / eta).item() for eta in (1e-2, 1e-3, 1e-4)]
    assert error[0] / error[1] == pytest.approx(10, rel=0.15)
    assert error[1] / error[2] == pytest.approx(10, rel=0.15)


def test_the_sign_is_wrong_for_few_tokens_and_for_more_as_the_step_grows() -> None:
    states = RandomStates()
    direction = polarity(states.stats, states.advantages.sign())
    wrong = [
        (states.change(eta * states.advantages.sign()) * direction < 0).double().mean().item()
        for eta in (0.01, 0.1, 1.0, 3.0)
    ]
    for share, expected in zip(wrong, (0.0010, 0.0094, 0.100, 0.267), strict=True):
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected / 4000))


def test_exact_form_correlates_fully_with_the_change_and_the_token_only_form_does_not() -> None:
    states = RandomStates()
    change = states.change(1e-4 * states.advantages)
    token_only = states.advantages * (sensitivity(states.stats) - states.stats.correction)
    exact = torch.corrcoef(torch.stack([change, polarity(states.stats, states.advantages)]))[0, 1]
    approximate = torch.corrcoef(torch.stack([change, token_only]))[0, 1]
    assert exact > 0.9999
    assert 0.5 < approximate < 0.9


@pytest.mark.parametrize(("spread", "share"), [(3.0, 0.139), (6.0, 0.056)])
def test_without_the_correction_a_notable_share_of_the_signs_is_wrong(spread: float, share: float) -> None:
    states = RandomStates(scale=spread)
    with_correction = sensitivity(states.stats)
    without = with_correction - states.stats.correction
    wrong = (with_correction * without < 0).double().mean().item()
    assert wrong == pytest.approx(share, abs=4 * math.sqrt(share / 4000))


@pytest.mark.parametrize(
    ("top", "contracting_share", "top_sensitivity", "expanding_mean"),
    [
        (0.5, 0.500, -0.378, 0.378),
        (0.7, 0.700, -0.266, 0.620),
        (0.9, 0.900, -0.053, 0.479),
        (0.99, 0.990, -0.0009, 0.086),
    ],
)
def test_asymmetry_table(top: float, contracting_share: float, top_sensitivity: float, expanding_mean: float) -> None:
    p = peaked(top)
    top_stats = token_stats(p.log()[None], torch.tensor([0]))
    entropy, correction = top_stats.entropy, top_stats.correction
    every = TokenStats(p.log(), entropy, top_stats.collision, correction)
    t = sensitivity(every)
    digits = 4 if top == 0.99 else 3
    assert p[t < 0].sum().item() == pytest.approx(contracting_share, abs=1e-9)
    assert round(t[0].item(), digits) == top_sensitivity
    assert round((p @ t.clamp_min(0) / p[t > 0].sum()).item(), 3) == expanding_mean


def test_token_only_form_overstates_a_certain_token_and_understates_the_next() -> None:
    s, _, t = exact_terms(peaked(0.99, vocab=100, exponent=1.0))
    assert (-s / t)[0].item() == pytest.approx(95, abs=1)
    assert (-t / s)[1].item() == pytest.approx(8, abs=0.3)


@pytest.mark.parametrize("top", [0.5, 0.7, 0.9, 0.99])
def test_correction_from_the_top_twenty_tokens_with_exact_entropy_is_nearly_exact(top: float) -> None:
    s, c, _ = exact_terms(p := peaked(top, vocab=150_000))
    assert ((p * s)[:20].sum() / c - 1).abs() < 6e-4
    entropy = torch.special.entr(p).sum()
    estimate = topk_token_stats(p[None, :20].log(), p[:1].log(), entropy[None]).correction[0]
    assert (estimate / c - 1).abs() < 5e-4


def test_a_token_outside_the_support_has_the_limit_of_a_vanishing_one() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf], [0.0, 1.0, -80.0]])
    banned, rare = sensitivity(token_stats(logits, torch.tensor([2, 2])))
    torch.testing.assert_close(banned, rare)
    assert banned > 0


def test_no_gradient_flows_through_any_of_them() -> None:
    logits = torch.randn(3, 5, requires_grad=True)
    stats = token_stats(logits, torch.tensor([0, 1, 2]), entropy_grad=True)
    adv = torch.ones(3, requires_grad=True)
    assert not any(x.requires_grad for x in (sensitivity(stats), polarity(stats, adv)))


STEPS = 60
ToyPolicy = runpy.run_path(str(Path(__file__).parents[2] / "studies" / "polarity-facts" / "toy.py"))["ToyPolicy"]


def correlation_of_flow_and_change(features: int | None, seed: int) -> float:
    policy = ToyPolicy(features=features, seed=seed)
    steps = torch.tensor([policy.step(rate=0.2) for _ in range(STEPS)], dtype=F64)
    return torch.corrcoef(steps.T)[0, 1].item()


def test_summed_flow_predicts_the_entropy_change_fully_and_with_shared_parameters_less_so() -> None:
    tabular, shared = ([correlation_of_flow_and_change(features, seed) for seed in range(4)] for features in (None, 12))
    assert min(tabular) > 0.985
    assert 0.6 < sum(shared) / 4 < 0.95
    assert max(shared) < min(tabular)


@pytest.mark.parametrize("seed", range(4))
def test_branches_of_a_tabular_policy_expand_or_contract_and_both_together_learn_best(seed: int) -> None:
    start = ToyPolicy(seed=seed).entropy
    final = {branch: ToyPolicy(seed=seed) for branch in ("both", "expanding", "contracting")}
    for branch, policy in final.items():
        for _ in range(STEPS):
            policy.step(branch)
    assert final["contracting"].entropy < start - 0.5 < start + 0.1 < final["expanding"].entropy
    assert final["both"].reward > 0.85
    assert final["both"].reward > 0.3 + max(final["expanding"].reward, final["contracting"].reward)


@steady
@given(st.integers(0, 10**6), st.sampled_from([0.5, 1.0, 2.0]))
def test_polarity_is_proportional_to_the_advantage(seed: int, factor: float) -> None:
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed), dtype=F64)
    stats = token_stats(logits, torch.tensor([0, 1, 2, 3]))
    adv = torch.ones(4, dtype=F64)
    torch.testing.assert_close(polarity(stats, -factor * adv), -factor * polarity(stats, adv))

"""Corrections against naive loops in float64, at their limits, under padding and packing, and without a gradient."""

import math

import pytest
import torch
from torch import Tensor

from entrostat.objective import Decoupled, Estr, IcePop, Mis, Opsm, SampledTokens, SeqMaskTis, Tis, policy_loss
from entrostat.objective.corrections import correction

ALL = [
    Tis(),
    Tis(cap=1.3, low=0.8),
    Tis(level="sequence"),
    Tis(level="geometric", cap=1.1),
    Mis(),
    Mis(0.7, 1.5),
    Mis(0.5, 2.0, "sequence"),
    Mis(0.9, 1.1, "geometric"),
    IcePop(),
    SeqMaskTis(0.9, 1.1),
    SeqMaskTis(0.9, 1.1, cap=1.2),
    Decoupled(cap=1.4),
    Decoupled(cap=None),
    Opsm(0.02),
    Estr(tau=0.05),
]
NAMES = [repr(each) for each in ALL]


class Drawn:
    """Random tokens in float64 whose sampler, old and current policy differ; rows of different lengths."""

    def __init__(self, seed: int = 0, rows: int = 7, width: int = 9, spread: float = 0.4) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.sampler_logp = -1 - 3 * normal(rows, width).abs()
        self.old_logp = self.sampler_logp + spread * normal(rows, width)
        self.logp = self.old_logp + 0.3 * normal(rows, width)
        self.entropy = normal(rows, width).abs()
        self.advantages = normal(rows, 1).expand(rows, width)
        lengths = torch.randint(1, width + 1, (rows,), generator=generator)
        self.mask = torch.arange(width) < lengths[:, None]

    def tokens(self, **changes: Tensor | None) -> SampledTokens:
        given = {
            name: getattr(self, name) for name in ("logp", "old_logp", "sampler_logp", "advantages", "mask", "entropy")
        }
        return SampledTokens(**{**given, **changes})  # type: ignore[arg-type]


def naive(rule, drawn: Drawn, row: int, place: int) -> float:
    """The factor of one token, from the definition."""
    kept = [i for i in range(drawn.mask.shape[1]) if drawn.mask[row, i]]
    weight = {i: math.exp(float(drawn.old_logp[row, i] - drawn.sampler_logp[row, i])) for i in kept}
    product = math.prod(weight.values())
    mean = product ** (1 / len(kept))
    own = {"token": weight[place], "sequence": product, "geometric": mean}
    if isinstance(rule, Tis):
        return max(rule.low, min(own[rule.level], rule.cap))
    if isinstance(rule, Mis):
        return own[rule.level] if rule.low <= own[rule.level] <= rule.high else 0
    if isinstance(rule, SeqMaskTis):
        cap = math.inf if rule.cap is None else rule.cap
        return min(weight[place], cap) if rule.low <= mean <= rule.high else 0
    if isinstance(rule, Decoupled):
        return weight[place] if rule.cap is None or weight[place] <= rule.cap else 0
    moved = {i: float(drawn.logp[row, i] - drawn.sampler_logp[row, i]) for i in kept}
    if isinstance(rule, Opsm):
        away = -sum(moved.values()) / len(kept)
        return 0 if drawn.advantages[row, 0] < 0 and away > rule.delta else 1
    assert isinstance(rule, Estr)
    return float(moved[place] ** 2 / (float(drawn.entropy[row, place]) + rule.epsilon) <= rule.tau)


@pytest.mark.parametrize("rule", ALL, ids=NAMES)
def test_every_factor_is_that_of_a_naive_loop(rule):
    taken = set()
    for seed in range(3):
        drawn = Drawn(seed)
        factors = rule(drawn.tokens())
        for row, place in drawn.mask.nonzero().tolist():
            wanted = naive(rule, drawn, row, place)
            assert float(factors[row, place]) == pytest.approx(wanted, rel=1e-12)
            taken.add(wanted)
    assert len(taken) > 1


@pytest.mark.parametrize("rule", ALL, ids=NAMES)
def test_where_one_policy_sampled_and_learns_nothing_changes(rule):
    drawn = Drawn()
    same = drawn.tokens(logp=drawn.sampler_logp, old_logp=drawn.sampler_logp)
    assert torch.equal(rule(same)[drawn.mask], torch.ones(int(drawn.mask.sum()), dtype=torch.float64))
    plain = policy_loss(drawn.old_logp, drawn.old_logp, drawn.advantages, drawn.mask)
    ours = policy_loss(
        drawn.old_logp,
        drawn.old_logp,
        drawn.advantages,
        drawn.mask,
        correction=rule,
        sampler_logp=drawn.old_logp,
        entropy=drawn.entropy,
    )
    assert torch.equal(ours.per_token, plain.per_token)
    assert torch.equal(ours.slope, plain.slope)


@pytest.mark.parametrize("rule", ALL, ids=NAMES)
def test_padding_and_packing_change_no_factor(rule):
    drawn = Drawn()
    factors = rule(drawn.tokens())[drawn.mask]
    wider = {
        name: torch.nn.functional.pad(getattr(drawn, name), (3, 5), value=value)
        for name, value in [
            ("logp", -9.0),
            ("old_logp", 4.0),
            ("sampler_logp", math.nan),
            ("advantages", 2.0),
            ("entropy", math.nan),
            ("mask", False),
        ]
    }
    assert torch.equal(rule(drawn.tokens(**wider))[wider["mask"]], factors)
    rows = torch.arange(len(drawn.mask))[:, None].expand_as(drawn.mask)[drawn.mask]
    packed = {name: getattr(drawn, name)[drawn.mask] for name in wider}
    torch.testing.assert_close(rule(drawn.tokens(**packed, sequences=rows)), factors, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rule", ALL, ids=NAMES)
def test_a_batch_may_be_cut_between_its_sequences(rule):
    drawn = Drawn()
    whole = rule(drawn.tokens())
    names = ("logp", "old_logp", "sampler_logp", "advantages", "mask", "entropy")
    pieces = [
        rule(drawn.tokens(**{name: getattr(drawn, name)[rows] for name in names}))
        for rows in (slice(0, 2), slice(2, 3), slice(3, None))
    ]
    assert torch.equal(torch.cat(pieces), whole)


@pytest.mark.parametrize("rule", ALL, ids=NAMES)
def test_the_gradient_is_that_of_the_loss_times_a_constant_factor(rule):
    drawn = Drawn()
    factors = rule(drawn.tokens()).where(drawn.mask, 1)
    logp, old, sampler = (x.clone().requires_grad_() for x in (drawn.logp, drawn.old_logp, drawn.sampler_logp))
    entropy = drawn.entropy.clone().requires_grad_()
    given = {"correction": rule, "sampler_logp": sampler, "entropy": entropy}
    ours = policy_loss(logp, old, drawn.advantages, drawn.mask, **given)
    ours.per_token.sum().backward()
    assert old.grad is None
    assert sampler.grad is None
    assert entropy.grad is None
    assert torch.equal(ours.correction, factors)
    torch.testing.assert_close(logp.grad, -drawn.advantages * ours.slope.where(drawn.mask, 0))
    step = 1e-6
    for row, place in drawn.mask.nonzero().tolist()[::5]:
        moved = drawn.logp.clone()
        moved[row, place] += step
        there = factors * policy_loss(moved, drawn.old_logp, drawn.advantages, drawn.mask).per_token
        here = factors * policy_loss(drawn.logp, drawn.old_logp, drawn.advantages, drawn.mask).per_token
        assert float((there - here).sum()) / step == pytest.approx(float(logp.grad[row, place]), abs=1e-5)


@pytest.mark.parametrize("rule", [Tis(), Tis(level="sequence"), Mis(), IcePop(), SeqMaskTis(cap=2.0), Decoupled()])
def test_no_sampler_however_far_makes_a_factor_that_is_not_finite(rule):
    drawn = Drawn()
    far = drawn.tokens(sampler_logp=drawn.sampler_logp - 1e4)
    assert bool(rule(far).isfinite().all())
    assert bool(rule(drawn.tokens(sampler_logp=drawn.sampler_logp + 1e4)).isfinite().all())


def test_decoupled_weights_times_the_ratio_are_the_importance_of_the_policy_that_learns():
    drawn = Drawn()
    loss = policy_loss(
        drawn.logp,
        drawn.old_logp,
        drawn.advantages,
        drawn.mask,
        objective="reinforce",
        correction=Decoupled(cap=None),
        sampler_logp=drawn.sampler_logp,
    )
    torch.testing.assert_close(loss.slope[drawn.mask], (drawn.logp - drawn.sampler_logp).exp()[drawn.mask])


def test_every_correction_is_used_by_its_name():
    drawn = Drawn()
    for name in correction:
        loss = policy_loss(
            drawn.logp,
            drawn.old_logp,
            drawn.advantages,
            drawn.mask,
            correction=name,
            sampler_logp=drawn.sampler_logp,
            entropy=drawn.entropy,
        )
        assert torch.equal(loss.correction, correction[name]()(drawn.tokens()).where(drawn.mask, 1))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Tis(cap=0.5), "cap"),
        (lambda: Tis(cap=math.inf), "cap"),
        (lambda: Tis(low=-0.1), "low"),
        (lambda: Tis(level="word"), "level"),
        (lambda: Mis(low=1.5), "low"),
        (lambda: Mis(high=math.nan), "high"),
        (lambda: Mis(level="batch"), "level"),
        (lambda: SeqMaskTis(high=0.9), "high"),
        (lambda: SeqMaskTis(cap=0.0), "cap"),
        (lambda: Decoupled(cap=math.nan), "cap"),
        (lambda: Opsm(-1e-9), "delta"),
        (lambda: Estr(tau=0), "tau"),
        (lambda: Estr(epsilon=math.nan), "epsilon"),
    ],
)
def test_settings_without_a_meaning_are_refused_by_name(make, word):
    with pytest.raises(ValueError, match=word):
        make()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_sampled_token_without_a_log_probability_is_refused_with_its_place(value):
    drawn = Drawn()
    broken = drawn.sampler_logp.clone()
    row, place = drawn.mask.nonzero()[3].tolist()
    broken[row, place] = value
    with pytest.raises(ValueError, match=rf"sampler_logp .* at \({row}, {place}\)"):
        drawn.tokens(sampler_logp=broken)


def test_what_a_correction_lacks_is_named():
    drawn = Drawn()
    given = (drawn.logp, drawn.old_logp, drawn.advantages, drawn.mask)
    with pytest.raises(ValueError, match="sampler_logp"):
        policy_loss(*given, correction="tis")
    with pytest.raises(ValueError, match="correction"):
        policy_loss(*given, sampler_logp=drawn.sampler_logp)
    with pytest.raises(ValueError, match="shapes differ"):
        policy_loss(*given, correction="tis", sampler_logp=drawn.sampler_logp[:, 1:])
    with pytest.raises(ValueError, match="entropy"):
        policy_loss(*given, correction="estr", sampler_logp=drawn.sampler_logp)
    with pytest.raises(ValueError, match="no correction"):
        policy_loss(*given, correction="tsi", sampler_logp=drawn.sampler_logp)

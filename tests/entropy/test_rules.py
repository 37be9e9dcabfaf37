"""Rules of direction: the exact one is polarity, without C it is regions' sign, and C is what makes the difference."""

import torch

from entrostat.entropy import Region, flow_by_rule, polarity, regions
from entrostat.tokens import token_stats


def sampled(count: int = 4000):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, 50, generator=generator, dtype=torch.float64)
    ids = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    advantages = torch.randn(count, generator=generator, dtype=torch.float64)
    slope = torch.rand(count, generator=generator, dtype=torch.float64)
    slope[::7] = 0
    return logits, token_stats(logits, ids), advantages, slope


def test_the_exact_rule_is_the_entropy_flow_and_clipped_tokens_flow_nowhere() -> None:
    _, stats, advantages, slope = sampled()
    flows = flow_by_rule(stats, advantages, slope)
    torch.testing.assert_close(flows["exact"], slope * polarity(stats, advantages))
    assert all(bool((flow[slope == 0] == 0).all()) for flow in flows.values())


def test_without_the_correction_the_sign_is_that_of_the_region_table() -> None:
    _, stats, advantages, slope = sampled()
    labels = regions(stats, advantages, "surprisal")
    rises = (labels == Region.E2) | (labels == Region.E3)
    for rule in ("token_only", "surprisal"):
        flow = flow_by_rule(stats, advantages, slope)[rule]
        assert torch.equal(flow[slope > 0] > 0, rises[slope > 0])


def test_the_surprisal_rule_errs_in_sign_alone_and_only_about_likely_tokens() -> None:
    _, stats, advantages, slope = sampled()
    flows = flow_by_rule(stats, advantages, slope)
    torch.testing.assert_close(flows["surprisal"].abs(), flows["exact"].abs())
    wrong = flows["surprisal"] * flows["exact"] < 0
    assert 0 < wrong.double().mean() < 0.2
    assert bool((stats.logp + stats.entropy > 0)[wrong].all())
    s = stats.logp.exp() * (stats.logp + stats.entropy)
    gap = flows["token_only"] - flows["exact"]
    torch.testing.assert_close(gap, -slope * advantages * stats.correction)
    assert bool((s < stats.correction)[wrong].all())


def test_a_token_outside_the_support_has_a_finite_flow_under_every_rule():
    stats = token_stats(torch.tensor([[0.0, 1.0, -torch.inf]]), torch.tensor([2]))
    found = flow_by_rule(stats, torch.ones(1), torch.ones(1))
    assert all(bool(flow.isfinite()) for flow in found.values())
    assert found["exact"] > 0

"""flexec: IterSynth's settings, their clamps, and the band of verl's training step."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from entrostat.control import DecreaseIncreaseDecrease, IncreaseThenDecrease, Measured, OscillatoryDecay
from entrostat.control.strategies import LOWER, UPPER
from entrostat.integrations.verl.flexec import DEFAULTS, Clamped, Oscillation, Settings
from entrostat.objective import ClipRule, LinearThreshold

OLD = torch.log(torch.linspace(0.001, 1, 41, dtype=torch.float64))


@pytest.mark.parametrize(("name", "schedule"), [("id", IncreaseThenDecrease()), ("did", DecreaseIncreaseDecrease())])
@pytest.mark.parametrize("done", [0.0, 0.2, 0.5, 0.51, 0.8, 1.0])
def test_the_published_settings_are_the_published_schedules(name, schedule, done):
    band = Settings.of({"FLEXEC_STRATEGY": name}).band(0.2, 0.2, done)
    torch.testing.assert_close(band.bounds(OLD), schedule.at(done).bounds(OLD))  # whose thresholds need no clamp


def test_static_has_both_thresholds_at_every_step_and_the_standard_ones_are_verls():
    settings = Settings.of({"FLEXEC_STRATEGY": "static"})
    for done in (0.0, 0.7):
        torch.testing.assert_close(settings.band(0.1, 0.3, done).bounds(OLD), ClipRule(UPPER, LOWER).bounds(OLD))
    low, high = Settings.of({}).band(0.1, 0.3, 0.5).bounds(OLD)
    torch.testing.assert_close(low, torch.full_like(OLD, 0.9))
    torch.testing.assert_close(high, torch.full_like(OLD, 1.3))


@pytest.mark.parametrize("slope", [-1.2, -0.5, 0.0, 0.6])
def test_a_clamped_threshold_cuts_where_the_clamp_of_the_current_probability_does(slope):
    threshold, least, most = LinearThreshold(slope, 1.3), 0.15, 0.5
    rule = ClipRule(threshold, LinearThreshold(max(slope, -0.9), 0.95))
    low, high = Clamped(rule, least, most).bounds(OLD)
    ratios = torch.linspace(0.01, 2, 4000, dtype=torch.float64)[:, None]
    upper = (threshold.slope * ratios * OLD.exp() + threshold.intercept).clamp(least, most)
    lower = (rule.lower.slope * ratios * OLD.exp() + rule.lower.intercept).clamp(least, most)
    close = (ratios - high).abs().minimum((ratios - low).abs()) < 1e-3  # the grid's own width
    assert bool((((ratios <= 1 + upper) == (ratios <= high)) | close).all())
    assert bool((((ratios >= 1 - lower) == (ratios >= low)) | close).all())


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FLEXEC_STRATEGY": "dod"}, "FLEXEC_STRATEGY is 'dod'; allowed: id, did, od, static"),
        ({"FLEXEC_OD_H_INIT": "0"}, r"FLEXEC_OD_H_INIT is 0\.0; allowed: a positive number of nats"),
        ({"FLEXEC_OD_H_INIT": "inf"}, "FLEXEC_OD_H_INIT is inf"),
        ({"FLEXEC_OD_H_MIN_RATIO": "1"}, r"FLEXEC_OD_H_MIN_RATIO is 1\.0; allowed: a number in \(0, 1\)"),
        ({"FLEXEC_PHASE_SPLIT": "1"}, r"FLEXEC_PHASE_SPLIT is 1\.0"),
        ({"FLEXEC_UPPER_SLOPE": "steep"}, "FLEXEC_UPPER_SLOPE is 'steep'; give a number"),
        ({"FLEXEC_UPPER_SLOP": "-0.3"}, "FLEXEC_UPPER_SLOP: flexec reads FLEXEC_STRATEGY"),
        ({"FLEXEC_CLIP_BOUND_MIN": "0.7"}, r"FLEXEC_CLIP_BOUND_MIN is 0\.7 and _MAX is 0\.6"),
        ({"FLEXEC_UPPER_INTERCEPT": "nan"}, "intercept is nan"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_name(environment, message):
    with pytest.raises(ValueError, match=message):
        Settings.of(environment).band(0.2, 0.2, 0.0)


def test_what_iter_synth_exports_is_read_as_it_is():
    assert Settings.of({**DEFAULTS, "PATH": "/bin"}) == Settings.of({})


def test_od_is_the_published_hysteresis_over_verls_steps_with_the_clamps_and_verls_standard_thresholds():
    share, published = [0.0], OscillatoryDecay(h_init=0.5, h_min_ratio=0.2)
    ours = Oscillation(Settings.of({"FLEXEC_STRATEGY": "od"}), 0.2, 0.2, lambda: share[0])
    narrow = {"FLEXEC_STRATEGY": "od", "FLEXEC_CLIP_BOUND_MAX": "0.25"}
    clamped = Oscillation(Settings.of(narrow), 0.1, 0.3, lambda: share[0])
    phases = []
    for step, entropy in enumerate([0.4, 0.09, 0.3, 0.45, 0.51, 0.12, 0.1, 0.28, 0.3, 0.31], 1):
        share[0] = step / 10
        published.observe(Measured(step, share[0], entropy))
        for one in (ours, clamped):
            one.observe(Measured(step, 1.0, entropy))  # the controller's own progress is not read
        torch.testing.assert_close(ours.clip().bounds(OLD), published.clip().bounds(OLD))
        phases.append(ours.phase)
        low, high = clamped.clip().bounds(OLD)
        assert float(high.max()) == pytest.approx(1.25)  # H(p) and the standard .3, both cut at .25
        assert (float(low.min()) == pytest.approx(0.9)) == (clamped.phase == "increase")
    assert {"increase", "decrease"} == set(phases)
    fresh = Oscillation(Settings.of(narrow), 0.1, 0.3, lambda: 0.0)
    fresh.load_state_dict(clamped.state_dict())
    assert fresh.clip() == clamped.clip()


def test_verls_loss_follows_the_actors_scheduler(monkeypatch):
    pytest.importorskip("verl", reason="verl is not installed: flexec in its registry is not checked")
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.workers.config import ActorConfig, PolicyLossConfig
    from verl.workers.engine_workers import TrainingWorker
    from verl.workers.utils.losses import ppo_loss

    from entrostat.integrations.verl import flexec
    from entrostat.objective import DualClip, policy_loss

    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    flexec.register()
    loss_fn = get_policy_loss_fn("flexec")
    config = ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        policy_loss=PolicyLossConfig(loss_mode="flexec"),
    )
    old = OLD[None].float()
    logp = (old + 0.4 * torch.randn(old.shape, generator=torch.Generator().manual_seed(0))).clamp_max(0)
    logp.requires_grad_()
    mask, advantages = torch.ones(old.shape, dtype=torch.bool), torch.ones_like(old)
    config.optim.total_training_steps = 10
    with pytest.raises(ValueError, match="outside verl's training worker"):
        loss_fn(old, logp, advantages, mask, config=config)
    worker = TrainingWorker.__new__(TrainingWorker)
    worker.loss_fn = partial(ppo_loss, config=config)
    worker.engine = SimpleNamespace(lr_scheduler=SimpleNamespace(last_epoch=0))
    found = []
    for step in (0, 3, 5, 6, 12):
        worker.engine.lr_scheduler.last_epoch = step
        loss, metrics = loss_fn(old, logp, advantages, mask, config=config)
        band = DualClip(IncreaseThenDecrease().at(min(step / 10, 1.0)), 3.0)
        expected = policy_loss(logp, old, advantages, mask, rule=band).per_token.mean()
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
        assert "actor/pg_clipfrac" in metrics
        found.append(float(loss.detach()))
    assert len(set(found)) >= 3
    monkeypatch.setenv("FLEXEC_STRATEGY", "od")
    with pytest.raises(ValueError, match="od, which follows the entropy, and this is not the worker"):
        loss_fn(old, logp, advantages, mask, config=config)
    monkeypatch.delenv("FLEXEC_STRATEGY")
    config.optim.total_training_steps = -1
    with pytest.raises(ValueError, match="total_training_steps is -1"):
        loss_fn(old, logp, advantages, mask, config=config)

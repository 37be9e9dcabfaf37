"""Updates that rounding swallows: the measured share against what an optimizer's step really leaves unchanged."""

import pytest
import torch

from entrostat.engine.change import swallowed_by, swallowed_share, warn_of_rounding
from entrostat.engine.policy import load_policy
from entrostat.engine.update import Learner
from entrostat.recipe import build_controller, parse_recipe


def weights(dtype, scale=0.02):
    drawn = scale * torch.randn(4000, generator=torch.Generator().manual_seed(0))
    return torch.nn.Parameter(drawn.to(dtype))


@pytest.mark.parametrize("rate", [1e-6, 1e-5, 1e-4, 1e-2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_share_is_what_a_step_of_adam_leaves_unchanged(dtype, rate):
    held = weights(dtype)
    optimizer = torch.optim.AdamW([held], lr=rate, weight_decay=0.0)
    expected, before = swallowed_by(optimizer), held.detach().clone()
    held.grad = torch.randn(held.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    optimizer.step()  # the first step of Adam moves every weight by the learning rate
    stayed = (held == before).float().mean()
    assert swallowed_share(held.detach(), rate) == pytest.approx(expected, abs=0.02)
    assert float(stayed) == pytest.approx(expected, abs=0.02)
    assert (expected > 0.8) == (dtype == torch.bfloat16 and rate <= 1e-5)


def test_the_schedules_largest_rate_counts_and_float32_counts_as_moved():
    optimizer = torch.optim.AdamW([weights(torch.bfloat16), weights(torch.float32)], lr=1e-6)
    alone = torch.optim.AdamW([weights(torch.bfloat16)], lr=1e-6)
    assert swallowed_by(optimizer) == pytest.approx(swallowed_by(alone) / 2)
    for group in alone.param_groups:
        group["lr"], group["initial_lr"] = 0.0, 1e-6  # a warm-up's first step
    assert swallowed_by(alone) == swallowed_by(torch.optim.AdamW([weights(torch.bfloat16)], lr=1e-6))


def test_only_short_weights_that_do_not_move_are_warned_of(recwarn):
    warn_of_rounding(torch.optim.AdamW([weights(torch.float32)], lr=1e-6), "")
    warn_of_rounding(torch.optim.AdamW([weights(torch.bfloat16)], lr=1.0), "")
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"weights in bfloat16: rounding swallows 9\d\.\d%.*load float32"):
        warn_of_rounding(torch.optim.AdamW([weights(torch.bfloat16)], lr=1e-6), "load float32")


def test_the_embedded_engine_warns_of_a_recipe_in_bfloat16():
    recipe = parse_recipe({"name": "short", "policy": {"dtype": "bfloat16"}, "update": {"learning_rate": 1e-6}})
    with pytest.warns(UserWarning, match=r"set policy\.dtype to float32"):
        Learner(load_policy(dtype="bfloat16"), recipe, build_controller(recipe))

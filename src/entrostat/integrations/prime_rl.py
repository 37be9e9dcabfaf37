"""prime-rl: [trainer.loss] type = "custom", import_path = "entrostat.integrations.prime_rl.loss"

prime-rl calls fn(inputs, **kwargs) -> LossOutputs for one sequence: trainer_logprobs, inference_logprobs, advantages
and loss_mask (S,). The loss is a SUM; prime-rl scales it. pi_old is the sampler's. Tier A.
"""

from __future__ import annotations

from typing import Any

from entrostat.integrations.packed import Schedule, clip_fraction

TIER = "A"
SCHEDULE = Schedule()


def loss(inputs: Any, **_: Any) -> Any:
    """The sum of the sequence's token losses under `SCHEDULE`."""
    from prime_rl.trainer.rl.loss import LossOutputs

    logp, mask = inputs.trainer_logprobs, inputs.loss_mask
    out = SCHEDULE.loss(logp, inputs.inference_logprobs, inputs.advantages, mask)
    total = (logp * 0).sum() if out is None else out.per_token.sum()
    return LossOutputs(loss=total, metrics={"clip_fraction": clip_fraction(out, mask)})

"""verl's actor worker under flexec's od, which follows the entropy.

The worker steers verl's own `vanilla` loss by a `ControlledLoss` with the band of od. The entropy of every optimizer
step is summed over all data-parallel ranks, and the state is in every checkpoint.
"""

from __future__ import annotations

import os
from typing import Any

from verl.workers.engine_workers import ActorRolloutRefWorker

from entrostat.control import EntropyController
from entrostat.integrations.verl.flexec import NAME, Oscillation, Settings, done_share
from entrostat.integrations.verl.loss import changed, thresholds
from entrostat.integrations.verl.worker import LOSS_MODE, ControlledLoss, EntropyTrainingWorker, tier_of


class FlexecTrainingWorker(EntropyTrainingWorker):
    """verl's training worker; its loss is steered where verl's configuration asks for flexec."""

    def set_loss_fn(self, loss_fn: Any) -> None:
        """Take verl's loss, partial(ppo_loss, config=...). Raises ValueError for settings out of range, and where
        verl's engine would hand over no entropy.
        """
        config = getattr(loss_fn, "keywords", {}).get("config")
        if config is not None and config.policy_loss.loss_mode == NAME:
            loss_fn = self._controlled(config)
        super().set_loss_fn(loss_fn)

    def _controlled(self, config: Any) -> ControlledLoss:
        padded = getattr(config, "fsdp_config", {}).get("pad_to_length", False)  # verl then hands out no logits
        tier = "B" if padded else tier_of(config)
        if tier == "B" and not config.calculate_entropy:
            raise ValueError(
                "FLEXEC_STRATEGY is od, which follows the entropy; set actor_rollout_ref.actor.calculate_entropy to "
                "true, or use the fsdp or fsdp2 engine without use_fused_kernels and pad_to_length"
            )
        settings = Settings.of(os.environ)
        decay = Oscillation(settings, *thresholds(config), lambda: done_share(config, self.engine))
        # the part counts verl's training steps itself, so the number of optimizer steps has no effect
        controller = EntropyController(decay, total_steps=1)
        return ControlledLoss(controller, changed(config, policy_loss={"loss_mode": LOSS_MODE}), tier)


def install() -> None:
    """Give verl's actors this worker, in this process and from now on."""
    ActorRolloutRefWorker.actor_worker_cls = FlexecTrainingWorker

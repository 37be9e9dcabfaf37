"""verl's own synchronous loop without GPUs: its steps, checkpoints and callbacks, over stand-in workers."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from hydra import compose, initialize_config_module
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from entrostat.integrations.verl.watchdog import KEEPER

BROKEN = None  # the score of a step whose loss is no number


class Actor:
    """A worker group whose weights are one number: how often they were updated."""

    def __init__(self, root: Path, calls: list[tuple[Any, ...]]):
        self.root, self.calls, self.weights = root, calls, 0

    def save_checkpoint(self, path, _remote, step, max_ckpt_to_keep=None):
        Path(path).mkdir(parents=True)
        torch.save(self.weights, f"{path}/model.pt")
        for folder in sorted(self.root.glob("global_step_*/actor"))[:-max_ckpt_to_keep]:
            (folder / "model.pt").unlink()
            folder.rmdir()

    def load_checkpoint(self, local_path, del_local_after_load):
        assert not del_local_after_load
        self.weights = torch.load(f"{local_path}/model.pt")
        self.calls.append(("load", self.weights))


class Trainer(PPOTrainerSync):
    """What needs a GPU or a rollout stands in; the held-out score of step k is `scores[k - 1]`."""

    def __init__(self, config, scores):
        self.config, self.scores, self.calls = config, scores, []
        self.use_critic, self.trainer_mode = False, "sync"
        self.checkpoint_callback = trainer_base.build_checkpoint_callback(config)
        self.actor_rollout_wg = Actor(Path(config.trainer.default_local_dir), self.calls)
        self.checkpoint_manager = SimpleNamespace(
            sleep_replicas=lambda: self.calls.append(("sleep",)),
            update_weights=lambda step: self.calls.append(("update", step, self.actor_rollout_wg.weights)),
        )
        self.train_dataloader = SimpleNamespace(state_dict=dict)
        self.global_steps, self.steps_per_epoch, self.total_training_steps = 0, 100, len(scores)

    def step(self, metrics, timing_raw):
        self.actor_rollout_wg.weights += 1
        metrics["actor/pg_loss"] = math.nan if self.scores[self.global_steps - 1] is BROKEN else 0.0
        return SimpleNamespace(keys=[], partition_id="train")

    def _validate(self):
        return {"val-core/x/acc/mean@1": self.scores[self.global_steps - 1] or 0.0}

    def _nothing(self, *_, **__):
        pass

    _compute_metrics = _start_profiling = _stop_profiling = _shutdown_dump_executor = _nothing


def trainer_of(folder: Path, action: str, scores: list[float | None]) -> Trainer:
    """A trainer that saves and validates after every step, and keeps one checkpoint."""
    settings = {
        "+trainer.entrostat_watch.action": action,
        "+trainer.entrostat_watch.severity": "warning",
        "trainer.checkpoint_callback_class": KEEPER,
        "trainer.default_local_dir": folder,
        "trainer.save_freq": 1,
        "trainer.test_freq": 1,
        "trainer.max_actor_ckpt_to_keep": 1,
        "trainer.logger": "[console]",
        "trainer.val_before_train": "false",
    }
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[f"{key}={value}" for key, value in settings.items()])
    return Trainer(config, scores)

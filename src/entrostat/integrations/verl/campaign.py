"""The part of a campaign in verl's own process: `VerlEngine` makes verl load it, and gives it orders after each step.

It is one more logger of verl's `Tracking`, which is called for every step once its weights are in the rollout.
Evaluations are verl's own `_validate` over rows of the validation set, those whose extra_info.split is "select",
"report" or, if there are any, "ood"; a row's task is its extra_info.task, or without one its data_source and
extra_info.index.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

KEY = "entrostat_campaign"
NEEDED = ("select", "report")


class Guide:
    """Stands between verl's trainer and the engine, which waits at the other end of `settings.address`.

    After each step it sends what verl logged, then carries out orders until the order is to continue or to stop.
    """

    def __init__(self, trainer: Any, settings: Mapping[str, Any]) -> None:
        self.trainer, self.settings = trainer, settings
        plain = trainer.on_train_begin

        def begin() -> None:
            plain()
            self.begin()

        trainer.on_train_begin = begin

    def begin(self) -> None:
        """Before the first step, or the first after a resume."""
        trainer = self.trainer
        self.tasks = tasks_of_splits(trainer.val_dataset)
        address = json.loads(Path(self.settings["address"]).read_text())
        self.connection = Client((address["host"], address["port"]), authkey=bytes.fromhex(address["key"]))
        trainer.logger.logger[KEY] = self
        step = trainer.global_steps - 1  # verl counts the step to come
        measured = [split for split in ("report", "ood") if self.tasks[split]]
        self._say({"step": step, "tasks": len(self.tasks["select"]), "measured": measured})
        self._obey(step)

    def log(self, data: Mapping[str, Any], step: int, **_: Any) -> None:
        """Send verl's log of a finished step, then carry out orders."""
        self._say({"step": step, "logged": plain_numbers(data)})
        self._obey(step)

    def _obey(self, step: int) -> None:
        duties: dict[str, Callable[..., Any]] = {
            "save": self._save,
            "evaluate": self._evaluate,
            "checkpoint": self._checkpoint,
        }
        while (order := json.loads(self.connection.recv_bytes()))["do"] in duties:
            self._say({"done": duties[order.pop("do")](step, **order)})
        if order["do"] == "stop":
            self.trainer.total_training_steps = step  # verl's loop ends by itself

    def _say(self, message: Mapping[str, Any]) -> None:
        self.connection.send_bytes(json.dumps(message).encode())

    def _save(self, step: int, folder: str) -> None:
        """Save the actor only, in verl's form; without rotation, which the engine does."""
        self.trainer.actor_rollout_wg.save_checkpoint(folder, None, step, max_ckpt_to_keep=None)

    def _checkpoint(self, step: int) -> None:  # noqa: ARG002
        """Save all that verl itself needs to resume here."""
        self.trainer._save_checkpoint()

    def _evaluate(
        self, step: int, split: str, first: int, last: int | None, weights: str | None, now: str
    ) -> list[list[Any]]:
        """[task, n, passed]; weights: a folder that `_save` wrote; now: a folder for the current weights meanwhile."""
        with self._with(weights, now, step):
            return validated(self.trainer, self.tasks[split][first:last], self.settings["passing"])

    @contextmanager
    def _with(self, weights: str | None, now: str, step: int) -> Iterator[None]:
        if weights is None:
            yield
            return
        if not os.path.exists(now):
            self._save(step, now)
        self._load(weights, step)
        try:
            yield
        finally:
            self._load(now, step)

    def _load(self, folder: str, step: int) -> None:
        """Load into the actor and the rollout; the optimizer's state belongs to the weights."""
        self.trainer.checkpoint_manager.sleep_replicas()
        self.trainer.actor_rollout_wg.load_checkpoint(local_path=folder, del_local_after_load=False)
        self.trainer.checkpoint_manager.update_weights(step)


def tasks_of_splits(dataset: Any) -> dict[str, list[tuple[str, int]]]:
    """For "select", "report" and "ood" the (task, row) pairs of a verl data set, in its order.

    ValueError: one of the first two without a row, or a task twice in one, with what to write into extra_info.
    """
    splits: dict[str, list[tuple[str, int]]] = {split: [] for split in (*NEEDED, "ood")}
    for row in range(len(dataset)):
        item = dataset[row]
        split = item["extra_info"].get("split")
        if split in splits:
            about = item["extra_info"]
            name = about.get("task") or f"{item.get('data_source', 'unknown')}/{about.get('index')}"
            splits[split].append((name, row))
    for split, tasks in splits.items():
        if not tasks and split in NEEDED:
            raise ValueError(f"data.val_files has no row with extra_info.split {split!r}; a campaign needs both splits")
        if twice := sorted({name for name, _ in tasks if sum(name == other for other, _ in tasks) > 1}):
            raise ValueError(f"data.val_files has {twice[0]} twice in {split}; give each row its own extra_info.index")
    return splits


def validated(trainer: Any, tasks: Sequence[tuple[str, int]], passing: float) -> list[list[Any]]:
    """[task, graded completions, passed ones] of `tasks`, by verl's own validation over their rows.

    A completion has passed if its `acc`, or its reward if the reward function gives no `acc`, is at least `passing`.
    """
    from verl.utils.dataset.rl_dataset import collate_fn

    size = trainer.config.data.val_batch_size or len(tasks)
    parts = [tasks[i : i + size] for i in range(0, len(tasks), size)]
    batches = [collate_fn([trainer.val_dataset[row] for _, row in part]) for part in parts]
    recorded: list[tuple[Sequence[str], Mapping[str, Sequence[Any]]]] = []

    def record(_sources: Any, uids: Sequence[str], infos: Mapping[str, Sequence[Any]], *_: Any, **__: Any) -> Any:
        recorded.append((uids, infos))
        return {}

    loader, trainer.val_dataloader, trainer._val_metrics_update = trainer.val_dataloader, batches, record
    try:
        trainer.on_validate_begin()
        trainer._validate()
        trainer.on_validate_end()
    finally:
        trainer.val_dataloader = loader
        del trainer._val_metrics_update
    ((uids, infos),) = recorded
    prompts = [uid for batch in batches for uid in batch["uid"]]
    graded, passed = dict.fromkeys(prompts, 0), dict.fromkeys(prompts, 0)
    for uid, value in zip(uids, infos.get("acc", infos["reward"]), strict=True):
        graded[uid] += value is not None
        passed[uid] += value is not None and value >= passing
    return [[name, graded[uid], int(passed[uid])] for (name, _), uid in zip(tasks, prompts, strict=True)]


def plain_numbers(logged: Mapping[str, Any]) -> dict[str, int | float]:
    """The numbers among what verl logs, those of NumPy and one-element tensors as Python's."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in logged.items()}
    return {name: value for name, value in plain.items() if isinstance(value, int | float)}


def check(trainer: Any) -> None:
    """Raise ValueError, naming the key, for settings that a campaign does not support."""
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    config = trainer.config
    if not isinstance(trainer, PPOTrainerSync):
        raise ValueError(
            f"trainer.v1.trainer_mode is {config.trainer.v1.trainer_mode!r}; a campaign needs a synchronous one, for "
            "others still sample from the previous policy when it is evaluated: sync or entrostat"
        )
    model = config.actor_rollout_ref.model
    if model.get("lora_rank", 0) > 0 or model.get("lora", {}).get("rank", 0) > 0 or model.get("lora_adapter_path"):
        raise ValueError(
            "actor_rollout_ref.model asks for LoRA; a campaign hands over whole models: set lora_rank to 0"
        )
    if config.actor_rollout_ref.actor.checkpoint.get("async_save", False):
        raise ValueError("actor.checkpoint.async_save is true; a campaign needs whole checkpoints: set it to false")


def install() -> None:
    """Guide every trainer that verl makes for a campaign from now on. Done once."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    plain = PPOTrainer.init
    if plain.__module__ == __name__:
        return

    def init(self: Any) -> None:
        settings = self.config.trainer.get(KEY)
        if settings is not None:
            check(self)
            self.config.actor_rollout_ref.actor.optim.lr *= settings.rate
            Guide(self, settings)
        plain(self)

    PPOTrainer.init = init


if __name__ in os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(","):
    install()

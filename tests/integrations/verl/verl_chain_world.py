"""verl's own driver, trainer loop, validation and data without GPUs: an external module of verl's, and a program.

What stands in: the workers, whose weights are one number that grows by the learning rate, and the rollout, whose
completions are right the more often the nearer that number is to `BEST`. As a program it is `verl.trainer.main_ppo`
with verl's task runner in this process, and a dictionary in the place of the transfer queue, so that no Ray is started.
"""

import os
import shutil
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file

BEST, SAMPLES, TASKS = 3.0, 4, 6
WEIGHTS = "model.safetensors"


def model_folder(folder, number=0.0):
    """A folder that verl reads a tokenizer from; its weights are `number`."""
    from transformers import AutoTokenizer, LlamaConfig

    from entrostat.engine.policy import embedded_folder

    folder.mkdir(parents=True)
    AutoTokenizer.from_pretrained(embedded_folder()).save_pretrained(folder)
    LlamaConfig(vocab_size=171, pad_token_id=0, eos_token_id=1, architectures=["LlamaForCausalLM"]).save_pretrained(
        folder
    )
    save_file({"weight": torch.tensor(number)}, folder / WEIGHTS)
    return folder


def number_of(folder):
    return round(load_file(Path(folder) / WEIGHTS)["weight"].item(), 6)


def arguments(folder):
    """verl's command line for the stand-ins, over data written to `folder`."""
    from datasets import Dataset

    rows = [
        {
            "prompt": [{"role": "user", "content": f"task {index}"}],
            "data_source": "sums",
            "reward_model": {"ground_truth": str(index), "style": "rule"},
            "extra_info": {"split": split, "index": index},
        }
        for split in ("select", "report", "ood", "train")
        for index in range(TASKS)
    ]
    folder.mkdir(exist_ok=True)
    Dataset.from_list(rows).to_parquet(folder / "tasks.parquet")
    given = {
        "data.train_files": folder / "tasks.parquet",
        "data.val_files": folder / "tasks.parquet",
        "data.filter_overlong_prompts": "false",
        "data.dataloader_num_workers": 0,
        "data.train_batch_size": 2,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 2,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 1,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 1,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": 1,
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.n": 1,
        "actor_rollout_ref.rollout.val_kwargs.n": SAMPLES,
        "actor_rollout_ref.actor.optim.lr": 1.0,
        "+actor_rollout_ref.rollout.agent.agent_loop_manager_class": "verl_chain_world.Rollout",
        "algorithm.adv_estimator": "grpo",
        "trainer.v1.trainer_mode": "stand_in",
        "trainer.n_gpus_per_node": 1,
        "trainer.logger": "[console]",
        "ray_kwargs.ray_init.num_cpus": 3,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
    }
    return [f"{key}={value}" for key, value in given.items()]


class Actor:
    """A worker group of one number."""

    def __init__(self, config):
        self.start = Path(config.model.path)
        self.rate, self.contents = config.actor.optim.lr, config.actor.checkpoint.save_contents
        self.weights = number_of(self.start)

    def save_checkpoint(self, path, _remote, step, max_ckpt_to_keep=None):
        assert max_ckpt_to_keep is None
        Path(path).mkdir(parents=True)
        torch.save(self.weights, f"{path}/model.pt")
        if "hf_model" in self.contents:
            shutil.copytree(self.start, f"{path}/huggingface")
            (Path(path) / "huggingface" / WEIGHTS).unlink()
            save_file({"weight": torch.tensor(self.weights)}, f"{path}/huggingface/{WEIGHTS}")

    def load_checkpoint(self, local_path, del_local_after_load):
        assert not del_local_after_load
        self.weights = torch.load(f"{local_path}/model.pt")


class Rollout:
    """An agent loop manager: answers prompts at once, with the weights that the rollout was given last."""

    weights = None

    @classmethod
    def create(cls, config, **_):
        loop = cls()
        loop.n = config.actor_rollout_ref.rollout.val_kwargs.n
        return loop

    def generate_sequences(self, batch):
        import transfer_queue as tq

        assert Rollout.weights is not None, "the rollout sleeps"
        validating = bool(batch["validate"]) if "validate" in batch else False
        n, partition = (self.n, "val") if validating else (1, "train")
        for place, uid in enumerate(batch["uid"]):
            index = batch["index"][place]
            rows = [self._answer(uid, sample, int(index), batch, place) for sample in range(n)]
            keys = [f"{uid}_{sample}_0" for sample in range(n)]
            tags = [{"status": "success", "seq_len": 5, "global_steps": 0} for _ in rows]
            tq.kv_batch_put(keys=keys, partition_id=partition, fields=tensordict_of(rows), tags=tags)
            tq.kv_batch_put(keys=[uid], partition_id=partition, tags=[{"status": "finished"}])

    def _answer(self, uid, sample, index, batch, place):
        right = sample < SAMPLES - abs(Rollout.weights - BEST) + index / TASKS - 0.5
        return {
            "uid": uid,
            "prompts": torch.tensor([5, 6]),
            "responses": torch.tensor([7, 8, 1]),
            "rm_scores": torch.tensor([0.0, 0.0, float(right)]),
            "num_turns": 2,
            "reward_model": batch["reward_model"][place],
            "data_source": batch["data_source"][place],
            "extra_fields": {"reward_extra_info": {"acc": right}},
        }


def register():
    from verl.trainer.ppo.v1.trainer_base import register_trainer
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    @register_trainer("stand_in")
    class Trainer(PPOTrainerSync):
        """PPOTrainerSync whose workers and rollout stand in."""

        def _build_replay_buffer(self):
            self.trainer_mode = "sync"
            buffer = super()._build_replay_buffer()
            buffer.poll_interval = 0.01
            return buffer

        def _setup(self):
            self._init_tokenizer()
            self._init_dataloader()
            self._init_dump_executor()
            self.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])
            self.actor_rollout_wg = Actor(self.config.actor_rollout_ref)
            self.checkpoint_manager = SimpleNamespace(sleep_replicas=self._sleep, update_weights=self._update)
            self.checkpoint_manager.sleep_replicas()
            self._load_checkpoint()

        def _sleep(self):
            Rollout.weights = None

        def _update(self, step=None):
            Rollout.weights = self.actor_rollout_wg.weights

        def step(self, metrics, timing_raw):
            self.prepare_step()
            batch, _ = self.replay_buffer.sample(self.global_steps, "train", self.config.data.train_batch_size)
            self.on_sample_end()
            actor = self.actor_rollout_wg
            actor.weights += actor.rate
            late = max(actor.weights - BEST, 0.0)
            metrics |= {"actor/lr": actor.rate, "actor/pg_loss": 0.5, "actor/entrostat/kl": late}
            metrics |= {"actor/entrostat/ratio_outside": late, "actor/entrostat/log_ratio_min_punished": -9 * late}
            return batch

        def _nothing(self, *_, **__):
            return None

        get_llm_client = get_teacher_client = get_reward_handles = _nothing
        _compute_metrics = _start_profiling = _stop_profiling = _nothing


def tensordict_of(rows):
    from tensordict import NonTensorStack, TensorDict

    fields = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        tensors = isinstance(values[0], torch.Tensor)
        fields[name] = (
            torch.nested.as_nested_tensor(values, layout=torch.jagged) if tensors else NonTensorStack(*values)
        )
    return TensorDict(fields, batch_size=[len(rows)])


class Queue:
    """verl's transfer queue as one dictionary: partition, key -> (tag, fields)."""

    def __init__(self):
        self.held = defaultdict(dict)

    def kv_batch_put(self, keys, partition_id, fields=None, tags=None):
        for place, key in enumerate(keys):
            tag, row = self.held[partition_id].setdefault(key, ({}, {}))
            tag.update(tags[place] if tags else {})
            for name in fields.keys() if fields is not None else ():
                values = fields.get(name)
                row[name] = values.unbind()[place] if isinstance(values, torch.Tensor) else values.tolist()[place]

    def kv_batch_get(self, keys, partition_id, select_fields):
        rows = [self.held[partition_id][key][1] for key in keys]
        return tensordict_of([{name: row[name] for name in select_fields} for row in rows])

    def kv_list(self, partition_id=None):
        return {name: {key: tag for key, (tag, _) in items.items()} for name, items in self.held.items()}

    def kv_clear(self, keys, partition_id):
        for key in keys:
            del self.held[partition_id][key]


if __name__ in os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(","):
    register()

if __name__ == "__main__":
    import transfer_queue
    from verl.trainer import main_ppo

    queue = Queue()
    for name in ("kv_batch_put", "kv_batch_get", "kv_list", "kv_clear"):
        setattr(transfer_queue, name, getattr(queue, name))
    transfer_queue.init = transfer_queue.close = lambda *_: None
    main_ppo.run_ppo = lambda config, task_runner_class: task_runner_class.__ray_metadata__.modified_class().run(config)
    main_ppo.main()

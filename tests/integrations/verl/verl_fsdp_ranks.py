"""Run by torchrun: verl's own FSDP2 engine and training worker on CPUs, with verl's loss and with ours."""

import os
import sys
from functools import partial
from pathlib import Path

import torch
import verl_on_cpus  # noqa: F401
from tensordict import TensorDict
from test_verl import PROMPT, VOCABULARY, actor, controlled, jagged
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.engine_workers import TrainingWorker
from verl.workers.utils.losses import ppo_loss

from entrostat.control import EntropyController, IncreaseThenDecrease
from entrostat.engine.policy import embedded_folder
from entrostat.integrations.verl.flexec import Settings
from entrostat.integrations.verl.flexec_worker import FlexecTrainingWorker
from entrostat.integrations.verl.worker import EntropyTrainingWorker

folder = Path(sys.argv[1])
torch.distributed.init_process_group("gloo")
RANK, RANKS = torch.distributed.get_rank(), torch.distributed.get_world_size()
LENGTHS = [6, 3, 5, 2, 7, 4, 1, 6]
STEPS = 3


def model_folder():
    path = folder / "model"
    if RANK == 0:
        torch.manual_seed(0)
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
        size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
        config = LlamaConfig(vocab_size=171, pad_token_id=0, eos_token_id=1, **heads, **size)
        LlamaForCausalLM(config).save_pretrained(path)
        AutoTokenizer.from_pretrained(embedded_folder()).save_pretrained(path)
    torch.distributed.barrier()
    return str(path)


MODEL = model_folder()


def worker(kind, loss):
    precision = dict.fromkeys(("param_dtype", "reduce_dtype", "buffer_dtype"), "fp32")
    size = {"micro_batch_size_per_gpu": 2, "infer_micro_batch_size_per_gpu": 2}
    settings = TrainingWorkerConfig(
        model_type="language_model",
        model_config=HFModelConfig(
            path=MODEL,
            use_remove_padding=False,  # it needs flash attention
            enable_gradient_checkpointing=False,
            override_config={"attn_implementation": "sdpa"},
        ),
        engine_config=FSDPEngineConfig(
            strategy="fsdp2", use_torch_compile=False, use_dynamic_bsz=False, mixed_precision=precision, **size
        ),
        optimizer_config=FSDPOptimizerConfig(lr=1e-2, total_training_steps=10),
        checkpoint_config=CheckpointConfig(),
    )
    made = kind(settings)
    made.reset()
    made.set_loss_fn(loss)
    assert isinstance(made.engine, FSDPEngineWithLMHead)
    return made


def batch(step):
    """This rank's share of the sequences of a step, in micro-batches of two."""
    generator = torch.Generator().manual_seed(step)
    rows = []
    for length in LENGTHS:
        ids = torch.randint(VOCABULARY, (PROMPT + length,), generator=generator)
        rows.append(
            {
                "input_ids": ids,
                "position_ids": torch.arange(len(ids)),
                "loss_mask": torch.cat([torch.zeros(PROMPT), torch.ones(length)]).long(),
                "prompts": ids[:PROMPT],
                "responses": ids[PROMPT:],
                "response_mask": torch.ones(length, dtype=torch.long),
                "old_log_probs": -5 - 0.3 * torch.rand(length, generator=generator),
                "advantages": torch.randn(1, generator=generator).expand(length).clone(),
            }
        )
    share = rows[RANK::RANKS]
    data = TensorDict({name: jagged([row[name] for row in share]) for name in rows[0]}, [len(share)])
    tensordict_utils.assign_non_tensor(
        data,
        temperature=1.0,
        calculate_entropy=True,
        global_batch_size=len(rows),
        global_token_num=[len(row["input_ids"]) for row in share],
    )
    return data


def weights(made):
    return {name: value.full_tensor().clone() for name, value in made.engine.module.state_dict().items()}


def train(made, steps):
    return [tensordict_utils.get(made.train_batch(batch(step)), "metrics") for step in steps]


def plain(metric):
    return (
        [plain(part) for part in metric] if isinstance(metric, list) else getattr(metric, "aggregate", lambda: metric)()
    )


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


vanilla = worker(TrainingWorker, partial(ppo_loss, actor("vanilla")))
start = weights(vanilla)
theirs = train(vanilla, range(STEPS))
ours = worker(EntropyTrainingWorker, controlled())
found = train(ours, range(STEPS))
assert same(start, weights(worker(TrainingWorker, None)))
assert not same(start, weights(vanilla))
assert same(weights(vanilla), weights(ours))
for one, other in zip(theirs, found, strict=True):
    for name in one:
        if name not in ("mfu", "memory_info/cpu_memory_used_gb") and not name.startswith("perf/"):
            assert plain(one[name]) == plain(other[name]), (name, plain(one[name]), plain(other[name]))
print("equal to vanilla, bit for bit", flush=True)

steered = worker(EntropyTrainingWorker, controlled(EntropyController(IncreaseThenDecrease(), 10)))
train(steered, range(STEPS))
assert not same(weights(steered), weights(ours))
steered.save_checkpoint(str(folder / "checkpoint"), None, STEPS)
continued = train(steered, [STEPS])
resumed = worker(EntropyTrainingWorker, controlled(EntropyController(IncreaseThenDecrease(), 10)))
resumed.load_checkpoint(str(folder / "checkpoint"))
again = train(resumed, [STEPS])
assert same(weights(steered), weights(resumed))
assert steered.loss_fn.controller.state_dict() == resumed.loss_fn.controller.state_dict()
assert resumed.loss_fn.controller.state_dict()["step"] == STEPS + 1
assert again[0]["entrostat/entropy"] == continued[0]["entrostat/entropy"]
print("resumes from its checkpoint", flush=True)

os.environ.update(FLEXEC_STRATEGY="od", FLEXEC_OD_H_INIT="9", FLEXEC_OD_H_MIN_RATIO="0.1")


def oscillating():
    config = actor("flexec")
    config.optim.total_training_steps = 2
    made = worker(FlexecTrainingWorker, partial(ppo_loss, config=config))
    made.engine.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(made.engine.optimizer, lambda _: 1.0)
    return made


decaying = oscillating()
metrics = train(decaying, [0])[0]
assert metrics["entrostat/entropy"] == found[0]["entrostat/entropy"]  # of the tokens of all ranks
band = decaying.loss_fn.controller.rule()
assert decaying.loss_fn.controller.phase == "decrease"
decaying.save_checkpoint(str(folder / "decaying"), None, 1)
os.environ["FLEXEC_OD_H_INIT"] = "90"
boosted = oscillating()
assert train(boosted, [0])[0]["entrostat/phase"] == -1
assert train(boosted, [1])[0]["entrostat/phase"] == 1
assert boosted.loss_fn.controller.rule() == Settings.of(os.environ).band(0.2, 0.2, 0.0, boosting=True)
again = oscillating()
again.load_checkpoint(str(folder / "decaying"))
assert (again.loss_fn.controller.rule(), again.loss_fn.controller.state_dict()["step"]) == (band, 1)
print("follows the entropy", flush=True)
torch.distributed.barrier()
os._exit(0)

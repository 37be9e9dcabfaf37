"""The measuring callback: the numbers of the tokens that were trained, and a trainer that does not notice."""

import math

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not installed: the measuring callback is not checked")

from datasets import Dataset
from transformers import Trainer, TrainingArguments
from trl_world import policy, steps, trainer

from entrostat.integrations.trl.measuring import MeasureCallback
from entrostat.tokens import token_stats

ROWS = [[5, 6, 7, 8, 9], [9, 8, 7, 6, 5], [1, 2, 3, 4, 5], [20, 30, 40, 50, 60]]
LABELS = [[-100, -100, *row[2:]] for row in ROWS]


def supervised(folder, *, size=2, callback=None, **changes):
    settings = {
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": 4 // size,
        "max_steps": 2,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 0,
    }
    data = Dataset.from_dict({"input_ids": ROWS, "labels": LABELS, "attention_mask": [[1] * 5] * 4})
    run = Trainer(
        policy(), TrainingArguments(str(folder), **{**settings, **changes}), train_dataset=data, eval_dataset=data
    )
    if callback:
        callback.attach(run)
    return run


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_it_logs_the_statistics_of_the_trained_tokens_and_changes_nothing(tmp_path, temperature):
    plain, measured = supervised(tmp_path), supervised(tmp_path, callback=MeasureCallback(temperature))
    model = policy().eval()
    plain.train()
    measured.train()
    for a, b in zip(plain.model.parameters(), measured.model.parameters(), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(ROWS)).logits[:, 1:-1]
    stats = token_stats(logits, torch.tensor(ROWS)[:, 2:], temperature)
    first = steps(measured)[0]
    assert first["entrostat/entropy"] == pytest.approx(float(stats.entropy.mean()), rel=1e-5)
    assert first["entrostat/surprisal"] == pytest.approx(-float(stats.logp.mean()), rel=1e-5)
    assert first["entrostat/collision"] == pytest.approx(float(stats.collision.mean()), rel=1e-5)
    assert first["entrostat/correction"] == pytest.approx(float(stats.correction.mean()), rel=1e-5)
    if temperature == 1:
        assert first["entrostat/surprisal"] == pytest.approx(first["loss"], rel=1e-3)
    assert not measured.model._forward_hooks


def test_it_does_not_depend_on_the_micro_batches_and_measures_evaluations(tmp_path):
    changes = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 3}
    whole, cut = (supervised(tmp_path, size=size, callback=MeasureCallback(), **changes) for size in (4, 1))
    for run in (whole, cut):
        run.train()
    for ours, theirs in zip(whole.state.log_history[:-1], cut.state.log_history[:-1], strict=True):
        for name in ours:
            if "entrostat/" in name:
                assert theirs[name] == pytest.approx(ours[name], rel=1e-3), name
    evaluated = [line for line in whole.state.log_history if "eval_loss" in line]
    for line in evaluated:
        assert line["eval_entrostat/surprisal"] == pytest.approx(line["eval_loss"], rel=1e-3)


def test_it_measures_plain_grpo_without_its_sampling(tmp_path):
    once = {"gradient_accumulation_steps": 1, "steps_per_generation": 1, "num_iterations": 1}
    run = trainer(tmp_path, **once)
    MeasureCallback().attach(run)
    run.train()
    for line in steps(run):
        assert line["entrostat/entropy"] == pytest.approx(line["entropy"], rel=1e-4)


def test_reporters_receive_its_numbers(tmp_path):
    run = supervised(tmp_path)
    seen = []

    class Reporter(type(run.callback_handler.callbacks[0])):
        def on_log(self, args, state, control, logs=None, **_):
            seen.append(dict(logs))

    run.add_callback(Reporter())
    MeasureCallback().attach(run)
    run.train()
    assert all(math.isfinite(logs["entrostat/entropy"]) for logs in seen if "loss" in logs)


def test_a_loss_without_logits_is_named(tmp_path):
    run = supervised(tmp_path, callback=MeasureCallback())

    class Fused(type(run.model)):
        def forward(self, *, input_ids=None, labels=None, **rest):
            output = super().forward(input_ids=input_ids, labels=labels, **rest)
            output.logits = None
            return output

    run.model.__class__ = Fused
    with pytest.raises(ValueError, match=r"no training pass gave logits.*use_liger_kernel"):
        run.train()
    with pytest.raises(ValueError, match="temperature is 0"):
        MeasureCallback(0)

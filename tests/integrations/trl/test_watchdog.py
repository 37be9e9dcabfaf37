"""The watchdog inside a real GRPOTrainer on the embedded policy."""

import json
import logging

import pytest

pytest.importorskip("trl")

from datasets import Dataset
from remedy_settings import settings_of
from safetensors.torch import load_file
from trl import GRPOConfig, GRPOTrainer

from entrostat.diagnosis import read_log
from entrostat.engine.policy import embedded_folder
from entrostat.integrations.trl.watchdog import WatchdogCallback


def trainer_of(folder, rewards, steps=6, callback=None, **settings):
    """A tiny run whose mean reward at step k is `rewards[k - 1]`."""
    calls = iter(rewards)

    def reward(completions, **_):
        mean = next(calls)
        return [mean + 0.01 * (i % 2) for i in range(len(completions))]

    config = GRPOConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=4,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        learning_rate=1e-3,
        **settings,
    )
    trainer = GRPOTrainer(
        model=str(embedded_folder()),
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "# Double every number.\n"}] * 4),
    )
    if callback:
        callback.attach(trainer)
    return trainer


def lines(folder):
    """What the watchdog wrote."""
    file = folder / "watchdog.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def broken_after(step, steps=12):
    """Rewards that rise, and are no number from `step` on."""
    return [0.1 * k if k < step else float("inf") for k in range(1, steps + 1)]


def test_a_healthy_run_is_left_alone_and_told_that_it_is_watched(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        trainer = trainer_of(tmp_path, [0.1] * 9, callback=WatchdogCallback("stop"))
        trainer.train()
    assert trainer.state.global_step == 6
    assert "watchdog is active" in caplog.text
    assert not lines(tmp_path)


def test_a_failure_stops_training_and_the_cause_is_recorded(tmp_path):
    trainer = trainer_of(tmp_path, broken_after(3), callback=WatchdogCallback("stop", severity="warning"))
    trainer.train()
    assert trainer.state.global_step == 3
    assert [line["kind"] for line in lines(tmp_path)] == ["finding", "stop"]
    assert "not-finite at step 3" in lines(tmp_path)[1]["cause"]


def hear_a_broken_loss(callback, step):
    """Tell `callback` of a loss that is no number at `step`; the weights stay sound, so that training can go on."""
    hear = callback.on_log

    def on_log(args, state, control, logs=None, **_):
        hear(args, state, control, {**logs, "loss": float("nan")} if state.global_step == step else logs)

    callback.on_log = on_log


def test_note_continues(tmp_path):
    callback = WatchdogCallback("note")
    trainer = trainer_of(tmp_path, [0.1] * 9, callback=callback)
    hear_a_broken_loss(callback, 3)
    trainer.train()
    assert trainer.state.global_step == 6
    assert [line["kind"] for line in lines(tmp_path)] == ["finding"]


def test_only_the_kinds_that_were_named_are_acted_on(tmp_path):
    callback = WatchdogCallback("stop", kinds=["truncation"])
    trainer = trainer_of(tmp_path, [0.1] * 9, callback=callback)
    hear_a_broken_loss(callback, 3)
    trainer.train()
    assert trainer.state.global_step == 6


def test_the_peak_is_kept_though_checkpoints_rotate(tmp_path):
    callback = WatchdogCallback("keep-peak", severity="warning", every=1, smooth=1)
    trainer = trainer_of(tmp_path, broken_after(5), callback=callback, save_total_limit=1)
    trainer.train()
    assert trainer.state.global_step == 5
    stop = lines(tmp_path)[-1]
    assert stop["peak_step"] == 4
    state = json.loads((tmp_path / "peak" / "trainer_state.json").read_text())
    assert state["global_step"] == 4


def test_a_step_that_failed_is_not_kept_as_the_peak(tmp_path):
    callback = WatchdogCallback("keep-peak", severity="warning", every=1, smooth=1)
    trainer = trainer_of(tmp_path, [0.1, 0.2, 0.3, 0.4, 0.5], callback=callback)
    hear_a_broken_loss(callback, 4)
    trainer.train()
    assert trainer.state.global_step == 4
    assert json.loads((tmp_path / "peak" / "trainer_state.json").read_text())["global_step"] == 3


def test_roll_back_loads_the_peak_switches_and_continues(tmp_path):
    loaded = {}

    def switch(trainer, finding):
        trainer.epsilon_high = 0.28
        loaded["weights"] = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        loaded["kind"] = finding.kind
        loaded["moments"] = len(trainer.optimizer.state)

    callback = WatchdogCallback("roll-back", severity="warning", every=1, smooth=1, switch=switch)
    rewards = [0.1, 0.2, float("inf"), 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    trainer = trainer_of(tmp_path, rewards, callback=callback)
    trainer.train()
    assert trainer.state.global_step == 6
    assert [line["kind"] for line in lines(tmp_path)][:2] == ["finding", "roll-back"]
    assert lines(tmp_path)[1]["to_step"] == 2
    assert loaded["kind"] == "not-finite"
    assert loaded["moments"] == 0
    for name, value in load_file(tmp_path / "peak" / "model.safetensors").items():
        assert (loaded["weights"][name] == value).all()


def test_roll_back_without_the_trainer_is_refused_before_training(tmp_path):
    trainer = trainer_of(tmp_path, [0.1] * 9)
    trainer.add_callback(WatchdogCallback("roll-back"))
    with pytest.raises(ValueError, match="attach"):
        trainer.train()


def test_a_resumed_run_takes_up_what_was_logged_before(tmp_path):
    trainer_of(tmp_path, [0.1] * 9, steps=4, save_steps=2).train()
    callback = WatchdogCallback("stop")
    trainer = trainer_of(tmp_path, [0.1] * 9, steps=6, callback=callback)
    trainer.save_state()
    trainer.state.log_history = [{"step": k, "entropy": 0.5, "reward": 0.1} for k in range(1, 5)]
    callback.on_train_begin(trainer.args, trainer.state, trainer.control)
    assert callback.watch.watchdog.history.step == 4


def test_the_columns_of_this_trl_are_known(tmp_path):
    trainer = trainer_of(tmp_path, [0.1] * 9, steps=2, beta=0.01)
    trainer.train()
    trainer.state.save_to_json(str(tmp_path / "trainer_state.json"))
    log = read_log(tmp_path / "trainer_state.json")
    known = {"entropy", "reward", "reward_std", "equal_groups", "clip_low", "clip_high", "clip", "length", "truncated"}
    assert known | {"kl", "grad_norm", "loss"} <= set(log.used)


def test_remedies_name_settings_that_this_trl_has():
    fields = set(GRPOConfig.__dataclass_fields__)
    if "use_adaptive_entropy" not in fields:
        pytest.skip("this TRL is older than a remedy that says so")
    assert len(settings_of("trl")) > 5
    assert settings_of("trl") <= fields

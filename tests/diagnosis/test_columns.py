"""Names of columns: every listed one is its quantity's, and what looks like one but is none is not read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrostat.diagnosis import read_log
from entrostat.diagnosis.columns import QUANTITIES, number, recognise

LISTED = [(name, quantity) for quantity, metric in QUANTITIES.items() for name in metric.names if name[0] != "/"]


@pytest.mark.parametrize(("name", "quantity"), LISTED)
def test_a_listed_name_is_its_quantity_however_it_is_written(name, quantity):
    for written in (name, name.upper(), f"train/{name}", f" {name.replace('/', ' / ')} "):
        match = recognise(written)
        assert match is not None
        assert match.quantity == quantity
        assert match.rank < len(QUANTITIES[quantity].names)


def test_no_name_is_listed_twice():
    names = [name for name, _ in LISTED]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        ("rollout/avg_response_token_length", "length"),
        ("mean_len", "length"),
        ("avg tokens per completion", "length"),
        ("token entropy (nats)", "entropy"),
        ("MeanEntropy", "entropy"),
        ("train/mean_episode_reward", "reward"),
        ("solve_rate", "reward"),
        ("kl_to_ref", "kl"),
        ("approx_kl_div", "kl_old"),
        ("kl_trainer_vllm", "kl_sampler"),
        ("eval/gsm8k/accuracy", "heldout"),
        ("test/math/reward/mean", "heldout"),
        ("val_pass_rate", "heldout"),
        ("gradient_norm", "grad_norm"),
        ("overlong_ratio", "truncated"),
        ("frac_zero_std_groups", "equal_groups"),
        ("clipped_fraction", "clip"),
        ("train/mis_kl", "kl_sampler"),
        ("solve_none/all", "all_wrong"),
        ("train/baseline_reward/pct_1", "all_right"),
    ],
)
def test_names_that_nobody_listed_are_found_by_their_words(name, quantity):
    match = recognise(name)
    assert match is not None
    assert match.quantity == quantity


@pytest.mark.parametrize(
    "name",
    [
        "entropy_coef", "entropy/max", "eval_entropy", "kl_coef", "kl_penalty_weight",
        "rewards/format_reward/mean", "rewards/check_answer/mean", "eval_rewards/format/mean", "rollout/rewards",
        "best_eval_reward", "eval_loss", "eval_runtime", "eval_samples_per_second", "prompt_length/mean", "max_length",
        "completions/min_length", "completions/mean_terminated_length", "prompt_length/clip_ratio", "cliprange",
        "actor/pg_clipfrac_lower", "truncated_importance_sampling_ratio", "vf_clipfrac", "critic/grad_norm",
        "kl_lr", "num_tokens", "timing_s/reward", "reward_time", "critic/advantages/mean", "logits/mean", "epoch",
        "length_penalty",
        "kl_ent_ratio/mean", "batch/solve_partial", "objective/non_score_reward", "async/staleness_ratio",
        "reward_margin",
        "entropy_std", "grad_clip", "num_reward_zero", "max_grad_norm", "val/clipfrac_avg",
        "eval/aime/response_len/mean",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_quantity_is_none(name):
    assert recognise(name) is None


def test_the_three_divergences_are_three():
    names = ("kl_reference", "kl_old", "kl_sampler")
    assert [recognise(name).quantity for name in names] == ["kl", "kl_old", "kl_sampler"]


@given(st.floats(allow_nan=False))
def test_a_number_is_read_back_as_it_was_printed(value):
    for text in (repr(value), f"np.float64({value!r})", f"tensor({value!r}, device='cuda:0')", f" {value!r} "):
        assert number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12.5%", 0.125),
        ("1,234.5", 1234.5),
        ("No Log", None),
        ("-", None),
        (".3", 0.3),
        ("N/A", None),
        ("1.234,5", 1234.5),
        ("1 234,5", 1234.5),
        ("1'234.5", 1234.5),
        ("12 345", 12345.0),
        ("1.234", 1.234),
    ],
)
def test_cells_as_people_write_them(text, value):
    assert number(text) == (pytest.approx(value) if value is not None else None)


@pytest.mark.parametrize("text", ["abc", "1_000", "1,2,3", "12%%", "0x10", "1/2", "{}", "1 2"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        number(text)


@given(st.text(max_size=400))
def test_any_name_is_looked_at(name):
    match = recognise(name)
    assert match is None or match.quantity in QUANTITIES


def test_what_a_run_folder_called_kl_is_no_divergence_from_a_reference(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    rows = [{"step": step, "kl": 0.001 * 2**step, "entropy": 1.0} for step in range(12)]
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = read_log(tmp_path)
    assert log.used["kl_old"]
    assert "kl" not in log.used
    assert recognise("entrostat/kl").quantity == "kl_old"


@pytest.mark.parametrize(
    "name",
    [
        "collapse_first_turn_sample/reasoning_entropy_est",
        "collapse_trajectory_sample/conditional_entropy_seq_est",
        "collapse_first_turn_sample/marginal_log_prob_mean",
        "entrostat/turns/1/entropy",
        "entrostat/turns/2/tokens",
        "entrostat/turns_per_completion",
        "entrostat/information/most",
        "entrostat/information/chance",
    ],
)
def test_what_is_logged_of_turns_and_prompts_is_not_taken_for_the_whole(name):
    assert recognise(name) is None

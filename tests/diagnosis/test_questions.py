"""Numbers that cannot be what their name says are converted or left out, and it is said."""

from __future__ import annotations

import json
import math

import pytest

from entrostat.diagnosis import LogError, read_log


@pytest.fixture
def read(tmp_path):
    def read(columns=None, /, **series):
        n = len(next(iter(series.values())))
        rows = [{"step": i + 1, **{name: float(values[i]) for name, values in series.items()}} for i in range(n)]
        file = tmp_path / "log.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_log(file, columns)

    return read


def values(log, quantity):
    return [row[quantity] for _, row in log.rows if quantity in row]


def said(log, word):
    return [note for note in log.notes if word in note]


FALL = [0.8 * math.exp(-i / 10) for i in range(30)]


def test_a_negative_entropy_has_its_sign_turned(read):
    log = read(entropy_loss=[-value for value in FALL])
    assert values(log, "entropy") == pytest.approx(FALL)
    assert said(log, "negative throughout")


def test_an_entropy_of_both_signs_is_left_out(read):
    log = read(entropy=[(-1) ** i * 0.5 for i in range(30)], reward=[0.5] * 30)
    assert "entropy" not in log.used
    assert said(log, "negative at 15 of 30 rows")


def test_rounding_below_zero_is_no_negative_entropy(read):
    log = read(entropy=[*FALL[:-1], -1e-9])
    assert values(log, "entropy")[:-1] == pytest.approx(FALL[:-1])
    assert log.notes == ()


def test_an_entropy_above_ln_v_is_a_sum_and_divided_by_the_length(read):
    lengths = [200.0 + i for i in range(30)]
    log = read(
        **{"actor/entropy": [value * length for value, length in zip(FALL, lengths, strict=True)]},
        **{"actor/kl_loss": [0.01 * length for length in lengths], "response_length/mean": lengths},
    )
    assert values(log, "entropy") == pytest.approx(FALL)
    assert values(log, "kl") == pytest.approx([0.01] * 30)  # the same host sums its divergence, too
    assert said(log, "ln V")


def test_an_entropy_above_ln_v_without_a_length_is_left_out(read):
    log = read(entropy=[180.0] * 30, reward=[0.5] * 30)
    assert "entropy" not in log.used
    assert said(log, "no length")


def test_a_mean_per_token_wins_over_a_sum(read):
    log = read(**{"objective/entropy": [180.0] * 30, "policy/entropy_avg": FALL})
    assert log.used["entropy"] == ("policy/entropy_avg",)
    assert log.notes == ()


@pytest.mark.parametrize("length", [None, 250.0])
def test_a_divergence_summed_over_the_completion_is_per_token_or_not_read(read, length):
    series = {"objective/kl": [0.1 * i for i in range(30)], "reward": [0.5] * 30}
    log = read(**series, **({"mean_length": [length] * 30} if length else {}))
    assert said(log, "sum over the completion")
    assert values(log, "kl") == (pytest.approx([0.1 * i / length for i in range(30)]) if length else [])


@pytest.mark.parametrize("name", ["truncated", "frac_reward_zero_std", "completions/clipped_ratio"])
def test_a_share_in_per_cent_is_a_share(read, name):
    log = read(**{name: [3.0 * i for i in range(30)]})
    (quantity,) = log.used
    assert values(log, quantity) == pytest.approx([0.03 * i for i in range(30)])
    assert said(log, "per cent")


@pytest.mark.parametrize("share", [[-0.5] * 30, [1.0 + 10 * i for i in range(30)]])
def test_what_can_be_no_share_is_left_out(read, share):
    log = read(truncated=share, reward=[0.5] * 30)
    assert "truncated" not in log.used
    assert said(log, "which no share does")


def test_a_sum_of_clipped_shares_is_not_taken_for_per_cent(read):
    log = read(**{"train/pg_clipfrac": [0.1 * i for i in range(30)], "reward": [0.5] * 30})
    assert "clip" not in log.used


def test_a_centred_reward_is_left_out_for_the_next_name(read):
    centred = [1e-7 * (-1) ** i for i in range(30)]
    rise = [0.1 + 0.01 * i for i in range(30)]
    log = read(reward=centred, reward_std=[0.4] * 30, raw_reward_mean=rise)
    assert log.used["reward"] == ("raw_reward_mean",)
    assert said(log, "centred")


def test_a_reward_that_is_zero_because_nothing_was_earned_is_a_reward(read):
    log = read(reward=[0.0] * 30, reward_std=[0.0] * 30)
    assert values(log, "reward") == [0.0] * 30
    assert log.notes == ()


def test_a_gradient_that_is_zero_now_and_then_is_said(read):
    log = read(grad_norm=[0.3 * (i % 2) for i in range(30)])
    assert said(log, "exactly 0 at 15 of 30 rows")
    assert not said(read(grad_norm=[0.3] * 15 + [0.0] * 15), "exactly 0")  # that is a gradient that has gone


def test_a_thinned_log_is_said(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps({"step": 10 * i, "entropy": 0.5}) + "\n" for i in range(1, 20)))
    assert said(read_log(file), "a row every 10 steps")


def test_a_column_of_ones_own_is_read_and_named(read):
    log = read({"entropy": ["my/column"], "step": ["clock"]}, **{"my/column": FALL, "clock": range(50, 80), "x": FALL})
    assert values(log, "entropy") == pytest.approx(FALL)
    assert log.rows[0][0] == 50
    assert log.by["entropy"] == "map"
    assert log.unread == ("x",)


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"entropie": ["entropy"]}, "choose from"), ({"entropy": ["entropi"]}, "nearest: entropy")],
)
def test_a_map_that_fits_nothing_is_refused(read, columns, message):
    with pytest.raises(LogError, match=message):
        read(columns, entropy=FALL)


def test_how_a_column_was_found_is_said(read):
    log = read(entropy=FALL, policy_mean_score=FALL, num_tokens=FALL)
    assert log.by == {"entropy": "name", "reward": "words"}
    assert log.unread == ("num_tokens",)


@pytest.mark.parametrize("mark", ["mean_token_accuracy", "rewards/chosen"])
def test_the_entropy_of_a_supervised_run_is_left_out_and_it_is_said(read, mark):
    log = read(entropy=FALL, loss=FALL, **{mark: [0.5] * 30})
    assert "entropy" not in log.used
    assert said(log, "supervised")
    rewarded = read(entropy=FALL, loss=FALL, reward=FALL, **{mark: [0.5] * 30})
    assert values(rewarded, "entropy") == pytest.approx(FALL)

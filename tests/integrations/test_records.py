"""Step records, flat as hosts log them and back."""

from entrostat.integrations.records import nested, scalars, step_line
from entrostat.runs import Run


def test_a_record_survives_its_flattening():
    record = {"entropy": 1.5, "phase": "increase", "regions": {"E1": {"share": 0.25}}, "bounds": None}
    flat = scalars(record)
    assert flat["entrostat/regions/E1/share"] == 0.25
    assert nested({**flat, "loss": 2.0}) == {
        "loss": 2.0,
        "entropy": 1.5,
        "phase": "increase",
        "regions": {"E1": {"share": 0.25}},
    }


def test_a_step_line_holds_finite_numbers_under_the_folder_s_names():
    logged = {"learning_rate": 0.5, "actor/entrostat/regions/E1": 0.25, "loss": float("nan"), "note": "text", "step": 9}
    assert step_line(3, logged) == {"step": 3, "lr": 0.5, "regions": {"E1": 0.25}}


def test_the_three_divergences_of_a_step_line_are_not_mixed_up():
    trl = step_line(1, {"kl": 0.5, "entrostat/kl_old": 0.25})
    assert (trl["kl_reference"], trl["kl_old"]) == (0.5, 0.25)
    verl = {"actor/kl_loss": 0.5, "actor/ppo_kl": 0.125, "rollout_corr/kl": 0.75}
    line = step_line(1, verl)
    assert [line[f"kl_{of}"] for of in ("reference", "old", "sampler")] == [0.5, 0.125, 0.75]
    assert step_line(1, {**verl, "actor/entrostat/kl_old": 0.25})["kl_old"] == 0.25  # ours is the lower variance one
    assert "kl" not in trl.keys() | line.keys()


def test_the_fraction_of_its_data_that_trl_logs_as_epoch_can_be_written_down(tmp_path):
    run = Run.create(tmp_path / "run", {"name": "trl"}, 0, {}, {})
    run.log_step(step_line(1, {"loss": 0.5, "epoch": 0.0625}))
    assert run.steps() == [{"step": 1, "loss": 0.5, "epoch": 0.0625}]


def test_a_count_that_a_host_logs_as_a_float_can_be_written_down(tmp_path):
    run = Run.create(tmp_path / "run", {"name": "trl"}, 0, {}, {})
    run.log_step(step_line(1, {"loss": 0.5, **scalars({"staleness": 2})}))
    assert run.steps() == [{"step": 1, "loss": 0.5, "staleness": 2}]
    assert isinstance(run.steps()[0]["staleness"], int)

"""What the studies measured of a remedy is at hand, and says no more than they do."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from entrostat.diagnosis.evidence import all_evidence, evidence_for
from entrostat.recipe import parse_recipe

ROOT = Path(__file__).parents[2]


def test_every_row_is_a_contrast_of_its_study():
    for one in all_evidence():
        contrasts = [
            {key: float(row[key]) for key in ("n", "difference", "low", "high", "p_holm")}
            for table in (ROOT / "studies" / one.study).glob("*.csv")
            for row in csv.DictReader(table.open())
            if "p_holm" in row
        ]
        own = {key: getattr(one, key) for key in ("n", "difference", "low", "high", "p_holm")}
        assert own in contrasts, one
        assert one.low <= one.difference <= one.high


def test_every_setting_is_one_that_a_recipe_has():
    for setting in {one.setting.split(", ")[0] for one in all_evidence()}:
        key, _, value = setting.partition("=")
        rest = {
            "control.bonus=adaptive": "{name: adaptive, target: 0.2}",
            "control.bonus=constant": "{name: constant, value: 0.01}",
            "control.strategy=target-entropy": "{name: target-entropy, curve: {points: [[0, 0.3], [1, 0.1]]}}",
            "control.reweighting=entropic-weights": "{name: entropic-weights, target: 0.3}",
            "control.reweighting=opefo": "{name: opefo, off_policy: true}",
        }
        override = f"update.kl.kind={value}" if key == "update.kl" else f"{key}={rest.get(setting, value)}"
        whole = ["update.aggregate=sequence-mean"] if value in ("gspo", "sapo") else []
        whole += ["update.advantage=reinforce"] if key == "update.baseline" else []
        whole += ["update.old_logp=recomputed"] if key == "control.correction" else []
        assert parse_recipe({"name": "x"}, [*whole, override])


def test_a_verdict_needs_a_corrected_p_and_the_wanted_side():
    one = evidence_for("update.epochs=1", "gap")[0]
    assert (one.verdict, one.n) == ("helps", 5)
    assert replace(one, wanted="higher").verdict == "hurts"
    assert replace(one, p_holm=0.05).verdict == "open"
    assert f"n = 5 (studies/{one.study}): helps" in str(one)


@pytest.mark.parametrize("setting", ["update.epochs=7", "no such thing", ""])
def test_what_was_not_studied_has_no_evidence(setting: str):
    assert evidence_for(setting) == ()

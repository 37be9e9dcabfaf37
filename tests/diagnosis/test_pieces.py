"""Logs that are stored in pieces: what a cell printed, several runs in one document, names within names."""

from __future__ import annotations

import json

import numpy as np
import yaml
from hypothesis import given
from hypothesis import strategies as st

from entrostat.diagnosis import read_log
from entrostat.diagnosis.reading.levels import with_full_names


def stream(text):
    return {"output_type": "stream", "name": "stdout", "text": [text]}


def test_what_a_cell_printed_in_pieces_is_one_log_and_is_read_before_a_longer_table_of_losses(tmp_path):
    steps = range(1, 31)
    printed = [f"Step {step} | reward: {step / 100}\n" for step in steps]
    losses = "".join(f"<tr><td>{step}</td><td>0.1</td></tr>" for step in range(1, 60))
    outputs = [stream(text) for text in printed]
    table = {"text/html": [f"<table><tr><th>Step</th><th>Training Loss</th></tr>{losses}</table>"]}
    cells = [{"outputs": outputs}, {"outputs": [{"output_type": "display_data", "data": table}]}]
    cells = [{"cell_type": "code", "source": [], **cell} for cell in cells]
    path = tmp_path / "train.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    assert read_log(path).rows == [(step, {"reward": step / 100}) for step in steps]


def test_other_runs_in_a_document_are_named(tmp_path):
    runs = {
        name: {"steps": list(range(rows)), "reward": [0.5] * rows, "kl": [0.1] * rows}
        for name, rows in {"first": 5, "second": 9, "third": 7}.items()
    }
    path = tmp_path / "curves.json"
    path.write_text(json.dumps(runs))
    log = read_log(path)
    assert len(log.rows) == 9
    assert any("second" in note and "first, third" in note for note in log.notes)


numbers = st.floats(allow_nan=False, allow_infinity=False)
trees = st.recursive(
    numbers, lambda inner: st.dictionaries(st.from_regex("m_[a-z]{1,6}", fullmatch=True), inner, min_size=1, max_size=4)
)


def flat(tree, path=()):
    if isinstance(tree, dict):
        return {name: value for key, own in tree.items() for name, value in flat(own, (*path, key)).items()}
    return {"/".join(path): tree}


def read_back(text):
    lines = [line.partition(": ") for line in with_full_names(text.split("\n")) if not line.rstrip().endswith(":")]
    return {name.strip(): float(cell) for name, _, cell in lines if cell}


@given(st.dictionaries(st.from_regex("m_[a-z]{1,6}", fullmatch=True), trees, max_size=4))
def test_yaml_with_levels_is_read_with_full_names(tree):
    plain = yaml.dump(tree, indent=2)
    assert {k: v for k, v in read_back(plain).items() if k} == {k: float(v) for k, v in flat(tree).items()}


@given(st.lists(numbers, min_size=1, max_size=4))
def test_numbers_of_numpy_in_yaml_are_read_to_the_bit(values):
    tree = {"actor": {f"name_{place}": np.float64(value) for place, value in enumerate(values)}, "reward": 0.5}
    assert read_back(yaml.dump(tree, indent=2)) == {
        **{f"actor/name_{place}": value for place, value in enumerate(values)},
        "reward": 0.5,
    }

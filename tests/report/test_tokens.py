"""Per-token records: polarity is advantage times sensitivity, and what is no record is left alone."""

import pytest

from entrostat.report.samples import token_view

RECORD = {"text": ["a", " b"], "logp": [-0.5, -2.0], "entropy": [0.7, 0.1], "sensitivity": [0.2, -0.4]}


def test_polarity_is_advantage_times_sensitivity_and_surprisal_the_negative_log_probability():
    view = token_view({"advantage": -2.0, "tokens": RECORD})
    assert view.text == ["a", " b"]
    assert view.polarity == [-0.4, 0.8]
    assert view.sensitivity == [0.2, -0.4]
    assert view.surprisal == [0.5, 2.0]
    assert view.entropy == [0.7, 0.1]


@pytest.mark.parametrize("advantage", [None, "1", float("nan"), [1.0]])
def test_without_an_advantage_there_is_no_polarity(advantage: object):
    assert token_view({"advantage": advantage, "tokens": RECORD}).polarity is None


@pytest.mark.parametrize(
    "tokens",
    [
        None,
        [],
        {},
        {**RECORD, "text": []},
        {**RECORD, "text": "ab"},
        {**RECORD, "text": ["a", 3]},
        {**RECORD, "logp": [-0.5]},
        {**RECORD, "entropy": [0.7, None]},
        {**RECORD, "sensitivity": [0.2, float("inf")]},
        {**RECORD, "sensitivity": "ab"},
    ],
)
def test_what_is_no_record_is_left_alone(tokens: object):
    assert token_view({"advantage": 1.0, "tokens": tokens}) is None

"""Calibration: it finds the factor, follows its drift, and its error is honest."""

import json
import math
import random

import numpy as np
import pytest

from entrostat.control import FlowCalibration
from entrostat.control.calibration import Prediction


def pairs(count: int, factor: float = 0.03, offset: float = -0.002, noise: float = 0.01, seed: int = 0):
    generator = random.Random(seed)
    for _ in range(count):
        flow = generator.gauss(-0.5, 1.0)
        yield flow, offset + factor * flow + noise * generator.gauss(0, 1)


def fed(stream, memory: float = 50.0) -> FlowCalibration:
    calibration = FlowCalibration(memory)
    for flow, change in stream:
        calibration.observe(flow, change)
    return calibration


def test_without_noise_three_pairs_are_enough_and_the_error_vanishes() -> None:
    calibration = fed(pairs(3, noise=0.0))
    prediction = calibration.predict(2.0)
    assert prediction.change == pytest.approx(-0.002 + 0.06)
    assert prediction.error == pytest.approx(0, abs=1e-8)
    assert calibration.correlation == pytest.approx(1)


def test_the_error_covers_new_measurements_at_its_nominal_rate() -> None:
    covered = []
    for seed in range(200):
        stream = list(pairs(41, seed=seed))
        prediction = fed(stream[:40]).predict(stream[40][0])
        covered.append(abs(stream[40][1] - prediction.change) < 2 * prediction.error)
    assert 0.90 < sum(covered) / len(covered) < 0.99


def test_the_error_grows_away_from_the_flows_that_were_seen() -> None:
    calibration = fed(pairs(40))
    assert calibration.predict(30.0).error > 3 * calibration.predict(-0.5).error


def test_a_factor_that_drifts_is_followed_at_the_pace_of_the_memory() -> None:
    calibration = fed([*pairs(300, factor=0.03), *pairs(100, factor=0.01, seed=1)], memory=20)
    slope = calibration.predict(1.0).change - calibration.predict(0.0).change
    assert slope == pytest.approx(0.01, abs=0.003)


def test_the_correlation_is_that_of_the_pairs() -> None:
    stream = list(pairs(500))
    flows, changes = zip(*stream, strict=True)
    mean_x, mean_y = sum(flows) / 500, sum(changes) / 500
    cov = sum((x - mean_x) * (y - mean_y) for x, y in stream)
    expected = cov / math.sqrt(sum((x - mean_x) ** 2 for x in flows) * sum((y - mean_y) ** 2 for y in changes))
    assert fed(stream, memory=1e9).correlation == pytest.approx(expected, rel=1e-4)


def test_too_little_to_fit_predicts_nothing() -> None:
    assert FlowCalibration().predict(1.0) is None
    assert FlowCalibration().correlation is None
    assert fed(pairs(2)).predict(1.0) is None
    assert fed([(0.3, 0.1), (0.3, 0.2), (0.3, 0.3), (0.3, 0.2)]).predict(1.0) is None


def test_a_resumed_calibration_predicts_the_same() -> None:
    first, second = fed(pairs(20)), FlowCalibration()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert first.predict(0.7) == second.predict(0.7)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"FlowCalibration\.memory is 3"):
        FlowCalibration(memory=3)
    with pytest.raises(ValueError, match="must be finite"):
        FlowCalibration().observe(math.nan, 0.0)


def test_of_two_features_it_finds_both_factors_and_a_useless_one_costs_little() -> None:
    generator = random.Random(0)
    calibration = FlowCalibration(memory=1e9, features=2)
    for _ in range(400):
        x = [generator.gauss(0, 1), generator.gauss(0, 1)]
        calibration.observe(x, 0.5 + 2 * x[0] - 3 * x[1] + 0.1 * generator.gauss(0, 1))
    at = calibration.predict([1.0, 1.0])
    assert at.change == pytest.approx(-0.5, abs=0.05)
    assert at.error == pytest.approx(0.1, rel=0.1)
    assert calibration.correlation == pytest.approx(1, abs=0.01)
    single, double = FlowCalibration(), FlowCalibration(features=2)
    for flow, change in pairs(60):
        single.observe(flow, change)
        double.observe([flow, generator.gauss(0, 1)], change)
    assert double.predict([1.0, 0.0]).change == pytest.approx(single.predict(1.0).change, abs=0.01)


def test_collinear_features_predict_nothing() -> None:
    calibration = FlowCalibration(features=2)
    for flow, change in pairs(20):
        calibration.observe([flow, 2 * flow], change)
    assert calibration.predict([1.0, 2.0]) is None


def test_features_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match=r"features: got 1, the calibration has 2"):
        FlowCalibration(features=2).observe(0.3, 0.1)
    with pytest.raises(ValueError, match=r"FlowCalibration\.features is 0"):
        FlowCalibration(features=0)


def test_the_interval_covers_from_the_first_predictions_on() -> None:
    covered, narrow = [], []
    for seed in range(400):
        *known, (flow, change) = pairs(7, seed=seed)
        prediction = fed(known, memory=1e9).predict(flow)
        low, high = prediction.interval()
        covered.append(low <= change <= high)
        narrow.append(abs(change - prediction.change) <= 1.96 * prediction.error)
    assert sum(covered) / len(covered) == pytest.approx(0.95, abs=0.025)
    assert sum(narrow) / len(narrow) < 0.91


def test_a_confidence_outside_the_unit_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence is 95"):
        fed(pairs(10)).predict(0.0).interval(95)


@pytest.mark.parametrize("memory", [1e12, 12.0, 5.0])
@pytest.mark.parametrize("count", [4, 5, 9, 40])
def test_prediction_error_and_correlation_are_those_of_weighted_least_squares(memory: float, count: int) -> None:
    """Against numpy's least squares of sqrt(w)-weighted rows, w = (1 - 1 / memory) ^ age."""
    stream = list(pairs(count, seed=count))
    weights = (1 - 1 / memory) ** np.arange(count)[::-1]
    x, y = np.array(stream).T
    design = np.stack([np.ones(count), x], axis=1)
    solution, *_ = np.linalg.lstsq(np.sqrt(weights)[:, None] * design, np.sqrt(weights) * y, rcond=None)
    n = weights.sum()
    residual = (weights * (y - design @ solution) ** 2).sum()
    mean, spread = (weights @ x) / n, weights @ (x - (weights @ x) / n) ** 2
    calibration = fed(stream, memory)
    prediction = calibration.predict(1.7)
    if n <= 2:
        assert prediction is None
        return
    assert prediction.degrees == pytest.approx(n - 2)
    assert prediction.change == pytest.approx(solution @ [1, 1.7])
    variance = residual / (n - 2) * (1 + 1 / n + (1.7 - mean) ** 2 / spread)
    assert prediction.error == pytest.approx(math.sqrt(variance))
    total = weights @ (y - weights @ y / n) ** 2
    assert calibration.correlation == pytest.approx(math.sqrt(1 - residual / total))
    falling = fed([(flow, -change) for flow, change in stream], memory)
    assert falling.correlation == pytest.approx(-calibration.correlation)


def test_the_interval_is_students() -> None:
    prediction = Prediction(change=0.5, error=0.1, degrees=3.0)
    assert prediction.interval() == pytest.approx((0.5 - 0.1 * 3.182446, 0.5 + 0.1 * 3.182446))
    assert prediction.interval(0.5) == pytest.approx((0.5 - 0.1 * 0.764892, 0.5 + 0.1 * 0.764892))
    for confidence in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="confidence is"):
            prediction.interval(confidence)


def test_a_memory_is_refused_up_to_two_steps_more_than_there_are_features() -> None:
    for features in (1, 2, 3):
        assert FlowCalibration(features + 2.01, features).features == features
        with pytest.raises(
            ValueError, match=rf"memory is {features + 2}.*{features + 1} numbers are fitted, .*than {features + 2} st"
        ):
            FlowCalibration(features + 2, features)

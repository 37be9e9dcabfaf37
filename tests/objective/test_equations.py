"""Methods without public code against loops over their papers' equations, in float64."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from parity.equations import DRAWS, Draw, Equation, cases, largest, mean_of, standard

CASES = {f"{case.method}, {case.setting}": case for case in cases()}
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each
def test_loss_and_gradient_are_the_equations_to_rounding(case: Equation) -> None:
    loss, gradient = largest(case)
    assert loss < 1e-14
    assert gradient < 1e-15


@each
def test_the_draws_tell_the_equation_from_the_standard_clip(case: Equation) -> None:
    _, gradient = largest(replace(case, naive=mean_of(standard)))
    assert gradient > 1e-3


@pytest.mark.parametrize("seed", DRAWS)
def test_completions_are_ragged_and_their_masks_have_holes(seed: int) -> None:
    mask = Draw(seed).mask
    assert len({sum(line) for line in mask}) > 1
    assert any(not line[t] and any(line[t:]) for line in mask for t in range(len(line)))

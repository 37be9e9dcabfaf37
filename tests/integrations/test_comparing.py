"""Parts that weight a token by the other tokens of its batch are found by what they do, and named where hosts cut."""

import warnings

import pytest

from entrostat.control import (
    ClipCov,
    Corrected,
    EntropyController,
    EntropyOutliers,
    FixedWeights,
    HighEntropyTokens,
    IncreaseThenDecrease,
    Opefo,
    Part,
    PolarityAware,
    Stare,
    Steer,
)
from entrostat.integrations.comparing import compares, warn_of_cut_batches
from entrostat.integrations.losses.steering import Steering
from entrostat.objective import Tis


class Halved(Part):
    """A part of a user's own that compares nothing."""

    def weights(self, batch):
        return (batch.advantages > 0) * 0.5 + 0.5


class AboveTheMean(Part):
    """A part of a user's own that does."""

    def weights(self, batch):
        return (batch.stats.entropy > batch.stats.entropy[batch.mask].mean()).float()


COMPARING = [HighEntropyTokens(), ClipCov(), EntropyOutliers(), Opefo(), PolarityAware(graded=True), Stare(), Steer()]


@pytest.mark.parametrize("part", [*COMPARING, AboveTheMean()], ids=repr)
def test_a_part_whose_weights_change_when_the_batch_is_cut_is_named(part):
    before = part.state_dict()
    assert compares(part)
    assert part.state_dict() == before
    with pytest.warns(UserWarning, match=rf"{type(part).__name__}: .*the host hands over one micro-batch"):
        warn_of_cut_batches("the host", [FixedWeights(), part])


@pytest.mark.parametrize(
    "part", [FixedWeights(1.5, 0.5), PolarityAware(), Corrected(Tis()), IncreaseThenDecrease(), Halved()], ids=repr
)
def test_others_are_not(part):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_cut_batches("the host", [part])
    assert not compares(part)


def test_a_steered_host_warns_when_its_control_is_read():
    with pytest.warns(UserWarning, match="HighEntropyTokens"):
        Steering(EntropyController(HighEntropyTokens(), total_steps=10), "B")

"""What the detector of clipping compares, at its thresholds."""

import numpy as np
import pytest
from tests.diagnosis.made import jump, level, look


@pytest.mark.parametrize(("first", "rose"), [(0.099, "warning"), (0.101, None)])
def test_clipping_was_high_from_the_start_above_half_of_its_limit(first, rose):
    columns = {"clip_high": jump(first, 0.9), "reward": jump(0.5, 0.9)}
    finding = look("clip-saturation", columns)
    assert (finding and finding.severity) == rose


@pytest.mark.parametrize(("late", "rose"), [(4, "warning"), (3, None)])
def test_clipping_at_the_start_is_the_median_of_the_first_eight_rows(late, rose):
    early = np.concatenate([level(late, 0), level(8 - late, 0.19), level(12, 0)])
    columns = {"clip_high": [*early, *level(10, 0.9)], "reward": jump(0.5, 0.9, 20, 10)}
    finding = look("clip-saturation", columns)
    assert (finding and finding.severity) == rose


def test_the_side_that_clips_more_is_named_and_both_are_given():
    finding = look("clip-saturation", {"clip_low": level(8, 0.3), "clip_high": level(8, 0.4)})
    assert "40% of the tokens are clipped at the upper side" in finding.summary
    assert finding.evidence == {"clip_low": 0.3, "clip_high": 0.4}
    finding = look("clip-saturation", {"clip_low": level(8, 0.3), "clip_high": level(7, 0.4)})
    assert finding.evidence == {"clip_low": 0.3}
    assert look("clip-saturation", {"clip": level(8, 0.9), "clip_high": level(8, 0.1)}) is None
    assert look("clip-saturation", {"clip": level(8, 0.9), "clip_low": level(8, 0.1)}) is None

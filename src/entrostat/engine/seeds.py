"""Random numbers without state: every draw's seed follows from the run's seed and the place where it is used.

A run that resumes therefore needs no generator from its checkpoint, and no draw depends on how many went before it.
"""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, *place: str | int) -> int:
    """A seed in [0, 2^63) for one use, such as `derived_seed(run_seed, "rollout", batch)`."""
    digest = hashlib.sha256(repr((seed, *place)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

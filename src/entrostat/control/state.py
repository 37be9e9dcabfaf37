"""What a controller's parts share: they hear the entropy, and a resumed run continues from their state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

State = dict[str, Any]


class Resumable:
    """An object with a JSON-able state; one that remembers nothing keeps these two methods."""

    def state_dict(self) -> State:
        """What the object remembers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`. Raises ValueError when the state belongs to another class."""
        if state:
            raise ValueError(
                f"{type(self).__name__} keeps no state, the checkpoint has {sorted(state)}; "
                "resume with the recipe that the run began with"
            )


class Listener(Resumable):
    """A part that may listen to the entropy of the steps."""

    def observe(self, entropy: float, progress: float) -> None:
        """Hear the (smoothed) entropy of a step in nats, once a step, and the share of the run that is done."""

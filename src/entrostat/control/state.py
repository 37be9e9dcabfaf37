"""What a controller's parts share: a state of plain numbers that a resumed run continues from."""

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

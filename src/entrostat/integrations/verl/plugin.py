"""The plugin that verl loads from the entry-point group `verl.plugins`: registers the policy losses, and prints it.

With FLEXEC_STRATEGY=od it also gives verl's actors the worker that od needs.
verl logs a plugin's exceptions only at DEBUG level, so a failure is printed here too.
VERL_USE_EXTERNAL_PLUGINS=none keeps verl from loading it.
"""

from __future__ import annotations

import os
import sys
import traceback

from entrostat.integrations.verl import ExclusiveExtrasError, refuse_trl_beside_verl
from entrostat.integrations.verl.flexec import NAME, register
from entrostat.integrations.verl.loss import register_losses

try:
    LOSSES = (*register_losses(), NAME)
    register()
    if os.environ.get("FLEXEC_STRATEGY") == "od":
        from entrostat.integrations.verl.flexec_worker import install

        install()
except Exception:
    print("entrostat: the policy losses could NOT be registered with verl:", file=sys.stderr)
    traceback.print_exc()
    raise
try:
    refuse_trl_beside_verl()
except ExclusiveExtrasError as error:  # raised again where a loss of ours is first called
    print(f"entrostat: {error}", file=sys.stderr, flush=True)
print(f"entrostat: tier A, registered with verl the policy losses {', '.join(LOSSES)}", file=sys.stderr, flush=True)

"""Run by torchrun with two processes: both must observe the entropy of all tokens of both, over two micro-batches."""

import os
import sys

from trl_world import trainer

from entrostat.control import Constant, EntropyController
from entrostat.integrations.trl.trainer import EntropyGRPOTrainer


class Remembering(EntropyController):
    """Remembers what it observed."""

    def observe(self, step, entropy_sum, token_count, **measured):
        self.observed = [*getattr(self, "observed", []), (entropy_sum, token_count)]
        super().observe(step, entropy_sum, token_count, **measured)


class Counting(EntropyGRPOTrainer):
    """Remembers what this rank had before the sum over ranks."""

    def _finish_step(self):
        self.local = [*getattr(self, "local", []), (self._sums.entropy, self._sums.tokens)]
        super()._finish_step()


controller = Remembering(Constant(), 2)
run = trainer(sys.argv[1], Counting, None, {"controller": controller}, max_steps=2)
run.train()
everyone = run.accelerator.gather_for_metrics([run.local], use_gather_object=True)
assert len(everyone) == 2
assert everyone[0] != everyone[1]
for step, observed in enumerate(controller.observed):
    entropy, tokens = (sum(rank[step][part] for rank in everyone) for part in (0, 1))
    assert abs(observed[0] - entropy) < 1e-6 * entropy, (observed, entropy)
    assert observed[1] == tokens
print("agrees", flush=True)
run.accelerator.wait_for_everyone()
run.accelerator.end_training()
os._exit(0)  # now and then gloo's threads abort an interpreter that shuts down, when all that is tested has been

"""Control of other trainers' losses: thresholds and weights of every token, and the coefficient of an entropy bonus.

The host's own loss runs, with its normalisers, old log-probabilities, masks, corrections and metrics; only what it
reads as its clip thresholds, its advantages and its entropy coefficient is ours. ENTROSTAT_CONTROL names a YAML file
that every worker process reads; its keys are those of a recipe's section `control`, and the length of the run:

    strategy: {name: id, split: 0.5}
    reweighting: {name: polarity-aware}
    bonus: {name: adaptive, target: 0.2}
    total_steps: 400                   # the host's own training steps
    extended: true                     # a resumed run had another number of steps; false by default

What works depends on what the host hands over, its tier: A ln p of the tokens; B also their entropy; C their logits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor

from entrostat.control import Constant, EntropyController, Part, TokenBatch
from entrostat.integrations.comparing import OWN_TERM, warn_of_cut_batches
from entrostat.objective import ClipBand, ClipRule
from entrostat.recipe import RecipeError, build_controller, parse_recipe
from entrostat.recipe.loading import read_mapping
from entrostat.tokens import TokenStats, VocabShard

CONTROL = "ENTROSTAT_CONTROL"
PARTS = ("strategy", "reweighting", "bonus", "parts", "ema")
KEYS = (*PARTS, "total_steps", "extended")

Threshold = float | Tensor
Tier = Literal["A", "B", "C"]
HANDED = {"A": ("logp",), "B": ("logp", "entropy"), "C": ("logp", "entropy", "collision", "correction")}


class HandedOver:
    """`TokenStats` of which a host hands over only some. Raises ValueError when a part reads one of the others."""

    def __init__(self, **known: Tensor) -> None:
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Tensor:
        if name not in HANDED["C"]:
            raise AttributeError(name)
        raise ValueError(f"needs the {name} of the tokens, and this host hands over only {', '.join(self.__dict__)}")


class Steering:
    """A controller in a host's process.

    begin_step(step) at the start of every training step of the host, on every rank; then `thresholds` and `weights` for
    every micro-batch, and `record` of its entropy.
    coefficient: the host's setting that a bonus becomes, None if it has none. measured: the mean entropy of every step
    is known, by default from tier B on. host_band: the thresholds stay those of the host, because no strategy was
    chosen. extended: a state of a run with another number of steps is accepted.
    Raises ValueError for a part that needs more than the tier hands over, and for a band that clips differently from
    PPO's pessimistic minimum, which is what the hosts compute.
    """

    def __init__(
        self,
        controller: EntropyController,
        tier: Tier = "A",
        coefficient: str | None = None,
        *,
        measured: bool | None = None,
        host_band: bool = False,
        extended: bool = False,
    ) -> None:
        self.controller, self.tier, self.coefficient = controller, tier, coefficient
        self.host_band, self.extended = host_band, extended
        self.measured = tier != "A" if measured is None else measured
        refuse_bands((controller.rule(), *controller.strategy.bands()))
        for part in controller.parts:
            self._refuse(part)
        warn_of_cut_batches("this host", self.controller.parts)
        self.step: int | None = None
        self._sums = torch.zeros(2, dtype=torch.float64)

    def _refuse(self, part: Part) -> None:
        name = type(part).__name__
        if follows(part) and not self.measured:
            raise ValueError(
                f"{name} follows the entropy, which this host does not hand over (tier {self.tier}); choose a "
                "schedule, such as constant, id, did or piecewise, or a part that observes nothing"
            )
        if part.adds:
            raise ValueError(OWN_TERM.format(name))
        if part.pays and self.coefficient is None:
            raise ValueError(f"{name} is an entropy bonus, and this host's loss has none; remove it")
        if part.weighs:
            try:
                part.weights(example(self.tier, self.controller.rule()))
            except ValueError as error:
                raise ValueError(f"{name}: {error} (tier {self.tier}); choose another reweighting") from error

    @property
    def weighs(self) -> bool:
        """Whether a part weights tokens."""
        return any(part.weighs for part in self.controller.parts)

    @property
    def pays(self) -> bool:
        """Whether a part may give an entropy bonus."""
        return any(part.pays for part in self.controller.parts)

    @property
    def follows(self) -> bool:
        """Whether a part follows the entropy; then there is a state to be kept."""
        return any(follows(part) for part in self.controller.parts)

    @property
    def description(self) -> str:
        """The tier, the parts and the number of steps, for the host's log."""
        parts = ", ".join(type(part).__name__ for part in self.controller.parts)
        return f"entrostat: tier {self.tier}, {parts}, {self.controller.total_steps} steps"

    def begin_step(self, step: int) -> None:
        """Start the host's training step `step`, from 0: the schedules move, and the parts observe the mean entropy of
        the previous step, over all ranks of the process group.

        A second call for the same step has no effect.
        """
        if step == self.step:
            return
        entropy, tokens = self._over_ranks().tolist() if self.follows and self.step is not None else (0.0, 0.0)
        self._sums.zero_()
        if tokens:
            self.controller.observe(step, entropy, tokens)
        else:
            self.controller.advance(step)
        self.step = step

    @torch.no_grad()
    def thresholds(self, old_logp: Tensor, own: tuple[float, float]) -> tuple[Threshold, Threshold]:
        """(1 - low, high - 1) of the band in force at each token's ln pi_old, of its shape (...).

        Two numbers for a band that is the same for every token; own: the host's two, which stay without a strategy.
        A log-probability that is not finite (padding) counts as 0.
        """
        if self.host_band:
            cast(Constant, self.controller.strategy).band = ClipRule.constant(*own)
        band = self.controller.rule()
        if isinstance(band, ClipRule) and band.lower.slope == band.upper.slope == 0:
            return band.lower.intercept, band.upper.intercept
        low, high = band.bounds(old_logp.float().nan_to_num(0.0, 0.0, 0.0))
        return 1 - low, high - 1

    @torch.no_grad()
    def weights(
        self,
        stats: TokenStats | HandedOver,
        advantages: Tensor,
        mask: Tensor,
        old_logp: Tensor,
        sampler_logp: Tensor | None = None,
        token_weights: Tensor | None = None,
    ) -> Tensor:
        """The factors of the advantages, (...), of their dtype, 1 outside the mask.

        Arguments as in `EntropyController.weights`.
        """
        if not mask.any():
            return torch.ones_like(stats.logp, dtype=advantages.dtype)
        factors = self.controller.weights(
            cast(TokenStats, stats),
            advantages,
            mask,
            old_logp=old_logp,
            sampler_logp=sampler_logp,
            token_weights=token_weights,
        )
        return factors.to(advantages.dtype)

    def bonus(self) -> float:
        """The coefficient of the mean entropy in the loss."""
        return self.controller.entropy_coef()

    @torch.no_grad()
    def record(self, entropy: Tensor, mask: Tensor) -> None:
        """Add a micro-batch: H in nats and the tokens that count, both (...)."""
        counted = mask.bool()
        self.add(float(entropy[counted].double().sum()), float(counted.sum()))

    def add(self, entropy_sum: float, tokens: float) -> None:
        """Add the sum of H over tokens, and their number."""
        self._sums += torch.tensor([entropy_sum, tokens], dtype=torch.float64)

    def mean(self) -> float:
        """The mean of what was recorded in this step by this rank."""
        return float(self._sums[0] / self._sums[1])

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, JSON-able, at the start of the current step."""
        return {"step": self.step, "controller": self.controller.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`. Raises ValueError if it is of other parts, or of another number of steps unless
        `extended`.
        """
        self.controller.load_state_dict(state["controller"], extended=self.extended)
        self.step = state["step"]
        self._sums.zero_()

    def _over_ranks(self) -> Tensor:
        if not (dist.is_available() and dist.is_initialized()):
            return self._sums
        nccl = dist.get_backend() == "nccl"
        sums = self._sums.to(torch.device("cuda", torch.cuda.current_device()) if nccl else "cpu", copy=True)
        dist.all_reduce(sums)
        return sums.cpu()


def follows(part: Part) -> bool:
    """Whether a part observes the measurements of each step."""
    return type(part).observe is not Part.observe


def example(tier: Tier, rule: ClipBand) -> TokenBatch:
    """A row of two tokens with the statistics of a tier, on which a weighting shows what it needs."""
    logp, ones = torch.tensor([[-0.5, -1.5]]), torch.ones(1, 2)
    known = {name: logp if name == "logp" else ones for name in HANDED[tier]}
    mask = torch.ones(1, 2, dtype=torch.bool)
    return TokenBatch(cast(TokenStats, HandedOver(**known)), ones, mask, logp, rule, ones)


def refuse_bands(bands: Iterable[ClipBand]) -> None:
    """Raise ValueError for a band that clips differently from PPO's pessimistic minimum."""
    for band in bands:
        if type(band).limits is not ClipBand.limits:
            raise ValueError(
                f"strategy: {type(band).__name__} clips differently from PPO's minimum, which is the host's loss; "
                "give a band with bounds only, and set a dual clip in the host"
            )


def parse(
    settings: Mapping[str, Any],
    origin: str,
    tier: Tier = "A",
    coefficient: str | None = None,
    measured: bool | None = None,
) -> Steering:
    """The steering that the keys of the module's example describe; the other arguments as in `Steering`.

    Raises ValueError, naming `origin` and the key.
    """
    if unknown := sorted(set(settings) - set(KEYS)):
        raise ValueError(f"{origin}: {', '.join(unknown)}: hosts read only {', '.join(KEYS)}; remove it")
    steps = settings.get("total_steps")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"{origin}: total_steps is {steps!r}; give the host's training steps, at least 1")
    if not isinstance(settings.get("extended", False), bool):
        raise ValueError(f"{origin}: extended is {settings['extended']!r}; give true or false")
    control = {key: settings[key] for key in PARTS if settings.get(key) is not None}
    try:
        # whose log-probabilities a host takes and how often it steps on a batch is its own affair: nothing is refused
        corrected = bool(control.get("correction") or control.get("parts"))
        update = {"old_logp": "recomputed" if corrected else "sampler", "epochs": 1}
        whole = {"name": "host", "campaign": {"steps": steps}, "update": update, "control": control}
        recipe = parse_recipe(whole, origin=origin)
    except RecipeError as error:
        raise ValueError(str(error)) from error
    try:
        own, extended = "strategy" in control, settings.get("extended", False)
        return Steering(
            build_controller(recipe), tier, coefficient, measured=measured, host_band=not own, extended=extended
        )
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from error


@cache
def steering_of_file(
    path: str, tier: Tier = "A", coefficient: str | None = None, measured: bool | None = None
) -> Steering:
    """The steering that a YAML file describes, one per process. ValueError: missing, no mapping, an invalid key."""
    control = parse(read_mapping(Path(path)), path, tier, coefficient, measured)
    print(f"{control.description}, by {path}", flush=True)
    return control


def steering(tier: Tier = "A", coefficient: str | None = None, measured: bool | None = None) -> Steering:
    """The steering of this process, from ENTROSTAT_CONTROL. Raises ValueError if that is not set."""
    if not (path := os.environ.get(CONTROL)):
        raise ValueError(f"{CONTROL} is not set in this process; let it name a YAML file with strategy and total_steps")
    return steering_of_file(path, tier, coefficient, measured)


def vocabulary_shard(columns: int, group: Any) -> VocabShard | None:
    """This rank's part of a vocabulary that is split evenly over a tensor-parallel group, None if it is whole."""
    if group is None or group.size() == 1:
        return None
    return VocabShard(group.rank() * columns, group.size() * columns, group)


def write_state(folder: str | Path | None, control: Steering) -> None:
    """Write the state at the start of the current step to FOLDER/entrostat/step_N.json, on the first rank.

    For a host whose checkpoints take no state of ours; nothing is written without a folder.
    """
    if folder is None or (dist.is_initialized() and dist.get_rank() > 0):
        return
    file = Path(folder) / "entrostat" / f"step_{control.step}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(control.state_dict(), allow_nan=False))
    partial.replace(file)


def read_state(host: str, folders: Iterable[str | Path | None], step: int) -> Any:
    """The state at the start of a step, or of the one before if a run was killed between two checkpoints.

    Raises ValueError if no folder has it.
    """
    places = [Path(folder) / "entrostat" for folder in folders if folder]
    files = [folder / f"step_{number}.json" for number in (step, step - 1) for folder in places]
    for file in files:
        if file.exists():
            return json.loads(file.read_text())
    raise ValueError(
        f"{host} resumes at step {step}, and the state of the controller is in none of "
        f"{', '.join(map(str, files)) or 'its folders, which are not set'}; start a new run from the weights"
    )


def refuse(host: str, settings: Mapping[str, tuple[Any, Collection[Any]]]) -> None:
    """Raise ValueError for the first setting with a value that a steered loss does not support.

    settings: the host's name of a setting -> (its value, allowed values).
    """
    for name, (value, allowed) in settings.items():
        if value not in allowed:
            wanted = " or ".join(repr(choice) for choice in allowed)
            raise ValueError(
                f"{host}: {name} is {value!r}, under which entrostat's control would not have its effect "
                f"per token; set it to {wanted}, or train without entrostat"
            )


class Overlay:
    """An object whose named attributes are replaced, for code that only reads it."""

    def __init__(self, base: Any, **replaced: Any) -> None:
        self.__dict__.update(_base=base, **replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_base"], name)

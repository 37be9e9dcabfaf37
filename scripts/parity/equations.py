"""Methods without public code beside their papers' equations: float64, plain loops over tokens, nothing of the library.

An equation takes a `Draw`, random ragged completions whose masks have holes, and returns the loss and its derivative by
ln pi of every token. `largest` is the largest difference from the library's over many draws.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from entrostat.control import EntropyController, Part
from entrostat.control.adapo import Adapo
from entrostat.control.aepo import Aepo
from entrostat.control.gepo import Gepo
from entrostat.control.mai import Mai
from entrostat.control.opefo import Opefo
from entrostat.control.repo_r import RepoR
from entrostat.control.strategies import Constant
from entrostat.objective import AbcClip, ClipBand, ClipRule, Cppo, Decoupled, Estr, RipoClip, aggregate, policy_loss
from entrostat.objective.advantages import quantile
from entrostat.tokens import TokenStats, token_stats

GROUP, GROUPS, WIDTH, VOCABULARY = 4, 3, 9, 7
PLACE = "its equation, in float64"
DRAWS = range(20)
TARGET = 0.5  # nats, of the methods that follow the entropy
BELOW, ABOVE, ACROSS = (0.1, 0.2, 0.3), (0.9, 0.8, 0.7, 0.6), (0.9, 0.1, 0.6, 0.2, 0.3)

Table = list[list[float]]
Token = tuple[int, int]


@dataclass
class Draw:
    """Completions of one batch. Every field is a table, rows by WIDTH; what lies outside the mask means nothing."""

    seed: int
    mask: list[list[bool]] = field(init=False)
    logits: list[Table] = field(init=False)
    ids: list[list[int]] = field(init=False)
    logp: Table = field(init=False)
    entropy: Table = field(init=False)
    old: Table = field(init=False)
    sampler: Table = field(init=False)
    advantages: Table = field(init=False)
    rewards: list[float] = field(init=False)

    def __post_init__(self) -> None:
        draw = random.Random(self.seed)
        rows = range(GROUP * GROUPS)
        lengths = [draw.randint(1, WIDTH) for _ in rows]
        self.mask = [[t < lengths[row] and (t == 0 or draw.random() < 0.85) for t in range(WIDTH)] for row in rows]
        self.logits = [[[draw.gauss(0, 2) for _ in range(VOCABULARY)] for _ in range(WIDTH)] for _ in rows]
        self.ids = [[draw.randrange(VOCABULARY) for _ in range(WIDTH)] for _ in rows]
        self.logp = [[0.0] * WIDTH for _ in rows]
        self.entropy = [[0.0] * WIDTH for _ in rows]
        for row in rows:
            for t in range(WIDTH):
                logs = self.log_probabilities((row, t))
                self.logp[row][t] = logs[self.ids[row][t]]
                self.entropy[row][t] = -sum(math.exp(x) * x for x in logs)
        self.old = [[min(x + draw.gauss(0, 0.4), -1e-3) for x in line] for line in self.logp]
        self.sampler = [[min(x + draw.gauss(0, 0.3), -1e-3) for x in line] for line in self.old]
        signed = [draw.choice((-1.0, 0.0, 1.0, 1.0, -1.0)) * draw.uniform(0.2, 1.5) for _ in rows]
        self.advantages = [[each] * WIDTH for each in signed]
        self.rewards = [float(draw.random() < draw.choice((0.3, 0.7))) for _ in rows]

    def log_probabilities(self, token: Token) -> list[float]:
        """ln p of every word at a token's position."""
        scores = self.logits[token[0]][token[1]]
        total = math.log(sum(math.exp(x) for x in scores))
        return [x - total for x in scores]

    def tokens(self) -> list[Token]:
        """The tokens that count, row by row."""
        return [(row, t) for row, line in enumerate(self.mask) for t in range(WIDTH) if line[t]]

    def ratio(self, token: Token) -> float:
        """pi / pi_old."""
        row, t = token
        return math.exp(self.logp[row][t] - self.old[row][t])


Pieces = Callable[[Draw, Token], tuple[float, float]]  # of a token: its objective and the derivative by ln pi
Naive = Callable[[Draw], tuple[float, Table]]


@dataclass(frozen=True)
class Equation:
    """A method in one setting. naive: its equation; ours: the library's scalar loss, whose gradient reaches logp."""

    method: str
    setting: str
    naive: Naive
    ours: Callable[[Draw, Tensor], Tensor]
    source: str = PLACE


def largest(equation: Equation, draws: Sequence[int] = DRAWS) -> tuple[float, float]:
    """The largest difference of the loss, and of its gradient, over the draws."""
    worst = [0.0, 0.0]
    for seed in draws:
        draw = Draw(seed)
        loss, gradient = equation.naive(draw)
        logp = tensor(draw.logp).requires_grad_()
        torch.manual_seed(seed)
        ours = equation.ours(draw, logp)
        (found,) = torch.autograd.grad(ours, logp)
        worst[0] = max(worst[0], abs(float(ours.detach()) - loss))
        worst[1] = max(worst[1], float((found - tensor(gradient)).abs().max()))
    return worst[0], worst[1]


# The equations


def mean_of(pieces: Pieces) -> Naive:
    """Minus the mean of the objective over the tokens."""

    def naive(draw: Draw) -> tuple[float, Table]:
        tokens = draw.tokens()
        loss, gradient = 0.0, [[0.0] * WIDTH for _ in draw.mask]
        for row, t in tokens:
            value, slope = pieces(draw, (row, t))
            loss -= value / len(tokens)
            gradient[row][t] = -slope / len(tokens)
        return loss, gradient

    return naive


def clipped(ratio: float, advantage: float, low: float, high: float) -> tuple[float, float]:
    """min(r A, clip(r, low, high) A), and its derivative by ln pi."""
    plain, bounded = ratio * advantage, min(max(ratio, low), high) * advantage
    return (plain, plain) if plain <= bounded else (bounded, 0.0)


def of_token(draw: Draw, token: Token) -> tuple[float, float]:
    """r and A."""
    return draw.ratio(token), draw.advantages[token[0]][token[1]]


def standard(draw: Draw, token: Token) -> tuple[float, float]:
    """PPO's clip at .2."""
    return clipped(*of_token(draw, token), 0.8, 1.2)


def repo_r(course: Sequence[float], least: float, most: float) -> Pieces:
    """A (1 - z ln p) or A (1 + z ln p), never past a change of sign; z doubled or halved, turned at its least."""
    z = least
    for entropy in course:
        wanted = 1 if entropy < TARGET else -1
        same = (z > 0) == (wanted > 0)
        z = z * 2 if same else z / 2
        if abs(z) < least:
            z = wanted * least
        z = max(-most, min(most, z))

    def pieces(draw: Draw, token: Token) -> tuple[float, float]:
        ratio, advantage = of_token(draw, token)
        ln_p = draw.logp[token[0]][token[1]]
        if advantage > 0:
            advantage = max(advantage * (1 - z * ln_p), 0.0)
        elif advantage < 0:
            advantage = min(advantage * (1 + z * ln_p), 0.0)
        return clipped(ratio, advantage, 0.8, 1.2)

    return pieces


def adapo(course: Sequence[float], start: float, least: float, most: float, factor: float) -> Pieces:
    """The upper threshold grows below the target and shrinks above it."""
    upper = start
    for entropy in course:
        upper = min(max(upper * factor if entropy < TARGET else upper / factor, least), most)
    return lambda draw, token: clipped(*of_token(draw, token), 0.8, 1 + upper)


def mai(course: Sequence[float], eps: float, step: float, most: float, outer: tuple[float, float]) -> Pieces:
    """clip(r, 1 - eps, 1 / (1 - eps) + k), and the outer clip of r on every branch."""
    k = 0.0
    for entropy in course:
        k = min(max(k + step * (1 if entropy < TARGET else -1), 0.0), most)

    def pieces(draw: Draw, token: Token) -> tuple[float, float]:
        ratio, advantage = of_token(draw, token)
        inside = min(max(ratio, outer[0]), outer[1])
        value, slope = clipped(inside, advantage, 1 - eps, 1 / (1 - eps) + k)
        return value, slope if inside == ratio else 0.0

    return pieces


def ripo(delta: float, low: float, high: float) -> Pieces:
    """eps = sqrt(delta / q), the band within [low, high]."""

    def pieces(draw: Draw, token: Token) -> tuple[float, float]:
        eps = math.sqrt(delta / math.exp(draw.old[token[0]][token[1]]))
        return clipped(*of_token(draw, token), max(1 - eps, low), min(1 + eps, high))

    return pieces


def abc(e1: float, e2: float, e3: float, e4: float) -> Pieces:
    """A > 0: clip(r, 1 - e2, 1 + e1); A <= 0: clip(r, 1 - e4, 1 + e3); no minimum."""

    def pieces(draw: Draw, token: Token) -> tuple[float, float]:
        ratio, advantage = of_token(draw, token)
        low, high = (1 - e2, 1 + e1) if advantage > 0 else (1 - e4, 1 + e3)
        bounded = min(max(ratio, low), high)
        return bounded * advantage, ratio * advantage if bounded == ratio else 0.0

    return pieces


def up(eps: float, cap: float) -> Pieces:
    """A > 0: A pi / sg[pi]; A <= 0: the clip, with the dual clip max(., cap A)."""

    def pieces(draw: Draw, token: Token) -> tuple[float, float]:
        ratio, advantage = of_token(draw, token)
        if advantage > 0:
            return advantage, advantage
        value, slope = clipped(ratio, advantage, 1 - eps, 1 + eps)
        return (value, slope) if value >= cap * advantage else (cap * advantage, 0.0)

    return pieces


def nsr(width: float, keep: float) -> Naive:
    """A token that the clip removes keeps r A with a probability where r is within `width` of the band."""

    def naive(draw: Draw) -> tuple[float, Table]:
        torch.manual_seed(draw.seed)
        chance = torch.rand(len(draw.mask), WIDTH, dtype=torch.float64).tolist()

        def pieces(draw: Draw, token: Token) -> tuple[float, float]:
            ratio, advantage = of_token(draw, token)
            over = ratio - 1.2 if advantage > 0 else 0.8 - ratio if advantage < 0 else 0.0
            if 0 < over <= width and chance[token[0]][token[1]] < keep:
                return ratio * advantage, ratio * advantage
            return standard(draw, token)

        return mean_of(pieces)(draw)

    return naive


def cppo(delta: float, budget: float, least: float, adaptive: bool) -> Naive:
    """Algorithm 1, and with `adaptive` the budget of equation 22."""

    def naive(draw: Draw) -> tuple[float, Table]:
        kept: dict[Token, bool] = {}
        for row in range(len(draw.mask)):
            own = [token for token in draw.tokens() if token[0] == row]
            moved = [abs(math.exp(draw.logp[row][t]) - math.exp(draw.old[row][t])) for _, t in own]
            allowed = min(max(interpolated(moved, 0.9), budget), 2 * budget) if adaptive else budget
            spent = given = 0.0
            for place, token in enumerate(own):
                weight = 1 - (1 - least) / max(len(own) - 1, 1) * place
                limit = min(delta, delta + allowed * given - spent)
                ratio, advantage = of_token(draw, token)
                kept[token] = advantage * (ratio - 1) <= 0 or weight * moved[place] <= limit
                spent, given = spent + weight * moved[place], given + weight

        def pieces(draw: Draw, token: Token) -> tuple[float, float]:
            ratio, advantage = of_token(draw, token)
            return (ratio * advantage, ratio * advantage) if kept[token] else (0.0, 0.0)

        return mean_of(pieces)(draw)

    return naive


def interpolated(values: Sequence[float], level: float) -> float:
    """The quantile, linear between two of the sorted values."""
    ordered = sorted(values)
    place = level * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def estr(tau: float, epsilon: float) -> Pieces:
    """Only the tokens with (ln pi - ln mu)^2 / (H + epsilon) <= tau."""

    def pieces(draw: Draw, token: Token) -> tuple[float, float]:
        row, t = token
        moved = draw.logp[row][t] - draw.sampler[row][t]
        inside = moved**2 / (draw.entropy[row][t] + epsilon) <= tau
        return standard(draw, token) if inside else (0.0, 0.0)

    return pieces


def decoupled(cap: float) -> Pieces:
    """The clip against pi_old, times w = pi_old / mu where w <= cap."""

    def pieces(draw: Draw, token: Token) -> tuple[float, float]:
        row, t = token
        weight = math.exp(draw.old[row][t] - draw.sampler[row][t])
        value, slope = standard(draw, token)
        return (weight * value, weight * slope) if weight <= cap else (0.0, 0.0)

    return pieces


def aepo(course: Sequence[float], low: float, high: float) -> Pieces:
    """No punished token from an entropy above `high` until one below `low`."""
    off = False
    for entropy in course:
        off = entropy >= low if off else entropy > high

    def pieces(draw: Draw, token: Token) -> tuple[float, float]:
        return (0.0, 0.0) if off and of_token(draw, token)[1] < 0 else standard(draw, token)

    return pieces


def opefo(bound: float) -> Naive:
    """1 + lambda on expanding and 1 - lambda on contracting tokens, lambda = (D - U) / (D + U)."""

    def naive(draw: Draw) -> tuple[float, Table]:
        flow: dict[Token, float] = {}
        for row, t in draw.tokens():
            logs, entropy = draw.log_probabilities((row, t)), draw.entropy[row][t]
            spread = sum(math.exp(2 * x) * (x + entropy) for x in logs)
            sampled = draw.logp[row][t]
            flow[row, t] = draw.advantages[row][t] * (spread - math.exp(sampled) * (sampled + entropy))
        up_sum = sum(each for each in flow.values() if each > 0)
        down_sum = -sum(each for each in flow.values() if each < 0)
        balance = max(-bound, min(bound, (down_sum - up_sum) / (down_sum + up_sum)))

        def pieces(draw: Draw, token: Token) -> tuple[float, float]:
            ratio, advantage = of_token(draw, token)
            factor = 1 + balance if flow[token] > 0 else 1 - balance if flow[token] < 0 else 1.0
            return clipped(ratio, factor * advantage, 0.8, 1.2)

        return mean_of(pieces)(draw)

    return naive


def gepo(rewarded: float, punished: float, below: float, above: float, rate: float) -> Naive:
    """The second batch: its groups against edges that the first one set and moved."""

    def entropies(draw: Draw) -> list[float]:
        found = []
        for group in range(GROUPS):
            own = [(row, t) for row, t in draw.tokens() if row // GROUP == group]
            found.append(-sum(draw.old[row][t] for row, t in own) / len(own))
        return found

    def edges(draw: Draw) -> tuple[float, float]:
        values = entropies(draw)
        middle = sum(values) / len(values)
        spread = math.sqrt(sum((x - middle) ** 2 for x in values) / len(values))
        return middle - below * spread, middle + above * spread

    def naive(draw: Draw) -> tuple[float, Table]:
        first, second = edges(earlier(draw, 1)), edges(earlier(draw, 2))
        low, high = ((1 - rate) * past + rate * new for past, new in zip(first, second, strict=True))
        values = entropies(draw)

        def pieces(draw: Draw, token: Token) -> tuple[float, float]:
            ratio, advantage = of_token(draw, token)
            own = values[token[0] // GROUP]
            factor = rewarded if advantage > 0 and own < low else punished if advantage < 0 and own > high else 1.0
            return clipped(ratio, factor * advantage, 0.8, 1.2)

        return mean_of(pieces)(draw)

    return naive


def earlier(draw: Draw, number: int) -> Draw:
    """Another batch, drawn for the sake of a method's state."""
    return Draw(1000 * number + draw.seed)


def qae(level: float, linear: bool) -> Naive:
    """(R - Q) / (std + 1e-6), 0 where all rewards of the group are equal; PPO's clip on it."""

    def naive(draw: Draw) -> tuple[float, Table]:
        earned: list[float] = []
        for group in range(GROUPS):
            own = draw.rewards[group * GROUP : (group + 1) * GROUP]
            middle = sum(own) / GROUP
            spread = math.sqrt(sum((x - middle) ** 2 for x in own) / (GROUP - 1))
            reached = [x for x in sorted(own) if sum(y <= x for y in own) >= level * GROUP - 1e-9]
            baseline = interpolated(own, level) if linear else reached[0]
            earned += [(x - baseline) / (spread + 1e-6) if spread > 0 else 0.0 for x in own]
        return mean_of(lambda draw, token: clipped(draw.ratio(token), earned[token[0]], 0.8, 1.2))(draw)

    return naive


# The library's side


def tensor(table: Table | list[float]) -> Tensor:
    """A table as float64."""
    return torch.tensor(table, dtype=torch.float64)


def stats(draw: Draw) -> TokenStats:
    """The library's statistics, from the logits."""
    return token_stats(torch.tensor(draw.logits, dtype=torch.float64), torch.tensor(draw.ids))


def loss(
    draw: Draw, logp: Tensor, advantages: Tensor | None = None, rule: ClipBand | None = None, **given: object
) -> Tensor:
    """Our token-mean loss, with nonsense outside the mask."""
    mask = torch.tensor(draw.mask)
    earned = tensor(draw.advantages) if advantages is None else advantages
    out = policy_loss(
        logp.where(mask, 7.0),
        tensor(draw.old).where(mask, -50.0),
        earned,
        mask,
        rule=rule,
        **given,  # type: ignore[arg-type]
    )
    return aggregate(out.per_token, mask)


def with_loss(rule: ClipBand | None = None, **given: object) -> Callable[[Draw, Tensor], Tensor]:
    """An objective, a band or a correction."""

    def ours(draw: Draw, logp: Tensor) -> Tensor:
        read = {"sampler_logp": tensor(draw.sampler), "entropy": stats(draw).entropy} if "correction" in given else {}
        return loss(draw, logp, None, rule, **given, **read)

    return ours


def with_part(make: Callable[[], Part], course: Sequence[float] = ()) -> Callable[[Draw, Tensor], Tensor]:
    """A part of a controller, after steps of these entropies; one that remembers batches has seen two others."""

    def ours(draw: Draw, logp: Tensor) -> Tensor:
        part = make()
        band = [] if part.owns_band else [Constant(ClipRule())]
        controller = EntropyController(*band, part, total_steps=100)
        for number in (1, 2) if isinstance(part, Gepo) else ():
            weighted(controller, earlier(draw, number))
            controller.observe(number, TARGET, 1.0)
        for number, entropy in enumerate(course, start=1):
            controller.observe(number, entropy, 1.0)
        return loss(draw, logp, weighted(controller, draw), controller.rule())

    return ours


def weighted(controller: EntropyController, draw: Draw) -> Tensor:
    """The controller's advantages."""
    mask = torch.tensor(draw.mask)
    return controller.advantages(stats(draw), tensor(draw.advantages), mask, old_logp=tensor(draw.old))


def with_rewards(level: float, linear: bool) -> Callable[[Draw, Tensor], Tensor]:
    """QAE's advantages."""

    def ours(draw: Draw, logp: Tensor) -> Tensor:
        earned = quantile(tensor(draw.rewards).view(GROUPS, GROUP), level, interpolated=linear)
        return loss(draw, logp, earned.view(-1, 1))

    return ours


def cases() -> Iterator[Equation]:
    """Every equation."""
    for course, where in ((BELOW, "below the target"), (ABOVE, "above it"), (ACROSS, "across it")):
        yield Equation(
            "repo-r",
            where,
            mean_of(repo_r(course, 0.01, 0.2)),
            with_part(lambda: RepoR(TARGET, least=0.01, most=0.2), course),
        )
        yield Equation(
            "adapo",
            where,
            mean_of(adapo(course, 0.2, 0.05, 1.0, 1.5)),
            with_part(lambda: Adapo(TARGET, factor=1.5), course),
        )
        yield Equation(
            "mai",
            where,
            mean_of(mai(course, 0.2, 0.1, 0.25, (0.5, 2.0))),
            with_part(lambda: Mai(TARGET, 0.2, 0.1, 0.25, 0.5, 2.0), course),
        )
    for course, where in ((ABOVE, "above both edges"), ((*ABOVE, 0.5), "back between them")):
        yield Equation("aepo", where, mean_of(aepo(course, 0.35, 0.65)), with_part(lambda: Aepo(0.35, 0.65), course))
    yield Equation("ripo", "delta .05", mean_of(ripo(0.05, 0.5, 10)), with_loss(RipoClip()))
    yield Equation(
        "ripo", "delta .005, r in [.8, 1.3]", mean_of(ripo(0.005, 0.8, 1.3)), with_loss(RipoClip(0.005, 0.8, 1.3))
    )
    yield Equation("abc", "all .2", mean_of(abc(0.2, 0.2, 0.2, 0.2)), with_loss(AbcClip()))
    yield Equation(
        "abc", ".3, .1, .5 and .15", mean_of(abc(0.3, 0.1, 0.5, 0.15)), with_loss(AbcClip(0.3, 0.1, 0.5, 0.15))
    )
    yield Equation("up", "eps .2, cap 3", mean_of(up(0.2, 3)), with_loss(objective="up"))
    yield Equation("nsr", "width .1, keep .5", nsr(0.1, 0.5), with_loss(objective="nsr"))
    for adaptive in (False, True):
        yield Equation(
            "cppo",
            f"delta .1, budget .02{', adaptive' if adaptive else ''}",
            cppo(0.1, 0.02, 0.8, adaptive),
            with_loss(objective=Cppo(0.1, 0.02, 0.8, adaptive)),
        )
    yield Equation("estr", "tau .2", mean_of(estr(0.2, 0.01)), with_loss(correction=Estr(0.2)))
    yield Equation("decoupled", "cap 1.3", mean_of(decoupled(1.3)), with_loss(correction=Decoupled(1.3)))
    for bound in (1.0, 0.1):
        yield Equation("opefo", f"bound {bound:g}", opefo(bound), with_part(lambda bound=bound: Opefo(bound)))
    yield Equation(
        "gepo", "the third batch, rate .3", gepo(0.5, 0.2, 0.2, 0.3, 0.3), with_part(lambda: Gepo(GROUP, rate=0.3))
    )
    for linear in (False, True):
        for level in (0.4, 0.75):
            setting = f"level {level:g}{', interpolated' if linear else ''}"
            yield Equation("qae", setting, qae(level, linear), with_rewards(level, linear))

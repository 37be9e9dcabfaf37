"""Sums of a row over a part of the vocabulary, which can be merged with those of other parts in any order.

For logits z of one row, m their maximum over the part, gap g = z - m and weight e = exp(g):

    peak      m
    rest      s - 1, with s = sum e; the maximum's own 1 is left out so that ln s = log1p(rest) is precise at a peak
    tilt      t = sum e g
    square    q = sum e^2
    comoment  k = sum e (e - q/s) (g - t/s): e and g about their means under the weights e
    sampled   z_a if the sampled token is in the part, else -inf

and over the whole vocabulary, with p = e / s and ln p = g - ln s,

    ln p_a = z_a - m - ln s     H = ln s - t/s     sum p^2 = q/s^2     C = Cov_p(p, ln p) = k/s^2

The constant ln s in ln p does not change the covariance, and sums about the means do not cancel, whatever p is.
A part is a tensor (6, n): these sums for n rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

FIELDS = 6
FAR = -1e4  # exp() of it is 0, and 0 times it is 0, not NaN as with -inf


@dataclass(frozen=True)
class Upstream:
    """Inputs of the gradient of the logits, per row (n,): ln(sum exp z), the entropy and the incoming gradients.

    Without d_entropy no gradient flows through the entropy.
    """

    log_norm: Tensor
    entropy: Tensor
    d_logp: Tensor
    d_entropy: Tensor | None

    def of(self, rows: slice) -> Upstream:
        """Return the same quantities for some of the rows."""
        d_entropy = None if self.d_entropy is None else self.d_entropy[rows]
        return Upstream(self.log_norm[rows], self.entropy[rows], self.d_logp[rows], d_entropy)


def sum_block(z: Tensor, ids: Tensor, out: Tensor, scratch: Tensor) -> None:
    """Write the sums of the block z (n, v) to out (6, n); z and scratch (n, v) are overwritten.

    ids (n,) count from the block's first column; an id outside [0, v) belongs to another part.
    """
    peak, rest, tilt, square, comoment, sampled = out
    columns = z.shape[1]
    torch.gather(z, 1, ids.clamp(0, columns - 1)[:, None], out=sampled[:, None])
    sampled.masked_fill_((ids < 0) | (ids >= columns), -math.inf)
    torch.amax(z, 1, out=peak)
    gap = drop_far(z.sub_(finite(peak)[:, None]))
    weight = torch.exp(gap, out=scratch)
    total = weight.sum(1)
    others = weight.frac_()  # every weight but the maximum's 1
    torch.sum(others, 1, out=rest)
    ties = (total - rest).round_()
    norm = ties + rest
    torch.linalg.vector_norm(others, 2, 1, out=square)
    square.square_().add_(ties)
    torch.sum(gap.mul_(others), 1, out=tilt)
    mean_gap, mean_weight = tilt / norm.clamp(min=1), square / norm.clamp(min=1)
    spread = gap.addcmul_(others, mean_gap[:, None], value=-1)
    torch.sum(spread.mul_(others.sub_(mean_weight[:, None])), 1, out=comoment)
    comoment.sub_(ties * (1 - mean_weight) * mean_gap)
    rest.add_(ties - 1)


def merge(parts: Tensor) -> Tensor:
    """Return the sums (6, n) of the union of disjoint parts (k, 6, n).

    A part whose maximum lies d below the highest one has its weights scaled by exp(-d) and its gaps shifted by -d;
    comoments then add up with the comoment of the parts' means (Chan, Golub, LeVeque 1983).
    """
    if len(parts) == 1:
        return parts[0]
    peaks, rests, tilts, squares, comoments, sampled = parts.unbind(1)
    peak, winner = peaks.max(0)
    shift = drop_far(peaks - finite(peak))
    scale = shift.exp()
    norms = 1 + rests
    masses = norms * scale
    rest = masses.scatter(0, winner[None], rests.gather(0, winner[None])).sum(0)
    norm = (1 + rest).clamp(min=1)
    tilt = (tilts * scale + masses * shift).sum(0)
    square = (squares * scale.square()).sum(0)
    gaps = tilts / norms.clamp(min=1) + shift - tilt / norm
    weights = squares / norms.clamp(min=1) * scale - square / norm
    comoment = (comoments * scale.square() + masses * weights * gaps).sum(0)
    return torch.stack((peak, rest, tilt, square, comoment, sampled.amax(0)))


def finish(sums: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return logp, entropy, collision, correction and ln(sum exp z), each (n,), from sums over the whole vocabulary.

    A row without a finite logit has logp -inf and otherwise zeros.
    """
    peak, rest, tilt, square, comoment, sampled = sums
    empty = peak == -math.inf
    norm, log_norm = (1 + rest).clamp(min=1), rest.log1p().masked_fill(empty, 0)
    logp = (sampled - finite(peak)) - log_norm
    return logp, log_norm - tilt / norm, square / norm**2, (comoment / norm**2).clamp(min=0), finite(peak) + log_norm


def logit_grads(z: Tensor, ids: Tensor, upstream: Upstream, out: Tensor) -> Tensor:
    """Write d_logp (1[x = a] - p) - d_entropy p (ln p + H) of the block z (n, v) to out.

    z is overwritten; ids as in sum_block.
    """
    d_logp = upstream.d_logp[:, None]
    log_p = drop_far(z.sub_(upstream.log_norm[:, None]))
    d_z = torch.exp(log_p, out=out)
    if upstream.d_entropy is None:
        d_z.mul_(-d_logp)
    else:
        d_z.mul_(log_p.add_(upstream.entropy[:, None]).mul_(-upstream.d_entropy[:, None]).sub_(d_logp))
    columns = z.shape[1]
    here = ((ids >= 0) & (ids < columns))[:, None]
    return d_z.scatter_add_(1, ids.clamp(0, columns - 1)[:, None], d_logp * here)


def finite(peak: Tensor) -> Tensor:
    """Return the maximum with -inf replaced by the lowest finite number, so that z - peak is never inf - inf."""
    return peak.clamp(min=torch.finfo(peak.dtype).min)


def drop_far(gap: Tensor) -> Tensor:
    """Replace gaps whose exp() is a denormal number, which is slow to multiply, by FAR, in place."""
    return torch.threshold_(gap, math.log(torch.finfo(gap.dtype).tiny), FAR)


@dataclass(frozen=True)
class VocabShard:
    """This rank's part of a vocabulary of `size` ids; it begins at `start`."""

    start: int
    size: int
    group: dist.ProcessGroup

    def gather(self, sums: Tensor) -> Tensor:
        """Return every rank's sums (ranks, 6, N), by one all-reduce of a tensor, zero except in this rank's slot."""
        slots = sums.new_zeros((self.group.size(), *sums.shape))
        slots[self.group.rank()] = sums
        dist.all_reduce(slots, group=self.group)
        return slots

    def add(self, partial: Tensor) -> None:
        """Sum the ranks' parts of a gradient in place, so that each rank holds the complete gradient."""
        dist.all_reduce(partial, group=self.group)

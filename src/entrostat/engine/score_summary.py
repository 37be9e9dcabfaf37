"""What a file of scores says in all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from entrostat.tokens import effective_sample_size

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
WITHIN = (0.5, 2.0)  # of w, outside which a token counts as far from the sampler


def summarise(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures over the tokens of all records of `score_completions`, each token counted alike; nats unless said.

        completions, tokens               counts
        entropy                           mean; entropy_quantiles: at 5, 25, 50, 75 and 95 %
        logp, collision, correction       means; perplexity = exp(-mean ln p)
        expanding, contracting            shares of the tokens with a polarity that is above and below 0
        kl_k1, kl_k3                      mean estimates of KL(sampler || model) per token
        log_ratio_largest                 largest |ln w|
        ratio_outside                     share of tokens with w outside [.5, 2]
        effective_sample_size             (sum W)^2 / sum W^2 over `sampled` completions, W = product of w
        sampler_entropy_low, _high        means of the bounds
        infinite                          tokens with an infinite value, which the means of that value leave out

    A figure that no record has what it takes for is left out.
    """
    columns: dict[str, list[NDArray[np.float64]]] = {}
    log_weights: list[float] = []
    completions = tokens = infinite = 0
    for record in records:
        completions, tokens = completions + 1, tokens + len(record["tokens"])
        for name, values in record.items():
            if isinstance(values, list) and name != "tokens":
                columns.setdefault(name, []).append(np.array(values, dtype=np.float64))
        infinite += sum(value is None for value in record["logp"])
        if "kl_k1" in record:
            log_weights.append(-sum(np.inf if value is None else value for value in record["kl_k1"]))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    known = {name: values[np.isfinite(values)] for name, values in joined.items()}
    found: dict[str, Any] = {"completions": completions, "tokens": tokens, "infinite": infinite}
    found |= {name: float(known[name].mean()) for name in MEANS if name in known and len(known[name])}
    if "entropy" in found:
        found["entropy_quantiles"] = dict(
            zip(map(str, QUANTILES), np.quantile(known["entropy"], QUANTILES).tolist(), strict=True)
        )
    if "logp" in found:
        found["perplexity"] = float(np.exp(-found["logp"]))
    if len(polarity := known.get("polarity", np.empty(0))):
        found |= {"expanding": float((polarity > 0).mean()), "contracting": float((polarity < 0).mean())}
    if len(ratios := known.get("kl_k1", np.empty(0))):
        low, high = np.log(WITHIN)
        found["log_ratio_largest"] = float(np.abs(ratios).max())
        found["ratio_outside"] = float(((-ratios < low) | (-ratios > high)).mean())
        found["effective_sample_size"] = effective_sample_size(torch.tensor(log_weights, dtype=torch.float64))
        found["sampled"] = len(log_weights)
    return found


MEANS = (
    "entropy",
    "logp",
    "collision",
    "correction",
    "kl_k1",
    "kl_k3",
    "sampler_entropy_low",
    "sampler_entropy_high",
)

"""From studies to remedies: src/entrostat/diagnosis/evidence.csv, made of the studies' tables of contrasts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tables import Row, read_rows, write_rows

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "src/entrostat/diagnosis/evidence.csv"

OUTCOMES = {
    "gap": ("gap", "lower"),
    "pass_1": ("pass@1", "higher"),
    "pass_16": ("pass@16", "higher"),
    "entropy_end": ("entropy", "higher"),
    "entropy": ("entropy", "higher"),
    "handed_over": ("chain end", "higher"),
}
# study, table: (condition, the condition it is compared with): (setting, what it is compared with)
CLIFF = "REINFORCE with four unclipped passes at a climbing rate"
STALE_NETWORK = "completions 8 updates old that are taken for fresh"
STALE_TABLE = "completions 16 updates old that are taken for fresh, in a table of logits"
SETTINGS = {
    ("what-makes-the-cliff", "contrasts"): {
        ("one pass per batch", "as in the demo"): ("update.epochs=1", CLIFF),
        ("clip at .2", "as in the demo"): ("update.objective=clip", CLIFF),
        ("rewards 0 and 1", "as in the demo"): ("update.failure_reward=0", CLIFF),
        ("minus the batch mean", "as in the demo"): ("update.baseline=batch-mean", CLIFF),
        ("GRPO unclipped", "as in the demo"): ("update.advantage=grpo", CLIFF),
        ("rate held at 5e-4", "as in the demo"): ("update.learning_rate=5e-4", CLIFF),
        ("GRPO, ID", "GRPO, clip at .2"): ("control.strategy=id", "GRPO at a climbing rate"),
        ("GRPO, ID, 5e-4", "GRPO, 5e-4"): ("control.strategy=id", "GRPO at 5e-4"),
    },
    ("entropy-strategies", "contrasts"): {
        (condition, "GRPO"): (setting, "GRPO with eight passes")
        for condition, setting in {
            "clip-higher": "control.strategy=clip-higher",
            "clip-lower": "control.strategy=clip-lower",
            "entropy bonus": "control.bonus=constant",
            "Clip-Cov": "control.reweighting=clip-cov",
            "GSPO": "update.objective=gspo",
            "SAPO": "update.objective=sapo",
            "ID": "control.strategy=id",
            "DID": "control.strategy=did",
            "OD": "control.strategy=od",
            "target, constant": "control.strategy=target-entropy",
            "adaptive bonus, constant": "control.bonus=adaptive",
        }.items()
    },
    ("polarity-control", "against-grpo"): {
        (condition, "GRPO"): (setting, "GRPO with four passes")
        for condition, setting in {
            "polarity-aware, hold": "control.reweighting=polarity-aware",
            "polarity-aware, rewarded": "control.reweighting=polarity-aware, rewarded_only=true",
            "DAPO-style": "control.strategy=clip-higher",
            "entropy bonus": "control.bonus=constant",
            "80/20": "control.reweighting=80/20",
            "OPEFO": "control.reweighting=opefo",
            "STARE": "control.reweighting=stare",
            "STEER": "control.reweighting=steer",
            "EntroPIC": "control.reweighting=entropic-weights",
        }.items()
    },
    ("staleness", "contrasts"): {
        **{
            (f"network, {condition}", "network, 8 updates old"): (setting, STALE_NETWORK)
            for condition, setting in {
                "fresh": "rollout.staleness=0",
                "ratio clipped at .2": "update.objective=clip",
                "OPSM": "control.correction=opsm",
            }.items()
        },
        **{
            (condition, "16 updates old"): (setting, STALE_TABLE)
            for condition, setting in {
                "fresh": "rollout.staleness=0",
                "ratio clipped at .2": "update.objective=clip",
                "TIS, token": "control.correction=tis",
                "MIS, token": "control.correction=mis",
                "IcePop": "control.correction=icepop",
                "seq-mask-TIS": "control.correction=seq-mask-tis",
                "decoupled": "control.correction=decoupled",
                "OPSM": "control.correction=opsm",
                "ESTR": "control.correction=estr",
            }.items()
        },
    },
    ("rise-and-collapse", "contrasts"): {
        (method, "naive"): (setting, "a chain of campaigns without a remedy")
        for method, setting in {
            "es-online": "campaign.controller=es-online",
            "es-budget": "campaign.controller=es-budget",
            "crest": "campaign.controller=crest",
            "care": "campaign.controller=care",
            "care-v1": "campaign.controller=care-v1",
            "care-v2": "campaign.controller=care-v2",
            "grpo": "update.advantage=grpo",
            "kl-fixed": "update.kl=fixed",
            "fisher-ewc": "update.kl=fisher",
        }.items()
    },
}


def write_evidence() -> None:
    """Write the table that `diagnose` reads. KeyError: a study no longer makes a comparison that is named here."""
    write_rows(OUT, [row for place in SETTINGS for row in rows_of(*place)])


def rows_of(study: str, table: str) -> Iterator[Row]:
    """The comparisons of one study, setting by setting."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in read_rows(HERE / study / f"{table}.csv"):
        found.setdefault((row["condition"], row["other"]), []).append(row)
    for pair, (setting, against) in SETTINGS[study, table].items():
        for row in found[pair]:
            if row["field"] in OUTCOMES:
                outcome, wanted = OUTCOMES[row["field"]]
                own = {"setting": setting, "against": against, "outcome": outcome, "wanted": wanted}
                numbers = {name: row[name] for name in ("n", "difference", "low", "high", "p_holm")}
                yield {**own, **numbers, "study": study}

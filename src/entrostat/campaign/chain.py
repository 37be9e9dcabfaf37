"""A chain: campaigns in sequence on the same weights, as a state machine that goes on from wherever it was killed.

    <chain>/campaign-00/   a run folder; outcome.json is written when its campaign is over
    <chain>/checkpoints/   hand-overs, named by their content

The state is the folder: the first campaign without an outcome is the one to run. Its start is the hand-over of the one
before, which is moved to checkpoints/ before the weights of that campaign are freed, so a kill at any moment leaves
either of the two.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrostat.campaign.engine import CampaignTrace, Checkpoint, Engine
from entrostat.campaign.single import CampaignOutcome, run_campaign
from entrostat.campaign.stopping import Controller
from entrostat.runs import Run, RunError, Trajectory, atomic_write

OUTCOME = "outcome.json"


@dataclass(frozen=True, slots=True)
class Campaign:
    """What a chain needs for one of its campaigns: the trainer, and how its run folder is made."""

    engine: Engine
    open_record: Callable[[Path, Checkpoint], Run]


def run_chain(
    campaigns: Sequence[Callable[[], Campaign]],
    controller: Controller,
    start: Checkpoint,
    folder: Path,
    *,
    kept: int = 1,
    listener: Callable[[int, CampaignOutcome], None] = lambda *_: None,
) -> list[CampaignOutcome]:
    """Run the campaigns that are still to run, and return the outcomes of all.

    campaigns: makes each campaign's parts when its turn comes. kept: how many hand-overs stay on the disk, the newest.
    listener: told of each campaign that ends. RunError: a folder of another chain, a damaged file, or no space.
    """
    outcomes: list[CampaignOutcome] = []
    while len(outcomes) < len(campaigns) and (past := read_outcome(campaign_folder(folder, len(outcomes)))):
        outcomes.append(past)
    if outcomes:
        start = _settle(folder, outcomes, kept)
    for number in range(len(outcomes), len(campaigns)):
        campaign, place = campaigns[number](), campaign_folder(folder, number)
        record = campaign.open_record(place, start)
        outcome = run_campaign(campaign.engine, controller, start, record, [past.trace for past in outcomes])
        _write_outcome(place, outcome)
        outcomes.append(outcome)
        start = _settle(folder, outcomes, kept)
        listener(number, outcome)
    return outcomes


def campaign_folder(chain: Path, number: int) -> Path:
    """The run folder of a chain's campaign."""
    return chain / f"campaign-{number:02d}"


def campaign_folders(chain: Path) -> list[Path]:
    """The run folders that a chain has so far, in order."""
    return sorted(path for path in chain.glob("campaign-*") if (path / "run.json").exists())


def read_hand_over(chain: Path, handed_over: Checkpoint) -> Checkpoint:
    """Where a chain keeps a checkpoint that a campaign handed over; the start of the next campaign."""
    return Checkpoint(chain / "checkpoints" / handed_over.path.name, 0)


def read_outcome(place: Path) -> CampaignOutcome | None:
    """The outcome of the campaign in the run folder `place`; None where it is not over. RunError: a damaged file."""
    file = place / OUTCOME
    if not file.exists():
        return None
    record = Run.open(place)
    select = record.evals("select")
    try:
        content = json.loads(file.read_bytes())
        found = {
            name: Checkpoint(place / "checkpoints" / kept["digest"], kept["step"])
            for name, kept in content["checkpoints"].items()
        }
        trace = CampaignTrace(
            Trajectory.from_evals(select),
            Trajectory.from_evals(record.evals("report")),
            found["start"],
            found["peak"],
            found["end"],
            confirmed=content["confirmed"],
            steps=record.steps(),
            evals=select,
        )
        return CampaignOutcome(trace, found["handed_over"], content["stopped"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{file}: damaged ({error}); restore the folder, or delete the chain's to run it anew"
        ) from error


def _write_outcome(place: Path, outcome: CampaignOutcome) -> None:
    trace = outcome.trace
    found = {"start": trace.start, "peak": trace.peak, "end": trace.end, "handed_over": outcome.handed_over}
    content: dict[str, Any] = {
        "checkpoints": {name: {"digest": kept.path.name, "step": kept.step} for name, kept in found.items()},
        "confirmed": trace.confirmed,
        "stopped": outcome.stopped,
    }
    atomic_write(place / OUTCOME, json.dumps(content, indent=1).encode() + b"\n")


def _settle(chain: Path, outcomes: Sequence[CampaignOutcome], kept: int) -> Checkpoint:
    """Move the last hand-over out of its campaign's folder, and free all weights but the newest hand-overs'."""
    handed_over = outcomes[-1].handed_over
    hand_over = read_hand_over(chain, handed_over)
    if not hand_over.path.exists() and handed_over.path.exists():
        hand_over.path.parent.mkdir(parents=True, exist_ok=True)
        handed_over.path.rename(hand_over.path)
    shutil.rmtree(handed_over.path.parent, ignore_errors=True)
    _free(chain, [read_hand_over(chain, past.handed_over) for past in outcomes[-kept:]])
    return hand_over


def _free(chain: Path, kept: Sequence[Checkpoint]) -> None:
    names = {checkpoint.path.name for checkpoint in kept}
    with suppress(FileNotFoundError):
        for path in (chain / "checkpoints").iterdir():
            if path.name not in names:
                doomed = path.with_name(f".freed-{path.name.removeprefix('.freed-')}")
                path.rename(doomed)  # half deleted, it has no digest's name
                shutil.rmtree(doomed, ignore_errors=True)

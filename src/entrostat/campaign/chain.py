"""A chain: campaigns in sequence on the same weights, resumable at any point.

    <chain>/campaign-00/   a run folder; outcome.json is written when its campaign is over. If the campaign continued
                           after a roll-back, it contains another run folder, after-roll-back/
    <chain>/checkpoints/   hand-overs, named by their content

The folder is the state: the first campaign without an outcome is the next to run. It starts from the hand-over of the
previous one, which is moved to checkpoints/ before the other weights of that campaign are deleted, so a kill at any
moment leaves one of the two. A folder that is not ours (`entrostat.runs.ownership`) is neither moved nor deleted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from entrostat.campaign.checkpoints import TAGS_FILE, link_kept
from entrostat.campaign.engine import CampaignTrace, Checkpoint
from entrostat.campaign.single import AFTER_ROLL_BACK, Campaign, CampaignOutcome, Lines, run_open_campaign, seam
from entrostat.runs import Run, RunError, Trajectory, atomic_write
from entrostat.runs.ownership import digest, is_digest, is_ours, remove_digests, whole_number

OUTCOME = "outcome.json"


OpenCampaign = Callable[[Path, Checkpoint], Campaign]  # called with the run folder and the checkpoint to start from


def run_chain(
    campaigns: Sequence[OpenCampaign],
    start: Checkpoint,
    folder: Path,
    *,
    kept: int = 1,
    listener: Callable[[int, CampaignOutcome], None] = lambda *_: None,
) -> list[CampaignOutcome]:
    """Run the campaigns that have no outcome yet, and return the outcomes of all.

    campaigns: opens each campaign when its turn comes. kept: how many hand-overs stay on disk, newest first.
    listener: called with each outcome. Raises RunError for a folder of another chain, a damaged file, or no space.
    """
    outcomes: list[CampaignOutcome] = []
    while len(outcomes) < len(campaigns) and (past := read_outcome(campaign_folder(folder, len(outcomes)))):
        outcomes.append(past)
    if outcomes:
        start = _settle(folder, outcomes, kept)
    for number in range(len(outcomes), len(campaigns)):
        place = campaign_folder(folder, number)
        campaign = campaigns[number](place, start)
        outcome = run_open_campaign(campaign, start, [past.trace for past in outcomes])
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
    """The chain's copy of a handed-over checkpoint, from which the next campaign starts."""
    return Checkpoint(chain / "checkpoints" / handed_over.path.name, 0)


def read_outcome(place: Path) -> CampaignOutcome | None:
    """The outcome of the campaign in the run folder `place`, None if it is not over. RunError: a damaged file."""
    first = _read_part(place)
    second = first and _read_part(place / AFTER_ROLL_BACK)
    return CampaignOutcome.of_parts(first, second) if first and second else first


def read_lines_of(place: Path, outcome: CampaignOutcome) -> Lines:
    """The lines of the finished campaign in the run folder `place`. RunError: a damaged file."""
    lines = Lines.of(Run.open(place))
    return seam(outcome.parts[0]).lines(lines, Lines.of(Run.open(place / AFTER_ROLL_BACK))) if outcome.parts else lines


def _read_part(place: Path) -> CampaignOutcome | None:
    file = place / OUTCOME
    if not file.exists():
        return None
    record = Run.open(place)
    select = record.evals("select")
    try:
        content = json.loads(file.read_bytes())
        checkpoints = {name: _checkpoint(place, name, kept) for name, kept in content["checkpoints"].items()}
        trace = CampaignTrace(
            Trajectory.from_evals(select),
            Trajectory.from_evals(record.evals("report")),
            checkpoints["start"],
            checkpoints["peak"],
            checkpoints["end"],
            confirmed=content["confirmed"],
            steps=record.steps(),
            evals=select,
        )
        return CampaignOutcome(trace, checkpoints["handed_over"], bool(content["stopped"]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, RunError) as error:
        raise RunError(
            f"{file}: damaged ({error}); restore the folder, or delete the chain's folder to run it again"
        ) from error


def _checkpoint(place: Path, name: str, kept: Any) -> Checkpoint:
    """The checkpoint of an outcome's entry. RunError: the entry is not a checkpoint."""
    folder = digest(kept["digest"], f"checkpoints.{name}.digest")
    return Checkpoint(place / "checkpoints" / folder, whole_number(kept["step"], f"checkpoints.{name}.step"))


def _write_outcome(place: Path, outcome: CampaignOutcome) -> None:
    """Write the outcome of a campaign, its second part first."""
    if outcome.parts:
        first, second = outcome.parts
        _write_outcome(place / AFTER_ROLL_BACK, second)
        _write_outcome(place, first)
        return
    trace = outcome.trace
    checkpoints = {"start": trace.start, "peak": trace.peak, "end": trace.end, "handed_over": outcome.handed_over}
    for name, kept in checkpoints.items():
        if kept.path.parent.absolute() != (place / "checkpoints").absolute() or not is_digest(kept.path.name):
            raise RunError(
                f"{place}: the engine returned {kept.path} as {name}; a chain accepts only those in the run folder's "
                "checkpoints/, named by the digest of their content"
            )
    content: dict[str, Any] = {
        "checkpoints": {name: {"digest": kept.path.name, "step": kept.step} for name, kept in checkpoints.items()},
        "confirmed": trace.confirmed,
        "stopped": outcome.stopped,
    }
    atomic_write(place / OUTCOME, json.dumps(content, indent=1).encode() + b"\n")


def _settle(chain: Path, outcomes: Sequence[CampaignOutcome], kept: int) -> Checkpoint:
    """Move the last hand-over out of its campaign's folder, and delete our weights except the newest hand-overs."""
    place = campaign_folder(chain, len(outcomes) - 1)
    _refuse_links(chain / "checkpoints", place, place / "checkpoints")
    _refuse_links(place / AFTER_ROLL_BACK, place / AFTER_ROLL_BACK / "checkpoints")
    handed_over = outcomes[-1].handed_over
    hand_over = read_hand_over(chain, handed_over)
    if not hand_over.path.exists() and handed_over.path.exists():
        if not is_ours(handed_over.path):
            raise RunError(
                f"{handed_over.path}: was changed after the campaign, so it is not handed over; "
                "remove what was added, or restore it"
            )
        hand_over.path.parent.mkdir(exist_ok=True)
        handed_over.path.rename(hand_over.path)
    _free_campaign(place)
    remove_digests(chain / "checkpoints", keep={past.handed_over.path.name for past in outcomes[-kept:]})
    return hand_over


def _refuse_links(*folders: Path) -> None:
    """RunError: one is a link, and what it leads to may belong to another run."""
    for folder in folders:
        if folder.is_symlink():
            raise RunError(
                f"{folder}: is a link, and a chain moves and deletes what is in it; put the folder itself there, or "
                "link the whole folder of the study"
            )


def _free_campaign(place: Path) -> None:
    """Delete the weights of a finished campaign, and their folders if these are then empty."""
    for checkpoints in (place / "checkpoints", place / AFTER_ROLL_BACK / "checkpoints"):
        remove_digests(checkpoints, keep=set())
        link_kept(checkpoints.parent, {})
        (checkpoints / TAGS_FILE).unlink(missing_ok=True)
        with suppress(OSError):
            checkpoints.rmdir()

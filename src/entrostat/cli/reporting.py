"""`report`, the figures and the headline table of runs; `export`, weights that a run kept as a model folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from entrostat.cli.progress import working
from entrostat.cli.screen import AsJson, cell, console, print_table, refuse_missing_model, refuse_missing_run, visible
from entrostat.errors import EntrostatError

CAPTION = (
    "pass@1 on the report split; peak@: where the select split peaked; floor: the gap that evaluation noise alone "
    "would show; kept: what the campaign hands over; H: entropy in nats per token"
)


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders with runs below them.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    as_json: AsJson = False,
) -> None:
    """Draw the figures of one or several runs and write them as one page.

    Example: entrostat report runs/demo/reinforce runs/demo/grpo-id --out demo.html
    """
    found = {run.resolve(): run for folder in reversed(runs) for run in reversed(_runs_of(folder))}
    show_runs(list(found.values())[::-1], out, as_json)


def _runs_of(folder: Path) -> list[Path]:
    """The folder itself if it is a run's, else every run below it; the part after a roll-back comes with its run."""
    below = [] if (folder / "run.json").exists() else sorted(file.parent for file in folder.rglob("run.json"))
    if not below:
        refuse_missing_run(folder)
    return [Path(os.path.normpath(run)) for run in below or [folder]]


def show_runs(runs: list[Path], page: Path, as_json: bool) -> None:
    """Write the report of the runs and print their headline table."""
    from entrostat.diagnosis import diagnose, read_log
    from entrostat.report import build_report, overview_figure, read_runs, save_figure, speed
    from entrostat.report.reading import summarise

    with working(f"reading {len(runs)} runs" if len(runs) > 1 else f"reading {runs[0]}"):
        loaded = read_runs(runs)
    with working("looking for what is wrong"):
        found = {run.name: diagnose(read_log(path)).findings for run, path in zip(loaded, runs, strict=True)}
    with working(f"drawing {page}"):
        build_report(loaded, page, list(found.values()))
        if len(runs) > 1:
            save_figure(overview_figure(loaded), page.with_name(f"{page.stem}-overview.png"))
    rows = [asdict(summarise(run)) for run in loaded]
    if as_json:
        typer.echo(json.dumps({"runs": rows, "report": str(page)}))
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=CAPTION, caption_justify="left")
    table.add_column("run", no_wrap=True)
    for heading in ("start", "peak@", "end", "gap", "floor", "kept", "H start", "H end", "steps"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        peak = "-" if row["peak"] is None else f"{row['peak']:.3f}@{row['peak_step']}"
        rest = ("end", "gap", "noise_floor", "handed_over", "entropy_start", "entropy_end", "steps")
        table.add_row(escape(visible(row["run"])), cell(row["start"]), peak, *(cell(row[field]) for field in rest))
    print_table(table)
    for run in loaded:
        console.print(_speed_line(visible(run.name), speed(run)), style="dim", markup=False)
    for name, findings in found.items():
        for finding in findings:
            console.print(_finding_line(visible(name), finding), style="yellow", markup=False, soft_wrap=True)
    for path in runs:
        if (kept := _kept(path)) is not None:
            console.print(visible(kept), style="dim", markup=False, soft_wrap=True)
    console.print(visible(f"report: {page}"), style="bold", markup=False, soft_wrap=True)


def _kept(run: Path) -> str | None:
    """Where the weights of a run's peak are, by the name that other commands take."""
    from entrostat.campaign.checkpoints import PEAK, read_tags

    peak = read_tags(run / "checkpoints").get(PEAK)
    return None if peak is None else f"{run}@peak: the weights of step {peak.step}, for eval, score and export"


def _finding_line(name: str, finding: Any) -> str:
    return f"{name}: {finding.severity} {finding.kind} since step {finding.onset}; see the page or `entrostat diagnose`"


def _speed_line(name: str, found: Any) -> str:
    rates = {"sampled": found.rollout_tokens, "learned": found.update_tokens}
    parts = [f"{what} {rate:,.0f} tokens/s" for what, rate in rates.items() if rate]
    shares = [f"{phase} {share:.0%}" for phase, share in found.shares.items()]
    return f"{name}: {', '.join(parts)}; {sum(found.seconds.values()):.0f} s: {', '.join(shares)}"


def export(
    model: Annotated[str, typer.Argument(help="What a run keeps: RUN@peak, RUN@end or RUN@start.")],
    out: Annotated[Path, typer.Argument(help="The folder to make; it must not exist.")],
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Also upload it, as your Hugging Face token allows.")
    ] = None,
) -> None:
    """Copy weights that a run kept into a model folder with a card made from the run.

    Example: entrostat export runs/grpo@peak models/grpo
    """
    refuse_missing_model(model)
    from entrostat.campaign.checkpoints import is_kept, kept_checkpoint
    from entrostat.report.card import copy_model, model_card

    if not is_kept(model):
        raise EntrostatError(
            f"{model}: not of the form RUN@peak, RUN@end or RUN@start; give a run's folder and one of these"
        )
    checkpoint = kept_checkpoint(model)
    run, _, kept = model.rpartition("@")
    card = model_card(Path(run).expanduser(), kept, checkpoint.step, push_to_hub or out.name)
    with working(f"copying to {out}"):
        copy_model(checkpoint.path, out, card)
    typer.echo(f"wrote {out}")
    if push_to_hub is None:
        return
    from huggingface_hub import HfApi

    with working(f"uploading to {push_to_hub}"):
        try:
            api = HfApi()
            api.create_repo(push_to_hub, exist_ok=True)
            api.upload_folder(folder_path=out, repo_id=push_to_hub)
        except Exception as error:  # the hub's own errors are of many kinds
            raise EntrostatError(f"{push_to_hub}: not uploaded ({error}); {out} holds the model, try again") from error
    typer.echo(f"uploaded to https://huggingface.co/{push_to_hub}")

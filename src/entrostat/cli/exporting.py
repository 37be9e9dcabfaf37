"""`export`: weights that a run kept, as a model folder with a card, for transformers or a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from entrostat.cli.progress import working
from entrostat.cli.screen import refuse_missing_model
from entrostat.errors import EntrostatError


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

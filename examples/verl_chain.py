"""A chain of campaigns over verl: each starts from what the one before handed over, and all of it resumes.

    pip install 'entrostat[verl]' and the rollout engine that verl's own guide names (vllm or sglang)
    python examples/verl_chain.py --model models/Qwen2.5-Math-7B --controller es-online --campaigns 3 --steps 100 \\
        --every 5 --save-every 20 --config-dir examples --config-name verl_id_8gpu \\
        data.train_files=train.parquet data.val_files=held_out.parquet

What the parser does not know goes to verl's command line, options before overrides. held_out.parquet holds both splits:

    from datasets import load_dataset

    def assign(row, index):
        return {"extra_info": {**row["extra_info"], "split": "report" if index % 2 else "select", "index": index}}

    rows = load_dataset("parquet", data_files="test.parquet")["train"]
    rows.map(assign, with_indices=True).to_parquet("held_out.parquet")
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from entrostat.campaign import Campaign, CampaignOutcome, Checkpoint
from entrostat.campaign.chain import run_chain
from entrostat.integrations.verl.engine import VerlEngine
from entrostat.recipe import build_campaign_controller, parse_recipe
from entrostat.runs import Run


def main(arguments: Sequence[str] | None = None) -> list[CampaignOutcome]:
    """Run the chain, or resume it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the folder that the first campaign starts from")
    parser.add_argument("--controller", default="es-online", help="as campaign.controller in a recipe")
    parser.add_argument("--campaigns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="verl's training steps per campaign")
    parser.add_argument("--every", type=int, default=5, help="steps between evaluations; 0 leaves them to crest")
    parser.add_argument("--save-every", type=int, default=20, help="steps between verl's checkpoints")
    parser.add_argument("--out", type=Path, default=Path("runs/verl-chain"))
    args, verls = parser.parse_known_args(arguments)

    recipe = {"name": "verl-chain", "campaign": {"steps": args.steps, "controller": args.controller}}
    engine = VerlEngine(verls, every=args.every or None, save_every=args.save_every)
    controller = build_campaign_controller(parse_recipe(recipe))

    def open_campaign(place: Path, start: Checkpoint) -> Campaign:
        hashes = {"start": start.path.name}
        return Campaign(engine, controller, Run.create(place, {**recipe, "verl": verls}, 0, hashes, versions={}))

    outcomes = run_chain([open_campaign] * args.campaigns, Checkpoint(args.model, 0), args.out)
    for number, outcome in enumerate(outcomes):
        print(f"campaign {number}: {outcome.trace.steps_used} steps, hands over step {outcome.handed_over.step}")
    return outcomes


if __name__ == "__main__":
    main()

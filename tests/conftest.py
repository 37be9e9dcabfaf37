"""Before any test: Triton reads where to run when it is imported, and other libraries import it too."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

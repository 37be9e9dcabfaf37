"""Processes that tests start and kill, forked so that they do not import torch again."""

import multiprocessing
import time

import torch

CONTEXT = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")  # a GPU's state is not forked


def killed(work, when):
    """Run `work` in a process and kill that once `when()`; whether it had not ended by itself."""
    process = CONTEXT.Process(target=work)
    process.start()
    while process.is_alive() and not when():
        time.sleep(0.01)
    alive = process.is_alive()
    process.kill()  # its children die with it
    process.join()
    return alive

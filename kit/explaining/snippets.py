"""The approaches as plain PyTorch code without the kit. Each snippet defines ``run``."""

from __future__ import annotations

import re

SEQUENTIAL = """\
import torch

torch.set_num_threads({threads})  # intra-op threads of each operator


@torch.inference_mode()
def run(branches, merge, inputs):
    return merge([branch(x) for branch, x in zip(branches, inputs, strict=True)])
"""

THREADS = """\
from concurrent.futures import ThreadPoolExecutor

import torch


def start():
    torch.get_num_threads()  # call it once before set_num_threads(): then the setting is kept
    torch.set_num_threads({threads})


pool = ThreadPoolExecutor({workers}, initializer=start)


def one(branch, x):
    with torch.inference_mode():  # modes are per thread
        return branch(x)


@torch.inference_mode()
def run(branches, merge, inputs):
    done = [pool.submit(one, branch, x) for branch, x in zip(branches, inputs, strict=True)]
    return merge([each.result() for each in done])
"""

PROCESSES = """\
# Save this as a file: worker processes import it. Keep the pool; starting it takes a second.
import torch
from torch import multiprocessing


def load(branches, threads):
    global loaded
    loaded = branches
    torch.set_num_threads(threads)


def one(i, x):
    with torch.inference_mode():
        return loaded[i](x).numpy()


def start(branches):
    return multiprocessing.get_context("spawn").Pool({workers}, load, (branches, {threads}))


@torch.inference_mode()
def run(pool, merge, inputs):
    outputs = pool.starmap(one, enumerate(inputs), chunksize=1)
    return merge([torch.from_numpy(x) for x in outputs])
"""

_KINDS = {"sequential": SEQUENTIAL, "threads": THREADS, "processes": PROCESSES}


def snippet(approach: str, lanes: int, threads: int) -> str | None:
    """Code that runs ``branches`` on their ``inputs`` as an approach does; None if there is no short form.

    Args:
        approach: its name as in a comparison, such as ``threads(workers=2)``.
        lanes: number of workers.
        threads: intra-op threads of each worker.
    """
    text = _KINDS.get(re.split(r"\W", approach)[0])
    about = f"# {approach}. branches: modules; inputs: one for each branch; [x] * len(branches) if all get the same.\n"
    return text and about + text.replace("{workers}", str(lanes)).replace("{threads}", str(threads))

"""The approaches in plain PyTorch, without the kit: what a learner takes home. Each defines ``run``."""

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
    torch.get_num_threads()  # asked first: a new thread takes over the number that was last set anywhere
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
    """What an approach does with ``branches`` on their ``inputs``, as runnable text; None where there is no short form.

    Args:
        approach: as in a comparison, ``threads(workers=2)``.
        lanes: workers.
        threads: intra-op threads of each.
    """
    text = _KINDS.get(re.split(r"\W", approach)[0])
    about = f"# {approach}. branches: modules; inputs: one for each, [x] * len(branches) where all get the same.\n"
    return text and about + text.replace("{workers}", str(lanes)).replace("{threads}", str(threads))

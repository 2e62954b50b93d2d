"""The approaches in plain PyTorch, without the kit: what a learner takes home. Each defines ``run``."""

from __future__ import annotations

import re

SEQUENTIAL = """\
import torch

torch.set_num_threads({threads})  # intra-op threads of each operator


@torch.inference_mode()
def run(branches, merge, inputs):
    return merge([branch(x) for branch, x in zip(branches, inputs)])
"""

THREADS = """\
from concurrent.futures import ThreadPoolExecutor

import torch

pool = ThreadPoolExecutor({workers}, initializer=torch.set_num_threads, initargs=({threads},))


def one(branch, x):
    with torch.inference_mode():  # modes are per thread
        return branch(x)


@torch.inference_mode()
def run(branches, merge, inputs):
    return merge(list(pool.map(one, branches, inputs)))
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
    return text and text.replace("{workers}", str(lanes)).replace("{threads}", str(threads))

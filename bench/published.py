"""``python -m bench.published [NAME ...]``: networks of the published table, at their sizes: a step against a window.

Counts what each costs beside the published figures, and measures those that are named, at batch 1 and 8, with the
kernels that PyTorch chooses and with oneDNN for every convolution. CPU time of one thread, so that a busy machine can
measure too. Appends to ``build/bench_published.jsonl``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from kit.labs.continual import kernels_in_words
from kit.workloads.published import PUBLISHED, clocked, counted_by_name

ROUNDS, OUT = 9, Path("build/bench_published.jsonl")


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for name, (window, step) in counted_by_name().items():
        print(f"{name:10} published {PUBLISHED[name]}; counted: window {window}, step {step}", flush=True)
    OUT.parent.mkdir(exist_ok=True)
    for name in sys.argv[1:]:
        name, _, batch = name.partition(":")
        frames, side = PUBLISHED[name].clip
        clip, batches = torch.randn(1, 3, frames, side, side), [int(batch)] if batch else [1, 8]
        for found in clocked(
            name, PUBLISHED[name].make(), clip, rounds=ROUNDS, batches=batches, clock=time.thread_time_ns
        ):
            print(f"{name}, batch {found.batch}, MACs ratio {found.ratio:.1f}\n{found.comparison}")
            ran = {row.name: kernels_in_words(row.kernels or {}) for row in found.comparison.rows}
            print(json.dumps(ran, indent=1), flush=True)
            with OUT.open("a") as file:
                rows = [row.to_dict() | {"kernels": ran[row.name]} for row in found.comparison.rows]
                file.write(json.dumps({"name": name, "batch": found.batch, "macs": found.ratio, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()

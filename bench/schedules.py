"""``python -m bench.schedules [NAME ...]``: what schedules on lanes gain for networks of other people.

A table for each network of :mod:`bench.zoo` that is named, or for those below: the model as given on all cores, the
same on one thread, branches on threads, schedules by each policy, and the peers that are installed, in paired rounds.
"""

from __future__ import annotations

import sys

import torch

import kit
from bench.zoo import entries
from kit.errors import KitError

NETWORKS = (
    *("nasnet_4a1056", "pnasnet5large", "darts", "hrnetv2_w18"),
    *("inceptionv3", "inceptionv4", "bninception", "resnet18"),
)
APPROACHES = ("sequential", "sequential(threads=1)", "threads", "scheduled", "scheduled(policy=wavefront)")


def main(names: list[str], rounds: int = 20) -> None:
    known = {entry.name: entry for entry in entries()}
    for name in names or NETWORKS:
        torch.manual_seed(0)
        model, inputs = known[name].make()
        try:
            comparison = kit.compare(model.eval(), inputs, list(APPROACHES), rounds=rounds, progress=False)
        except KitError as error:
            print(f"{name}: {error}")
            continue
        print(f"\n{name}\n{comparison}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

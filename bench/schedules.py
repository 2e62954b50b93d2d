"""``python -m bench.schedules [NAME ...]``: what schedules on lanes gain for networks of other people.

For each network of :mod:`bench.zoo` that is named, or for those below, in paired rounds: the model as given on all
cores, the same on one thread, branches on threads, schedules by each policy, the best composition, and the peers that
are installed. Then the schedule's prediction beside what was measured. ``compiled`` can take minutes to prepare: it is
measured only where it is named too, as in ``python -m bench.schedules darts compiled``.
"""

from __future__ import annotations

import sys

import torch

import kit
from bench.zoo import entries
from kit import models
from kit.errors import KitError

NETWORKS = (
    *("nasnet_4a1056", "pnasnet5large", "darts", "hrnetv2_w18", "inceptionv3", "inceptionv4", "googlenet"),
    *("bninception", "densenet121", "resnet18"),
)
APPROACHES = (
    *("sequential", "sequential(threads=1)", "threads", "scheduled", "scheduled(policy=stages)"),
    *("scheduled(policy=wavefront)", "folded + channels_last + packed", "folded + channels_last + packed + scheduled"),
    *("onnxruntime", "openvino"),
)


def main(names: list[str], rounds: int = 20) -> None:
    known = {entry.name: entry.make for entry in entries()}
    known["googlenet"] = lambda: (models.googlenet(), torch.rand(1, 3, 224, 224))
    approaches = [*APPROACHES, *(["compiled"] if "compiled" in names else [])]
    for name in [name for name in names if name != "compiled"] or NETWORKS:
        torch.manual_seed(0)
        model, inputs = known[name]()
        model = model.eval()
        try:
            comparison = kit.compare(model, inputs, approaches, rounds=rounds, progress=False, patience=60)
            schedule = kit.schedule(model, inputs, progress=False)
        except KitError as error:
            print(f"{name}: {error}")
            continue
        print(f"\n{name}\n{comparison}\n{schedule}\n{schedule.what_if(8)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

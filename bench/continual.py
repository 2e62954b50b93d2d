"""``python -m bench.continual``: a step of the kit against the library's, and against a sliding window.

One intra-op thread, so that a row compares work and not how well it splits; the last rows use all cores. PyTorch picks
kernels by shapes, batch size and threads, so every row says which ones ran, and steps are compared on oneDNN as well.
Against a window best stands against best: channels last, folded batch norms, merged heads and oneDNN for both sides;
then what each brings by itself. Writes ``build/bench_continual.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kit.labs.continual import kernels_in_words, parts_table, parts_told
from kit.models import inception3d_block
from kit.models.continual import shallow_two_stream_3d
from kit.transforms import Transform
from kit.transforms.folded import Folded
from kit.transforms.merged import Merged
from kit.workloads.continual import WindowVersusStep, live_clip, window_versus_step
from kit.workloads.step_parts import step_parts, step_times

ROUNDS = 10
ONE_THREAD = "sequential(threads=1)"
OUT = Path("build/bench_continual.json")
CONDITIONS: dict[str, tuple[Sequence[Transform], bool]] = {
    "as they are": ((), False),
    "channels last": ((), True),
    "merged": ((Merged(),), False),
    "folded": ((Folded(),), False),
    "channels last, folded, merged": ((Folded(), Merged()), True),
}


def steps(model: nn.Module, clip: torch.Tensor) -> dict[str, Any]:
    """A window, and a step of the library and of the kit, on PyTorch's choice of kernels and on oneDNN."""
    found = step_times(model, clip, rounds=ROUNDS)
    print(found)
    for line in found.rows:
        print(f"  {line.name:20} convolutions on {kernels_in_words(line.kernels or {})}")
    return found.to_dict()


def taken_apart(model: nn.Module, clip: torch.Tensor) -> dict[str, Any]:
    """What the two steps are made of."""
    parts = step_parts(model, clip, rounds=ROUNDS)
    print(f"{parts_table(parts)}\n{parts_told(parts)}")
    return {
        "ms": {side: parts.ms(side) for side in parts.timings},
        "between equal kernels": parts.comparison["kit_onednn"].ratio,
    }


def against(model: nn.Module, clip: torch.Tensor, **options: Any) -> WindowVersusStep:
    return window_versus_step(model, clip, approach=ONE_THREAD, rounds=ROUNDS, **{"one_dnn": True, **options})


def row(name: str, found: WindowVersusStep) -> dict[str, Any]:
    ran = [kernels_in_words(kernels) for kernels in found.kernels.values()]
    share = "other kernels" if found.exchanges else f"realised {found.realised.estimate:.2f}"
    took = f"{name:44} {found.window_ms:8.2f} {found.step_ms:8.2f} ms  {found.counted:6.2f}x {found.measured}"
    print(f"{took}  {share}  same: {found.equality}  convolutions: {ran[0]} / {ran[1]}")
    values = ("window_ms", "step_ms", "window_macs", "step_macs", "measured", "equality", "counted", "realised")
    return {"name": name, "convolutions": ran, **{value: getattr(found, value) for value in values}}


def main() -> None:
    block, clip = inception3d_block(), torch.randn(1, 192, 16, 28, 28).relu()
    alone = {f"batch {n}": steps(block, clip[:, :, :6].repeat(n, 1, 1, 1, 1)) for n in (1, 2)}
    alone["parts"] = taken_apart(block, clip[:, :, :6])
    print(f"\n{'':44} {'window':>8} {'step':>8}     counted measured [95%]")
    rows = [
        row(f"Inception 3-D, {name}", against(block, clip, transforms=transforms, channels_last=channels_last))
        for name, (transforms, channels_last) in CONDITIONS.items()
    ]
    rows.append(row("Inception 3-D, as PyTorch chooses", against(block, clip, one_dnn=False)))
    for length in (8, 64):
        clip = torch.randn(1, 192, length, 28, 28).relu()
        rows.append(row(f"Inception 3-D, {length} frames", against(block, clip)))
    small = inception3d_block(64, (24, 32, 48, 8, 12, 12))
    for batch in (1, 4, 8, 32):
        clip = torch.randn(batch, 64, 16, 14, 14).relu()
        rows.append(row(f"a smaller one, batch {batch}", against(small, clip)))
    shallow = shallow_two_stream_3d()
    for approach in (ONE_THREAD, "sequential", "threads"):
        found = window_versus_step(shallow, live_clip(), approach=approach, rounds=ROUNDS)
        rows.append(row(f"two-stream 3-D, {approach}", found))
        print(f"{'':44} {1000 / found.window_ms:8.1f} {1000 / found.step_ms:8.1f} frames/s")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"steps": alone, "against window": rows}, indent=2, default=lambda x: x.item()) + "\n")


if __name__ == "__main__":
    main()

"""``python -m bench.continual``: a step of the kit against the library's, and against a sliding window.

Best against best: channels last, folded batch norms and merged heads for both sides; then what each brings by itself.
One intra-op thread, so that a row compares work and not how well it splits; the last rows use all cores.
Writes ``build/bench_continual.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.peers import Bare
from kit.measure import measure, speed_up
from kit.models import inception3d_block
from kit.models.continual import shallow_two_stream_3d, stepper
from kit.transforms import Transform
from kit.transforms.channels_last import channels_last
from kit.transforms.folded import Folded
from kit.transforms.merged import Merged
from kit.workloads.continual import Against, OneStep, against_window, live_clip, of_library

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
    """Median ms of a step: ours as it is and at its best, the library's with either memory format."""
    library = {}
    for name, change in (("library", lambda x: x), ("library, channels last", channels_last)):
        net = of_library(model).eval()
        for parameter in net.parameters():
            parameter.data = change(parameter.data)
        frames = [change(clip[:, :, t]) for t in range(clip.shape[2])]
        with torch.inference_mode():
            for frame in frames:
                net.forward_step(frame)
        library[name] = Bare(lambda net=net, frame=frames[-1]: net.forward_step(frame), 1)
    with torch.no_grad():
        best = stepper(Merged().apply(Folded().apply(model, (clip,)), (clip,)))
    for parameter in best.parameters():
        parameter.data = channels_last(parameter.data)
    own = {
        "ours": OneStep(stepper(model), clip),
        "ours, best": OneStep(best, channels_last(clip)),
    }
    ours = {name: Bare(lambda step=step, frames=step.frames: step(*frames), 1) for name, step in own.items()}
    timings = measure({**library, **ours}, (), rounds=ROUNDS)
    return {
        name: {"ms": timing.median_ms, "over library": speed_up(timings["library"], timing)}
        for name, timing in timings.items()
    }


def against(model: nn.Module, clip: torch.Tensor, **options: Any) -> Against:
    return against_window(model, clip, approach=ONE_THREAD, rounds=ROUNDS, **options)


def row(name: str, found: Against) -> dict[str, Any]:
    print(
        f"{name:44} {found.window_ms:8.2f} {found.step_ms:8.2f} ms  {found.counted:6.2f}x {found.measured}"
        f"  realised {found.realised:.2f}  same: {found.equality}"
    )
    return {"name": name, "counted": found.counted, "realised": found.realised, **vars(found)}


def main() -> None:
    block, clip = inception3d_block(), torch.randn(1, 192, 16, 28, 28).relu()
    alone = steps(block, clip)
    for name, values in alone.items():
        print(f"{name:44} {values['ms']:8.2f} ms  {values['over library']}")
    print(f"\n{'':44} {'window':>8} {'step':>8}     counted measured [95%]")
    rows = [
        row(f"Inception 3-D, {name}", against(block, clip, transforms=transforms, last=last))
        for name, (transforms, last) in CONDITIONS.items()
    ]
    for length in (8, 64):
        clip = torch.randn(1, 192, length, 28, 28).relu()
        rows.append(row(f"Inception 3-D, {length} frames", against(block, clip)))
    small = inception3d_block(64, (24, 32, 48, 8, 12, 12))
    for batch in (1, 4, 8, 32):
        clip = torch.randn(batch, 64, 16, 14, 14).relu()
        rows.append(row(f"a smaller one, batch {batch}", against(small, clip)))
    shallow = shallow_two_stream_3d()
    for approach in (ONE_THREAD, "sequential", "threads"):
        found = against_window(shallow, live_clip(), approach=approach, rounds=ROUNDS)
        rows.append(row(f"two-stream 3-D, {approach}", found))
        print(f"{'':44} {1000 / found.window_ms:8.1f} {1000 / found.step_ms:8.1f} frames/s")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"steps": alone, "against window": rows}, indent=2, default=lambda x: x.item()) + "\n")


if __name__ == "__main__":
    main()

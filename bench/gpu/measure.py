"""``python -m bench.gpu.measure``: one comparison or one trace, in this process, which makes nothing else.

Of several profiles of CUDA in one process the later ones are not to be trusted; so each trace has its own process.
Inputs are random numbers: the workloads of ``kit compare`` need OpenCV for their clip, which a server may lack.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import kit
from bench.gpu import copies
from bench.gpu.machine import described
from kit import models
from kit.approaches import Workload
from kit.errors import KitError
from kit.recorder import record_call
from kit.trace import Trace, check_launches, load_trace, save_trace, stack

ROUNDS = 30
MOST_BYTES = 1_000_000  # of a trace, so that it stays small in git
COPIES = "copies"
STAND_IN = "threads"  # on the CPU, of every approach that needs a GPU


class Network(NamedTuple):
    """A network with the sizes of its inputs, and a small one for a dry run."""

    make: Callable[[], nn.Module]
    sizes: tuple[tuple[int, ...], ...]  # without the batch
    make_tiny: Callable[[], nn.Module]
    tiny_sizes: tuple[tuple[int, ...], ...]


NETWORKS = {
    "two-stream": Network(
        models.two_stream, ((3, 112, 112), (20, 112, 112)), models.toy_two_stream, ((3, 25, 25), (2, 25, 25))
    ),
    "inception-block": Network(models.inception_block, ((192, 35, 35),), models.inception_block, ((192, 9, 9),)),
    "googlenet": Network(models.googlenet, ((3, 224, 224),), lambda: models.googlenet(width=0.25), ((3, 32, 32),)),
    "inception-v3": Network(
        models.inception_v3, ((3, 299, 299),), lambda: models.inception_v3(width=0.25), ((3, 75, 75),)
    ),
}


def workload(network: str, batch: int, device: str) -> Workload:
    """A network on random inputs of this batch; on the CPU the small one."""
    known = NETWORKS[network]
    make, sizes = (known.make, known.sizes) if device == "cuda" else (known.make_tiny, known.tiny_sizes)
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(batch, *size, generator=generator).to(device) for size in sizes)
    return Workload(network, make().to(device), inputs)


def compare(options: argparse.Namespace) -> None:
    """Measure, print the table, and keep it twice: a summary as JSON, and beside it all samples for ``kit show``."""
    work = workload(options.network, options.batch, options.device)
    found = kit.compare(work, approaches=options.approaches, rounds=ROUNDS, budget=options.budget, progress=False)
    about = about_of(options)
    kept = {key: about[key] for key in ("command", "versions", "machine")}
    found = replace(found, about=replace(found.about, **kept))
    print(found)
    found.save(options.out.with_suffix(".all.json.gz"))
    plain = {"workload": options.network, "batch": options.batch, "about": about, **found.to_dict()}
    options.out.write_text(json.dumps(plain, indent=2) + "\n")


def record(options: argparse.Namespace) -> None:
    """Record one warm call, and keep its trace."""
    if options.network == COPIES:
        with copies.runner(options.approach, options.device) as runner:
            trace = record_call(runner)
        group = options.approach
    else:
        group = options.approach if options.device == "cuda" or options.approach == "sequential" else STAND_IN
        work = workload(options.network, options.batch, options.device)
        with closing(work.prepare(group)) as runner:
            trace = record_call(runner)
    keep(replace(stack({group: trace}), about=about_of(options)), options.out)


def keep(trace: Trace, path: Path) -> None:
    """Save a trace that is sound and small enough to be kept in git.

    Raises:
        KitError: the file is too large, or another trace when it is read again; it is removed.
        TraceError: a kernel starts before its launch.
    """
    check_launches(trace)
    save_trace(trace, path)
    size, again = path.stat().st_size, load_trace(path)
    if size > MOST_BYTES:
        path.unlink()
        raise KitError(f"{path.name} has {size:,} bytes, and {MOST_BYTES:,} are the most: record a smaller call.")
    if len(again) != len(trace) or again.about != trace.about:
        path.unlink()
        raise KitError(f"{path.name} is another trace when it is read again: {again.size} instead of {trace.size}.")
    print(f"{path.name}: {trace.size}, {size:,} bytes")


def about_of(options: argparse.Namespace) -> dict[str, Any]:
    """Where a result comes from, with the command that makes it again, which does not name this machine's folders."""
    asked = sys.argv[1:]
    at = asked.index("--out")
    command = " ".join(["python", "-m", "bench.gpu.measure", *asked[:at], *asked[at + 2 :]])
    return {**described(options.device), "command": command, "workload": options.network, "batch": options.batch}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.measure")
    commands = parser.add_subparsers(required=True)
    for name, call, networks in (
        ("compare", compare, [*NETWORKS]),
        ("trace", record, [*NETWORKS, COPIES]),
    ):
        verb = commands.add_parser(name, help=(call.__doc__ or "").splitlines()[0])
        verb.add_argument("network", choices=networks)
        if name == "compare":
            verb.add_argument("--approaches", required=True)
            verb.add_argument("--budget", type=float, required=True, help="seconds")
        else:
            verb.add_argument("approach", help=f"of {COPIES}: {', '.join(copies.KINDS)}")
        verb.add_argument("--batch", type=int, default=1)
        verb.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
        verb.add_argument("--out", type=Path, required=True)
        verb.set_defaults(run=call)
    options = parser.parse_args()
    try:
        options.run(options)
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What ``make gpu`` does, the most important first. A dry run has the same steps, each with its stand-in on the CPU."""

from __future__ import annotations

from pathlib import Path

from bench.gpu.steps import Step

APPROACHES = "sequential,cuda_streams,cuda_streams_threads,graphed,graphed_streams,compiled"
APPROACHES_DRY = "sequential,threads,cuda_streams,cuda_streams_threads,graphed,graphed_streams"  # compiling takes long
# Network -> seconds of a comparison. Compiling comes last in each, and takes most of them.
COMPARED = {"two-stream": 30, "inception-v3": 60, "googlenet": 45}
BATCHES = (1, 8, 32)
RECORDED = ("sequential", "cuda_streams", "graphed", "graphed_streams")  # beside what launches from threads
COPIES = ("pageable-one_stream", "pageable-overlap", "pinned-one_stream", "pinned-overlap")
STARTS_S = 10  # seconds until a process has imported torch, and the GPU has its context


def machine_step(out: Path, device: str) -> Step:
    """What this machine is: without it nothing else can run."""
    return Step(
        "machine", ("-m", "bench.gpu.machine", "--device", device, "--out", str(out)), (out,), expected_s=0, limit_s=90
    )


def steps(folder: Path, device: str, prefix: str) -> list[Step]:
    """Everything after that.

    Args:
        folder: where results go.
        device: ``cuda``, or ``cpu`` for a dry run.
        prefix: of the names of traces: the GPU's, as ``h200``.
    """

    def compared(batch: int) -> list[Step]:
        return [_compare(folder, device, network, batch) for network in COMPARED]

    def recorded(network: str, approaches: tuple[str, ...], batch: int = 1) -> list[Step]:
        return [_trace(folder, device, prefix, network, approach, batch) for approach in approaches]

    return [
        _tests(folder),
        *recorded("inception-block", (*RECORDED, "cuda_streams_threads")),
        *recorded("copies", COPIES),
        *compared(1),
        *recorded("inception-v3", RECORDED),
        *compared(32),
        *recorded("inception-block", ("sequential", "cuda_streams"), batch=32),  # whose kernels fill the GPU
        *compared(8),
    ]


def _tests(folder: Path) -> Step:
    out = folder / "tests.xml"
    options = ["-m", "gpu", "--ignore=tests/browser", "-p", "no:xdist", "-p", "no:cacheprovider", f"--junitxml={out}"]
    return Step("tests", ("-m", "pytest", *options, "tests"), (out,), expected_s=40, limit_s=180)


def _compare(folder: Path, device: str, network: str, batch: int) -> Step:
    name = f"{network}-batch{batch}"
    out = folder / "comparisons" / f"{name}.json"
    approaches, seconds = (APPROACHES, COMPARED[network]) if device == "cuda" else (APPROACHES_DRY, 10)
    command = [*_measure("compare", network), "--approaches", approaches, "--budget", str(seconds)]
    files = (out, out.with_suffix(".all.json.gz"))
    return Step(
        f"compare-{name}",
        (*command, *_where(batch, device, out)),
        files,
        STARTS_S + seconds / 2,
        4 * STARTS_S + 1.4 * seconds,
    )


def _trace(folder: Path, device: str, prefix: str, network: str, approach: str, batch: int) -> Step:
    of = network if network == "copies" else f"{network}-batch{batch}"
    out = folder / "traces" / f"{prefix}-{of}-{approach}.json.gz"
    command = (*_measure("trace", network), approach, *_where(batch, device, out))
    return Step(f"trace-{of}-{approach}", command, (out,), STARTS_S, 6 * STARTS_S)


def _measure(verb: str, network: str) -> tuple[str, ...]:
    return ("-m", "bench.gpu.measure", verb, network)


def _where(batch: int, device: str, out: Path) -> tuple[str, ...]:
    return ("--batch", str(batch), "--device", device, "--out", str(out))

"""The checks of ``python -m kit doctor``: what is missing on this machine, and what to do about it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from kit.machine.hardware import CORE_PACKAGES, LAB_PACKAGES, Hardware
from kit.reprs import one_line
from kit.text import GIB, bytes_text, counted


@one_line
@dataclass(frozen=True)
class Finding:
    """One finding about this machine, and what to do about it."""

    status: Literal["OK", "WARN", "FAIL"]  # FAIL: the kit cannot run; WARN: it can, with something missing
    what: str  # what was found
    do: str = ""  # what the reader can do; empty where all is well

    def to_dict(self) -> dict[str, str]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"[{self.status}] {self.what}" + (f" - {self.do}" if self.do else "")


def checks(hardware: Hardware, load: float) -> list[Finding]:
    """What a learner should know about this machine before the first notebook, in reading order.

    Args:
        hardware: as :func:`detect` found it, once: it does not change.
        load: the current load average, from :func:`kit.machine.load.load_average`.
    """
    return [
        _check_packages(hardware, "core", CORE_PACKAGES, "FAIL"),
        _check_packages(hardware, "lab", LAB_PACKAGES, "WARN"),
        *_check_cores(hardware),
        *_check_load(hardware, load),
        _check_memory(hardware),
        _check_shm(hardware),
        _check_compiler(hardware),
        _check_gpu(hardware),
    ]


def report(findings: Iterable[Finding]) -> str:
    """The findings as lines: ``[OK] what`` or ``[WARN] what - what to do``."""
    return "\n".join(map(str, findings))


# Checks -------------------------------------------------------------------------------------------------------------


def _check_packages(hardware: Hardware, part: str, least: Mapping[str, str], bad: Literal["WARN", "FAIL"]) -> Finding:
    found = {name: hardware.packages.get(name) for name in least}
    faults = [f"{name} is missing" for name, version in found.items() if version is None]
    faults += [
        f"{name} {version} is older than {least[name]}"
        for name, version in found.items()
        if version is not None and _numbers(version) < _numbers(least[name])
    ]
    if faults:
        return Finding(bad, f"{part} packages: {', '.join(faults)}", "run `pip install -c constraints.txt -e .[lab]`")
    versions = f"Python {hardware.python}, torch {hardware.torch}" if part == "core" else "JupyterLab and the widgets"
    return Finding("OK", f"{part} packages: all {len(least)} present ({versions})")


def _check_cores(hardware: Hardware) -> Iterator[Finding]:
    quota = "none" if hardware.cgroup_cores is None else f"{hardware.cgroup_cores:g}"
    what = f"{counted(hardware.cores, 'core')} usable (affinity {hardware.affinity}, cgroup limit {quota})"
    if hardware.cores == 1:
        yield Finding("WARN", what, "branches cannot overlap on one core: give the container or the process more cores")
    elif hardware.cores < hardware.affinity:
        # torch and OpenCV size their pools by affinity, so the quota throttles them in the middle of a measurement.
        do = f"libraries will start {hardware.affinity} threads: set OMP_NUM_THREADS={hardware.cores} before starting"
        yield Finding("WARN", what, do)
    else:
        yield Finding("OK", what)


def _check_load(hardware: Hardware, load: float) -> Iterator[Finding]:
    if load > hardware.cores / 2:
        do = "close other programs before measuring, or timings will vary a lot between rounds"
        what = f"the cores are busy: a load average of {load:.1f} on {counted(hardware.cores, 'core')}"
        yield Finding("WARN", what, do)
        if hardware.cores > 1 and _waits_by_spinning():
            yield Finding(
                "WARN",
                "the threads of an operator wait for each other by spinning: while another program runs on the core "
                "of one thread, the other threads wait and keep their cores busy, and an operator takes many times as "
                "long",
                "set OMP_WAIT_POLICY=passive before Python starts, or use one thread for each operator; where nothing "
                "else runs that costs time: notebook 03_threads_and_cores measures both",
            )


def _waits_by_spinning() -> bool:
    """Whether OpenMP's threads keep their cores busy while they wait, which is the default."""
    told, spins = (os.environ.get(name, "").strip().lower() for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"))
    return spins != "0" if spins else told != "passive"


def _check_memory(hardware: Hardware) -> Finding:
    what = f"{bytes_text(hardware.memory_bytes)} of memory"
    if hardware.memory_bytes is None:
        return Finding("WARN", what, "make sure that at least 4 GiB are free")
    if hardware.memory_bytes < 3.5 * GIB:  # a machine sold as 4 GB shows a little less
        return Finding(
            "WARN", what, "the larger notebooks need 4 GiB: close programs or raise the container's memory limit"
        )
    return Finding("OK", what)


def _check_shm(hardware: Hardware) -> Finding:
    if hardware.shm_bytes is None:
        return Finding("OK", "no /dev/shm: this platform has another mechanism for shared memory")
    what = f"/dev/shm has {bytes_text(hardware.shm_bytes)}"
    if hardware.shm_bytes < GIB:
        do = "worker processes may die with a bus error: start the container with --shm-size=1g (the default is 64 MB)"
        return Finding("WARN", what, do)
    return Finding("OK", what)


def _check_compiler(hardware: Hardware) -> Finding:
    if hardware.cxx is None:
        return Finding("WARN", "no C++ compiler: torch.compile cannot run on the CPU", "install g++ (or clang++)")
    if not hardware.python_headers:
        do = "install the headers of this Python (on Debian and Ubuntu: python3-dev)"
        return Finding("WARN", "no Python.h: torch.compile cannot build what it generates", do)
    return Finding("OK", f"torch.compile can build: {hardware.cxx} and the Python headers")


def _check_gpu(hardware: Hardware) -> Finding:
    if hardware.gpus:
        return Finding("OK", f"{counted(len(hardware.gpus), 'GPU')}: {', '.join(hardware.gpus)}")
    if hardware.nvidia_device:
        do = "install torch with CUDA (not TORCH=cpu), and a GPU driver that is new enough for it"
        return Finding("WARN", f"an NVIDIA GPU that torch {hardware.torch} cannot use", do)
    return Finding("OK", "no GPU: everything runs on the CPU, and tables list what needs a GPU as not available")


# Reading the machine ------------------------------------------------------------------------------------------------


def _numbers(version: str) -> tuple[int, ...]:
    """The first numbers of a version, to compare with a least version: ``"2.13.0+cpu"`` -> ``(2, 13)``, as 2.13."""
    release = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in release[0].split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)

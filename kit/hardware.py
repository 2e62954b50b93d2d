"""What this machine has, as far as this process may use it, and the checks behind ``python -m kit doctor``.

Machines overstate themselves: in a container ``os.cpu_count()`` is the host's, while CPU affinity and the cgroup quota
decide how much really runs at once, and ``/dev/shm`` is 64 MB where worker processes want to share tensors. So every
number here is the smallest of what each layer grants. The file system's root can be handed in, for tests.
"""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import os
import platform
import re
import shutil
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from kit.reprs import one_line

GIB = 2**30
_NUMBER = re.compile(r"[1-9][0-9]{0,18}")  # what the kernel writes: 64 bits

# The least versions that pyproject.toml asks for; a test keeps the two in step.
CORE_PACKAGES = {"cloudpickle": "3.1", "msgspec": "0.19", "numpy": "2", "torch": "2.11"}
LAB_PACKAGES = {
    "anywidget": "0.9.18",
    "continual-inference": "1.2.4",
    "ipywidgets": "8.1.5",
    "jupyterlab": "4.4",
    "matplotlib": "3.10",
    "opencv-python-headless": "4.11",
    "plotly": "6",
    "psutil": "6",
    "safetensors": "0.5",
    "scikit-image": "0.25",
    "tensorboard": "2.19",
    "torch-tb-profiler": "0.4.3",
    "tqdm": "4.67",
}


@dataclass(frozen=True)
class Hardware:
    """What this process can use of the machine it runs on."""

    cores: int  # whole cores usable at once: the smaller of affinity and cgroup quota, at least 1
    affinity: int  # cores that this process may be scheduled on
    cgroup_cores: float | None  # cores' worth of time that the cgroup grants; None: no limit
    memory_bytes: int | None  # installed, or the cgroup's limit where that is less; None: unknown
    shm_bytes: int | None  # size of /dev/shm; None: the platform has none
    gpus: tuple[str, ...]  # names of the CUDA devices that torch can use
    nvidia_device: bool  # whether the system shows an NVIDIA GPU, usable by this torch or not
    cxx: str | None  # path of the C++ compiler that torch.compile would use
    python_headers: bool  # whether Python.h is there, which torch.compile needs as well
    torch: str  # version; "" where torch is missing
    python: str  # version
    platform: str  # operating system, kernel and C library
    cpu: str  # the processor's model name
    packages: Mapping[str, str | None] = field(hash=False, default_factory=dict)  # version; None: not installed

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        gpus = ", ".join(self.gpus) or "no GPU"
        return f"Hardware({_count(self.cores, 'core')}, {_size(self.memory_bytes)}, {gpus}, torch {self.torch})"


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


@functools.cache
def detect(root: Path = Path("/")) -> Hardware:
    """Look at this machine once; ``detect.cache_clear()`` makes the next call look again.

    ``root`` is where ``proc``, ``sys`` and ``dev`` are read from.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cores(root)
    torch_version, gpus = _torch()
    return Hardware(
        cores=max(1, affinity if quota is None else min(affinity, int(quota))),
        affinity=affinity,
        cgroup_cores=quota,
        memory_bytes=_memory(root),
        shm_bytes=_shm(root),
        gpus=gpus,
        nvidia_device=os.path.exists(root / "dev/nvidia0"),  # noqa: PTH110 - of a Path, no permission is an error
        cxx=next(filter(None, map(shutil.which, (os.environ.get("CXX") or "g++", "g++", "clang++"))), None),
        python_headers=os.path.isfile(Path(sysconfig.get_path("include"), "Python.h")),  # noqa: PTH113
        torch=torch_version,
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu_name(root),
        packages={name: _version(name) for name in (*CORE_PACKAGES, *LAB_PACKAGES)},
    )


def checks(hardware: Hardware, load: float) -> list[Finding]:
    """What a learner should know about this machine before the first notebook, in reading order.

    Args:
        hardware: as :func:`detect` found it. These facts stay, so they are looked up once.
        load: as :func:`kit.load.load_average` gives it now.
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
    what = f"{_count(hardware.cores, 'core')} usable (affinity {hardware.affinity}, cgroup limit {quota})"
    if hardware.cores == 1:
        yield Finding("WARN", what, "branches cannot overlap on one core: give the container or the process more")
    elif hardware.cores < hardware.affinity:
        # torch and OpenCV size their pools by affinity, so the quota throttles them in the middle of a measurement.
        do = f"libraries will start {hardware.affinity} threads: set OMP_NUM_THREADS={hardware.cores} before starting"
        yield Finding("WARN", what, do)
    else:
        yield Finding("OK", what)


def _check_load(hardware: Hardware, load: float) -> Iterator[Finding]:
    if load > hardware.cores / 2:
        do = "close other programs before measuring, or timings will vary a lot between rounds"
        what = f"the cores are busy: a load average of {load:.1f} on {_count(hardware.cores, 'core')}"
        yield Finding("WARN", what, do)


def _check_memory(hardware: Hardware) -> Finding:
    what = f"{_size(hardware.memory_bytes)} of memory"
    if hardware.memory_bytes is None:
        return Finding("WARN", what, "make sure that at least 4 GiB are free")
    if hardware.memory_bytes < 3.5 * GIB:  # a machine sold as 4 GB shows a little less
        return Finding("WARN", what, "the larger notebooks want 4 GiB: close programs or raise the container's limit")
    return Finding("OK", what)


def _check_shm(hardware: Hardware) -> Finding:
    if hardware.shm_bytes is None:
        return Finding("OK", "no /dev/shm: this platform shares memory another way")
    what = f"/dev/shm has {_size(hardware.shm_bytes)}"
    if hardware.shm_bytes < GIB:
        do = "worker processes may die with a bus error: start the container with --shm-size=1g (64 MB is its default)"
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
        return Finding("OK", f"{_count(len(hardware.gpus), 'GPU')}: {', '.join(hardware.gpus)}")
    if hardware.nvidia_device:
        do = "install torch with CUDA (not TORCH=cpu), and a driver that is new enough for it"
        return Finding("WARN", f"an NVIDIA GPU that torch {hardware.torch} cannot use", do)
    return Finding("OK", "no GPU: everything runs on the CPU, and GPU timelines are shown as recorded elsewhere")


# Reading the machine ------------------------------------------------------------------------------------------------


def _limits(root: Path, controller: str, files_v1: Sequence[str], files_v2: Sequence[str]) -> Iterator[list[int]]:
    """The numbers in these files of this process's cgroup, and of every one above it: the lowest limit holds.

    Files without a number above 0 ("max", or "-1") set no limit, nor does a line or a number of another form than the
    kernel's. In a container the path may be the host's, of which only the last part is mounted, or lead out of what is
    mounted: folders that are not there set none either. Where both versions are mounted, the second one has a folder
    of its own.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        found = re.fullmatch(r"\d+:([^:]*):/([^\0]{0,4096})", line)
        if not found or (found[1] and controller not in found[1].split(",")):
            continue
        folder = Path("" if ".." in found[2] else found[2].strip("/"))
        mounts, files = ((controller, found[1]), files_v1) if found[1] else (("", "unified"), files_v2)
        for mount, level in itertools.product(mounts, (folder, *folder.parents)):
            words = " ".join(_read(root / "sys/fs/cgroup" / mount / level / name) for name in files).split()
            if len(words) >= len(files) and all(_NUMBER.fullmatch(word) for word in words):
                yield [int(word) for word in words]


def _cgroup_cores(root: Path) -> float | None:
    found = _limits(root, "cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us"), ("cpu.max",))
    return min((limit[0] / limit[1] for limit in found if len(limit) == 2), default=None)


def _memory(root: Path) -> int | None:
    limits = [limit[0] for limit in _limits(root, "memory", ("memory.limit_in_bytes",), ("memory.max",))]
    if total := re.search(r"^MemTotal:\s+([1-9][0-9]{0,18}) kB", _read(root / "proc/meminfo"), re.MULTILINE):
        limits.append(int(total[1]) * 1024)
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=None)


def _shm(root: Path) -> int | None:
    try:
        return shutil.disk_usage(root / "dev/shm").total if (root / "dev/shm").is_dir() else None
    except OSError:
        return None


def _torch() -> tuple[str, tuple[str, ...]]:
    """Torch's version and the names of its CUDA devices; empty where it is not installed."""
    try:
        import torch
    except (ImportError, OSError):  # not there, or one of its libraries is not
        return "", ()
    try:
        gpus = tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    except RuntimeError:  # counted, but not usable: the driver is too old, or another process has the GPU to itself
        gpus = ()
    return str(torch.__version__), gpus


def _cpu_name(root: Path) -> str:
    model = re.search(r"^model name\s*:\s*(.+)$", _read(root / "proc/cpuinfo"), re.MULTILINE)
    return model[1].strip() if model else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read(path: Path) -> str:
    """The file's text, or nothing where there is no such file or it may not be read."""
    try:
        return path.read_text(errors="replace")
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return ""


# Words --------------------------------------------------------------------------------------------------------------


def _numbers(version: str) -> tuple[int, ...]:
    """The release's numbers, enough to compare with a least version: ``"2.13.0+cpu"`` -> ``(2, 13)``, as 2.13."""
    release = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in release[0].split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _size(size: int | None) -> str:
    if size is None:
        return "an unknown amount"
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / 2**20:.0f} MiB"

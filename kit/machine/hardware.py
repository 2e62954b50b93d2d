"""The hardware of this machine, as far as this process may use it.

The usual numbers are too high in a container: ``os.cpu_count()`` is the host's, while CPU affinity and the cgroup quota
limit how much can run at once, and ``/dev/shm``, where worker processes share tensors, often has only 64 MB. So every
number here is the smallest of all limits. Tests can give another root of the file system.
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kit.text import bytes_text, counted

_NUMBER = re.compile(r"[1-9][0-9]{0,18}")  # what the kernel writes: 64 bits

# The least versions that pyproject.toml asks for; a test keeps the two in step.
CORE_PACKAGES = {"cloudpickle": "3.1", "msgspec": "0.19", "numpy": "2", "torch": "2.11", "zstandard": "0.23"}
LAB_PACKAGES = {
    "anywidget": "0.9.18",
    "continual-inference": "1.2.4",
    "ipywidgets": "8.1.5",
    "jupyterlab": "4.4",
    "matplotlib": "3.10",
    "opencv-python-headless": "4.11",
    "pandas": "2.2",
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
        return f"Hardware({counted(self.cores, 'core')}, {bytes_text(self.memory_bytes)}, {gpus}, torch {self.torch})"


@functools.cache
def detect(root: Path = Path("/")) -> Hardware:
    """Detect the hardware of this machine, once; ``detect.cache_clear()`` makes the next call detect it again.

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


def _limits(root: Path, controller: str, files_v1: Sequence[str], files_v2: Sequence[str]) -> Iterator[list[int]]:
    """The numbers in these files, for this process's cgroup and all its parents; the lowest limit holds.

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
    """The file's text; empty if there is no such file or it may not be read."""
    try:
        return path.read_text(errors="replace")
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return ""


# Words --------------------------------------------------------------------------------------------------------------

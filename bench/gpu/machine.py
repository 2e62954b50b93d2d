"""``python -m bench.gpu.machine``: whether this machine can run all of it, and what it is, as JSON.

Only Python's own library is imported before it is known what is missing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

NEEDED = ("torch", "numpy", "msgspec", "cloudpickle", "pytest")


def missing() -> list[str]:
    """What cannot be imported, each with the reason."""
    found = []
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: one of its libraries is not there
            found.append(f"{name} ({error})")
    return found


def described(device: str) -> dict[str, Any]:
    """The machine, its driver and the versions, as plain values: the ``about`` of everything that is kept.

    Args:
        device: ``cuda``, or ``cpu`` for a dry run, whose ``gpu`` is empty.
    """
    import torch

    from kit.machine.about import about_here

    about = about_here().to_dict()
    about["versions"] |= {"cudnn": str(torch.backends.cudnn.version() or ""), "triton": _triton()}
    about["machine"] |= {"driver": driver(), "cuda": torch.version.cuda or ""}
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        memory = {"memory_bytes": gpu.total_memory, "l2_bytes": getattr(gpu, "L2_cache_size", 0)}
        capability = f"{gpu.major}.{gpu.minor}"
        about["gpu"] = {"name": gpu.name, "capability": capability, "sms": gpu.multi_processor_count, **memory}
    else:
        about["dry"] = "a dry run on the CPU: nothing in it says anything about a GPU"
    return about


def driver() -> str:
    """The version of NVIDIA's driver; empty if there is none."""
    if smi := shutil.which("nvidia-smi"):
        asked = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.split()[0]
    told = Path("/proc/driver/nvidia/version")
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", told.read_text()) if told.is_file() else None
    return found[1] if found else ""


def short(gpu: str) -> str:
    """How files are called after it: ``NVIDIA H200`` is ``h200``."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower().removeprefix("nvidia ")).strip("-")


def problem(device: str) -> str:
    """Why nothing can run here, with what to do; empty if all can."""
    if sys.version_info < (3, 11):  # noqa: UP036 - which Python it is, is the caller's choice
        return f"Python 3.11 or later is needed, and this is {platform.python_version()}: make gpu PYTHON=python3.12"
    if found := missing():
        return f"not here: {'; '.join(found)}. Bring wheels along: make gpu WHEELS=folder"
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        known = f"torch {torch.__version__}, built for CUDA {torch.version.cuda}, driver {driver() or 'not found'}"
        return f"torch sees no CUDA device ({known}). Without a GPU, only the dry run works: make gpu DRY=1"
    try:
        torch.ones(2, device=device).sum().item()
    except RuntimeError as error:
        return f"torch sees a GPU and cannot use it: {error}"
    return ""


def _triton() -> str:
    try:
        return str(importlib.import_module("triton").__version__)
    except ImportError:
        return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.machine")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if said := problem(options.device):
        print(f"error: {said}", file=sys.stderr)
        return 1
    about = described(options.device)
    options.out.write_text(json.dumps(about, indent=2) + "\n")
    print(json.dumps(about, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the machine grants, read from made-up file systems, and what ``doctor`` says about it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.machine import doctor, hardware
from kit.machine.doctor import Finding
from kit.machine.hardware import Hardware
from kit.text import GIB

GOOD = Hardware(
    cores=8,
    affinity=8,
    cgroup_cores=None,
    memory_bytes=32 * GIB,
    shm_bytes=16 * GIB,
    gpus=(),
    nvidia_device=False,
    cxx="/usr/bin/g++",
    python_headers=True,
    torch="2.13.0",
    python="3.11.7",
    platform="Linux",
    cpu="a processor",
    packages={**hardware.CORE_PACKAGES, **hardware.LAB_PACKAGES},
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty file system, on a machine that lets this process use eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    write(tmp_path, "proc/meminfo", "MemTotal:       16777216 kB\nMemFree:  1 kB\n")
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_without_limits_affinity_decides(root: Path) -> None:
    found = hardware.detect(root)
    assert (found.cores, found.affinity, found.cgroup_cores) == (8, 8, None)
    assert found.memory_bytes == 16 * GIB
    assert found.shm_bytes is None


def test_cgroup_v2_the_lowest_limit_of_all_levels_holds(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/pod/container\n")
    write(root, "sys/fs/cgroup/pod/container/cpu.max", "max 100000\n")
    write(root, "sys/fs/cgroup/pod/cpu.max", "350000 100000\n")
    write(root, "sys/fs/cgroup/pod/container/memory.max", "max\n")
    write(root, "sys/fs/cgroup/pod/memory.max", str(2 * GIB))
    found = hardware.detect(root)
    assert (found.cores, found.cgroup_cores) == (3, 3.5)
    assert found.memory_bytes == 2 * GIB


def test_cgroup_v2_in_a_container_that_sees_the_hosts_path(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/docker/0123\n")  # only what is below it is mounted
    write(root, "sys/fs/cgroup/cpu.max", "200000 100000\n")
    assert hardware.detect(root).cores == 2


def test_cgroup_v1(root: Path) -> None:
    write(root, "proc/self/cgroup", "4:memory:/job\n3:cpu,cpuacct:/job\n2:cpuset:/\n0::/\n")
    write(root, "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "50000\n")
    write(root, "sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n")
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    write(root, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", str(GIB))
    write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    found = hardware.detect(root)
    assert (found.cores, found.cgroup_cores) == (1, 0.5), "half a core is still one to run on"
    assert found.memory_bytes == GIB


def test_affinity_below_the_quota_wins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5}, raising=False)
    write(root, "proc/self/cgroup", "0::/\n")
    write(root, "sys/fs/cgroup/cpu.max", "400000 100000\n")
    assert hardware.detect(root).cores == 1


def test_a_platform_without_affinity_or_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    found = hardware.detect(tmp_path)
    assert (found.cores, found.shm_bytes) == (6, None)
    assert found.cpu, "falls back to what Python knows"
    assert not [check for check in doctor.checks(found, load=0) if "shm" in check.what and check.status != "OK"]


def test_the_processor_is_named(root: Path) -> None:
    write(root, "proc/cpuinfo", "processor\t: 0\nmodel name\t: Imaginary 9000 @ 3GHz\n")
    assert hardware.detect(root).cpu == "Imaginary 9000 @ 3GHz"


def test_this_machine() -> None:
    found = hardware.detect()
    assert 1 <= found.cores <= found.affinity
    assert found.memory_bytes is None or found.memory_bytes > 0
    assert found.packages["torch"] is not None
    assert msgspec.json.decode(msgspec.json.encode(found.to_dict()))["cores"] == found.cores
    assert type(found.torch) is str, "and not torch's own kind of string, which msgspec refuses"
    assert found is hardware.detect(), "looked at once"


def test_a_good_machine_is_all_ok() -> None:
    assert {check.status for check in doctor.checks(GOOD, load=0)} == {"OK"}
    assert all(not check.do for check in doctor.checks(GOOD, load=0)), "nothing to do where all is well"


@pytest.mark.parametrize(
    ("change", "status", "what", "do"),
    [
        ({"cores": 1, "affinity": 1}, "WARN", "1 core usable (affinity 1, cgroup limit none)", "more"),
        ({"cores": 2, "cgroup_cores": 2.0}, "WARN", "affinity 8, cgroup limit 2", "OMP_NUM_THREADS=2"),
        ({"memory_bytes": 2 * GIB}, "WARN", "2.0 GiB", "limit"),
        ({"memory_bytes": None}, "WARN", "unknown", "4 GiB"),
        ({"shm_bytes": 64 * 2**20}, "WARN", "64 MiB", "--shm-size"),
        ({"cxx": None}, "WARN", "C++ compiler", "g++"),
        ({"python_headers": False}, "WARN", "Python.h", "python3-dev"),
        ({"nvidia_device": True}, "WARN", "cannot use", "TORCH=cpu"),
        ({"packages": {**GOOD.packages, "plotly": None}}, "WARN", "plotly is missing", ".[lab]"),
        ({"packages": {**GOOD.packages, "tqdm": "4.9.1"}}, "WARN", "tqdm 4.9.1 is older than 4.67", ".[lab]"),
        ({"packages": {**GOOD.packages, "torch": "2.10.1+cpu"}}, "FAIL", "torch 2.10.1+cpu is older than 2.11", "pip"),
        ({"packages": {**GOOD.packages, "msgspec": None}}, "FAIL", "msgspec is missing", "pip"),
    ],
)
def test_a_fault_is_reported_with_its_remedy(change: dict[str, object], status: str, what: str, do: str) -> None:
    faults = [check for check in doctor.checks(replace(GOOD, **change), load=0) if check.status != "OK"]  # type: ignore[arg-type]
    assert len(faults) == 1, "one fault, one finding"
    assert faults[0].status == status
    assert what in faults[0].what
    assert do in faults[0].do


def test_versions_compare_as_numbers() -> None:
    newer = replace(GOOD, packages={**GOOD.packages, "torch": "2.13.0+cpu", "numpy": "10.0rc1", "plotly": "6.0.0"})
    assert {check.status for check in doctor.checks(newer, load=0)} == {"OK"}


def test_report_is_one_line_per_finding() -> None:
    lines = doctor.report([Finding("OK", "fine"), Finding("WARN", "odd", "mend it")]).splitlines()
    assert lines == ["[OK] fine", "[WARN] odd - mend it"]
    assert Finding("OK", "fine").to_dict() == {"status": "OK", "what": "fine", "do": ""}


def test_repr_is_short() -> None:
    assert repr(GOOD) == "Hardware(8 cores, 32.0 GiB, no GPU, torch 2.13.0)"
    assert repr(replace(GOOD, cores=1, gpus=("H200",))) == "Hardware(1 core, 32.0 GiB, H200, torch 2.13.0)"


def test_gpus_go_by_their_names(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda i: f"GPU {i}")
    machine = hardware.detect(root)
    assert machine.gpus == ("GPU 0", "GPU 1")
    assert str(doctor.checks(machine, load=0)[-1]) == "[OK] 2 GPUs: GPU 0, GPU 1"


def test_a_gpu_that_cannot_be_used_is_a_finding_not_a_crash(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(i: int) -> str:
        raise RuntimeError("The NVIDIA driver on your system is too old")

    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", fail)
    write(root, "dev/nvidia0", "")
    finding = doctor.checks(hardware.detect(root), load=0)[-1]
    assert (finding.status, finding.what[:27]) == ("WARN", "an NVIDIA GPU that torch 2.")


def test_a_missing_torch_is_a_finding_not_a_crash() -> None:
    code = """
import sys
sys.modules["torch"] = None
from kit.machine import doctor, hardware
assert hardware.detect().torch == ""
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_busy_cores_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    busy = [check for check in doctor.checks(GOOD, load=4.1) if check.status == "WARN"]
    assert [check.what for check in busy] == ["the cores are busy: a load average of 4.1 on 8 cores"]
    assert all(check.status == "OK" for check in doctor.checks(GOOD, load=3.9))


def test_threads_that_spin_on_busy_cores_are_a_warning_with_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    _, spinning = [check for check in doctor.checks(GOOD, load=4.1) if check.status == "WARN"]
    assert "wait for each other by spinning" in spinning.what
    assert "OMP_WAIT_POLICY=passive" in spinning.do
    assert "where nothing else runs that costs time: notebook 03_threads_and_cores measures both" in spinning.do
    assert len([check for check in doctor.checks(replace(GOOD, cores=1), load=4.1) if "spinning" in check.what]) == 0
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    assert len([check for check in doctor.checks(GOOD, load=4.1) if "spinning" in check.what]) == 0


GARBAGE = st.text(alphabet=st.sampled_from("0123456789:,-/ \nmaxcpuemory\x00é"), max_size=80)


@given(GARBAGE, GARBAGE, GARBAGE, GARBAGE)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_system_says_of_itself_may_be_garbage(
    tmp_path: Path, cgroup: str, limit: str, meminfo: str, cpuinfo: str
) -> None:
    for name, text in {
        "proc/self/cgroup": cgroup,
        "sys/fs/cgroup/cpu.max": limit,
        "sys/fs/cgroup/memory.max": limit,
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": limit,
        "proc/meminfo": meminfo,
        "proc/cpuinfo": cpuinfo,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = hardware.detect.__wrapped__(tmp_path)
    assert found.cores >= 1
    assert doctor.report(doctor.checks(found, load=0))


@pytest.mark.parametrize(
    ("cgroup", "cpu", "memory", "cores", "granted"),
    [
        ("0::/a\n", "100000 0", "0", None, None),  # no period, and no memory at all: not what a kernel writes
        ("0::/a\n", "0 100000", "-1", None, None),
        ("0::/a\n", "²00000 100000", "²", None, None),  # a digit, and no number
        ("0::/a\n", f"{'9' * 5000} 1", "9" * 5000, None, None),  # more digits than Python reads
        ("0::/a\n", f"{2**63 - 1} 1", str(2**63 - 1), 2.0**63, None),  # more than there is
        ("0::/a\n", "150000 100000 1", "1 2", None, 1),
        ("0::/a\n", "150000", "max", None, None),
        ("0::/../../a\n", "150000 100000", str(GIB), None, None),  # outside of what is mounted
        ("0:/a\nx::/a\n0::a\n\n:\n::\n0::/a", "150000 100000", str(GIB), 1.5, GIB),
        (f"0::/{'a/' * 50_000}\n0::/a\0b\n0::/a\n", "150000 100000", str(GIB), 1.5, GIB),
    ],
)
def test_limits_that_are_none_and_lines_of_another_form(
    root: Path, cgroup: str, cpu: str, memory: str, cores: float | None, granted: int | None
) -> None:
    write(root, "proc/self/cgroup", cgroup)
    write(root, "sys/fs/cgroup/a/cpu.max", cpu)
    write(root, "sys/fs/cgroup/a/memory.max", memory)
    found = hardware.detect(root)
    assert found.cgroup_cores == cores
    assert found.memory_bytes == (granted or 16 * GIB)


def test_both_versions_of_cgroups_at_once(root: Path) -> None:
    write(root, "proc/self/cgroup", "3:cpu,cpuacct:/job\n1:name=systemd:/job\n0::/job\n")
    write(root, "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "300000\n")  # without a link named cpu
    write(root, "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n")
    write(root, "sys/fs/cgroup/unified/job/memory.max", str(GIB))
    found = hardware.detect(root)
    assert (found.cgroup_cores, found.memory_bytes) == (3, GIB)


@pytest.mark.parametrize("kind", ["absent", "folder", "bytes", "empty"])
def test_files_that_cannot_be_read_set_no_limit(root: Path, kind: str) -> None:
    write(root, "proc/self/cgroup", "0::/a\n")
    for name in ("proc/self/cgroup", "proc/meminfo", "proc/cpuinfo", "sys/fs/cgroup/a/cpu.max", "dev/nvidia0"):
        (root / name).unlink(missing_ok=True)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if kind == "folder":
            (root / name).mkdir()
        elif kind != "absent":
            (root / name).write_bytes(b"\xff\x00\xfe" if kind == "bytes" else b"")
    found = hardware.detect(root)
    assert (found.cores, found.cgroup_cores) == (8, None)
    assert found.memory_bytes is None or found.memory_bytes > 0


def test_a_line_of_cgroups_without_a_colon_limits_nothing(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("odd\n0:odd\n0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("50000 100000")
    assert hardware.detect.__wrapped__(tmp_path).cgroup_cores == 0.5

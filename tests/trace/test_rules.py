"""Each rule of torch's validator: a file that breaks it is told so, as the validator does; one that does not is not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.trace import Trace, load_trace
from kit.trace.rules import broken_rules

Row = dict[str, Any]


def row(name: str, category: str, ts: float, dur: float, tid: int = 1, pid: int = 1, **args: Any) -> Row:
    return {"ph": "X", "name": name, "cat": category, "ts": ts, "dur": dur, "pid": pid, "tid": tid, "args": args}


def launched(at: float) -> list[Row]:
    tie = {"External id": 3, "correlation": 11}
    return [row("cudaLaunchKernel", "cuda_runtime", 10, 2, **tie), row("gemm", "kernel", at, 5, 7, 0, **tie)]


def synchronised(at: float, stream: int = 7) -> list[Row]:
    sync = {"cuda_sync_kind": "Stream Sync", "stream": stream, "device": 0}
    on = {"stream": 7, "device": 0}
    return [row("gemm", "kernel", 20, 5, 7, 0, **on), row("Stream Sync", "cuda_sync", at, 9, stream, 0, **sync)]


def waited(
    kind: str = "Stream Wait Event", number: int | None = 5, recorded: float = 10, name: str = "cudaEventRecord"
):
    args: Row = {"cuda_sync_kind": kind, "stream": 7, "device": 0}
    if number is not None:
        args["wait_on_cuda_event_record_corr_id"] = number
    record = row(name, "cuda_runtime", recorded, 1, correlation=5)
    return [record, row(kind, "cuda_sync", 20, 1, 7, 0, **args)]


FIELDS = {"Collective name": "allreduce", "dtype": "Float", "In msg nelems": 4, "Out msg nelems": 4, "Group size": 2}


def collective(*without: str) -> list[Row]:
    given = {name: value for name, value in FIELDS.items() if name not in without}
    return [row("record_param_comms", "cpu_op", 1, 2, **given, **{"Process Group Name": "0"})]


def backward(*numbers: int, name: str = "Sequence number") -> list[Row]:
    begin = "autograd::engine::evaluate_function: Backward"
    return [row(f"{begin}{i}", "cpu_op", 10 * i, 5, **{name: number}) for i, number in enumerate(numbers)]


KEPT: list[list[Row]] = [
    launched(10),
    synchronised(25),
    synchronised(20),
    synchronised(22, stream=20),
    waited(),
    waited(recorded=20),
    waited("Event Sync"),
    waited("Event Sync", number=99),
    waited(name="cudaEventRecordWithFlags_ptsz"),
    collective(),
    backward(1, 2, 3),
    [*backward(4), *backward(4)],  # the same operator twice
    [row("Stream Wait Event", "cuda_sync", 20, 1, 7, 0, stream=7)],  # as older profilers write it
]
BROKEN: list[tuple[str, str, list[Row]]] = [
    ("gpu_kernel_causality", "1 of 1 kernels and copies start before their launch, 'gemm' by 1.000 us", launched(9)),
    ("stream_sync_overlap", "1 of 1 waits for a stream start while a kernel runs there", synchronised(22)),
    ("stream_wait_corr_id_populated", "1 of 1 waits for a CUDA event do not name the call", waited(number=-1)),
    ("stream_wait_corr_id_populated", "1 of 1 waits for a CUDA event do not name the call", waited(number=None)),
    ("stream_wait_corr_id_populated", "1 of 1 waits for a CUDA event do not name", waited("Event Sync", number=-1)),
    ("stream_wait_corr_id_in_past", "1 waits of a stream name a cudaEventRecord that is not in", waited(number=99)),
    ("stream_wait_corr_id_in_past", "1 waits of a stream name a cudaEventRecord that is not", waited(name="other")),
    ("stream_wait_corr_id_in_past", "1 waits of a stream start before the cudaEventRecord", waited(recorded=21)),
    ("nccl_metadata", "lack dtype, Group size: tools", collective("dtype", "Group size")),
    ("backward_seq_id_uniqueness", "1 sequence numbers belong to several backward operators", backward(7, 7, 8)),
    ("backward_seq_id_uniqueness", "the first of them 7", backward(7, 7, name="seq_num")),
]


@pytest.fixture
def load(tmp_path: Path) -> Callable[[list[Row]], Trace]:
    """Rows as a trace that was read from a file, which is ``trace.json``."""

    def loaded(rows: list[Row]) -> Trace:
        (tmp_path / "trace.json").write_text(json.dumps({"traceEvents": rows}))
        return load_trace(tmp_path / "trace.json")

    return loaded


@pytest.mark.parametrize("rows", KEPT)
def test_what_keeps_the_rules_has_no_note(rows: list[Row], load: Callable[[list[Row]], Trace]) -> None:
    trace = load(rows)
    assert trace.notes == ()
    assert list(broken_rules(trace)) == []


@pytest.mark.parametrize(("rule", "said", "rows"), BROKEN)
def test_what_breaks_a_rule_has_a_note(
    rule: str, said: str, rows: list[Row], load: Callable[[list[Row]], Trace]
) -> None:
    (note,) = load(rows).notes
    assert said in note


@pytest.mark.parametrize("value", [None, "x", [], {}, 1e300, "9" * 400, True, -5, "12"])
def test_hostile_arguments_raise_nothing(value: Any, load: Callable[[list[Row]], Trace]) -> None:
    rows = [*waited(), *backward(1), *collective()]
    for each in rows:
        each["args"] |= {"wait_on_cuda_event_record_corr_id": value, "Sequence number": value, "dtype": value}
    load(rows)


@pytest.mark.parametrize(
    ("rule", "rows"), [*((rule, rows) for rule, _, rows in BROKEN), *(("", rows) for rows in KEPT)]
)
def test_as_torchs_validator_says(
    rule: str, rows: list[Row], load: Callable[[list[Row]], Trace], tmp_path: Path
) -> None:
    validator = pytest.importorskip("torch.profiler._trace_validator", reason="torch before 2.13 has no validator")
    load(rows)
    _, violations = validator.validate_trace(str(tmp_path / "trace.json"))
    assert {each.rule_name for each in violations} == ({f"_check_{rule}"} if rule else set())

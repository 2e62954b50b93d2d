"""Names into approaches, and what they refuse."""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import kit
from kit import approaches
from kit.approaches import REGISTRY, Runs, available, builtin, names, parse, split_names
from kit.errors import KitError, MeasureError, UnavailableError, UnknownNameError
from kit.executors import Sequential, Task
from kit.executors.threads import Threads
from kit.machine import hardware
from kit.models import inception_block, two_stream
from kit.regions import Branches, Concat

CORES = hardware.detect().cores
MODEL = Branches({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1), "c": nn.Linear(1, 1)}, Concat(1)).eval()

ONE = torch.ones(1, 1)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("threads", "threads"),
        (" threads ( ) ", "threads"),
        ("threads(workers=4)", "threads(workers=4)"),
        (" threads( workers = 4,threads=1, )", "threads(workers=4, threads=1)"),
        ("folded+channels_last +  threads(workers=2)", "folded + channels_last + threads(workers=2)"),
        ("compiled(mode=max-autotune, freezing=True)", "compiled(mode=max-autotune, freezing=True)"),
        ("merged + onnxruntime(execution=parallel,threads=2)", "merged + onnxruntime(execution=parallel, threads=2)"),
    ],
)
def test_names_are_read_generously_and_written_one_way(text: str, name: str) -> None:
    assert parse(text).name == name
    assert parse(name) == parse(text)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (
            "thread",
            UnknownNameError,
            r"no approach 'thread': did you mean 'threads'\? Known: sequential, threads",
        ),
        ("sequental", UnknownNameError, "did you mean 'sequential'"),
        ("quantum", UnknownNameError, "Known: sequential, threads"),
        ("threads(worker=2)", UnknownNameError, "no option of threads 'worker': did you mean 'workers'"),
        ("sequential(workers=2)", UnknownNameError, "Known: threads"),
        ("threads(cores=2)", UnknownNameError, "no option of threads 'cores'"),
        ("threads(workers=0)", KitError, "workers must be a whole number of at least 1"),
        ("threads(workers=-1)", KitError, "whole number"),
        ("threads(workers=two)", KitError, "whole number"),
        ("threads(workers=2.5)", KitError, "whole number"),
        ("threads(workers=²)", KitError, "whole number"),
        ("threads(workers)", KitError, "whole number"),
        ("threads(workers=2", KitError, "cannot read the approach"),
        (
            "compiled(mode=fast)",
            KitError,
            r"compiled\(mode=fast\): mode must be one of default, reduce-overhead, max-autotune",
        ),
        ("compiled(freezing=1)", KitError, r"compiled\(freezing=1\): freezing must be one of True, False"),
        ("onnxruntime(threads=0)", KitError, "threads must be a whole number of at least 1"),
        ("openvino(hint=speed)", KitError, r"openvino\(hint=speed\): hint must be one of latency, throughput"),
        ("folded + thread", UnknownNameError, "did you mean 'threads'"),
        ("folded +", KitError, "cannot read the approach 'folded \\+'"),
        ("threads + folded", KitError, "threads runs the regions, so it must be the last step"),
        ("sequential + threads", KitError, "sequential runs the regions, so it must be the last step"),
        ("folded + folded", KitError, "one step is named twice"),
        (
            "compiled + folded",
            KitError,
            "gives one compiled function, which folded cannot rewrite: write compiled after",
        ),
        (
            "onnxruntime + threads",
            KitError,
            "an exported graph without regions, so threads finds no branches to run",
        ),
        ("scripted_fork + threads", KitError, "branches Python does not see, so threads finds no branches"),
        ("replicated + threads", KitError, "so threads finds no branches"),
        (
            "compiled + processes",
            KitError,
            "compiled code cannot be sent to another process or device: run it on threads instead",
        ),
        ("folded + compiled + processes_cold", KitError, "cannot be sent"),
        ("", KitError, "cannot read the approach"),
        ("two words", KitError, "cannot read the approach"),
    ],
)
def test_what_is_no_approach_is_refused_with_the_near_names(text: str, error: type[KitError], says: str) -> None:
    with pytest.raises(error, match=says):
        parse(text)


@pytest.mark.parametrize(
    ("text", "approach"),
    [
        ("torch.compile", "compiled"),
        ("compile", "compiled"),
        ("torch.compile(mode=default)", "compiled"),
        ("CUDA graphs", "graphed"),
        ("cuda_graph", "graphed"),
        ("DataParallel", "replicated"),
        ("nn.DataParallel", "replicated"),
        ("multiprocessing", "processes"),
        ("jit.fork", "scripted_fork"),
        ("torch.jit.fork", "scripted_fork"),
        ("onnx", "onnxruntime"),
        ("ov", "openvino"),
        ("OpenVINO", "openvino"),
        ("ThreadPoolExecutor", "threads"),
        ("DDP", "ranks"),
        ("NHWC", "channels_last"),
        ("folded + torch.compile", "compiled"),
    ],
)
def test_what_others_call_it_leads_to_the_approach(text: str, approach: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{approach}'\\?"):
        parse(text)


def test_no_other_name_of_an_approach_is_an_approach() -> None:
    for kind, also in names._ALSO_CALLED.items():
        assert parse(kind).kind == kind
        assert not set(also.split()) & set(REGISTRY)


def test_only_near_names_are_suggested() -> None:
    assert "choose one of these" in str(UnknownNameError("workload", "resnet50", ["googlenet", "inception-v3"]))
    assert "did you mean 'two-stream-i3d'?" in str(UnknownNameError("workload", "I3D", ["two-stream-i3d", "googlenet"]))
    error = pickle.loads(pickle.dumps(UnknownNameError("approach", "ort", ["onnxruntime"], ["onnxruntime"])))
    assert "did you mean 'onnxruntime'?" in str(error)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (
            "sequential, threads(workers=2, threads=1),threads,",
            ["sequential", "threads(workers=2, threads=1)", "threads"],
        ),
        ("sequential threads", ["sequential", "threads"]),
        (["sequential,threads", " processes "], ["sequential", "threads", "processes"]),
        (
            ("folded + compiled ( freezing=True ) +threads", "folded"),
            ["folded+compiled(freezing=True )+threads", "folded"],
        ),
        ("threads(workers=2) merged", ["threads(workers=2)", "merged"]),
        ("cuda graphs, threads", ["cuda graphs", "threads"]),
    ],
)
def test_names_in_a_row(given: str | list[str], found: list[str]) -> None:
    assert split_names(given) == found


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "no approach was named"),
        (" , ", "no approach was named"),
        ([], "no approach was named"),
        (5, "an approach must be a string.*this is int"),
        (torch.ones(2, 2), r"this is \(2,\) float32 on cpu. Put several inputs of a model into one tuple"),
    ],
)
def test_what_is_no_name(given: object, says: str) -> None:
    with pytest.raises(KitError, match=says):
        split_names(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", REGISTRY)
def test_every_approach_says_what_it_is(kind: str) -> None:
    assert parse(kind).about.endswith(".")


@pytest.mark.parametrize(
    ("name", "intra_op_threads"), [("sequential", CORES), ("sequential(threads=1)", 1), ("sequential(threads=3)", 3)]
)
def test_sequential_gives_its_operators_all_cores_or_as_many_as_asked(name: str, intra_op_threads: int) -> None:
    with parse(name).prepare(MODEL, ONE) as runner:
        assert isinstance(runner.executor, Sequential)
        assert runner.intra_op_threads == intra_op_threads


@pytest.mark.parametrize(
    ("cores", "options", "workers", "share"),
    [(8, {}, 3, 2), (2, {}, 2, 1), (1, {}, 1, 1), (8, {"workers": 16}, 16, 1), (8, {"workers": 2, "threads": 3}, 2, 3)],
)
def test_threads_share_the_cores(cores: int, options: dict[str, int], workers: int, share: int) -> None:
    with builtin.threads(MODEL, cores, **options) as executor:
        assert (executor.workers, executor.intra_op_threads) == (workers, share)
        assert executor.caller_threads is None  # as many as cores, for what is outside of regions


@pytest.mark.parametrize(
    ("cores", "options", "workers", "share"),
    [(8, {}, 3, 2), (2, {}, 2, 1), (1, {}, 1, 1), (8, {"workers": 16}, 16, 1), (8, {"workers": 2, "threads": 3}, 2, 3)],
)
def test_processes_share_the_cores(cores: int, options: dict[str, int], workers: int, share: int) -> None:
    with builtin.processes(MODEL, cores, **options, timeout=7) as executor:
        assert (executor.workers, executor.intra_op_threads) == (workers, share)
        assert (executor.timeout, executor.caller_threads, executor.cold) == (7, None, False)


def test_only_what_starts_anew_on_every_call_is_cold() -> None:
    executors = [name for name, entry in REGISTRY.items() if isinstance(entry, Runs) and available()[name] is None]
    assert {name for name in executors if parse(name).prepare(MODEL, ONE).cold} == {"processes_cold"}


@pytest.mark.parametrize("kind", ["threads", "processes", "processes_cold"])
def test_a_model_without_regions_has_nothing_to_run_side_by_side(kind: str) -> None:
    says = "Linear has no region: its independent parts are not marked.*Put them into one, as in kit"
    with pytest.raises(KitError, match=says):
        parse(kind).prepare(nn.Linear(1, 1), ONE)


def test_processes_need_a_system_that_passes_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("socket.AF_UNIX")
    with pytest.raises(UnavailableError, match=r"processes cannot run here: .*use WSL"):
        parse("processes").prepare(MODEL, ONE)


def test_the_widest_region_decides_how_many_threads() -> None:
    with builtin.threads(nn.Sequential(inception_block(3), two_stream()), 8) as executor:
        assert executor.workers == 4


def test_a_model_without_regions_has_nothing_for_threads() -> None:
    with pytest.raises(KitError, match=r"Linear has no region.*kit\.Branches"):
        parse("threads").prepare(nn.Linear(1, 1), ONE)
    with parse("sequential").prepare(nn.Linear(1, 1), ONE) as runner:
        assert runner().shape == (1, 1)


def test_what_this_machine_cannot_do_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Runs(builtin.sequential, lambda machine: "it needs a GPU.")
    monkeypatch.setitem(REGISTRY, "streams", entry)
    with pytest.raises(UnavailableError, match=r"streams cannot run here: it needs a GPU\."):
        parse("streams").prepare(MODEL, ONE)


def test_a_runner_runs_the_model_itself_and_says_how() -> None:
    with parse("threads(workers=2, threads=1)").prepare(MODEL, ONE) as runner:
        assert runner.model is MODEL
        assert (
            repr(runner) == f"ModelRunner(Branches on Threads(workers=2, intra_op_threads=1), {CORES} intra-op threads)"
        )


def test_a_compiled_model_is_prepared_apart_and_refuses_what_would_compile_it_anew() -> None:
    if reason := parse("compiled").unavailable_because(hardware.detect()):
        pytest.skip(reason)
    x = torch.randn(4, 1)
    with parse("compiled + threads(workers=2, threads=1)").prepare(MODEL, x) as runner, torch.inference_mode():
        assert isinstance(runner.executor, Threads)
        assert runner.prepare_s > 0
        assert torch.equal(runner(), MODEL(x))
        with pytest.raises(MeasureError, match="prepare it again with these inputs"):
            runner.run(torch.randn(5, 1))
        assert torch.equal(runner(), MODEL(x)), "and works on after it"


def test_many_compiled_chains_each_keep_their_own_code() -> None:
    """More than the eight entries that one piece of Python code may have: all chains share that of nn.Sequential."""
    if reason := parse("compiled").unavailable_because(hardware.detect()):
        pytest.skip(reason)
    torch.manual_seed(0)
    model = Branches({str(i): nn.Sequential(nn.Linear(2, i + 1), nn.ReLU()) for i in range(12)}, Concat(1)).eval()
    x = torch.randn(3, 2)
    with parse("compiled + sequential").prepare(model, x) as runner, torch.inference_mode():
        torch.set_num_threads(runner.intra_op_threads)
        torch.testing.assert_close(runner(), model(x))  # code that had no room would run as it is, or be refused here


def test_regions_between_which_the_graph_breaks_are_all_compiled(caplog: pytest.LogCaptureFixture) -> None:
    if reason := parse("compiled").unavailable_because(hardware.detect()):
        pytest.skip(reason)

    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = range(1, 11)
            self.parts = nn.ModuleList(
                Branches({"a": nn.Linear(w, 1), "b": nn.Linear(w, w)}, Concat(1)) for w in widths
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for part in self.parts:
                torch._dynamo.graph_break()
                x = part(x)
            return x

    model, x = Broken().eval(), torch.randn(2, 1)
    with parse("compiled").prepare(model, x) as runner, torch.inference_mode():
        torch.set_num_threads(runner.intra_op_threads)
        torch.testing.assert_close(runner(), model(x))
    assert "recompile_limit" not in caplog.text


def test_without_a_compiler_compiled_says_what_to_install() -> None:
    machine = hardware.detect()
    assert "apt-get install g++" in (parse("compiled").unavailable_because(replace(machine, cxx=None)) or "")
    without_headers = replace(machine, cxx="g++", python_headers=False)
    assert "python3-dev" in (parse("folded + compiled").unavailable_because(without_headers) or "")


@pytest.mark.parametrize(
    ("approach", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino"), ("cluster", "cluster")]
)
def test_without_a_runtime_it_says_what_to_install(approach: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert f"pip install -c constraints.txt -e .[{extra}]" in (approaches.available()[approach] or "")


def test_available_lists_every_approach_with_its_reason() -> None:
    found = approaches.available(replace(hardware.detect(), cxx=None))
    assert list(found) == list(REGISTRY)
    assert found["threads"] is None
    assert found["compiled"] is not None


@pytest.mark.parametrize(("approach", "says"), [("folded", "nothing to fold"), ("channels_last", "no convolution")])
def test_a_transform_that_finds_nothing_to_do_is_refused(approach: str, says: str) -> None:
    with pytest.raises(KitError, match=says):
        parse(approach).prepare(MODEL, torch.ones(1, 1))


# Approaches of one's own ----------------------------------------------------------------------------------------------


class Backwards(kit.Executor):
    """The branches one after the other, the last one first."""

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        return [task() for task in reversed(tasks)][::-1]


@dataclass(frozen=True)
class Doubled(kit.Transform):
    """The model, and its output times a factor."""

    factor: int = 2

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        return nn.Sequential(model, Times(self.factor)).eval()


class Times(nn.Module):
    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


@pytest.fixture
def registry() -> Iterator[dict[str, Any]]:
    """The registry, as it was before the test when it ends."""
    before = dict(REGISTRY)
    yield REGISTRY
    REGISTRY.clear()
    REGISTRY.update(before)


def test_a_registered_executor_takes_part_like_the_others(registry: dict[str, Any]) -> None:
    kit.register("backwards", Backwards)
    found = kit.compare(MODEL, torch.randn(3, 1), ["backwards", "channels_last + backwards"], rounds=6, progress=False)
    assert found["backwards"].equality == (True, 0.0)
    assert "no convolution" in str(found["channels_last + backwards"].reason)
    assert parse("backwards").about == "The branches one after the other, the last one first."
    assert "backwards" in available()
    trace = kit.record(MODEL, torch.randn(3, 1), "backwards", operators=False)
    names = [event.name for event in trace.events() if event.category == "task"]
    assert names == list(MODEL.branches)[::-1]


def test_a_registered_transform_is_proven_like_the_others(registry: dict[str, Any]) -> None:
    kit.register("doubled", Doubled)
    found = kit.compare(MODEL, torch.randn(3, 1), ["doubled", "doubled(factor=1)"], rounds=6, progress=False)
    assert "doubled" in str(found["doubled"].reason).lower()
    assert "changes the output of" in str(found["doubled"].reason)
    assert found["doubled(factor=1)"].equality == (True, 0.0)


def test_a_registered_function_is_given_model_and_cores_and_its_options(registry: dict[str, Any]) -> None:
    def mine(cores: int, *, workers: int = 3) -> Threads:
        """Threads of mine."""
        return Threads(workers, cores)

    kit.register("mine", mine)
    kit.register("mine", mine)  # a cell that runs twice
    with parse("mine(workers=2)").prepare(MODEL, ONE) as runner:
        assert (runner.executor.workers, runner.lane_threads) == (2, CORES)
    with pytest.raises(UnknownNameError, match="option of mine"):
        parse("mine(threads=2)")
    kit.register("mine", mine, unavailable_because=lambda machine: "it is Sunday.")
    assert available()["mine"] == "it is Sunday."


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("threads", Backwards, "threads is a built-in approach"),
        ("all", Backwards, "cannot be called 'all'"),
        ("two words", Backwards, "cannot be called 'two words'"),
        ("a", nn.Linear, "neither a subclass of kit.Executor or kit.Transform"),
        ("a", 3, "neither a subclass of kit.Executor or kit.Transform"),
        ("a", type("Half", (kit.Executor,), {}), "a cannot be registered: Half does not define run"),
        ("a", type("Half", (kit.Transform,), {}), "a cannot be registered: Half does not define rewrite"),
        ("a", lambda model, workers=2: Backwards(), "option workers of a cannot be written in a name"),
        ("a", lambda model, workers: Backwards(), "option workers of a cannot be written in a name"),
    ],
)
def test_what_cannot_be_registered(registry: dict[str, Any], name: str, make: Any, says: str) -> None:
    before = dict(registry)
    with pytest.raises(KitError, match=says):
        kit.register(name, make)
    assert registry == before


def blocks_of_the_page(heading: str) -> list[str]:
    text = (Path(__file__).parents[2] / "docs/approaches.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [block.removeprefix("python\n") for block in section.split("```")[1::2]]


def test_the_examples_of_the_page_run(registry: dict[str, Any]) -> None:
    executor, functions = blocks_of_the_page("Add your own approach")
    names = {"kit": kit, "model": MODEL, "inputs": torch.randn(3, 1), "torch": torch}
    exec(executor.replace("kit.compare(", "found = kit.compare("), names)
    assert names["found"]["backwards"].equality == (True, 0.0)
    assert len(executor.strip().splitlines()) <= 10
    exec(functions.replace("kit.compare(", "found = kit.compare("), names)
    assert names["found"].baseline.name == "matmul"
    assert names["found"]["einsum"].equality.equal


def test_functions_are_compared_as_they_are() -> None:
    x = torch.rand(8, 8)
    work = kit.Workload("product", None, (), approaches={"a": lambda: x @ x, "b": lambda: x @ x + 1})
    found = kit.compare(work, rounds=6, progress=False)
    assert [(row.name, row.verdict) for row in found.rows] == [("a", "baseline"), ("b", "wrong output")]
    assert "no task of this approach was recorded" in str(kit.explain(found, "b"))
    with pytest.raises(UnknownNameError, match=r"no approach 'c'.*a, b"):
        work.approach("c")


@pytest.mark.parametrize("given", [3, torch.ones(1), lambda x: x])
def test_what_is_no_function_without_arguments_is_named(given: Any) -> None:
    with pytest.raises(KitError, match=r"approach 'a' is .*: give a function without arguments"):
        kit.Workload("product", None, (), approaches={"a": given})


def test_an_entry_that_makes_no_runner_keeps_its_row() -> None:
    own = {"a": lambda: torch.ones(1), "b": approaches.Calls(lambda: torch.ones(1))}
    found = kit.compare(kit.Workload("product", None, (), approaches=own), rounds=6, progress=False)
    assert found["b"].reason.startswith("b made (1,) float32 on cpu, which is not a runner")

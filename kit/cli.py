"""``python -m kit``: the experiments of the notebooks on the command line. Imports neither Jupyter nor plotly.

Imports torch only where a command needs it, so that ``doctor`` works even if packages are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.errors import KitError, TraceError
from kit.executors.workers.membership import Membership, membership
from kit.machine import doctor, hardware
from kit.machine.load import load_average
from kit.paths import check_writable

if TYPE_CHECKING:
    from kit.explaining.explanation import Explanation
    from kit.measuring.comparison import Comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 2 after an error that it has printed.

    In a group of ranks, which torchrun or Slurm has started, rank 0 runs the command, and the others serve it.
    """
    try:
        options = _parser().parse_args(arguments)
        member = membership()
        status: int = options.run(options) if member is None else _in_group(member, options)
        sys.stdout.flush()
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # nobody reads on, as in `| head`; what is still buffered must not be tried again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return status


def _in_group(member: Membership, options: argparse.Namespace) -> int:
    from kit.executors.workers.serving import take_part

    return take_part(member, lambda: int(options.run(options)))


def _doctor(options: argparse.Namespace) -> int:
    """Print what this machine has; returns 1 if something that the kit needs is missing."""
    machine, load = hardware.detect(), load_average()
    found = doctor.checks(machine, load)
    if options.json:
        print(_json({"hardware": machine.to_dict(), "load": load, "checks": [check.to_dict() for check in found]}))
    else:
        print(doctor.report(found))
    return int(any(check.status == "FAIL" for check in found))


def _compare(options: argparse.Namespace) -> int:
    from kit import workloads
    from kit.trace import Trace, save_trace
    from kit.verbs import as_workload, compare, record, with_branches
    from kit.workloads.factories import load

    for path in filter(None, (options.json, options.save)):
        check_writable(path)
    traces = _folder(options.traces) if options.traces else None
    names, workload = options.approaches, options.workload
    known = (*workloads.NAMES, *workloads.MANY)
    if names and workload is None and (names[-1] in known or _is_factory(names[-1])):  # it came after the approaches
        *names, workload = names
    if workload is None:
        raise KitError(f"name a workload ({', '.join(known)}), or a model of your own as FILE.py:factory.")
    if _is_factory(workload):
        if options.clip or options.items or options.device != "cpu":
            raise KitError(f"{workload} has its own inputs and device: leave out --clip, --items and --device.")
        work = as_workload(*load(workload))
    else:
        work = workloads.workload(workload, options.clip, options.device, options.items)
    of_items = bool(work.approaches)  # those of one model are the registry's
    names = names or ["all" if of_items else "sequential,threads"]
    with _told_if_long(f"capturing {work.name} to find its branches"):
        work = with_branches(work, names)  # here, so that the recordings need not look for them again
    comparison = compare(
        work,
        approaches=names,
        rounds=options.rounds,
        budget=options.budget,
        seed=options.seed,
        progress=sys.stderr.isatty(),
        patience=options.patience,
    )

    def recorded(name: str) -> Trace:
        return record(work, approach=name, operators=not of_items)  # those of many items would fill the memory

    print(comparison)
    found: dict[str, Any] = comparison.to_dict()
    if options.explain:
        found["explanations"] = [each.to_dict() for each in _print_explanations(comparison)]
        rewritten = [row.name for row in comparison.rows if row.rewritten and row.timing]
        if rewritten:
            print("\n".join(_changes({name: recorded(name) for name in (comparison.baseline.name, *rewritten)})))
    if options.save:
        comparison.save(options.save)
        print(f"wrote {options.save}")
    if options.json:
        about = {"workload": work.name, "seed": options.seed, "hardware": hardware.detect().to_dict()}
        _write(options.json, _json({**about, **found}))
    if traces:
        for row in comparison.rows:
            if row.timing is not None:
                path = traces / f"{work.name}-{row.name}.json.gz"
                save_trace(recorded(row.name), path)
                print(f"wrote {path}")
    return 0


def _is_factory(name: str) -> bool:
    """Whether this is FILE.py:factory or package.module:factory, and not an approach such as loader(workers=2)."""
    return ":" in name.removesuffix("()").rpartition(")")[2] or name.endswith(".py")


def _graph(options: argparse.Namespace) -> int:
    from kit import workloads
    from kit.verbs import graph
    from kit.workloads.factories import load

    if _is_factory(options.model):
        model, inputs = load(options.model)
    else:
        work = workloads.workload(options.model, None, "cpu", None)
        if work.model is None or work.approaches:
            raise KitError(
                f"{options.model} is not a model: name another workload, or your own model as FILE.py:factory."
            )
        model, inputs = work.model, work.inputs
    with _told_if_long(f"capturing {type(model).__name__} and measuring its operators"):
        found = graph(model, inputs)
    print(found)
    return 0


def _show(options: argparse.Namespace) -> int:
    from kit.measuring.changes import compare_results
    from kit.measuring.comparison import load_comparison

    first, *others = [load_comparison(path) for path in options.files]
    if len(others) > 1:
        raise KitError(f"{len(options.files)} files were given: give one, or an old one and a new one.")
    if others:
        changes = compare_results(first, others[0])
        print(_json(changes.to_dict()) if options.json else changes)
        return 0
    if options.json:
        print(_json({"about": first.about.to_dict(), **first.to_dict()}))
        return 0
    print(first)
    print(first.about)
    if options.explain:
        _print_explanations(first)
    return 0


def _print_explanations(comparison: Comparison) -> list[Explanation]:
    """The explanations of all rows; only those of measured rows other than the baseline are printed."""
    from kit.explaining.explanation import explain_all

    explanations = explain_all(comparison)
    print("", *(each for each in explanations[1:] if comparison[each.approach].timing), sep="\n")
    return explanations


def _changes(traces: dict[str, Any]) -> list[str]:
    """How transforms changed the operators of the first trace, that of sequential."""
    from kit.trace import changes

    (base, before), *others = traces.items()
    return [f"\noperators, recorded under {base} -> under {name}:\n{changes(before, after)}" for name, after in others]


_COMPARED = {"operators": "operators, with the calls into CUDA that they make,", "kernels": "kernels and copies"}


def _trace(options: argparse.Namespace) -> int:
    from kit import trace
    from kit.trace import overview

    try:
        recorded, *others = [
            trace.load_trace(path, partial=options.partial) for path in (options.file, options.against) if path
        ]
    except TraceError as error:
        raise TraceError(str(error).replace("load_trace(path, partial=True) loads", "--partial loads")) from error
    names = trace.by_name(recorded, shapes=options.shapes)
    numbers = trace.summary(recorded, names)
    path, idle, bound = trace.critical_path(recorded), trace.idle(recorded), trace.launch_bound(recorded)
    changed = {
        what: trace.changes(other, recorded, kernels=what == "kernels") for other in others for what in _COMPARED
    }
    if options.json:
        found = {
            **numbers,
            "critical_path_ns": path.causes,
            "idle": [row._asdict() for row in idle],
            "launch_bound": asdict(bound),
        }
        rows = {what: [row._asdict() for row in table] for what, table in changed.items()}
        print(_json({**found, "changes": rows} if others else found))
        return 0
    gpu = [idle, bound] if idle else []
    print(overview.in_words(numbers), names, path, *gpu, sep="\n\n")
    for what, table in changed.items():
        if table:
            print(f"\n{_COMPARED[what]} of {options.against} -> of {options.file}:\n{table}")
    for note in recorded.notes:
        print(f"note: {note}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from kit.workloads.recognition import recognise

    if (options.clip is None) == (options.file is None):
        raise KitError("give exactly one clip, as in 'kit predict my_video.mp4'.")
    told = recognise(options.clip or options.file)
    print(_json(told.to_dict()) if options.json else told)
    return 0


def _train(options: argparse.Namespace) -> int:
    from kit.models.two_stream import TRAINED_WEIGHTS
    from kit.workloads import training

    weights = TRAINED_WEIGHTS if options.out is None else options.out
    check_writable(weights)  # a folder that is not there is a slip of the keyboard
    result = training.train(training.Recipe(), weights, progress=sys.stderr.isatty())
    for stream in training.STREAMS:
        told = [f"{half} {result.share(stream, half)}" for half in ("texture", "motion", "joint")]
        print(f"{stream:9}", ", ".join(told))
    print(f"wrote {weights} and {weights.with_suffix('.json')}")
    return 0


@contextmanager
def _told_if_long(what: str, after_s: float = 2.0) -> Iterator[None]:
    """Print on stderr what is being done, if the block takes longer than ``after_s`` seconds."""
    stream = sys.stderr  # that of now: capturing keeps what is written to it meanwhile
    timer = threading.Timer(after_s, lambda: print(f"{what} ...", file=stream, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KitError(f"cannot make the folder {path}: {error.strerror}.") from error
    return path


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise KitError(f"cannot write {path}: {error.strerror}.") from error
    print(f"wrote {path}")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)


def _parser() -> argparse.ArgumentParser:
    command = "kit" if Path(sys.argv[0]).stem == "kit" else "python -m kit"
    parser = argparse.ArgumentParser(prog=command, description=sys.modules["kit"].__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    doctor = commands.add_parser("doctor", help="check this machine, and say what to install or change")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=_doctor)

    about = "measure approaches side by side on a workload"
    verb = commands.add_parser("compare", help=about, description=about)
    verb.add_argument(
        "workload",
        nargs="?",
        help="one request: continual, googlenet, inception-block, inception-v3, two-stream, two-stream-i3d; many "
        "items: feeding, opencv-dnn, pipeline; or a model of your own: FILE.py:factory or package.module:factory, a "
        "function that returns (model, inputs)",
    )
    verb.add_argument(
        "--approaches",
        nargs="+",
        metavar="NAME",
        help="names separated by commas or spaces, or 'all'; options in parentheses, steps joined by +: "
        "'threads,threads(workers=4),folded + compiled(freezing=True) + threads' (default sequential,threads; a "
        "workload of many items has approaches of its own, and its default is all of them; to list them, give a name "
        "that does not exist)",
    )
    verb.add_argument("--rounds", type=int, default=12, help="interleaved rounds, at least 6 (default 12)")
    verb.add_argument("--budget", type=float, help="seconds for all of it (default 60 for 'all', else no limit)")
    verb.add_argument(
        "--patience", type=float, default=0.0, help="seconds to wait, at most, for other programs to stop (default 0)"
    )
    verb.add_argument("--seed", type=int, default=0, help="random seed of the order of turns (default 0)")
    verb.add_argument("--clip", type=Path, help="a video file, for a workload that reads a clip")
    verb.add_argument("--items", type=int, metavar="N", help="number of items, for a workload of many items")
    verb.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1 (default cpu)")
    verb.add_argument("--explain", action="store_true", help="explain why each approach is faster or slower")
    verb.add_argument("--json", type=Path, metavar="FILE", help="write a summary of the comparison as JSON")
    verb.add_argument(
        "--save", type=Path, metavar="FILE", help="write the whole comparison, for 'show': .json or .json.gz"
    )
    verb.add_argument("--traces", type=Path, metavar="DIR", help="write a trace of each approach here, for Perfetto")
    verb.set_defaults(run=_compare)

    about = "show which parts of a model depend on each other, and which could run at the same time"
    verb = commands.add_parser("graph", help=about, description=about)
    verb.add_argument("model", help="a workload with a model, or your own: FILE.py:factory, package.module:factory")
    verb.set_defaults(run=_graph)

    about = "print a saved comparison; given an old and a new file, print what changed"
    verb = commands.add_parser("show", help=about, description=about)
    verb.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a file written by compare --save")
    verb.add_argument("--explain", action="store_true", help="explain why each approach is faster or slower (one file)")
    verb.add_argument("--json", action="store_true", help="print a summary as JSON")
    verb.set_defaults(run=_show)

    about = (
        "summarise a trace of torch.profiler, VizTracer, Perfetto, Nsight Systems or the kit: busy times, top names, "
        "critical path, causes of idle GPUs"
    )
    verb = commands.add_parser("trace", help=about, description=about)
    verb.add_argument("file", type=Path, help="a trace: .json, .json.gz, .json.zst, or .sqlite of Nsight Systems")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.add_argument("--against", type=Path, metavar="OTHER", help="an older trace: print what changed since")
    verb.add_argument("--shapes", action="store_true", help="tell operators apart by the shapes of their inputs")
    verb.add_argument("--partial", action="store_true", help="read as much as possible of a damaged file")
    verb.set_defaults(run=_trace)

    about = "print the classes that the trained two-stream network predicts for a clip, and the time of each stage"
    verb = commands.add_parser("predict", help=about, description=about)
    verb.add_argument("file", type=Path, nargs="?", help="a video file or a folder of pictures, 11 frames or more")
    verb.add_argument("--clip", type=Path, help="the clip as an option, in place of the file")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(run=_predict)

    about = "train the two-stream network on generated clips (about ten minutes on two cores)"
    verb = commands.add_parser("train", help=about, description=about)
    verb.add_argument("network", choices=["two-stream"], help="the network to train")
    verb.add_argument(
        "--out", type=Path, metavar="FILE", help="weights to write (default data/weights/two_stream.safetensors)"
    )
    verb.set_defaults(run=_train)
    return parser

"""A comparison that is saved and loaded says, shows and explains what it did before."""

import gzip
import json
import math
import re
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

import kit
from kit.equality import Equality
from kit.errors import KitError, ResultError
from kit.explaining.explanation import explain
from kit.measuring.comparison import FORMAT, Comparison, Ratio, Row, Timing, load_comparison
from kit.trace import Trace, stack
from kit.trace.columns import Marks
from kit.trace.kernels import Kernel, Use
from tests.explaining.test_explanation import MS, SAME, example, timing, turn

ROOT = Path(__file__).parents[2]


def full() -> Comparison:
    """Every kind of row: explained, cold with rounds of its own, wrong, infinitely wrong, without tasks, missing."""
    comparison = example()
    base = comparison.baseline.timing
    assert base is not None
    cold = timing([400.5 * MS] * 7, [turn({"a": 2.5, "b": 7.5}, 7.5, 2)] * 7)
    beside = timing([6 * MS] * 7, [turn({"a": 1.5, "b": 4}, 5.5, 1)] * 7)
    whole = replace(timing([5 * MS] * 6, [None] * 6), latencies_ns=np.linspace(4e6, 6e6, 600))
    used = {
        Kernel("convolution", "conv2d", "oneDNN"): Use(3, 0.25),
        Kernel("pooling", "max_pool2d", "own"): Use(1, 0.5),
    }
    fast = Ratio(1.2, 1.1, 1.3)
    rows = (
        *comparison.rows,
        Row("cold", None, cold, Ratio(0.015, 0.01, 0.02), SAME, False, 2.5, beside, 1),
        Row("wrong", None, whole, fast, Equality(False, 0.5), paired_baseline=base, kernels=used),
        Row(
            "lost",
            None,
            whole,
            fast,
            Equality(False, math.inf),
            paired_baseline=base,
            rewritten=True,
            minimum_detectable_effect=math.nan,
        ),
        Row("few", None, whole, fast, SAME, paired_baseline=base, decidable=False),
        Row("streams", "it needs a GPU: \N{SNOWMAN} \ud800 “quoted”"),
    )
    gain = Ratio(1.2, 1.1, 1.3)
    return replace(comparison, rows=rows, caveats=("a caveat",), core_scaling=gain)


KINDS = {
    "full": full(),
    "on a GPU": replace(full(), device="cuda", inputs="(1, 3) float32 on cuda:0"),
    "rates": replace(full(), items=8, unit="images"),
    "nothing explained": replace(full(), branches_alone={}, core_scaling=None),
}


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Comparison, Comparison]:
    comparison = KINDS[request.param]
    comparison.save(tmp_path / "c.json.gz")
    return comparison, load_comparison(tmp_path / "c.json.gz")


def test_a_loaded_comparison_has_the_same_table_and_summary(pair: tuple[Comparison, Comparison]) -> None:
    before, after = pair
    assert after.table() == before.table()
    assert str(after) == str(before)
    assert after._repr_html_() == before._repr_html_()
    assert json.dumps(after.to_dict()) == json.dumps(before.to_dict())  # as text: NaN is not equal to itself
    assert after.about == before.about


def test_a_loaded_comparison_has_the_same_chart(pair: tuple[Comparison, Comparison]) -> None:
    before, after = pair
    pytest.importorskip("plotly")
    from kit.views.figures import comparison_chart

    assert comparison_chart(after).to_json() == comparison_chart(before).to_json()


def test_a_loaded_comparison_has_the_same_timeline(pair: tuple[Comparison, Comparison]) -> None:
    before, after = (stack(each.traces) for each in pair)
    assert list(after.events()) == list(before.events())
    assert len(after) > 0
    assert after.lanes == before.lanes
    assert after.about == pair[0].about.to_dict()


def test_a_loaded_comparison_is_explained_alike(pair: tuple[Comparison, Comparison]) -> None:
    before, after = pair
    for row in before.rows:
        one, other = explain(before, row.name), explain(after, row.name)
        assert str(other) == str(one)
        assert json.dumps(other.to_dict()) == json.dumps(one.to_dict())
        if one.factors:
            assert other.what_if(3, [("a", "b")]) == one.what_if(3, [("a", "b")])


def test_every_sample_and_every_round_is_kept(pair: tuple[Comparison, Comparison]) -> None:
    before, after = pair
    for one, other in zip(before.rows, after.rows, strict=True):
        for mine, again in ((one.timing, other.timing), (one.paired_baseline, other.paired_baseline)):
            if mine is None or again is None:
                assert again is mine
                continue
            assert again.samples_ns.tolist() == mine.samples_ns.tolist()
            assert again.samples_ns.dtype == mine.samples_ns.dtype
            assert again.latencies_ns.tolist() == mine.latencies_ns.tolist()
            assert again.turns == mine.turns
        assert other.kernels == one.kernels
        assert list(other.kernels or ()) == list(one.kernels or ())
    assert after.branches_alone.keys() == before.branches_alone.keys()


def test_what_was_one_measurement_is_one_again(tmp_path: Path) -> None:
    """By this the explanation knows in which rounds branches ran alone."""
    full().save(tmp_path / "c.json")
    after = load_comparison(tmp_path / "c.json")
    assert after["threads"].paired_baseline is after.baseline.timing is after.branches_alone[2]
    assert after["cold"].paired_baseline is not after.baseline.timing


def test_all_columns_of_a_trace_are_kept(tmp_path: Path) -> None:
    marks = Marks(
        *(np.array([n], kind) for n, kind in zip((5, 0, 0, 0, 4, 0, 1.5), ("i8", *["i4"] * 5, "f8"), strict=True))
    )
    trace = replace(
        Trace.build([]),
        names=("flow",),
        categories=("c",),
        external=np.zeros(0, np.int64),
        marks=marks,
        keys=("memory", 7, 2.0),
        anchor=(1, 2**62),
        notes=("a note",),
        about={"gpus": [{"name": "H100"}]},
    )
    comparison = replace(full(), rows=(Row("a", timing=Timing(np.array([1.0]), 1, trace)),))
    comparison.save(tmp_path / "c.json")
    found = load_comparison(tmp_path / "c.json").rows[0].timing
    assert found is not None
    for each in fields(Trace):
        one, other = getattr(trace, each.name), getattr(found.trace, each.name)
        assert repr(other) == repr(one)
        assert getattr(other, "dtype", None) == getattr(one, "dtype", None)
    assert [type(key) for key in found.trace.keys] == [str, int, float]


# The file -------------------------------------------------------------------------------------------------------------


def test_the_file_is_json_that_people_can_read(tmp_path: Path) -> None:
    comparison = full()
    comparison.save(tmp_path / "c.json")
    comparison.save(tmp_path / "c.json.gz")
    text = (tmp_path / "c.json").read_text()
    assert gzip.decompress((tmp_path / "c.json.gz").read_bytes()).decode() == text

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    plain = json.loads(text, parse_constant=refuse)
    assert list(plain)[:2] == ["format", "version"]
    assert [row["name"] for row in plain["rows"]] == [row.name for row in full().rows]
    assert plain["rows"][4]["equality"] == {"equal": False, "max_abs_error": "inf"}
    assert plain["about"]["versions"].keys() == {"python", "kit", "torch", "numpy"}
    long = [line for line in text.splitlines() if len(line) > 140]
    assert {line.split('"')[1] for line in long} - {"command"} == {"latencies_ns"}


def damaged(tmp_path: Path, change: Any) -> Path:
    full().save(tmp_path / "c.json")
    plain = json.loads((tmp_path / "c.json").read_text())
    change(plain)
    (tmp_path / "c.json").write_text(json.dumps(plain))
    return tmp_path / "c.json"


def test_a_newer_version_is_refused_with_what_to_update(tmp_path: Path) -> None:
    path = damaged(tmp_path, lambda plain: plain.update(version=FORMAT.version + 1, rows="in a way of its own"))
    with pytest.raises(ResultError, match=r"is version 2 .* reads versions up to 1\. Update the kit"):
        load_comparison(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plain: plain.update(version="1"), "its version is '1'"),
        (lambda plain: plain.pop("rows"), "the file lacks rows"),
        (lambda plain: plain["rows"][0].update(timing=99), r"rows\[0\].timing refers to record 99, but there are"),
        (lambda plain: plain["rows"][0].update(timing=-1), r"rows\[0\].timing refers to record -1"),
        (lambda plain: plain["rows"][0].update(name=5), r"rows\[0\].name is '5' instead of str"),
        (lambda plain: plain["rows"][0].update(prepare_s="soon"), r"prepare_s is 'soon' instead of float"),
        (
            lambda plain: plain["timings"][0].update(samples_ns=[1.0, "x"]),
            r"\[0\].samples_ns is not a list of float",
        ),
        (lambda plain: plain["timings"][0]["trace"].update(start_ns=[1.5]), r"start_ns is not a list of int64"),
        (lambda plain: plain["timings"][0]["trace"].update(start_ns=[2**70]), r"start_ns is not a list of int64"),
        (lambda plain: plain.update(branches_alone=[[1]]), r"branches_alone has entries that are not pairs"),
        (lambda plain: plain["timings"][0].update(turns={}), r"turns is not a list"),
        (lambda plain: plain["timings"].__setitem__(0, None), r"timings\[0\] is not an object"),
    ],
)
def test_a_damaged_file_is_refused_by_where_the_damage_is(tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(ResultError, match=rf"c\.json: it is damaged: .*{said}"):
        load_comparison(damaged(tmp_path, change))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a kit comparison: it is empty"),
        (b"\x89PNG\r\n", "is not a kit comparison: it is not JSON"),
        (b"[1, 2]", "it is JSON, but a list instead of an object"),
        (b'{"a": 1}', "its field 'format' is None"),
        (b'{"traceEvents": []}', r"it is a trace, which kit\.load_trace reads"),
        (b'{"approaches": []}', "a summary without samples"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_file_that_is_no_comparison_is_refused_by_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ResultError, match=rf"x\.json.*{said}"):
        load_comparison(tmp_path / "x.json")


@pytest.mark.parametrize(("name", "keep"), [("c.json", 0.9), ("c.json", 0.01), ("c.json.gz", 0.9), ("c.json.gz", 0.1)])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, keep: float) -> None:
    full().save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: max(50, int(keep * len(whole)))])
    with pytest.raises(ResultError, match="truncated or damaged"):
        load_comparison(tmp_path / name)


def test_bytes_that_changed_in_a_gzip_file_are_noticed(tmp_path: Path) -> None:
    full().save(tmp_path / "c.json.gz")
    content = bytearray((tmp_path / "c.json.gz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "c.json.gz").write_bytes(content)
    with pytest.raises(ResultError, match="truncated or damaged"):
        load_comparison(tmp_path / "c.json.gz")


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"cannot read .*none.json: No such file"):
        load_comparison(tmp_path / "none.json")
    with pytest.raises(KitError, match=r"its folder .*nowhere: No such file"):
        full().save(tmp_path / "nowhere" / "c.json")


def test_a_save_that_dies_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.json"
    full().save(path)
    before = path.read_bytes()

    def dies(self: Path, text: bytes) -> int:
        with self.open("wb") as file:
            file.write(text[: len(text) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", dies)
    with pytest.raises(ResultError, match="No space left"):
        example().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "c.json")
    full().save(tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert str(load_comparison(tmp_path / "c.json")) == str(full())


# Its description ------------------------------------------------------------------------------------------------------


def records(kind: Any) -> Iterator[Any]:
    """The record types below this one, itself included."""
    for each in (kind, *get_args(kind)):
        if isinstance(each, types.GenericAlias | types.UnionType) or get_args(each):
            yield from (found for inner in get_args(each) for found in records(inner))
        elif is_dataclass(each) or hasattr(each, "_fields"):
            yield each
            yield from (found for hint in get_type_hints(each).values() for found in records(hint))


def test_the_description_names_every_field_of_every_record() -> None:
    text = (ROOT / "docs" / "results.md").read_text()
    sections = dict(re.findall(r"^## (\w+).*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    kinds = {kind.__name__: kind for kind in records(Comparison)}
    assert {
        "Comparison",
        "Row",
        "Timing",
        "RoundBreakdown",
        "Trace",
        "Marks",
        "Lane",
        "About",
        "Kernel",
        "Use",
    } <= kinds.keys()
    for name, kind in kinds.items():
        wanted = kind._fields if hasattr(kind, "_fields") else [each.name for each in fields(kind)]
        assert re.findall(r"^\| `(\w+)` \|", sections[name], re.MULTILINE) == list(wanted), name
    assert f"version {FORMAT.version}" in text


def test_the_public_names() -> None:
    assert kit.load_comparison is load_comparison


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (Ratio(1.634, 1.6, 1.7), "1.63x [1.60, 1.70]"),
        (Ratio(0.61, 0.05, 0.7), "0.61x [0.050, 0.70]"),
        (Ratio(1 / 36, 1 / 40, 1 / 32), "36x slower [32, 40]"),
        (Ratio(1 / 2931, 1 / 11725, 1 / 1150), "2,931x slower [1,150, 11,725]"),
        (Ratio(0.05, 0.02, 2.0), "20x slower [0.50, 50]"),
    ],
)
def test_a_ratio_goes_in_one_direction(ratio: Ratio, said: str) -> None:
    assert str(ratio) == said

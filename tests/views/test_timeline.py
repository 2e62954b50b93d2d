import functools
import json
import random
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import TraceError
from kit.text import time_text
from kit.trace.columns import Event, Lane, Trace, stack
from kit.trace.lanes import depths
from kit.trace.links import links
from kit.views import palette
from kit.views import timeline as module
from kit.views.facts import branch_of, branches, groups, usual_colours
from kit.views.levels import Level, every_event
from kit.views.static import figure_svg
from kit.views.timeline import COPY_BYTES, Timeline, _size, columns, measure, thinned, timeline
from tests.labs.made_up import busy, made_up

EVIL = "<script>alert('x')</script>&\"'🔥"
CALLER, WORKER = Lane(1, 1, "caller"), Lane(1, 2, "worker 0")


def run(scale=1):
    return Trace.build(
        [
            Event("call", "call", 1_000, 100 * scale, CALLER),
            Event("spatial", "task", 1_010, 40 * scale, WORKER),
            Event("aten::conv2d", "cpu_op", 1_015, 20 * scale, WORKER),
            Event("merge", "merge", 1_000 + 80 * scale, 10 * scale, CALLER),
        ]
    )


@functools.cache
def many(n, name="op"):
    names = [f"{name} {i}" for i in range(50)]
    chosen = random.Random(0).choices(names, k=n)
    return Trace.build(Event(chosen[i], "cpu_op", 10 * i, 9, (CALLER, WORKER)[i % 2]) for i in range(n))


def read(packed):
    """The binary columns as timeline.js reads them."""
    types = ("<u4", "<f8", "<f8", "<u4", "<u4", "<u4", "<u4")
    return [np.frombuffer(buffer, kind) for buffer, kind in zip(packed["buffers"][:7], types, strict=True)]


@pytest.fixture
def comparison():
    return stack({"sequential": run(2), "threads": run()})


def test_the_columns_hold_every_event_exactly(comparison):
    packed = columns(comparison, depths(comparison), every_event(comparison), links(comparison))
    first, start, duration, kind, index, count, _ = read(packed)
    assert sorted(index.tolist()) == list(range(len(comparison)))
    assert set(count.tolist()) == {1}
    np.testing.assert_array_equal(start, (comparison.start_ns - comparison.start_ns.min())[index])
    np.testing.assert_array_equal(duration, comparison.duration_ns[index])
    names = [packed["kinds"][k][:2] for k in kind.tolist()]
    wanted = [
        [comparison.names[n], comparison.categories[c]]
        for n, c in zip(comparison.name, comparison.category, strict=True)
    ]
    assert names == [wanted[i] for i in index.tolist()]
    # Each row is a slice: of one lane, in order of start, without overlap.
    lanes = np.repeat(np.arange(len(packed["lanes"])), [lane["rows"] for lane in packed["lanes"]])
    assert len(first) == len(lanes) + 1
    assert first[-1] == len(index)
    for row, lane in enumerate(lanes):
        inside = slice(first[row], first[row + 1])
        assert set(comparison.lane[index[inside]].tolist()) <= {lane}
        assert (start[inside][1:] >= (start + duration)[inside][:-1]).all()


def test_the_wire_takes_at_most_32_bytes_an_event():
    trace = many(20_000)
    packed = columns(trace, depths(trace), every_event(trace), links(trace))
    assert sum(map(len, packed["buffers"])) / len(trace) <= 32
    json.dumps({key: value for key, value in packed.items() if key != "buffers"})  # plain data, no numpy


def test_times_since_the_epoch_stay_exact():
    late = 1_700_000_000_123_456_789
    trace = Trace.build([Event("a", "task", late, 7, CALLER), Event("b", "task", late + 2**40 + 1, 3, CALLER)])
    _, start, duration, *_ = read(columns(trace, depths(trace), every_event(trace), links(trace)))
    assert start.tolist() == [0, 2**40 + 1]
    assert duration.tolist() == [7, 3]


@pytest.mark.parametrize(("events", "name"), [(50_000, "op"), (7_000, "n" * 10_000)], ids=["many", "long names"])
def test_the_synced_copy_stays_small_and_says_what_it_leaves_out(events, name):
    trace = many(events, name)
    copy = thinned(trace, depths(trace))
    assert _size(copy) <= COPY_BYTES
    assert copy["count"] < copy["total"] == len(trace)
    assert read(copy)[-2].sum() in (len(trace), copy["count"])


def test_a_small_trace_is_synced_whole(comparison):
    copy = Timeline(comparison).copy
    assert copy["count"] == copy["total"] == len(comparison)


def test_the_kernel_answers_with_the_full_columns():
    trace = many(20_000)
    widget, sent = timeline(trace), []
    widget.send = lambda content, buffers: sent.append((content, buffers))
    widget._handle_custom_msg({"ask": "columns"}, [])
    widget._handle_custom_msg({"ask": "something else"}, [])
    widget._handle_custom_msg("nonsense", [])
    ((content, buffers),) = sent
    assert content["columns"]["count"] == len(trace)
    assert [len(buffer) for buffer in buffers[1:6]] == [8 * len(trace)] * 2 + [4 * len(trace)] * 3


def test_of_a_trace_too_large_for_a_page_only_the_copy_goes_there(monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 10_000)
    widget, sent = timeline(many(10_001)), []
    assert widget.copy["count"] < widget.copy["total"]
    assert not widget.copy["more"]
    widget.send = lambda content, buffers: sent.append(content)
    widget._handle_custom_msg({"ask": "columns"}, [])
    assert sent == []
    assert timeline(many(9_999)).copy["more"]


def test_arrows_travel_as_places_and_only_between_events_that_are_there():
    gpu = Lane(0, 7, "stream 7")
    rows = [Event("launch", "cuda_runtime", 10 * i, 5, CALLER) for i in range(3)]
    rows += [Event("kernel", "kernel", 100 * i + 40, 50, gpu) for i in range(3)]
    trace = Trace.build(rows)
    ids = np.array([{0: 0, 10: 1, 20: 2, 40: 0, 140: 1, 240: 2}[t] + 1 for t in trace.start_ns.tolist()])
    trace = replace(trace, correlation=ids)
    *_, index, _, arrows = read(columns(trace, depths(trace), every_event(trace), links(trace)))
    assert [index[pair].tolist() for pair in arrows.reshape(-1, 2)] == links(trace).tolist()
    assert len(arrows) == 6
    first_only = Level(*(column[:1] for column in every_event(trace)))
    assert len(read(columns(trace, depths(trace), first_only, links(trace)))[-1]) == 0
    blocks = every_event(trace)._replace(weight=np.full(6, 2))  # a block is no event that an arrow could end at
    assert len(read(columns(trace, depths(trace), blocks, links(trace)))[-1]) == 0


def test_the_view_starts_at_the_whole_and_refuses_nonsense(comparison):
    widget = timeline(comparison)
    assert widget.view == (0.0, 200.0)
    widget.view = [10, 20]
    assert widget.view == (10.0, 20.0)
    for begin, end in ((5, 5), (20, 10), (0, float("nan")), (0, float("inf"))):
        with pytest.raises(TraceError, match="begin < end"):
            widget.view = (begin, end)
    assert widget.view == (10.0, 20.0)
    with pytest.raises(TraceError, match="begin < end"):
        widget.selection = (7, 7)


def test_a_selected_window_is_measured_for_each_approach(comparison):
    widget = timeline(comparison)
    assert widget.selection is None
    assert widget.measured == {}
    # As it comes from the page: spatial runs from 10 to 90 in sequential, from 10 to 50 in threads, under one call.
    widget.set_state({"lanes": [0, 1, 2, 3], "selection": [30, 120]})
    assert widget.measured["window"] == (30.0, 120.0)
    assert widget.measured["groups"] == [
        {"name": "sequential", "busy": 90, "sum": 150, "overlap": 60, "branches": [["spatial", 60]]},
        {"name": "threads", "busy": 70, "sum": 90, "overlap": 20, "branches": [["spatial", 20]]},
    ]
    json.dumps(widget.measured)
    widget.set_state({"lanes": [3], "selection": [30, 120]})  # only threads' worker is in sight
    assert widget.measured["groups"] == [
        {"name": "threads", "busy": 20, "sum": 20, "overlap": 0, "branches": [["spatial", 20]]}
    ]
    widget.selection = None
    assert widget.measured == {}


@given(st.floats(0, 1e6), st.floats(1, 1e6))
def test_a_window_is_never_busier_than_it_is_long(begin, length):
    for found in measure(many(200), (begin, begin + length)):
        assert found["overlap"] <= found["busy"] <= round(begin + length) - round(begin)


def test_operators_belong_to_the_branch_they_run_in(comparison):
    inside = {comparison.names[comparison.name[i]]: int(b) for i, b in enumerate(branch_of(comparison))}
    assert inside == {"call": -1, "spatial": 0, "aten::conv2d": 0, "merge": -1}
    assert usual_colours(comparison) == timeline(comparison).colour == "branch"
    assert usual_colours(many(10)) == timeline(many(10)).colour == "name"


@pytest.mark.parametrize("by", palette.MODES)
def test_every_look_that_is_no_tint_is_in_the_legend(comparison, by):
    copy = timeline(comparison).copy
    mode = palette.MODES.index(by)
    explained = [tuple(line[1:]) for line in copy["legend"][mode]]
    for name, category, *places in copy["kinds"]:
        assert category == "cpu_op" or tuple(copy["looks"][places[mode]]) in explained, name


def test_the_figure_is_the_picture_beside_the_widget(comparison):
    widget = timeline(comparison)
    assert widget.figure()._repr_svg_() == widget._repr_mimebundle_()[0]["image/svg+xml"]


def words(widget):
    """All that stands in the still picture."""
    return " ".join(ElementTree.fromstring(widget.figure().svg).itertext()).replace(",  ", ", ")


def headers(widget):
    """What the headers say beside the names: to the page, and in the still picture."""
    told = {group["name"]: group.get("said") for group in widget.copy["groups"]}
    assert all(text is None or text in words(widget) for text in told.values())
    return told


def test_a_header_says_what_the_table_says_in_its_words():
    ms = {"sequential": 22.0, "threads": 13.4, "cold": 792.0, "same": 22.0, "other": 5.0, "gpu": "there is no GPU"}
    compared = made_up(ms, wrong=("other",))
    widget = timeline(compared)
    assert headers(widget) == {
        "sequential": "baseline",
        "threads": "median of all rounds 1.64x as fast",
        "cold": "median of all rounds 36x slower",
        "same": "no difference found",
        "other": "wrong output",
    }
    assert "this call 22.0 ms, baseline" in words(widget)
    for row in compared.rows[1:-1]:
        assert row.speed_text in widget.copy["groups"][compared.rows.index(row)]["said"]


@pytest.mark.parametrize("compared", [busy({"a": 22.0, "b": 1.0}), made_up({"a": 22.0, "b": 1.0}, scatter=2.0)])
def test_a_header_says_no_more_than_an_undecided_verdict(compared):
    widget = timeline(compared)
    assert compared["b"].verdict == "not decided"
    assert headers(widget) == {"a": "baseline", "b": "not decided"}
    assert [group["decided"] for group in widget.copy["groups"]] == [True, False]
    root = ElementTree.fromstring(widget.figure().svg)
    (grey,) = [node for node in root.iter() if node.text == "not decided"]
    assert grey.get("fill") == "#5f6368"


def test_recordings_beside_each_other_say_their_times_and_nothing_more(comparison):
    """A ratio of two single calls decides nothing."""
    widget = timeline(comparison)
    assert headers(widget) == {"sequential": None, "threads": None}
    assert "200 ns" in words(widget)
    assert "0.50x" not in words(widget)
    assert "this call" not in words(widget)


def test_busy_lanes_are_not_counted_over_approaches_that_never_ran_together(comparison):
    assert timeline(comparison).copy["busy"] == []
    assert len(timeline(run()).copy["busy"]) == 400


def test_lanes_and_their_spans_are_explained(comparison):
    trace = Trace.build([Event("merge", "merge", 0, 9, Lane(1, i, name)) for i, name in enumerate(("merge 0", "mine"))])
    widget = timeline(trace)
    assert [lane["meaning"] for lane in widget.copy["lanes"]] == [
        "a thread of the calling process that joins the outputs of the branches",
        "",
    ]
    assert "joins the outputs of the branches" in words(widget)  # as the title of the lane's name
    assert "merge: joins outputs" in [line[0] for line in timeline(comparison).copy["legend"][0]]


def test_the_key_of_the_still_picture_breaks_where_its_line_ends():
    names = [f"a branch with a name {i:02}" for i in range(11)]
    trace = Trace.build(Event(name, "task", i * 100, 90, CALLER) for i, name in enumerate(names))
    root = ElementTree.fromstring(figure_svg(trace, 900))
    keys = {node.text: node for node in root.iter() if node.text in names and float(node.get("y")) < 100}
    assert sorted(keys) == names
    assert len({node.get("y") for node in keys.values()}) > 1
    assert max(float(node.get("x")) + 6.6 * len(name) for name, node in keys.items()) <= 900
    lowest = max(float(node.get("y")) for node in keys.values())
    assert all(float(node.get("y")) > lowest for node in root.iter() if node.text in ("caller", "0"))


def test_a_bar_without_room_has_no_label():
    trace = Trace.build([Event("a", "task", 0, 1, CALLER), Event("long", "task", 10, 990, CALLER)])
    assert "…" not in words(timeline(trace))


def test_the_axes_of_single_approaches_are_for_the_page_only(comparison):
    widget = timeline(comparison)
    before = widget.figure().svg
    widget.own_axes = True
    assert widget.figure().svg == before  # the still copy stays on one axis


def test_a_page_says_what_to_do_when_it_cannot_be(comparison, tmp_path, monkeypatch):
    with pytest.raises(TraceError, match="cannot write"):
        timeline(comparison).to_html(tmp_path)
    monkeypatch.setattr(module, "HTML_BYTES", 10_000)
    with pytest.raises(TraceError, match=r"all 8 events .* trace.select"):
        timeline(comparison).to_html(tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_groups_know_their_own_wall_time(comparison):
    assert [tuple(group) for group in groups(comparison)] == [("sequential", 0, 200), ("threads", 0, 100)]
    copy = timeline(comparison).copy
    assert [lane["group"] for lane in copy["lanes"]] == ["sequential", "sequential", "threads", "threads"]


def test_the_table_twin_counts_per_lane(comparison):
    rows = timeline(comparison).table()
    assert rows[0] == {"group": "sequential", "lane": "caller", "name": "call", "count": 1, "total_ns": 200}
    assert sum(row["total_ns"] for row in rows) == comparison.duration_ns.sum()
    assert sum(row["count"] for row in rows) == len(comparison)


def test_the_output_is_a_widget_with_a_picture_and_a_stable_text(comparison):
    widget = timeline(comparison)
    data, _ = widget._repr_mimebundle_()
    assert data["text/plain"] == repr(widget) == "Timeline(8 events in 4 lanes)"
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert ElementTree.fromstring(data["image/svg+xml"]).tag.endswith("svg")


def test_the_picture_names_lanes_groups_and_times(comparison):
    text = " ".join(ElementTree.fromstring(figure_svg(comparison)).itertext())
    for wanted in ("sequential", "threads", "caller", "worker 0", "spatial", "200 ns", "100 ns"):
        assert wanted in text


def test_the_picture_escapes_names():
    trace = Trace.build([Event(EVIL, "task", 0, 100, Lane(1, 1, EVIL, EVIL))])
    root = ElementTree.fromstring(figure_svg(trace))
    assert not [node for node in root.iter() if node.tag.endswith("script")]
    assert EVIL in list(root.itertext())


def test_the_picture_of_many_events_is_bounded():
    trace = many(50_000)
    assert len(figure_svg(trace)) < 200_000
    picture = timeline(trace).figure().svg  # of the copy, which is quicker: as good a picture
    assert 20_000 < len(picture) < 200_000


@pytest.mark.parametrize("events", [[], [Event("instant", "cpu_op", 5, 0, CALLER)]])
def test_nothing_and_an_instant_draw(events):
    trace = Trace.build(events)
    widget = timeline(trace)
    data, _ = widget._repr_mimebundle_()
    assert ElementTree.fromstring(data["image/svg+xml"]).tag.endswith("svg")
    assert widget.view[0] < widget.view[1]
    assert ("No events" in data["image/svg+xml"]) == (not events)


def test_a_lane_without_events_keeps_its_row(comparison):
    caller_only = comparison.select(categories=["call"])
    copy = timeline(caller_only).copy
    assert [lane["rows"] for lane in copy["lanes"]] == [1, 1, 1, 1]
    text = list(ElementTree.fromstring(figure_svg(caller_only)).itertext())
    assert (text.count("caller"), text.count("worker 0")) == (2, 2)


def test_branches_differ_by_colour_and_by_hatch(comparison):
    assert branches(comparison) == ["spatial"]
    looks = [palette.branch_look(i) for i in range(49)]
    assert len(set(looks)) == 49
    assert len({look.hatch for look in looks[:7]}) == len({look.colour for look in looks[:7]}) == 7


def test_eleven_branches_share_no_colour_in_the_timeline_nor_in_the_graph():
    """A bar that is three pixels wide has no room for a hatch."""
    names = [f"branch {i:02}" for i in range(11)]
    trace = Trace.build(Event(name, "task", i * 100, 90, CALLER) for i, name in enumerate(names))
    copy = timeline(trace).copy
    looks = [copy["looks"][look] for _, _, look, *_ in copy["kinds"]]
    assert len({look.colour for look in looks}) == 11
    assert [line[0] for line in copy["legend"][0]] == names
    assert looks == [palette.branch_look(i) for i in range(11)]  # which the picture of a graph uses too
    on_dark = {palette.mix(look.colour, "#111111", 0.4) for look in looks}
    assert len(on_dark) == 11  # operators, that are drawn paler


def test_a_branch_keeps_its_look_wherever_it_runs(comparison):
    copy = timeline(comparison).copy
    (spatial,) = [kind for kind in copy["kinds"] if kind[1] == "task"]
    by_branch, by_name, _ = [copy["looks"][place] for place in spatial[2:]]
    assert by_branch == by_name == palette.branch_look(0)
    assert copy["legend"][0][0] == ["spatial", *palette.branch_look(0)]


@pytest.mark.parametrize("colour", [*palette.OKABE_ITO, palette.NEUTRAL, "#ffffff", "#111111"])
def test_ink_is_legible_on_every_fill(colour):
    def luminance(value):
        parts = [int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for page in ("#ffffff", "#111111"):
        for strength in (0.3, 0.4, 0.55, 0.8, 1.0):
            fill = palette.mix(colour, page, strength)
            low, high = sorted((luminance(fill), luminance(palette.ink(fill))))
            assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG AA


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (812, "812 ns"),
        (1_234, "1.23 µs"),
        (12_300_000, "12.3 ms"),
        (999_600, "1.00 ms"),
        (7.89e9, "7.89 s"),
    ],
)
def test_durations_for_people(ns, text):
    assert time_text(ns) == text


@given(st.integers(0, 10**12))
def test_durations_for_people_are_true_to_three_digits(ns):
    number, unit = time_text(ns).split()
    assert float(number) * {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}[unit] == pytest.approx(ns, rel=6e-3, abs=0.5)

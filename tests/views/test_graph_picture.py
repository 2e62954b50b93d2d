import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import kit
from kit.errors import KitError
from kit.views import boxes as module
from kit.views.boxes import FLAT, boxes, children, opened_at_first
from kit.views.graph_picture import COPY_BYTES, columns, fitting, graph_picture, script
from kit.views.palette import KNOT, branch_look
from kit.views.timeline import timeline
from tests.views.networks import Branch, Graph, Operator, Region, inception, nasnet

EVIL = "<script>alert('x')</script>&\"'"
PATH, LABEL, PARENT, PART, MS, MACS, COUNT, CRITICAL, AROUND, WITHIN, KNOTTED = range(11)


def chain(*modules, before=lambda i: (i - 1,) if i else ()):
    """A graph with an operator in each of these modules, each after the one before."""
    rows = (Operator(f"op_{i}", "op", name, "1x8", 1000, 0.1, before(i)) for i, name in enumerate(modules))
    return Graph("Net", "1x8", tuple(rows))


def still(graph):
    return graph_picture(graph).figure().svg


def labels(graph):
    tree = boxes(graph)
    return [tree[i].label for i in children(tree)[0]]


@pytest.mark.parametrize("graph", [inception(), nasnet(3), chain("a", "b", "a", "b.c", "a")])
def test_each_operator_is_in_one_box_of_its_own_and_in_all_around_it(graph):
    tree = boxes(graph)
    leaves = [box for box in tree if not box.module]
    assert sorted(box.operators for box in leaves) == [(i,) for i in range(len(graph.operators))]
    assert len({box.path for box in tree}) == len(tree)
    for box, inside in zip(tree, children(tree), strict=True):
        assert all(tree[child].parent < child for child in inside)
        if box.module:
            assert sorted(i for child in inside for i in tree[child].operators) == list(box.operators)
            assert len(inside) > 1 or box.parent == -1


def test_an_inception_shows_about_twenty_boxes_at_first_and_a_nasnet_its_cells():
    for graph, wanted in ((inception(), "features.stage2.unit3.branches"), (nasnet(), "features.stage1.unit3")):
        tree = boxes(graph)
        opened = opened_at_first(tree)
        inside = children(tree)
        shown = [tree[j].path for i, box in enumerate(tree) if box.path in opened for j in inside[i]]
        shown = [path for path in shown if path not in opened]
        assert 15 <= len(shown) <= 30
        assert wanted in shown


def test_a_module_that_holds_one_module_only_is_no_box_of_its_own():
    assert labels(chain("net.body.a", "net.body.b", "head.fc")) == ["net.body", "head.fc"]


def test_a_place_in_a_list_is_called_by_the_list_too():
    tree = boxes(chain("stages.0.a", "stages.0.b", "stages.1", "fc"))
    assert [(box.label, box.path) for box in tree[2:]] == [
        ("stages.0", "stages.0"),
        ("a", "stages.0/op_0"),
        ("b", "stages.0/op_1"),
        ("stages.1", "stages/op_2"),
        ("fc", "/op_3"),
    ]


def test_a_module_that_is_entered_again_is_a_box_for_each_visit():
    graph = chain("conv1", "relu", "relu", "conv2", "relu", "relu", "conv3")
    assert labels(graph) == ["conv1", "relu", "conv2", "relu#2", "conv3"]
    # As two towers share a backbone: nothing leads from it out and back in, so it stays one box.
    towers = chain("left", "right", "back", "back", "head", before=lambda i: [(), (), (0,), (1,), (2, 3)][i])
    assert labels(towers) == ["left", "right", "back", "head"]


def test_visits_of_a_module_and_of_the_one_in_it_are_told_apart():
    """The second visit of b holds b.0 only, and the first one enters b.0 twice."""
    path = ["b.0", "b.0", "b", "b.0", "b.0", "c", "b.0", "b.0"]
    before = [(), (0,), (1,), (2,), (3,), (4,), (5,), (6,)]
    tree = boxes(chain(*path, before=lambda i: before[i]))
    assert [box.path for box in tree if box.module] == ["", "b", "b.0", "b.0#2", "b#2.0"]


@st.composite
def graphs(draw):
    """Modules that are left and entered again, however they like, and operators that are in none."""
    rows = draw(
        st.lists(st.tuples(st.sampled_from(["", "a", "b", "a.x", "a.x.y", "b.0", "c.d"]), st.integers(0, 2**16)))
    )
    sources = [{spread % i, spread // 256 % i} if i else set() for i, (_, spread) in enumerate(rows)]
    return chain(*(module for module, _ in rows), before=lambda i: tuple(sources[i]))


@given(graphs(), st.sampled_from([3, FLAT]))
def test_boxes_never_depend_on_each_other_in_a_circle(graph, flat):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FLAT", flat)  # also where operators without modules are put together
        tree = boxes(graph)
    assert len({box.path for box in tree}) == len(tree)
    for inside in children(tree):
        of = {i: child for child in inside for i in tree[child].operators}
        edges = {(of[j], at) for i, at in of.items() for j in graph.operators[i].data if of.get(j, at) != at}
        left = set(inside)
        while ready := {n for n in left if not any(b == n and a in left for a, b in edges)}:
            left -= ready
        assert left == set()


def test_the_columns_say_what_each_box_is():
    graph = inception()
    full = columns(graph, boxes(graph))
    json.dumps(full, allow_nan=False)
    by_path = {box[PATH]: box for box in full["boxes"]}
    whole = by_path[""]
    assert whole[COUNT] == len(graph.operators)
    assert whole[MS] == pytest.approx(sum(operator.ms for operator in graph.operators), rel=1e-3)
    third = by_path["features.stage1.unit1.branches.branch3"]
    assert (full["branches"][third[AROUND]][0], third[COUNT], third[CRITICAL]) == ("branch3", 9, 1)
    assert third[WITHIN] == ()
    unit = by_path["features.stage1.unit1.branches"]
    assert (unit[AROUND], unit[WITHIN]) == (-1, (0, 1, 2, 3))
    assert by_path["features.init_block"][WITHIN] == ()
    assert by_path["features.stage1.unit1.branches.branch1.conv1"][CRITICAL] == 0
    assert [full["parts"][i][4] for i in full["path"]] == [graph.operators[i].name for i in graph.critical_path]


class Block(nn.Module):
    """Branches whose order is not that of their names; one of them forks again."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow, self.early = (nn.Conv2d(4, 4, size, padding=size // 2) for size in (5, 1, 3))
        self.up, self.down = nn.Conv2d(4, 4, (3, 1), padding=(1, 0)), nn.Conv2d(4, 4, (1, 3), padding=(0, 1))

    def forward(self, x):
        early = torch.relu(self.early(x))
        return torch.cat([self.wide(x), self.narrow(x), torch.cat([self.up(early), self.down(early)], 1)], 1)


def test_a_branch_looks_as_in_the_timeline_of_the_same_model():
    torch.manual_seed(0)
    model, x = nn.Sequential(Block(), nn.Conv2d(16, 4, 1), Block()).eval(), torch.randn(1, 4, 8, 8)
    graph = kit.graph(model, x)
    picture = columns(graph, boxes(graph))["branches"]
    assert sorted({branch.name for region in graph.all_regions() for branch in region.branches}) == [
        name for name, *_ in picture
    ]
    assert len(picture) == 5
    trace = timeline(kit.record(model, x, "threads(workers=2)", operators=False)).copy
    looks = {name: trace["looks"][look] for name, category, look, *_ in trace["kinds"] if category == "task"}
    assert {name: tuple(look) for name, *look in picture} == {name: tuple(look) for name, look in looks.items()}


def test_a_check_that_no_branch_holds_does_not_take_a_tower_out_of_its_branch():
    tower = chain("tower", "tower", "tower", "other", "", before=lambda i: [(), (0,), (0,), (), (1, 3)][i])
    checked = replace(tower.operators[2], kind="_assert_tensor_metadata")
    graph = replace(
        tower,
        operators=(*tower.operators[:2], checked, *tower.operators[3:]),
        regions=(Region("", (Branch("tower", (0, 1)), Branch("other", (3,)))),),
    )
    full = columns(graph, boxes(graph))
    around = {box[LABEL]: box[AROUND] for box in full["boxes"]}
    assert [full["branches"][around[name]][0] for name in ("tower", "other")] == ["tower", "other"]
    assert around["Net"] == around["op_4"] == -1


def test_what_is_not_series_parallel_is_told_in_the_picture_and_in_the_still():
    graph = nasnet()
    full = columns(graph, boxes(graph))
    by_path = {box[PATH]: box for box in full["boxes"]}
    cell = by_path["features.stage2.unit3"]
    assert cell[KNOTTED] == cell[COUNT] > 0
    assert by_path[""][KNOTTED] == len(graph.knots[0])
    assert full["boxes"][-1][KNOTTED] == 0  # the classifier
    said = " ".join(ElementTree.fromstring(still(graph)).itertext())
    assert "not series-parallel" in said
    assert graph.answer in said
    assert "not series-parallel" not in " ".join(ElementTree.fromstring(still(inception())).itertext())


def test_the_still_shows_branches_at_the_foot_of_the_boxes_that_hold_them_and_names_them():
    graph = inception()
    root = ElementTree.fromstring(still(graph))
    fills = Counter(node.get("fill") for node in root.iter())
    for place in range(4):
        assert fills[branch_look(place).colour.lower()] == 1 + 11  # in the key, and in each unit
    assert fills[KNOT.colour.lower()] == 0
    said = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert {"branch1", "branch2", "branch3", "branch4", "1x288x35x35"} <= set(said)


def test_the_still_is_as_wide_as_its_lines_and_its_title():
    far = chain(*(f"m{i}" for i in range(6)), before=lambda i: (0, i - 1) if i > 1 else (0,) if i else ())
    graph = replace(far, inputs="x (2, 12) int64 on cpu, " * 9)
    root = ElementTree.fromstring(still(graph))
    wide = float(root.get("width"))
    texts = [(float(node.get("x")), node.text) for node in root.iter() if node.get("font-weight") == "600"]
    assert len(texts) > 1
    assert all(x + 7 * len(text) < wide for x, text in texts)
    group = next(node for node in root.iter() if node.tag.endswith("}g"))
    moved = float(re.match(r"translate\(([-\d.]+)", group.get("transform"))[1])
    curves = [node.get("d") for node in group if node.get("fill") == "none"]
    assert max(moved + float(x) for d in curves for x in re.findall(r"[MC ](-?\d+) ", d)) <= wide


def test_edges_of_data_and_of_order_are_told_apart():
    first = chain("a", "b", "c")
    last = replace(first.operators[2], data=(1,), order=(0, 1))
    graph = replace(first, operators=(*first.operators[:2], last))
    assert [part[:2] for part in columns(graph, boxes(graph))["parts"]] == [[[], []], [[0], []], [[1], [0]]]


def test_what_was_not_measured_goes_by_its_macs():
    graph = inception(measured=False)
    full = columns(graph, boxes(graph))
    assert full["unit"] == "MACs"
    assert full["boxes"][0][MS] is None
    some = replace(graph, operators=(replace(graph.operators[0], ms=0.25), *graph.operators[1:]))
    assert columns(some, boxes(some))["unit"] == "ms"
    assert columns(some, boxes(some))["boxes"][0][MS] == 0.25
    assert "MACs" in graph_picture(graph).figure().svg


def test_the_synced_copy_stays_small_and_the_kernel_answers_with_the_rest():
    graph = nasnet(60)
    widget, sent = graph_picture(graph), []
    assert len(json.dumps(widget.copy)) <= COPY_BYTES
    assert widget.copy["more"]
    widget.send = sent.append
    for message in ({"ask": "columns"}, {"ask": "something else"}, "nonsense"):
        widget._handle_custom_msg(message, [])
    ((content,),) = [sent]
    assert not content["columns"]["more"]
    assert len(content["columns"]["parts"]) == len(graph.operators)
    assert not graph_picture(inception()).copy["more"]


def test_boxes_whose_insides_are_left_out_keep_their_edges():
    graph = nasnet(3)
    tree = boxes(graph)
    outer = columns(graph, tree, 2)
    names = {box[PART]: box[PATH] for box in outer["boxes"] if box[PART] >= 0}
    assert sum(box[COUNT] for box in outer["boxes"] if box[PART] >= 0) == len(graph.operators)
    taken = {names[i]: {names[j] for j in part[0]} for i, part in enumerate(outer["parts"])}
    assert taken["features.stage1"] == {"features.init_block"}
    assert [names[i] for i in outer["path"]][1:3] == ["features.init_block", "features.stage1"]
    wide = chain(*(f"{'long' * 20}{i}" for i in range(2_000)))  # too large for any copy: one box that the kernel opens
    assert [box[COUNT] for box in fitting(wide, boxes(wide))["boxes"]] == [2_000]


def test_a_graph_without_modules_has_boxes_of_operators_that_follow_each_other():
    flat = chain(*[""] * 1_000)
    tree = boxes(flat)
    outer = [tree[i] for i in children(tree)[0]]
    assert len(outer) == 33
    assert outer[1].label == "operators 32 to 62"
    assert [i for box in outer for i in box.operators] == list(range(1_000))
    assert labels(chain("", "", "")) == ["op_0", "op_1", "op_2"]


def test_the_output_is_a_widget_with_a_picture_and_the_graphs_text():
    widget = graph_picture(inception())
    data, _ = widget._repr_mimebundle_()
    assert data["text/plain"] == str(widget.graph) == widget.copy["text"]
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert data["image/svg+xml"] == widget.figure().svg
    assert repr(widget) == "GraphPicture(InceptionV3, 330 operators)"


def test_the_still_has_the_first_boxes_each_below_what_it_depends_on():
    graph = nasnet()
    root = ElementTree.fromstring(graph_picture(graph).figure().svg)
    tops = {node.text: float(node.get("y")) for node in root.iter() if node.tag.endswith("text")}
    assert (
        next(y for name, y in tops.items() if name.startswith("init_"))
        < tops["stage1.unit1"]
        < tops["stage1.unit2"]
        < tops["stage3.unit7"]
    )
    dashes = Counter(node.get("stroke-dasharray") for node in root.iter())
    assert dashes["5 4"] == 0  # here each pair of cells with an ordering edge has data as well
    assert dashes[None] > 30


def test_the_still_has_the_boxes_open_that_are_open_in_the_widget():
    widget = graph_picture(chain("a.b", "a.c", "d"))
    assert {"a.b", "a.c", "d"} < set(ElementTree.fromstring(widget.figure().svg).itertext())
    widget.opened = [""]
    texts = set(ElementTree.fromstring(widget.figure().svg).itertext())
    assert {"a", "d"} < texts
    assert "a.b" not in texts


def test_a_still_of_many_modules_says_how_much_it_leaves_out():
    svg = still(chain(*(f"m{i}" for i in range(500))))
    assert "Boxes that are not drawn: 380." in svg
    assert len(svg) < 100_000


def test_names_are_escaped(tmp_path):
    graph = replace(chain(EVIL, "b"), name=EVIL)
    root = ElementTree.fromstring(graph_picture(graph).figure().svg)
    assert not [node for node in root.iter() if node.tag.endswith("script")]
    graph_picture(graph).to_html(tmp_path / "page.html")
    assert EVIL not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_nothing_draws():
    widget = graph_picture(Graph("Empty", "", ()))
    assert ElementTree.fromstring(widget.figure().svg).tag.endswith("svg")
    assert [box[COUNT] for box in widget.copy["boxes"]] == [0]


def test_faults_say_what_to_do(tmp_path):
    with pytest.raises(KitError, match=r"not a int: make one with kit.graph"):
        graph_picture(3)
    with pytest.raises(KitError, match="cannot write"):
        graph_picture(chain("a")).to_html(tmp_path)


def test_the_page_needs_no_other_file(tmp_path):
    assert script().startswith('"use strict";var dagre=')
    assert "sourceMappingURL" not in script()
    assert "import " not in script().partition("// The page half")[2]

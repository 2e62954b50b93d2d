"""Notebook 12's gallery, states, converters, sentences, card and exercise checks; of real and of made-up results."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kit.equality import Equality, compare_outputs
from kit.labs import modules as lab
from kit.labs.conclusions import Claim
from kit.labs.modules.converters import Taken, steps_told
from kit.labs.modules.gallery import examined, split
from kit.labs.modules.specimens import INDEX, MAX_PADS_ZEROS, WRAPS
from kit.labs.modules.state import Switched, examples, seen
from kit.labs.modules.table import HEAD, gallery_html
from kit.measuring.comparison import Comparison
from tests.labs.made_up import busy, made_up

co = pytest.importorskip("continual")

YES, NO = lab.Agreement(Equality(True, 1e-7)), lab.Agreement(Equality(False, 0.5), (0, 1, 3), 8)


@lru_cache(1)
def rows() -> list[lab.Row]:
    return [*lab.gallery(lab.specimens()), *lab.others()]


def row(name: str, case: str = "") -> lab.Row:
    return next(each for each in rows() if (each.name, each.case) == (name, case))


# The gallery ----------------------------------------------------------------------------------------------------------


def test_every_public_name_of_the_library_has_a_row_with_a_verdict() -> None:
    assert {each.name for each in rows()} == set(lab.exported())
    assert {each.verdict for each in rows()} <= {"equal", "works", "differs", "raises"}
    assert len({(each.name, each.case) for each in rows()}) == len(rows())
    assert {"Conv3d", "call_mode", "continual", "onnx"} <= set(lab.exported())
    assert not {"conv", "torch", "utils"} & set(lab.exported())  # modules of files


def test_an_all_of_the_library_decides_what_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(co, "__all__", ["Delay", "Conv3d"], raising=False)
    assert lab.exported() == ["Conv3d", "Delay"]


def test_on_a_clip_the_library_s_modules_are_pytorch_s() -> None:
    against = [each for each in rows() if each.as_torch is not None]
    assert len(against) > 50
    assert [each.name for each in against if isinstance(each.as_torch, str) or not each.as_torch.equality.equal] == []


def test_a_padded_convolution_waits_one_frame_less_and_counts_its_state() -> None:
    plain, padded = row("Conv3d", "kernel 3"), row("Conv3d", "kernel 3, padding 1")
    assert (plain.delay, padded.delay) == ((2, 2), (1, 1))
    assert (plain.field, padded.field) == ((3, 3), (3, 3))
    assert padded.outputs == (False, *[True] * 8)
    assert plain.verdict == padded.verdict == "equal"
    # Sums of two frames for two outputs, (2, 2, 4, 2, 3, 3) in floats, and two indices.
    assert plain.state == 2 * 2 * 4 * 2 * 9 * 4 + 2 * 8


def test_strided_steps_give_none_in_between() -> None:
    assert "".join(".x"[gave] for gave in row("Conv3d", "kernel 3, padding 1, stride 2").outputs) == ".x.x.x.x."


def test_containers_hold_a_state_that_they_do_not_give() -> None:
    for name, case in (("Sequential", "padded, and not"), ("Residual", "padded")):
        found = row(name, case)
        assert found.verdict == "equal"
        assert found.state > 0
        assert found.gives_state is False
    assert row("Conv3d", "kernel 3").gives_state is True


def test_what_refuses_says_so() -> None:
    found = row("Conv3d", "kernel 3, dilation 2 in time")
    assert found.verdict == "raises"
    assert "Temporal dilation" in str(found.step)
    assert found.outputs == ()


def test_a_wrong_module_is_found_out_in_each_mode() -> None:
    class Late(co.Delay):  # type: ignore[misc]
        """Forgets its last frame."""

        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    found = examined(lab.Specimen("Delay", "", "over time", lambda: Late(1), torch=lambda _: lambda x: x))
    assert found.verdict == "differs"
    modes = [fault.partition(":")[0] for fault in found.faults]
    assert modes == ["forward is not torch's", "forward_steps", "pad_end", "forward_step"]


def test_a_module_that_breaks_in_the_middle_is_a_row() -> None:
    class Broken(co.Delay):  # type: ignore[misc]
        def forward_step(self, x: Tensor, update_state: bool = True) -> Tensor:
            raise RuntimeError("no memory\nleft")

    found = examined(lab.Specimen("Delay", "", "over time", lambda: Broken(1)))
    assert found.verdict == "raises"
    assert found.faults == ["forward_step: raises RuntimeError: no memory left"]


# Reasons: what the gallery names as the cause is mended, and the difference is gone -----------------------------------


def test_max_pools_agree_once_their_first_frames_are_not_zeros() -> None:
    for axes in (2, 3):
        name = f"MaxPool{axes}d"
        assert row(name, "kernel 3, padding 1").why == MAX_PADS_ZEROS
        assert row(name, "kernel 3, padding 1").verdict == "differs"
        assert row(name, "padding 1, temporal_fill neg_inf").verdict == "equal"


def test_dilated_pools_agree_once_the_index_runs_through_the_whole_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = next(each for each in lab.specimens() if (each.name, each.case) == ("MaxPool3d", "kernel 3, dilation 2"))
    assert (pool.why, examined(pool).verdict) == (INDEX, "differs")
    step = co.MaxPool3d._forward_step

    def mended(self: Any, frame: Tensor, prev_state: Any = None) -> Any:
        kernel, places = self.kernel_size, self.dilation[0] * (self.kernel_size[0] - 1) + 1
        state = prev_state or self.init_state(self._spatial_pool_fn(frame))
        self.kernel_size = (places, *kernel[1:])  # its index is taken modulo the first of these, and by nothing else
        try:
            return step(self, frame, state)
        finally:
            self.kernel_size = kernel

    monkeypatch.setattr(co.MaxPool3d, "_forward_step", mended)
    found = examined(pool)
    assert isinstance(found.step, lab.Agreement)
    assert found.step.equality.equal


def test_a_retroactive_layer_agrees_once_its_index_runs_through_the_whole_buffer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from continual.transformer import RetroactiveUnity

    layers = [each for each in lab.specimens() if each.why == WRAPS and row(each.name, each.case).verdict != "equal"]
    assert {each.name for each in layers} == {"RetroactiveTransformerEncoderLayer", "TransformerEncoder"}

    def mended(self: Any, token: Tensor, prev_state: Any) -> Any:
        buffer, index = prev_state or self.init_state(token)
        buffer[index % (self.delay + 1)] = token
        after = index + 1
        if index < 0:
            return None, (buffer, after)
        order = [(int(after) + i) % (self.delay + 1) for i in range(self.delay + 1)]
        tokens = buffer[order].movedim(0, -1)  # (N, E, tokens), the oldest first
        return tokens, (buffer, after % (self.delay + 1))

    monkeypatch.setattr(RetroactiveUnity, "_forward_step", mended)
    for each in layers:
        found = examined(each)
        assert isinstance(found.step, lab.Agreement)
        assert found.step.equality.equal


# The table ------------------------------------------------------------------------------------------------------------


def made(**changes: Any) -> lab.Row:
    whole = lab.Row(
        "Pool3d", "padding 1", "pool", YES, YES, YES, YES, (False, True), (1, 1), (3, 3), 1608, True, why="it pads"
    )
    return replace(whole, **changes)


@pytest.mark.parametrize(
    ("found", "verdict", "fault"),
    [
        (made(), "equal", ""),
        (made(said="tried", step=None), "works", ""),
        (made(said="tried", step="raises TypeError: x"), "raises", "raises TypeError: x"),
        (made(said="tried", step="it does nothing"), "differs", "it does nothing"),
        (made(as_torch=NO), "differs", "forward is not torch's: off by 0.5 (outputs: 0-1, 3 of 8)"),
        (made(steps="6 outputs, forward has 1"), "differs", "forward_steps: 6 outputs, forward has 1"),
        (made(padded="raises ValueError: y"), "raises", "pad_end: raises ValueError: y"),
        (made(delay=(2, 3)), "differs", "says delay 2, has 3"),
        (made(field=(6, 3)), "differs", "says receptive field 6, has 3"),
        (made(delay=(2, None), field=(3, None)), "equal", ""),
    ],
)
def test_a_row_s_verdict_and_faults(found: lab.Row, verdict: str, fault: str) -> None:
    assert found.verdict == verdict
    assert "; ".join(found.faults) == fault


def test_all_outputs_wrong_are_told_as_all() -> None:
    assert str(lab.Agreement(Equality(False, 2.0), (0, 1), 2)) == "off by 2 (outputs: all)"
    assert str(YES) == "yes, within 1e-07"


def test_the_table_is_filtered_by_name_kind_and_verdict() -> None:
    some = [
        made(),
        made(name="Delay", case="2", kind="over time", step=NO),
        made(name="onnx", kind="converter", said="a"),
    ]
    table = lab.Gallery(some)
    assert table.chosen == some
    table.name.value = "PADD"
    assert [each.name for each in table.chosen] == ["Pool3d", "onnx"]
    table.name.value, table.kind.value = "", "over time"
    assert [each.name for each in table.chosen] == ["Delay"]
    assert "Delay" in table.table.value
    assert "Pool3d" not in table.table.value
    table.kind.value, table.verdict.value = "all", "differs"
    assert [each.name for each in table.chosen] == ["Delay"]
    assert "Pool3d" in table.still()  # without widgets nobody filters
    assert repr(table) == "Gallery(3 rows)"
    assert all(control.description for control in (table.name, table.kind, table.verdict))


def test_the_cells_of_the_table() -> None:
    page = gallery_html([made(steps=NO, padded="raises E: " + "long " * 20, delay=(2, 3), gives_state=False)])
    assert page.count("<th scope='col'") == len(HEAD)
    for text in ("yes, 1e-07", "NO, off by 0.5", "raises E", "...", "·█", "3 (it says 2)", "1,608, get_state(): None"):
        assert text in page
    assert "it pads" in page
    assert "it pads" not in gallery_html([made()])
    assert ">none<" in gallery_html([made(state=0)])
    assert "<script>" not in gallery_html([made(case="<script>")])


def test_the_gallery_in_words() -> None:
    told = lab.gallery_told([made(), made(case="2", step=NO), made(name="B", case="", step=NO)], ["B", "Pool3d", "X"])
    assert told.startswith("2 of the 3 public names of the library, in 3 rows. Missing: X. ")
    assert "✓ equal (all modes agree): 1; ≠ differs" in told
    assert told.endswith("\n- **Pool3d** (2), **B**: it pads.")
    alone = lab.gallery_told([made(step="raises E: f", why="")], ["Pool3d"])
    assert "Missing" not in alone
    assert alone.endswith("- **Pool3d** (padding 1): forward_step: raises E: f.")


# States ---------------------------------------------------------------------------------------------------------------


def test_which_modules_keep_their_place_in_a_clip() -> None:
    found = lab.kept()
    assert all(each.disturbed for each in found.values())  # else nothing would be shown
    assert {name for name, each in found.items() if each.restored} == {
        *("Conv3d", "MaxPool3d", "Delay", "LSTM", "SingleOutputMultiheadAttention")
    }
    assert [name for name, each in found.items() if not each.inside] == ["RecyclingPositionalEncoding"]
    assert lab.state_answer(found) == "None"
    assert found.keys() == examples().keys()


def test_a_module_without_a_state_is_not_disturbed() -> None:
    with torch.no_grad():
        found = seen(co.Identity(), torch.randn(1, 4, 9, 3, 3), torch.randn(1, 4, 9, 3, 3))
    assert found == lab.Kept(gives=False, disturbed=False, restored=True, inside=True)


def test_states_in_words() -> None:
    whole, none = lab.Kept(True, True, True, True), lab.Kept(False, True, False, True)
    lost, bad = lab.Kept(False, True, False, False), lab.Kept(True, True, False, True)
    table = lab.kept_table({"a": whole, "b": none})
    assert "| a | a state | yes | yes | yes |" in table
    assert "| b | **None** | yes | **no** | yes |" in table
    told = lab.kept_told({"a": whole, "b": none, "c": lost, "d": bad}).splitlines()
    assert told[0] == "- `get_state()` and a copy put back with `set_state()` restore: a."
    assert told[1].endswith("of: b, c.")
    assert told[2] == "- `get_state()` gives a state that does not restore: d."
    assert told[3] == "- Not even the states of all modules inside restore: c."
    assert len(lab.kept_told({"a": whole}).splitlines()) == 1
    assert lab.state_answer({"Sequential": whole}) == "the states of both"


def test_two_clips_in_turns_need_two_states() -> None:
    plain = nn.Sequential(nn.Conv3d(2, 2, 3), nn.Conv3d(2, 2, 3)).eval()
    net = co.continual(plain)
    clips = {"one": torch.randn(1, 2, 7, 6, 6), "two": torch.randn(1, 2, 7, 6, 6)}
    states: dict[str, Any] = {}

    def step(name: str, frame: Tensor) -> Any:
        lab.put(net, states.get(name))
        out = net.forward_step(frame)
        states[name] = lab.take(net)
        return out

    with torch.no_grad():
        want = {name: plain(clip) for name, clip in clips.items()}
        assert lab.turns_agree(lab.in_turns(step, clips), want) == {"one": 0, "two": 0}
        net.clean_state()
        shared = lab.turns_agree(lab.in_turns(lambda _, frame: net.forward_step(frame), clips), want)
        # Outputs come after 4 frames of both: with frame 2 of each clip, twice too early.
        assert shared == {"one": 5, "two": 5}
        missing = {name: [None] * 7 for name in clips}
        assert lab.turns_agree(missing, want) == {"one": 3, "two": 3}
    told = lab.turns_told({"one for both": shared, "by hand": {"one": 0}})
    assert told == "- One for both: wrong steps: 5 of clip one, 5 of clip two.\n- By hand: wrong steps: 0 of clip one."


def test_a_conditional_that_changes_its_side_starts_anew() -> None:
    found = lab.switched(change=5)
    assert found == Switched(silent=1, wrong=1, outputs=6)
    told = lab.switched_told(found)
    assert "1 step without an output, and 1 of the 6 outputs" in told
    assert lab.switched_told(Switched(0, 0, 7)).endswith("of the new side on the whole clip.")
    assert lab.switched(change=0) == Switched(1, 0, 11)  # it has its side from the start, and the delay of any clip


def test_squeeze_and_excitation_on_a_window_on_a_longer_clip_and_by_the_kit() -> None:
    found = lab.excited()
    first, longer, padded, kit = found.values()
    assert first.equality.equal
    assert not longer.equality.equal
    assert padded.startswith("raises RuntimeError")
    assert kit.startswith("refuses it: ")
    told = lab.excited_told(found)
    assert told.count("\n- ") == 4
    assert ".." not in told


# Converters -----------------------------------------------------------------------------------------------------------


def test_what_the_converters_take_and_compute() -> None:
    found = lab.converted(lab.networks())
    library = {name: pair[0].verdict for name, pair in found.items()}
    assert {name for name in library if library[name] == "wrong"} == {
        *("MaxPool3d, padding 1", "MaxPool3d, dilation 2", "AvgPool3d, padding not counted", "AvgPool3d, divisor 5"),
        *("GroupNorm", "Softmax over time"),
    }
    assert library["Sequential"] == library["LSTM"] == "equal"
    assert library["Flatten"] == library["a forward of its own"] == "refused"
    assert all(pair[1].verdict != "wrong" for pair in found.values())
    assert sum(pair[1].verdict == "equal" for pair in found.values()) >= 12
    assert lab.converter_answer(found) == "other outputs, without a warning"


def test_forward_stepping_takes_what_looks_at_several_frames() -> None:
    found = lab.stepped_as_is()
    assert [pair[0].verdict for pair in found.values()] == ["equal", "refused", "wrong"]
    assert [pair[1].verdict for pair in found.values()] == ["equal"] * 3


def test_the_converters_in_words() -> None:
    right, wrong, not_taken = Taken(YES), Taken(NO), Taken(None, "refused: why | so")
    found = {"a": (right, right), "b": (wrong, not_taken)}
    table = lab.converted_table(found, "co.x")
    assert "| network | co.x | kit's stepper |" in table
    assert "| b | ✗ WRONG, off by 0.5 (outputs: 0-1, 3 of 8) | refused: why &#124; so |" in table
    first, second = lab.converted_told(found).splitlines()
    assert first.endswith("1 of 2 networks, and takes 0 not. Other outputs, without a warning: **b**.")
    assert second.endswith("1 of 2 networks, and takes 1 not. None has other outputs.")
    options = [lab.converter_answer({"MaxPool3d, padding 1": (each, right)}) for each in (right, wrong, not_taken)]
    assert options == lab.QUIZZES["converter"][1]


def test_a_converter_that_changes_what_it_was_given_is_found_out() -> None:
    net = nn.Sequential(nn.Conv3d(2, 2, 1), nn.ReLU())
    assert lab.changed(net) == []
    co.continual(net)
    assert lab.changed(net) == ["1 (ReLU)"]
    assert "1 (ReLU) got a `forward` of its own" in lab.changed_told(lab.changed(net))
    assert lab.changed_told([]).endswith("as it was.")


def test_ways_to_call_a_step_and_what_a_nested_one_leaves_behind() -> None:
    conv, clip = co.Conv3d(2, 2, 3).eval(), torch.randn(5, 1, 2, 6, 6)
    before = co.call_mode.cur, co.call_mode.prev
    with torch.no_grad():
        found = lab.modes_agree(conv, clip.unbind(0))
    assert list(found.values()) == [True, True, False]
    assert (co.call_mode.cur, co.call_mode.prev) == before  # the notebook goes on
    assert (
        lab.modes_told({"a": True, "b": False})
        == "- `a`: a plain call is a step.\n- `b`: a plain call is **no step** any more."
    )


ROWS = {"window": 20.0, "library": 4.0, "kit": 2.0, "window_onednn": 10.0, "library_onednn": 3.0, "kit_onednn": 2.0}


def test_the_steps_of_both_sides_in_words() -> None:
    first, second, kernels = steps_told(made_up(ROWS)).splitlines()
    assert first.startswith("- As PyTorch chooses kernels, the kit's step is **2.0")
    assert second.startswith("- Both on oneDNN, the kit's step is **1.5")
    assert "none recorded" in kernels
    assert all("not decided" in line for line in steps_told(busy(ROWS)).splitlines()[:2])


# The card -------------------------------------------------------------------------------------------------------------

KEPT, LOST = lab.Kept(True, True, True, True), lab.Kept(False, True, False, True)


def said(
    some: list[lab.Row] | None = None,
    kept: lab.Kept = KEPT,
    taken: tuple[Taken, Taken] = (Taken(YES), Taken(YES)),
    wrong: int = 0,
    steps: Comparison | None = None,
) -> list[Claim]:
    given = {"net": taken} if taken else {}
    turns = {"by hand": {"one": wrong, "two": 0}}
    return lab.claims([made()] if some is None else some, {"Sequential": kept}, given, turns, steps or made_up(ROWS))


def truths(found: list[Claim]) -> list[str]:
    return [each.truth for each in found]


def test_the_card_when_everything_agrees() -> None:
    found = said()
    assert truths(found) == ["true"] * 9
    assert found[0].by == "1 of 1 settings"


def test_the_card_when_something_differs() -> None:
    other = made(name="B", as_torch=NO, step="raises E", padded=NO, delay=(2, 3))
    found = said([made(), other], LOST, (Taken(NO), Taken(None, "refused")), 2, busy(ROWS))
    assert truths(found) == [*["false"] * 6, "not decided", "false", "not decided"]
    assert found[0].by == "1 of 2 settings; not in all settings of B"
    assert found[3].by == "B wait for another number of frames"
    assert found[4].by == "0 of 1 modules; not Sequential"
    assert found[5].by == "0 of the 1 networks that it took, of 1"
    assert found[7].by == "2 wrong steps of clip one, 0 wrong steps of clip two"


def test_the_card_of_nothing_decides_nothing() -> None:
    found = lab.claims([], {}, {}, {"by hand": {}}, made_up({"window": 2.0, "library": 1.0}))
    assert truths(found) == ["not decided"] * 9


def test_answers_of_the_quizzes_are_options() -> None:
    everything, more, less = lab.QUIZZES["modes"][1]
    assert lab.modes_answer([made(), made(said="no module", step="it does nothing")]) == everything
    assert lab.modes_answer([made(), made(), made(step=NO)]) == more
    assert lab.modes_answer([made(), made(step=NO)]) == less
    assert lab.modes_answer(rows()) in (more, less)
    assert lab.outputs_answer() == "15"
    assert all(lab.quiz(name) for name in lab.QUIZZES)


# The explorer ---------------------------------------------------------------------------------------------------------


def test_the_explorer_draws_the_library_and_the_kit() -> None:
    explorer = lab.explorer()
    kernel, _stride, padding, dilation = explorer.controls
    padding.value = 1
    assert "Receptive field <b>3</b>, delay <b>1</b>" in explorer.answer.value
    rows = re.findall(r">((?:step|end) \d+)<", explorer.answer.value.partition("<details>")[0])
    assert rows == [*(f"step {t}" for t in range(16)), "end 1"]
    assert explorer.answer.value.partition("<details>")[0].count(">None<") == 1
    explorer.module.value = "co.MaxPool3d"
    assert "against the whole clip: NO" in explorer.answer.value
    explorer.module.value = "nn.MaxPool3d by the kit"
    assert "against the whole clip: yes" in explorer.answer.value
    dilation.value = 2
    explorer.module.value = "nn.AvgPool3d by the kit"
    assert "has no dilation" in explorer.answer.value
    explorer.module.value = "co.Conv3d"
    assert "Temporal dilation" in explorer.answer.value
    dilation.value, kernel.value = 1, 1
    assert "co.Conv3d: kernel 1" in explorer.still()
    assert repr(explorer) == "Explorer of 6 steps"


# Exercises ------------------------------------------------------------------------------------------------------------


def hint(check: Callable[[Any], Any], answer: Callable[..., Any]) -> str:
    found = check(answer)
    assert found.state == "hint"
    text: str = found.message
    return text


def test_check_states() -> None:
    def right(net: Any) -> list[Any]:
        found = [each.get_state() for each in net]
        return [state and tuple(x.clone() for x in state) for state in found]

    def stub(net): ...  # type: ignore[no-untyped-def]

    check = lab.check_states
    assert check(stub).state == "not attempted yet"
    assert check(right).state == "passed"
    assert "get_state() gives None too" in hint(check, lambda net: net.get_state())
    assert "one for each" in hint(check, lambda net: right(net)[:1])
    assert "one for each" in hint(check, lambda net: 3)
    assert "each module for its own" in hint(check, lambda net: [None] * 3)
    assert "clone()" in hint(check, lambda net: [each.get_state() for each in net])
    assert "expected output" in hint(check, lambda net: [right(net)[0], None, tuple(x * 0 for x in right(net)[2])])


def test_check_pool() -> None:
    def stub(): ...  # type: ignore[no-untyped-def]

    check = lab.check_pool
    assert check(stub).state == "not attempted yet"
    assert check(lambda: co.MaxPool3d(3, 1, 1, temporal_fill="neg_inf")).state == "passed"
    assert "Filter the gallery" in hint(check, lambda: co.MaxPool3d(3, 1, 1))
    assert "padding 1" in hint(check, lambda: co.MaxPool3d(3, 1))
    assert "not MaxPool3d" in hint(check, lambda: nn.MaxPool3d(3, 1, 1))
    assert "is there a return?" in hint(check, lambda: print(end=""))


def test_outputs_of_nested_streams_are_split_one_by_one() -> None:
    clip = torch.arange(6.0).reshape(1, 1, 3, 2)
    assert [len(each) for each in split([clip, clip])] == [2, 2, 2]
    assert compare_outputs(split(clip)[1], clip[:, :, 1]).equal
    assert split(None) == []

"""Equality: what counts as the same output, and whether anyone would notice if it were not."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from kit.equality import (
    RTOL,
    as_args,
    compare_outputs,
    device_of,
    inputs_without_effect,
    shapes,
    tf32_rounding,
    without_tf32,
)
from kit.errors import MeasureError, ShapeError

X = torch.tensor([1.0, -4.0])


def test_the_tolerance_is_relative_to_the_largest_magnitude() -> None:
    for error, equal in ((0.9 * RTOL * 4, True), (1.1 * RTOL * 4, False)):
        found = compare_outputs(X, X + torch.tensor([error, 0.0]))
        assert found.equal is equal
        assert found.max_abs_error == pytest.approx(error, rel=1e-2)


def test_every_tensor_of_a_nested_output_is_compared_at_its_own_scale() -> None:
    output = {"scores": X * 1e6, "extra": (X, [X])}
    moved = {"scores": X * 1e6, "extra": (X, [X + 0.1])}
    assert compare_outputs(output, output) == (True, 0.0)
    assert not compare_outputs(output, moved).equal


@pytest.mark.parametrize(
    ("baseline", "other", "equal"),
    [
        (torch.tensor([1, 2]), torch.tensor([1, 3]), False),
        (torch.tensor([True]), torch.tensor([True]), True),
        (torch.tensor([1 + 1j]), torch.tensor([1 + 2j]), False),
        (torch.tensor([float("inf"), 1]), torch.tensor([float("inf"), 1]), True),
        (torch.tensor([float("inf"), 1]), torch.tensor([2.0, 1]), False),
        (torch.tensor([float("inf"), 1]), torch.tensor([float("-inf"), 1]), False),
        (torch.tensor([float("inf"), 1]), torch.tensor([float("inf"), 2]), False),
        (torch.tensor([1.0]), torch.tensor([float("inf")]), False),
        (torch.empty(0), torch.empty(0), True),
        (torch.zeros(3), torch.zeros(3), True),
    ],
)
def test_integers_booleans_complex_numbers_infinities_and_nothing(baseline: Tensor, other: Tensor, equal: bool) -> None:
    assert compare_outputs(baseline, other).equal is equal


@pytest.mark.parametrize(
    ("other", "error", "says"),
    [
        ((X,), ShapeError, r"structure: output against output\[0\]"),
        ({"a": X}, ShapeError, r"output\['a'\]"),
        (X[None], ShapeError, r"\(1, 2\).*\(2,\)"),
        (X.double(), ShapeError, "float64.*float32"),
        (X / 0 * 0, MeasureError, "NaN"),
        ("text", MeasureError, "output is a str"),
        (None, MeasureError, "output is a NoneType"),
    ],
)
def test_outputs_that_cannot_be_compared(other: object, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        compare_outputs(X, other)


def test_nan_in_the_baseline_is_refused_too() -> None:
    with pytest.raises(MeasureError, match=r"output\[1\] contains NaN"):
        compare_outputs((X, X * float("nan")), (X, X))


@pytest.mark.parametrize(
    ("baseline", "other", "equal"),
    [(3, 3, True), (3, 4, False), (0.5, 0.5, True), (0.5, 0.51, False), (1e300, 1e300, True), (True, False, False)],
)
def test_numbers_beside_tensors_are_compared_too(baseline: object, other: object, equal: bool) -> None:
    assert compare_outputs((X, {"n": baseline}), (X, {"n": other})).equal is equal


def test_a_number_in_place_of_another_kind_is_another_structure() -> None:
    with pytest.raises(ShapeError, match=r"output\[1\] is \(\) torch.float64, the baseline's is \(\) torch.int64"):
        compare_outputs((X, 3), (X, 3.0))
    with pytest.raises(ShapeError, match=r"structure: output\[0\], output\[1\] against output\[0\]\."):
        compare_outputs((X, 3), (X, None))


@dataclass
class Scores:
    logits: object
    hidden: object = None


def test_dataclasses_are_looked_into_and_what_they_leave_out_must_be_left_out_by_both() -> None:
    assert compare_outputs(Scores(torch.ones(2)), Scores(torch.ones(2))).equal
    assert not compare_outputs(Scores(torch.ones(2)), Scores(torch.zeros(2))).equal
    with pytest.raises(ShapeError, match=r"output\.logits, output\.hidden"):
        compare_outputs(Scores(torch.ones(2)), Scores(torch.ones(2), torch.ones(1)))


@pytest.mark.parametrize("empty", [(), {}, [None], Scores(None)])
def test_an_output_without_tensors_is_equal_to_nothing(empty: object) -> None:
    with pytest.raises(MeasureError, match="without a tensor to compare"):
        compare_outputs(empty, empty)


@pytest.mark.parametrize(
    ("call", "deaf"),
    [
        (lambda a, b: a + b, []),
        (lambda a, b: a + 0 * b, [1]),
        (lambda a, b: torch.ones(3), [0, 1]),
        (lambda a, b: {"first": a, "second": [b]}, []),
        (lambda a, b: a + 1e-6 * b, [1]),  # moves, but by less than the tolerance could tell
    ],
)
def test_inputs_without_effect(call, deaf: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, generator=generator), torch.randn(4, generator=generator)
    before = [x.clone() for x in inputs]
    assert inputs_without_effect(call, inputs) == deaf
    assert all(torch.equal(x, was) for x, was in zip(inputs, before, strict=True))


def test_constant_and_single_inputs_are_moved_too_and_integers_are_left_alone() -> None:
    assert inputs_without_effect(lambda x: x, torch.zeros(3)) == []
    assert inputs_without_effect(lambda x: x, torch.ones(1)) == []
    assert inputs_without_effect(lambda index, x: x, (torch.tensor([1, 2]), torch.ones(3))) == []


def test_inputs_as_arguments_and_in_words() -> None:
    assert as_args(X) == (X,)
    assert as_args([1, 2]) == (1, 2)
    assert shapes((X, 3, torch.zeros(1, 2, dtype=torch.int64))) == "(2,) float32 on cpu, int, (1, 2) int64 on cpu"


def test_the_device_is_cuda_where_any_nested_tensor_is() -> None:
    with FakeTensorMode():
        on_gpu = torch.empty(1, device="cuda")
    assert device_of((torch.ones(1), {"x": [on_gpu]})) == "cuda"
    assert device_of(torch.ones(1), {"a": None}, 3) == "cpu"
    assert device_of() == "cpu"


def test_what_tf32_moves_the_baseline_itself_is_no_difference() -> None:
    want = torch.tensor([1.0, 100.0])
    found = want + torch.tensor([0.0, 0.05])  # five times the tolerance
    assert not compare_outputs(want, found).equal
    assert compare_outputs(want, found, {"output": 0.02}).equal
    assert not compare_outputs(want, found, {"output": 0.01}).equal, "no more than four roundings"
    assert not compare_outputs(want, found, {"output['other']": 1.0}).equal, "of this tensor, not of another"


def test_tf32_is_off_within_its_block_and_moves_nothing_on_a_cpu() -> None:
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    with without_tf32():
        assert not any(backend.allow_tf32 for backend in backends)
    assert [backend.allow_tf32 for backend in backends] == before
    assert tf32_rounding(lambda: pytest.fail("one call too many"), (torch.ones(3), {"a": None})) == {}

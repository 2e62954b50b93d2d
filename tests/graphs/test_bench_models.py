"""The table of the zoo goes on after a network that fails, and says of no wrong network that it is right."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.models import another_draw, chosen, examined, totals
from bench.zoo import Entry, Made, entries
from kit.errors import KitError
from kit.graphs import Graph


class Toy(nn.Module):
    def __init__(self, bias: float = 1.0) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": x * 2 + self.bias}


def toy() -> Made:
    return Toy().eval(), torch.randn(2, 3)


def a_graph(model: nn.Module, inputs: Any) -> Graph:
    return Graph("Toy", "2x3", "torch.fx", 0.5, (), (), (), 2)


def itself(model: nn.Module, inputs: Any) -> nn.Module:
    return model


ENTRY = Entry("plain", "toy", toy)


def test_a_right_one() -> None:
    row = examined(ENTRY, a_graph, itself)
    assert (row.captured_by, row.equal, row.equality, row.refused) == ("torch.fx", True, "yes, identical", "")
    assert totals([row])[0] == "plain: captured 1 of 1 (100%), outputs equal 1 of 1 (100%) (1 by torch.fx)"


class Other(Toy):
    """The same values in another type."""

    def forward(self, x: Tensor) -> Any:
        return tuple(super().forward(x).values())


class Stale(nn.Module):
    """Gives what came out for the example inputs, whatever it gets."""

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        super().__init__()
        self.kept = model(inputs)

    def forward(self, x: Tensor) -> Any:
        return self.kept


@pytest.mark.parametrize(
    ("branched", "says"),
    [
        (lambda model, inputs: Toy(1.1), "NO, off by 0.1"),
        (lambda model, inputs: Other(), "NO, a tuple for a dict"),
        (Stale, "NO, off by"),
        (lambda model, inputs: nn.Bilinear(1, 1, 1), "TypeError"),
    ],
)
def test_a_wrong_one_is_not_equal(branched: Any, says: str) -> None:
    row = examined(ENTRY, a_graph, branched)
    assert row.equal is False
    assert says in row.equality
    assert "outputs equal 0 of 1" in totals([row])[0]


def test_outputs_that_do_not_react_show_nothing() -> None:
    class Deaf(Toy):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return super().forward(x * 0)

    row = examined(Entry("plain", "deaf", lambda: (Deaf(), torch.randn(2, 3))), a_graph, itself)
    assert row.equal is False
    assert "do not react" in row.equality


def test_a_refusal_and_a_failure_have_their_reasons() -> None:
    def refuses(model: nn.Module, inputs: Any) -> Graph:
        raise KitError("Toy cannot be captured: it asks for .item() in\n line 3.")

    def breaks(*_: Any) -> Any:
        raise ZeroDivisionError("by zero")

    rows = [
        examined(ENTRY, refuses, itself),
        examined(ENTRY, breaks, itself),
        examined(Entry("plain", "not installed", breaks), a_graph, itself),
        examined(ENTRY, a_graph, itself),
    ]
    assert [row.refused for row in rows] == [
        "Toy cannot be captured: it asks for .item() in line 3.",
        "ZeroDivisionError: by zero",
        "cannot be built: ZeroDivisionError: by zero",
        "",
    ]
    assert totals(rows)[1].startswith("all: captured 1 of 4 (25%), outputs equal 1 of 1")
    assert totals(rows)[-1] == "  not installed: cannot be built: ZeroDivisionError: by zero"


def test_another_draw_has_other_values_of_the_same_kind() -> None:
    given = {"ids": torch.arange(3, 20), "mask": torch.ones(17), "x": (torch.full((900,), 50.0) + torch.randn(900),)}
    drawn = another_draw(given)
    assert sorted(drawn["ids"].tolist()) == given["ids"].tolist() != drawn["ids"].tolist()
    assert torch.equal(drawn["mask"], given["mask"]), "shuffled: still a mask"
    assert not torch.equal(drawn["x"][0], given["x"][0])
    assert drawn["x"][0].mean() == pytest.approx(50, abs=0.5)
    assert drawn["x"][0].std() == pytest.approx(1, abs=0.2)


def test_the_zoo_is_large_and_its_names_are_distinct() -> None:
    zoo = entries()
    groups = [entry.group for entry in zoo]
    assert groups.count("pytorchcv") >= 40
    assert groups.count("transformers") >= 10
    assert groups.count("plain") == 10
    names = [entry.name for entry in zoo] + sorted(set(groups))
    assert len(set(names)) == len(names)


def test_networks_are_chosen_by_name_or_group() -> None:
    zoo = entries()
    assert [entry.name for entry in chosen(["resnet18", "BERT"], zoo)] == ["resnet18", "BERT"]
    assert {entry.group for entry in chosen(["plain"], zoo)} == {"plain"}
    assert chosen([], zoo) == zoo
    with pytest.raises(SystemExit, match=r"not in the zoo: resnet19\. There are: "):
        chosen(["resnet19"], zoo)

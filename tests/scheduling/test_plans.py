"""Plans: what more cores would do is never below the bound nor above one operator after the other."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.scheduling import Node, work
from kit.scheduling.plans import ALL_CORES, Overheads, Plan, Tried, ends, schedules
from tests.scheduling.graphs import graphs


def plan(nodes: list[Node], on_all: list[float], cores: int = 2, measured: float = 1.0, policy: str = "heft") -> Plan:
    overheads = Overheads(0.01, 0.1)
    made = schedules(nodes, on_all, cores, overheads, policy)
    return Plan(
        names=tuple(str(i) for i in range(len(nodes))),
        after=tuple(node.after for node in nodes),
        one_ms=tuple(node.cost for node in nodes),
        all_ms=tuple(on_all),
        cores=cores,
        lanes=cores,
        policy=policy,
        overheads=overheads,
        tried={name: Tried(phases, measured, 0, 9) for name, phases in made.items()},
        taken=min(made, key=lambda name: ends(made[name])),
    )


@settings(deadline=None, max_examples=200)
@given(graphs(), st.data())
def test_a_forecast_is_between_the_bound_and_one_after_the_other(nodes: list[Node], data: st.DataObject) -> None:
    here = data.draw(st.integers(1, 4), label="cores here")
    shares = data.draw(st.lists(st.floats(0.1, 2.0), min_size=len(nodes), max_size=len(nodes)), label="all / one")
    cores = data.draw(st.integers(1, 64), label="cores")
    found = plan(nodes, [node.cost * share for node, share in zip(nodes, shares, strict=True)], here).what_if(cores)
    assert found.bound_ms <= found.ms + 1e-9
    assert found.ms <= found.sequential_ms + 1e-9
    assert found.bound_ms >= work(nodes) / cores - 1e-9


@settings(deadline=None)
@given(graphs(), st.data())
def test_for_the_cores_that_are_here_it_is_the_prediction(nodes: list[Node], data: st.DataObject) -> None:
    shares = data.draw(st.lists(st.floats(0.5, 2.0), min_size=len(nodes), max_size=len(nodes)))
    here = plan(nodes, [node.cost * share for node, share in zip(nodes, shares, strict=True)])
    found = here.what_if(2)
    assert found.ms == pytest.approx(here.best.predicted)
    assert found.sequential_ms == pytest.approx(here.tried[ALL_CORES].predicted)


@settings(deadline=None)
@given(graphs(), st.sampled_from(["heft", "stages", "wavefront"]), st.integers(1, 3))
def test_retimed_schedules_keep_lanes_and_order_and_follow_their_costs(
    nodes: list[Node], policy: str, times: int
) -> None:
    on_all = [node.cost * 0.7 for node in nodes]
    before = plan(nodes, on_all, policy=policy)
    same = before.retimed(before.one_ms, before.all_ms)
    for name, tried in before.tried.items():
        assert same.tried[name].predicted <= tried.predicted + 1e-9  # gaps that a policy left are closed
        assert [phase.on_lanes for phase in same.tried[name].phases] == [phase.on_lanes for phase in tried.phases]
    slower = before.retimed([times * ms for ms in before.one_ms], [times * ms for ms in on_all])
    assert slower.tried[ALL_CORES].predicted == pytest.approx(times * before.tried[ALL_CORES].predicted)
    assert slower.best.predicted <= times * before.best.predicted + 1e-9


def test_an_operator_is_divided_by_what_it_gained_here() -> None:
    half_serial = [Node(cost=8.0)]
    assert plan(half_serial, [6.0]).what_if(4).ms == pytest.approx(5.0)  # 4 serial, and 4 / 4
    assert plan(half_serial, [4.0]).what_if(8).ms == pytest.approx(1.0)  # all of it divided
    assert plan(half_serial, [9.0]).what_if(8).sequential_ms == pytest.approx(9.0)  # it gains nothing, here or there
    assert plan(half_serial, [9.0]).what_if(8).ms == pytest.approx(8.1)  # on one lane, which begins and ends


def test_side_by_side_gains_where_operators_cannot_be_divided() -> None:
    fork = [Node(cost=4.0) for _ in range(8)]
    found = plan(fork, [4.0] * 8, measured=20.0).what_if(8)
    assert found.speed_up == pytest.approx(32 / found.ms)
    assert found.ms == pytest.approx(4.1)
    assert found.error == pytest.approx(16.1 / 20.0 - 1)
    assert "8 cores: 4.1 ms predicted, 7.80x" in str(found)
    assert "-19%" in str(found)

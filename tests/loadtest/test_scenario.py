"""Scenarios: those that ship are sound, and mistakes in others are told."""

from typing import get_args

import pytest

from cacheproxy.errors import ConfigError
from loadtest.traffic.plan import Planner
from loadtest.traffic.scenario import (
    KINDS,
    Fault,
    Mix,
    Phase,
    Stream,
    load_scenario,
    scenario_names,
)
from loadtest.traffic.target import Target
from loadtest.traffic.texts import TextSource

TARGET = Target("http://127.0.0.1:1/v1", "all-MiniLM-L6-v2")


def test_the_scenarios_that_are_promised_are_there():
    promised = {
        *("smoke", "rag-steady", "rag-burst", "ingest", "cold-start", "seed-table", "soak"),
        "overload",
    }

    assert promised <= set(scenario_names())


@pytest.mark.parametrize("name", scenario_names())
def test_a_scenario_that_ships_needs_no_data_and_can_be_planned(name):
    scenario = load_scenario(name)
    planner = Planner(TextSource(scenario.seed), TARGET, scenario.seed)
    planner.warm_up(10, scenario.phases[0].streams[0])

    for number, phase in enumerate(scenario.phases):
        short = type(phase)(phase.name, 5.0, phase.streams)
        for plan in planner.plan(short, number, capacity_per_s=20.0):
            assert plan.requests
            assert len(plan.kinds) == len(plan.requests)


def test_a_plan_is_the_same_in_every_process():
    phase = load_scenario("smoke").phases[0]

    def requests():
        planner = Planner(TextSource(1), TARGET, 1)
        return [plan.requests for plan in planner.plan(phase, 0, None)]

    assert requests() == requests()


def test_a_repeated_session_is_the_same_to_the_byte():
    mix = Mix(repeat=0.8, unseen=0.2)
    stream = Stream("s", mix, route="chat", per_s=20, turns=3, think_s=0.5)
    planner = Planner(TextSource(1), TARGET, 1)

    (plan,) = planner.plan(Phase("p", 30, (stream,)), 0, None)

    sessions = [tuple(turns) for turns in zip(*[iter(plan.requests)] * 3, strict=True)]
    kinds = [KINDS[kind] for kind in plan.kinds[::3]]
    firsts = [turns for turns, kind in zip(sessions, kinds, strict=True) if kind == "unseen"]
    repeats = [turns for turns, kind in zip(sessions, kinds, strict=True) if kind == "repeat"]
    assert len(firsts) > 50
    assert set(repeats) <= set(firsts)
    assert len(sessions) == len(plan.times)
    assert plan.pauses_s.mean() == pytest.approx(0.5, rel=0.1)


def test_a_phase_without_streams_has_those_of_the_phase_before(tmp_path):
    path = tmp_path / "mine.toml"
    stream = '[[phases.streams]]\nname = "{}"\nper_s = 1\n'
    phase = '[[phases]]\nname = "{}"\nseconds = 1\n'
    parts = [phase.format("a"), stream.format("s"), phase.format("b"), phase.format("c")]
    path.write_text('about = "x"\n' + "".join([*parts, stream.format("t"), phase.format("d")]))

    phases = load_scenario(str(path)).phases
    assert [[one.name for one in phase.streams] for phase in phases] == [["s"], ["s"], ["t"], ["t"]]
    path.write_text('about = "x"\n' + phase.format("a"))
    with pytest.raises(ConfigError, match="a: the first phase has no streams"):
        load_scenario(str(path))


def test_each_fault_of_a_soak_comes_once_before_the_slopes_begin_and_once_after():
    phases = load_scenario("soak").phases
    seconds, before, after = 0.0, [], []
    for phase in phases:
        early = seconds < 0.2 * sum(one.seconds for one in phases)
        (before if early else after).append(phase.fault)
        seconds += phase.seconds

    assert set(before) == set(after) == {None, *get_args(Fault)}
    assert len(set(before)) == len(before)
    smoke = [one.fault for one in load_scenario("soak").as_smoke_test().phases if one.fault]
    assert len(set(smoke)) == len(smoke) > 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("mix = { unseen = 0.5 }", "adds up to 0.5"),
        ("clients = 2", "give exactly one of"),
        ("loops = 3", "loops"),
        ("cv = 0", "cv is more than 0"),
        ("turns = 2", "need the route chat"),
        ("think_s = 1", "needs clients or turns"),
        ('[[promises]]\nphase = "b"\nfigure = "p99_ms"\nat_most = 1', "names a phase"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path, change, told):
    path = tmp_path / "mine.toml"
    head = 'about = "x"\n[[phases]]\nname = "a"\nseconds = 1\n[[phases.streams]]\nname = "s"\n'
    path.write_text(f"{head}per_s = 1\n{change}\n")

    with pytest.raises(ConfigError, match=told) as error:
        load_scenario(str(path))
    assert "mine.toml" in str(error.value)


def test_an_unknown_scenario_is_told_with_those_that_there_are():
    with pytest.raises(ConfigError, match="smoke"):
        load_scenario("nothing-like-it")

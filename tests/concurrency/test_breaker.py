from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.concurrency.breaker import Breaker, BreakerPolicy

POLICY = BreakerPolicy(
    failures_in_a_row=3,
    failures=5,
    calls=10,
    window_s=10,
    first_pause_s=1,
    longest_pause_s=8,
)


def make(chance=0.0) -> Breaker:
    return Breaker(POLICY, lambda: chance)


def opened(at=0.0, chance=0.0) -> Breaker:
    breaker = make(chance)
    for _ in range(3):
        breaker.failed(at, began_at=at)
    assert breaker.state == "open"
    return breaker


def test_a_run_of_failures_opens_it_and_a_success_in_between_does_not_count_as_one():
    breaker = make()
    for _ in range(2):
        breaker.failed(0, began_at=0)
    breaker.succeeded(0)
    for _ in range(2):
        breaker.failed(0, began_at=0)
    assert breaker.state == "closed"

    breaker.failed(0, began_at=0)
    assert breaker.state == "open"


def test_calls_that_fail_together_are_one_failure():
    breaker = make()
    for began_at, now in ((0, 1), (2, 3)):
        for n in range(100):
            breaker.failed(now, began_at=began_at + n / 200)
    assert breaker.state == "closed"

    breaker.failed(4, began_at=3)
    assert breaker.state == "open"


def test_half_of_the_last_calls_open_it():
    breaker = make()
    for at in range(4):
        breaker.failed(at / 10, began_at=at / 10)
        breaker.succeeded(at / 10)
    breaker.succeeded(0.5)
    assert breaker.state == "closed"

    breaker.failed(0.6, began_at=0.6)
    assert breaker.state == "open"


def test_failures_of_long_ago_are_forgotten():
    breaker = make()
    for at in range(0, 100, 6):
        breaker.failed(at, began_at=at)

    assert breaker.state == "closed"


def test_after_its_pause_one_call_finds_out():
    breaker = opened(at=5)

    assert not breaker.begin_probe(5.99)
    assert breaker.begin_probe(6)
    assert breaker.state == "half-open"
    assert not breaker.begin_probe(7)

    breaker.succeeded(7)
    assert breaker.state == "closed"


def pauses(breaker: Breaker, now: float, probes: int) -> list[float]:
    """Return the pauses before so many probes, of which all fail."""
    found = []
    for _ in range(probes):
        found.append(breaker.probe_at - now)
        now = breaker.probe_at
        assert breaker.begin_probe(now)
        breaker.failed(now, began_at=now)
    return found


def test_pauses_double_up_to_the_longest():
    assert pauses(opened(), 0, 6) == [1, 2, 4, 8, 8, 8]


@given(st.floats(0, 1, exclude_max=True))
def test_chance_makes_pauses_shorter_by_up_to_half(chance):
    breaker = opened(chance=chance)

    assert 0.5 <= breaker.probe_at <= 1


def test_what_fails_again_at_once_waits_longer_and_what_was_well_for_a_while_does_not():
    breaker = opened()
    breaker.begin_probe(1)
    breaker.succeeded(1)
    for _ in range(3):
        breaker.failed(2, began_at=2)
    assert breaker.probe_at == 2 + 2

    breaker.begin_probe(4)
    breaker.succeeded(4)
    for _ in range(3):
        breaker.failed(20, began_at=20)
    assert breaker.probe_at == 20 + 1


def test_calls_from_before_it_opened_change_nothing():
    breaker = opened()
    breaker.failed(0.5, began_at=0.5)
    breaker.succeeded(0.5)

    assert breaker.state == "open"
    assert breaker.probe_at == 1


@given(st.lists(st.tuples(st.sampled_from("+-p"), st.floats(0, 3))))
def test_whatever_happened_it_can_be_probed_in_time_and_a_success_closes_it(steps):
    breaker, now = make(), 0.0
    for what, wait_s in steps:
        now += wait_s
        if what == "p":
            breaker.begin_probe(now)
        else:
            if what == "+":
                breaker.succeeded(now)
            else:
                breaker.failed(now, began_at=now - wait_s)

    now += POLICY.longest_pause_s
    assert breaker.state != "open" or breaker.begin_probe(now)
    breaker.succeeded(now)
    assert breaker.state == "closed"

from itertools import pairwise

from cacheproxy.server.supervisor import next_pause_s


def test_a_worker_that_lived_for_long_is_replaced_at_once():
    assert next_pause_s(0, lived_s=3_600) == 0
    assert next_pause_s(30, lived_s=3_600) == 0


def test_pauses_grow_while_workers_die_soon_and_only_so_far():
    pauses = [0.0]
    for _ in range(10):
        pauses.append(next_pause_s(pauses[-1], lived_s=1))

    assert pauses[1] > 0
    assert all(later > earlier for earlier, later in pairwise(pauses[:7]))
    assert pauses[-1] == pauses[-2] == 30

"""A pool in which something is always left for an owner that comes later."""

from cacheproxy.fairness.owner import NOBODY
from cacheproxy.fairness.pool import FairPool


def take_all(pool: FairPool, owner: str) -> int:
    count = 0
    while pool.take(owner):
        count += 1
    return count


def test_each_owner_gets_what_is_free_at_most_so_that_the_next_one_finds_room():
    pool = FairPool(100)

    assert [take_all(pool, owner) for owner in "abcd"] == [50, 25, 13, 6]
    assert pool.taken < 100


def test_work_of_nobody_may_take_the_whole_pool_and_not_more():
    assert take_all(FairPool(10), NOBODY) == 10


def test_what_is_given_back_can_be_taken_again():
    pool = FairPool(4)
    assert take_all(pool, "a") == 2
    pool.give_back("a")
    assert pool.take("a")
    assert pool.taken == 2

"""Who may join the queue: bursts may wait, what comes to a standing queue may not."""

import pytest

from cacheproxy.inference.admission import Admission

WORK_S = 0.01


@pytest.fixture
def admission():
    return Admission(2.0)


def test_a_burst_may_wait_for_as_long_as_was_set(admission):
    assert admission.refuse(2.0, WORK_S) is None
    assert not admission.is_overloaded


def test_who_would_wait_longer_is_told_when_to_come_again(admission):
    assert admission.refuse(5.0, WORK_S) == 3
    assert admission.refuse(2.1, WORK_S) == 3  # overloaded by now: only own work counts
    assert Admission(2.0).refuse(2.1, WORK_S) == 1


def test_once_one_was_refused_only_short_waits_are_admitted(admission):
    admission.refuse(5.0, WORK_S)

    assert admission.is_overloaded
    assert admission.refuse(8 * WORK_S, WORK_S) is None
    assert admission.refuse(9 * WORK_S, WORK_S) is not None


def test_bulk_work_stays_patient(admission):
    admission.refuse(5.0, WORK_S)

    assert admission.refuse(4.0, 1.0) is None


def test_a_queue_that_ran_empty_takes_bursts_again(admission):
    admission.refuse(5.0, WORK_S)
    admission.settle(lambda owner: True)
    assert admission.refuse(1.9, WORK_S) is not None

    admission.settle(lambda owner: False)
    assert admission.refuse(1.9, WORK_S) is None


def test_a_flood_of_one_owner_takes_no_patience_from_another(admission):
    admission.refuse(5.0, WORK_S, "hostile")

    assert admission.refuse(1.0, WORK_S, "hostile") is not None
    assert admission.refuse(1.0, WORK_S, "other") is None

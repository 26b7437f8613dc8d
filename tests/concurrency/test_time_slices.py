"""Threads keep what the operating system was told of them, and nobody else's priority changes."""

import os
import sys
import threading

import pytest

from cacheproxy.concurrency.time_slices import be_prompt, be_swift, step_back

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities on Linux")


def in_a_thread(call) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def slice_s() -> float:
    """Return the slice that the kernel gives this thread, seconds."""
    with open(f"/proc/self/task/{threading.get_native_id()}/sched") as told:
        (line,) = (line for line in told if line.startswith("se.slice"))
    return int(line.split(":")[1]) / 1e9


def test_only_the_thread_that_steps_back_gets_a_lower_priority():
    seen = []
    before = niceness()
    in_a_thread(lambda: (step_back(), seen.append(niceness())))
    assert seen == [max(before, 10)]
    assert niceness() == before


def test_who_is_prompt_keeps_its_priority_and_policy():
    seen = []
    in_a_thread(lambda: (be_prompt(), seen.append((niceness(), os.sched_getscheduler(0)))))
    assert seen == [(niceness(), os.sched_getscheduler(0))]


def test_a_kernel_that_knows_slices_gives_the_one_asked_for():
    try:
        usual = slice_s()
    except (OSError, ValueError):
        pytest.skip("this kernel shows no slices")
    seen = []
    in_a_thread(lambda: (be_prompt(), seen.append(slice_s())))
    in_a_thread(lambda: (be_swift(), seen.append(slice_s())))
    in_a_thread(lambda: (step_back(), seen.append(slice_s())))
    if seen[0] == usual:
        pytest.skip("this kernel has one slice for all")
    assert seen == pytest.approx([100e-6, 1e-3, 10e-3])
    assert slice_s() == usual

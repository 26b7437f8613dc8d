"""What a long run says of the server's processes, and what a killed worker may cost the counts."""

import numpy as np
import pytest

from loadtest.results.plots import vital_plots
from loadtest.results.truth import Count
from loadtest.soak.vitals import Vital, slopes

MB, HOUR_S = 10**6, 3600


def vitals(grows_mb_per_h: float, *, settle_mb: float = 0.0) -> list[Vital]:
    """An hour of a supervisor and two workers, of which the second is replaced in the middle."""
    found = []
    for at_s in np.linspace(0, HOUR_S, 361):
        first = 150 + grows_mb_per_h * at_s / HOUR_S + settle_mb * min(1, at_s / 600)
        second = "21" if at_s < HOUR_S / 2 else "22"
        memory = {"1": 40 * MB, "20": int(first * MB), second: int((300 - at_s / 60) * MB)}
        handles = {"1": 10, "20": 30 + (at_s > 1_800) * 7, second: 99}
        threads = {"1": 1, "20": 9, second: 5}
        found.append(Vital(float(at_s), memory, handles, threads, int(at_s * 1_000)))
    return found


@pytest.mark.parametrize("slope", [-3.0, 0.0, 0.5, 12.0])
def test_the_slope_is_that_of_the_processes_that_lived_throughout_once_settled(slope):
    found = slopes(vitals(slope, settle_mb=80))

    assert found["memory_mb_per_h"] == pytest.approx(slope, abs=0.01)
    assert found["steady_processes"] == 2
    assert (found["handles_grown"], found["threads_grown"]) == (7, 0)
    assert found["store_mb_grown"] == pytest.approx(0.9 * 0.8 * 3.6, abs=0.03)


def test_the_report_draws_each_process_as_long_as_it_lived():
    memory, handles, *_ = vital_plots(vitals(0))

    assert [line.label for line in memory.lines] == [f"process {pid}" for pid in (1, 20, 21, 22)]
    replaced, new = memory.lines[2:]
    assert all((a is None) != (b is None) for a, b in zip(replaced.values, new.values, strict=True))
    assert handles.lines[1].values[-1] == 37


def test_a_run_without_a_server_of_its_own_has_no_slopes():
    assert slopes([]) == {}


def test_a_count_may_lack_what_a_killed_worker_took_with_it_and_no_more():
    assert Count("answers", 100, 95, loss=5).agrees
    assert not Count("answers", 100, 94, loss=5).agrees
    assert not Count("answers", 100, 101, loss=5).agrees
    assert not Count("answers", 100, 95).agrees

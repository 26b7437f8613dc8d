"""Schedules: drawn beforehand, always the same for a seed."""

import gzip

import numpy as np
import pytest

from cacheproxy.errors import ConfigError
from loadtest.traffic.arrivals import (
    draw_arrivals,
    gamma_arrivals,
    poisson_arrivals,
    read_trace,
    step_arrivals,
)
from loadtest.traffic.scenario import Stream


def rng(seed=1):
    return np.random.default_rng(seed)


def test_poisson_arrivals_have_their_rate_and_their_spread():
    times = poisson_arrivals(200, 100, rng())

    assert len(times) == pytest.approx(20_000, rel=0.05)
    assert (np.diff(times) >= 0).all()
    gaps = np.diff(times)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # as an exponential's are


@pytest.mark.parametrize("cv", [0.3, 1.0, 3.0])
def test_gamma_arrivals_have_their_rate_and_their_coefficient_of_variation(cv):
    times = gamma_arrivals(200, 100, cv, rng())

    gaps = np.diff(times)
    assert (gaps >= 0).all()
    assert 0 <= times.min() < times.max() < 100
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.1)
    assert len(times) == pytest.approx(20_000, rel=0.1)


def test_bursts_do_not_begin_with_the_phase():
    """A renewal process that began at 0 would have (cv**2 - 1) / 2 = 12 arrivals too many."""
    counts = [len(gamma_arrivals(10, 1, 5.0, rng(seed))) for seed in range(1_000)]

    assert np.mean(counts) == pytest.approx(10, abs=2.5)


def test_the_same_seed_gives_the_same_schedule():
    stream = Stream("questions", per_s=50.0)

    assert draw_arrivals(stream, 10, None, rng()).tolist() == (
        draw_arrivals(stream, 10, None, rng()).tolist()
    )
    assert draw_arrivals(stream, 10, None, rng(2)).tolist() != (
        draw_arrivals(stream, 10, None, rng()).tolist()
    )


def test_steps_follow_their_rates_over_and_over():
    times = step_arrivals(((100.0, 8.0), (1000.0, 2.0)), 20, rng())

    counts = np.histogram(times, bins=[0, 8, 10, 18, 20])[0]
    assert counts.tolist() == pytest.approx([800, 2000, 800, 2000], rel=0.15)
    assert times.max() < 20


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_a_trace_is_read_from_its_first_arrival_on_and_sped_up(tmp_path, name):
    data = b"arrival_ms,input_tokens\n500,9\n1500,3\n2500,1\n90500,1\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    assert read_trace(path, speed=2.0).tolist() == [0.0, 0.5, 1.0, 45.0]
    assert read_trace(path, speed=2.0, seconds=40).tolist() == [0.0, 0.5, 1.0]


def test_what_is_no_trace_is_told(tmp_path):
    (tmp_path / "other.csv").write_text("when\n1\n")

    with pytest.raises(ConfigError, match="arrival_ms"):
        read_trace(tmp_path / "other.csv", speed=1.0)


def test_a_share_of_the_capacity_needs_a_capacity():
    stream = Stream("questions", per_capacity=0.8)

    assert len(draw_arrivals(stream, 100, 50.0, rng())) == pytest.approx(4_000, rel=0.1)
    with pytest.raises(ConfigError, match="capacity"):
        draw_arrivals(stream, 100, None, rng())

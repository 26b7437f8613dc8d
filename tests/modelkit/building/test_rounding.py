"""What smoothing promises exactly, and what rounding promises within a step."""

import numpy as np
import pytest

from cacheproxy.modelkit.building.calibrate import normalize
from cacheproxy.modelkit.building.rounding import choose_scale, round_linears
from cacheproxy.modelkit.building.smoothing import choose_smoothing
from cacheproxy.modelkit.building.weights import Linear, Norm


@pytest.fixture
def uneven():
    """An activation with idle, ordinary and very wide channels, and a linear for it."""
    rng = np.random.default_rng(3)
    mixed = rng.normal(size=(600, 24)) @ rng.normal(size=(24, 24)) / 5
    x = (mixed * np.geomspace(0.001, 40, 24) + 1).astype(np.float32)
    weight = rng.normal(size=(24, 10)).astype(np.float32)
    return x, Linear(weight, rng.normal(size=10).astype(np.float32))


@pytest.mark.parametrize("moves", [True, False])
def test_a_smoothed_activation_and_its_linear_give_the_same_product(uneven, moves):
    x, linear = uneven
    smoothing = choose_smoothing(x, 0.8, moves=moves)
    smooth = smoothing.linear(linear)

    product = smoothing.apply(x) @ smooth.weight + smooth.bias

    assert np.allclose(product, x @ linear.weight + linear.bias, rtol=1e-4, atol=1e-3)


def test_a_smoothed_norm_gives_the_smoothed_activation(uneven):
    x, _ = uneven
    norm = Norm(np.linspace(0.1, 3, 24, dtype=np.float32), np.ones(24, np.float32), 1e-12)
    smoothing = choose_smoothing(normalize(x, norm), 0.85)

    expected = smoothing.apply(normalize(x, norm))

    assert np.allclose(normalize(x, smoothing.norm(norm)), expected, atol=1e-5)


def test_channels_that_calibration_never_moved_keep_a_usable_weight(uneven):
    x, linear = uneven
    x[:, 5] = 0

    smooth = choose_smoothing(x, 0.8).linear(linear)

    rows = np.abs(smooth.weight).max(axis=1) / np.abs(linear.weight).max(axis=1)
    assert rows[5] >= np.median(rows) * 0.5


def test_a_rounded_activation_is_half_a_step_away_at_most_and_keeps_zero(uneven):
    x, _ = uneven
    scale = choose_scale(x)

    assert np.abs(scale.round(x) - x).max() <= scale.scale * 0.501
    assert scale.round(np.zeros(3, np.float32)).tolist() == [0, 0, 0]


def test_an_activation_beyond_the_range_is_clipped_to_its_end():
    scale = choose_scale(np.array([-1, 2], np.float32))

    low, high = scale.round(np.array([-9, 9], np.float32))

    assert low == pytest.approx(-1, abs=scale.scale)
    assert high == pytest.approx(2, abs=scale.scale)


@pytest.mark.parametrize("bits", [7, 8])
def test_compensated_rounding_gives_closer_products_than_plain_rounding(uneven, bits):
    x, linear = uneven
    (product,) = round_linears([linear], x.T @ x, bits)
    plain = np.rint(linear.weight / product.scale) * product.scale

    error = np.square(x @ (product.weight * product.scale - linear.weight)).sum()

    assert error < np.square(x @ (plain - linear.weight)).sum()
    assert np.abs(product.weight.astype(int)).max() <= 2 ** (bits - 1) - 1


def test_linears_of_the_same_inputs_are_rounded_as_each_would_be_alone(uneven):
    x, linear = uneven
    gram = x.T @ x
    other = Linear(linear.weight[:, :4] * 3, linear.bias[:4])

    together = round_linears([linear, other], gram, 8)

    for given, product in zip((linear, other), together, strict=True):
        (alone,) = round_linears([given], gram, 8)
        assert np.array_equal(product.weight, alone.weight)
        assert np.array_equal(product.scale, alone.scale)
        assert np.array_equal(product.bias, given.bias)

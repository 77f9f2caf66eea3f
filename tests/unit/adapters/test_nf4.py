"""The 8-bit dynamic type of double quantisation, by hand; tests/integration holds it against bitsandbytes."""

import hashlib

import numpy as np
import pytest

from adapters.nf4 import doubly_quantised, dynamic_levels, eight_bits, round_trip, scales


def test_the_levels_by_hand():
    levels = dynamic_levels()
    assert len(levels) == 256
    assert (np.diff(levels) > 0).all()
    assert levels[-1] == 1
    assert levels[127] == 0
    np.testing.assert_allclose(levels[128:131], [5.5e-7, 3.25e-6, 7.75e-6], rtol=1e-5)
    np.testing.assert_allclose(levels[:127], -levels[128:255][::-1])
    np.testing.assert_allclose(levels[254], 0.1 + 0.9 * 63.5 / 64, rtol=1e-5)


def test_levels_come_back_as_they_are():
    values = dynamic_levels()[[0, 40, 200, 255]] * np.float32(8)
    np.testing.assert_allclose(eight_bits(values), values, rtol=1e-6)
    assert not eight_bits(np.zeros(4, np.float32)).any()


def of_all_sizes(count):
    """FullTensor numbers in fp32: no sum of them depends on its order."""
    return ((np.arange(count) * 40503) % 65521 - 32760).astype(np.float32)


def digest(values):
    return hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()[:16]


def test_golden_blocks_of_bitsandbytes():
    """What bitsandbytes 0.50.2 gives back on CPU: dequantize_blockwise(quantize_blockwise(values))."""
    assert digest(eight_bits(of_all_sizes(256))) == "01b440588f701f6a"
    assert digest(eight_bits(of_all_sizes(100))) == "98ed5abce8dc593d"


@pytest.mark.parametrize(
    ("count", "once", "twice"),
    [(19205, "7b9b8cb0dda2089a", "02eb21dca6135c50"), (16384, "f076d0b815c3f7fb", "f58752b097955fd5")],
)
def test_golden_weights_of_bitsandbytes(count, once, twice):
    """What bitsandbytes 0.50.2 gives back on CPU from NF4, its scales as they are and quantised again."""
    values = of_all_sizes(count)
    found = scales(values)
    assert digest(round_trip(values, found, found)) == once
    assert digest(round_trip(values, found, doubly_quantised(found))) == twice

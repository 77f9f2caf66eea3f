"""NF4 as bitsandbytes computes it: what a QLoRA adapter saw of its base's weights.

Blocks of 64 values share one scale (their largest magnitude) and hold 16 levels; with double
quantisation the scales themselves are 8-bit numbers in blocks of 256 around their mean. Follows
`quantize_4bit` and `dequantize_4bit` of bitsandbytes 0.50.2 on CPU to the bit, but for the mean:
torch sums it in an order that depends on its threads, here it is the correctly rounded one.
Source of the levels: Dettmers et al. 2023, QLoRA, appendix E.
"""

from functools import lru_cache

import numpy as np

from core.weights import Array

BLOCK = 64
SCALE_BLOCK = 256
LEVELS = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
     -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
     0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
     0.7229568362236023, 1.0], np.float32,
)  # fmt: skip
MIDDLES = (LEVELS[:-1] + LEVELS[1:]) / np.float32(2)
TINY = np.float32(1e-38)


def scales(values: Array) -> Array:
    """Return the largest magnitude of each block of 64 of a flat array (the last may be shorter)."""
    whole = len(values) - len(values) % BLOCK
    found: Array = np.abs(values[:whole].reshape(-1, BLOCK)).max(axis=1)
    if whole == len(values):
        return found
    return np.append(found, np.maximum(np.abs(values[whole:]).max(), TINY))


def doubly_quantised(found: Array) -> Array:
    """Return scales as they come back from 8-bit double quantisation."""
    offset = np.float32(found.astype(np.float64).mean())
    centred = found - offset
    blocks = [eight_bits(centred[i : i + SCALE_BLOCK]) for i in range(0, len(centred), SCALE_BLOCK)]
    return np.concatenate(blocks) + offset


def round_trip(values: Array, found: Array, kept: Array) -> Array:
    """Return a flat array as NF4 gives it back, in fp32: `found` are its scales, `kept` those stored."""
    whole = len(values) - len(values) % BLOCK
    inverse = np.float32(1) / np.maximum(found, TINY)
    scaled = np.empty_like(values)
    np.multiply(
        values[:whole].reshape(-1, BLOCK), inverse[: whole // BLOCK, None], out=_blocks(scaled, whole)
    )
    if whole < len(values):
        scaled[whole:] = values[whole:] / found[-1]
    levels = LEVELS[np.searchsorted(MIDDLES, np.clip(scaled, -1, 1), side="left")]
    _blocks(levels, whole)[:] *= kept[: whole // BLOCK, None]
    levels[whole:] *= kept[-1] if whole < len(values) else np.float32(1)
    return levels


def _blocks(values: Array, whole: int) -> Array:
    return values[:whole].reshape(-1, BLOCK)


def eight_bits(values: Array) -> Array:
    """Return values of one block (at most 256) as the 8-bit dynamic type gives them back.

    bitsandbytes first snaps a scaled value to one of 65,536 even steps between -1 and 1.
    """
    largest = np.abs(values).max()
    if not largest:
        return np.zeros_like(values)
    levels = dynamic_levels()
    half, steps = np.float32(0.5), np.float32(65535)
    step = ((values / largest + np.float32(1)) * half * steps + half).astype(np.int64)
    snapped = np.float32(2) * step.astype(np.float32) / steps - np.float32(1)
    above = np.clip(np.searchsorted(levels, snapped), 1, len(levels) - 1)
    closer = np.abs(levels[above] - snapped) < np.abs(snapped - levels[above - 1])
    return np.asarray(levels[np.where(closer, above, above - 1)] * largest)


@lru_cache(maxsize=1)
def dynamic_levels() -> Array:
    """Return the 256 levels of the 8-bit dynamic type (Dettmers et al. 2021, 8-bit optimisers), ascending."""
    found = [np.float32(0), np.float32(1)]
    for exponent in range(7):
        edges = _linspace(2**exponent)
        means = (edges[:-1] + edges[1:]) / np.float32(2) * np.float32(10.0 ** (exponent - 6))
        found += [*means, *-means]
    return np.sort(np.array(found, np.float32))


def _linspace(steps: int) -> Array:
    """Return steps + 1 numbers from 0.1 to 1 as torch's fp32 linspace: each half from its own end, fused."""
    index = np.arange(steps + 1, dtype=np.float64)
    first, last = np.float32(0.1), np.float32(1)
    step = float((last - first) / np.float32(steps))
    found = np.where(index < (steps + 1) // 2, first + step * index, last - step * (steps - index))
    return found.astype(np.float32)

"""Tests that need a GPU: run with `pytest -m gpu`."""

import pytest


def gpus(count: int) -> int:
    """How many there are. Skips the test on a machine with fewer than `count`."""
    there: int = pytest.importorskip("torch").cuda.device_count()
    if there < count:
        pytest.skip(f"{there} GPUs")
    return there

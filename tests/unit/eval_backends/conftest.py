"""A tiny model, loaded once, on one thread: more cost more than they help at this size."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model(tiny_model: Path):
    import torch

    from eval.backends.load import load_model

    torch.set_num_threads(1)
    return load_model(tiny_model, "fp32")

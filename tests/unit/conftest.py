"""A busy machine is no failure (no deadline for a single example), and a tiny model, loaded once.

The model runs on one thread: more cost more than they help at this size.
"""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def model(tiny_model: Path):
    import torch

    from tuneyard.eval.backends.load import load_model

    torch.set_num_threads(1)
    return load_model(tiny_model, "fp32")

"""What lies in the working folder of a test of adapters."""

import pytest

from tests.unit.adapters.llama import make_llama
from tests.unit.adapters.make import base_tensors, factors, make, make_base


@pytest.fixture
def two_adapters(working_folder):
    """Two adapters under saves/, rte and mnli, and a base that they fit."""
    make("saves/rte", factors(1))
    make("saves/mnli", factors(2))
    make_base("base", base_tensors())


@pytest.fixture
def llama(working_folder):
    """The folder model: a whole Llama of one layer."""
    make_llama()

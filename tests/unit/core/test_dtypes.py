"""The table of dtypes against torch and the safetensors library."""

from pathlib import Path

import pytest

from tuneyard.core.weights.dtypes import DTYPES, STORED_DTYPES, Dtype
from tuneyard.core.weights.tensors import open_weights


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_the_names_are_those_of_torch_and_safetensors(tmp_path: Path, dtype: Dtype) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2, 3, dtype=getattr(torch, dtype.torch))}, tmp_path / "w.safetensors")
    stored = open_weights(tmp_path / "w.safetensors").tensors["w"].dtype
    assert stored == dtype.stored and STORED_DTYPES[stored] is dtype
    assert DTYPES[dtype.name] is dtype

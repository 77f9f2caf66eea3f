"""The dtypes of weights that commands write and load, each by its three names."""

from typing import NamedTuple


class Dtype(NamedTuple):
    """`name` is the dtype for `--dtype`, `stored` in safetensors, `torch` in PyTorch and config.json."""

    name: str
    stored: str
    torch: str


_ALL = (
    Dtype("fp32", "F32", "float32"),
    Dtype("bf16", "BF16", "bfloat16"),
    Dtype("fp16", "F16", "float16"),
)
DTYPES = {dtype.name: dtype for dtype in _ALL}
"""By the name for `--dtype`."""
STORED_DTYPES = {dtype.stored: dtype for dtype in _ALL}
"""By the name in safetensors."""

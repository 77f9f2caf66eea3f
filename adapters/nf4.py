"""NF4 by bitsandbytes, on CPU: the weights of a base that a QLoRA adapter saw (Dettmers et al. 2023)."""

import logging

from core.weights import Array

BLOCK = 64  # elements with one scale
KINDS = {"BF16": "bfloat16", "F16": "float16"}


def round_trip(values: Array, dtype: str, *, double: bool) -> Array:
    """Return a matrix of stored `dtype` as NF4 gives it back in that dtype; both arrays are fp32.

    `double`: the scales are quantised too, to 8 bits.
    """
    import torch

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says which fast kernels it lacks
    from bitsandbytes import functional

    weights = torch.from_numpy(values).to(getattr(torch, KINDS.get(dtype, "float32")))
    packed, state = functional.quantize_4bit(
        weights, blocksize=BLOCK, quant_type="nf4", compress_statistics=double
    )
    found: Array = functional.dequantize_4bit(packed, state).float().numpy()
    return found

"""The batch, the gradient checkpointing and the ZeRO file with which a new recipe fits its GPUs."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuneyard.core.errors import RequestError
from tuneyard.core.files import bundled, write_bytes
from tuneyard.core.files.bounded_reading import read_regular
from tuneyard.core.language.message import _
from tuneyard.recipes import costs
from tuneyard.recipes.recipe import Recipe

DEEPSPEED = "recipes/deepspeed"
OFFLOAD = "z3_offload.json"
OFFLOADED = 16
"""Bytes of a parameter in main memory: bf16 weight and gradient, fp32 weight, Adam's two moments."""
ENOUGH_ROWS = 4
"""With so many rows in a micro batch, recomputing activations costs more time than a larger one saves."""


@dataclass(frozen=True, slots=True)
class GpuFit:
    """A setup that fits: rows of a micro batch, settings of memory, and the bytes of a GPU at both ends.

    `main_memory` is in bytes, of all ranks together, 0 if nothing is offloaded.
    """

    rows: int
    recomputes: bool
    deepspeed: str
    lower: float
    upper: float
    main_memory: float = 0

    @property
    def settings(self) -> dict[str, object]:
        """The settings of a recipe with this setup, besides its batch."""
        settings: dict[str, object] = {}
        if not self.recomputes:
            settings["disable_gradient_checkpointing"] = True
        if self.deepspeed:
            settings["deepspeed"] = self.deepspeed
        return settings


def zero_setting(deepspeed: str, out: Path) -> str:
    """The value of `deepspeed`: the bundled file in a checkout, otherwise its copy beside the recipe.

    LLaMA-Factory finds it from the working directory.
    """
    if not Path(deepspeed).is_absolute():
        return deepspeed
    return os.path.relpath(out.with_name(Path(deepspeed).name))


def write_zero_file(deepspeed: str, out: Path) -> None:
    """Write a bundled ZeRO file beside the recipe `out`, unless a checkout has it.

    `RequestError` if another file has its name.
    """
    if not Path(deepspeed).is_absolute():
        return
    copy, content = out.with_name(Path(deepspeed).name), read_regular(Path(deepspeed))
    if not copy.exists() and not copy.is_symlink():
        write_bytes(copy, content)
    elif not copy.is_file() or read_regular(copy) != content:
        raise RequestError(
            _(
                "{path}: is another file than the ZeRO file {name}, which the recipe needs beside "
                "it; rename that file, or write the recipe into another folder (--out)",
                path=copy,
                name=copy.name,
            )
        )


def gpu_fit(
    settings: Mapping[str, object],
    shapes: costs.Shapes,
    longest: int,
    ranks: int,
    room: float,
    most_rows: int,
) -> GpuFit | None:
    """The fastest setup whose upper end fits `room` bytes of each of `ranks` GPUs; None if none fits.

    Rows have up to `longest` tokens. A micro batch has 1 to `most_rows` rows, a power of two. Settings that
    keep all activations come first, then recomputing, then ZeRO files that share more among the GPUs.
    """
    counts = [rows for rows in (32, 16, 8, 4, 2, 1) if rows <= most_rows]
    for deepspeed in zero_files(settings, ranks):
        for recomputes in (False, True):
            least = 1 if recomputes else min(ENOUGH_ROWS, counts[0])
            for rows in [rows for rows in counts if rows >= least]:
                fit = _fit(settings, shapes, longest, ranks, rows, recomputes, deepspeed)
                if fit.upper <= room:
                    return fit
    return None


def zero_files(settings: Mapping[str, object], ranks: int) -> Iterator[str]:
    """DeepSpeed files to try, "" for none: those that share least come first.

    Quantised weights cannot be sharded by ZeRO-3. A frozen base is not offloaded: QLoRA trains faster in as
    little memory.
    """
    yield ""
    if settings.get("quantization_bit"):
        return
    is_adapter = settings.get("finetuning_type") == "lora"
    if ranks > 1:
        if not is_adapter:
            yield str(bundled(Path(DEEPSPEED) / "z2.json"))
        yield str(bundled(Path(DEEPSPEED) / "z3.json"))
    if not is_adapter:
        yield str(bundled(Path(DEEPSPEED) / OFFLOAD))


def _fit(
    settings: Mapping[str, object],
    shapes: costs.Shapes,
    longest: int,
    ranks: int,
    rows: int,
    recomputes: bool,
    deepspeed: str,
) -> GpuFit:
    fit = GpuFit(rows, recomputes, deepspeed, 0, 0)
    recipe = Recipe(Path(), {**settings, "per_device_train_batch_size": rows, **fit.settings}, {})
    lower, upper = costs.total_bytes(costs.estimate(shapes, costs.setup_of(recipe, longest, ranks)))
    main_memory = 0.0
    if deepspeed.endswith(OFFLOAD):
        main_memory = OFFLOADED * shapes.parameters
    return GpuFit(rows, recomputes, deepspeed, lower, upper, main_memory)

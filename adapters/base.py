"""A base model's folder: its config, and where each tensor lies among its safetensors shards."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from core.errors import ContentError, RequestError, show_value
from core.files import read_object, require
from core.weights import SIZES, STORED, Array, Tensor, Weights, from_fp32, open_weights

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight")
HEADS = ("lm_head.weight",)
PIECE = 1 << 20  # bytes that are compared at once
# Vision-language models whose checkpoints keep other names than their modules have: (module, stored) prefixes
# by model type. Transformers renames so on loading (conversion_mapping.py; a test holds both equal).
_LLAVA = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    *(
        (f"model.{part}.", f"{part}.")
        for part in ("vision_tower", "vision_model", "image_tower", "video_tower", "multi_modal_projector")
    ),
)
_QWEN = (("model.language_model.", "model."), ("model.visual.", "visual."))
STORED_AS = {
    "qwen2_vl": _QWEN, "qwen2_5_vl": _QWEN,
    **dict.fromkeys(
        ("aya_vision", "gemma3", "got_ocr2", "internvl", "llava", "llava_next", "llava_next_video",
         "llava_onevision", "mistral3", "mllama", "paligemma", "pp_chart2table", "shieldgemma2",
         "video_llava", "vipllava"), _LLAVA,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Base:
    """A checked model folder; `shards` are its weight files by name, in the order of their names."""

    folder: Path
    config: dict[str, object]
    shards: dict[str, Weights]

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name."""
        return {name: t for shard in self.shards.values() for name, t in shard.tensors.items()}

    @property
    def tied(self) -> bool:
        """Whether the output head is the input embedding (and may have no tensor of its own)."""
        text = self.config.get("text_config")
        nested = text.get("tie_word_embeddings") if isinstance(text, dict) else None
        return bool(self.config.get("tie_word_embeddings", nested))

    @property
    def _renamed(self) -> tuple[tuple[str, str], ...]:
        return STORED_AS.get(str(self.config.get("model_type")), ())

    def stored_name(self, name: str) -> str:
        """Return the name by which the checkpoint keeps a tensor of the model; `name` where none is there."""
        older = (stored + name[len(new) :] for new, stored in self._renamed if name.startswith(new))
        return next((found for found in (name, *older) if found in self.tensors), name)

    def module_name(self, stored: str) -> str:
        """Return the name that a stored tensor has in the model: the other way round than `stored_name`."""
        if any(stored.startswith(new) for new, _ in self._renamed):
            return stored
        pairs = ((new, old) for new, old in self._renamed if stored.startswith(old))
        return next((new + stored[len(old) :] for new, old in pairs), stored)

    def find(self, name: str) -> str | None:
        """Return the stored name of a tensor: its own, the embedding's for a tied head, else None."""
        stored = self.stored_name(name)
        if stored in self.tensors:
            return stored
        if self.tied and name.endswith(HEADS):
            return next((other for other in self.tensors if other.endswith(EMBEDDINGS)), None)
        return None

    def read(self, name: str) -> Array:
        """Return a tensor as fp32, by its stored name."""
        return next(shard for shard in self.shards.values() if name in shard.tensors).read(name)


def open_base(folder: Path) -> Base:
    """Open a model folder and check every shard's header; `ContentError` names what is damaged."""
    require(folder, "base model folder")
    config = read_object(require(folder / "config.json", "the base model's config"))
    if (folder / INDEX).is_file():
        return Base(folder, config, read_shards(folder / INDEX))
    if (folder / SINGLE).is_file():
        return Base(folder, config, {SINGLE: open_weights(folder / SINGLE)})
    raise RequestError(
        f"{folder}: neither {SINGLE} nor {INDEX}; a model in pickle files must be saved as safetensors first"
    )


def same_weights(one: Base, other: Base) -> bool:
    """Return whether two models hold the same tensors; one in a narrower dtype may be the other rounded."""
    mine, theirs = one.tensors, other.tensors
    if {n: t.shape for n, t in mine.items()} != {n: t.shape for n, t in theirs.items()}:
        return False
    for name in mine:
        kinds = {mine[name].dtype, theirs[name].dtype}
        if len(kinds) == 1:
            same = all(a == b for a, b in zip(_bytes_of(mine[name]), _bytes_of(theirs[name]), strict=True))
        else:
            narrow = min(kinds, key=SIZES.__getitem__)
            same = kinds <= STORED.keys() and np.array_equal(
                from_fp32(one.read(name), narrow), from_fp32(other.read(name), narrow)
            )
        if not same:
            return False
    return True


def _bytes_of(tensor: Tensor) -> Iterator[bytes]:
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        for start in range(tensor.start, tensor.stop, PIECE):
            yield file.read(min(PIECE, tensor.stop - start))


def read_shards(index: Path) -> dict[str, Weights]:
    """Open the files that an index of safetensors names, by name; `ContentError` where the two disagree."""
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ContentError(
            f"{index}: weight_map: found {show_value(places)}, expected names with their files"
        )
    for place in places.values():
        if not isinstance(place, str) or Path(place).name != place or not place.endswith(".safetensors"):
            found = show_value(place)
            raise ContentError(f"{index}: file {found}: expected a .safetensors name without folders")
    shards = {}
    for file in sorted(set(places.values())):
        shard = shards[file] = open_weights(index.parent / file)
        announced = {name for name, place in places.items() if place == file}
        if announced != shard.tensors.keys():
            name = min(announced ^ shard.tensors.keys())
            where = "the index" if name in announced else "the file"
            raise ContentError(f"{index}: {file}: tensor {name!r} is only in {where}")
    return shards

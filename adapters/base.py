"""A base model's folder: its config, and where each tensor lies among its safetensors shards."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import ContentError, RequestError, show_value
from core.files import read_object, require
from core.weights import Array, Tensor, Weights, open_weights

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight")
HEADS = ("lm_head.weight",)


@dataclass(frozen=True, slots=True)
class Base:
    """A checked model folder; `shards` are its weight files by name, in the order of their names."""

    folder: Path
    config: dict[str, object]
    shards: dict[str, Weights]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name."""
        return {name: t for shard in self.shards.values() for name, t in shard.tensors.items()}

    @property
    def tied(self) -> bool:
        """Whether the output head is the input embedding (and may have no tensor of its own)."""
        text = self.config.get("text_config")
        nested = text.get("tie_word_embeddings") if isinstance(text, dict) else None
        return bool(self.config.get("tie_word_embeddings", nested))

    def find(self, name: str) -> str | None:
        """Return the stored name of a tensor: its own, the embedding's for a tied head, else None."""
        stored = self.tensors
        if name in stored:
            return name
        if self.tied and name.endswith(HEADS):
            return next((other for other in stored if other.endswith(EMBEDDINGS)), None)
        return None

    def read(self, name: str) -> Array:
        """Return a tensor as fp32, by its stored name."""
        shard = next(shard for shard in self.shards.values() if name in shard.tensors)
        return shard.read(name)


def open_base(folder: Path) -> Base:
    """Open a model folder and check every shard's header; `ContentError` names what is damaged."""
    require(folder, "base model folder")
    config = read_object(require(folder / "config.json", "the base model's config"))
    if (folder / INDEX).is_file():
        return Base(folder, config, dict(_indexed(folder)))
    if (folder / SINGLE).is_file():
        return Base(folder, config, {SINGLE: open_weights(folder / SINGLE)})
    raise RequestError(
        f"{folder}: neither {SINGLE} nor {INDEX}; a model in pickle files must be saved as safetensors first"
    )


def _indexed(folder: Path) -> Iterator[tuple[str, Weights]]:
    index = folder / INDEX
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ContentError(
            f"{index}: weight_map: found {show_value(places)}, expected names with their files"
        )
    for file in sorted({_plain_name(place, index) for place in places.values()}):
        shard = open_weights(folder / file)
        announced = {name for name, place in places.items() if place == file}
        if announced != shard.tensors.keys():
            name = min(announced ^ shard.tensors.keys())
            where = "the index" if name in announced else "the file"
            raise ContentError(f"{index}: {file}: tensor {name!r} stands only in {where}")
        yield file, shard


def _plain_name(place: object, index: Path) -> str:
    """Return a shard's file name; `ContentError` for a path that leads elsewhere."""
    if not isinstance(place, str) or Path(place).name != place or not place.endswith(".safetensors"):
        raise ContentError(f"{index}: file {show_value(place)}: expected a .safetensors name without folders")
    return place

"""Sizes in a model's config.json that no model has: laying it out would never end.

`num_hidden_layers: 30000000` takes a few bytes of a file. Before transformers reads a config, its numbers of
layers, experts and labels are compared with the tensors of the weights, or with `MOST` if there are none.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.files import JsonObject, read_object
from tuneyard.core.language.message import _

CONFIG = "config.json"
MOST = 100_000
"""Layers, experts or labels. The largest models have some hundreds, and classifiers 20,000 labels."""
MOST_PARAMETERS = 100_000
"""Tensors of a model as transformers lays it out: DeepSeek-V3 and Kimi K2, expert by expert, have 70,000."""
_COUNTED = {"layer", "layers", "experts", "labels", "depth"}
_NUMBERS_OF = {"n", "num", "encoder", "decoder"}
"""Last and first words of settings that count parts: num_hidden_layers, n_routed_experts, num_labels."""
LONGEST_PLACE = 1000
"""Characters of a place: transformers reads no settings that lie deeper."""
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


class TooManyParametersError(ValueError):
    """A config lays out more parameters than any model has."""


def check_sizes(config: Path) -> None:
    """`ContentError` for a count in config.json that its weights, or those of any model, cannot have."""
    settings = read_object(config)
    tensors = None
    for place, number in _counts(settings):
        if number > MOST:
            raise ContentError(
                _(
                    "{config}: {place} {number}: expected at most {most:,}, no model has more: copy "
                    "config.json from the model's page again",
                    config=config,
                    place=place,
                    number=show_value(number),
                    most=MOST,
                )
            )
        if place not in _LAYERS:
            continue
        if tensors is None:
            tensors = _tensors_beside(config)
        if tensors and number > tensors:
            raise ContentError(
                _(
                    "{config}: {place} {number:,}, but the weights have {tensors:,} tensors: copy "
                    "config.json from the model's page again",
                    config=config,
                    place=place,
                    number=number,
                    tensors=tensors,
                )
            )


def _counts(settings: JsonObject) -> Iterator[tuple[str, int]]:
    """Yield the settings that count parts of a model, by their places: `text_config.num_hidden_layers`."""
    open_parts = [("", settings)]
    while open_parts:
        where, part = open_parts.pop()
        for key, value in part.items():
            words = key.split("_")
            counts = words[-1] in _COUNTED and (len(words) == 1 or words[0] in _NUMBERS_OF)
            if isinstance(value, dict) and len(where) < LONGEST_PLACE:
                open_parts.append((f"{where}{key}.", value))
            elif type(value) is int and counts:
                yield f"{where}{key}", value


def _tensors_beside(config: Path) -> int:
    """The number of tensors in the safetensors files next to a config. 0 without any."""
    from tuneyard.core.weights.tensors import INDEX, SINGLE, open_weights

    folder = config.parent
    if (folder / SINGLE).is_file():
        return len(open_weights(folder / SINGLE).tensors)
    if (folder / INDEX).is_file():
        places = read_object(folder / INDEX).get("weight_map")
        return len(places) if isinstance(places, dict) else 0
    return 0


class ParameterLimit:
    """Context in which a module that registers more than `MOST_PARAMETERS` in all raises an error."""

    def __init__(self) -> None:
        """Nothing is counted before `__enter__`."""
        self.count = 0
        self._hook: Any = None

    def __enter__(self) -> None:
        from torch.nn.modules.module import register_module_parameter_registration_hook

        self._hook = register_module_parameter_registration_hook(self._registered)

    def __exit__(self, *_error: object) -> None:
        self._hook.remove()

    def _registered(self, _module: object, _name: str, _parameter: object) -> None:
        self.count += 1
        if self.count > MOST_PARAMETERS:
            raise TooManyParametersError(
                _(
                    "its config lays out more than {most:,} tensors, no model has as many: "
                    "copy config.json from the model's page again",
                    most=MOST_PARAMETERS,
                )
            )

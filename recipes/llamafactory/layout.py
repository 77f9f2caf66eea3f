"""Facts about the parameters of a model that LLaMA-Factory has laid out, for the costs.

Runs in the subprocess of inspection.py, on parameters without values.
"""

import re
from dataclasses import replace
from typing import Any

from tuneyard.core.llamafactory.models import tower_keys
from tuneyard.recipes.costs import Shapes

LAYER = re.compile(r"\b(?:layers|layer|h|blocks)\.(\d+)\.")


def with_trained(shapes: Shapes, model: Any, config: Any) -> Shapes:
    """Add the number of trainable parameters, and where they are."""
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    towers = tower_keys(getattr(config, "model_type", None))
    trained_layers: set[int] = set()
    starts_below = False  # gradients flow through every text layer
    for name in trained:
        number = LAYER.search(name)
        is_of_tower = any(key in name for key in towers)
        if number is not None and not is_of_tower:
            trained_layers.add(int(number[1]))
        elif is_of_tower or "embed" in name:
            starts_below = True
    layers = config.get_text_config().num_hidden_layers
    lowest = 0
    if not starts_below:
        lowest = min(trained_layers, default=layers)
    return replace(
        shapes,
        trainable=int(sum(parameter.numel() for parameter in trained.values())),
        layers_below=lowest,
        layers_between=layers - lowest - len(trained_layers),
        sees=bool(towers),
    )

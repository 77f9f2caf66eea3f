"""Whether a recipe's model can be loaded: from a folder, from the hub client's cache, or from the hub."""

import os
from pathlib import Path

from core.errors import RequestError
from core.files import no_folder
from recipes.recipe import Recipe

WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
OTHER_HUBS = ("USE_MODELSCOPE_HUB", "USE_OPENMIND_HUB")  # LLaMA-Factory's switches; not looked into


def require_model(recipe: Recipe) -> None:
    """Raise `RequestError` where a model is neither here nor to be downloaded; nothing is written."""
    name = recipe.text("model_name_or_path")
    if Path(name).is_dir() or any(os.environ.get(hub) for hub in OTHER_HUBS) or _cached(recipe, name):
        return
    import httpx
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    token = recipe.settings.get("hf_hub_token")
    try:
        url = hf_hub_url(name, "config.json", revision=_revision(recipe))
        get_hf_file_metadata(url, token=str(token) if token else None)
    except (OSError, httpx.HTTPError, HfHubHTTPError, HFValidationError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        hub = f"not in the hub's cache; not found on, or cannot reach, the Hugging Face Hub: {reason[:200]}"
        told = no_folder(name, f"{hub}; give a local folder: model_name_or_path=DIR")
        raise RequestError(f"{recipe.place('model_name_or_path')}: {told}") from error


def _cached(recipe: Recipe, name: str) -> bool:
    """Return whether weights lie in the cache; config and tokenizer alone may come from a check."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    folder = recipe.settings.get("cache_dir")
    try:
        found = [
            try_to_load_from_cache(name, file, str(folder) if folder else None, _revision(recipe))
            for file in WEIGHTS
        ]
    except HFValidationError:
        return False
    return any(isinstance(path, str) for path in found)


def _revision(recipe: Recipe) -> str:
    return str(recipe.settings.get("model_revision") or "main")

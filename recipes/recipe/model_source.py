"""Where a recipe's model is: a folder here, the hub's cache, or the Hugging Face Hub."""

import os
from pathlib import Path

from tuneyard.core.errors import RequestError
from tuneyard.core.files import no_folder
from tuneyard.core.files.hub import hub_problem
from tuneyard.core.language.message import _, relative
from tuneyard.recipes.recipe import Recipe

WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
OF_THE_HUB = ("cache_dir", "model_revision", "hf_hub_token")
OTHER_HUBS = ("USE_MODELSCOPE_HUB", "USE_OPENMIND_HUB")  # LLaMA-Factory's switches; not looked into


def may_be_here(model: str) -> bool:
    """False if a model is no folder here and not in the hub's cache. Other hubs are not looked into."""
    if _is_not_of_the_hub(model):
        return True
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(model, "config.json"), str)
    except HFValidationError:
        return False


def _is_not_of_the_hub(model: str) -> bool:
    return Path(model).is_dir() or any(os.environ.get(hub) for hub in OTHER_HUBS)


def require_model(recipe: Recipe) -> None:
    """Raise `RequestError` if a model is neither here nor on the hub. Nothing is written."""
    name = recipe.text("model_name_or_path")
    if _is_not_of_the_hub(name):
        return
    import httpx
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    cache, revision, token = (str(recipe.settings.get(key) or "") or None for key in OF_THE_HUB)
    revision = revision or "main"
    try:  # weights: config and tokenizer alone may come from a check
        for file in WEIGHTS:
            if isinstance(try_to_load_from_cache(name, file, cache, revision), str):
                return
        url = hf_hub_url(name, "config.json", revision=revision)
        get_hf_file_metadata(url, token=token)
    except (OSError, httpx.HTTPError, HfHubHTTPError, HFValidationError) as error:
        reason = _(
            "not in the hub's cache; not found on, or cannot reach, the Hugging Face Hub: {problem}; give "
            "a local folder: model_name_or_path=DIR",
            problem=hub_problem(error),
        )
        place = relative(recipe.place("model_name_or_path"))
        raise RequestError(_("{place}: {message}", place=place, message=no_folder(name, reason))) from error

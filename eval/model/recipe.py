"""Whether an adapter is asked with the prompt that its recipe trained it with, where the recipe is known."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import ContentError, RequestError
from core.files import read_object
from core.prompt import Encode, llamafactory_encoder
from eval.model.prompts import Prompting, choose_prompting

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RUN = "run.json"  # of python -m recipes train
SETTINGS = ("recipe.yaml", "training_args.yaml")  # of a training that ours began, or LLaMA-Factory's web page
QUESTION = {"role": "user", "content": "Is it?"}
TALKS = (
    [QUESTION],
    [{"role": "system", "content": "Be brief."}, QUESTION],
    [QUESTION, {"role": "assistant", "content": "Yes."}, QUESTION],
)


def other_prompt(
    tokenizer: "PreTrainedTokenizerBase", folder: Path, prompting: Prompting, asked: str | None
) -> str | None:
    """Return what to warn of if an adapter was trained with another prompt than it is asked with, else None.

    `asked` is the --template. A recipe that names another costs the import of LLaMA-Factory (10 s).
    """
    settings = next(_recipes(folder), None)
    template = settings.get("template") if settings else None
    if settings is None or template == asked:
        return None
    try:
        trained = _trained(tokenizer, folder, template)
        same = all(trained(talk) == prompting.encode(talk) for talk in TALKS)
    except RequestError as error:
        return f"{folder} was trained with template {template}, not checked whether it is asked so: {error}"
    if same:
        return None
    way = f"--template {template} asks with it" if template else "leave --template out to ask with it"
    own = template or "its own chat template"
    return f"{folder} was trained with {own}, and is asked with {prompting.source}: {way}"


def trained_template(folder: Path) -> str | None:
    """Return LLaMA-Factory's template that an adapter's recipe names, None where none is known."""
    template = (next(_recipes(folder), None) or {}).get("template")
    return template if isinstance(template, str) else None


def _trained(tokenizer: "PreTrainedTokenizerBase", folder: Path, template: object) -> Encode:
    if template:
        return llamafactory_encoder(tokenizer, str(template))
    return choose_prompting(tokenizer, [folder], None).encode


def _recipes(folder: Path) -> Iterator[dict[str, object]]:
    """Yield the settings of the training that left the adapter, itself a run or a checkpoint in one."""
    for place in (folder, *([folder.parent] if folder.name.startswith("checkpoint-") else [])):
        found = [read_object(place / RUN).get("inputs")] if (place / RUN).is_file() else []
        kept = [inputs.get("settings") for inputs in found if isinstance(inputs, dict)]
        kept += [_read_yaml(place / name) for name in SETTINGS if (place / name).is_file()]
        yield from (settings for settings in kept if isinstance(settings, dict))


def _read_yaml(path: Path) -> object:
    import yaml

    try:
        return yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise ContentError(f"{path}: not YAML: {error}") from error

"""Whether an adapter is prompted as its recipe trained it, where the recipe is known."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.datasets import find_dataset, read_records, registry_folder
from core.documents import read_yaml
from core.errors import ContentError, RequestError
from core.prompt import Encode, Message, conversation, llamafactory_encoder
from core.runs import names_in, run_folders, run_of
from eval.datasets.prompts import Prompting, choose_prompting

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SETTINGS = ("recipe.yaml", "training_args.yaml")  # of a training that ours began, or LLaMA-Factory's web page
IMAGES = ("media_dir", "image_max_pixels", "image_min_pixels")
QUESTION = {"role": "user", "content": "Is it?"}
SAMPLED = 1000
TALKS = (
    [QUESTION],
    [{"role": "system", "content": "Be brief."}, QUESTION],
    [QUESTION, {"role": "assistant", "content": "Yes."}, QUESTION],
)


def other_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
    prompting: Prompting,
    asked: str | None,
    talks: Sequence[list[Message]] = TALKS,
) -> str | None:
    """Return what to warn of if an adapter was trained with another prompt than it is asked with, else None.

    `asked` is the --template, `talks` what is compared. A recipe that names another template costs the import
    of LLaMA-Factory (10 s).
    """
    settings = next(_recipes(folder), None)
    template = settings.get("template") if settings else None
    if settings is None or template == asked:
        return None
    try:
        trained = _trained(tokenizer, folder, template)
        same = all(trained(talk) == prompting.encode(talk) for talk in talks)
    except RequestError as error:
        return (
            f"{folder} was trained with template {template}, not checked whether it is prompted so: {error}"
        )
    if same:
        return None
    way = f"--template {template} prompts with it" if template else "leave --template out to prompt with it"
    own = template or "its own chat template"
    return f"{folder} was trained with {own}, and is prompted with {prompting.source}: {way}"


def trained_template(folder: Path) -> str | None:
    """Return LLaMA-Factory's template that an adapter's recipe names, "" where it names none.

    None where no recipe is known, or where it trains on plain texts (stage pt).
    """
    settings = next(_recipes(folder), None)
    if settings is None or settings.get("stage") == "pt":
        return None
    return str(settings.get("template") or "")


def image_settings(folder: Path) -> dict[str, object] | None:
    """Return what an adapter's recipe says of images (those of `IMAGES` that it names), None without one."""
    settings = next(_recipes(folder), None)
    return settings and {name: settings[name] for name in IMAGES if name in settings}


def trained_system(folder: Path) -> str | None:
    """Return the system text that an adapter was trained with, None where it had none or no recipe is known.

    It is that of the examples (of each dataset the first 1,000), or the recipe's where they have none.
    `TuneyardError` where a dataset is gone or damaged, or the examples have several.
    """
    settings = next(_recipes(folder), {})
    named, registry = settings.get("dataset"), Path(str(settings.get("dataset_dir") or registry_folder()))
    texts = set()
    for name in names_in(named):
        dataset = find_dataset(name, registry)
        for number, record in enumerate(read_records(dataset.path)[:SAMPLED], 1):
            first = conversation(record, dataset.entry, f"{dataset.path}: record {number}").messages[0]
            texts.add(first["content"] if first["role"] == "system" else settings.get("default_system"))
    if len(texts) > 1:
        raise ContentError(f"the examples of {named} have several; --system gives one")
    text = texts.pop() if texts else None
    return text if isinstance(text, str) else None


def _trained(tokenizer: "PreTrainedTokenizerBase", folder: Path, template: object) -> Encode:
    if template:
        return llamafactory_encoder(tokenizer, str(template))
    return choose_prompting(tokenizer, [folder], None).encode


def _recipes(folder: Path) -> Iterator[dict[str, object]]:
    """Yield the settings of the training that left the adapter, itself a run or a checkpoint in one."""
    kept = [run_of(folder).get("settings")]
    for place in run_folders(folder):
        kept += [read_yaml(place / name, "recipe").value for name in SETTINGS if (place / name).is_file()]
    yield from (settings for settings in kept if isinstance(settings, dict))

"""One registered dataset through LLaMA-Factory 0.9.5's own loader, tokenizer, template and processor.

Nothing of its code is copied: its functions are called as its trainer calls them, into a cache folder
of our own that is gone afterwards, offline.
"""

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import RequestError

# What of a recipe decides how rows are read, tokenised, cut and masked.
SETTINGS = (
    "stage", "template", "media_dir", "cutoff_len", "train_on_prompt", "mask_history", "tool_format",
    "default_system",
    "enable_thinking", "preserve_thinking", "use_fast_tokenizer", "split_special_tokens", "add_tokens",
    "add_special_tokens", "packing", "preprocessing_batch_size", "image_max_pixels", "image_min_pixels",
    "image_do_pan_and_scan", "crop_to_patches", "video_max_pixels", "video_min_pixels", "video_fps",
    "video_maxlen", "use_audio_in_video", "audio_sampling_rate",
)  # fmt: skip
# What its loader, `datasets` and pyarrow raise for a file or an entry that they cannot use.
REFUSALS = (ValueError, TypeError, LookupError, AttributeError, OSError, RuntimeError)


class LoaderError(Exception):
    """LLaMA-Factory's loader gave up on a dataset: its own words, the innermost that say something."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The rows as its loader gives them (a `datasets.Dataset`), its arguments and the stage."""

    rows: Any
    model_args: Any
    data_args: Any
    stage: str


def load(name: str, folder: Path, settings: Mapping[str, object], cache: Path, workers: int) -> Loaded:
    """Load the dataset `name` of `folder`; raises `LoaderError` where LLaMA-Factory cannot.

    `settings` are a recipe's keys, of which only `SETTINGS` and the model's folder count.
    """
    hparams = imported()
    from datasets.exceptions import DatasetsError
    from llamafactory.data.loader import _load_single_dataset
    from llamafactory.data.parser import get_dataset_list

    asked = {key: settings[key] for key in SETTINGS if key in settings}
    stage = str(asked.setdefault("stage", "sft"))
    with quiet():
        model_args, data_args, training_args, _, _ = hparams.get_train_args(
            {
                **asked,
                "model_name_or_path": str(settings.get("model_name_or_path", "none")),
                "dataset_dir": str(folder),
                "dataset": name,
                "cache_dir": str(cache),
                "output_dir": str(cache / "output"),
                "do_train": True,
                "finetuning_type": "lora",
                "overwrite_cache": True,
                "use_cpu": True,
                "report_to": "none",
                "preprocessing_num_workers": workers if workers > 1 else None,
            }
        )
        try:
            (attributes,) = get_dataset_list([name], str(folder))
            rows = _load_single_dataset(attributes, model_args, data_args, training_args)
        except (DatasetsError, *REFUSALS) as error:
            cause = error.__cause__  # of a forked process it is a whole traceback in one text
            inner = cause if isinstance(cause, (DatasetsError, *REFUSALS)) else error
            said = (str(inner).strip() or repr(inner)).splitlines()[0]
            raise LoaderError(f"{type(inner).__name__}: {said[:200]}") from error
    return Loaded(rows, model_args, data_args, stage)


def tools_of(loaded: Loaded, model: Path) -> tuple[Any, Any, Any]:
    """Return tokenizer and template as LLaMA-Factory mends them, and the processor, None for text alone."""
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer

    try:
        with quiet():
            found = load_tokenizer(loaded.model_args)
            template = get_template_and_fix_tokenizer(found["tokenizer"], loaded.data_args)
            return found["tokenizer"], template, found["processor"]
    except REFUSALS as error:
        message = f"{model}: LLaMA-Factory cannot use this tokenizer or template: {error}"
        raise RequestError(message) from error


def imported() -> Any:
    """Import LLaMA-Factory, offline and without its chatter, and return its `hparams`."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", LLAMAFACTORY_VERBOSITY="ERROR")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    with quiet():
        import datasets
        from llamafactory import hparams
    datasets.disable_progress_bars()
    return hparams


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what LLaMA-Factory prints on its way from our own output."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield

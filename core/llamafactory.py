"""LLaMA-Factory 0.9.5's own functions on data, called as its trainer calls them, none of it copied."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Self

from core.errors import TuneyardError

WHOLE: dict[str, Any] = {"cutoff_len": 1 << 30, "packing": False, "neat_packing": False}
"""Data arguments by which each row stays by itself and whole."""


@dataclass(frozen=True, slots=True)
class RecipeData:
    """How a recipe reads its data: LLaMA-Factory's arguments, its template and tokenizer where at hand."""

    model_args: Any
    data_args: Any
    training_args: Any
    finetuning_args: Any
    template: Any = None
    module: dict[str, Any] = field(default_factory=dict)  # `tokenizer` and `processor`

    @property
    def stage(self) -> str:
        """The stage as its loader calls it: dpo reads what rm reads."""
        stage: str = self.finetuning_args.stage
        return "rm" if stage == "dpo" else stage

    def attributes(self, name: str) -> Any:
        """Return what its registry says of a dataset."""
        from llamafactory.data.parser import get_dataset_list

        return get_dataset_list([name], self.data_args.dataset_dir)[0]

    def rows(self, name: str, **changes: object) -> Any:
        """Load the rows of a dataset in LLaMA-Factory's own format (a `datasets.Dataset`).

        `changes` replace attributes of its entry: `num_samples=None` loads every row.
        """
        from llamafactory.data.loader import _load_single_dataset

        attributes = replace(self.attributes(name), **changes)
        return _load_single_dataset(attributes, self.model_args, self.data_args, self.training_args)

    def with_tokenizer(self) -> Self:
        """Return this with the tokenizer and the processor (None where the model reads text alone)."""
        from llamafactory.model import load_tokenizer

        return replace(self, module=load_tokenizer(self.model_args))

    def with_template(self) -> Self:
        """Return this with the template, which mends the tokenizer."""
        from llamafactory.data import get_template_and_fix_tokenizer

        template = get_template_and_fix_tokenizer(self.module["tokenizer"], self.data_args)
        return replace(self, template=template)

    def encoder(self, tokenizer: Any = None, generates: bool = False, **changes: object) -> Any:
        """Return the processor that makes ids and labels of rows, with its data arguments changed so."""
        from llamafactory.data.loader import _get_dataset_processor

        arguments, module = copy(self.data_args), {"tokenizer": None, "processor": None, **self.module}
        vars(arguments).update(changes)
        module["tokenizer"] = tokenizer or module["tokenizer"]
        return _get_dataset_processor(arguments, self.stage, self.template, do_generate=generates, **module)


def read_arguments(settings: Mapping[str, object], **changes: object) -> RecipeData:
    """Return its arguments for a recipe's settings, as a machine would see them that has all it needs."""
    from llamafactory.hparams import parser

    asked = {**settings, "use_cpu": True, "report_to": "none", "preprocessing_num_workers": None, **changes}
    able = {"_check_extra_dependencies": lambda *_: None, "is_torch_bf16_gpu_available": lambda: True}
    with tempfile.TemporaryDirectory() as folder, replaced(parser, **able):  # it looks for checkpoints there
        return RecipeData(*parser.get_train_args({**asked, "output_dir": folder})[:4])


def import_offline() -> None:
    """Import LLaMA-Factory without a network and without its chatter."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", LLAMAFACTORY_VERBOSITY="ERROR")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    with quiet():
        import datasets
        import llamafactory.hparams  # noqa: F401
    datasets.disable_progress_bars()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what LLaMA-Factory prints on its way from our own output."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def replaced(module: Any, **functions: Any) -> Iterator[None]:
    """Let a module of LLaMA-Factory use other functions for a while."""
    before = {name: getattr(module, name) for name in functions}
    vars(module).update(functions)
    try:
        yield
    finally:
        vars(module).update(before)


def refusals() -> tuple[type[Exception], ...]:
    """Return what LLaMA-Factory, datasets, pyarrow and transformers raise for what they cannot use."""
    from datasets.exceptions import DatasetsError
    from jinja2.exceptions import TemplateError

    return (
        ValueError, TypeError, OSError, LookupError, RuntimeError, AttributeError, AssertionError,
        StopIteration, ArithmeticError, DatasetsError, TemplateError, TuneyardError,
    )  # fmt: skip

"""LLaMA-Factory 0.9.5's own functions on data, called as its trainer calls them."""

import contextlib
import io
import os
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from tuneyard.core.errors import ContentError, TuneyardError, show_value
from tuneyard.core.files import JsonObject
from tuneyard.core.files.scratch import scratch_folder
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.data_files import check_data_files
from tuneyard.core.llamafactory.local_media import broken_media, open_local_media
from tuneyard.core.llamafactory.prompt.served_template import ServedTemplate
from tuneyard.core.llamafactory.prompt.templates import limit_transformers
from tuneyard.core.llamafactory.prompt.tokenizer_files import check_tokenizer_files

TEXT_KEYS = (
    "prompt", "query", "response", "history", "messages", "system", "tools", "chosen", "rejected",
)  # fmt: skip
"""Parts of a registry entry's `columns` whose columns contain texts."""

UNPACKED: JsonObject = {"packing": False, "neat_packing": False}
"""Data arguments that pack no rows."""
WHOLE: JsonObject = {"cutoff_len": 1 << 30, **UNPACKED}
"""Data arguments that neither cut nor pack rows."""


@dataclass(frozen=True, slots=True)
class RecipeData:
    """How a recipe reads its data: LLaMA-Factory's arguments, and template and tokenizer once loaded."""

    model_args: Any
    data_args: Any
    training_args: Any
    finetuning_args: Any
    template: Any = None
    module: JsonObject = field(default_factory=dict)  # `tokenizer` and `processor`
    served: ServedTemplate | None = None  # the model's own, set with the template

    @property
    def stage(self) -> str:
        """Stage as the loader calls it: dpo reads the same rows as rm."""
        stage: str = self.finetuning_args.stage
        if stage == "dpo":
            return "rm"
        return stage

    def attributes(self, name: str) -> Any:
        """LLaMA-Factory's attributes of a dataset in the registry."""
        from llamafactory.data.parser import get_dataset_list

        return get_dataset_list([name], self.data_args.dataset_dir)[0]

    def rows(self, name: str, **changes: object) -> Any:
        """Load the rows of a dataset in LLaMA-Factory's own format (a `datasets.Dataset`).

        `changes` replace attributes of its entry: `num_samples=None` loads every row.
        """
        from llamafactory.data.loader import _load_single_dataset

        attributes = replace(self.attributes(name), **changes)
        with self.loading(attributes):
            return _load_single_dataset(attributes, self.model_args, self.data_args, self.training_args)

    @contextlib.contextmanager
    def loading(self, attributes: Any) -> Iterator[None]:
        """Inside the block LLaMA-Factory's loader may read a dataset, and refuses texts that it makes times.

        `UnboundedError` for a file that would fill the memory.
        """
        if attributes.load_from == "file":
            check_data_files(Path(self.data_args.dataset_dir) / attributes.dataset_name)
        with times_refused():
            yield

    def with_tokenizer(self) -> Self:
        """Load the tokenizer and the processor, which is None for models that read text alone.

        For those LLaMA-Factory would load the tokenizer a second time, in place of a processor, and drop it.
        """
        from llamafactory.model import load_tokenizer
        from transformers.models.auto import processing_auto

        model_folder = Path(self.model_args.model_name_or_path)
        if model_folder.is_dir():
            check_tokenizer_files(model_folder)
        dropped = SimpleNamespace(from_pretrained=lambda *_unused, **__: None)
        with replaced(processing_auto, AutoTokenizer=dropped):
            return replace(self, module=load_tokenizer(self.model_args))

    def with_template(self) -> Self:
        """Add the template, which changes the tokenizer's special tokens.

        LLaMA-Factory writes a recipe's `default_system` and `tool_format` into the template. All recipes of a
        process share the template, so each gets a copy.
        """
        from llamafactory.data import template as templates

        served = self.served or ServedTemplate.of(self.module["tokenizer"])
        copies = {name: copy(template) for name, template in templates.TEMPLATES.items()}
        limit_transformers()
        with replaced(templates, TEMPLATES=copies):
            template = templates.get_template_and_fix_tokenizer(self.module["tokenizer"], self.data_args)
        return replace(self, template=template, served=served)

    def processor_fault(self) -> str:
        """Why LLaMA-Factory stops at every row: the template is for media, and the model's processor is not.

        "" if it does not stop. The template and the tokenizer must be loaded.
        """
        plugin, processor = self.template.mm_plugin, self.module["processor"]
        probe = [{"role": "user", "content": "Is 12 even?"}, {"role": "assistant", "content": "yes"}]
        try:
            plugin.process_messages(probe, [], [], [], processor)
        except expected_errors() as error:
            return str(error)
        return ""

    def encoder(self, *, generates: bool = False, **changes: object) -> Any:
        """Processor that turns rows into ids and labels. `changes` replace data arguments."""
        from llamafactory.data.loader import _get_dataset_processor

        arguments = copy(self.data_args)
        vars(arguments).update(changes)
        module = {"tokenizer": None, "processor": None, **self.module}
        return _get_dataset_processor(arguments, self.stage, self.template, do_generate=generates, **module)


@dataclass(frozen=True, slots=True)
class Launch:
    """How a training is launched: `distributed` (torchrun, Ray), and the ZeRO stage of its DeepSpeed file.

    `runs_model_code`: the user's command line lets LLaMA-Factory run the Python files of the model folder.
    """

    distributed: bool = False
    zero_stage: int = 0
    runs_model_code: bool = False


def read_arguments(
    settings: JsonObject,
    launch: Launch = Launch(),  # frozen
    **changes: object,
) -> RecipeData:
    """LLaMA-Factory's arguments for a recipe, on a machine that has every package and device.

    DeepSpeed itself would start process groups. LLaMA-Factory's own checks get the facts that they look at
    instead: the file's name, ZeRO-3 or not, several processes or not.

    A recipe and a model folder may come by mail: whatever the recipe's `trust_remote_code` is, the model's
    Python files run only if `launch` lets them.
    """
    from llamafactory.hparams import parser
    from llamafactory.hparams.training_args import TrainingArguments
    from transformers.training_args import ParallelMode

    plain = {**settings, "use_cpu": True, "report_to": "none", "preprocessing_num_workers": None, **changes}
    plain["trust_remote_code"] = launch.runs_model_code
    open_local_media()
    deepspeed = plain.pop("deepspeed", None)
    parse_plain = parser._parse_train_args

    def parse(arguments: JsonObject) -> Any:
        parsed = parse_plain(arguments)
        parsed[2].deepspeed = deepspeed
        return parsed

    able = {
        "_check_extra_dependencies": lambda *_unused: None,
        "_parse_train_args": parse,
        "is_deepspeed_zero3_enabled": lambda: launch.zero_stage == 3,
        "is_torch_bf16_gpu_available": lambda: True,
    }
    mode = ParallelMode.DISTRIBUTED if launch.distributed else ParallelMode.NOT_PARALLEL
    with (
        scratch_folder() as folder,  # LLaMA-Factory looks for checkpoints there
        replaced(parser, **able),
        replaced(
            parser.HfArgumentParser, _add_dataclass_arguments=lambda *_unused: None
        ),  # of a command line
        replaced(TrainingArguments, parallel_mode=mode),
    ):
        return RecipeData(*parser.get_train_args({**plain, "output_dir": str(folder)})[:4])


NEEDS_CODE = "the model needs its own code, which runs only if you allow it"


def needs_code(error: BaseException) -> bool:
    """True if transformers refused to run the Python files of a model. Its message names its argument."""
    cause: BaseException | None = error
    while cause is not None:
        if "trust_remote_code=True" in str(cause):
            return True
        cause = cause.__cause__
    return False


class RetypedColumnError(ContentError):
    """A column of texts that LLaMA-Factory's loader reads as times. It then drops the rows, or stops."""

    def __init__(self, column: str, dtype: str) -> None:
        self.column = column
        self.reason = _(
            "LLaMA-Factory's loader reads these texts as {dtype}, and drops the rows or stops", dtype=dtype
        )
        self.fix = _(
            "write .jsonl as an array (.json), rename the column of an array, store texts in Parquet"
        )
        super().__init__(
            _("column {column}: {reason}; {fix}", column=show_value(column), reason=self.reason, fix=self.fix)
        )


@contextlib.contextmanager
def times_refused() -> Iterator[None]:
    """Raise `RetypedColumnError` if LLaMA-Factory loads texts as times inside the block.

    pyarrow reads a column of JSON Lines so if every text is a date, and pandas a column of an array or a
    table that is called `date`, `created_at` or the like.
    """
    from llamafactory.data import loader

    align_dataset = loader.align_dataset

    def align(rows: Any, attributes: Any, *arguments: Any) -> Any:
        columns = [getattr(attributes, registry_key) for registry_key in TEXT_KEYS]
        for column, feature in (rows.features or {}).items():
            dtype = str(getattr(feature, "dtype", ""))
            if column in columns and dtype.startswith(("timestamp", "date", "time")):
                raise RetypedColumnError(column, dtype)
        return align_dataset(rows, attributes, *arguments)

    with replaced(loader, align_dataset=align):
        yield


def import_offline() -> None:
    """Import LLaMA-Factory without using the network or printing its logs."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", LLAMAFACTORY_VERBOSITY="ERROR")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    with quiet():
        import datasets
        import llamafactory.hparams  # noqa: F401
        from huggingface_hub import constants
    # Both read the variables when they are imported, which another part of this process may have done.
    constants.HF_HUB_OFFLINE = True
    datasets.config.HF_HUB_OFFLINE = datasets.config.HF_DATASETS_OFFLINE = True
    datasets.disable_progress_bars()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the output of LLaMA-Factory."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def replaced(owner: Any, **values: Any) -> contextlib.AbstractContextManager[object]:
    """Replace functions or attributes of a module or class of LLaMA-Factory inside the block."""
    from unittest.mock import patch

    patches: contextlib.AbstractContextManager[object] = patch.multiple(owner, create=True, **values)
    return patches


def expected_errors() -> tuple[type[Exception], ...]:
    """Errors that LLaMA-Factory and the libraries that it calls raise for unusable input."""
    from datasets.exceptions import DatasetsError
    from jinja2.exceptions import TemplateError

    return (
        ValueError, TypeError, OSError, LookupError, RuntimeError, AttributeError, AssertionError,
        StopIteration, ArithmeticError, DatasetsError, TemplateError, TuneyardError, *broken_media(),
    )  # fmt: skip

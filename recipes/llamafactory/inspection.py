"""LLaMA-Factory's findings about a recipe, in the process of core/llamafactory/child.py.

Its argument classes judge the settings. Its loader, converter and processor read the rows (rows.py).
The model with its adapter is laid out on the meta device, from its config alone. Nothing is trained, no
weights are read and no network is used. cache.py keeps the rows with their lengths, by the settings
that they depend on: reading them is what takes long.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tuneyard.core.errors import ContentError
from tuneyard.core.files import files_of, read_object, sha256
from tuneyard.core.language.message import message_of
from tuneyard.core.llamafactory.loader import Launch, RecipeData, read_arguments
from tuneyard.core.llamafactory.models import linear_layers, prepare_config, with_adapter
from tuneyard.core.llamafactory.prompt.template_match import TemplateFinding, with_matching_template
from tuneyard.core.llamafactory.template_choice import TemplateChoice, matching_templates
from tuneyard.core.llamafactory.trained_rows import UntrainableEpochError
from tuneyard.core.records import PLACEHOLDERS
from tuneyard.recipes.costs import BF16, FP32, Shapes
from tuneyard.recipes.llamafactory.answer import EpochCounts, Facts, LaidOut, Rows
from tuneyard.recipes.llamafactory.cache import folder_hashes, remembered
from tuneyard.recipes.llamafactory.config_sizes import CONFIG, ParameterLimit, check_sizes
from tuneyard.recipes.llamafactory.layout import with_trained
from tuneyard.recipes.llamafactory.rows import epoch, expected_errors, look, words

# Settings that only the training machine can judge; rules/setting_rules.py does.
MACHINE_SETTINGS = ("fp16", "fsdp", "fsdp_config", "resume_from_checkpoint", "tf32")
# Data arguments that choose, mix and group rows, but never change one.
OF_EPOCH = (
    "dataset", "eval_dataset", "val_size", "mix_strategy", "interleave_probs", "packing", "neat_packing",
    "eval_on_each_dataset", "overwrite_cache", "preprocessing_num_workers", "preprocessing_batch_size",
    "tokenized_path", "data_shared_file_system",
)  # fmt: skip
# Kinds of quantised weights that LLaMA-Factory loads as 16 bits.
LOADED_WHOLE = ("mxfp4", "fp8")
FILES_THAT_NAME_CODE = (
    "config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json",
    "video_preprocessor_config.json",
)  # fmt: skip
EXPERTS = ".experts."  # in the names of parameters; shared experts are Linear layers of their own


def inspect(settings: dict[str, object], launch: Launch) -> Facts:
    """Judge a recipe by LLaMA-Factory."""
    try:
        arguments = _arguments(settings, launch)
    except expected_errors() as error:
        message = words(error)
        return Facts(message, at_fault(settings, launch, message))
    refused = _refused_sizes(arguments)
    if refused:
        return Facts(template_error=refused, model=LaidOut(error=refused))
    return Inspection(arguments, settings, launch).answer()


def measure(
    settings: dict[str, object], launch: Launch, rows: Mapping[str, bool]
) -> tuple[Facts, TemplateChoice | None]:
    """Lengths of the rows and shapes of the model, for a recipe that is being written, and its template.

    `rows`: whether its data `has_media` and `has_thoughts`. The lengths depend on the settings of the
    template (None for stage pt). `template_error`: why there is no tokenizer.
    """
    try:
        arguments = _arguments(settings, launch)
    except expected_errors() as error:
        return Facts(words(error)), None
    refused = _refused_sizes(arguments)
    if refused:
        return Facts(template_error=refused), None
    names = [*(arguments.data_args.dataset or []), *(arguments.data_args.eval_dataset or [])]
    template: TemplateChoice | None = None
    inspection = Inspection(arguments, settings, launch)
    try:
        if arguments.stage == "pt":
            arguments.with_tokenizer()
            choices: Iterator[TemplateChoice] = iter(())
        else:
            choices = matching_templates(arguments, has_tools=_has_tools(arguments), **rows)
        for choice in choices:
            template = choice
            chosen = {**settings, **choice.settings}
            inspection = Inspection(_arguments(chosen, launch), chosen, launch)
            if choice.findings or not rows["has_media"] or inspection.rows(names[0]).lengths:
                break  # a template for media of other models cannot read a row
    except expected_errors() as error:
        return Facts(template_error=words(error)), None
    data = {name: inspection.rows(name) for name in names}
    return Facts(data=data, model=inspection.layout()), template


def names_code(model: str) -> bool:
    """True if a model's files name Python classes of their own (`auto_map`), which a training may run.

    A model that is not here names none; the check says elsewhere that it is missing.
    """
    for name in FILES_THAT_NAME_CODE:
        path = _model_file(model, name)
        if path is not None and "auto_map" in read_object(path):
            return True
    return False


def _model_file(model: str, name: str) -> Path | None:
    """A file of a model's folder or of the hub's cache, None if it is not here."""
    from transformers.utils import cached_file

    try:
        path = cached_file(model, name, local_files_only=True, _raise_exceptions_for_missing_entries=False)
    except OSError:
        return None
    return None if path is None else Path(path)


def _refused_sizes(arguments: RecipeData) -> str:
    """Why the model of a recipe is not laid out: sizes of its config that no model has. "" for others."""
    config = _model_file(str(arguments.model_args.model_name_or_path), CONFIG)
    try:
        if config is not None:
            check_sizes(config)
    except ContentError as error:
        return message_of(error)
    return ""


def at_fault(settings: Mapping[str, object], launch: Launch, message: str) -> list[str]:
    """Settings without which LLaMA-Factory takes a recipe. If there are none, those that change `message`."""
    accepted, changed = [], []
    for key in settings:
        rest = {name: value for name, value in settings.items() if name != key}
        try:
            _arguments(rest, launch)
        except expected_errors() as error:
            if words(error) != message:
                changed.append(key)
        else:
            accepted.append(key)
    return accepted or changed


@dataclass(frozen=True)
class Inspection:
    """The answer about one recipe. Its rows are remembered by the arguments and files that they depend on.

    `loaded` are the arguments with tokenizer and template, None before they are loaded.
    """

    arguments: RecipeData
    settings: Mapping[str, object]
    launch: Launch
    loaded: RecipeData | None = None

    def answer(self) -> Facts:
        """The whole answer."""
        findings: list[TemplateFinding] = []
        keys: tuple[str, ...] = ()
        template_error, rejected, train = "", "", EpochCounts()
        inspection = self
        try:
            loaded, findings = with_matching_template(self.arguments, _has_tools(self.arguments))
            inspection = replace(self, loaded=loaded)
        except expected_errors() as error:
            template_error = words(error)
        model = inspection.layout()
        datasets = [*self.trained, *self.evaluated]
        data = {name: replace(inspection.rows(name), lengths=[]) for name in datasets}
        if self.trained and all(data[name].tokens.rows for name in self.trained):
            trained = {name: inspection.rows(name).lengths for name in self.trained}
            evaluated = {name: inspection.rows(name).lengths for name in self.evaluated}
            workers = self.settings.get("preprocessing_num_workers")
            try:
                train = epoch(self.arguments, trained, evaluated, workers)
            except UntrainableEpochError as error:
                rejected, keys = message_of(error), error.keys
        has_code = names_code(str(self.arguments.model_args.model_name_or_path))
        return Facts(rejected, list(keys), findings, template_error, data, train, model, has_code)

    @property
    def trained(self) -> list[str]:
        """Datasets that are trained on. LLaMA-Factory keeps them by name, so a repeated one counts once."""
        return list(dict.fromkeys(self.arguments.data_args.dataset or []))

    @property
    def evaluated(self) -> list[str]:
        """Datasets that are evaluated on, each once."""
        return list(dict.fromkeys(self.arguments.data_args.eval_dataset or []))

    @cached_property
    def reader(self) -> RecipeData:
        """The arguments with tokenizer and template, or without them if they are not at hand."""
        if self.loaded is not None:
            return self.loaded
        try:
            return self.arguments.with_tokenizer().with_template()
        except expected_errors():
            return self.arguments

    def layout(self) -> LaidOut:
        """The model with its adapter."""
        reader = self.reader  # LLaMA-Factory sets `resize_vocab` as it loads a tokenizer with new tokens
        try:
            layout = _model(reader, reader.module.get("tokenizer"), self.launch, self.settings)
        except expected_errors() as error:
            return LaidOut(error=words(error))
        if layout.rejected:
            keys = self.settings.keys() & {
                *vars(self.arguments.finetuning_args), *vars(self.arguments.model_args),
            }  # fmt: skip
            return replace(layout, at_fault=[key for key in sorted(keys) if self._fits_without(key)])
        return layout

    def _fits_without(self, key: str) -> bool:
        """True if LLaMA-Factory prepares the model once a setting is left out."""
        rest = {name: value for name, value in self.settings.items() if name != key}
        try:
            arguments = _arguments(rest, self.launch)
            layout = _model(arguments, None, self.launch, self.settings)
        except expected_errors():
            return False
        return not layout.rejected

    def rows(self, name: str) -> Rows:
        """Findings about a dataset, with the `lengths` of its rows. It is read once."""
        if name not in self._looked_at:
            key = self._rows_key(name)
            if key is None:
                self._looked_at[name] = look(self.reader, name)
            else:
                self._looked_at[name] = remembered("rows", key, Rows, lambda: look(self.reader, name))
        return self._looked_at[name]

    @cached_property
    def _looked_at(self) -> dict[str, Rows]:
        return {}

    @cached_property
    def _tokenizer_key(self) -> list[object]:
        """Key of the token ids of a row: stage, tokenizer and template."""
        arguments = self.arguments
        model_args = vars(arguments.model_args)
        data_args = {key: value for key, value in vars(arguments.data_args).items() if key not in OF_EPOCH}
        hashes = folder_hashes(Path(str(model_args["model_name_or_path"])))
        return [arguments.finetuning_args.stage, model_args, data_args, hashes]

    def _rows_key(self, name: str) -> list[object] | None:
        """Key of the rows of a dataset. None if they also depend on other files or services."""
        if not self.reader.module:  # no tokens are counted, until a tokenizer is there
            return None
        try:
            attributes = self.arguments.attributes(name)
        except expected_errors():
            return None
        if attributes.load_from != "file" or any(getattr(attributes, kind) for kind in PLACEHOLDERS):
            return None
        path = Path(self.arguments.data_args.dataset_dir) / attributes.dataset_name
        if not path.exists():
            return None
        hashes = [sha256(file) for file in files_of(path)]
        training_args = self.arguments.training_args
        trained = name in (self.arguments.data_args.dataset or [])
        generates = training_args.predict_with_generate and not trained
        workers = training_args.dataloader_num_workers
        return [self._tokenizer_key, vars(attributes), hashes, generates, workers]


def _arguments(settings: Mapping[str, object], launch: Launch) -> RecipeData:
    here = {key: settings[key] for key in settings if key not in MACHINE_SETTINGS}
    return read_arguments(here, launch)


def _has_tools(reader: RecipeData) -> bool:
    try:
        tools = [reader.attributes(name).tools for name in reader.data_args.dataset or []]
    except expected_errors():
        return False
    return any(tools)


def _model(arguments: RecipeData, tokenizer: Any, launch: Launch, settings: Mapping[str, object]) -> LaidOut:
    """The model from its config alone."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    model_args = arguments.model_args
    config = AutoConfig.from_pretrained(
        model_args.model_name_or_path, trust_remote_code=model_args.trust_remote_code
    )
    auto_model = AutoModelForCausalLM
    if type(config) in AutoModelForImageTextToText._model_mapping:
        auto_model = AutoModelForImageTextToText
    with torch.device("meta"), ParameterLimit():
        model = auto_model.from_config(config, trust_remote_code=model_args.trust_remote_code)
        vocabulary = len(model.get_input_embeddings().weight)
        if model_args.resize_vocab and tokenizer and len(tokenizer) > vocabulary:
            model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
    embeddings = next(name for name, m in model.named_modules() if m is model.get_input_embeddings())
    text = config.get_text_config()
    linear = [m for name, m in model.named_modules() if not name.endswith("lm_head")]
    head = model.get_output_embeddings()
    shapes = Shapes(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linear=sum(m.weight.numel() for m in linear if type(m).__name__ == "Linear"),
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", 4 * text.hidden_size),
        layers=text.num_hidden_layers,
        vocabulary=len(model.get_input_embeddings().weight),
        model_type=config.model_type,
        stored=FP32 if config.dtype is torch.float32 else BF16,
    )
    facts = LaidOut(
        shapes,
        positions=getattr(text, "max_position_embeddings", None),
        scaled_positions=_scales_positions(text),
        quantised=hasattr(config, "quantization_config"),  # GPTQ, AWQ: its weights are no 16 bits
        tied=head is not None and head.weight is model.get_input_embeddings().weight,
        linear=linear_layers(model, freezes_vision_tower=arguments.finetuning_args.freeze_vision_tower),
    )
    facts = _adapted(facts, config, model, model_args, arguments.finetuning_args, embeddings)
    splits_weights = {"zero_3": launch.zero_stage == 3, "fsdp": bool(settings.get("fsdp"))}
    refused = _refused_config(config, tokenizer, model_args, **splits_weights)
    return replace(facts, rejected=refused or facts.rejected)


def _refused_config(config: Any, tokenizer: Any, model_args: Any, *, zero_3: bool, fsdp: bool) -> str:
    """Reason why LLaMA-Factory cannot prepare the config (quantisation, RoPE, attention), "" if it can."""
    try:
        prepare_config(config, tokenizer, model_args, zero_3=zero_3, fsdp=fsdp)
    except ImportError:  # a package for the quantisation, which the training machine has or lacks
        return ""
    except expected_errors() as error:
        return words(error)
    return ""


def _scales_positions(config: Any) -> bool:
    """True if a model's config already scales its rotary positions (YaRN, linear, llama3, …)."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    of_layer_types = [value for value in rope.values() if isinstance(value, dict)]
    settings = [rope, *of_layer_types]
    return any(setting.get("rope_type", "default") != "default" for setting in settings)


def _adapted(
    facts: LaidOut, config: Any, model: Any, model_args: Any, finetuning_args: Any, embeddings: str
) -> LaidOut:
    """Add the facts about trainable parameters. LLaMA-Factory prepares the model for that and changes it.

    `embeddings` is the path of the input embeddings.
    """
    modules = [f".{name}" for name, _module in model.named_modules()]
    weights = model.named_parameters(remove_duplicate=False)  # a tied head is a layer of its own
    layers = [f".{name}".removesuffix(".weight") for name, _weight in weights]
    unfit: dict[str, list[str]] = {}
    for key, paths in {"lora_target": layers, "additional_target": modules}.items():
        for name in getattr(finetuning_args, key, None) or []:
            if name != "all" and not any(path.endswith(f".{name}") for path in paths):
                unfit.setdefault(key, []).append(name)
    experts = sum(parameter.numel() for name, parameter in model.named_parameters() if EXPERTS in name)
    model_args.adapter_name_or_path = None  # which reads weights
    weights_kind = (getattr(config, "quantization_config", None) or {}).get("quant_method")
    if weights_kind and weights_kind not in LOADED_WHOLE:
        model.quantization_method = weights_kind  # as transformers sets it when it loads them
    else:
        finetuning_args.pissa_init = False  # which reads weights
    model_args.use_unsloth = False  # which patches the same modules, and may not be installed here
    try:
        model = with_adapter(config, model, model_args, finetuning_args)
    except expected_errors() as error:
        return replace(facts, unfit=unfit, rejected=words(error))
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return replace(
        facts,
        shapes=with_trained(facts.shapes, model, config),
        unfit=unfit,
        experts=experts,
        trains_experts=any(EXPERTS in name for name in trainable),
        trains_embeddings=any(f".{embeddings}." in f".{name}" for name in trainable),
    )

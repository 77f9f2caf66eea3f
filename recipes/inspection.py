"""LLaMA-Factory's findings about a recipe, in a process of recipes/llamafactory_server.py.

Its argument classes judge the settings. Its loader, converter and processor read the rows (recipes/rows.py).
The model with its adapter is laid out on the meta device, from its config alone. Nothing is trained, no
weights are read and no network is used. recipes/cache.py keeps the rows with their lengths, by the settings
that they depend on: reading them is what takes long.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tuneyard.core.files import files_of, sha256
from tuneyard.core.prompt.template_fit import with_fitted_template
from tuneyard.core.records import PLACEHOLDERS
from tuneyard.core.training.llamafactory import Launch, RecipeData, read_arguments, replaced
from tuneyard.recipes.cache import folder_hashes, remembered
from tuneyard.recipes.layout import trained_facts
from tuneyard.recipes.new.template import TemplateChoice, fitting_templates
from tuneyard.recipes.rows import epoch, expected_errors, look, words
from tuneyard.recipes.trained_rows import UntrainableEpochError

# Settings that only the training machine can judge; recipes/rules.py does.
MACHINE_SETTINGS = ("fp16", "fsdp", "fsdp_config", "resume_from_checkpoint", "tf32")
# Model arguments that LLaMA-Factory's load_tokenizer, patch_tokenizer and patch_processor read.
OF_TOKENIZER = (
    "model_name_or_path", "model_revision", "use_fast_tokenizer", "split_special_tokens", "add_tokens",
    "add_special_tokens", "new_special_tokens_config", "resize_vocab", "trust_remote_code",
    "image_max_pixels", "image_min_pixels", "image_do_pan_and_scan", "crop_to_patches", "video_max_pixels",
    "video_min_pixels", "video_fps", "video_maxlen", "use_audio_in_video", "audio_sampling_rate",
)  # fmt: skip
# Data arguments that choose, mix and group rows, but never change one.
OF_EPOCH = (
    "dataset", "eval_dataset", "val_size", "mix_strategy", "interleave_probs", "packing", "neat_packing",
    "eval_on_each_dataset", "overwrite_cache", "preprocessing_num_workers", "preprocessing_batch_size",
    "tokenized_path", "data_shared_file_system",
)  # fmt: skip
# Kinds of quantised weights that LLaMA-Factory loads as 16 bits.
LOADED_WHOLE = ("mxfp4", "fp8")
EXPERTS = ".experts."  # in the names of parameters; shared experts are Linear layers of their own
Facts = dict[str, Any]


def inspect(settings: dict[str, object], launch: Launch) -> Facts:
    """Judge a recipe by LLaMA-Factory: `rejected`, or `data`, `tokens` and `model`.

    A part that fails is {"error": reason}.
    """
    try:
        arguments = _arguments(settings, launch)
    except expected_errors() as error:
        message = words(error)
        return {"rejected": message, "at_fault": at_fault(settings, launch, message)}
    return Inspection(arguments, settings, launch).facts()


def measure(settings: dict[str, object], launch: Launch, rows: Mapping[str, bool]) -> Facts:
    """Template, lengths of the rows and shapes of the model, for a recipe that is being written.

    `rows`: whether its data `has_media` and `has_thoughts`. The result has these parts:

    - `rejected`: why LLaMA-Factory refuses the settings, or `error`: why there is no tokenizer.
    - `template`: a `TemplateChoice` ({} for stage pt), whose settings the rest of the answer depends on.
    - `data`: findings by dataset. `lengths`: tokens of each sequence of each row, by dataset.
    - `model`: its shapes, or {"error": reason}.
    """
    try:
        arguments = _arguments(settings, launch)
    except expected_errors() as error:
        return {"rejected": words(error)}
    names = [*(arguments.data_args.dataset or []), *(arguments.data_args.eval_dataset or [])]
    template: Facts = {}
    inspection = Inspection(arguments, settings, launch)
    try:
        if arguments.stage == "pt":
            arguments.with_tokenizer()
            choices: Iterator[TemplateChoice] = iter(())
        else:
            choices = fitting_templates(arguments, has_tools=_has_tools(arguments), **rows)
        for choice in choices:
            template = asdict(choice)
            chosen = {**settings, **choice.settings}
            inspection = Inspection(_arguments(chosen, launch), chosen, launch)
            if choice.findings or not rows["has_media"] or inspection.rows(names[0]).get("lengths"):
                break  # a template for media of other models cannot read a row
    except expected_errors() as error:
        return {"error": words(error)}
    return {
        "template": template,
        "data": {name: _without(inspection.rows(name), ("lengths",)) for name in names},
        "lengths": {name: inspection.rows(name).get("lengths") for name in names},
        "model": inspection.layout(),
    }


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
    """The facts of one recipe. Its rows are remembered by the arguments and files that they depend on."""

    arguments: RecipeData
    settings: Mapping[str, object]
    launch: Launch

    def facts(self) -> Facts:
        """All parts of the answer: `rejected`, `data`, `tokens` and `model`."""
        tokens: Facts = self._template()
        model = self.layout()
        names = dict.fromkeys([*self.trained, *self.evaluated])
        data = {name: _without(self.rows(name), ("lengths",)) for name in names}
        rejected, keys = None, []
        counted = [data[name].get("tokens", {}).get("rows") for name in self.trained]
        if counted and all(counted):
            train = self._epoch()
            rejected, keys = train.get("rejected"), train.get("at_fault", [])
            if rejected is None:
                tokens["train"] = train
        if "error" not in tokens:
            tokens["datasets"] = {}
            for name, about in data.items():
                if about.get("tokens"):
                    tokens["datasets"][name] = about["tokens"]
        return {"rejected": rejected, "at_fault": keys, "data": data, "tokens": tokens, "model": model}

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
        try:
            return self.arguments.with_tokenizer().with_template()
        except expected_errors():
            return self.arguments

    def _template(self) -> Facts:
        try:
            _, findings = with_fitted_template(self.arguments, _has_tools(self.arguments))
        except expected_errors() as error:
            return {"error": words(error)}
        return {"template": [asdict(finding) for finding in findings]}

    def layout(self) -> Facts:
        """Parameters and shapes of the model with its adapter, or an `error`."""
        reader = self.reader  # LLaMA-Factory sets `resize_vocab` as it loads a tokenizer with new tokens
        try:
            layout = self._model(reader, reader.module.get("tokenizer"))
        except expected_errors() as error:
            return {"error": words(error)}
        if layout["rejected"]:
            finetuning_args = vars(self.arguments.finetuning_args)
            keys = [key for key in self.settings if key in finetuning_args or key.startswith("quantization_")]
            layout["at_fault"] = [key for key in keys if self._fits_without(key)]
        return layout

    def _fits_without(self, key: str) -> bool:
        """True if LLaMA-Factory prepares the model once a setting is left out."""
        rest = {name: value for name, value in self.settings.items() if name != key}
        try:
            arguments = _arguments(rest, self.launch)
            layout = self._model(arguments, None)
        except expected_errors():
            return False
        return not layout["rejected"]

    def _model(self, arguments: RecipeData, tokenizer: Any) -> dict[str, object]:
        splits_weights = {"zero_3": self.launch.zero_stage == 3, "fsdp": bool(self.settings.get("fsdp"))}
        return _model(arguments.model_args, arguments.finetuning_args, tokenizer, **splits_weights)

    def rows(self, name: str) -> Facts:
        """Findings about a dataset, with the `lengths` of its rows. It is read once."""
        if name not in self._looked_at:
            key = self._rows_key(name)
            if key is None:
                self._looked_at[name] = look(self.reader, name)
            else:
                self._looked_at[name] = remembered("rows", key, lambda: look(self.reader, name))
        return self._looked_at[name]

    @cached_property
    def _looked_at(self) -> dict[str, Facts]:
        return {}

    def _epoch(self) -> Facts:
        """Rows of an epoch, or the reason why LLaMA-Factory rejects it (`rejected`)."""
        sets = [self.rows(name).get("lengths") or [] for name in self.trained]
        others = [self.rows(name).get("lengths") or [] for name in self.evaluated]
        workers = self.settings.get("preprocessing_num_workers")
        try:
            return epoch(self.arguments, sets, others, workers)
        except UntrainableEpochError as error:
            return {"rejected": str(error), "at_fault": error.keys}

    @cached_property
    def _tokenizer_key(self) -> list[object]:
        """Key of the token ids of a row: stage, tokenizer and template."""
        model_args = vars(self.arguments.model_args)
        model = str(model_args["model_name_or_path"])
        read_by_tokenizer = {name: model_args.get(name) for name in OF_TOKENIZER}
        data_args = _without(vars(self.arguments.data_args), OF_EPOCH)
        return [
            self.arguments.finetuning_args.stage,
            read_by_tokenizer,
            data_args,
            folder_hashes(Path(model)),
        ]

    def _rows_key(self, name: str) -> list[object] | None:
        """Key of the rows of a dataset. None if they also depend on other files or services."""
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


def _without(values: Mapping[str, Any], names: tuple[str, ...]) -> Facts:
    return {name: value for name, value in values.items() if name not in names}


def _arguments(settings: Mapping[str, object], launch: Launch | None = None, **changes: object) -> RecipeData:
    here = {key: settings[key] for key in settings if key not in MACHINE_SETTINGS}
    return read_arguments(here, launch, **changes)


def _has_tools(reader: RecipeData) -> bool:
    try:
        tools = [reader.attributes(name).tools for name in reader.data_args.dataset or []]
    except expected_errors():
        return False
    return any(tools)


def _model(
    model_args: Any, finetuning_args: Any, tokenizer: Any, *, zero_3: bool, fsdp: bool
) -> dict[str, object]:
    """Parameters and shapes from the config alone, `unfit` module names, and why it is `rejected`.

    `zero_3` and `fsdp`: the weights are split among the GPUs.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(model_args.model_name_or_path, trust_remote_code=False)
    auto_model = AutoModelForCausalLM
    if type(config) in AutoModelForImageTextToText._model_mapping:
        auto_model = AutoModelForImageTextToText
    with torch.device("meta"):
        model = auto_model.from_config(config)
        vocabulary = len(model.get_input_embeddings().weight)
        if model_args.resize_vocab and tokenizer and len(tokenizer) > vocabulary:
            model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
    embeddings = next(name for name, m in model.named_modules() if m is model.get_input_embeddings())
    text = config.get_text_config()
    linear = [m for name, m in model.named_modules() if not name.endswith("lm_head")]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "linear": sum(m.weight.numel() for m in linear if type(m).__name__ == "Linear"),
        "hidden": text.hidden_size,
        "intermediate": getattr(text, "intermediate_size", 4 * text.hidden_size),
        "layers": text.num_hidden_layers,
        "positions": getattr(text, "max_position_embeddings", None),
        "scaled_positions": _scales_positions(text),
        "quantised": hasattr(config, "quantization_config"),  # GPTQ, AWQ: its weights are no 16 bits
        "vocabulary": len(model.get_input_embeddings().weight),
        "tied": _ties_embeddings(model),
        "model_type": config.model_type,
        **_adapted(config, model, model_args, finetuning_args, embeddings),
        **_refused_weights(config, tokenizer, model_args, zero_3=zero_3, fsdp=fsdp),
    }


def _ties_embeddings(model: Any) -> bool:
    """True if the head of a model has the same weights as its embeddings."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _refused_weights(
    config: Any, tokenizer: Any, model_args: Any, *, zero_3: bool, fsdp: bool
) -> dict[str, object]:
    """{"rejected": reason} if LLaMA-Factory cannot load the weights with this quantisation, or {}."""
    from llamafactory.model.model_utils import quantization

    able = {
        "is_deepspeed_zero3_enabled": lambda: zero_3,
        "is_fsdp_enabled": lambda: fsdp,
        "check_version": lambda *_, **__: None,
    }
    try:
        with replaced(quantization, **able):
            quantization.configure_quantization(copy.deepcopy(config), tokenizer, model_args, True, {})
    except ImportError:  # a package for the quantisation, which the training machine has or lacks
        return {}
    except expected_errors() as error:
        return {"rejected": words(error)}
    return {}


def _scales_positions(config: Any) -> bool:
    """True if a model's config already scales its rotary positions (YaRN, linear, llama3, …)."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    of_layer_types = [value for value in rope.values() if isinstance(value, dict)]
    settings = [rope, *of_layer_types]
    return any(setting.get("rope_type", "default") != "default" for setting in settings)


def _adapted(
    config: Any, model: Any, model_args: Any, finetuning_args: Any, embeddings: str
) -> dict[str, object]:
    """Facts about the trainable parameters. LLaMA-Factory prepares the model for that and changes it.

    `embeddings` is the path of the input embeddings.
    """
    import torch
    from llamafactory.model.adapter import init_adapter

    modules = [f".{name}" for name, _ in model.named_modules()]
    weights = model.named_parameters(remove_duplicate=False)  # a tied head is a layer of its own
    layers = [f".{name}".removesuffix(".weight") for name, _ in weights]
    unfit: dict[str, list[str]] = {"lora_target": [], "additional_target": []}
    for key, paths in {"lora_target": layers, "additional_target": modules}.items():
        for name in getattr(finetuning_args, key, None) or []:
            if name != "all" and not any(path.endswith(f".{name}") for path in paths):
                unfit[key].append(name)
    experts = sum(parameter.numel() for name, parameter in model.named_parameters() if EXPERTS in name)
    model_args.adapter_name_or_path = None  # which reads weights
    weights_kind = (getattr(config, "quantization_config", None) or {}).get("quant_method")
    if weights_kind and weights_kind not in LOADED_WHOLE:
        model.quantization_method = weights_kind  # as transformers sets it when it loads them
    else:
        finetuning_args.pissa_init = False  # which reads weights
    model_args.use_unsloth = False  # which patches the same modules, and may not be installed here
    try:
        with torch.device("meta"):
            model = init_adapter(config, model, model_args, finetuning_args, is_trainable=True)
    except expected_errors() as error:
        return {"trainable": None, "unfit": unfit, "rejected": words(error)}
    trainable = {name: one for name, one in model.named_parameters() if one.requires_grad}
    trains = {
        "trains_experts": any(EXPERTS in name for name in trainable),
        "trains_embeddings": any(f".{embeddings}." in f".{name}" for name in trainable),
    }
    facts = trained_facts(model, config)
    return {**facts, "unfit": unfit, "rejected": "", "experts": experts, **trains}

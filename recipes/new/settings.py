"""The settings of a new recipe, each with its reason."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tuneyard.core.datasets import read_records, stem_of
from tuneyard.core.errors import RequestError
from tuneyard.core.files import strings
from tuneyard.core.language.message import _, counted
from tuneyard.core.llamafactory.stages import PREFERENCE_STAGES
from tuneyard.core.llamafactory.template_choice import TemplateChoice
from tuneyard.core.records import KTO_TAG
from tuneyard.recipes.machine.hardware import Machine, cpu_computes_bf16
from tuneyard.recipes.new.dataset import TrainingData
from tuneyard.recipes.new.memory import GpuFit, zero_setting
from tuneyard.recipes.new.objectives import OBJECTIVES
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.schedule import schedule_of
from tuneyard.recipes.rules.setting_rules import AMPERE

CUT = 0.01
"""The largest share of rows that the cutoff_len of a new recipe cuts."""
ROUND_LENGTHS = [size * 2**power for power in range(6, 16) for size in (2, 3)]
"""Round values of cutoff_len: 128, 192, 256, 384, … 98,304."""
BLOCK = 2048
"""Tokens of a packed block of running text, if the data is large enough."""
FEW_BLOCKS = 100
STEP_ROWS = 16
"""Rows of a step: the RTE/MNLI tutorial's batch."""
FEWEST_STEP_ROWS = 4
STEPS_OF_EPOCH = 25
"""A step takes fewer rows if an epoch has fewer steps than this."""
MANY_ROWS = 20_000
"""From so many rows on, one epoch: the RTE/MNLI tutorial trains the 392,702 rows of MNLI once."""
EVALUATIONS = 10
EVALUATION_SHARE = 0.25
"""The most forward passes that evaluations take, as a share of the training's."""
BALANCED = 4 / 3
"""KTO takes desirable and undesirable answers as balanced up to this ratio."""
CPU_ROWS = 4
OBJECTIVE_REASONS = {
    "pt": _("texts without answers: every token is learned"),
    "sft": _("questions with answers: only the answers are learned"),
    "rm": _("pairs: a reward model learns to score the better answer higher"),
    "dpo": _("pairs: the better answer is made more likely than the other, measured by the base model"),
    "orpo": _("pairs: ORPO is stage dpo with pref_loss orpo, without a reference model"),
    "simpo": _("pairs: SimPO is stage dpo with pref_loss simpo, without a reference model"),
    "kto": _("answers marked as desirable or not"),
}
"""Why the rows of a dataset are trained with an objective, as a recipe says it."""
VAL_SIZE = 0.1
"""The share of the rows that a training holds out if no dataset of held-out rows is registered."""


class Value(NamedTuple):
    """One setting of a recipe, and its reason ("" if it needs none). A reason without a key is a comment."""

    key: str
    value: object
    reason: str = ""


Section = tuple[str, list[Value]]


class TrainingMethod(NamedTuple):
    """A training method with its settings. `trains` is its name in a sentence."""

    trains: str
    values: tuple[Value, ...]
    is_adapter: bool = True


_LORA_VALUES = (
    Value("finetuning_type", "lora"),
    Value("lora_target", "all", _("every linear layer")),
    Value("lora_rank", 16),
    Value("lora_alpha", 32, _("twice the rank, LLaMA-Factory's default")),
)
METHODS = {
    "lora": TrainingMethod("LoRA", _LORA_VALUES),
    "dora": TrainingMethod("DoRA", (*_LORA_VALUES, Value("use_dora", True))),
    "qlora": TrainingMethod(
        _("LoRA on a 4-bit base (QLoRA)"),
        (
            Value("quantization_bit", 4),
            Value("quantization_method", "bnb"),
            *_LORA_VALUES,
        ),
    ),
    "full": TrainingMethod(_("all weights"), (Value("finetuning_type", "full"),), is_adapter=False),
    "freeze": TrainingMethod(
        _("the last two layers"),
        (
            Value("finetuning_type", "freeze"),
            Value("freeze_trainable_layers", 2, _("the last two layers; the others stay as they are")),
            Value("freeze_trainable_modules", "all"),
        ),
        is_adapter=False,
    ),
}
"""Methods by the name that users write."""
OF_MODEL = ("quantization_bit", "quantization_method")


@dataclass(frozen=True, slots=True)
class RecipeRequest:
    """A training to write a recipe for: data, model, method and machine. `out` is the recipe's file."""

    data: TrainingData
    model: str
    method: str
    machine: Machine
    out: Path
    runs_model_code: bool = False

    @property
    def ranks(self) -> int:
        """Processes of the training: one for each GPU."""
        return max(1, len(self.machine.gpus))

    @property
    def machine_words(self) -> str:
        """The machine for people: 4 × A100-80, or a CPU."""
        gpus = self.machine.gpus
        if not gpus:
            return _("a CPU")
        return f"{len(gpus)} × {gpus[0].name}"

    @property
    def output_dir(self) -> str:
        """The folder that the training writes: saves/NAME of the recipe's file."""
        name = re.sub(r"[^\w.-]+", "-", self.out.stem)
        return f"saves/{name}"

    def basic_values(self) -> list[Value]:
        """Settings that follow from the request. Those of measured rows are missing."""
        return [*self.model_values(), *self.method_values(), *self.dataset_values()]

    def basic_settings(self) -> dict[str, object]:
        """`basic_values` by key."""
        return {value.key: value.value for value in self.basic_values()}

    def model_values(self) -> list[Value]:
        """The model, and its quantisation."""
        quantised = [value for value in METHODS[self.method].values if value.key in OF_MODEL]
        code = []
        if self.runs_model_code:
            code.append(
                Value("trust_remote_code", True, _("LLaMA-Factory runs the Python files of the model"))
            )
        return [Value("model_name_or_path", self.model), *code, *quantised]

    def method_values(self) -> list[Value]:
        """Stage and method, and the settings of a preference loss."""
        name = self.data.objective
        values = [Value("stage", OBJECTIVES[name].stage, OBJECTIVE_REASONS[name]), Value("do_train", True)]
        values += [value for value in METHODS[self.method].values if value.key not in OF_MODEL]
        return [*values, *_preference_values(self.data)]

    def dataset_values(self) -> list[Value]:
        """The datasets and their folders."""
        data = self.data
        values = [Value("dataset_dir", str(data.folder)), Value("dataset", data.name)]
        if not data.eval_name:
            reason = _(
                "no {name}_eval is registered: a tenth of the rows, drawn by `seed`",
                name=stem_of(data.name),
            )
            values.append(Value("val_size", VAL_SIZE, reason))
        else:
            values.append(
                Value("eval_dataset", data.eval_name, _("held-out rows: each checkpoint is judged by them"))
            )
        if data.has_media:
            values.append(Value("media_dir", data.media_dir))
        return values


def _preference_values(data: TrainingData) -> list[Value]:
    """Settings of the preference losses. KTO weighs the rarer kind of answers."""
    loss = OBJECTIVES[data.objective].pref_loss
    if loss == "simpo":
        return [
            Value("pref_beta", 2.5, _("the SimPO paper's instruct setup")),
            Value("simpo_gamma", 0.5, _("LLaMA-Factory's default")),
            Value("pref_loss", loss),
        ]
    if loss:
        return [
            Value("pref_beta", 0.1, _("LLaMA-Factory's {file}", file="qwen3_lora_dpo.yaml")),
            Value("pref_loss", loss),
        ]
    if data.objective != "kto":
        return []
    values = [Value("pref_beta", 0.1, _("LLaMA-Factory's {file}", file="qwen3_lora_kto.yaml"))]
    desirable, undesirable = _marks(data)
    reason = _(
        "{desirable:,} desirable and {undesirable:,} undesirable answers: the rarer ones weigh more, "
        "as KTO asks",
        desirable=desirable,
        undesirable=undesirable,
    )
    if desirable and undesirable > BALANCED * desirable:
        values.append(Value("kto_chosen_weight", round(undesirable / desirable, 2), reason))
    elif undesirable and desirable > BALANCED * undesirable:
        values.append(Value("kto_rejected_weight", round(desirable / undesirable, 2), reason))
    return values


def _marks(data: TrainingData) -> tuple[int, int]:
    """Numbers of desirable and of undesirable answers; zeros for a folder."""
    if not data.path.is_file():
        return 0, 0
    column = strings(data.entry.get("columns"))[KTO_TAG]
    marks = [record.get(column) for record in read_records(data.path)]
    return marks.count(True), marks.count(False)


class Cutoff(NamedTuple):
    """A cutoff_len, the number of rows that it cuts, and the reason for it."""

    tokens: int
    cut: int
    reason: str


def choose_cutoff(lengths: Sequence[int], positions: int | None) -> Cutoff:
    """The smallest round cutoff_len that cuts at most 1 % of the rows, within the model's positions.

    `lengths` are the tokens of each row's longest sequence. `RequestError` if every row is longer than the
    model's positions.
    """
    longest = max(lengths)
    tokens = next((size for size in ROUND_LENGTHS if _longer(lengths, size) <= CUT * len(lengths)), longest)
    rows = counted(len(lengths), "row", "rows")
    reason = _("the longest of {rows} has {longest:,} tokens", rows=rows, longest=longest)
    if positions and tokens > positions:
        tokens = positions
        reason = _(
            "the longest of {rows} has {longest:,} tokens, the model has {positions:,} positions",
            rows=rows,
            longest=longest,
            positions=positions,
        )
    cut = _longer(lengths, tokens)
    if cut == len(lengths):
        raise RequestError(
            _(
                "every row is longer than the model's {positions:,} positions (the shortest has "
                "{tokens:,} tokens); take a model with more positions, or compile shorter rows",
                positions=positions,
                tokens=min(lengths),
            )
        )
    share = _("it cuts none")
    if cut:
        share = _("it cuts {number:,} ({share:.1%})", number=cut, share=cut / len(lengths))
    return Cutoff(tokens, cut, _("{reason}; {share}", reason=reason, share=share))


def _longer(lengths: Sequence[int], tokens: int) -> int:
    return sum(length > tokens for length in lengths)


def choose_block(tokens: int, eval_tokens: int, positions: int | None) -> Cutoff:
    """Tokens of a packed block: 2,048, or less for small data and models with fewer positions.

    `RequestError` if a split does not fill the smallest block.
    """
    size = min(BLOCK, positions or BLOCK)
    smallest = ROUND_LENGTHS[0]
    while size > smallest and (tokens // size < FEW_BLOCKS or eval_tokens < size):
        size = max(smallest, size // 2)
    if min(tokens, eval_tokens) < size:
        raise RequestError(
            _(
                "the texts have {tokens:,} tokens to train on and {eval_tokens:,} to evaluate, which do "
                "not fill a packed block of {size}; compile more texts",
                tokens=tokens,
                eval_tokens=eval_tokens,
                size=size,
            )
        )
    blocks = counted(tokens // size, "block", "blocks")
    return Cutoff(
        size,
        0,
        _(
            "{tokens:,} tokens of running text, packed into {blocks}: nothing is cut",
            tokens=tokens,
            blocks=blocks,
        ),
    )


def rows_of_step(rows: int, ranks: int) -> int:
    """Rows of a step: 16, fewer if an epoch would have less than 25 steps, at least one for each GPU.

    Without so many GPUs they are never more than the rows.
    """
    batch = STEP_ROWS
    while batch > FEWEST_STEP_ROWS and rows < STEPS_OF_EPOCH * batch:
        batch //= 2
    return max(min(batch, rows), ranks)


def largest_micro_batch(rows: int, ranks: int) -> int:
    """The largest power of two that each GPU takes of a step."""
    return 1 << (max(1, rows_of_step(rows, ranks) // ranks).bit_length() - 1)


@dataclass(frozen=True, slots=True)
class Measured:
    """Measures of data and model: rows (or packed blocks) of both splits, template, cutoff, fit to memory.

    `fit` is None if memory is not planned (a CPU, or a model whose memory is not known).
    """

    rows: int
    eval_rows: int
    template: TemplateChoice | None
    cutoff: Cutoff
    fit: GpuFit | None


def sections(request: RecipeRequest, counts: Measured) -> list[Section]:
    """All settings of a recipe in the order of its file."""
    dataset = [*request.dataset_values(), *_template_values(counts.template)]
    dataset.append(Value("cutoff_len", counts.cutoff.tokens, counts.cutoff.reason))
    if request.data.objective == "pt":
        dataset.append(Value("packing", True))
    dataset.append(Value("overwrite_cache", True))
    if counts.rows > MANY_ROWS:
        dataset.append(Value("preprocessing_num_workers", 8))
    train, steps = _train_values(request, counts)
    train_settings = {value.key: value.value for value in train}
    every = _steps_between_evaluations(counts, steps, float(str(train_settings["num_train_epochs"])))
    output = [
        Value("output_dir", request.output_dir),
        Value("logging_steps", max(1, min(10, steps // 20))),
        Value("save_strategy", "steps"),
        Value("save_steps", every, _("as often as it is evaluated, so that the best one can be kept")),
        Value("save_total_limit", 2, _("the best and the newest")),
        Value("plot_loss", True),
        Value("report_to", "none"),
    ]
    best = [Value("load_best_model_at_end", True, _("the checkpoint that is best on the eval split is kept"))]
    metric, higher = "eval_loss", False
    if request.data.objective == "rm":
        reason = _("LLaMA-Factory loads no best reward model at the end: its checkpoint stays in output_dir")
        best = [Value("", None, reason)]
        metric, higher = "eval_accuracy", True
    evaluation = [
        Value("per_device_eval_batch_size", train_settings["per_device_train_batch_size"]),
        Value("eval_strategy", "steps"),
        Value("eval_steps", every, _("{steps:,} steps in all", steps=steps)),
        *best,
        Value("metric_for_best_model", metric),
        Value("greater_is_better", higher),
    ]
    return [
        ("model", request.model_values()),
        ("method", request.method_values()),
        ("dataset", dataset),
        ("output", output),
        ("train", train),
        ("eval", evaluation),
    ]


def _template_values(template: TemplateChoice | None) -> list[Value]:
    if template is None:
        return []
    name = template.name
    reason: str = _("writes the model's own prompt, token by token")
    if template.differs_with_tools:
        reason = _(
            "writes the model's own prompt, token by token; with tools it differs from the model's (W352)"
        )
    if name is None:
        return [
            Value(
                "",
                None,
                _(
                    "no template: the tokenizer's chat template, which LLaMA-Factory reads, {reason}",
                    reason=reason,
                ),
            )
        ]
    if template.is_base:
        reason = _("a base model has no chat template: plain text with roles")
    values = [Value("template", name, reason)]
    if template.enable_thinking is not None:
        reason = _("no answer of the data has a thought")
        if template.enable_thinking:
            reason = _("answers of the data have thoughts")
        values.append(Value("enable_thinking", template.enable_thinking, reason))
    return values


def _train_values(request: RecipeRequest, counts: Measured) -> tuple[list[Value], int]:
    """The settings of the training itself, and its steps."""
    ranks = request.ranks
    batch = rows_of_step(counts.rows, ranks)
    per_device = min(CPU_ROWS, largest_micro_batch(counts.rows, ranks))
    if request.machine.gpus:
        per_device = 1
    fit_values: list[Value] = []
    reason: str = _("its memory is not planned")
    if counts.fit is not None:
        per_device = counts.fit.rows
        reason = _(
            "{lower:.1f}–{upper:.1f} GB a GPU (tuneyard recipe plan)",
            lower=counts.fit.lower / 1e9,
            upper=counts.fit.upper / 1e9,
        )
        fit_values = _fit_values(counts.fit, request.out)
    accumulation = max(1, batch // (per_device * ranks))
    rows_a_step = accumulation * per_device * ranks
    rows: str = _("{rows} rows a step", rows=rows_a_step)
    if ranks > 1:
        rows = _("{rows} rows a step, on {gpus} GPUs", rows=rows_a_step, gpus=ranks)
    values = [
        Value("per_device_train_batch_size", per_device, reason),
        Value("gradient_accumulation_steps", accumulation, rows),
        *fit_values,
    ]
    objective = OBJECTIVES[request.data.objective]
    rate = objective.weight_rate
    if METHODS[request.method].is_adapter:
        rate = objective.adapter_rate
    values.append(Value("learning_rate", rate.rate, rate.source))
    values.append(Value("lr_scheduler_type", "cosine"))
    epochs, why = 3.0, ""
    if request.data.objective == "rm":
        epochs, why = 1.0, _("reward models overfit early (InstructGPT trains one epoch)")
    elif counts.rows > MANY_ROWS:
        epochs, why = (
            1.0,
            _("{rows:,} rows: one epoch, as the RTE/MNLI tutorial trains MNLI", rows=counts.rows),
        )
    settings = {value.key: value.value for value in values}
    recipe = Recipe(request.out, {**settings, "num_train_epochs": epochs}, {})
    steps = schedule_of(recipe, counts.rows, ranks).steps
    if steps > 1:
        warmup = 0.03
        if OBJECTIVES[request.data.objective].stage in (*PREFERENCE_STAGES, "rm"):
            warmup = 0.1
        values.append(Value("warmup_steps", warmup, _("a share of the steps")))
    values.append(Value("num_train_epochs", epochs, why))
    values += _precision(request)
    values.append(Value("seed", 42))
    return values, steps


def _fit_values(fit: GpuFit, out: Path) -> list[Value]:
    values = []
    if not fit.recomputes:
        reason = _("activations fit: recomputing them would take a third more time")
        values.append(Value("disable_gradient_checkpointing", True, reason))
    if fit.deepspeed:
        reason = _("one GPU is too small alone")
        if fit.main_memory:
            reason = _(
                "the GPU memory is too small: weights and optimizer take {size:.0f} GB of main memory",
                size=fit.main_memory / 1e9,
            )
        path = zero_setting(fit.deepspeed, out)
        if path != fit.deepspeed:
            reason = _(
                "{reason}; the file lies beside this recipe and travels with it (path from the working "
                "directory)",
                reason=reason,
            )
        values.append(Value("deepspeed", path, reason))
    return values


def _precision(request: RecipeRequest) -> list[Value]:
    gpus = request.machine.gpus
    if gpus and all(gpu.generation >= AMPERE for gpu in gpus):
        return [Value("bf16", True)]
    if gpus:
        return [Value("fp16", True, _("{name} has no bfloat16", name=gpus[0].name))]
    values = []
    if request.machine.here and cpu_computes_bf16():
        values.append(Value("bf16", True))
    if not request.machine.here:
        values.append(Value("use_cpu", True))
    return values


def _steps_between_evaluations(counts: Measured, steps: int, epochs: float) -> int:
    """Steps between evaluations: ten of them, fewer if they would take over a quarter of the time.

    A forward pass is a third of the work on a training row.
    """
    forward_passes = 3 * counts.rows * epochs
    evaluations = int(EVALUATION_SHARE * forward_passes / max(1, counts.eval_rows))
    evaluations = min(EVALUATIONS, max(1, evaluations))
    return math.ceil(steps / evaluations)

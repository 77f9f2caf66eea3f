"""Rules on LLaMA-Factory's answer about a recipe: template, answers, cuts, layers.

Each rule reads the answer of recipes/llamafactory/inspection.py (codes: docs/recipes.md).
"""

from collections.abc import Iterator

from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, joined, marked, ngettext
from tuneyard.core.llamafactory.problem_codes import ALL_ROWS_CUT
from tuneyard.core.records.answers import MESSAGES, code_for
from tuneyard.recipes.llamafactory.answer import Facts, Rows
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.data import NamedDataset, dataset_dir, locate
from tuneyard.recipes.recipe.schedule import packs

UNSAVABLE_REWARD_MODEL = ProblemCode(
    "E315",
    _("a reward model that cannot be saved"),
    _("Write `finetuning_type: lora`, or take a model without tied embeddings."),
)
UNCONVERTED_PISSA = ProblemCode(
    "W315", _("a PiSSA adapter that is not converted"), _("Write `pissa_init: false`.")
)
ABOVE_POSITIONS = ProblemCode(
    "E333", _("`cutoff_len` exceeds the model's positions"), _("Lower `cutoff_len`.")
)
SOME_ROWS_CUT = ProblemCode(
    "W353", _("`cutoff_len` cuts some rows"), _("Raise `cutoff_len`, or accept the share in the message.")
)
EMPTY_THOUGHTS = ProblemCode(
    "W355",
    _("empty thoughts that are added, or thoughts that are removed"),
    _("Set `enable_thinking` as in the message."),
)
UNTRAINED_EMBEDDINGS = ProblemCode(
    "W356",
    _("new tokens whose embeddings are not trained"),
    _("Set `additional_target: embed_tokens,lm_head`, or `finetuning_type: full`."),
)
UNTRAINED_EXPERTS = ProblemCode(
    "W358",
    _("experts that `lora_target: all` does not train"),
    _("Name the layers to train, or write `finetuning_type: full`."),
)
RUNS_CODE = ProblemCode(
    "N363",
    _("a training that runs the model's own Python"),
    _("Read these files first, or leave `trust_remote_code` out."),
)
ONE_KIND_OF_ANSWERS = ProblemCode(
    "E424", _("KTO answers of one kind"), _("Add answers of the other kind, or train with `stage: sft`.")
)


FIRST_ROWS = 5
NEW_TOKENS = ("add_tokens", "add_special_tokens", "new_special_tokens_config")
CUTOFF_LEN = 2048
"""LLaMA-Factory's default of cutoff_len."""


def problems_of_answer(recipe: Recipe, answer: Facts, datasets: list[NamedDataset]) -> Iterator[Problem]:
    """Yield the problems of template, answers, cutoff_len, new tokens, experts and reward models."""
    yield from template_problems(recipe, answer)
    yield from answer_text_problems(recipe, answer, datasets)
    yield from mark_problems(recipe, answer)
    yield from thought_problems(recipe, answer)
    yield from cut_problems(recipe, answer)
    yield from position_problems(recipe, answer)
    yield from new_token_problems(recipe, answer)
    yield from expert_problems(recipe, answer)
    yield from reward_problems(recipe, answer)
    yield from code_problems(recipe, answer)


def template_problems(recipe: Recipe, answer: Facts) -> Iterator[Problem]:
    """Report the problems that core/llamafactory/prompt/template_match.py and history_findings.py found.

    With wrong tokens (an error) every later turn differs, which is said once.
    """
    findings = list(answer.template)
    if not any(finding.code.startswith("E") for finding in findings):
        for name in dict.fromkeys(recipe.names("dataset")):
            findings += answer.data.get(name, Rows()).template
    for finding in findings:
        yield recipe.problem(finding.code, "template", finding.message, finding.hint)


def answer_text_problems(recipe: Recipe, answer: Facts, datasets: list[NamedDataset]) -> Iterator[Problem]:
    """Yield empty answers, and pairs of equal ones: an error if every row of a dataset is affected."""
    for dataset in datasets:
        for warning, finding in answer.data.get(dataset.name, Rows()).answers.items():
            count = finding.count
            code = code_for(warning, count, finding.rows)
            numbers = [str(number) for number in finding.first[:FIRST_ROWS]]
            if count > FIRST_ROWS:
                numbers.append("…")
            message = ngettext(
                "{count} of {rows} rows (row {numbers}): {message}",
                "{count} of {rows} rows (rows {numbers}): {message}",
                count,
                count=count,
                rows=finding.rows,
                numbers=joined(numbers),
                message=MESSAGES[warning],
            )
            _entry, path = locate(dataset.name, dataset_dir(recipe), dataset.key)
            yield Problem(code, str(path), message, dataset.name)


def mark_problems(recipe: Recipe, answer: Facts) -> Iterator[Problem]:
    """Yield that all answers of a KTO training are marked alike, over all of its datasets."""
    marks = [answer.data.get(name, Rows()).marks for name in recipe.names("dataset")]
    if not all(marks):
        return
    desirable, undesirable = (sum(pair[kind] for pair in marks) for kind in (0, 1))
    if bool(desirable) != bool(undesirable):
        template = marked(
            "all {number} answers are marked as desirable: KTO has nothing to compare them with"
        )
        if undesirable:
            template = marked(
                "all {number} answers are marked as undesirable: KTO has nothing to compare them with"
            )
        message = _(template, number=desirable + undesirable)
        yield recipe.problem(
            ONE_KIND_OF_ANSWERS,
            "dataset",
            message,
            _("add answers of the other kind, or train with stage: sft"),
        )


def thought_problems(recipe: Recipe, answer: Facts) -> Iterator[Problem]:
    """Yield the answers to which a reasoning template adds an empty thought, or whose thought it removes.

    With `enable_thinking: null` answers with and without thoughts are trained as they are.
    """
    enables = recipe.settings.get("enable_thinking", True)
    for name in dict.fromkeys(recipe.names("dataset")):
        counts = answer.data.get(name, Rows()).thoughts
        if not counts or enables is None:
            continue
        thinking, silent = counts
        rows = thinking + silent
        if enables and silent:
            message = _(
                "{number} of {rows} answers of {name} have no thought: an empty one is trained before them",
                number=silent,
                rows=rows,
                name=name,
            )
            fix = "enable_thinking: null" if thinking else "enable_thinking: false"
            yield recipe.problem(
                EMPTY_THOUGHTS,
                "enable_thinking",
                message,
                _("{setting} leaves it out of the loss", setting=fix),
            )
        elif not enables and thinking:
            message = _(
                "false removes the thoughts from {number} of {rows} answers of {name} before training",
                number=thinking,
                rows=rows,
                name=name,
            )
            yield recipe.problem(
                EMPTY_THOUGHTS, "enable_thinking", message, _("enable_thinking: true trains them")
            )


def cut_problems(recipe: Recipe, answer: Facts) -> Iterator[Problem]:
    """Yield the datasets whose rows cutoff_len cuts: an error if it cuts every row."""
    is_running_text = recipe.stage == "pt" and packs(recipe)
    for name, about in answer.data.items():
        cut, rows, longest = about.tokens.cut, about.tokens.rows, about.tokens.longest
        if not cut or is_running_text:
            continue
        if cut >= rows:
            message = _(
                "cuts all {rows} rows of {name}; the longest has {longest} tokens",
                rows=rows,
                name=name,
                longest=longest,
            )
            yield recipe.problem(
                ALL_ROWS_CUT,
                "cutoff_len",
                message,
                _("cutoff_len: {longest} keeps them whole", longest=longest),
            )
        elif not packs(recipe):
            message = _(
                "cuts {cut} of {rows} rows of {name} ({share:.1%}); the longest has {longest} tokens",
                cut=cut,
                rows=rows,
                name=name,
                share=cut / rows,
                longest=longest,
            )
            yield recipe.problem(SOME_ROWS_CUT, "cutoff_len", message)


def position_problems(recipe: Recipe, answer: Facts) -> Iterator[Problem]:
    """Yield a cutoff_len above the model's positions, unless recipe or model scale them (RoPE).

    The default of cutoff_len counts only if rows are as long as that.
    """
    positions = answer.model.positions
    cutoff = recipe.number("cutoff_len", CUTOFF_LEN)
    if not positions or answer.model.scaled_positions or recipe.settings.get("rope_scaling"):
        return
    reaches = "cutoff_len" in recipe.settings or answer.train.longest > positions
    if cutoff > positions and reaches:
        message = _(
            "{cutoff:,} is above the {positions:,} positions of the model",
            cutoff=int(cutoff),
            positions=positions,
        )
        yield recipe.problem(ABOVE_POSITIONS, "cutoff_len", message, f"cutoff_len: {positions}")


def new_token_problems(recipe: Recipe, answer: Facts) -> Iterator[Problem]:
    """Yield that the embeddings of new tokens stay random."""
    keys = [key for key in NEW_TOKENS if recipe.settings.get(key)]
    if not keys or answer.model.rejected or answer.model.trains_embeddings:
        return
    message = _("adds tokens whose embeddings are not trained: they stay random")
    hint = _("additional_target: embed_tokens,lm_head with LoRA, or finetuning_type: full")
    yield recipe.problem(UNTRAINED_EMBEDDINGS, keys[0], message, hint)


def expert_problems(recipe: Recipe, answer: Facts) -> Iterator[Problem]:
    """Yield that `lora_target: all` leaves out the experts, which are no Linear layers in transformers."""
    model = answer.model
    if not model.experts or model.trains_experts or "all" not in recipe.names("lora_target"):
        return
    share = model.experts / model.shapes.parameters
    message = _(
        "`all` takes Linear layers, which the experts ({share:.0%} of the "
        "parameters) are not: they are not trained",
        share=share,
    )
    hint = _("finetuning_type: full trains them, LoRA in LLaMA-Factory cannot")
    yield recipe.problem(UNTRAINED_EXPERTS, "lora_target", message, hint)


def reward_problems(recipe: Recipe, answer: Facts) -> Iterator[Problem]:
    """Yield a reward model that LLaMA-Factory cannot save, and a PiSSA adapter that it does not convert.

    Its trainer saves the value head's wrapper, of which transformers and PEFT know neither tied weights nor
    adapters. DeepSpeed and FSDP save copies of the weights.
    """
    settings = recipe.settings
    if recipe.stage != "rm":
        return
    method = recipe.method
    if settings.get("pissa_init") is True and method == "lora":
        message = _("no PiSSA adapter of a reward model is converted: it fits a changed base only")
        yield recipe.problem(UNCONVERTED_PISSA, "pissa_init", message, "pissa_init: false")
    is_saved_as_copy = bool(settings.get("deepspeed") or settings.get("fsdp"))
    if method in ("full", "freeze") and answer.model.tied and not is_saved_as_copy:
        message = _(
            "LLaMA-Factory cannot save all weights of a reward model whose head is tied "
            "to its embeddings: training stops at the first checkpoint"
        )
        hint = _("finetuning_type: lora, or a model without tied embeddings")
        yield recipe.problem(UNSAVABLE_REWARD_MODEL, "finetuning_type", message, hint)


def code_problems(recipe: Recipe, answer: Facts) -> Iterator[Problem]:
    """Yield that the training runs Python files of the model, which a check does not."""
    key = "trust_remote_code"
    if answer.has_code and recipe.settings.get(key):
        model = recipe.settings.get("model_name_or_path")
        message = _("the training runs the Python files of {model}", model=model)
        yield recipe.problem(RUNS_CODE, key, message, _("read them first, or remove this setting"))

"""The template of a new recipe: one that writes the model's own prompt.

Runs in LLaMA-Factory's subprocess.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any

from tuneyard.core.llamafactory.loader import RecipeData
from tuneyard.core.llamafactory.prompt.template_match import (
    ChatFormat,
    TemplateFinding,
    reads_media,
    templates_like,
    with_matching_template,
)
from tuneyard.core.llamafactory.templates import all_templates, is_reasoning, usual_template

BASE_TEMPLATE = "default"
"""For a model without a chat template: plain text, `Human: … Assistant: …`."""
READS_NO_MEDIA = (
    "it reads text alone, and the rows have images, videos or audios, which models such as Qwen2.5-VL read"
)


@dataclass(frozen=True, slots=True)
class TemplateChoice:
    """A template, or the nearest one with its `findings` if none fits.

    - `name`: None if LLaMA-Factory reads the tokenizer's own chat template.
    - `enable_thinking`: for templates of reasoning models, otherwise None.
    - `is_base`: the model has no chat template to compare with.
    - `differs_with_tools`: it writes the model's own prompt, but another one for rows with tools.
    """

    name: str | None
    enable_thinking: bool | None = None
    is_base: bool = False
    differs_with_tools: bool = False
    findings: tuple[TemplateFinding, ...] = ()

    @property
    def settings(self) -> dict[str, object]:
        """The settings of a recipe with this template."""
        settings: dict[str, object] = {}
        if self.name is not None:
            settings["template"] = self.name
        if self.enable_thinking is not None:
            settings["enable_thinking"] = self.enable_thinking
        return settings


def matching_templates(
    arguments: RecipeData, *, has_tools: bool, has_media: bool, has_thoughts: bool
) -> Iterator[TemplateChoice]:
    """Yield the templates without a finding, the likeliest first. If there are none, the nearest one.

    If each writes another prompt with tools, those follow that write the model's own prompt without.

    LLaMA-Factory's own choice for the model comes first, then names like the model's type. Only models that
    read media have templates that do. Without thoughts in the answers a template of reasoning models writes
    the empty thought into the prompt, as the model's chat template does. `ValueError` if the model cannot
    read the media of the rows.
    """
    data = arguments.with_tokenizer()
    tokenizer = data.module["tokenizer"]
    model_reads_media = data.module["processor"] is not None
    if has_media and not model_reads_media:
        raise ValueError(READS_NO_MEDIA)
    chat = ChatFormat.of(tokenizer, has_tools)
    if not chat.is_instruct:
        choice = _tried(arguments, BASE_TEMPLATE, has_tools, has_thoughts)
        yield replace(choice, is_base=True)
        return
    names, nearly, nearest = templates_like(tokenizer, chat)
    named = likeliest_first(names, arguments.model_args)
    candidates: list[str | None] = [
        name for name in named if reads_media(all_templates()[name]) == model_reads_media
    ]
    if not has_media:
        candidates.append(None)
    for with_tools in [True, False] if has_tools else [False]:
        fits_any = False
        for name in candidates:
            choice = _tried(arguments, name, with_tools, has_thoughts)
            if not choice.findings:
                fits_any = True
                yield replace(choice, differs_with_tools=has_tools and not with_tools)
        if fits_any:
            return
    yield _tried(arguments, [*named, *nearly, nearest][0], False, has_thoughts)


def likeliest_first(names: Sequence[str], model_args: Any) -> list[str]:
    """Sort templates: LLaMA-Factory's choice for the model, then by likeness to the model's type."""
    from transformers import AutoConfig

    model = str(model_args.model_name_or_path)
    config = AutoConfig.from_pretrained(model, trust_remote_code=model_args.trust_remote_code)
    model_type = str(config.model_type)
    usual = usual_template(model)

    def unlikeness(name: str) -> tuple[bool, float]:
        return name != usual, -SequenceMatcher(None, name, model_type).ratio()

    return sorted(names, key=unlikeness)


def _tried(arguments: RecipeData, name: str | None, has_tools: bool, has_thoughts: bool) -> TemplateChoice:
    """A template with the findings that `recipe check` has on it."""
    enable_thinking = None
    data_args: Any = copy(arguments.data_args)
    data_args.template = name
    if name is not None and is_reasoning(all_templates().get(name)):
        enable_thinking = has_thoughts
        data_args.enable_thinking = has_thoughts
    _unused, findings = with_matching_template(replace(arguments, data_args=data_args), has_tools)
    return TemplateChoice(name, enable_thinking, findings=tuple(findings))

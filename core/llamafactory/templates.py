"""LLaMA-Factory's templates: all of them by name, which ones write thoughts, and its choice for a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamafactory.data.template import Template


def all_templates() -> "Mapping[str, Template]":
    """All templates by name."""
    from llamafactory.data.template import TEMPLATES

    templates: Mapping[str, Template] = TEMPLATES
    return templates


def is_reasoning(template: object) -> bool:
    """True for a template that writes thoughts, or an empty thought, before an answer."""
    from llamafactory.data.template import ReasoningTemplate

    return isinstance(template, ReasoningTemplate)


def usual_template(model: str) -> str:
    """The template that LLaMA-Factory takes for a model of this name, "" if it does not know the name."""
    from llamafactory.extras.constants import DEFAULT_TEMPLATE, SUPPORTED_MODELS

    name = Path(model).name
    for listed, addresses in SUPPORTED_MODELS.items():
        if any(Path(address).name == name for address in addresses.values()):
            return str(DEFAULT_TEMPLATE.get(listed, ""))
    return ""


def tool_formats() -> list[str]:
    """The names of the notations of tool calls."""
    from llamafactory.data.tool_utils import TOOLS

    return sorted(TOOLS)

"""Click's errors as messages of ours, each with the fix that Click does not know."""

import re
from collections.abc import Sequence
from pathlib import Path

import click
from click.exceptions import NoArgsIsHelpError, NoSuchOption

from tuneyard.core.language.message import Message, _, joined, marked, ngettext

_OTHER_TOOLS = {
    "--model-name-or-path": _("Here it is --model."),
    "-m": _("Here it is --model."),
    "--model-args": _("Here each is an option: --model DIR --dtype bf16."),
    "--adapter-name-or-path": _("Here it is --adapter."),
    "--peft": _("Here it is --adapter."),
    "--eval-dataset": _("Here it is --dataset."),
    "--tasks": _("Here it is --dataset."),
    "--num-fewshot": _("Here it is --shots."),
    "--batch-size": _("Here it is --batch-tokens, the tokens in a batch."),
    "--device": _("A GPU is used if there is one; CUDA_VISIBLE_DEVICES chooses it."),
    "--temperature": _("Answers are greedy; --preset document samples them."),
    "--gpu-memory-utilization": _("Add it to the command that --dry-run prints."),
    "--max-model-len": _("Add it to the command that --dry-run prints."),
    "ollama": _("For Ollama: tuneyard adapter export NAME --to ollama."),
    "bfloat16": _("Here it is bf16."),
    "float32": _("Here it is fp32."),
    "--weights": _("A weight follows its adapter: demo-rte=0.5."),
    "--output-dir": _("Here it is --out."),
    "--output-path": _("Here it is --out."),
    "--steps": _("A setting of a recipe has no dashes: max_steps=20."),
    "--gpus": _("Here it is --for 2xA100-80."),
    "--max-steps": _("A setting of a recipe has no dashes: max_steps=20."),
    "--learning-rate": _("A setting of a recipe has no dashes: learning_rate=1e-4."),
    "--dry-run": _("`data check`, `recipe check` and `recipe plan` only look."),
}
"""What to type in place of options and values that a command lacks: of LLaMA-Factory, lm-evaluation-harness
and vLLM, or of another command."""
_SENTENCES = (
    marked("'{value}' is not a valid integer."),
    marked("'{value}' is not a valid integer range."),
    marked("'{value}' is not a valid float."),
    marked("'{value}' is not a valid float range."),
    marked("{value} is not in the range {range}."),
    marked("'{value}' is not one of {choices}."),
    marked("File '{path}' does not exist."),
    marked("Directory '{path}' does not exist."),
    marked("Path '{path}' does not exist."),
    marked("File '{path}' is a directory."),
    marked("Directory '{path}' is a file."),
    marked("Option '{name}' requires an argument."),
    marked("Option '{name}' does not take a value."),
    marked("Got unexpected extra argument ({words})"),
    marked("Got unexpected extra arguments ({words})"),
    marked("Missing command."),
)
"""Sentences of Click, which raises them as finished texts."""
_MISSING_PATH = re.compile(r"(?:File|Directory|Path) '(.+)' (?:does not exist|is a file)\.$")  # of Click


def click_lines(error: click.ClickException, slips: Sequence[str]) -> list[str]:
    """The lines of an error: the usage, the message with its fix, and the `slips` or an example."""
    message = _message(error)
    further = list(slips)
    if not slips:
        hint = _hint(error)
        if hint:
            message = _("{message} {hint}", message=message, hint=hint)
        elif error.message.startswith("Got unexpected extra argument"):
            message = _(
                "{message}; see the usage above: quote a text with spaces, and give each further value its "
                "option again",
                message=message,
            )
        further = _further_lines(error)
    if isinstance(error, NoArgsIsHelpError):
        return [error.format_message(), *further]  # the help of the command
    return [*_usage(error), _("Error: {message}", message=message), *further]


def _usage(error: click.ClickException) -> list[str]:
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return []
    option = max(error.ctx.command.get_help_option_names(error.ctx), key=len)
    return [
        _("Usage: {usage}", usage=error.ctx.get_usage().removeprefix("Usage: ")),
        _("Try '{command}' for help.", command=f"{error.ctx.command_path} {option}"),
        "",
    ]


def _message(error: click.ClickException) -> str:
    """Click's sentence."""
    if isinstance(error, NoSuchOption):
        no_option = _("No such option {name!r}.", name=error.option_name)
        if not error.possibilities:
            return no_option
        names = joined(map(repr, sorted(error.possibilities)))
        near = ngettext(
            "Did you mean {names}?", "(Did you mean one of: {names}?)", len(error.possibilities), names=names
        )
        return _("{message} {hint}", message=no_option, hint=near)
    if isinstance(error, click.MissingParameter):
        return _missing(error)
    if isinstance(error, click.BadParameter):
        name, message = _name(error), _sentence(error.message)
        if not name:
            return _("Invalid value: {message}", message=message)
        return _("Invalid value for {name}: {message}", name=name, message=message)
    if isinstance(error, click.FileError):
        return error.format_message()
    return _sentence(error.message)


def _sentence(text: str) -> str:
    """A sentence of Click as a message with its values. Messages of ours and other texts stay."""
    if isinstance(text, Message):
        return text
    for template in _SENTENCES:
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.*)", re.escape(template))
        fields = re.fullmatch(pattern, text, re.DOTALL)
        if fields is not None:
            return _(template, **fields.groupdict())
    return text


def _missing(error: click.MissingParameter) -> str:
    name = _name(error)
    kind = error.param_type or (error.param.param_type_name if error.param else "")
    if not name or kind not in ("option", "argument"):
        return error.format_message()
    message = _("Missing argument {name}.", name=name)
    if kind == "option":
        message = _("Missing option {name}.", name=name)
    further = error.message
    if error.param is not None:
        choices = error.param.type.get_missing_message(param=error.param, ctx=error.ctx) or ""
        further = ". ".join(filter(None, [further, choices]))
    if further:
        return _("{message} {hint}", message=message, hint=further)
    return message


def _name(error: click.BadParameter) -> str:
    """The names of the option or argument, as `'-o' / '--out'`; "" if the error has none."""
    names = error.param_hint
    if names is None and error.param is not None:
        names = error.param.get_error_hint(error.ctx)
    if names is None:
        return ""
    if not isinstance(names, str):
        names = " / ".join(map(repr, names))
    quoted = re.fullmatch("'([^']*)'", names)
    if quoted is not None:  # Chinese has no quotes around a name
        return _("'{name}'", name=quoted[1])
    return names


def _hint(error: click.ClickException) -> str:
    """Where options belong, or the name of an option here; "" if neither helps."""
    if isinstance(error, NoSuchOption) and error.ctx and isinstance(error.ctx.command, click.Group):
        command = f"{error.ctx.command_path} COMMAND {error.option_name} …"
        return _("Options come after the command: {command}", command=command)
    if _MISSING_PATH.search(error.message):
        return ""
    return _OTHER_TOOLS.get("".join(error.message.split("'")[1:2]), "")


def _further_lines(error: click.ClickException) -> list[str]:
    """A near file for one that is missing, or an example of the command."""
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return []
    if isinstance(error, NoSuchOption) and isinstance(error.ctx.command, click.Group):
        return []
    missing_path = _MISSING_PATH.search(error.message)
    if missing_path:
        from tuneyard.core.files import near_name

        return [near_name(Path(missing_path[1]))]
    for line in getattr(error.ctx.command, "examples", ()):
        if f" {error.ctx.info_name} " in line:
            return [_("Example: {command}", command=line)]
    return []

"""`tuneyard --explain CODE`: what a problem code means, and what to do about it."""

import functools
import importlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import get_args

import click

import tuneyard
from tuneyard.core.errors import nearest
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _
from tuneyard.core.language.messages import say
from tuneyard.core.plugins import Group, load

PLUGINS = "9"
"""The first digit of the codes of plug-ins. Ours begin with others, also in later versions."""


@functools.cache
def problem_codes() -> Mapping[str, ProblemCode]:
    """Our entries by code. `ValueError` for a code with two entries.

    Modules with entries are found by their text, and all of them are imported.
    """
    return _by_code(map(importlib.import_module, _modules_with_entries()))


def _modules_with_entries() -> Iterator[str]:
    for package in sorted(Path(tuneyard.__path__[0]).iterdir()):
        for file in sorted(package.rglob("*.py")):
            if "= ProblemCode(" in file.read_text(encoding="utf-8"):
                parts = [package.name, *file.relative_to(package).with_suffix("").parts]
                yield ".".join(["tuneyard", *parts]).removesuffix(".__init__")


def codes_of_plugins() -> Mapping[str, ProblemCode]:
    """The entries of installed plug-ins by code. `PluginError` names one with a code of others."""
    entries: dict[str, ProblemCode] = {}
    for group in get_args(Group):
        for plugin in load(group).values():
            with plugin.guarded():
                entries_of_plugin = _by_code([importlib.import_module(plugin.module)])
                for code, entry in entries_of_plugin.items():
                    if problem_codes().get(code) is entry:
                        continue  # ours, which its module imports
                    if code[1] != PLUGINS:
                        message = _(
                            "found the problem code {code}, expected {severity}900 to {severity}999",
                            code=code,
                            severity=code[0],
                        )
                        raise ValueError(message)
                    if entries.setdefault(code, entry) is not entry:
                        raise ValueError(_("another plug-in has the problem code {code}", code=code))
    return entries


def _by_code(modules: Iterable[ModuleType]) -> dict[str, ProblemCode]:
    """The entries in modules, sorted by code. Modules that import an entry have the same one."""
    entries: dict[str, ProblemCode] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, ProblemCode) and entries.setdefault(value, value) is not value:
                raise ValueError(
                    _(
                        "the problem code {code} has two entries, one of them in {module}",
                        code=value,
                        module=module.__name__,
                    )
                )
    return dict(sorted(entries.items()))


def explain(ctx: click.Context, parameter: click.Parameter, code: str) -> None:
    """Print the entry of a code and end: the callback of the option."""
    code = code.upper()
    entry = problem_codes().get(code) or codes_of_plugins().get(code)
    if entry is None:
        suggestion = nearest(code, problem_codes(), _("docs/problems.md lists all codes."))
        message = _("{code} is no problem code; {suggestion}", code=code, suggestion=suggestion)
        raise click.BadParameter(message, ctx, parameter)
    say(_("{code}: {severity}: {meaning}", code=code, severity=entry.severity, meaning=entry.meaning))
    say(_("fix: {fix}", fix=entry.fix))
    if entry.details:
        say(entry.details)
    ctx.exit()

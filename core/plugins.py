"""Plug-ins by entry points: metrics, merge methods, readers of data and of results (docs/extending.md)."""

import contextlib
import functools
import importlib
import pkgutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import click

from tuneyard.core.errors import ContentError

Group = Literal["tuneyard.metrics", "tuneyard.merge_methods", "tuneyard.readers", "tuneyard.logs"]


class PluginError(ContentError):
    """A plug-in raised; the message names it, its package and what it raised."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """An entry point that could be imported: its name, what it names, and `distribution version`."""

    group: str
    name: str
    package: str
    value: Any

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Raise `PluginError` for whatever the plug-in's own code raises inside."""
        try:
            yield
        except (Exception, SystemExit) as error:  # the code of others may raise anything, sys.exit() included
            said = f"{type(error).__name__}: {error}".rstrip(": ")
            message = f"plug-in {self.name!r} of {self.package} ({self.group}) failed: {said}"
            raise PluginError(message) from error


@functools.cache
def load(group: Group, kind: type = object, decorator: str = "") -> dict[str, Plugin]:
    """Return a group's plug-ins by name; warned of and left out are the second of a name, one that fails, and
    one that is not of the `kind` that the decorator makes."""
    from importlib import metadata  # 30 ms that most commands do not need

    found: dict[str, Plugin] = {}
    for entry in sorted(metadata.entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
        plugin = Plugin(group, entry.name, package, None)
        try:
            with plugin.guarded():
                plugin = replace(plugin, value=entry.load())
        except PluginError as error:
            warn(f"{error}; it is left out")
            continue
        if not isinstance(plugin.value, kind):
            warn(f"plug-in {plugin.name!r} of {package} ({group}): no function with @{decorator}")
            continue
        first = found.setdefault(plugin.name, plugin)
        if first is not plugin:
            warn(f"{group}: {plugin.name!r} is in {first.package}, which is taken, and in {package}")
    return found


def own(package: str, kind: type) -> list[Any]:
    """Return what of a kind (metric, method or reader) the files of one of our packages hold."""
    files = pkgutil.iter_modules(importlib.import_module(package).__path__)
    modules = [importlib.import_module(f"{package}.{file.name}") for file in files]
    return [each for module in modules for each in vars(module).values() if isinstance(each, kind)]


def registry(
    group: Group, package: str, kind: type, what: str, taken: Collection[str] = ()
) -> dict[str, Any]:
    """Return all of a kind by its `name`, ours and the plug-ins', which have their `plugin` set.

    A plug-in of a name that is there or `taken` is left out with a warning; `what` ends in the decorator.
    """
    found = {each.name: each for each in own(package, kind)}
    for plugin in load(group, kind, what.split()[-1]).values():
        if plugin.value.name in found or plugin.value.name in taken:
            warn(f"{what} {plugin.value.name!r} of {plugin.package}: the name is taken")
        else:
            found[plugin.value.name] = replace(plugin.value, plugin=plugin)
    return found


def warn(text: str) -> None:
    """Print a warning to stderr."""
    click.echo(f"warning: {text}", err=True)

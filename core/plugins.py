"""What other packages add by entry points: metrics, merge methods and readers (docs/extending.md)."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import click

from core.errors import ContentError

Group = Literal["tuneyard.metrics", "tuneyard.merge_methods", "tuneyard.readers"]


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
def load(group: Group) -> dict[str, Plugin]:
    """Return a group's plug-ins by name; one that fails and the second of a name are left out, warned of."""
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
        first = found.setdefault(plugin.name, plugin)
        if first is not plugin:
            warn(f"{group}: {plugin.name!r} is in {first.package}, which is taken, and in {package}")
    return found


def warn(text: str) -> None:
    """Print a warning to stderr."""
    click.echo(f"warning: {text}", err=True)

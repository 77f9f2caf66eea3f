"""What other packages add by entry points: metrics, merge methods and readers (docs/extending.md).

What such a package raises is said with its name and version, and takes no other plug-in with it.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
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
        with _guarded(self.group, self.name, self.package):
            yield


@functools.cache
def load(group: Group) -> dict[str, Plugin]:
    """Return the plug-ins of an entry point group by name, in the order of names.

    One that cannot be imported, and a second one of a name, is left out with a warning on stderr.
    """
    from importlib import metadata  # 30 ms that most commands do not need

    found: dict[str, Plugin] = {}
    for entry in sorted(metadata.entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
        try:
            with _guarded(group, entry.name, package):
                plugin = Plugin(group, entry.name, package, entry.load())
        except PluginError as error:
            warn(f"{error}; it is left out")
            continue
        if first := found.get(plugin.name):
            warn(f"{group}: {plugin.name!r} is in {first.package}, which is taken, and in {package}")
        else:
            found[plugin.name] = plugin
    return found


def warn(text: str) -> None:
    """Print a warning to stderr."""
    click.echo(f"warning: {text}", err=True)


@contextlib.contextmanager
def _guarded(group: str, name: str, package: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:  # the code of others may raise anything, sys.exit() included
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        raise PluginError(f"plug-in {name!r} of {package} ({group}) failed: {said}") from error

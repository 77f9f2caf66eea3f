"""Plug-ins by entry points: metrics, merge methods, readers, logs, scoring commands (docs/extending.md)."""

import contextlib
import functools
import importlib
import pkgutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from tuneyard.core.errors import ContentError
from tuneyard.core.warn import warn

Group = Literal[
    "tuneyard.metrics",
    "tuneyard.merge_methods",
    "tuneyard.readers",
    "tuneyard.logs",
    "tuneyard.scoring_commands",
]


class PluginError(ContentError):
    """A plug-in raised an error. The message names plug-in, package and error."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """An imported entry point. `package` is its distribution with the version."""

    group: str
    name: str
    package: str
    value: Any

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn every error of the plug-in's code inside the block into a `PluginError`."""
        try:
            yield
        except (Exception, SystemExit) as error:  # the code of others may raise anything, sys.exit() included
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            message = f"plug-in {self.name!r} of {self.package} ({self.group}) failed: {reason}"
            raise PluginError(message) from error


@functools.cache
def load(group: Group, kind: type = object, decorator: str = "") -> dict[str, Plugin]:
    """Load a group's plug-ins by name.

    A warning names each plug-in that is left out: a second one of the same name, one that fails, and one that
    is not of the `kind` that the decorator makes.
    """
    from importlib import metadata  # 30 ms that most commands do not need

    plugins: dict[str, Plugin] = {}
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
        first = plugins.setdefault(plugin.name, plugin)
        if first is not plugin:
            warn(f"{group}: {plugin.name!r} is in {first.package}, which is taken, and in {package}")
    return plugins


def bundled_with(package: str, kind: type) -> list[Any]:
    """Objects of a kind (metric, merge method or reader) in the modules of one of our packages."""
    bundled = []
    for file in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{file.name}")
        bundled += [value for value in vars(module).values() if isinstance(value, kind)]
    return bundled


def registry(
    group: Group, package: str, kind: type, description: str, taken: Collection[str] = ()
) -> dict[str, Any]:
    """Collect all objects of a kind by name: ours, and the plug-ins' with `plugin` set.

    A plug-in whose name is in use or `taken` is left out with a warning.
    `description` names the kind in it, and ends with the decorator.
    """
    registered = {item.name: item for item in bundled_with(package, kind)}
    for plugin in load(group, kind, description.split()[-1]).values():
        if plugin.value.name in registered or plugin.value.name in taken:
            warn(f"{description} {plugin.value.name!r} of {plugin.package}: the name is taken")
        else:
            registered[plugin.value.name] = replace(plugin.value, plugin=plugin)
    return registered

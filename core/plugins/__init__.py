"""Plug-ins by entry points (docs/extending.md)."""

import contextlib
import functools
import importlib
import pkgutil
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from tuneyard.core.errors import ContentError
from tuneyard.core.files import JsonObject, files_sha256
from tuneyard.core.language.message import _

T = TypeVar("T")
Group = Literal[
    "tuneyard.metrics",
    "tuneyard.merge_methods",
    "tuneyard.readers",
    "tuneyard.forms",
    "tuneyard.columns",
    "tuneyard.lints",
    "tuneyard.logs",
    "tuneyard.scoring_commands",
]


class PluginError(ContentError):
    """A plug-in raised an error. The message names plug-in, package and error."""


class Plugin(NamedTuple):
    """An imported entry point. `package` is its distribution with the version, `module` has its code."""

    group: str
    name: str
    package: str
    value: Any
    module: str = ""

    def identity(self) -> dict[str, str]:
        """Name, package with version, and hash of the code: its module, or all modules of its package."""
        top = sys.modules[self.module.partition(".")[0]]
        files = {Path(sys.modules[self.module].__file__ or "")}
        if top.__file__ and hasattr(top, "__path__"):
            files.update(Path(top.__file__).parent.rglob("*.py"))
        code = files_sha256(sorted(filter(Path.is_file, files)))
        return {"name": self.name, "package": self.package, "sha256": code}

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn every error of the plug-in's code inside the block into a `PluginError`."""
        try:
            yield
        except PluginError:  # of a plug-in inside the block
            raise
        except (Exception, SystemExit) as error:  # the code of others may raise anything, sys.exit() included
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            raise PluginError(
                _(
                    "plug-in {name!r} of {package} ({group}) failed: {reason}",
                    name=self.name,
                    package=self.package,
                    group=self.group,
                    reason=reason,
                )
            ) from error


def guarded(plugin: Plugin | None) -> contextlib.AbstractContextManager[None]:
    """The guard of a plug-in's code; for our own code (None) there is none."""
    if plugin is None:
        return contextlib.nullcontext()
    return plugin.guarded()


def call(
    plugin: Plugin | None, refusal: type[Exception], function: Callable[..., T], /, *arguments: object
) -> T:
    """Call a function, which may raise a `refusal`. Other errors of a plug-in become a `PluginError`."""
    if plugin is None:
        return function(*arguments)
    with plugin.guarded():
        try:
            return function(*arguments)
        except refusal as error:
            reason = error
    raise reason


@functools.cache
def load(group: Group, kind: type = object, expected: str = "") -> dict[str, Plugin]:
    """Load a group's plug-ins by name. `PluginError` names a package whose plug-in cannot be loaded.

    `expected` says what a `kind` is: `function with @reader`.
    """
    from importlib import metadata  # 30 ms that most commands do not need

    plugins: dict[str, Plugin] = {}
    for entry in metadata.entry_points(group=group):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else _("an unknown package")
        plugin = Plugin(group, entry.name, package, None, entry.module)
        with plugin.guarded():
            plugin = plugin._replace(value=entry.load())
            if not isinstance(plugin.value, kind):
                raise TypeError(_("no {expected}", expected=expected))
            if entry.name in plugins:
                raise ValueError(_("{package} has one of this name", package=plugins[entry.name].package))
        plugins[entry.name] = plugin
    return plugins


def bundled_with(package: str, kind: type) -> list[Any]:
    """Objects of a kind (metric, merge method or reader) in the modules of one of our packages."""
    bundled = []
    for file in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{file.name}")
        bundled += [value for value in vars(module).values() if isinstance(value, kind)]
    return bundled


def registry(
    group: Group, package: str, kind: type, expected: str, taken: Collection[str] = ()
) -> JsonObject:
    """Collect all objects of a kind by name: ours, and the plug-ins' with `plugin` set.

    `PluginError` for a plug-in whose name is one of ours or `taken`. `expected` says what the objects are.
    """
    registered = {item.name: item for item in bundled_with(package, kind)}
    for plugin in load(group, kind, expected).values():
        with plugin.guarded():
            if plugin.value.name in registered or plugin.value.name in taken:
                raise ValueError(_("the name {name!r} is taken", name=plugin.value.name))
        registered[plugin.value.name] = replace(plugin.value, plugin=plugin)
    return registered

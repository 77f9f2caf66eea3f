"""The code that decides the bytes of a compile: Tuneyard's, that of libraries, and the plug-ins that read.

A manifest records it. A compile is up to date, and `data list` calls it so, while none of it has changed.
"""

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache

from tuneyard.compiler.lint import lints
from tuneyard.compiler.read import plugins_for
from tuneyard.compiler.spec.column_types import bundled_types, column_types
from tuneyard.compiler.spec.export_forms import bundled_forms, export_forms
from tuneyard.core.files import JsonObject, files_sha256, versions
from tuneyard.core.installation.checkout import ROOT, release
from tuneyard.core.language.message import Message, _
from tuneyard.core.plugins import Plugin

PACKAGES = ("jsonschema-rs", "lxml", "openpyxl", "orjson", "pyarrow", "xxhash")
VERSION, CODE, LIBRARIES, PLUGINS = "version", "compiler", "versions", "plugins"


@cache
def own_hash() -> str:
    """One hash over the source code of compiler and core: other code makes datasets stale.

    In a checkout the version stays while code changes. Takes 30 ms, once in a process.
    """
    files = []
    for package in ("compiler", "core"):
        folder = ROOT / package
        files += [*folder.rglob("*.py"), *folder.glob("schemas/*.json")]
    return files_sha256(sorted(files))


def deciding_code(paths: Iterable[str], forms: Collection[str], types: Collection[str]) -> JsonObject:
    """The code that decides what a compile writes of these source files, for the identity in a manifest.

    `forms` are the forms of exports, and `types` the column types, that the spec names. All installed lints
    count: they decide the warnings in the manifest.
    """
    plugins = [*plugins_for(paths), *_plugins_of_forms(forms), *_plugins_of_types(types)]
    plugins += [lint.plugin for lint in lints() if lint.plugin is not None]
    return {
        VERSION: release(),
        CODE: own_hash(),
        LIBRARIES: {"python": sys.version.split()[0], **versions(*PACKAGES)},
        PLUGINS: [plugin.identity() for plugin in plugins],
    }


def _plugins_of_forms(names: Collection[str]) -> list[Plugin]:
    plugins = []
    for name in sorted(set(names) - bundled_forms().keys()):
        form = export_forms().get(name)
        if form is not None and form.plugin is not None:
            plugins.append(form.plugin)
    return plugins


def _plugins_of_types(names: Collection[str]) -> list[Plugin]:
    plugins = []
    for name in sorted(set(names) - bundled_types().keys()):
        plugin = column_types()[name].plugin
        if plugin is not None:
            plugins.append(plugin)
    return plugins


PLUGIN_CHANGED = _("a plug-in that reads or checks its files has changed")


def code_changes(before: Mapping[str, object], now: Mapping[str, object]) -> Iterator[Message]:
    """Yield what differs between the code in two identities."""
    yield from _changes_of_own_code(before, now)
    if before.get(PLUGINS) != now.get(PLUGINS):
        yield PLUGIN_CHANGED


def changed_code(made_from: Mapping[str, object], paths: Iterable[str]) -> str:
    """The first code that has changed since a compile, "" if none has."""
    now = deciding_code(paths, (), ())
    for change in _changes_of_own_code(made_from, now):
        return change
    if not _are_current(made_from.get(PLUGINS), now[PLUGINS]):
        return PLUGIN_CHANGED
    return ""


def _changes_of_own_code(before: Mapping[str, object], now: Mapping[str, object]) -> Iterator[Message]:
    """Yield if the compiler differs, then each library of another version."""
    if (before.get(VERSION), before.get(CODE)) != (now.get(VERSION), now.get(CODE)):
        yield _("the compiler has changed")
    recorded, installed = before.get(LIBRARIES), now.get(LIBRARIES)
    for name in ("python", *PACKAGES):
        recorded_version = recorded.get(name) if isinstance(recorded, Mapping) else None
        installed_version = installed.get(name) if isinstance(installed, Mapping) else None
        if recorded_version != installed_version:
            yield _(
                "another version of {name}: {before}, now {now}",
                name=name,
                before=recorded_version or "none",
                now=installed_version or "none",
            )


def _are_current(recorded: object, of_readers: list[JsonObject]) -> bool:
    """True if the plug-ins of a manifest are unchanged. `of_readers` read or check its files now."""
    if not isinstance(recorded, list) or any(identity not in recorded for identity in of_readers):
        return False
    others = [identity for identity in recorded if identity not in of_readers]
    if not others:
        return True
    plugins = [form.plugin for form in export_forms().values()]
    plugins += [column_type.plugin for column_type in column_types().values()]
    installed = [plugin.identity() for plugin in plugins if plugin is not None]
    return all(identity in installed for identity in others)

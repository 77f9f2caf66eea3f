"""How far a compiled dataset is: new, stale with the change, unfinished (not registered) or current."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tuneyard.compiler.engine.identity import code_changes
from tuneyard.compiler.engine.request import Identity
from tuneyard.compiler.publish.registry import Registry, with_compiled
from tuneyard.compiler.read.dataset_reader import single_records
from tuneyard.compiler.spec.model import REJECTED
from tuneyard.core.datasets.compiled import CompiledSource, Manifest, sources_of
from tuneyard.core.execution.state import CURRENT, NEW, UNFINISHED, FileInput, Input, State, compare_inputs
from tuneyard.core.files import Fields, is_file, json_text, sha256, strings, text_sha256
from tuneyard.core.language.message import Message, PathText, _
from tuneyard.core.records import PLACEHOLDERS


def files_state(registry: Registry, name: str, made_from: Identity) -> State:
    """Whether a compile with this identity would write the files that are in the folder `name`.

    A dataset is current only if its whole identity is that of its manifest. The changes name the differences
    that a user knows.
    """
    manifest = registry.manifests.get(name)
    if manifest is None or not manifest.files:
        return NEW
    changes: list[Message] = []
    if manifest.made_from != made_from:
        changes += _changed_identity(manifest.made_from, made_from)
    changes += _changed_files(manifest, registry.folder / name)
    if not changes:
        changes += _missing_media(manifest, registry.folder / name)
    if changes:
        return State("stale", tuple(changes))
    return CURRENT


def registered_state(registry: Registry, name: str, made_from: Identity) -> State:
    """The same with the entries of the registry.

    A dataset is unfinished if dataset_info.json lacks them, or has other keys than its compile wrote.
    """
    state = files_state(registry, name, made_from)
    if state == CURRENT and with_compiled(registry.entries, registry.manifests, name) != registry.entries:
        return UNFINISHED
    return state


def _changed_identity(before: Identity, now: Identity) -> list[Message]:
    """What differs between two identities that are not equal. The list is not empty."""
    name = str(now.get("spec"))
    changes = [
        *compare_inputs(_spec_and_options(before, name), _spec_and_options(now, name)).changes,
        *_changed_sources(sources_of(before), sources_of(now)),
        *code_changes(before, now),
    ]
    if not changes:
        changes.append(_("the manifest is of another version"))
    return changes


def _spec_and_options(made_from: Identity, name: str) -> dict[str, Input]:
    """The spec and the options of a compile. The spec is called `name`, also if its file was another one."""
    inputs: dict[str, Input] = {
        _("the spec"): str(made_from.get("spec")),
        PathText(name): FileInput(sha256=text_sha256(json_text(made_from.get("definition")))),
        "--seed": _value(made_from.get("seed")),
        "--on-error": _value(made_from.get("on_error")),
    }
    over = made_from.get("over")
    if not isinstance(over, Mapping):
        over = {}
    options = {
        "--limit": made_from.get("limit"),
        "--sample": over.get("sample"),
        "--table": over.get("source"),
        "--split": over.get("split"),
        "--column": over.get("columns"),
    }
    for option, value in options.items():
        if value is not None:
            inputs[option] = _value(value)
    return inputs


def _value(value: object) -> Input:
    """A value of JSON as it is compared and printed."""
    if value is None or isinstance(value, str | int | float):
        return value
    return json_text(value).strip()


def _changed_sources(before: Sequence[CompiledSource], now: Sequence[CompiledSource]) -> Iterator[Message]:
    """Yield the files that are new, gone, or changed, then those of another split, then another order."""
    recorded, present = _contents(before), _contents(now)
    yield from compare_inputs(recorded, present).changes
    splits_before, splits_now = _splits(before), _splits(now)
    common_paths = [path for path in splits_now if path in splits_before]
    yield from compare_inputs(
        {path: splits_before[path] for path in common_paths},
        {path: splits_now[path] for path in common_paths},
    ).changes
    if before != now and recorded == present and splits_before == splits_now:
        yield _("the sources have another order")


def _contents(sources: Sequence[CompiledSource]) -> dict[str, Input]:
    """The content of each file: the hash of a local one, the version of a remote one."""
    return {PathText(source.path): FileInput(sha256=source.sha256 or source.version) for source in sources}


def _splits(sources: Sequence[CompiledSource]) -> dict[str, Input]:
    """The splits of each file, with the members or sheets that have their rows."""
    splits: dict[str, str] = {}
    for source in sources:
        split = f"{source.split} ({source.names})" if source.names else source.split
        path = PathText(source.path)
        splits[path] = f"{splits[path]}, {split}" if path in splits else split
    return dict(splits)


def _missing_media(manifest: Manifest, folder: Path) -> Iterator[Message]:
    """Yield the first medium of each dataset that is gone: a compile would refuse its row."""
    for dataset, entry in manifest.entries.items():
        columns = strings(entry.get("columns"))
        keys = [columns[name] for name in PLACEHOLDERS if name in columns]
        if not keys:
            continue
        for _location, record in single_records(folder / manifest.file_of(dataset), dataset):
            path = _missing_medium(record, keys, manifest.media_folders)
            if path is not None:
                yield _("{path} is missing", path=path)
                break


def _missing_medium(record: Fields, keys: Sequence[str], folders: Sequence[Path]) -> Path | None:
    """The first medium of a record that is in none of the folders, None if all are there."""
    for key in keys:
        paths = record.get(key)
        for path in paths if isinstance(paths, list) else []:
            if not any(is_file(folder / str(path)) for folder in folders):
                return next(iter(folders), Path()) / str(path)
    return None


def _changed_files(manifest: Manifest, folder: Path) -> Iterator[Message]:
    """Yield the files of a dataset that are missing, or not as its compile left them."""
    for file_name, file in manifest.files.items():
        path = folder / file_name
        if not path.is_file():
            yield _("{path} is missing", path=path)
        elif sha256(path) != file.sha256:
            yield _("{path} has changed since its compile", path=path)
    if manifest.counts.get("rejected") and not (folder / REJECTED).is_file():
        yield _("{path} is missing", path=folder / REJECTED)

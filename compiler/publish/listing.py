"""The list of all datasets of a registry: compiled ones with their state, then others."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from tuneyard.compiler.engine.identity import changed_code
from tuneyard.compiler.publish.drift import since_compiled
from tuneyard.compiler.publish.registry import Registry, compiled_entries
from tuneyard.compiler.read.inputs import files_with_rows
from tuneyard.compiler.read.remote import find_remote
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.datasets import REGISTRY, REMOTE_SOURCES, Dataset, wrong_folder
from tuneyard.core.datasets.compiled import MANIFEST, Manifest
from tuneyard.core.datasets.kept import KeptDataset, kept_datasets
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import sha256
from tuneyard.core.language.message import SEMICOLON, Message, _, joined, translated_template
from tuneyard.core.language.number_format import size_words
from tuneyard.core.text.quoting import shell


def listing(registry: Registry) -> Message:
    """All that there is: datasets, earlier compiles that are kept, and specs."""
    specs = list(map(load_spec, known_specs()))
    width = max(len(spec.name) for spec in specs)
    datasets = list(dataset_lines(registry)) or [wrong_folder(registry.folder) or _("none")]
    kept = list(kept_lines(registry))
    lines: list[str] = [_("datasets in {folder}", folder=registry.folder)]
    lines += [_("  {line}", line=line) for line in datasets]
    if kept:
        lines.append(_("kept for `tuneyard data restore`"))
        lines += [_("  {line}", line=line) for line in kept]
    lines.append(_("specs"))
    lines += [f"  {spec.name:{width}}  {translated_template(spec.about)}" for spec in specs]
    return joined(lines, "\n")


def dataset_lines(registry: Registry) -> Iterator[str]:
    """Yield a line for each dataset: compiled ones with rows, spec, time, stale or changed; then others.

    Sources and compiled files are hashed, with a bar on stderr if that takes over two seconds.
    """
    others = dict(registry.entries)
    for name, manifest in tqdm(registry.manifests.items(), "hashing", delay=2, leave=False):
        made_at = (registry.folder / name / MANIFEST).stat().st_mtime
        made = datetime.fromtimestamp(made_at).strftime("%Y-%m-%d %H:%M")
        stale: str = _("a copied folder, not registered")
        if Path(manifest.spec).stem == name:
            stale = _stale(manifest)
        for dataset, rows in manifest.records.items():
            parts = [dataset, _("{count} rows", count=rows), name, made]
            if stale:
                parts.append(_("stale: {reason}", reason=stale))
            elif dataset in manifest.entries and dataset not in registry.entries:  # a killed compile
                parts.append(_("stale: {registry} lacks its entry", registry=REGISTRY))
            changes = _changes(registry, dataset, name)
            if changes:
                parts.append(_("changed: {changes}", changes=joined(changes, SEMICOLON)))
            yield joined(parts, "  ")
            others.pop(dataset, None)
    for dataset, entry in others.items():
        sources = [str(entry[key]) for key in ("file_name", *REMOTE_SOURCES) if entry.get(key)]
        where = next(iter(sources), _("no file"))
        yield _("{dataset}  {state}  not compiled here", dataset=dataset, state=where)


def kept_lines(registry: Registry) -> Iterator[str]:
    """Yield a line for each earlier compile that is kept: its reference, datasets and size."""
    for each in kept_datasets(registry.folder):
        parts = [each.reference, ", ".join(each.entries), size_words(each.size)]
        yield joined(parts, "  ")


def removed(name: str, kept: KeptDataset | None) -> Message:
    """What `data remove` has done: the datasets that are gone, and how they come back."""
    if kept is None:
        return _("removed {name}", name=name)
    return _(
        "removed {name}: {names}; kept ({size}): `tuneyard data restore {reference}` brings it back, and "
        "`tuneyard data remove {name} --now` frees the space",
        name=shell(name),
        names=", ".join(kept.entries) or name,
        size=size_words(kept.size),
        reference=shell(kept.reference),
    )


def registered_files(registry: Registry) -> Iterator[str]:
    """Yield registered datasets whose file is here, compiled ones first: `data verify` reads them."""
    names = [dataset for manifest in registry.manifests.values() for dataset in manifest.records]
    for name in dict.fromkeys([*names, *registry.entries]):
        file_name = registry.entries.get(name, {}).get("file_name")
        if isinstance(file_name, str) and (registry.folder / file_name).is_file():
            yield name


def _changes(registry: Registry, dataset: str, name: str) -> list[str]:
    """How the file and the entry of a compiled dataset differ from its manifest in folder `name`."""
    manifest = registry.manifests[name]
    compiled = compiled_entries(name, manifest).get(dataset, {})
    path = registry.folder / str(compiled.get("file_name", f"{name}/{dataset}"))
    entry = registry.entries.get(dataset, compiled)
    problems = since_compiled(Dataset(dataset, path, entry), registry.folder, {name: manifest})
    changes = []
    for problem in problems or ():
        change = problem.message
        if problem.field:
            change = _("{field}: {change}", field=problem.field, change=change)
        changes.append(change)
    return changes


def _stale(manifest: Manifest) -> str:
    """The reason why a compile would make another dataset now, or why that is unknown; "" if it would not."""
    for source in manifest.sources:
        path = Path(source.path)
        is_same = True
        if source.is_local:
            if not path.is_file():
                return _("source {path} is gone", path=path)
            is_same = sha256(*files_with_rows(path)) == source.sha256
        elif source.version:
            try:
                is_same = source.version == getattr(find_remote(source.path), "version", "")
            except RequestError as error:
                return _("unknown: {error}", error=error)
        if not is_same:
            return _("source {path} has changed", path=source.path)
    try:
        code = changed_code(manifest.made_from, [source.path for source in manifest.sources])
    except ContentError as error:  # a plug-in cannot be loaded
        return _("unknown: {error}", error=error)
    if code:
        return code
    try:
        changed = load_spec(manifest.spec).raw != manifest.definition
    except (ContentError, RequestError):  # it is gone
        return ""
    return _("the spec has changed") if changed else ""

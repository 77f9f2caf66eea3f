"""The YAML file of a spec: finding and reading it, `like`, the JSON Schema, and the source of rows."""

import json
import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from tuneyard.compiler.rows import without
from tuneyard.compiler.spec.column_types import Column, Names, bundled_types, column_types
from tuneyard.compiler.spec.export_forms import bundled_forms, export_forms
from tuneyard.compiler.spec.normal_form import normal_form
from tuneyard.compiler.spec.paths import with_paths_from
from tuneyard.core.datasets import REGISTRY, TRAIN_SPLIT
from tuneyard.core.documents import read_yaml
from tuneyard.core.documents.schema_errors import check_file
from tuneyard.core.errors import ContentError, RequestError, nearest, show_value, wrong_value
from tuneyard.core.files import JsonObject, require
from tuneyard.core.language.message import _

PACKAGE = Path(__file__).parents[1]
SPECS = PACKAGE / "specs"
SCHEMA = PACKAGE / "schemas/spec.json"
_NAME = re.compile(r"\w[\w .+-]*")
Raw = JsonObject
BySplit = Mapping[str, tuple[str, ...]]
"""Texts by split, or by source of a mixture."""
NO_SPLITS: BySplit = {}
T = TypeVar("T")


class Source(NamedTuple):
    """Where rows come from without --source, and how their files are written.

    `held_out` are splits that a source may have: a file that is named like one goes there, and any other to
    train. `columns` are those of the spec, by which a row is recognised.
    """

    files: BySplit = NO_SPLITS
    hub: Mapping[str, Any] = {}
    splits: BySplit = NO_SPLITS
    held_out: Names = ()
    rows: BySplit = NO_SPLITS
    encoding: str = "utf-8"
    delimiter: str | None = None
    header: Names = ()
    quoted: bool | None = None
    table: str = ""
    answers_by_question: bool = False
    media_dir: str = ""
    form: Names = ()
    verdict: Mapping[str, Any] = {}
    turns: Mapping[str, str] = {}
    columns: tuple[Column, ...] = ()

    def steps(self, split: str) -> Names:
        """The keys that lead to the rows of a split in a JSON document, () without any."""
        return self.rows.get(split, self.rows.get("", ()))


def read_spec(path: Path, over: Raw | None = None, folder: Path | None = None) -> Raw:
    """Read a spec file, changed by `over` as `like` would. `ContentError` names wrong keys.

    Its paths are relative to `folder`, by default that of the file, and come out relative to the current one.
    """
    import jsonschema_rs

    raw = _merged(path, (), path.parent if folder is None else folder)
    if over:
        raw = changed_by(over, raw)
    schema = read_schema()
    if "model_name_or_path" in raw:
        raise ContentError(
            _(
                "{path}: a training recipe, not a spec: tuneyard recipe check {file}",
                path=path,
                file=shlex.quote(str(path)),
            )
        )
    if not jsonschema_rs.validator_for(schema).is_valid(raw):
        schema = read_schema(with_plugins=True)
    if not jsonschema_rs.validator_for(schema).is_valid(raw):
        check_file(path, schema, raw, _("the spec"), exact=False)
        check_file(path, schema, raw, _("the spec"))  # jsonschema takes .nan for a number
        # It also lets a line break at the end of a name pass (Python's `$`).
        raise ContentError(_("{path}: the spec: found a name with a line break at its end", path=path))
    normalised: Raw = normal_form(schema, raw, schema)
    return normalised


def known_specs() -> list[str]:
    """The names of the bundled specs."""
    return sorted(path.stem for path in SPECS.glob("*.yaml"))


def where_to_write(name: str) -> str:
    """Where a user adds a key to a spec: in a spec `like` a bundled one, or in his own spec."""
    if name in known_specs():
        return _("in a spec (`like: {name}`)", name=name)
    return _("in the spec {name}", name=name)


SEE = _(
    "`tuneyard data list` shows them; `tuneyard data init FILE` proposes one for "
    "a file, `tuneyard data compile SPEC --source hub:OWNER/NAME` compiles a "
    "dataset of the hub, `tuneyard data verify NAME` checks a registered dataset"
)


def find_spec(name: str) -> Path:
    """The file of a spec, by its name or its path. The dataset's folder has the name of the file."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        require(path, "spec")
        if not _NAME.fullmatch(path.stem) or path.stem == REGISTRY:
            rule = _(
                "letters, digits, blanks and _ . + -, none of the last three first, and not {name}",
                name=REGISTRY,
            )
            raise RequestError(
                _(
                    "{name} cannot be the name of a dataset: rename the spec; expected {rule}",
                    name=show_value(path.stem),
                    rule=rule,
                )
            )
        return path
    bundled = SPECS / f"{name}.yaml"
    if _NAME.fullmatch(name) and bundled.is_file():
        return bundled
    if name and Path(name).exists():
        file = shlex.quote(name)
        raise RequestError(
            _(
                "{name} is not a spec, expected FILE.yaml; for data `tuneyard data init "
                "{file}` proposes one, and `tuneyard data compile SPEC --source {file}` "
                "compiles it with a spec that reads it",
                name=name,
                file=file,
            )
        )
    hint = nearest(name, [*known_specs(), *map(str, Path(name).parent.glob("*.yaml"))], SEE)
    raise RequestError(
        _(
            "unknown spec {name!r} (known: {known_specs}); {hint}",
            name=name,
            known_specs=", ".join(known_specs()),
            hint=hint,
        )
    )


def place_of(key: str, name: str) -> str:
    """The line of an outermost key in the file of a spec, 1 if the key comes from another one."""
    path = find_spec(name)
    return f"{path}:{read_yaml(path, 'spec').lines.get(key, 1)}"


@cache
def read_schema(*, with_plugins: bool = False) -> Raw:
    """The JSON Schema of specs, with the column types and the forms of exports that are there.

    Those of plug-ins are in it `with_plugins`: looking for them takes 30 ms.
    """
    schema: Raw = json.loads(SCHEMA.read_bytes())
    _unused, mapping = schema["properties"]["columns"]["additionalProperties"]["oneOf"]
    mapping["additionalProperties"] = False
    types = column_types() if with_plugins else bundled_types()
    mapping["properties"]["is"] = {"enum": list(types)}
    for column_type in types.values():
        mapping["properties"].update(column_type.options)
    forms = export_forms() if with_plugins else bundled_forms()
    schema["$defs"]["form"] = {"enum": list(forms)}
    return schema


def _merged(path: Path, seen: tuple[Path, ...], folder: Path) -> Raw:
    if path in seen:
        raise ContentError(_("{path}: `like` leads back to itself", path=path))
    raw = read_yaml(path, "spec").value
    if not isinstance(raw, dict):
        raise wrong_value(
            path, raw, _("a mapping with `about` and `write`; `tuneyard data init FILE` proposes one")
        )
    raw = with_paths_from(folder, raw, is_bundled=path.parent.samefile(SPECS))
    base = raw.get("like")
    if not isinstance(base, str):
        return raw
    base_path = find_spec(base)
    under = _merged(base_path, (*seen, path), base_path.parent)
    return changed_by(without(raw, "like"), under)


def changed_by(raw: Raw, under: Raw) -> Raw:
    """One spec over another, whose source loses the rivals of the keys in `raw`."""
    source = under.get("source")
    if isinstance(source, dict):
        source = dict(source)
        source_over = raw.get("source")
        if not isinstance(source_over, dict):
            source_over = {}
        if "files" in source_over:
            source.pop("hub", None)
        if "split" in raw:
            source.pop("splits", None)
        if "split" in raw or "mix" in raw or "splits" in source_over:
            source.pop("held_out", None)
        under = {**under, "source": source}
    merged: Raw = _over(raw, under)
    return merged


def _over(top: Any, under: Any) -> Any:
    """Merge one spec over another: mappings key by key, `write` entry by entry. Other values replace."""
    if isinstance(top, dict) and isinstance(under, dict):
        merged = under | top
        for key in top.keys() & under.keys():
            merged[key] = _over(top[key], under[key])
        return merged
    if isinstance(top, list) and isinstance(under, list):
        if not all(isinstance(entry, dict) for entry in top + under):
            return top
        entries = [_over(entry, base) for entry, base in zip(top, under, strict=False)]
        return entries + top[len(under) :]
    return top


def filled_in(record: type[T], raw: Raw, /, **others: object) -> T:
    """A record with the values of a valid mapping under the names of its fields, lists as tuples."""
    fields = cast("Any", record)._fields
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items() if name in fields}
    return record(**values | others)


def source_of(raw: Any) -> Source:
    """The source of a valid `source` mapping. Files without a split belong to `train`."""
    return filled_in(
        Source,
        raw,
        form=(raw["form"],) if isinstance(raw.get("form"), str) else tuple(raw.get("form", ())),
        files=_by_split(raw.get("files", {}), TRAIN_SPLIT),
        splits=_by_split(raw.get("splits", {}), TRAIN_SPLIT),
        rows=_by_split(raw.get("rows", {}), ""),
    )


def _by_split(raw: Any, default_split: str) -> BySplit:
    """Texts by split. Texts without a split belong to `default_split`."""
    if not isinstance(raw, dict):
        raw = {default_split: raw}
    return {split: (texts,) if isinstance(texts, str) else tuple(texts) for split, texts in raw.items()}


def is_text_encoding(encoding: str) -> bool:
    """True for an encoding of text files (not hex)."""
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        return False
    return True

"""A dataset as one YAML file: read, merged with what it is `like`, validated by schemas/spec.json."""

import json
import string
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import cast

from core.errors import ContentError, RequestError, nearest, show_value

ROOM = Path(__file__).parent
SPECS = ROOM / "specs"
SCHEMAS = ROOM / "schemas"
UNLABELLED = "unlabelled"
ROW_NUMBER = "row number"
PART = "train"
Raw = dict[str, object]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of ours: the names it goes by, its type, what stands in for a missing one."""

    name: str
    names: tuple[str, ...]
    kind: str
    default: object = None

    @property
    def required(self) -> bool:
        """Whether every row must have it."""
        return self.default is None and self.kind != "extra"


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from when no --source says otherwise, and how their text is written."""

    files: dict[str, tuple[str, ...]]
    hub: dict[str, object]
    splits: dict[str, tuple[str, ...]]
    encoding: str = "utf-8"
    delimiter: str | None = None
    quoted: bool | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """One file that a spec writes for each split; `templates` by record field."""

    dataset: str | None
    file: str
    format: str
    templates: dict[str, str]
    keep: tuple[str, ...]
    field: str


@dataclass(frozen=True, slots=True)
class Spec:
    """A validated spec; `raw` is the merged YAML that the others came from."""

    name: str
    about: str
    source: Source
    columns: tuple[Column, ...]
    labels: dict[str, tuple[object, ...]]
    outputs: tuple[Output, ...]
    group: str | None
    raw: Raw = field(repr=False)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that this spec knows; one `train` where it names none."""
        return tuple(self.source.splits) or (PART,)


def known_specs() -> list[str]:
    """Return the names of the specs in compiler/specs."""
    return sorted(path.stem for path in SPECS.glob("*.yaml"))


def load_spec(name: str) -> Spec:
    """Load a spec by name or by path (`….yaml`); `RequestError` if unknown, `ContentError` if wrong."""
    path = find_spec(name)
    raw = _merged(path, ())
    _validate(path, raw)
    return _parse(path, raw)


def find_spec(name: str) -> Path:
    """Return the file of a spec given by name or path."""
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise RequestError(f"{name}: spec not found")
        return Path(name)
    path = SPECS / f"{name}.yaml"
    if not path.is_file() or name != path.stem:
        hint = nearest(name, known_specs())
        raise RequestError(f"unknown spec {name!r} (known: {', '.join(known_specs())}) {hint}".rstrip())
    return path


@cache
def read_schema(name: str) -> Raw:
    """Return a JSON Schema of this room by name (`spec`, `columns`, `alpaca`, …)."""
    return cast("Raw", json.loads((SCHEMAS / f"{name}.json").read_bytes()))


def placeholders(template: str) -> list[tuple[str, str | None]]:
    """Return a template's pieces, (literal, column name or None); `{{` and `}}` are literal braces."""
    pieces = []
    for literal, name, form, conversion in string.Formatter().parse(template):
        if form or conversion:
            raise ValueError(f"{{{name}}}: only a column name may stand between braces")
        pieces.append((literal, name))
    return pieces


def _merged(path: Path, seen: tuple[Path, ...]) -> Raw:
    if path in seen:
        raise ContentError(f"{path}: `like` leads back to itself")
    raw = _read_yaml(path)
    base = raw.get("like")
    if not isinstance(base, str):
        return raw
    under = _merged(find_spec(base), (*seen, path))
    return cast("Raw", _over({k: v for k, v in raw.items() if k != "like"}, under))


def _over(top: object, under: object) -> object:
    """Lay one spec over another: mappings key by key, `write` entry by entry, the rest whole."""
    if isinstance(top, dict) and isinstance(under, dict):
        both = under | top
        return {k: _over(top[k], under[k]) if k in top and k in under else v for k, v in both.items()}
    if isinstance(top, list) and isinstance(under, list) and all(isinstance(x, dict) for x in top + under):
        return [_over(x, under[i]) if i < len(under) else x for i, x in enumerate(top)]
    return top


def _read_yaml(path: Path) -> Raw:
    import yaml

    try:
        raw = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ContentError(f"{path}:{line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ContentError(f"{path}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ContentError(f"{path}: found {show_value(raw)}, expected a mapping with `about` and `write`")
    _refuse_other_keys(path, raw)
    return cast("Raw", raw)


def _refuse_other_keys(path: Path, value: object) -> None:
    """YAML 1.1 reads a bare yes, no, on or off as a truth value and 1 as a number: ask for quotes."""
    if isinstance(value, list):
        for item in value:
            _refuse_other_keys(path, item)
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                way_out = 'write "yes" or "no" in quotes' if isinstance(key, bool) else "write it in quotes"
                raise ContentError(f"{path}: found the key {show_value(key)}, expected text: {way_out}")
            _refuse_other_keys(path, item)


def _validate(path: Path, raw: Raw) -> None:
    import jsonschema_rs

    from compiler.explain import explain

    errors = list(jsonschema_rs.validator_for(read_schema("spec")).iter_errors(raw))
    if errors:
        lines = [f"{path}: {'.'.join(map(str, e.instance_path)) or 'the spec'}: {explain(e)}" for e in errors]
        raise ContentError("\n".join(lines))


def _parse(path: Path, raw: Raw) -> Spec:
    try:
        columns = tuple(
            _column(name, value, raw) for name, value in cast("Raw", raw.get("columns", {})).items()
        )
        writes = cast("list[Raw]", raw["write"])
        spec = Spec(
            name=path.stem,
            about=cast("str", raw["about"]),
            source=_source(cast("Raw", raw.get("source", {}))),
            columns=columns,
            labels={k: tuple(v) for k, v in cast("dict[str, list[object]]", raw.get("labels", {})).items()},
            outputs=tuple(_output(writes, number) for number in range(len(writes))),
            group=cast("dict[str, str]", raw.get("fit", {})).get("group"),
            raw=raw,
        )
        _cross_check(spec)
    except ValueError as error:
        raise ContentError(f"{path}: {error}") from error
    return spec


def _column(name: str, value: object, raw: Raw) -> Column:
    full = cast("Raw", value) if isinstance(value, dict) else {"names": value}
    usual = "label" if name == "label" and "labels" in raw else "id" if name == "idx" else "text"
    kind = cast("str", full.get("is", usual))
    default = full.get("default", ROW_NUMBER if kind == "id" else None)
    return Column(name, tuple(cast("list[str]", full["names"])), kind, default)


def _source(raw: Raw) -> Source:
    files = raw.get("files", {})
    by_split = cast("Raw", files) if isinstance(files, dict) else {PART: files}
    return Source(
        files={split: _tuple(paths) for split, paths in by_split.items()},
        hub=cast("Raw", raw.get("hub", {})),
        splits={split: _tuple(names) for split, names in cast("Raw", raw.get("splits", {})).items()},
        encoding=cast("str", raw.get("encoding", "utf-8")),
        delimiter=cast("str | None", raw.get("delimiter")),
        quoted=cast("bool | None", raw.get("quoted")),
    )


def _tuple(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(cast("list[str]", value))


TEMPLATES = ("instruction", "input", "output", "system", "user", "assistant", "text")
_FIELDS = {"alpaca": "", "sharegpt": "conversations", "messages": "messages", "text": "text"}


def _output(writes: list[Raw], number: int) -> Output:
    raw = writes[number]
    if "like" in raw:
        like = cast("int", raw["like"])
        if like >= number:
            raise ValueError(f"write.{number}: `like: {like}` must name an output above it")
        raw = {k: v for k, v in writes[like].items() if k not in ("dataset", "field")} | raw
    form = cast("str", raw["format"])
    return Output(
        dataset=cast("str | None", raw.get("dataset")),
        file=cast("str", raw["file"]),
        format=form,
        templates={key: cast("str", raw[key]) for key in TEMPLATES if key in raw},
        keep=tuple(cast("list[str]", raw.get("keep", []))),
        field=cast("str", raw.get("field", _FIELDS[form])),
    )


def _cross_check(spec: Spec) -> None:
    """Refuse what the schema cannot see: names that no column has, outputs that would collide."""
    import codecs

    known = {column.name for column in spec.columns}
    for number, output in enumerate(spec.outputs):
        used = [
            name for text in output.templates.values() for _, name in placeholders(text) if name is not None
        ]
        for name in [*used, *output.keep]:
            if name not in known:
                there = f"(columns: {', '.join(known)}) {nearest(name, known)}".rstrip()
                raise ValueError(f"write.{number}: no column {name!r} {there}")
        for text in (output.file, output.dataset or "{split}"):
            if len(spec.splits) > 1 and "{split}" not in text:
                raise ValueError(
                    f"write.{number}: {text!r} must hold {{split}}: there are {len(spec.splits)} splits"
                )
    files = [output.file for output in spec.outputs] + [o.dataset for o in spec.outputs if o.dataset]
    if len(set(files)) < len(files):
        raise ValueError("two outputs have the same file or dataset name")
    if spec.labels and "label" not in known:
        raise ValueError("`labels` needs a column `label`")
    if spec.group and spec.group not in known:
        raise ValueError(f"fit.group: no column {spec.group!r}")
    try:
        codecs.lookup(spec.source.encoding)
    except LookupError:
        raise ValueError(f"source.encoding: unknown encoding {spec.source.encoding!r}") from None

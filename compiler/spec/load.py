"""Loads a spec: its YAML becomes a `Spec`, whose names and outputs fit together."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from tuneyard.compiler.rows import without
from tuneyard.compiler.spec.column_types import (
    Column,
    bundled_types,
    check_options,
    column_type_of,
)
from tuneyard.compiler.spec.file import (
    Raw,
    Source,
    filled_in,
    find_spec,
    is_text_encoding,
    read_spec,
    source_of,
)
from tuneyard.compiler.spec.model import (
    FIELDS,
    REJECTED,
    TEMPLATES,
    TEXTS,
    WHOLE,
    Filter,
    Mix,
    Output,
    Spec,
    Split,
)
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.datasets.compiled import MANIFEST, row_index_file
from tuneyard.core.errors import ContentError, nearest, show_value
from tuneyard.core.language.message import _, joined
from tuneyard.core.plugins import call


def load_spec(name: str, over: Raw | None = None, folder: Path | None = None) -> Spec:
    """Load a spec by name or by path (`….yaml`); `RequestError` if unknown, `ContentError` if wrong.

    `over` changes the spec as `like` would. It is in `Spec.over`, and not part of `raw`. The paths in the
    spec are relative to `folder`, by default that of its file.
    """
    path = find_spec(name)
    raw = read_spec(path, folder=folder)
    changed = read_spec(path, over, folder) if over else raw
    return _parse(path, changed)._replace(raw=raw, over=over or {}, given_as=name)


def _parse(path: Path, raw: Any) -> Spec:
    clean = raw.get("clean", ())
    if isinstance(clean, str):
        clean = [clean]
    split = raw.get("split", {})
    quality = raw.get("fit", {})
    if quality == "near":
        quality = {"near": True}
    quality = {
        "group": split.get("group"),
        **quality,
    }  # rows that a split keeps together depend on each other
    try:
        columns = tuple(_column(name, value, raw) for name, value in raw.get("columns", {}).items())
        spec = filled_in(
            Spec,
            raw,
            name=path.stem,
            source=source_of(raw.get("source", {}))._replace(columns=columns),
            columns=columns,
            labels={label: tuple(raw_labels) for label, raw_labels in raw.get("labels", {}).items()},
            outputs=tuple(_output(raw["write"], number) for number in range(len(raw["write"]))),
            **quality,
            filter=filled_in(Filter, raw.get("filter", {})),
            clean=tuple(clean),
            empty=tuple(raw.get("empty", ())),
            split=_split(split) if split else None,
            mix=None,
            sample=_sample(raw.get("sample")),
            ignore=tuple(map(str.lower, raw.get("ignore", ()))),
            raw=raw,
        )
        if "mix" in raw:
            spec = _mixed(spec, raw)
        _check_names(spec)
        _check_files(spec)
    except ValueError as error:
        raise ContentError(_("{path}: {error}", path=path, error=error)) from error
    return spec


def _sample(value: float | None) -> float | None:
    """A share of the rows below 1, or a whole number of rows. `ValueError` for 1.0, which may mean either."""
    _refuse(
        isinstance(value, float) and value == 1,
        _(
            "sample: found 1.0, which is the share of all rows, or 1 row; leave `sample` out to "
            "take all rows, or write `sample: 1` to take one"
        ),
    )
    return value


def _refuse(wrong: object, message: str) -> None:
    if wrong:
        raise ValueError(message)


def _column(name: str, value: Any, raw: Raw) -> Column:
    full = value if isinstance(value, dict) else {"names": value}
    usual = "text"
    for other in bundled_types().values():
        if other.is_usual_for(name, has_labels="labels" in raw):
            usual = other.name
    column_type = column_type_of(full.get("is", usual))
    check_options(name, column_type, full)
    options = {key: full[key] for key in column_type.options if key in full}
    default = full.get("default", column_type.default)
    return filled_in(Column, full, name=name, type=column_type, default=default, options=options)


def _split(raw: Any) -> Split:
    settings = ("stratify", "group", "by", "seed")
    shares = {name: float(share) for name, share in raw.items() if name not in settings}
    for name in shares:
        near = nearest(name, ("stratify", "group"))
        _refuse(near, _("split: {name} is no name of a split: {near}", name=name, near=near))
    _refuse(
        not shares or sum(shares.values()) >= 1,
        _("split: name at least one part with its share, all together below 1"),
    )
    by_hash = raw.get("by") == "hash"
    _refuse(
        by_hash and "stratify" in raw, _("split: `by: hash` goes by each row alone and cannot be stratified")
    )
    return filled_in(Split, raw, shares=shares, by_hash=by_hash)


def _output(writes: list[Any], number: int) -> Output:
    raw = _whole_output(writes, number)
    templates = {key: raw[key] for key in TEMPLATES if key in raw}
    key = raw.get("field", FIELDS[raw["format"]])
    roles = raw.get("roles", {})
    return filled_in(Output, raw, templates=templates, field=key, roles=roles)


def _whole_output(writes: list[Any], number: int) -> Raw:
    """An entry of `write`, with what it takes from the one that it is `like`."""
    raw: Raw = writes[number]
    if "like" not in raw:
        return raw
    _refuse(
        raw["like"] >= number,
        _("write.{number}: `like: {like}` must name an output above it", number=number, like=raw["like"]),
    )
    return without(_whole_output(writes, raw["like"]), "dataset", "field") | raw


def _mixed(spec: Spec, whole: Any) -> Spec:
    """Give each part of a mixture its own spec with the outputs of the mixture."""
    strange = next((key for key in ("source", "labels", "clean", "empty", "filter") if key in whole), "")
    belongs = _("it belongs to a part or to the part's spec")
    _refuse(strange, _("`{key}` and `mix` do not go together: {reason}", key=strange, reason=belongs))
    raw = whole["mix"]
    shares = sum(about["share"] for about in raw["parts"].values())
    _refuse(abs(shares - 1) > 1e-6, _("mix: the shares add up to {total:g}, expected 1", total=shares))
    turns = _("parts of several turns become alpaca by `turns: first` or `history`")
    _refuse(spec.formats != {"alpaca"}, _("mix: write alpaca; {turns}", turns=turns))
    _refuse(
        spec.split and (spec.split.stratify or spec.split.group),
        _("mix: its rows have no columns to stratify or to group by"),
    )
    sources, files = {}, {}
    for name, about in raw["parts"].items():
        source_spec = load_spec(about["as"])
        for column, column_type in source_spec.recorded.items():
            _refuse(
                any(output.turns != column_type.registry_key for output in spec.outputs),  # history
                _(
                    "mix.parts.{part}: spec {spec} reads {column}, which records of this mixture lack: take "
                    "another spec, or write `turns: history` for earlier turns",
                    part=name,
                    spec=source_spec.name,
                    column=column,
                ),
            )
        templates = dict(source_spec.outputs[0].templates)
        templates.pop("system", None)
        outputs = [output._replace(templates=templates | output.templates) for output in spec.outputs]
        source_in_mix = source_of(about.get("source", {}))
        source = source_of(source_spec.raw.get("source", {}) | about.get("source", {}))
        sources[name] = source_spec._replace(
            name=spec.name,
            source=source._replace(
                files={}, hub=source_in_mix.hub, splits={}, held_out=(), columns=source_spec.columns
            ),
            outputs=tuple(outputs),
            filter=filled_in(Filter, source_spec.raw.get("filter", {}) | about.get("filter", {})),
            group=None,
            split=spec.split,
            share=about["share"],
            ignore=source_spec.ignore + spec.ignore,
        )
        if TRAIN_SPLIT in source_in_mix.files:
            files[name] = source_in_mix.files[TRAIN_SPLIT]
    mix = Mix(raw["total"], sources, raw.get("shuffle"))
    return spec._replace(source=spec.source._replace(files=files), group=None, mix=mix)


def _check_names(spec: Spec) -> None:
    """Refuse names that no column has, which the schema cannot see."""
    columns = spec.types
    for column in spec.columns:
        call(column.type.plugin, ValueError, column.type.check, column, spec)
    uses = [("fit.group", spec.group)]
    if spec.split:
        uses = [("split.stratify", spec.split.stratify), ("split.group", spec.split.group), *uses]
    for number, output in enumerate(spec.outputs):
        names = [*output.columns_of(*TEMPLATES), *output.keep]
        uses += [(f"write.{number}", name) for name in names]
        if not spec.mix:
            _check_texts(spec, output, names)
    for where, name in uses:
        if name is not None and name not in columns and not spec.mix:
            hint = nearest(name, columns, _("name one of them"))
            raise ValueError(
                _(
                    "{where}: no column {name!r} (columns: {columns}); {hint}",
                    where=where,
                    name=name,
                    columns=", ".join(columns),
                    hint=hint,
                )
            )
    _refuse(spec.labels and "label" not in columns, _("`labels` needs a column `label`"))
    raw_labels = set()
    for raws in spec.labels.values():
        for raw in raws:
            key = (isinstance(raw, bool), raw)
            if key in raw_labels:
                raise ValueError(_("labels: {value} stands under two of them", value=show_value(raw)))
            raw_labels.add(key)
    _refuse(not columns and not spec.mix, _("expected `columns` or `mix`"))


def _check_texts(spec: Spec, output: Output, names: Collection[str]) -> None:
    """Refuse an output without a text, and columns of messages among the `names` in its templates."""
    for name in names:
        if name in spec.conversation_columns:
            raise ValueError(
                _("column {name}: turns are no text for a template or `keep`; give them `roles`", name=name)
            )
    text_templates = TEXTS[output.format]
    if spec.writes_conversation(output):
        return
    if output.roles or not any(key in output.templates for key in text_templates):
        roles = _(" with `roles`") if output.format == "text" else ""
        listed = joined((f"`{key}`" for key in text_templates), _(" or "))
        raise ValueError(
            _(
                "nothing says what the text of a record ({format}) is; expected {keys}, or "
                "a column `is: turns`{roles}",
                format=output.format,
                keys=listed,
                roles=roles,
            )
        )
    has_answer = (
        output.format == "text"
        or spec.has_answer_template
        or any(column_type.is_pair() for column_type in spec.types.values())
    )
    _refuse(not has_answer, _("nothing says what the answer is; add `output` (alpaca) or `assistant`"))


def _check_files(spec: Spec) -> None:
    """Refuse outputs that would collide, and settings that do not go together."""
    _refuse(
        spec.split and spec.source.splits,
        _("`split` and `source.splits` do not go together: the source has its own splits"),
    )
    _refuse(
        spec.source.held_out and (spec.split or spec.source.splits),
        _("`source.held_out` goes with neither `split` nor `source.splits`: these name all splits"),
    )
    for key, by_split in (("rows", spec.source.rows), ("files", spec.source.files)):
        strange = [split for split in by_split if split and split not in spec.input_names]
        _refuse(
            strange,
            _(
                "source.{key}: no split {split!r} (splits: {splits}; `source.splits` names others)",
                key=key,
                split="".join(strange[:1]),
                splits=", ".join(spec.input_names),
            ),
        )
    _refuse(
        spec.split and TRAIN_SPLIT in spec.split.shares,
        _("split: {split!r} is what the others leave: name the others only", split=TRAIN_SPLIT),
    )
    _refuse(
        spec.sample is not None and (spec.mix or TRAIN_SPLIT not in spec.input_names),
        _("`sample` takes rows of the part {split!r}, and there is none", split=TRAIN_SPLIT),
    )
    files = []
    datasets = []
    for split in (*spec.splits, WHOLE):
        for number, output in spec.outputs_of(split):
            if split != WHOLE and len(spec.splits) > 1 and not spec.source.held_out:
                for text in (output.file, output.dataset or "{split}"):
                    fix = _(
                        "write.{number}: {text!r} must hold {{split}}: {splits}",
                        number=number,
                        text=text,
                        splits=", ".join(spec.splits),
                    )
                    _refuse("{split}" not in text, fix)
            file = output.file_of(split)
            files.append(file)
            if output.dataset:
                datasets.append(output.dataset_of(split))
            if spec.is_indexed(output):
                files.append(str(row_index_file(Path(file))))
    _refuse_same(files)
    _refuse_same(datasets)
    _check_verdict(spec.source)
    encoding = spec.source.encoding
    _refuse(
        encoding != "utf-8" and not is_text_encoding(encoding),
        _("source.encoding: unknown encoding {encoding!r}", encoding=encoding),
    )


def _check_verdict(source: Source) -> None:
    """Refuse a verdict with two meanings, and verdicts that no form reads."""
    _refuse(
        source.verdict and "preference" not in source.form,
        _("source.verdict has no effect without `form: preference`"),
    )
    meanings: dict[tuple[bool, object], str] = {}
    for meaning, values in source.verdict.items():
        for value in values:
            key = (isinstance(value, bool), value)
            other = meanings.setdefault(key, meaning)
            _refuse(
                other != meaning,
                _(
                    "source.verdict: {value} stands under {first} and {second}",
                    value=show_value(value),
                    first=other,
                    second=meaning,
                ),
            )


def _refuse_same(names: list[str]) -> None:
    """Refuse a name of a file or dataset that two outputs have, or that the compiler uses itself."""
    taken = {MANIFEST, REJECTED}
    for name in names:
        if name in taken:
            whose = _("the compiler's own") if name in (MANIFEST, REJECTED) else _("another output's")
            raise ValueError(
                _("write: {name!r} is {whose} file or dataset name too: rename one", name=name, whose=whose)
            )
        taken.add(name)

"""From a file to the spec that compiles it: look, guess, write, and try it on the whole file."""

import json
import re
import shlex
import tempfile
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from compiler.init.advise import bundled_spec, split_lines, warnings
from compiler.init.guess import Proposal, guess, quoted
from compiler.init.look import Found, look
from compiler.kinds import PAIR, PLACEHOLDERS
from compiler.pipeline import check_spec
from compiler.problems import Problems
from compiler.registry import entry_of
from compiler.render import Renderer
from compiler.request import CompileRequest
from compiler.spec import Spec, load_spec
from compiler.specsource import Source
from compiler.trace import KeptRow, kept_rows
from core.errors import ContentError, RequestError
from core.prompt import conversation

SHOWN = 3
LONGEST = 400  # characters of a text that are shown
ENDINGS = re.compile(r"(?i)(\.(json|jsonl|ndjson|csv|tsv|parquet|txt|arrow|xlsx|zip))?(\.(gz|zst))?$")


def propose(path: Path, share: float = 0.1, out: Path | None = None, **told: str) -> tuple[str, str]:
    """Return (spec as YAML, what is said of it: warnings, examples, a try on all rows, the next commands).

    `share` is that of eval, `out` the spec's file, `told` are the columns by role (text, label, answer).
    `RequestError` where the file cannot be read as rows, `ContentError` where no role can be guessed.
    """
    found, proposal = _guessed(path, told)
    text = _written(found, proposal, share)
    name = out.stem if out else _stem(path)
    with tempfile.TemporaryDirectory(prefix="tuneyard-init-") as folder:
        file = Path(folder) / f"{name}.yaml"
        file.write_text(text, encoding="utf-8")
        spec = load_spec(str(file))
        report = check_spec(spec, CompileRequest())
        said = [*warnings(found, proposal), *_preview(spec)]
    tried = report.line()
    if errors := report.problems.errors:
        tried = f"problems {report.problems.count('E')}, the first: {errors[0].line()}"
    elif bundled := bundled_spec(found, proposal, spec):
        source = shlex.quote(str(path))
        said.append(f"this is what spec {bundled} reads: tuneyard data compile {bundled} --source {source}")
    return text, "\n".join([*said, f"tried on the whole file: {tried}", *_next(path, spec, out)])


def _preview(spec: Spec) -> list[str]:
    """Return the first three examples as the model will read them, or why there are none."""
    try:
        rows = enumerate(islice(kept_rows(spec, (), Problems()), SHOWN), 1)
        return [line for number, row in rows for line in _example(number, row)]
    except ContentError as error:  # what is wrong with the rows is said after them
        return [f"no example can be shown: {str(error).splitlines()[0]}"]


def _example(number: int, row: KeptRow) -> Iterator[str]:
    yield f"example {number}, {row.batch.place(0)}"
    output = row.spec.outputs[0]
    record = json.loads(Renderer(row.spec, output).render(row.batch)[0])
    if output.format == "text":
        yield f"  text: {_short(record[output.field])}"
        return
    talk = conversation(record, entry_of(row.spec, output, output.file), row.batch.place(0))
    yield from (f"  {turn['role']}: {_short(turn['content'])}" for turn in talk.messages)
    for name in PAIR if PAIR[0] in record else ():
        side = record[name]
        yield f"  {name}: {_short(side['value'] if isinstance(side, dict) else side)}"
    if PAIR[0] not in record:
        yield f"  answer: {_short(talk.answer)}"


def _short(text: str) -> str:
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"
    return shown.replace("\n", "\n    ")


def _next(path: Path, spec: Spec, out: Path | None) -> list[str]:
    """Return the two commands that follow; the first writes the spec where it was only printed."""
    file = out or Path(f"{spec.name}.yaml")
    save = "" if out else f"tuneyard data init {shlex.quote(str(path))} --out {shlex.quote(str(file))} && "
    dataset = shlex.quote(str(spec.outputs[0].dataset).format(split=spec.splits[0]))
    kinds = {column.kind for column in spec.columns}
    fitting = {"chosen": "dpo-lora", "kto": "kto-lora", "tools": "tools-lora"}
    usual = "text-lora" if spec.outputs[0].format == "text" else "rte"
    recipe = next((name for kind, name in fitting.items() if kind in kinds), usual)
    if kinds & set(PLACEHOLDERS):
        folder = shlex.quote(str(path if path.is_dir() else path.parent))
        recipe, dataset = "vl-lora", f"{dataset} media_dir={folder}"
    return [
        f"next: {save}tuneyard data compile {shlex.quote(str(file))}",
        f"then: tuneyard recipe check recipes/{recipe}.yaml dataset={dataset} model_name_or_path=MODEL",
    ]


def _guessed(path: Path, told: dict[str, str]) -> tuple[Found, Proposal]:
    """Return what is proposed for the outermost list of rows in which the roles can be guessed."""
    refused: ContentError | RequestError
    for found in look(path):
        found.told = told
        try:
            return found, guess(found)
        except (ContentError, RequestError) as error:
            refused = error
    raise refused


def _written(found: Found, proposal: Proposal, share: float) -> str:
    split = split_lines(found, proposal, share)
    name = _stem(found.path) + ("_{split}" if found.source.splits or split else "")
    lines = [
        f"# Proposed by `python -m compiler init {shlex.quote(str(found.path))}` after {found.rows} rows.",
        "# What its comments say was guessed: look at it before you trust it.",
        f"about: {proposal.about}",
        "source:",
        *_source(str(found.path), found.source),
        "columns:",
        *proposal.columns,
        *(["labels:", *proposal.labels] if proposal.labels else []),
        *split,
        "write:",
        f"  - dataset: {quoted(name)}",
        f"    file: {quoted(f'{name}.jsonl')}",
        *(f"    {line}" for line in proposal.write),
    ]
    return "\n".join(lines) + "\n"


def _source(path: str, source: Source) -> list[str]:
    files: object = source.files or dict.fromkeys(source.splits, (path,)) or path
    lines = [f"  files: {quoted(files)}"]
    lines += [f"  splits: {quoted(source.splits)}"] if source.splits else []
    if source.rows:
        lines.append(f"  rows: {quoted(source.rows.get('', source.rows))} # the keys that lead to them")
    lines += [f"  encoding: {source.encoding} # guessed from the bytes"] if source.encoding != "utf-8" else []
    for name, value, why in (
        ("delimiter", source.delimiter, "guessed from the header"),
        ("header", source.header or None, "guessed: its first row is a row, these name the columns"),
        ("quoted", source.quoted, "guessed: otherwise rows differ in fields"),
    ):
        lines += [f"  {name}: {quoted(value)} # {why}"] if value is not None else []
    return lines


def _stem(path: Path) -> str:
    """Return a file's name as a dataset's: small letters, digits and low lines, a letter first."""
    plain = unicodedata.normalize("NFC", ENDINGS.sub("", path.name)).lower()
    name = re.sub(r"[\W_]+", "_", plain).strip("_")
    return name if name[:1].isalpha() else f"data_{name}".rstrip("_")

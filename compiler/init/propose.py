"""From a file to the spec that compiles it: look, guess, write, and try it on the whole file."""

import re
import shlex
import tempfile
import unicodedata
from pathlib import Path

from compiler.init.guess import Proposal, guess, quoted
from compiler.init.look import Found, look
from compiler.pipeline import check_spec
from compiler.request import CompileRequest
from compiler.spec import load_spec
from compiler.specsource import Source
from core.errors import ContentError

ENDINGS = re.compile(r"(\.(json|jsonl|ndjson|csv|tsv|parquet))?(\.(gz|zst))?$", re.IGNORECASE)


def propose(path: Path) -> tuple[str, str]:
    """Return (spec as YAML, in one line what compiling the whole file with it finds).

    `RequestError` where the file cannot be read as rows, `ContentError` where no role can be guessed.
    """
    text = _guessed(path)
    with tempfile.TemporaryDirectory(prefix="tuneyard-init-") as folder:
        spec = Path(folder) / f"{_stem(path)}.yaml"
        spec.write_text(text, encoding="utf-8")
        report = check_spec(load_spec(str(spec)), CompileRequest())
    errors = report.problems.errors
    if errors:
        count = report.problems.count("E")
        return text, f"tried on the whole file: problems {count}, the first: {errors[0].line()}"
    return text, f"tried on the whole file: {report.line()}"


def _guessed(path: Path) -> str:
    """Return the spec for the outermost list of rows in which the roles can be guessed."""
    for found in look(path):
        try:
            return _written(found, guess(found))
        except ContentError as error:
            refused = error
    raise refused


def _written(found: Found, proposal: Proposal) -> str:
    name = _stem(found.path) + ("_{split}" if found.source.splits else "")
    lines = [
        f"# Proposed by `python -m compiler init {shlex.quote(str(found.path))}` after {found.rows} rows.",
        "# What its comments say was guessed: look at it before you trust it.",
        f"about: {proposal.about}",
        "source:",
        *_source(str(found.path), found.source),
        "columns:",
        *proposal.columns,
        *(["labels:", *proposal.labels] if proposal.labels else []),
        "write:",
        f"  - dataset: {quoted(name)}",
        f"    file: {quoted(f'{name}.jsonl')}",
        *(f"    {line}" for line in proposal.write),
    ]
    return "\n".join(lines) + "\n"


def _source(path: str, source: Source) -> list[str]:
    """Return the lines that say where the rows are, and what was guessed of how they are written."""
    files = dict.fromkeys(source.splits, path) or path
    lines = [f"  files: {quoted(files)}"]
    lines += [f"  splits: {quoted(source.splits)}"] if source.splits else []
    if source.rows:
        lines.append(f"  rows: {quoted(source.rows.get('', source.rows))} # the keys that lead to them")
    lines += [f"  encoding: {source.encoding} # guessed from the bytes"] if source.encoding != "utf-8" else []
    if source.delimiter:
        lines.append(f"  delimiter: {quoted(source.delimiter)} # guessed from the header")
    if source.quoted is not None:
        lines.append(f"  quoted: {quoted(source.quoted)} # guessed: otherwise rows differ in fields")
    return lines


def _stem(path: Path) -> str:
    """Return a file's name as a dataset's: small letters, digits and low lines, a letter first."""
    plain = unicodedata.normalize("NFC", ENDINGS.sub("", path.name)).lower()
    name = re.sub(r"[\W_]+", "_", plain).strip("_")
    return name if name[:1].isalpha() else f"data_{name}".rstrip("_")

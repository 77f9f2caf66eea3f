"""From a file to the spec that compiles it: look, guess, write, and try it on the whole file."""

import re
import shlex
import tempfile
from pathlib import Path

from compiler.init.guess import Proposal, guess, quoted
from compiler.init.look import Found, look
from compiler.pipeline import check_spec
from compiler.request import Request
from compiler.spec import load_spec

ENDINGS = re.compile(r"(\.(json|jsonl|ndjson|csv|tsv|parquet))?(\.(gz|zst))?$", re.IGNORECASE)


def propose(path: Path) -> tuple[str, str]:
    """Return (spec as YAML, in one line what compiling the whole file with it finds).

    `RequestError` where the file cannot be read as rows, `ContentError` where no role can be guessed.
    """
    found = look(path)
    text = _written(found, guess(found))
    with tempfile.TemporaryDirectory(prefix="tuneyard-init-") as folder:
        spec = Path(folder) / f"{_stem(path)}.yaml"
        spec.write_text(text, encoding="utf-8")
        report = check_spec(load_spec(str(spec)), Request())
    errors = report.problems.errors
    if errors:
        count = report.problems.count("E")
        return text, f"tried on the whole file: problems {count}, the first: {errors[0].line()}"
    return text, f"tried on the whole file: {report.line()}"


def _written(found: Found, proposal: Proposal) -> str:
    name = _stem(found.path)
    lines = [
        f"# Proposed by `python -m compiler init {shlex.quote(str(found.path))}` after {found.rows} rows.",
        "# What its comments say was guessed: look at it before you trust it.",
        f"about: {proposal.about}",
        "source:",
        f"  files: {quoted(str(found.path))}",
        *found.source,
        "columns:",
        *proposal.columns,
        *(["labels:", *proposal.labels] if proposal.labels else []),
        "write:",
        f"  - dataset: {name}",
        f"    file: {name}.jsonl",
        *(f"    {line}" for line in proposal.write),
    ]
    return "\n".join(lines) + "\n"


def _stem(path: Path) -> str:
    """Return a file's name as a dataset's: small letters, digits and low lines, a letter first."""
    name = re.sub(r"[^a-z0-9]+", "_", ENDINGS.sub("", path.name).lower()).strip("_")
    return name if name[:1].isalpha() else f"data_{name}".rstrip("_")

"""From a file to the spec that compiles it: look, guess, write, and try it on the whole file.

What is said beside it: the split, what gives the answer away, the bundled spec that fits.
"""

import json
import re
import shlex
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeGuard

from tuneyard.compiler.init.guess import Proposal, guess, quoted
from tuneyard.compiler.init.look import CHINESE, MOST_VALUES, Found, Leaf, look
from tuneyard.compiler.kinds import kind_of
from tuneyard.compiler.kinds.pair import PAIR
from tuneyard.compiler.pipeline import check_spec
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.registry import entry_of
from tuneyard.compiler.render import Renderer
from tuneyard.compiler.request import CompileRequest
from tuneyard.compiler.rows import walker
from tuneyard.compiler.spec import UNLABELLED, Column, Spec, load_spec
from tuneyard.compiler.specfile import Source, known_specs
from tuneyard.compiler.trace import KeptRow, kept_rows
from tuneyard.core.checkout import bundled
from tuneyard.core.documents import read_mapping
from tuneyard.core.errors import ContentError, RequestError, counted, one_line
from tuneyard.core.packages import after_setup
from tuneyard.core.prompt import PLACEHOLDERS, conversation
from tuneyard.core.timestamps import looks_like_timestamp

USUAL_SHARE = 0.1
FEWEST = 20  # rows that are worth a split
REPEATED = 0.01
GIVEN_AWAY = 0.5
SAME = 0.95
_KEY = re.compile(r"(?:^|[_ .-])(?:id|key|uid|group|title)$|编号$|标题$", re.IGNORECASE)
SHOWN = 3
LONGEST = 400  # characters of a text that are shown
ENDINGS = re.compile(r"(?i)(\.(json|jsonl|ndjson|csv|tsv|parquet|txt|arrow|xlsx|zip))?(\.(gz|zst))?$")


class FailingSpecError(ContentError):
    """The proposed `spec` compiles no row of the file."""

    def __init__(self, message: str, spec: str) -> None:
        self.spec = spec
        super().__init__(message)


def propose(path: Path, share: float | None = None, out: Path | None = None, **told: str) -> tuple[str, str]:
    """Return (spec as YAML, what is said of it: warnings, examples, a try on all rows, the next commands).

    `share` is that of eval (None: a tenth, if there are rows enough), `out` the spec's file, `told` are the
    columns by role (text, label, answer). `RequestError` where the file cannot be read as rows, or not be
    split as asked; `ContentError` where no role can be guessed; `FailingSpecError` where no row compiles.
    """
    if {"label", "answer"} <= told.keys():
        raise RequestError("--label and --answer: give one; --label is for classes, --answer for free text")
    found, proposal = _guessed(path, told)
    _check_split(found, share)
    text = _written(found, proposal, USUAL_SHARE if share is None else share)
    name = out.stem if out else _stem(path)
    with tempfile.TemporaryDirectory(prefix="tuneyard-init-") as folder:
        file = Path(folder) / f"{name}.yaml"
        file.write_text(text, encoding="utf-8")
        spec = load_spec(str(file))
        report = check_spec(spec, CompileRequest())
        said = [*_warnings(found, proposal), *_preview(spec)]
    options = {**told, **({} if share is None else {"split": f"{share:g}"})}
    next_commands = _next(path, spec, out, options, report.rejected > 0)
    errors = report.problems.errors
    if not errors:
        fitting = _bundled_spec(found, proposal, spec)
        if fitting:
            compile_command = f"tuneyard data compile {fitting} --source {shlex.quote(str(path))}"
            said.append(f"this is what spec {fitting} reads: {compile_command}")
        return text, "\n".join([*said, f"tried on the whole file: {report.line()}", *next_commands])
    first_error = errors[0].line()
    if report.problems.fatal or report.rejected >= report.read:
        how = "does not compile"
        if not report.problems.fatal:
            how = f"compiles none of {counted(report.read, 'row')}"
        raise FailingSpecError(
            f"{path}: the proposed spec {how}: {first_error}; name the columns with --text and --label or "
            "--answer, or save the spec, edit it and run `tuneyard data check SPEC.yaml`",
            text,
        )
    rejected = f"{report.rejected} of {counted(report.read, 'row')} would be rejected"
    tried = f"tried on the whole file: {rejected}; the first: {first_error}"
    return text, "\n".join([*said, tried, *next_commands])


def _check_split(found: Found, share: float | None) -> None:
    """Raise `RequestError` if rows are to be split (`--split` above 0) and cannot be."""
    if not share:
        return
    if found.source.splits:
        splits = ", ".join(found.source.splits)
        raise RequestError(f"--split {share:g}: {found.path} is split already ({splits}): leave --split out")
    if found.rows < FEWEST:
        raise RequestError(
            f"--split {share:g}: {found.path} has {counted(found.rows, 'row')}, a split needs {FEWEST}: "
            "leave --split out, or give --split 0"
        )


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


def _next(path: Path, spec: Spec, out: Path | None, options: dict[str, str], rejecting: bool) -> list[str]:
    """Return the two commands that follow; the first writes the spec where it was only printed.

    `options` are those that init was given, by name: without them init would propose another spec.
    """
    file = out or Path(f"{spec.name}.yaml")
    commands = []
    if not out:
        given = [word for name, value in options.items() for word in (f"--{name}", value)]
        commands.append(shlex.join(["tuneyard", "data", "init", str(path), *given, "--out", str(file)]))
    on_error = ["--on-error", "reject"] if rejecting else []
    commands.append(shlex.join(["tuneyard", "data", "compile", str(file), *on_error]))
    check = shlex.join(["tuneyard", "recipe", "check", *_recipe_words(path, spec)])
    return [f"next: {' && '.join(commands)}", f"then: {after_setup(check, 'llamafactory')}"]


def _recipe_words(path: Path, spec: Spec) -> list[str]:
    """Return the bundled recipe for records of this kind, and the settings that make it one for this dataset.

    Its output_dir is another: a training must not overwrite that of the bundled recipe.
    """
    kinds = {column.kind for column in spec.columns}
    recipe = "text-lora" if spec.outputs[0].format == "text" else "sft-lora"
    for kind, fitting_recipe in {"chosen": "dpo-lora", "kto": "kto-lora", "tools": "tools-lora"}.items():
        if kind in kinds:
            recipe = fitting_recipe
            break
    dataset = str(spec.outputs[0].dataset)
    words = [f"dataset={dataset.format(split=spec.splits[0])}"]
    if kinds & set(PLACEHOLDERS):
        recipe = "vl-lora"
        words.append(f"media_dir={path if path.is_dir() else path.parent}")
    file = Path("recipes") / f"{recipe}.yaml"
    if "eval" in spec.splits:  # instead of the share that the recipe holds out of the training rows
        words += [f"eval_dataset={dataset.format(split='eval')}", "val_size=0"]
    elif "eval_dataset" in read_mapping(bundled(file), "recipe"):
        words += ["eval_dataset=null", "val_size=0.1"]
    name = dataset.format(split="").strip("_-")
    return [str(file), *words, f"output_dir=saves/{name}", "model_name_or_path=MODEL"]


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
    split = _split_lines(found, proposal, share)
    name = _stem(found.path) + ("_{split}" if found.source.splits or split else "")
    path_in_comment = one_line(shlex.quote(str(found.path)))
    lines = [
        f"# Proposed by `tuneyard data init {path_in_comment}` after {found.rows} rows.",
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
        f"    file: {quoted(name + _ending(proposal))}",
        *(f"    {line}" for line in proposal.write),
    ]
    return "\n".join(lines) + "\n"


def _ending(proposal: Proposal) -> str:
    """End of the file's name: an array if a text may be dates alone, which LLaMA-Factory reads as times."""
    leaves = [*proposal.prompts.values(), *([proposal.answer] if proposal.answer else [])]
    if any(leaf.values and all(map(looks_like_timestamp, leaf.values)) for leaf in leaves):
        return ".json"
    return ".jsonl"


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


def _split_lines(found: Found, proposal: Proposal, share: float) -> list[str]:
    """Return the lines of a spec that split its rows: by group, whose column is added, else by label."""
    if found.source.splits or found.rows < FEWEST or not share:
        return []
    name, leaf = _group(found, proposal)
    settings = [f"eval: {share:g}"]
    why = f"{share:.0%} of the rows"
    if leaf:
        if name == "group":
            kind = "any" if leaf.kind == "number" else "extra"
            line = f'  group: {{names: ["{leaf.path}"], is: {kind}}} # rows that belong together'
            proposal.columns.append(line)
        settings.append(f"group: {name}")
        why += f"; {leaf.path} repeats: its rows stay on one side"
    elif proposal.labels:
        settings.append("stratify: label")
        why += ", of each label"
    return [f"split: {{{', '.join(settings)}, seed: 42}} # {why}"]


def _group(found: Found, proposal: Proposal) -> tuple[str, Leaf | None]:
    """Return the column of the prompt that repeats, else one of ids, which is to be a column named group."""
    prompts = [(name, leaf) for name, leaf in proposal.prompts.items() if leaf.kind == "text"]
    used = {leaf.path for _, leaf in prompts} | ({proposal.answer.path} if proposal.answer else set())
    keys = [
        ("group", leaf)
        for leaf in found.leaves.values()
        if leaf.path not in used and _KEY.search(leaf.path) and leaf.kind in ("text", "number")
    ]
    for name, leaf in [*prompts, *keys]:
        distinct = len(leaf.hashes)
        whole = leaf.filled == found.rows and distinct > MOST_VALUES
        if whole and found.rows - distinct > REPEATED * found.rows:
            return name, leaf
    return "", None


def _warnings(found: Found, proposal: Proposal) -> Iterator[str]:
    """Yield what gives the answer away: a text of the prompt that holds it, or from which it follows."""
    if proposal.answer is None:
        return
    answer_of = walker(proposal.answer.path)
    for name, leaf in proposal.prompts.items():
        if name == "context" or leaf.kind != "text":  # where an answer is looked for
            continue
        text_of = walker(leaf.path)
        pairs = [(text_of(row), answer_of(row)) for row in found.first]
        texts = [(x.lower(), y.lower()) for x, y in pairs if isinstance(x, str) and _says(y)]
        every = {answer for _, answer in texts}
        choices = every if 1 < len(every) <= MOST_VALUES else ()  # a text that names each gives none away
        inside = [t for t, y in texts if y in t and not (choices and all(one in t for one in choices))]
        if texts and len(inside) > GIVEN_AWAY * len(texts):
            rows = f"in {len(inside)} of {len(texts)} rows"
            yield (
                f"warning: {leaf.path} contains {proposal.answer.path} {rows}: "
                "the model would only copy it; leave the column out, or cut the answer from it"
            )
        elif proposal.labels and (share := _follows(pairs)) > SAME:
            yield (
                f"warning: {leaf.path} takes few values, and {proposal.answer.path} follows from it in "
                f"{share:.0%} of rows: it may be the label under another name"
            )


def _says(answer: object) -> TypeGuard[str]:
    """Whether an answer is a text that does not stand in others by chance, as yes and 1 do."""
    return isinstance(answer, str) and len(answer) > (1 if CHINESE.search(answer) else 3)


def _follows(pairs: list[tuple[object, object]]) -> float:
    """Return the share of rows whose label is the most frequent one of their text; 0 where texts are many."""
    by_text: dict[str, Counter[str]] = {}
    for text, answer in pairs:
        by_text.setdefault(str(text), Counter())[str(answer)] += 1
    if 2 * len(by_text) > len(pairs):
        return 0.0
    return sum(max(counts.values()) for counts in by_text.values()) / len(pairs)


def _bundled_spec(found: Found, proposal: Proposal, proposed: Spec) -> str:
    """Return the name of the bundled spec that reads just this, with the most columns, or ""."""
    if found.told or replace(found.source, quoted=None) != Source({}, {}, {}):  # a spec has to say it
        return ""
    chinese = any(leaf.in_chinese for leaf in proposal.prompts.values())

    def worth(spec: Spec) -> tuple[int, bool, bool]:
        output = spec.outputs[0]
        same_language = chinese == bool(CHINESE.search("".join(output.templates.values())))
        return len(_there(spec, found)), output.format != "text", same_language

    specs = [load_spec(name) for name in known_specs()]
    fits = [spec for spec in specs if not spec.mix and not spec.source.files and _fits(spec, found, proposed)]
    return max(fits, key=worth).name if fits else ""


def _there(spec: Spec, found: Found) -> list[Column]:
    """Return the columns of a spec that the file has, turns where the spec reads turns and nowhere else."""
    tops = {path.partition(".")[0]: "object" for path in found.leaves}  # of a message: `chosen.value`
    kinds = {**tops, **{path: leaf.kind for path, leaf in found.leaves.items()}}

    def read(column: Column, name: str) -> bool:
        return name in kinds and (column.kind in PAIR or (kinds[name] == "turns") == (column.kind == "turns"))

    return [c for c in spec.columns if c.kind != "id" and any(read(c, name) for name in c.names)]


def _fits(spec: Spec, found: Found, proposed: Spec) -> bool:
    """Whether three columns or turns, and all that a row must have, are there, and just the spec's labels."""
    there = _there(spec, found)
    turns = any(column.kind == "turns" for column in there)
    needed = [column for column in spec.columns if column.required and column.kind != "id"]
    if not (turns or len(there) > 2) or any(column not in there for column in needed):
        return False
    if {c.kind for c in proposed.columns if kind_of(c.kind).part} - {c.kind for c in there}:
        return False
    if "system" in {c.name for c in proposed.columns} - {c.name for c in there}:
        return False
    label = next((column for column in there if column.kind == "label"), None)
    if label is None:
        return True
    leaf = next(found.leaves[name] for name in label.names if name in found.leaves)
    ours = {str(raw): name for name, raws in spec.labels.items() for raw in raws}
    return {ours.get(str(value)) for value in leaf.values} | {UNLABELLED} == {*spec.labels, UNLABELLED}

"""From a file to the spec that compiles it: look, guess, write, and try it on the whole file.

Next to the spec: warnings about guesses, columns that are left out and answers that are given away.
"""

import json
import re
import shlex
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TypeGuard

from tuneyard.compiler.commands.trace import KeptRow, kept_rows
from tuneyard.compiler.compile import check_spec
from tuneyard.compiler.init.guess import guess
from tuneyard.compiler.init.like import BundledSpec, find_bundled_spec
from tuneyard.compiler.init.look import CHINESE, FEWEST_ROWS, MOST_VALUES, PROSE, FileProfile, Leaf, look
from tuneyard.compiler.init.proposal import Proposal
from tuneyard.compiler.kinds import kinds as all_kinds
from tuneyard.compiler.kinds.pair import PAIR
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.publish.registry import entry_of
from tuneyard.compiler.request import CompileReport, CompileRequest
from tuneyard.compiler.rows import walker
from tuneyard.compiler.spec.column_meanings import USUAL_NAMES
from tuneyard.compiler.spec.file import Source
from tuneyard.compiler.spec.model import Output, Spec, load_spec
from tuneyard.compiler.write.render import Renderer
from tuneyard.core.checkout import bundled
from tuneyard.core.documents import dump_short_yaml, read_mapping
from tuneyard.core.errors import ContentError, RequestError, counted, one_line
from tuneyard.core.files import free_path
from tuneyard.core.packages import after_setup
from tuneyard.core.prompt import conversation
from tuneyard.core.records import PLACEHOLDERS
from tuneyard.core.timestamps import looks_like_timestamp

USUAL_SHARE = 0.1
REPEATED = 0.01
GIVEN_AWAY = 0.5
SAME = 0.95
SHOWN = 3
SHOWN_COLUMNS = 8
LOOKED_AT_ROWS = 50
LONGEST = 400  # characters of a text that are shown
ENDINGS = re.compile(r"(?i)(\.(json|jsonl|ndjson|csv|tsv|parquet|txt|arrow|xlsx|zip))?(\.(gz|zst))?$")
EMPTY_ANSWER = "W204"
_KEY = re.compile(r"(?:^|[_ .-])(?:id|key|uid|group|title)$|编号$|标题$", re.IGNORECASE)
_FIELD_SIGNS = ("++$++", "|||", "\t", "|", ";")
_ROLES_TO_REPORT = ("question", "answer", "text", "summary", "label", "choices", "rating")


class FailingSpecError(ContentError):
    """The proposed `spec` compiles no row of the file."""

    def __init__(self, message: str, spec: str) -> None:
        self.spec = spec
        super().__init__(message)


def propose(
    path: Path, share: float | None = None, out: Path | None = None, **user_columns: str
) -> tuple[str, str]:
    """The spec as YAML, and what to print next to it: warnings, examples, the try on all rows, commands.

    `share` is that of eval (None: a tenth, if there are rows enough). `out` is the spec's file.
    `user_columns` are paths by role: text, text2 (the second of a pair), label, answer.

    Raises `RequestError` if the file has no rows or cannot be split as requested, `ContentError` if no role
    can be guessed, and `FailingSpecError` if no row compiles.
    """
    if {"label", "answer"} <= user_columns.keys():
        raise RequestError("--label and --answer: give one; --label is for classes, --answer for free text")
    profile, proposal, base = _guessed(path, user_columns)
    _check_split(profile, share)
    if base is not None and base.spec.split and share is not None and proposal.columns:
        base = None  # it would split otherwise than requested
    spec_as_dict = _spec_dict(profile, proposal, base, USUAL_SHARE if share is None else share)
    name = out.stem if out else _stem(path)
    with tempfile.TemporaryDirectory(prefix="tuneyard-init-") as folder:
        file = Path(folder) / f"{name}.yaml"
        file.write_text(dump_short_yaml(spec_as_dict), encoding="utf-8")
        spec = load_spec(str(file))
        report = check_spec(spec, CompileRequest())
        warnings = list(dict.fromkeys(map(_printable, _warnings(profile, proposal, spec))))
        examples = _preview(spec)
    text = "".join(f"# {line}\n" for line in _comments(profile, warnings)) + dump_short_yaml(spec_as_dict)
    outcome = _outcome(path, report, text)
    lines = [f"warning: {warning}" for warning in warnings] + examples
    if base is not None:
        lines.append(f"this is what spec {base.spec.name} reads: the proposal changes what differs")
    options = dict(user_columns)
    if share is not None:
        options["split"] = f"{share:g}"
    lines += [f"tried on the whole file: {outcome}"]
    lines += _empty_answers(report)
    lines += _next(path, spec, profile, out, options, report.rejected > 0)
    return text, "\n".join(lines)


def _outcome(path: Path, report: CompileReport, text: str) -> str:
    """How the spec does on the whole file; `FailingSpecError` if it compiles no row."""
    errors = report.problems.errors
    if not errors:
        if report.kept and report.problems.counts[EMPTY_ANSWER] >= report.kept:
            answers = counted(report.kept, "answer")
            raise FailingSpecError(
                f"{path}: all {answers} are empty, so that a model would learn to say nothing; fill them, or "
                "name the column of the answers with --answer or --label",
                text,
            )
        return report.line()
    first_error = errors[0].line()
    if not report.problems.fatal and report.rejected < report.read:
        rejected = f"{report.rejected} of {counted(report.read, 'row')} would be rejected"
        return f"{rejected}; the first: {first_error}"
    failure = "does not compile"
    if not report.problems.fatal:
        failure = f"compiles none of {counted(report.read, 'row')}"
    fix = (
        "name the columns with --text and --label or --answer, or save the spec, edit it and run "
        "`tuneyard data check SPEC.yaml`"
    )
    if errors[0].code in ("E003", "E014"):
        fix = "no spec can mend that: repair the file or get it again"
    raise FailingSpecError(f"{path}: the proposed spec {failure}: {first_error}; {fix}", text)


def _empty_answers(report: CompileReport) -> list[str]:
    """Warn of answers that are empty: the compile takes them, and a training would learn to say nothing."""
    for problem in report.problems.warnings:
        if problem.code == EMPTY_ANSWER:
            count = report.problems.counts[EMPTY_ANSWER]
            return [f"warning: {count} of {counted(report.kept, 'answer')} are empty, first {problem.line()}"]
    return []


def _comments(profile: FileProfile, warnings: list[str]) -> list[str]:
    """The comment at the head of the spec: where it is from, and what to look at."""
    source = profile.source
    lines = [f"Proposed by `tuneyard data init {shlex.quote(str(profile.path))}` after {profile.rows} rows."]
    if source.header:
        lines.append("guessed: the first row is a row, `header` names the columns by their content")
    if source.encoding != "utf-8":
        lines.append(f"guessed from the bytes: encoding {source.encoding}")
    lines += [f"guessed, look at it: {warning}" for warning in warnings]
    return list(map(_printable, lines))


def _printable(line: str) -> str:
    """A line without line breaks and control characters: a comment in YAML holds none."""
    return "".join(character if character.isprintable() else " " for character in one_line(line))


def _check_split(profile: FileProfile, share: float | None) -> None:
    """Raise `RequestError` if rows are to be split (`--split` above 0) and cannot be."""
    if not share:
        return
    if profile.source.splits:
        splits = ", ".join(profile.source.splits)
        raise RequestError(
            f"--split {share:g}: {profile.path} is split already ({splits}): leave --split out"
        )
    if profile.rows < FEWEST_ROWS:
        raise RequestError(
            f"--split {share:g}: {profile.path} has {counted(profile.rows, 'row')}, a split needs "
            f"{FEWEST_ROWS}: leave --split out, or give --split 0"
        )


def _preview(spec: Spec) -> list[str]:
    """The first three examples as the model will read them, or why there are none."""
    try:
        rows = enumerate(islice(kept_rows(spec, (), Problems()), SHOWN), 1)
        return [line for number, row in rows for line in _example(number, row)]
    except ContentError as error:  # what is wrong with the rows is said after them
        return [f"no example can be shown: {str(error).splitlines()[0]}"]


def _example(number: int, row: KeptRow) -> Iterator[str]:
    yield f"example {number}, {row.batch.place(0)}"
    output = _trained_output(row.spec)
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


def _next(
    path: Path, spec: Spec, profile: FileProfile, out: Path | None, options: dict[str, str], rejecting: bool
) -> list[str]:
    """The two commands that follow. The first writes the spec if it was only printed.

    `options` are those that init was given, by name: without them init would propose another spec.
    """
    file = out or free_path(Path(f"{spec.name}.yaml"))
    commands = []
    if not out:
        words = [str(path)]
        for name, value in options.items():
            words += [f"--{name.removesuffix('2')}", value]
        commands.append(shlex.join(["tuneyard", "data", "init", *words, "--out", str(file)]))
    on_error = ["--on-error", "reject"] if rejecting else []
    commands.append(shlex.join(["tuneyard", "data", "compile", str(file), *on_error]))
    check = shlex.join(["tuneyard", "recipe", "check", *_recipe_words(path, spec, profile)])
    return [f"next: {' && '.join(commands)}", f"then: {after_setup(check, 'llamafactory')}"]


def _recipe_words(path: Path, spec: Spec, profile: FileProfile) -> list[str]:
    """The bundled recipe for records of this kind, and the settings that make it one for this dataset.

    Its output_dir is another: a training must not overwrite that of the bundled recipe.
    """
    output = _trained_output(spec)
    kinds = {column.kind for column in spec.columns if column.kind not in PLACEHOLDERS}
    tops = {path.partition(".")[0] for path in profile.leaves}
    kinds |= {c.kind for c in spec.columns if not tops.isdisjoint(c.names)}
    if not any(row.get("tools") for row in profile.first):
        kinds.discard("tools")
    recipe = "text-lora" if output.format == "text" else "sft-lora"
    for kind in all_kinds().values():
        if kind.name in kinds and kind.recipe and kind.name not in PLACEHOLDERS:
            recipe = kind.recipe
            break
    dataset = str(output.dataset)
    splits = tuple(profile.source.splits) or (spec.split and spec.splits) or spec.splits[:1]
    words = [f"dataset={dataset.format(split=splits[0])}"]
    if kinds & set(PLACEHOLDERS):
        recipe = "vl-lora"
        words.append(f"media_dir={path if path.is_dir() else path.parent}")
    file = Path("recipes") / f"{recipe}.yaml"
    if "eval" in splits:  # instead of the share that the recipe holds out of the training rows
        words += [f"eval_dataset={dataset.format(split='eval')}", "val_size=0"]
    elif "eval_dataset" in read_mapping(bundled(file), "recipe"):
        words += ["eval_dataset=null", "val_size=0.1"]
    name = dataset.format(split="").strip("_-")
    return [str(file), *words, f"output_dir=saves/{name}", "model_name_or_path=MODEL"]


def _trained_output(spec: Spec) -> Output:
    """The first output that LLaMA-Factory reads."""
    return next((output for output in spec.outputs if output.dataset), spec.outputs[0])


def _guessed(path: Path, user_columns: dict[str, str]) -> tuple[FileProfile, Proposal, BundledSpec | None]:
    """What fits the outermost list of rows: first a bundled spec, then the roles of its columns."""
    refusal: ContentError | RequestError
    for profile in look(path):
        profile.user_columns = user_columns
        try:
            proposal = guess(profile)
        except (ContentError, RequestError) as error:
            refusal = error
            base = None if user_columns else find_bundled_spec(profile, None)
            if base is not None:
                write = {"format": base.spec.outputs[0].format}
                return profile, Proposal(base.spec.about, {}, write), base
            continue
        base = find_bundled_spec(profile, proposal)
        return profile, proposal, base
    raise refusal


def _spec_dict(
    profile: FileProfile, proposal: Proposal, base: BundledSpec | None, share: float
) -> dict[str, object]:
    """The spec as a mapping in the order of its lines."""
    columns = dict(proposal.columns if base is None else base.changes)
    names = {} if base is None else {path: name for name, path in base.paths.items()}
    split, group = _split(profile, proposal, share, names)
    if base is not None and base.spec.split:
        split, group = {}, {}
    if group:
        columns["group"] = group
    stem = _stem(profile.path)
    spec: dict[str, object] = {"about": proposal.about}
    if base is not None:
        spec["like"] = base.spec.name
    spec["source"] = _source(str(profile.path), profile.source)
    if columns:
        spec["columns"] = columns
    if base is None and proposal.labels:
        spec["labels"] = proposal.labels
    if split:
        spec["split"] = split
    has_splits = bool(profile.source.splits or split)
    if base is None:
        name = f"{stem}_{{split}}" if has_splits else stem
        spec["write"] = [{"dataset": name, "file": name + _ending(proposal), **proposal.write}]
    else:
        has_splits = has_splits or len(base.spec.splits) > 1 or base.spec.split is not None
        spec["write"] = _renamed_outputs(base.spec, stem, has_splits, _ending(proposal))
    return spec


def _renamed_outputs(spec: Spec, stem: str, has_splits: bool, ending: str) -> list[dict[str, object]]:
    """New names for the datasets of a bundled spec; an output that is no dataset keeps its name.

    Several datasets keep what tells them apart: messages, messages_openai become talk, talk_openai.
    """
    first = _dataset_stem(_trained_output(spec))
    outputs: list[dict[str, object]] = []
    for output in spec.outputs:
        if not output.dataset:
            outputs.append({})
            continue
        name = stem + _dataset_stem(output).removeprefix(first)
        if has_splits:
            name += "_{split}"
        outputs.append({"dataset": name, "file": name + ending})
    return outputs


def _dataset_stem(output: Output) -> str:
    return str(output.dataset).replace("{split}", "").strip("_-")


def _ending(proposal: Proposal) -> str:
    """End of the file's name: an array if a text may be dates alone, which LLaMA-Factory reads as times."""
    leaves = list(proposal.prompts.values())
    if proposal.answer is not None:
        leaves.append(proposal.answer)
    if any(leaf.values and all(map(looks_like_timestamp, leaf.values)) for leaf in leaves):
        return ".json"
    return ".jsonl"


def _source(path: str, source: Source) -> dict[str, object]:
    """Where the rows are and how their text is written, as a spec has it."""
    settings: dict[str, object] = {"files": path}
    if source.files or source.splits:
        files = source.files or dict.fromkeys(source.splits, (path,))
        settings["files"] = {split: list(paths) for split, paths in files.items()}
    if source.splits:
        settings["splits"] = {split: list(names) for split, names in source.splits.items()}
    if source.rows:
        rows = {split: list(steps) for split, steps in source.rows.items()}
        settings["rows"] = rows.get("", rows)
    if source.encoding != "utf-8":
        settings["encoding"] = source.encoding
    if source.delimiter is not None:
        settings["delimiter"] = source.delimiter
    if source.header:
        settings["header"] = list(source.header)
    if source.quoted is not None:
        settings["quoted"] = source.quoted
    return settings


def _stem(path: Path) -> str:
    """A dataset's name from a file's: small letters, digits and low lines, a letter first."""
    plain = unicodedata.normalize("NFC", ENDINGS.sub("", path.name)).lower()
    name = re.sub(r"[\W_]+", "_", plain).strip("_")
    return name if name[:1].isalpha() else f"data_{name}".rstrip("_")


def _split(
    profile: FileProfile, proposal: Proposal, share: float, names: Mapping[str, str]
) -> tuple[dict[str, object], dict[str, object]]:
    """The `split` of a spec, and the column of ids that it goes by, if one is to be added.

    Rows with the same prompt or id stay on one side; otherwise each label has its share on both sides.
    `names` are the columns of a bundled spec by their path.
    """
    if profile.source.splits or profile.rows < FEWEST_ROWS or not share:
        return {}, {}
    split: dict[str, object] = {"eval": float(f"{share:g}")}
    column: dict[str, object] = {}
    name, leaf = _group(profile, proposal)
    if leaf is not None:
        split["group"] = name if name == "group" else names.get(leaf.path, name)
        if name == "group":
            column = {"names": [leaf.path], "is": "any" if leaf.kind == "number" else "extra"}
    elif proposal.labels:
        split["stratify"] = "label"
    return {**split, "seed": 42}, column


def _group(profile: FileProfile, proposal: Proposal) -> tuple[str, Leaf | None]:
    """The column of the prompt that repeats, otherwise one of ids under the new name `group`."""
    prompts = [(name, leaf) for name, leaf in proposal.prompts.items() if leaf.kind == "text"]
    used_paths = {leaf.path for _, leaf in prompts}
    if proposal.answer is not None:
        used_paths.add(proposal.answer.path)
    candidates = list(prompts)
    for leaf in profile.leaves.values():
        is_key = _KEY.search(leaf.path) and leaf.kind in ("text", "number")
        if is_key and leaf.path not in used_paths:
            candidates.append(("group", leaf))
    for name, leaf in candidates:
        distinct = len(leaf.hashes)
        is_complete = leaf.filled == profile.rows and distinct > MOST_VALUES
        if is_complete and profile.rows - distinct > REPEATED * profile.rows:
            return name, leaf
    return "", None


def _warnings(profile: FileProfile, proposal: Proposal, spec: Spec) -> Iterator[str]:
    """What to look at before a compile: guesses, columns left out, fields in lines, answers given away."""
    if profile.source.header:
        yield f"the file has no header: the columns {', '.join(profile.source.header)} are named by content"
    yield from proposal.guesses
    yield from _fields_in_lines(profile)
    yield from _columns_left_out(profile, spec)
    yield from _answers_given_away(profile, proposal)


def _fields_in_lines(profile: FileProfile) -> Iterator[str]:
    """Warn of a .txt file whose lines are rows of a table."""
    if not profile.path.name.removesuffix(".gz").endswith(".txt"):
        return
    lines = [str(row.get("text", "")) for row in profile.first]
    for sign in _FIELD_SIGNS:
        counts = Counter(line.count(sign) for line in lines)
        count, lines_with_it = counts.most_common(1)[0]
        if count and lines_with_it >= SAME * len(lines):
            yield (
                f"each line holds {count + 1} fields with {json.dumps(sign)} between them, and the spec "
                "learns whole lines: rename the file to .csv, or write .jsonl with a key for each field"
            )
            return


def _columns_left_out(profile: FileProfile, spec: Spec) -> Iterator[str]:
    """Name the columns that hold prose, lists or a known role and that the spec does not use."""
    used_paths = {name.lower() for column in spec.columns for name in column.names}
    used_paths |= {name.lower() for name in spec.ignore}
    left_out = []
    for leaf in profile.leaves.values():
        steps = leaf.path.lower().split(".")
        prefixes = {".".join(steps[:count]) for count in range(1, len(steps) + 1)}
        if prefixes.isdisjoint(used_paths) and _may_matter(profile, leaf):
            left_out.append(f"{leaf.path} ({leaf.kind})")
    if not left_out:
        return
    names = ", ".join(left_out[:SHOWN_COLUMNS])
    if len(left_out) > SHOWN_COLUMNS:
        names += f" and {len(left_out) - SHOWN_COLUMNS} more"
    yield (
        f"not used: {names}. If the model should read or answer with one of them, name it with --text, "
        "--label or --answer, or add it to the spec"
    )


def _may_matter(profile: FileProfile, leaf: Leaf) -> bool:
    """True if a column may be a part of an example: by its name, as a list, or as prose."""
    if leaf.kind in ("texts", "turns", "several objects"):
        return True
    if not leaf.filled:
        return False
    if any(leaf.goes_by(name) for role in _ROLES_TO_REPORT for name in USUAL_NAMES[role]):
        return True
    if leaf.kind != "text" or leaf.characters < PROSE * leaf.filled:
        return False
    text_of = walker(leaf.path)
    values = [text_of(row) for row in profile.first[:LOOKED_AT_ROWS]]
    texts = [value for value in values if isinstance(value, str) and value]
    prose = [
        text for text in texts if (" " in text or CHINESE.search(text)) and not looks_like_timestamp(text)
    ]
    return 2 * len(prose) > len(texts)


def _answers_given_away(profile: FileProfile, proposal: Proposal) -> Iterator[str]:
    """Warn of a text of the prompt that holds the answer, or from which the answer follows."""
    if proposal.answer is None:
        return
    answer_of = walker(proposal.answer.path)
    for name, leaf in proposal.prompts.items():
        if name == "context" or leaf.kind != "text" or proposal.about == "Texts with a summary":
            continue  # an answer is looked for in a context
        text_of = walker(leaf.path)
        pairs = [(text_of(row), answer_of(row)) for row in profile.first]
        texts = [(x.lower(), y.lower()) for x, y in pairs if isinstance(x, str) and _is_telling(y)]
        answers = {answer for _, answer in texts}
        choices = answers if 1 < len(answers) <= MOST_VALUES else set()
        contained = 0
        for text, answer in texts:
            lists_every_choice = bool(choices) and all(choice in text for choice in choices)
            if answer in text and not lists_every_choice:
                contained += 1
        share = _share_that_follows(pairs) if proposal.labels else 0.0
        if texts and contained > GIVEN_AWAY * len(texts):
            yield (
                f"{leaf.path} contains {proposal.answer.path} in {contained} of {len(texts)} rows: "
                "the model would only copy it; leave the column out, or cut the answer from it"
            )
        elif share > SAME:
            yield (
                f"{leaf.path} takes few values, and {proposal.answer.path} follows from it in "
                f"{share:.0%} of rows: it may be the label under another name"
            )


def _is_telling(answer: object) -> TypeGuard[str]:
    """True for a text that is not in others by chance, as yes and 1 are."""
    return isinstance(answer, str) and len(answer) > (1 if CHINESE.search(answer) else 3)


def _share_that_follows(pairs: list[tuple[object, object]]) -> float:
    """The share of rows whose label is the most frequent one of their text; 0 if texts are many."""
    by_text: dict[str, Counter[str]] = {}
    for text, answer in pairs:
        by_text.setdefault(str(text), Counter())[str(answer)] += 1
    if 2 * len(by_text) > len(pairs):
        return 0.0
    return sum(max(counts.values()) for counts in by_text.values()) / len(pairs)

"""From a file to the spec that compiles it: read statistics, propose, write, and try it on the whole file.

Next to the spec: warnings about guesses, columns that are left out and answers that are given away.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tuneyard.compiler.check.unused_columns import SAYS
from tuneyard.compiler.engine.request import CompileReport, CompileRequest
from tuneyard.compiler.init.column_statistics import FEWEST_ROWS, FileStatistics
from tuneyard.compiler.init.findings import findings_of
from tuneyard.compiler.init.guess import fixes_of_notation, guess
from tuneyard.compiler.init.like import BundledSpec, find_bundled_spec
from tuneyard.compiler.init.proposal import Proposal
from tuneyard.compiler.init.recipe_command import recipe_words
from tuneyard.compiler.init.spec_dict import proposed_spec, stem_of_file, with_keys
from tuneyard.compiler.init.split_seed import choose_seed
from tuneyard.compiler.init.statistics_reader import read_statistics
from tuneyard.compiler.init.warnings import first_names, lost_prompt, may_matter, unused_leaves, warnings_of
from tuneyard.compiler.inspect.trace import KeptRow, kept_rows
from tuneyard.compiler.lint.empty_answers import EMPTY_ANSWER
from tuneyard.compiler.lint.html_answers import HTML_ANSWER
from tuneyard.compiler.lint.named_pictures import NAMED_PICTURE
from tuneyard.compiler.lint.template_tokens import TEMPLATE_TOKEN
from tuneyard.compiler.publish.compile import check_dataset
from tuneyard.compiler.publish.report import counts_line
from tuneyard.compiler.read.jsons import IGNORED
from tuneyard.compiler.read.placement import NAMED_LIKE
from tuneyard.compiler.read.remote import SourcePath
from tuneyard.compiler.read.scan import BROKEN_LIST
from tuneyard.compiler.read.stream import LARGE_RECORD
from tuneyard.compiler.read.tables import BROKEN_QUOTING, MAY_CONTINUE
from tuneyard.compiler.rows.problem_codes import NOT_READ
from tuneyard.compiler.spec.file import Raw
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.spec.model import Spec
from tuneyard.compiler.spec.paths import path_from, with_paths_changed
from tuneyard.compiler.write.entries import entries_of, entry_of
from tuneyard.compiler.write.render import Renderer
from tuneyard.core.datasets import DEFAULT_FOLDER, REGISTRY, TRAIN_SPLIT
from tuneyard.core.documents import dump_short_yaml
from tuneyard.core.errors import ContentError, ProblemsError, RequestError, show_value
from tuneyard.core.execution.state import CURRENT, NEW, State
from tuneyard.core.files import free_path
from tuneyard.core.files.bounded_reading import open_regular, read_regular
from tuneyard.core.files.scratch import scratch_folder
from tuneyard.core.installation.packages import after_setup
from tuneyard.core.language.message import (
    SEMICOLON,
    _,
    counted,
    joined,
    marked,
    message_of,
    translated,
    translated_template,
    typed,
    with_texts,
)
from tuneyard.core.llamafactory.prompt import prompt_and_answer
from tuneyard.core.records import PAIR
from tuneyard.core.text.quoting import one_line

USUAL_SHARE = 0.2
"""The share of `test`, which reports."""
EVAL_SPLIT, EVAL_SHARE = "eval", 0.1
"""The split that chooses checkpoint and settings, and its share."""
FEWEST_FOR_EVAL = 200
"""Examples from which on `eval` is worth its rows."""
SHOWN = 3
SIGNED_VERDICTS = _(
    "the verdicts are numbers with a sign: below 0 the first answer is taken as "
    "better, above 0 the second one; if that is wrong, exchange them under "
    "`verdict` of `source:`"
)
TOO_FEW_PROMPTS = marked(
    "classes with too few different prompts for each of {splits}: {classes}; add rows of them, or leave them "
    "out of `labels`"
)
TOO_FEW_GROUPS = marked(
    "classes in too few groups for each of {splits}: {classes}; add rows of them, or leave them out of "
    "`labels`"
)
_LONGEST_HEAD = 1 << 14  # bytes of a spec in which its first comment is
LONGEST = 400  # characters of a text that are shown
SPEAKERS = {"user": _("user"), "assistant": _("assistant"), "system": _("system")}
PAIR_LINES = {"chosen": marked("  chosen: {text}"), "rejected": marked("  rejected: {text}")}
WARNINGS_OF_ROWS = {
    EMPTY_ANSWER: (("answer", "answers"), _("are empty, or a word for that")),
    TEMPLATE_TOKEN: (("example", "examples"), _("contain a token of a chat template, learned as text")),
    HTML_ANSWER: (("answer", "answers"), _("contain HTML, which `clean: html` in the spec takes out")),
    NAMED_PICTURE: (
        ("example", "examples"),
        _("name a picture, video or audio in a text, which is learned as text"),
    ),
    MAY_CONTINUE: (("example", "examples"), _("begin after a blank line and may go on with the one before")),
}
"""Warnings of the try on all rows whose first one is shown: the compile accepts such examples."""


class FailingSpecError(ContentError):
    """The proposed `spec` compiles no row of the file."""

    def __init__(self, message: str, spec: str) -> None:
        self.spec = spec
        super().__init__(message)


class ProposedSpec(NamedTuple):
    """The spec as YAML; warnings, examples and the try on all rows; the commands that follow."""

    text: str
    report: str
    next_steps: str


class TriedSpec(NamedTuple):
    """A proposed spec and its check on all rows. `minor_columns` are left out, such as ids and dates."""

    spec: Spec
    report: CompileReport
    warnings: list[str]
    examples: list[str]
    minor_columns: list[str]


def propose(
    path: SourcePath,
    share: float | None = None,
    out: Path | None = None,
    table: str = "",
    **user_columns: str,
) -> ProposedSpec:
    """Propose a spec for a file, and try it on all rows.

    `share` is that of test (None: a fifth, if there are rows enough). `out` is the spec's file, `table` that
    of a database.
    `user_columns` are paths by role: text, text2 (the second of a pair), label, answer.

    Raises `RequestError` if the file has no rows or cannot be split as requested, `ContentError` if no role
    can be guessed, and `FailingSpecError` if no row compiles.
    """
    _refuse_options(user_columns)
    statistics, proposal, base = _guessed(path, table, user_columns)
    _check_split(statistics, share)
    name = stem_of_file(out.with_suffix("") if out else path)
    spec_folder = out.parent if out else Path()
    prompts: set[int] = set()
    for shares in _possible_shares(statistics, share):
        spec_as_dict = proposed_spec(statistics, proposal, base, shares, name)
        spec_as_dict = with_paths_changed(spec_as_dict, partial(path_from, spec_folder))
        tried = _tried(path, statistics, proposal, dump_short_yaml(spec_as_dict), name, spec_folder)
        findings = findings_of(statistics, proposal, tried.spec, tried.report)
        if findings.keys:
            spec_as_dict = with_keys(spec_as_dict, findings.keys)
            tried = _tried(path, statistics, proposal, dump_short_yaml(spec_as_dict), name, spec_folder)
        if _has_seed(spec_as_dict, tried):
            break
        if tried.report.hashed_rows is not None:
            prompts.update(tried.report.hashed_rows.keys)
    spec_text = dump_short_yaml(spec_as_dict)
    spec_text += "".join(f"# {line}\n" for line in findings.to_uncomment)
    report, warnings = tried.report, tried.warnings
    warnings.extend(findings.messages)
    if tried.spec.split is None and prompts:
        different = counted(len(prompts), "prompt", "prompts")
        warnings.append(_("no split: the rows have only {prompts}", prompts=different))
    comments = [
        _(
            "Proposed by `tuneyard data init {file}` after {rows} rows.",
            file=shlex.quote(str(path)),
            rows=statistics.rows,
        )
    ]
    comments += [_("guessed, look at it: {guess}", guess=warning) for warning in warnings]
    text = "".join(f"# {_printable(translated(comment))}\n" for comment in comments) + spec_text
    outcome = _outcome(path, report, text, [*fixes_of_notation(statistics), *proposal.guesses])
    lines = [_("warning: {message}", message=warning) for warning in warnings] + tried.examples
    if base is not None:
        file_name = out.name if out else _("the proposal")
        lines.append(
            _(
                "This file fits the bundled spec {spec}; {file} holds only the differences.",
                spec=base.spec.name,
                file=file_name,
            )
        )
    if tried.minor_columns:
        minor_columns = with_texts(first_names(tried.minor_columns), _printable)
        lines.append(_("left out: {columns}", columns=minor_columns))
    lines.append(_("tried on the whole file: {summary}", summary=outcome))
    lines += _warnings_of_rows(report, proposal)
    options = _words(user_columns, share, table)
    next_steps = _next(path, tried.spec, out, options, rejecting=0 < report.rejected <= report.read / 2)
    return ProposedSpec(text, joined(lines, "\n"), joined(next_steps, "\n"))


def may_be_proposal(out: Path, path: SourcePath) -> bool:
    """True if a file begins as a proposal for this source does, which is not read for any other one."""
    if not out.is_file():
        return False
    with open_regular(out) as file:
        head = file.read(_LONGEST_HEAD)
    command = _printable(f"`tuneyard data init {shlex.quote(str(path))}`")
    return command in head.decode(errors="replace")


def proposal_state(out: Path, proposed: ProposedSpec) -> State:
    """Whether a file is what would be written. The spec may have been edited, or its source changed."""
    if not out.exists():
        return NEW
    content = proposed.text.encode()
    if out.is_file() and out.stat().st_size == len(content) and read_regular(out) == content:
        return CURRENT
    return State("stale", (_("{path} is not what would be written now", path=out),))


def _possible_shares(statistics: FileStatistics, share: float | None) -> list[dict[str, float]]:
    """The shares of splits to propose; the next ones are for rows that do not fill the ones before."""
    test_share = USUAL_SHARE if share is None else float(f"{share:g}")
    possible: list[dict[str, float]] = [{}]
    if statistics.source.splits or statistics.rows < FEWEST_ROWS or not test_share:
        return possible
    possible.insert(0, {"test": test_share})
    if statistics.rows >= FEWEST_FOR_EVAL and test_share + EVAL_SHARE < 1:
        possible.insert(0, {"test": test_share, EVAL_SPLIT: EVAL_SHARE})
    return possible


def _has_seed(spec_as_dict: Raw, tried: TriedSpec) -> bool:
    """Write the seed of its split by hash into a spec. False if its rows are too few for its splits.

    Adds the warning that names the classes with too few rows.
    """
    split, rows = tried.spec.split, tried.report.hashed_rows
    if split is None or rows is None or not rows.keys:
        return True
    if len(rows.keys) < FEWEST_FOR_EVAL and EVAL_SPLIT in split.shares:
        return False
    by_seed = choose_seed(split, rows)
    if not all(by_seed.rows.values()):
        return False
    spec_as_dict["split"]["seed"] = by_seed.seed
    if by_seed.small_classes:
        classes = [f"{show_value(name)} ({count})" for name, count in by_seed.small_classes.items()]
        template = TOO_FEW_GROUPS if split.group else TOO_FEW_PROMPTS
        tried.warnings.append(_(template, splits=", ".join(by_seed.rows), classes=", ".join(classes)))
    return True


def _refuse_options(user_columns: Mapping[str, str]) -> None:
    """Refuse options that name two answers, or one column twice."""
    if {"label", "answer"} <= user_columns.keys():
        raise RequestError(
            _("--label and --answer: give one; --label is for classes, --answer for free text")
        )
    if len(set(user_columns.values())) < len(user_columns):
        raise RequestError(
            _(
                "the options name one column twice: --text is for the prompt, --label or "
                "--answer for the answer"
            )
        )


def _tried(
    path: SourcePath, statistics: FileStatistics, proposal: Proposal, spec_text: str, name: str, folder: Path
) -> TriedSpec:
    """Check a proposed spec on all rows. `folder` is the one from which its paths are relative."""
    with scratch_folder() as scratch:
        file = scratch / f"{name}.yaml"
        file.write_text(spec_text, encoding="utf-8")
        spec = load_spec(str(file), folder=folder)
        report = check_dataset(CompileRequest(spec, keeps_hashed_rows=True))
        unused = unused_leaves(statistics, proposal, spec)
        important = [leaf for leaf in unused if may_matter(statistics, proposal, leaf)]
        lost = None if statistics.user_columns else lost_prompt(statistics, spec, unused)
        if lost is not None:
            raise FailingSpecError(
                _(
                    "{path}: the proposal leaves out {column}, which the model should read by "
                    "its name; name the columns, as in --text {text} --answer COLUMN, or correct "
                    "the spec",
                    path=path,
                    column=lost.path,
                    text=shlex.quote(lost.path),
                ),
                spec_text,
            )
        warnings = [each.line() for each in report.problems.warnings if each.code == NOT_READ]
        notes_to_show = (IGNORED, NAMED_LIKE, SAYS)
        warnings += [note for note in report.problems.notes if any(part in note for part in notes_to_show)]
        warnings += warnings_of(statistics, proposal, important)
        minor_columns = [leaf.path for leaf in unused if leaf not in set(important)]
        return TriedSpec(
            spec,
            report,
            list(dict.fromkeys(with_texts(warning, _printable) for warning in warnings)),
            _preview(spec),
            minor_columns,
        )


def _warnings_of_rows(report: CompileReport, proposal: Proposal) -> Iterator[str]:
    """Yield how many rows have each warning of `WARNINGS_OF_ROWS`, with the first row."""
    for code, (nouns, fault) in WARNINGS_OF_ROWS.items():
        first = next((problem for problem in report.problems.warnings if problem.code == code), None)
        if first is None:
            continue
        line: str = _(
            "warning: {count} of {records} {fault}, first {problem}",
            count=report.problems.counts[code],
            records=counted(report.kept + report.not_written, *nouns),
            fault=fault,
            problem=first.line(),
        )
        if code == EMPTY_ANSWER and not proposal.turns:
            line = _(
                "{warning}; in the spec `columns: {{{field}: {{is: text}}}}` rejects empty ones",
                warning=line,
                field=first.field,
            )
        yield line


def _words(user_columns: Mapping[str, str], share: float | None, table: str) -> list[str]:
    """The options of `propose` as words of the command line."""
    words: list[str] = []
    for role, column in user_columns.items():
        option = "--text" if role == "text2" else f"--{role}"
        words += [option, column]
    if share is not None:
        words += ["--split", f"{share:g}"]
    if table:
        words += ["--table", table]
    return words


def _outcome(path: SourcePath, report: CompileReport, text: str, guesses: Sequence[str]) -> str:
    """How the spec does on the whole file; `FailingSpecError` if it compiles no row."""
    errors = report.problems.errors
    if not errors:
        if report.kept and report.problems.counts[EMPTY_ANSWER] >= report.kept:
            answers = counted(report.kept, "answer", "answers")
            raise FailingSpecError(
                _(
                    "{path}: all {names} are empty, so that a model would learn to say nothing; "
                    "fill them, or name the column of the answers with --answer or --label",
                    path=path,
                    names=answers,
                ),
                text,
            )
        return counts_line(report)
    first_error = errors[0].line()
    if not report.problems.fatal and report.rejected < report.read:
        return _(
            "{rejected} of {rows} would be rejected; the first: {first_error}",
            rejected=report.rejected,
            rows=counted(report.read, "row", "rows"),
            first_error=first_error,
        )
    if errors[0].code in (BROKEN_LIST, BROKEN_QUOTING, LARGE_RECORD):
        raise ContentError(_("{error}; no spec can mend that", error=first_error))
    fixes = [
        *guesses,
        _(
            "name the columns with --text and --label or --answer, or run it without --out, which prints the "
            "spec: save it, edit it and run `tuneyard data check SPEC.yaml`"
        ),
    ]
    faults = joined([first_error, *fixes], SEMICOLON)
    message = _("{path}: the proposed spec does not compile: {faults}", path=path, faults=faults)
    if not report.problems.fatal:
        message = _(
            "{path}: the proposed spec compiles none of {rows}: {faults}",
            path=path,
            rows=counted(report.read, "row", "rows"),
            faults=faults,
        )
    raise FailingSpecError(message, text)


def _printable(line: str) -> str:
    """A text without line breaks and control characters, which a comment in YAML cannot contain."""
    return "".join(character if character.isprintable() else " " for character in one_line(line))


def _check_split(statistics: FileStatistics, share: float | None) -> None:
    """Raise `RequestError` if rows are to be split (`--split` above 0) and cannot be."""
    if not share:
        return
    if statistics.source.splits:
        splits = ", ".join(statistics.source.splits)
        raise RequestError(
            _(
                "--split {share:g}: {path} is split already ({splits}): leave --split out",
                share=share,
                path=statistics.path,
                splits=splits,
            )
        )
    if statistics.rows < FEWEST_ROWS:
        raise RequestError(
            _(
                "--split {share:g}: {path} has {rows}, a split needs {least}: leave --split "
                "out, or give --split 0",
                share=share,
                path=statistics.path,
                rows=counted(statistics.rows, "row", "rows"),
                least=FEWEST_ROWS,
            )
        )


def _preview(spec: Spec) -> list[str]:
    """The first three examples as the model will read them, or why there are none."""
    lines: list[str] = []
    try:
        for number, row in enumerate(islice(kept_rows(spec, ()), SHOWN), 1):
            lines += _example(number, row)
    except ContentError as error:  # the report on all rows names the problem
        reason = error.problems[0].line() if isinstance(error, ProblemsError) else message_of(error)
        lines = lines or [_("no example can be shown: {reason}", reason=reason)]
    return lines


def _example(number: int, row: KeptRow) -> Iterator[str]:
    location = row.batch.location(0)
    yield _("example {number}, {place}", number=number, place=location)
    (output,) = row.spec.outputs
    record = json.loads(Renderer(row.spec, output).render(row.batch)[0])
    if output.format == "text":
        yield _("  text: {text}", text=_short(record[output.field]))
        return
    entry = entry_of(row.spec, output, output.file)
    conversation = prompt_and_answer(record, entry, location)
    for message in conversation.messages:
        yield _(
            "  {role}: {text}",
            role=SPEAKERS.get(message["role"], message["role"]),
            text=_short(message["content"]),
        )
    if PAIR[0] not in record:
        yield _("  answer: {text}", text=_short(conversation.answer))
        return
    for number, name in enumerate(PAIR):
        answer = prompt_and_answer(record, entry, location, answer=number).answer
        yield _(PAIR_LINES[name], text=_short(answer))


def _short(text: str) -> str:
    if len(text) > LONGEST:
        begin = text[:LONGEST].replace("\n", "\n    ")
        return _("{begin}… ({number} characters)", begin=begin, number=len(text))
    return text.replace("\n", "\n    ")


def _next(
    path: SourcePath, spec: Spec, out: Path | None, options: Sequence[str], *, rejecting: bool
) -> list[str]:
    """The two commands that follow. The first writes the spec if it was only printed, with these options."""
    file = out or free_path(Path(f"{spec.name}.yaml"))
    commands = []
    if not out:
        commands.append(typed(["tuneyard", "data", "init", path, *options, "--out", file]))
    on_error = ["--on-error", "reject"] if rejecting else []
    folder, to_folder = DEFAULT_FOLDER, []
    if isinstance(path, Path) and (path.parent / REGISTRY).is_file():
        folder = path.parent  # the dataset is registered next to its file
        to_folder = ["--dataset-dir", str(folder)]
    commands.append(typed(["tuneyard", "data", "compile", file, *to_folder, *on_error]))
    (output,) = spec.outputs
    dataset = output.dataset_of(TRAIN_SPLIT if TRAIN_SPLIT in spec.splits else spec.splits[0])
    recipe = typed(recipe_words(dataset, folder, entries_of(spec)))
    result = [_("result: {place}", place=out)] if out else []
    return [
        *result,
        _("next: {command}", command=" && ".join(commands)),
        _("then: {command}", command=after_setup(recipe, "llamafactory")),
    ]


def _guessed(
    path: SourcePath, table: str, user_columns: dict[str, str]
) -> tuple[FileStatistics, Proposal, BundledSpec | None]:
    """The proposal for the outermost list of rows that fits: of a bundled spec, or by its columns' roles."""
    refusal: ContentError | RequestError
    for statistics in read_statistics(path, table):
        statistics.user_columns = user_columns
        try:
            proposal = guess(statistics)
        except (ContentError, RequestError) as error:
            refusal = error
            if user_columns:
                continue
            proposal = Proposal("", {}, {})  # a bundled spec may read the file all the same (ARC)
        if statistics.source.verdict:
            proposal.guesses.append(SIGNED_VERDICTS)
        base = find_bundled_spec(statistics, proposal)
        if base is not None and not proposal.about:
            proposal.about = translated_template(base.spec.about)
        if proposal.about:
            return statistics, proposal, base
    raise refusal

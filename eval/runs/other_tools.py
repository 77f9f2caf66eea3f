"""Files of other tools without judged answers: each is called by its name, with the file to take instead.

A comparison pairs examples, so that totals, answers without a judgement, and tables for people are refused.
"""

from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from tuneyard.core.errors import ContentError
from tuneyard.core.files.bounded_reading import open_regular
from tuneyard.core.language.message import _

RENAME = _("write its rows with the columns id, gold and prediction, or write a plug-in (docs/extending.md)")
OPENCOMPASS_DETAILS = _("run OpenCompass with --dump-eval-details, and name results/MODEL/DATASET.json")
HEAD = 1 << 16  # bytes in which a file that is no table shows its tool


class UnjudgedFile(NamedTuple):
    """A kind of file: what it is, what to do, the fields that it has, and the names that it may have."""

    about: str
    fix: str
    fields: tuple[str, ...]
    names: str = "*"


UNJUDGED_FILES = (
    UnjudgedFile(
        _("lighteval's totals"),
        _("run lighteval with --save-details, and name details_*.parquet or its folder"),
        ("config_general", "results", "summary_tasks"),
    ),
    UnjudgedFile(
        _("details of an old lighteval"),
        _("run lighteval 0.11 or later with --save-details"),
        ("example", "full_prompt", "metrics", "predictions"),
    ),
    UnjudgedFile(
        _("EvalScope's report"),
        _("name reviews/MODEL/DATASET_SUBSET.jsonl of the same run, or its folder"),
        ("dataset_name", "model_name", "metrics"),
    ),
    UnjudgedFile(
        _("EvalScope's predictions, which are not judged"),
        _("name reviews/MODEL/DATASET_SUBSET.jsonl of the same run, or its folder"),
        ("index", "model_output", "messages"),
    ),
    UnjudgedFile(
        _("OpenCompass's predictions, which are not judged"),
        OPENCOMPASS_DETAILS,
        ("0",),
        "*/predictions/*/*.json",
    ),
    UnjudgedFile(
        _("reviews of an old EvalScope"),
        _("run EvalScope 1.0 or later"),
        ("index", "choices", "reviewed"),
    ),
    *(
        UnjudgedFile(_("OpenCompass's totals"), OPENCOMPASS_DETAILS, (total,), "*/results/*/*.json")
        for total in ("accuracy", "score", "error")
    ),
    UnjudgedFile(
        _("HELM's statistics or predictions"),
        RENAME,
        ("instance_id", "train_trial_index"),
    ),
    UnjudgedFile(
        _("AlpacaEval's annotations"),
        _("use `tuneyard eval ab` for preferences"),
        ("instruction", "output_1", "output_2", "preference"),
    ),
    UnjudgedFile(_("MT-Bench's answers"), RENAME, ("question_id", "model_id", "choices")),
    UnjudgedFile(_("MT-Bench's judgements"), RENAME, ("question_id", "judge", "score")),
    UnjudgedFile(_("SWE-bench's predictions"), RENAME, ("instance_id", "model_name_or_path", "model_patch")),
    UnjudgedFile(_("IFEval's own results"), RENAME, ("follow_all_instructions", "follow_instruction_list")),
    UnjudgedFile(_("OpenAI evals' log"), RENAME, ("spec",)),
    UnjudgedFile(_("Ragas's results"), RENAME, ("user_input", "response", "retrieved_contexts")),
    UnjudgedFile(_("DeepEval's results"), RENAME, ("testCases", "metricsScores")),
    UnjudgedFile(
        _("LLaMA-Factory's totals"),
        _("name generated_predictions.jsonl of the same folder"),
        ("predict_runtime", "predict_samples_per_second"),
    ),
)
PROMPTFOO_TABLE = _("promptfoo's table")
PROMPTFOO_FIX = _("run `promptfoo eval -o NAME.json`, or `promptfoo export eval ID -o NAME.json`")
PROMPTFOO_SIGNS = {
    ".csv": b"Grader Reason,",
    ".yaml": b"evalId: ",
    ".yml": b"evalId: ",
    ".html": b"promptfoo",
}
"""What shows that a file is promptfoo's: columns of each provider, the first key, the title."""


def refuse_other_table(path: Path) -> None:
    """`ContentError` for promptfoo's formats for people, which are no records."""
    sign = PROMPTFOO_SIGNS.get(path.suffix.lower())
    if sign is None:
        return
    with open_regular(path) as file:
        head = file.read(HEAD)
    if sign in head:
        raise other_file(path, UnjudgedFile(PROMPTFOO_TABLE, PROMPTFOO_FIX, ()))


def recognised_other(path: Path, fields: Collection[str]) -> UnjudgedFile | None:
    """The kind of another tool's file by the most of its fields, None if it is of no kind."""
    best = None
    for kind in UNJUDGED_FILES:
        if not all(name in fields for name in kind.fields):
            continue
        if not fnmatchcase(path.absolute().as_posix(), kind.names):
            continue
        if best is None or len(kind.fields) > len(best.fields):
            best = kind
    return best


def other_file(path: Path, kind: UnjudgedFile) -> ContentError:
    """The error for a file of another tool without judged rows."""
    return ContentError(
        _(
            "{path}: {kind}, expected a judged answer for each example; {fix}",
            path=path,
            kind=kind.about,
            fix=kind.fix,
        )
    )

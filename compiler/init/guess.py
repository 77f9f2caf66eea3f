"""The proposal for a file: that of the first form which a column type names."""

import re

from tuneyard.compiler.init.column_statistics import MOST_VALUES, FileStatistics
from tuneyard.compiler.init.proposal import Proposal
from tuneyard.compiler.init.shapes import SHAPES, Shape
from tuneyard.compiler.init.warnings import first_names
from tuneyard.compiler.read.jsons import BY_ROWS
from tuneyard.compiler.rows.problem_codes import NOT_READ
from tuneyard.compiler.spec.column_types import column_types
from tuneyard.core.errors import ContentError, RequestError, nearest
from tuneyard.core.language.message import SEMICOLON, _, joined, marked

NAMES_FILES = marked(
    "{column} names files, and a model would read their names; spec media compiles conversations "
    "with `<image>` in a text and the paths under `images`"
)
_PYTHON = re.compile(r"\[\{?'|\{'")


def guess(statistics: FileStatistics) -> Proposal:
    """Propose by the first shape that fits; `ContentError` lists the columns if none does."""
    for shape in _shapes(statistics):
        proposal = shape.propose(statistics)
        if proposal is not None:
            return proposal
    fixes = fixes_of_notation(statistics)
    if fixes:
        raise ContentError(_("{path}: {fixes}", path=statistics.path, fixes=joined(fixes, SEMICOLON)))
    columns = first_names([leaf.with_kind for leaf in statistics.leaves.values()])
    other_sheets = ""
    for warning in statistics.problems.warnings:
        if warning.code == NOT_READ:
            other_sheets = _(" ({message}; {hint})", message=warning.message, hint=warning.hint)
    raise ContentError(
        _(
            "{path}: nothing in it looks like turns, question and answer, a labelled "
            "text or plain text; found {columns}{other_sheets}; delete the lines above a "
            "table's header, name its columns with --text and --label or --answer "
            "(--text twice for a pair of texts), write a spec by hand, which begins with "
            "`like: qa`, or write each row as a list `messages` of turns with `role` "
            "(user or assistant) and `content`, which spec messages compiles",
            path=statistics.path,
            columns=columns or _("no named fields"),
            other_sheets=other_sheets,
        )
    )


def fixes_of_notation(statistics: FileStatistics) -> list[str]:
    """What to do about names of images, and pandas' forms of a table by its columns and of lists in cells."""
    names = statistics.leaves.keys()
    is_by_column = (
        {"columns", "data"} <= names
        or all(map(str.isdecimal, names))
        or {leaf.value_type for leaf in statistics.leaves.values()} == {"texts"}
    )
    if names and is_by_column and statistics.path.name.endswith(".json"):
        return [BY_ROWS]
    fixes: list[str] = [
        _(NAMES_FILES, column=name)
        for name, leaf in statistics.leaves.items()
        if statistics.names_media(leaf)
    ]
    return fixes or [
        _(
            "{column} holds lists in Python's notation, not JSON; write them as JSON: "
            "df[{column!r}] = df[{column!r}].map(ast.literal_eval).map(json.dumps)",
            column=name,
        )
        for name, leaf in statistics.leaves.items()
        if leaf.value_type == "text" and all(map(_PYTHON.match, map(str, statistics.each_value(leaf))))
    ]


def _shapes(statistics: FileStatistics) -> list[Shape]:
    """The forms that column types name. If the user named columns, only forms that use just these."""
    names = {name for column_type in column_types().values() for name in column_type.shapes}
    shapes = [shape for shape in SHAPES if shape.name in names]
    roles = statistics.user_columns.keys()
    if not roles:
        return shapes
    _check_user_columns(statistics)
    return [shape for shape in shapes if roles in shape.user_roles]


def _check_user_columns(statistics: FileStatistics) -> None:
    """Raise `RequestError` if a column is missing, or has too few or too many values for a label."""
    for role, path in statistics.user_columns.items():
        option = role.removesuffix("2")
        leaf = statistics.leaves.get(path)
        if leaf is None:
            message = _(
                "--{option} {column}: no such column in {path} (columns: {columns})",
                option=option,
                column=path,
                path=statistics.path,
                columns=joined(statistics.leaves) if statistics.leaves else _("none"),
            )
            hint = nearest(path, statistics.leaves)
            raise RequestError(_("{error}; {hint}", error=message, hint=hint) if hint else message)
        if statistics.names_media(leaf):
            raise RequestError(_(NAMES_FILES, column=f"--{option} {path}"))
    label = statistics.user_leaf("label")
    if label is None:
        if "text2" in statistics.user_columns and "answer" not in statistics.user_columns:
            raise RequestError(
                _("--text twice is a pair of texts: name the column of its labels with --label")
            )
        return
    count = len(label.values)
    if not 2 <= count <= MOST_VALUES:
        values = str(count)
        if count > MOST_VALUES:
            values = _("more than {number}", number=MOST_VALUES)
        raise RequestError(
            _(
                "--label {column}: {values} values, expected 2 to {most}; name a column of "
                "free text or of lists with --answer",
                column=label.path,
                values=values,
                most=MOST_VALUES,
            )
        )

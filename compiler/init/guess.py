"""The proposal for a file: that of the first kind of records or shape of texts that fits."""

from tuneyard.compiler.init.dialects import MOST_VALUES
from tuneyard.compiler.init.look import FileProfile
from tuneyard.compiler.init.proposal import Proposal
from tuneyard.compiler.init.shapes import (
    SHAPES,
    Shape,
    answered_question,
    labelled_pair,
    labelled_text,
    plain_text,
)
from tuneyard.compiler.kinds import kinds
from tuneyard.core.errors import ContentError, RequestError, nearest

LONGEST = 400  # characters of a list of columns


def guess(profile: FileProfile) -> Proposal:
    """Propose by the first shape that fits; `ContentError` lists the columns if none does."""
    for shape in _shapes(profile):
        proposal = shape(profile)
        if proposal is not None:
            return proposal
    columns = ", ".join(f"{leaf.path} ({leaf.kind})" for leaf in profile.leaves.values())
    if len(columns) >= LONGEST:
        columns = f"{columns[:LONGEST]}…"
    raise ContentError(
        f"{profile.path}: nothing in it looks like turns, question and answer, a labelled text or plain "
        f"text; found {columns or 'no named fields'}; name its columns with --text and --label or "
        "--answer (--text twice for a pair of texts), or write a spec by hand, as compiler/specs/qa.yaml"
    )


def _shapes(profile: FileProfile) -> tuple[Shape, ...]:
    """The shapes to try. If the user named columns, only shapes that use them."""
    user_columns = profile.user_columns
    if not user_columns:
        ordered_kinds = sorted(kinds().values(), key=lambda kind: kind.init_order)
        return (*(kind.propose for kind in ordered_kinds), *SHAPES)
    _check_user_columns(profile)
    if "answer" in user_columns:
        return (answered_question,)
    if "text2" in user_columns:
        return (labelled_pair,)
    if "label" not in user_columns:
        return (labelled_text, plain_text)
    if "text" in user_columns:
        return (labelled_text,)
    return (labelled_pair, labelled_text)


def _check_user_columns(profile: FileProfile) -> None:
    """Raise `RequestError` if a column is missing, or has too few or too many values for a label."""
    for role, path in profile.user_columns.items():
        if path not in profile.leaves:
            columns = f"(columns: {', '.join(profile.leaves) or 'none'}) {nearest(path, profile.leaves)}"
            option = role.removesuffix("2")
            message = f"--{option} {path}: no such column in {profile.path} {columns}"
            raise RequestError(message.rstrip())
    label = profile.user_leaf("label")
    if label is None:
        if "text2" in profile.user_columns:
            raise RequestError("--text twice is a pair of texts: name the column of its labels with --label")
        return
    count = len(label.values)
    if not 2 <= count <= MOST_VALUES:
        values = str(count)
        if count > MOST_VALUES:
            values = f"more than {MOST_VALUES}"
        raise RequestError(
            f"--label {label.path}: {values} values, expected 2 to {MOST_VALUES}; "
            "name a column of free text with --answer"
        )

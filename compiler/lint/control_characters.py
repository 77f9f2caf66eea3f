"""W206: control characters inside texts."""

import re

from tuneyard.compiler.lint import RowTexts, first_match, text_lint
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, marked

CONTROL_CHARACTER = ProblemCode(
    "W206",
    _("a control character inside the text"),
    _("Check the export that wrote it."),
    template=marked("a control character: {text}"),
)
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@text_lint(CONTROL_CHARACTER, signs=["\0"])
def control_characters(row: RowTexts) -> str:
    """The first control character in any text, other than tabs and ends of lines."""
    return first_match(CONTROL, row.texts)

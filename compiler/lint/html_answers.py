"""W214: scraps of web pages in answers."""

import re

from tuneyard.compiler.check.cleaning import HTML
from tuneyard.compiler.lint import RowTexts, first_match, text_lint
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, marked

HTML_ANSWER = ProblemCode(
    "W214",
    _("HTML in an answer"),
    _("Write `clean: html` into the spec, which removes it."),
    _("Answers with code, and questions about HTML, are not reported."),
    template=marked("HTML in an answer: {text}"),
)
# An answer that is a program, or a question for one: its tags are meant, and no scraps of a web page.
MARKUP = re.compile(
    r"```|<!doctype|<html|<\?php|html|\bcss\b|\breact\b|jsx|\bvue\b|angular|javascript|\bphp\b|xml|markup|\btags?\b"
    r"|\bweb ?(?:page|site|app|form)|网页|标签",
    re.IGNORECASE,
)


@text_lint(HTML_ANSWER, signs=["<"])
def html_answers(row: RowTexts) -> str:
    """The first tag in an answer."""
    tag = first_match(HTML, [text for text in row.answers if "<" in text])
    if tag and is_about_markup(row):
        return ""
    return tag


def is_about_markup(row: RowTexts) -> bool:
    """True if a row is about web pages or programs, so that its tags are meant."""
    return any(map(MARKUP.search, row.texts))

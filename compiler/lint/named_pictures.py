"""W226: pictures, videos and audio that a text names, which the model reads as words."""

import re

from tuneyard.compiler.lint import RowTexts, text_lint
from tuneyard.compiler.lint.html_answers import is_about_markup
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, marked

NAMED_PICTURE = ProblemCode(
    "W226",
    _("a picture, video or audio named in a text"),
    _("Write paths under `images` and `<image>` in the text (spec `media`)."),
    _("The model reads `<img>a.png</img>` or `<image>` without a file as words."),
    template=marked("a picture, video or audio named in a text, which is learned as text: {text}"),
)
# Pictures of Qwen-VL, of Phi, numbered ones, of LLaVA, and tags of a web page.
PICTURE = re.compile(
    r"<img>[^<>]{1,500}</img>|<(?:image|video|audio|img)(?:[ _-]?\d{1,4})?>|"
    r"<\|(?:image|video|audio)_\d{1,4}\|>|<image_?(?:placeholder|here|token)>|"
    r"<img\s[^<>]{1,1000}>",
    re.IGNORECASE,
)


@text_lint(NAMED_PICTURE, signs=["<"])
def named_pictures(row: RowTexts) -> str:
    """The first picture, video or audio that the model would get as its name."""
    picture = _lost_picture(row)
    if picture and is_about_markup(row):
        return ""
    return picture


def _lost_picture(row: RowTexts) -> str:
    """The first placeholder without a file, and the first tag with a file's name."""
    for text in row.texts:
        if "<" not in text:
            continue
        for match in PICTURE.finditer(text):
            is_tag_without_file = match[0][4:5].isspace() and "src" not in match[0].lower()
            if match[0] not in row.placeholders and not is_tag_without_file:
                return match[0]
    return ""

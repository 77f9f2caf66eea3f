"""Problem codes that files of several folders raise. All others are in the file that raises them."""

from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _

NOT_AN_OBJECT = ProblemCode(
    "E005",
    "a row that is not an object",
    "Write each row as a JSON object `{…}`.",
)
NO_RECORDS = ProblemCode(
    "E007",
    "neither a list of records nor an object of rows",
    "Of several lists, name the right one by `rows:` under `source:` in a spec.",
    "A column `order` of turns that may be read in two ways has this code, too.",
)
UNREADABLE_TABLE = ProblemCode(
    "E012",
    "a Parquet, Arrow, Excel or SQLite file that cannot be read",
    "Get the file again, or export it again.",
)
NO_ROWS = ProblemCode(
    "E013",
    "no rows",
    "The counts say why: the file is empty, or every row was dropped.",
)
MISSING_FIELD = ProblemCode(
    "E102",
    "a field that is missing in a row",
    "Add the field, or delete the row.",
)
NO_PREFERENCE = ProblemCode(
    "E111",
    "answers that no preference can be learned from",
    "Correct the answers, or say by `verdict` in the spec what the verdict means.",
    "Answers that are equal, blank or to different prompts; a verdict that names neither answer; a "
    "KTO mark that is neither true nor false.",
)
NOT_READ = ProblemCode(
    "W224",
    _("a folder, sheet or text that is not read"),
    "Add the folder as a further source; write other files as .jsonl.",
)

"""Problem codes that files of several folders raise. All others are in the file that raises them."""

from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _

NOT_AN_OBJECT = ProblemCode(
    "E005",
    _("a row that is not an object"),
    _("Write each row as a JSON object `{{…}}`."),
)
NO_RECORDS = ProblemCode(
    "E007",
    _("neither a list of records nor an object of rows"),
    _("Name the right list by `rows:` under `source:`."),
    _("Also an `order` of turns that may be read in two ways."),
)
UNREADABLE_TABLE = ProblemCode(
    "E012",
    _("a Parquet, Arrow, Excel or SQLite file that cannot be read"),
    _("Get the file again, or export it again."),
)
NO_ROWS = ProblemCode(
    "E013",
    _("no rows"),
    _("The counts say why: the file is empty, or every row was dropped."),
)
MISSING_FIELD = ProblemCode(
    "E102",
    _("a field that is missing in a row"),
    _("Add the field, or delete the row."),
)
NO_PREFERENCE = ProblemCode(
    "E111",
    _("answers that no preference can be learned from"),
    _("Correct the answers, or the spec's `verdict`."),
    _("They are equal, blank or to different prompts; or a verdict or KTO tag is unknown."),
)
NOT_READ = ProblemCode(
    "W224",
    _("a folder, sheet or text that is not read"),
    _("Add the folder as a further source."),
)

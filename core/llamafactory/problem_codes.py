"""Problem codes that `recipe check` and `data verify` raise."""

from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _

ALL_ROWS_CUT = ProblemCode("E353", _("`cutoff_len` cuts every row"), _("Raise `cutoff_len`."))

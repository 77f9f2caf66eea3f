"""The forms of files that `data init` recognises, in the order in which they are tried.

A column type names its forms (`ColumnType.shapes`). A form that no column type names is not proposed.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

from tuneyard.compiler.init.column_statistics import FileStatistics
from tuneyard.compiler.init.proposal import Proposal
from tuneyard.compiler.init.shapes.choices import choices_in_columns, listed_choices
from tuneyard.compiler.init.shapes.conversations import conversations, exchanges, plain_text
from tuneyard.compiler.init.shapes.labelled import labelled_pair, labelled_text
from tuneyard.compiler.init.shapes.message_rows import turn_rows
from tuneyard.compiler.init.shapes.pairs import pair_of_answers
from tuneyard.compiler.init.shapes.people import chats_of_people
from tuneyard.compiler.init.shapes.questions import (
    answered_by_calls,
    answered_question,
    summarized_text,
    two_texts,
)
from tuneyard.compiler.init.shapes.threads import refuse_loose_messages, refuse_trees


class Shape(NamedTuple):
    """A form of files.

    - `propose`: a whole spec for a file of this form, None for any other file. `ContentError` if the rows of
      the file are no examples, with the file to write instead.
    - `user_roles`: the sets of columns that a user may name (`text`, `text2`, `label`, `answer`) so that this
      form is tried. Without such columns `init` tries every form.
    """

    name: str
    propose: Callable[[FileStatistics], Proposal | None]
    user_roles: Collection[Collection[str]] = ()


SHAPES = (
    Shape("turns", conversations),
    Shape("pair of answers", pair_of_answers),
    Shape("listed choices", listed_choices),
    Shape("choices in columns", choices_in_columns),
    Shape("labelled pair", labelled_pair, ({"label"}, {"text", "text2", "label"})),
    Shape("question answered by calls", answered_by_calls),
    Shape("question", answered_question, ({"answer"}, {"text", "answer"}, {"text", "text2", "answer"})),
    Shape("exchanges", exchanges),
    Shape("turns in rows", turn_rows),
    Shape("chats of people", chats_of_people),
    Shape("trees of messages", refuse_trees),
    Shape("messages of threads", refuse_loose_messages),
    Shape("summary", summarized_text),
    Shape("labelled text", labelled_text, ({"label"}, {"text"}, {"text", "label"})),
    Shape("plain text", plain_text, ({"text"},)),
    Shape("two texts", two_texts),
)
"""The surest forms come first."""

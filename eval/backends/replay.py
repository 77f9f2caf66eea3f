"""The backend of --rescore: the outputs of an earlier run, without a model (`read_outputs`)."""

from tuneyard.core.errors import RequestError
from tuneyard.eval.backends import Backend


class Replay(Backend):
    """The outputs of an earlier run. Its run.json has the facts that a model would give."""

    def needs_model(self) -> RequestError:
        """The error for what kept outputs do not have."""
        return RequestError("--rescore has no model: this figure needs one, score without --rescore")

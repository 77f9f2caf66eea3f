"""A server with OpenAI's API. What else it offers is a matter of its dialect (`Server`)."""

from typing import TYPE_CHECKING

from tuneyard.eval.models.backends import BackendKind, ServerToReach

if TYPE_CHECKING:
    from tuneyard.eval.models.server import Server


def connect(server: ServerToReach) -> "Server":
    """The server's model."""
    from tuneyard.eval.models.open_server import connect as connect_to

    return connect_to(server.url, server.served_model, server.model, server.timeout)


openai = BackendKind("openai", "an OpenAI-compatible server.", connect=connect)

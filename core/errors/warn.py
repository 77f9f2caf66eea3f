"""Warnings on stderr, and the warnings that a command has printed already."""

import click

from tuneyard.core.language.messages import say


def warn(text: str) -> None:
    """Print a warning to stderr."""
    say(f"warning: {text}", to_stderr=True)


def warn_once(text: str) -> None:
    """Print a warning unless this command has printed the same one."""
    texts = reported()
    if text not in texts:
        texts.add(text)
        warn(text)


def reported() -> set[str]:
    """Texts that this command has reported, to add others to; empty and not kept outside a command."""
    context = click.get_current_context(silent=True)
    if context is None:
        return set()
    texts: set[str] = context.meta.setdefault(__name__, set())
    return texts

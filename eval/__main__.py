"""Score models, compare their answers, and report the result."""

import functools
from pathlib import Path
from typing import Literal

import click

from tuneyard.core.cli.main import LazyGroup
from tuneyard.core.cli.run import run_command
from tuneyard.core.language.message import _
from tuneyard.core.language.messages import warn
from tuneyard.core.plugins import load

GROUP: Literal["tuneyard.scoring_commands"] = "tuneyard.scoring_commands"
"""The entry point by which a package adds scoring commands (docs/extending.md)."""
FOLDER = Path(__file__).parent
FILES = [path.stem for path in FOLDER.glob("*.py") if path.stem[0] != "_"]
FOLDERS = [path.parent.name for path in FOLDER.glob("*/__main__.py")]
COMMANDS = {name: f"tuneyard.eval.{name}:cli" for name in FILES} | {
    name: f"tuneyard.eval.{name}.__main__:cli" for name in FOLDERS
}
"""A command is a file of this folder, or a folder in it that has a `__main__.py`."""


@functools.cache
def plugin_commands() -> dict[str, click.Command]:
    """Scoring commands of plug-ins by name. One whose name is taken is left out with a warning."""
    from importlib import metadata  # 30 ms that our own commands do not need

    if not metadata.entry_points(group=GROUP):
        return {}
    from tuneyard.eval.scoring.command import ScoringCommand

    commands: dict[str, click.Command] = {}
    for plugin in load(GROUP, ScoringCommand, _("function with @scoring_command")).values():
        name = plugin.value.name
        if name in COMMANDS or name in commands:
            warn(
                _(
                    "scoring command {name!r} of {package}: the name is taken",
                    name=name,
                    package=plugin.package,
                )
            )
        else:
            commands[name] = plugin.value
    return commands


cli = LazyGroup(
    "eval",
    lazy=COMMANDS,
    plugins=plugin_commands,
    examples=(
        "tuneyard eval nli --model models/demo-base --dataset demo_mnli_eval --limit 8 --out results/base",
        "tuneyard eval compare results/demo --out build/verdict",
    ),
    help=__doc__,
)


if __name__ == "__main__":
    run_command(cli)

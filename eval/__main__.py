"""`python -m eval` lists the commands that score models and compare them: each file beside this one."""

from pathlib import Path

import click

from tuneyard.core.cli import LazyGroup, examples
from tuneyard.core.errors import CLI, run

COMMANDS = {
    path.stem: f"tuneyard.eval.{path.stem}:cli"
    for path in Path(__file__).parent.glob("*.py")
    if path.stem[0] != "_"
}


EXAMPLES = examples(
    "tuneyard eval nli --model models/demo-base --dataset demo_mnli_eval --limit 8 --out results/base",
    "tuneyard eval compare results/demo --out build/verdict",
)


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings=CLI, epilog=EXAMPLES)
def cli() -> None:
    """Score models, compare what they answered, and report it."""


if __name__ == "__main__":
    run(cli)

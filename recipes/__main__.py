"""tuneyard recipe: check, plan, run and compare training recipes."""

import click

from tuneyard.core.cli import examples
from tuneyard.core.errors import CLI, run_command
from tuneyard.recipes import base, best, check, plan, train
from tuneyard.recipes.sweep import command as sweep

EXAMPLES = examples(
    "tuneyard recipe check recipes/demo-rte.yaml", "tuneyard recipe plan recipes/demo-rte.yaml --for A100"
)


@click.group(context_settings=CLI, epilog=EXAMPLES)
def cli() -> None:
    """Check, plan and run training recipes (ordinary LLaMA-Factory YAML)."""


for module in (check, plan, train, best, sweep, base):
    cli.add_command(module.command)

if __name__ == "__main__":
    run_command(cli)

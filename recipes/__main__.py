"""tuneyard recipe: write, check, plan, run and compare training recipes."""

import click

from tuneyard.core.cli.main import examples
from tuneyard.core.errors import CLI, run_command
from tuneyard.recipes import base, best, check, plan, train
from tuneyard.recipes.new import command as new
from tuneyard.recipes.sweep import command as sweep

EXAMPLES = examples(
    "tuneyard recipe new --dataset demo_rte_train --model models/demo-base --out build/rte.yaml",
    "tuneyard recipe check recipes/demo-rte.yaml",
)


@click.group(context_settings=CLI, epilog=EXAMPLES)
def cli() -> None:
    """Write, check, plan and run training recipes (ordinary LLaMA-Factory YAML)."""


for module in (new, check, plan, train, best, sweep, base):
    cli.add_command(module.command)

if __name__ == "__main__":
    run_command(cli)

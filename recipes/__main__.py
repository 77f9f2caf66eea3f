"""Write, check, plan and run training recipes (ordinary LLaMA-Factory YAML)."""

from tuneyard.core.cli.main import LazyGroup
from tuneyard.core.cli.run import run_command

COMMANDS = {
    name: f"tuneyard.recipes.{name}.__main__:command"
    for name in ("new", "check", "plan", "train", "best", "sweep", "base")
}
cli = LazyGroup(
    "recipe",
    lazy=COMMANDS,
    examples=(
        "tuneyard recipe new --dataset demo_rte_train --model models/demo-base --out build/rte.yaml",
        "tuneyard recipe check recipes/demo-rte.yaml",
    ),
    help=__doc__,
)


if __name__ == "__main__":
    run_command(cli)

"""`tuneyard`: the groups of commands of all packages, and the commands that span them.

A package's group is declared here and, for `python -m PACKAGE`, as its `COMMAND_GROUP`.
"""

import click

from tuneyard.core.cli.main import LazyGroup
from tuneyard.core.installation.checkout import version


def _print_version(ctx: click.Context, _unused: click.Parameter, is_set: bool) -> None:
    if is_set and not ctx.resilient_parsing:
        release = version()
        click.echo(f"tuneyard {release['version']} {release.get('commit', '')[:12]}".rstrip())
        ctx.exit()


def _explain(ctx: click.Context, parameter: click.Parameter, code: str | None) -> None:
    if code is not None and not ctx.resilient_parsing:
        from tuneyard.core.cli.explain import explain

        explain(ctx, parameter, code)


GROUPS = {
    "data": "tuneyard.compiler.cli:cli",
    "recipe": "tuneyard.recipes.__main__:cli",
    "adapter": "tuneyard.adapters.__main__:cli",
    "eval": "tuneyard.eval.__main__:cli",
    "demo": "tuneyard.demo:cli",
    "doctor": "tuneyard.core.cli.doctor:cli",
}
VERSION = click.Option(
    ["--version"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and the commit.",
)
EXPLAIN = click.Option(
    ["--explain"],
    metavar="CODE",
    is_eager=True,
    expose_value=False,
    callback=_explain,
    help="Explain a problem code, such as W204.",
)
cli = LazyGroup(
    "tuneyard",
    lazy=GROUPS,
    params=[VERSION, EXPLAIN],
    help="From a raw file to a decision: which adapter, or which merge of them, do I ship?",
    examples=("tuneyard demo --dry-run", "tuneyard data compile demo_rte"),
)

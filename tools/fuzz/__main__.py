"""python -m tools.fuzz --minutes 10 --seed 1   mutated and random files in turn; a finding ends in exit 1.

Run it after a change of a reader or of the compile loop.
"""

import sys
import time
from collections import Counter

import click

from tools.fuzz import differential, hostile, mutations, structures

KINDS = {"mutation": mutations.run, "differential": differential.run, "structure": structures.run}
KINDS["hostile"] = hostile.run
SHOWN = 20


@click.command()
@click.option("--minutes", type=float, default=1.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--case", metavar="KIND-SEED-NUMBER", help="Run one case again, as a finding names it.")
def main(minutes: float, seed: int, case: str | None) -> None:
    """Fuzz the compiler; a finding is one line that names the case, then what is wrong."""
    if case:
        wrong = KINDS[case.partition("-")[0]](case)
        click.echo("\n".join(wrong) or "nothing is wrong")
        sys.exit(bool(wrong))
    began, executions, findings = time.monotonic(), Counter[str](), 0
    while time.monotonic() - began < 60 * minutes:
        for kind, run in KINDS.items():
            name = f"{kind}-{seed}-{executions[kind]}"
            executions[kind] += 1
            wrong = run(name)
            findings += bool(wrong)
            if wrong and findings <= SHOWN:
                click.echo(f"--case {name}\n" + "\n".join(wrong))
    seconds = time.monotonic() - began
    each = ", ".join(f"{kind} {count}" for kind, count in executions.items())
    rate = sum(executions.values()) / seconds
    click.echo(f"{each}: {rate:.0f} a second for {seconds:.0f} s, {findings} findings")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()

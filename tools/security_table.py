"""python -m tools.security_table: write the table of commands and threats in SECURITY.md from the tests.

The tests in tests/safety say which threat they try on which command: `@pytest.mark.threat("links", "adapter
fuse", …)`, and the cases of testing/mailed_commands.py try several at once. `make reference` runs this.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from testing.commands import command_names
from testing.mailed_commands import CASES, NO_FILES
from tools.written import write_or_check
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.text.markdown import markdown_table

PAGE = ROOT / "SECURITY.md"
BEGIN, END = "<!-- made by `make reference` -->\n\n", "\n<!-- end -->"
THREATS = {
    "code": "runs code of a model folder",
    "modules": "runs a Python file of the current folder",
    "secrets": "makes us show a secret",
    "links": "takes or overwrites a file by a link",
    "writes": "writes outside of the output folder",
    "network": "connects to anything",
    "controls": "sends control characters to the terminal",
    "markup": "becomes code or markup in a file that we write",
    "limits": "takes unbounded memory or time",
}
"""What a hostile file may try, as the columns of the table."""
OF_EACH_CASE = ("code", "modules", "secrets", "writes", "network", "controls")
"""The threats that each case of testing/mailed_commands.py tries."""
TESTED, UNTESTED, NO_FILE = "✓", "not tested", "reads no file"


def tried() -> set[tuple[str, str]]:
    """Pairs of a command and a threat that a test tries on it. `ValueError` for an unknown one."""
    pairs = {(command, threat) for command in CASES for threat in OF_EACH_CASE}
    names = set(command_names())
    for path in sorted((ROOT / "tests/safety").glob("test_*.py")):
        for threat, *marked in _marks(path):
            unknown = [threat] if threat not in THREATS else [name for name in marked if name not in names]
            if unknown:
                raise ValueError(f"{path}: found {unknown[0]!r}, expected a threat, then commands")
            pairs |= {(name, threat) for name in marked}
    return pairs


def _marks(path: Path) -> Iterator[list[str]]:
    """The words of each `pytest.mark.threat(…)` in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.threat":
            yield [ast.literal_eval(word) for word in node.args]


def table() -> str:
    """A row for each command, and a column for each threat."""
    pairs = tried()
    rows = []
    for name in command_names():
        cells = [TESTED if (name, threat) in pairs else UNTESTED for threat in THREATS]
        if name in NO_FILES:
            cells = [NO_FILE] * len(THREATS)
        rows.append([name, *cells])
    legend = "\n".join(f"- **{threat}**: a file {meaning}" for threat, meaning in THREATS.items())
    return f"{legend}\n\n{markdown_table(['command', *THREATS], rows)}\n"


def page() -> str:
    """SECURITY.md with the table of today."""
    before, _unused, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    sys.exit(write_or_check("tools.security_table", {PAGE: page()}))

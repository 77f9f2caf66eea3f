"""What users read keeps to standard terms: the private words of before are in no text, help, message or page.

Words with an ordinary meaning beside the private one (set, right, stand, live) cannot be looked for.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.product import FILES, nodes

INSTEAD = {
    r"told apart|told from": "statistically tied with; no significant difference from",
    r"least shown|could have shown": "minimum detectable effect",
    r"rows needed": "additional examples needed",
    r"put aside|puts? .{1,20} aside": "rejected",
    r"ways? out": "fix",
    r"\b(?:compiled|staged) sets?\b": "compiled dataset",
    r"\bthe (?:room|house)s?\b": "package, command",
    r"\b(?:ours|theirs) ?(?:=|: ?)(?:ours|theirs)|\btook \w+ = ": "target column, source column",
    r"\b(?:trained|frozen) weights\b": "trainable, frozen parameters",
    r"of them learned|learned tokens": "loss tokens",
    r"\b(?:whole|broken) checkpoints?\b": "complete, incomplete checkpoint",
    r"to be had\b": "not found on, cannot reach",
    r"\bbooked\b|book a gpu": "reserve",
    r"holds this very|this very run": "this run already finished here",
    r"\bsurvives\b": "retained fraction",
    r"distance from the exact sum": "relative Frobenius error",
    r"how alike": "cosine similarity",
    r"a look inside": "inspect",
    r"any server of that kind": "OpenAI-compatible server",
    r"\bstumbles?\b": "transient error",
    r"\ba proofs?\b": "parity check",
    r"\b(?:right|wrong) answers?\b|answers? (?:is|are) (?:right|wrong)\b": "correct, incorrect",
    r"share right": "accuracy",
    r"share of the chosen label": "confidence",
    r"off by\b|by chance up to": "ECE; 95th percentile under perfect calibration",
    r"(?:is|are|was|were) laid beside": "is compared with",
    r"documents? 00\d": "the name of the source (recipes/README.md)",
}
ANY_OF_THEM = re.compile("|".join(INSTEAD))
PATTERNS = ["README.md", "CHANGELOG.md", "docs/**/*.md", "dataset_info/README.md", "recipes/**/*.md"]
PATTERNS += ["recipes/**/*.yaml", "compiler/**/*.yaml", "compiler/**/*.json", "core/**/*.json"]
PATTERNS += ["eval/**/*.yaml", "eval/report/page/*", "compiler/view/page/*", "Makefile", "pyproject.toml"]
PROSE = [path for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]


def private(text: str) -> dict[str, str]:
    """The private words of a text, each with what to write instead; names in backticks are no prose."""
    line = re.sub(r"\s+", " ", re.sub(r"`[^`]*`", "", re.sub(r"\n[ \t]*#+", " ", text))).lower()
    if not ANY_OF_THEM.search(line):
        return {}
    found = ((re.findall(word, line), instead) for word, instead in INSTEAD.items())
    return {hit: instead for hits, instead in found for hit in hits}


def spoken(path: Path) -> Iterator[str]:
    """The strings of a module, docstrings included, and everything after a `#` as one text."""
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
    yield "\n".join(re.findall("#.*", path.read_text(encoding="utf-8")))


def test_what_is_read_has_no_private_words() -> None:
    offenders = {}
    for path in PROSE:
        words = private(path.read_text(encoding="utf-8"))
        if words:
            offenders[str(path.relative_to(ROOT))] = words
    assert offenders == {}


def test_messages_and_comments_have_no_private_words() -> None:
    offenders = {}
    for path in FILES:
        words: dict[str, str] = {}
        for text in spoken(path):
            words |= private(text)
        if words:
            offenders[str(path.relative_to(ROOT))] = words
    assert offenders == {}


@pytest.mark.parametrize("text", ["put\n# aside", "A B told apart from C", "of document 001", "12 Way  outs"])
def test_a_private_word_is_found_over_lines_and_in_any_case(text: str) -> None:
    assert private(text)


def test_what_is_looked_for_is_in_texts(tmp_path: Path) -> None:
    assert len(PROSE) > 80 and len(FILES) > 150
    code = tmp_path / "code.py"
    code.write_text('"""Say."""\nx = f"a {1} b"  # why\n')
    assert list(spoken(code)) == ["Say.", "a ", " b", "# why"]

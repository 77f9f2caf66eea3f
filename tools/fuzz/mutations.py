"""Files of the corpus, changed at random: bytes, lines, tokens, names; and what must hold of the outcome."""

import gzip
import random
import re
from dataclasses import dataclass
from pathlib import Path

from tools.fuzz.differential import parquet
from tools.fuzz.execute import execute, scratch
from tools.fuzz.invariants import leftovers, miscounts, rows_of

CORPUS = Path(__file__).parent / "corpus"
TOKENS = [
    b'",', b'","', b'"', b"\\", b'\\"', b"\r\n", b"\r", b"\n\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\x00",
    b"\xff", b"\\ud800", b"\\ud83d\\ude00", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"12345678901234567890",
    b"1e999", b"-0.0", b"NaN", b"null", b"true", b"[]", b"{}", b"{", b"}", b"[", b"]", b",", b":", b"\t",
    b"'", b"&a", b"*a", b"!!python/name:os", b"<|im_end|>", b"[" * 300, b'{"a":' * 300, b"9" * 400,
    b"x" * 70_000,
]  # fmt: skip
OF_SPECS = [
    b"utf-16", b"utf-7", b"punycode", b"idna", b"cp037", b"any", b"list", b"turns", b"best", b"id", b"label",
    b"extra", b"answer", b"{q}", b"{nobody}", b"{", b".inf", b".nan", b"9" * 30, b"2020-13-45", b"!!int ''",
    b"stratify: q", b"group: a", b"by: hash", b"near: true", b"like: qa\n", b"ignore: [a]\n", b"sample: 1\n",
    b"drop_leaks: true\n", b"default: [1]", b"quoted: true", b'delimiter: "\\""', b"\n", b"  ", b"sharegpt",
    b"messages", b"text", b"alpaca", b"history", b"true", b"null", b"1.0", b"-1",
]  # fmt: skip
_WORD = re.compile(rb"[\w.-]+")
SUFFIXES = ("json", "jsonl", "ndjson", "csv", "tsv", "parquet", "jsonl.gz", "json.zst", "txt")


@dataclass
class Case:
    """A spec (by name or as text), a source file by its name and bytes, the options of the command."""

    spec: str
    spec_text: bytes | None
    name: str
    data: bytes
    command: list[str]


def draw(rng: random.Random) -> Case:
    """Return a file of the corpus, mutated."""
    folder = rng.choice(sorted(CORPUS.iterdir()))
    path = rng.choice(sorted(path for path in folder.iterdir() if path.suffix != ".yaml"))
    data, name = path.read_bytes(), path.name
    own = path.with_name("spec.yaml")
    spec_text = own.read_bytes() if own.exists() else None
    if spec_text and rng.random() < 0.7:
        spec_text = mutated(rng, spec_text, TOKENS + 2 * OF_SPECS)
    if not spec_text or rng.random() < 0.5:
        data = mutated(rng, data, TOKENS)
    if name.endswith(".jsonl") and rng.random() < 0.15:
        made = parquet(rows_of(name, data) or [])
        data, name = (made, "train.parquet") if made else (data, name)
    if rng.random() < 0.1:
        data, name = gzip.compress(data, mtime=0), f"{name}.gz"
    if rng.random() < 0.05:
        data = mutated(rng, data, TOKENS)
    if rng.random() < 0.05:
        name = f"train.{rng.choice(SUFFIXES)}"
    command = rng.choice([["compile"], ["compile"], ["compile", "--on-error", "reject"], ["check"], ["show"]])
    if command[0] == "compile" and rng.random() < 0.2:
        command = [*command, rng.choice(["--strict", "--json", "--limit=2"])]
    named = "qa" if path.parent.name.startswith(("good-", "bad-")) else path.parent.name
    return Case("spec.yaml" if spec_text else named, spec_text, name, data, command)


def mutated(rng: random.Random, data: bytes, tokens: list[bytes]) -> bytes:
    """Return data with up to four changes."""
    for _unused in range(rng.choice([0, 1, 1, 1, 2, 4])):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice([1, 1, 2, 8, 64, 1000]))
        lines = data.split(b"\n")
        word = rng.choice(list(_WORD.finditer(data)) or [None])
        start, end = word.span() if word else (at, to)
        flipped = bytes([data[at] ^ 1 << rng.randrange(8)]) if at < len(data) else b""
        changed = [
            data[:at] + rng.choice(tokens) + data[at:],
            data[:at] + rng.choice(tokens) + data[to:],
            data[:at] + data[to:],
            data[:to] + data[at:to] + data[to:],
            data[:at] + flipped + data[at + 1 :],
            data[:at],
            b"\n".join(rng.sample(lines, len(lines))),
            data.replace(b"\n", b"\r\n"),
            data + data,
            *3 * [data[:start] + rng.choice(tokens) + data[end:]],
            data[:start] + rng.choice(_WORD.findall(data) or [b""]) + data[end:],
        ]
        data = rng.choice(changed)
    return data


def run(seed: str) -> list[str]:
    """Execute one mutated case; return what is wrong with how it came out."""
    case = draw(random.Random(seed))
    with scratch() as folder:
        (folder / case.name).write_bytes(case.data)
        if case.spec_text is not None:
            (folder / case.spec).write_bytes(case.spec_text)
        command = [*case.command, case.spec, "--source", f"train={case.name}"]
        if case.command[0] == "show":
            return execute(*command).wrong
        outcome = execute(*command, "--out", "out")
        wrong = outcome.wrong + leftovers(folder / "out", outcome)
        if outcome.code == 0 and case.command[0] == "compile":
            rows = None if "--limit=2" in case.command else rows_of(case.name, case.data)
            counted = None if rows is None or case.spec_text else len(rows)
            wrong += miscounts(folder / "out", counted)
        return wrong

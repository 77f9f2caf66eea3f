"""Random specs of several parts: splits, samples, filters, cleaning, mixtures, histories and media.

Each row is made with a known fate (kept, filtered, duplicate, hostile line), so that the outcome is known by
construction. Rows are told apart by a number in their question.
"""

import io
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from tools.fuzz.differential import ALPHABET
from tools.fuzz.execute import Outcome, execute, scratch
from tools.fuzz.invariants import leftovers, miscounts, records_of
from tuneyard.compiler.columns.media import refuse_unusable

SPLITS = (
    "",
    "split: {test: 0.3, seed: 7}",
    "split: {test: 0.2, dev: 0.2, stratify: g, seed: 1}",
    "split: {test: 0.3, group: g, seed: 3}",
    "split: {test: 0.3, by: hash}",
)
HOSTILE = (  # lines that no reader may take, whatever stands around them
    '{"q": "Row 1?", "q": "Row 2?", "a": "x", "g": "u"}',
    '{"q": "Row 1?", "a": "x", "g": "u", "more": {"k": 1, "k": 2}}',
    '{"q": "Row \\ud800?", "a": "x", "g": "u"}',
    '{"q": "Row 1?", "a": "\\udfff", "g": "u"}',
    '{"q": "Row 1?", "a": "x", "g": "u", "k": 1e400}',
    '{"q": "Row 1?", "a": "x", "g": "u", "k": -1e400}',
    '{"q": "Row 1?", "a": "x", "g": NaN}',
    '{"q": "Row 1?", "a": "x", "g": "u"',
    "[1, 2]",
)
NUMBER = re.compile(r"Row (\d+)\?")
LONG = 60  # characters that every long row has, and no short one
Record = dict[str, Any]


def noise(rng: random.Random) -> str:
    """Text over the hostile alphabet without line ends at its ends, so that cleaning can be predicted."""
    return "".join(rng.choices(ALPHABET, k=rng.choice([0, 1, 3])))


def lines(rows: Iterable[object], hostile: Iterable[str] = ()) -> bytes:
    """JSON Lines of rows, then hostile lines."""
    return "\n".join([*map(json.dumps, rows), *hostile]).encode() + b"\n"


def numbers(records: Iterable[Record]) -> Counter[int]:
    """How often each row's number is in the questions of some records."""
    found: Counter[int] = Counter()
    for record in records:
        match = NUMBER.search(record["instruction"])
        found[int(match[1]) if match else -1] += 1
    return found


def compiled(folder: Path, *options: str) -> tuple[Outcome, list[str]]:
    """Compile `s.yaml` with rejected rows left out, and what is wrong whatever the spec."""
    outcome = execute("compile", "s.yaml", *options, "--out", "out", "--on-error", "reject")
    return outcome, outcome.wrong + leftovers(folder / "out", outcome)


def manifest_of(folder: Path) -> Record:
    """The manifest of the one compiled dataset."""
    (path,) = (folder / "out").glob("*/manifest.json")
    manifest: Record = json.loads(path.read_text(encoding="utf-8"))
    return manifest


def records_by_split(folder: Path) -> dict[str, list[Record]]:
    """Records of each split's alpaca file `t-SPLIT.jsonl`, or of `t.jsonl` under ""."""
    found = {}
    for path in sorted((folder / "out").glob("*/t*.jsonl")):
        found[path.stem.removeprefix("t").removeprefix("-")] = records_of(path)
    return found


def arranged(rng: random.Random) -> list[str]:
    """Splits, samples, filters, cleaning, duplicates and hostile lines of one source."""
    split, sample = rng.choice(SPLITS), rng.choice(["", "", "sample: 0.5", "sample: 4"])
    filtering = rng.choice(["", f"filter: {{min: {LONG}}}", "filter: {keywords: [zebra]}"])
    clean = rng.choice(["", "clean: strip", "clean: [nfc, strip]", "clean: unescape"])
    drop = rng.choice(["", "drop_duplicates: true"])
    rows, fates = [], Counter[str]()
    kept: list[int] = []
    for number in range(rng.randrange(3, 30)):
        long, keyword = rng.random() < 0.7, rng.random() < 0.7
        words = ["long " * (LONG // 5 + 1)] * long + ["Zebra"] * keyword
        question = f"Row {number}? {' '.join(words)}"
        row = {"q": question, "a": f"answer {number}", "g": rng.choice("uvw")}
        if clean and rng.random() < 0.5:
            row["q"] = f"  {row['q']}\t"
        rows.append(row)
        wanted = ("min" not in filtering or long) and ("keywords" not in filtering or keyword)
        fates["kept" if wanted else "filtered"] += 1
        kept += [number] * wanted
        if rng.random() < 0.15:
            rows.append(dict(row))
            again = "filtered" if not wanted else "duplicate" if drop else "kept"
            fates[again] += 1
            kept += [number] * (again == "kept")
    hostile = rng.sample(HOSTILE, rng.randrange(0, 4))
    name = "t-{split}.jsonl" if split else "t.jsonl"
    dataset = "t_{split}" if split else "t"
    spec = f"""
about: a
columns: {{q: {{names: [q], is: answer}}, a: {{names: [a], is: answer}}, g: {{names: [g], is: any}}}}
{split}
{sample}
{filtering}
{clean}
{drop}
write:
  - {{dataset: "{dataset}", file: "{name}", format: alpaca, instruction: "{{q}}", output: "{{a}}", keep: [g]}}
"""
    with scratch() as folder:
        (folder / "s.yaml").write_text(spec)
        (folder / "rows.jsonl").write_bytes(lines(rows, hostile))
        outcome, wrong = compiled(folder, "--source", "rows.jsonl")
        if wrong or outcome.code:
            refused = outcome.code == 1 and (not kept or (len(kept) == 1 and "0.5" in sample))  # half a row
            refused |= "stratify" in split or "group" in split or "test" in split  # too few rows of a value
            return wrong if refused or wrong else [f"exit {outcome.code} of {len(kept)} rows: {outcome.err}"]
        wrong = miscounts(folder / "out", len(rows) + len(hostile))
        counts = manifest_of(folder)["counts"]
        if counts["rejected"] != len(hostile):
            wrong.append(f"{counts['rejected']} rejected, {len(hostile)} hostile lines")
        dropped = Counter(counts["dropped"])
        if sum(dropped.values()) != fates["filtered"] + fates["duplicate"]:
            wrong.append(f"dropped {dict(dropped)}, expected {fates}")
        splits = records_by_split(folder)
        every = Counter[int]()
        for records in splits.values():
            every += numbers(records)
        if sample:
            if every - Counter(kept) or every.total() + counts["not_sampled"] != len(kept):
                wrong.append(f"sampled {every}, {counts['not_sampled']} not sampled, of {kept}")
        elif every != Counter(kept):
            wrong.append(f"wanted rows {sorted(kept)}, found {sorted(every.elements())}")
        if "group" in split:
            homes: dict[str, set[str]] = {}
            for part, records in splits.items():
                for record in records:
                    homes.setdefault(record["g"], set()).add(part)
            wrong += [f"group {group} in {parts}" for group, parts in homes.items() if len(parts) > 1]
        if "strip" in clean:
            texts = [record["instruction"] for records in splits.values() for record in records]
            wrong += [f"not stripped: {text!r}" for text in texts if text != text.strip()]
        return wrong


def mixed(rng: random.Random) -> list[str]:
    """A mixture of two or three sources in several layouts, with and without shuffle and filters."""
    names = ["qa", "pr", "io"][: rng.choice([2, 3])]
    keys = {"qa": ("question", "answer"), "pr": ("prompt", "response"), "io": ("instruction", "output")}
    shares = [0.5, 0.5] if len(names) == 2 else [0.5, 0.3, 0.2]
    total = rng.randrange(1, 40)
    parts, sources, wanted = [], {}, {}
    start = 0
    for name, share in zip(names, shares, strict=True):
        count = rng.randrange(1, 30)
        asked, answered = keys[name]
        rows = [
            {asked: f"Row {start + n}? {noise(rng)}", answered: f"part {name} {noise(rng)}."}
            for n in range(count)
        ]
        sources[f"{name}.jsonl"] = lines(rows)
        wanted[name] = range(start, start + count)
        start += count
        parts.append(f"    {name}: {{share: {share}, source: {{files: {name}.jsonl}}, as: {name}}}")
    shuffle = rng.choice(["", "  shuffle: 5\n"])
    spec = f"about: a\nmix:\n  total: {total}\n{shuffle}  parts:\n" + "\n".join(parts)
    spec += "\nwrite:\n  - {dataset: t, file: t.jsonl, format: alpaca}\n"
    with scratch() as folder:
        (folder / "s.yaml").write_text(spec)
        for file, data in sources.items():
            (folder / file).write_bytes(data)
        outcome, wrong = compiled(folder)
        if wrong or outcome.code:
            return wrong or [f"exit {outcome.code}: {outcome.err}"]
        wrong = miscounts(folder / "out", None)
        records = records_by_split(folder)[""]
        found = numbers(records)
        if max(found.values(), default=1) > 1:
            wrong.append(f"a row twice: {found}")
        if (
            all(total <= len(numbers_of_part) for numbers_of_part in wanted.values())
            and len(records) != total
        ):
            wrong.append(f"{len(records)} records, wanted {total} in all")
        for name, share in zip(names, shares, strict=True):
            drawn = [number for number in found if number in wanted[name]]
            most = min(len(wanted[name]), round(total * share) + 1)
            least = min(len(wanted[name]), max(0, round(total * share) - 1))
            if not least <= len(drawn) <= most:
                wrong.append(
                    f"{name}: {len(drawn)} drawn, wanted {share} of {total} out of {len(wanted[name])}"
                )
        for record in records:
            (number,) = numbers([record])
            part = next((name for name in names if number in wanted[name]), "none")
            if f"part {part} " not in record["output"]:
                wrong.append(f"row {number} has the answer {record['output']!r}")
        if not shuffle and list(found) != sorted(found):
            wrong.append(f"not in order: {list(found)}")
        return wrong[:2]


def kept_records(
    folder: Path, file: str, rows: list[Record], good: list[bool]
) -> tuple[list[Record], list[Record], list[str]]:
    """Compile `rows.jsonl` into `file`; returns the good rows, the written records, and what is wrong.

    No records are written if no row is good.
    """
    outcome, wrong = compiled(folder, "--source", "rows.jsonl")
    if wrong or outcome.code:
        none = outcome.code == 1 and not any(good)
        return [], [], wrong if wrong or none else [f"exit {outcome.code}: {outcome.err}"]
    wrong = miscounts(folder / "out", len(rows))
    (path,) = (folder / "out").glob(f"*/{file}")
    records = records_of(path)
    expected = [row for row, fine in zip(rows, good, strict=True) if fine]
    if len(records) != len(expected):
        wrong.append(f"wanted {len(expected)} records, found {len(records)}: {outcome.err}")
    return expected, records, wrong


def histories(rng: random.Random) -> list[str]:
    """Alpaca records with earlier turns and a system text, over the hostile alphabet."""
    rows: list[Record] = []
    good: list[bool] = []
    for number in range(rng.randrange(1, 8)):
        turns: Any = [[f"q {noise(rng)}.", f"a {noise(rng)}."] for _unused in range(rng.randrange(0, 4))]
        broken = rng.random() < 0.2
        if broken:
            turns = rng.choice([[["q"]], [["q", "a", "b"]], [["q", 3]], "q", [{"q": "a"}], [["q", None]]])
        row: Record = {"instruction": f"Row {number}? {noise(rng)}", "input": noise(rng), "output": "a."}
        rows.append({**row, "system": noise(rng), "history": turns})
        good.append(not broken)
    with scratch() as folder:
        (folder / "s.yaml").write_text("about: a\nlike: alpaca\n")
        (folder / "rows.jsonl").write_bytes(lines(rows))
        expected, found, wrong = kept_records(folder, "alpaca.json", rows, good)
        for row, record in zip(expected, found, strict=False):
            if any(record[key] != row[key] for key in row):
                wrong.append(f"wanted {row}\n found {record}")
        return wrong[:1]


def png(rng: random.Random) -> bytes:
    """A whole picture of a few pixels."""
    file = io.BytesIO()
    Image.new("RGB", (rng.randrange(1, 9), rng.randrange(1, 9))).save(file, "PNG")
    return file.getvalue()


def pictured(rng: random.Random) -> list[str]:
    """Conversations about images: whole, cut off, missing, too many or too few for their placeholders."""
    files: dict[str, bytes] = {}
    rows: list[Record] = []
    good: list[bool] = []
    for number in range(rng.randrange(1, 6)):
        count = rng.randrange(0, 3)
        names = [f"pictures/{number} {n}.png" for n in range(count)]
        files |= {name: png(rng) for name in names}
        fate = rng.choice(["whole"] * 4 + ["cut", "missing", "more", "fewer", "none"])
        placeholders = count
        if fate == "cut" and names:
            files[names[0]] = files[names[0]][: rng.randrange(1, 40)]
        elif fate == "missing" and names:
            del files[names[0]]
        elif fate == "more":
            placeholders += 1
        elif fate == "fewer" and count == 2:  # of none at all the compiler adds them
            placeholders -= 1
        else:
            fate = "whole"
        asked = f"{'<image>' * placeholders}Row {number}? {noise(rng)}"
        talk = [{"from": "human", "value": asked}, {"from": "gpt", "value": "a."}]
        rows.append({"conversations": talk, "images": names})
        good.append(fate == "whole")
    refuse_unusable.cache_clear()  # of the case before, whose files had the same names
    with scratch() as folder:
        (folder / "pictures").mkdir()
        (folder / "s.yaml").write_text("about: a\nlike: media\n")
        for name, data in files.items():
            (folder / name).write_bytes(data)
        (folder / "rows.jsonl").write_bytes(lines(rows))
        expected, found, wrong = kept_records(folder, "media.json", rows, good)
        for row, record in zip(expected, found, strict=False):
            texts = [turn["value"] for turn in record["conversations"]]
            pictures = [Path(path).name for path in record["images"]]
            if texts != [turn["value"] for turn in row["conversations"]]:
                wrong.append(f"wanted {row}\n found {record}")
            if pictures != [Path(name).name for name in row["images"]]:
                wrong.append(f"wanted the pictures {row['images']}, found {record['images']}")
        return wrong[:1]


KINDS: dict[str, Callable[[random.Random], list[str]]] = {
    "arranged": arranged,
    "mixed": mixed,
    "histories": histories,
    "pictured": pictured,
}


def run(seed: str) -> list[str]:
    """Compile one random case of one of the kinds; return what is wrong with what came out."""
    rng = random.Random(seed)
    return KINDS[rng.choice(list(KINDS))](rng)

"""A finished folder put in its place atomically: what may be replaced and what never, and its README.md."""

import contextlib
import fcntl
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tuneyard.adapters.base import Base
from tuneyard.adapters.store import SAVES, WEIGHTS, Adapter, find_folder, note, open_adapter
from tuneyard.adapters.weighted import WeightedAdapter, parse_reference_weight
from tuneyard.core.base_models import INDEX
from tuneyard.core.documents import markdown_table, parse_yaml
from tuneyard.core.errors import ContentError, RequestError, TuneyardError
from tuneyard.core.files import (
    OURS,
    abandoned,
    folder_size,
    locked,
    make_folder,
    named,
    publish,
    recovered,
    staging,
    versions,
)

Check = Callable[[], Path]  # gives the output resolved; `RequestError` where it may not be written
Progress = Callable[[int], object]  # is given bytes

# Written beside an adapter by LLaMA-Factory: the prompt that it was trained with.
TOKENIZER = (
    "added_tokens.json", "chat_template.jinja", "merges.txt", "special_tokens_map.json", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json", "vocab.json",
)  # fmt: skip
CARD = "README.md"
MARK = "written by Tuneyard"  # in the card of every adapter or model that we write
_SHARD = re.compile(r"(adapter_)?model(-\d+-of-\d+)?\.safetensors")
SOURCE = re.compile(r"^\| (.+?) \| [^|]+ \| [^|]+ \| `[0-9a-f]{64}` \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def read_card(card: Path) -> str:
    """Return a README.md as text, "" where there is none."""
    return card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""


def check_output(out: Path, inputs: Sequence[Path], marker: str, *, force: bool) -> Path:
    """Return `out` resolved; `RequestError` where writing there could cost data.

    Refused: an output that is, holds or lies in an input; one that exists, without `force`; with
    `force` anything but a folder of files that we write, with `marker` and our card among them.
    """
    target = out.resolve()
    sources = [folder.resolve() for folder in inputs]
    for folder, source in zip(inputs, sources, strict=True):
        if target == source or target in source.parents or source in target.parents:
            raise RequestError(f"{out}: output over an input ({folder}); choose another --out")
    foreign = _foreign(target, marker, sources) if target.exists() else ""
    check_free(out, force=force, replaceable=not foreign)
    if foreign:
        raise RequestError(
            f"{out}: found {foreign}: no folder that this command wrote, --force will not replace it; "
            "choose another --out"
        )
    return target


def check_free(out: Path, *, force: bool, replaceable: bool) -> None:
    """Raise `RequestError` if something is at `out`, without `force`, naming a killed run's rest.

    `force` is offered only if what is there is `replaceable`: written by the same command.
    """
    target = out.resolve()
    if not target.exists() or force:
        return
    rests = [path for path in abandoned(target.parent) if path.name.startswith(f".{target.name}.")]
    sizes = [f"beside it {path}, {folder_size(path) / 1e9:.2f} GB of a killed run" for path in rests]
    found = "".join(f" ({told})" for told in sizes)
    fix = "choose another --out, or replace it with --force" if replaceable else "choose another --out"
    raise RequestError(f"{out}: already there{found}; {fix}")


def _foreign(target: Path, marker: str, sources: Iterable[Path]) -> str:
    """Return in words what we did not write at `target` nor carry to it from `sources`, "" without any."""
    if not target.is_dir():
        return "a file"
    for name in (marker, CARD):
        if not (target / name).is_file():
            return f"a folder without {name}"
    inner = next((path.name for path in target.iterdir() if path.is_dir()), None)
    if inner:
        return f"a folder {inner} in it"
    if MARK not in read_card(target / CARD):
        return f"a {CARD} that is not ours"
    carried = {path.name for source in sources if source.is_dir() for path in source.iterdir()}
    ours = carried | {marker, CARD, INDEX, *TOKENIZER}
    others = {path.name for path in target.iterdir() if not _SHARD.fullmatch(path.name)} - ours
    return f"{min(others)} in it" if others else ""


@contextlib.contextmanager
def staged_for(check: Check) -> Iterator[Path]:
    """Yield a staged folder; what killed runs left beside the target is removed before.

    The folder, or the file of the target's name that the block put into it, takes the target's place
    when the block ends without an error (see `_put`).
    """
    target = check()
    _clean_up(target.parent)
    with staging(target) as staged:
        yield staged
        file = staged / target.name
        _put(file if file.is_file() else staged, target, check)


@contextlib.contextmanager
def resumable(check: Check) -> Iterator[Path]:
    """Yield `.NAME.tuneyard-fusing` beside the target, kept by an interruption and resumed by the next run.

    It takes the target's place when the block ends without an error, and goes away where the
    content was wrong. `RequestError` while another run holds it.
    """
    target = check()
    folder = target.with_name(f".{target.name}.{OURS}fusing")
    make_folder(target.parent)
    with named(target), contextlib.ExitStack() as stack:
        with locked(target.parent):  # so that no other run takes it for one of the dead
            if folder.is_symlink():  # nobody's run: what a link leads to would be emptied
                raise RequestError(f"{folder}: a link, where an interrupted run keeps a folder; remove it")
            folder.mkdir(exist_ok=True)
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RequestError(f"{target}: another run is writing it") from error
        _clean_up(target.parent)
        try:
            yield folder
            _put(folder, target, check)
        except TuneyardError:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _put(staged: Path, target: Path, check: Check) -> None:
    """Put a finished folder or file in its place, where `check` still lets it; else keep it beside."""
    with locked(target.parent):
        try:
            check()
        except RequestError as error:
            stem, suffix = (target.stem, target.suffix) if staged.is_file() else (target.name, "")
            names = (target.with_name(f"{stem}-{n}{suffix}") for n in itertools.count(2))
            beside = next(path for path in names if not path.exists())
            publish(staged, beside)
            kept = f"it came while this ran, whose result is kept as {beside}"
            raise RequestError(f"{error}; {kept}") from error
        publish(staged, target)


def require_space(target: Path, needed: int) -> None:
    """Raise `RequestError` where less than `needed` bytes are free; what killed runs left counts as free."""
    there = next(path for path in target.parents if path.exists())
    free = shutil.disk_usage(there).free + sum(map(folder_size, abandoned(target.parent)))
    if free < needed:
        raise RequestError(f"{target}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")


def _clean_up(parent: Path) -> None:
    """Drop what killed runs left in `parent`, and say so."""
    with recovered(parent) as dropped:
        for name, size in dropped.items():
            note(f"removed {parent / name}, {size / 1e9:.2f} GB that a killed run left")


def carry_tokenizer(sources: list[Path], staged: Path, otherwise: str) -> None:
    """Copy tokenizer and chat template where all sources that have them agree; of others say `otherwise`."""
    found = {name: [folder / name for folder in sources if (folder / name).is_file()] for name in TOKENIZER}
    differing = [name for name, files in found.items() if len({file.read_bytes() for file in files}) > 1]
    for name, files in found.items():
        if files and name not in differing:
            shutil.copyfile(files[0], staged / name)
    if differing:
        note(f"{otherwise}, since the adapters differ in them: {', '.join(differing)}")


def card(made_of: tuple[list[WeightedAdapter], Base | None], head: str, title: str, *sections: str) -> str:
    """Return a card: front matter, title, introduction, recipe, adapters, result in all and by module."""
    weighted, model = made_of
    introduction, how, result, table = sections
    base = base_name(weighted, model)
    named = "# base_model: not named by the adapters"
    if base is not None:
        named = f"base_model: {base if re.fullmatch(r'[A-Za-z0-9_./-]+', base) else json.dumps(base)}"
    recipe = how + "".join(["adapters:\n", *(f"  - {_item(item)}\n" for item in weighted)])
    header = ["adapter", "weight", "rank", f"SHA-256 of {WEIGHTS}", "digest (weights and config)"]
    pairs = [(item.adapter, item.weight) for item in weighted]
    title += " " + " and ".join(f"{one.name} ({weight:g})" for one, weight in pairs)
    rows = [  # each as `SOURCE` reads it
        [one.name, f"{weight:g}", str(one.lora.rank), f"`{one.weights_sha256}`", f"`{one.digest}`"]
        for one, weight in pairs
    ]
    front, adapters = f"---\n{named}\n{head}\n---", markdown_table(header, rows)
    above = [front, f"# {title}", introduction, f"```yaml\n{recipe}```", adapters, result]
    return "\n\n".join([*above, f"{table}\n"])


def base_name(weighted: Iterable[WeightedAdapter], base: Base | None) -> str | None:
    """Return the base as the adapters name it, or the folder given where they name it differently."""
    named = list(dict.fromkeys(item.adapter.lora.base for item in weighted if item.adapter.lora.base))
    return str(base.folder) if base and len(named) > 1 else next(iter(named), None)


def _item(item: WeightedAdapter) -> str:
    """Return `NAME=WEIGHT`, or the folder's path where the name alone would not find it."""
    folder = item.adapter.folder
    found = (SAVES / item.adapter.name).resolve() == folder.resolve()
    path = str(folder) if "/" in str(folder) else f"./{folder}"
    text = f"{item.adapter.name if found else path}={item.weight!r}"
    return text if re.fullmatch(r"[\w./][\w./=+-]*", text) else json.dumps(text, ensure_ascii=False)


def made_with() -> str:
    """Return the mark by which a card is known as ours, with the versions that matter."""
    return f"{MARK} with " + ", ".join(f"{name} {found}" for name, found in versions("numpy").items())


def made_from(card: Path) -> Iterator[Adapter | TuneyardError]:
    """Yield each adapter that a card of ours names, or the error where it is gone or changed."""
    text = read_card(card)
    if MARK not in text:
        return
    recipe = re.search(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    listed: Any = parse_yaml(recipe[1], str(card)).value if recipe else {"adapters": []}
    found = SOURCE.findall(text)
    named = [parse_reference_weight(item)[0] for item in listed["adapters"]] or [name for name, _ in found]
    for reference, (_, digest) in zip(named, found, strict=False):
        try:
            adapter = open_adapter(find_folder(reference).resolve(), with_base=True)
            if adapter.digest != digest:
                raise ContentError(f"{reference} changed since it was merged")
            yield adapter
        except TuneyardError as error:
            yield error

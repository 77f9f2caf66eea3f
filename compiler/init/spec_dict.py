"""A proposal as the mapping that is dumped as the YAML of a spec."""

import re
import unicodedata
from collections.abc import Mapping

from tuneyard.compiler.init.column_statistics import MOST_VALUES, FileStatistics, Leaf
from tuneyard.compiler.init.like import BundledSpec
from tuneyard.compiler.init.proposal import Proposal
from tuneyard.compiler.read.remote import SourcePath
from tuneyard.compiler.spec.file import Raw, Source
from tuneyard.core.datasets.column_meanings import MEDIA, meaning
from tuneyard.core.language.message import translated

REPEATED = 0.01
MOST_WITHOUT = 0.01
"""The share of rows that may have no id of their group."""
FEWEST_IDS = 9  # so that a tenth of the rows may be whole groups
ENDINGS = re.compile(
    r"(?i)(\.(json|jsonl|ndjson|csv|tsv|parquet|txt|md|arrow|xlsx|zip|db|sqlite3?))?(\.(gz|zst))?$"
)
_KEY = re.compile(
    r"(?:^|[_ .-])(?:id|key|uid|group|title|dialog|dialogue|conversation|chat|thread|session|ticket"
    r"|customer|client|patient|user|student|participant)$|编号$|标题$|客户$|患者$",
    re.IGNORECASE,
)


def proposed_spec(
    statistics: FileStatistics,
    proposal: Proposal,
    base: BundledSpec | None,
    shares: Mapping[str, float],
    stem: str,
) -> Raw:
    """The spec as a mapping in the order of its lines. `stem` begins the names of its dataset.

    `shares` are those of the splits that are drawn, {} for none.
    """
    spec: Raw = {"about": translated(proposal.about)}
    columns: Raw = {name: column.in_spec() for name, column in proposal.columns.items()}
    column_by_path: dict[str, str] = {}
    if base is not None:
        spec["like"] = base.spec.name
        columns = dict(base.changes)
        column_by_path = {path: name for name, path in base.paths.items()}
    split, group = _split(statistics, proposal, shares, column_by_path)
    if group:
        columns["group"] = group
    source = _source(str(statistics.path), statistics.source)
    if proposal.turns:
        source["turns"] = proposal.turns
    spec["source"] = source
    if columns:
        spec["columns"] = columns
    unseen = _unseen(statistics, proposal)
    if unseen:
        spec["ignore"] = unseen
    if proposal.labels:
        spec["labels"] = proposal.labels
    if split:
        spec["split"] = split
    name = stem
    if statistics.source.splits or split:
        name = f"{stem}_{{split}}"
    output = {"dataset": name, "file": f"{name}.jsonl"}
    if base is None:
        output |= proposal.write
    spec["write"] = [output]
    return spec


def with_keys(spec: Raw, keys: Raw) -> Raw:
    """A spec with further keys before its split and its output."""
    changed: Raw = {}
    for key, value in spec.items():
        if key in ("split", "write"):
            changed |= keys
        changed[key] = value
    return changed


def _unseen(statistics: FileStatistics, proposal: Proposal) -> list[str]:
    """The columns of images, videos and audios, if the user named others: the model will not see them."""
    if not statistics.user_columns:
        return []
    used_paths = {column.path for column in proposal.columns.values()}
    names = statistics.filled_columns() - used_paths
    return sorted(name for name in names if meaning(name) in MEDIA)


def _source(path: str, source: Source) -> Raw:
    """The `source:` of a spec: its files, and each setting that differs from its default."""
    settings: Raw = {"files": path}
    for name, value in source._asdict().items():
        if value != getattr(Source(), name):
            settings[name] = value
    if source.splits and not source.files:
        settings["files"] = dict.fromkeys(source.splits, (path,))
    if len(source.form) == 1:
        settings["form"] = source.form[0]
    if "" in source.rows:
        steps = source.rows[""]
        settings["rows"] = steps[0] if len(steps) == 1 else steps
    return settings


def stem_of_file(path: SourcePath) -> str:
    """A dataset's name from a file's: small letters, digits and low lines, a letter first."""
    plain = unicodedata.normalize("NFC", ENDINGS.sub("", path.name)).lower()
    name = re.sub(r"[\W_]+", "_", plain).strip("_")
    return name if name[:1].isalpha() else f"data_{name}".rstrip("_")


def _split(
    statistics: FileStatistics, proposal: Proposal, shares: Mapping[str, float], names: Mapping[str, str]
) -> tuple[Raw, Raw]:
    """The `split` of a spec, and the column of ids that it goes by, if one is to be added.

    Rows with the same prompt or id stay on one side. `names` are the columns of a bundled spec by their path.
    The seed is chosen when the rows have been read (`split_seed`).
    """
    if not shares:
        return {}, {}
    split: Raw = dict(shares)
    column: Raw = {}
    name, leaf = _group(statistics, proposal)
    if leaf is not None:
        if name == "group":
            type_name = "any" if leaf.value_type == "number" else "extra"
            column = {"names": [leaf.path], "is": type_name}
        else:
            name = names.get(leaf.path, name)
        split["group"] = name
    return {**split, "by": "hash", "seed": 1}, column


def _group(statistics: FileStatistics, proposal: Proposal) -> tuple[str, Leaf | None]:
    """The column of the prompt that repeats, otherwise one of ids under the new name `group`."""
    prompts = {name: leaf for name, leaf in proposal.prompts(statistics).items() if leaf.value_type == "text"}
    candidates = list(prompts.items())
    used_leaves = [*prompts.values(), proposal.answer(statistics)]
    for leaf in statistics.leaves.values():
        is_key = _KEY.search(leaf.path) and leaf.value_type in ("text", "number")
        if proposal.turns:  # the rows of a conversation become one, with no other column
            is_key = leaf.path == proposal.turns.get("by")
        if is_key and leaf not in used_leaves:
            candidates.append(("group", leaf))
    for name, leaf in candidates:
        distinct = len(leaf.hashes)
        fewest = FEWEST_IDS if name == "group" else MOST_VALUES
        rows_without = statistics.rows - leaf.filled  # they stay together, too
        is_complete = rows_without <= max(1, MOST_WITHOUT * statistics.rows) and distinct > fewest
        if leaf.value_type == "number" and leaf.value_types.total() < statistics.rows:
            is_complete = False  # a row may have null as its number, and must have the column
        if is_complete and statistics.rows - distinct > REPEATED * statistics.rows:
            return name, leaf
    return "", None

"""Kinds of columns: which stand in a record beside its texts, what a value of each may be."""

from collections.abc import Collection, Mapping

from tuneyard.core.prompt import PLACEHOLDERS as PLACEHOLDERS

PAIR = ("chosen", "rejected")
KTO = "kto"
HISTORY = "history"
DIALOGUES = ("turns", *PAIR)
RECORDED = (*PLACEHOLDERS, *PAIR, KTO, HISTORY)
CLEANED = ("text", "answer", "extra")
NESTED = ("list", "turns", "best", "tools", HISTORY, *PLACEHOLDERS, *PAIR)
# templates that an output's texts are written by, where no column of turns gives them
TEXTS = {"alpaca": ("instruction", "input"), "sharegpt": ("user",), "messages": ("user",), "text": ("text",)}
CODES = {**dict.fromkeys(PLACEHOLDERS, "E110"), **dict.fromkeys((*PAIR, KTO), "E111")}


def check_kinds(kinds: Mapping[str, str], *, texts: bool, answered: bool, formats: Collection[str]) -> None:
    """Refuse columns (kind by name) that outputs, some of them texts or answered, cannot hold."""
    beside = {name: kind for name, kind in kinds.items() if kind in RECORDED}
    first, turns = next(iter(beside), ""), "turns" in kinds.values()
    if beside and texts:
        raise ValueError(
            f"column {first}: neither a mixture nor a text for pretraining holds {beside[first]}"
        )
    if HISTORY in kinds.values() and (turns or {*formats} != {"alpaca"}):
        name = next(name for name, kind in kinds.items() if kind == HISTORY)
        raise ValueError(f"column {name}: history stands beside the question of an alpaca record alone")
    if "alpaca" in formats and beside and turns:
        what = "alpaca leaves turns out that it may be of; write sharegpt or messages"
        raise ValueError(f"column {first}: {what}")
    strange = next((name for name, kind in kinds.items() if kind == "tools" and name != "tools"), "")
    if strange:
        raise ValueError(f"column {strange}: `is: tools` is for the column `tools`: rename it")
    pair = sorted(kind for kind in beside.values() if kind in PAIR)
    if pair and (pair != [*PAIR] or answered):
        raise ValueError(
            "chosen and rejected: expected a column of each, in place of `output` and `assistant`"
        )

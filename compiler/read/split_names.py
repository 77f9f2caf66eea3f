"""The split that the name of a file, folder or sheet names: `rte-eval.jsonl`, `测试集.csv`, `test/0001.json`.

A split's name is a whole word: `contest`, `latest` and `developers` name none.
"""

import re
from pathlib import PurePath

from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.language.han import HAN

EVAL, TEST = "eval", "test"
SPLIT_WORDS = {
    TRAIN_SPLIT: ("train", "training", "训练"),
    EVAL: (
        *("eval", "evaluation", "dev", "val", "valid", "validation", "validate", "validations"),
        *("holdout", "heldout", "验证", "校验", "评估", "评测", "测评"),
    ),
    TEST: ("test", "测试"),
}
"""The words for each split, in lower case."""
_SPLIT_OF_WORD = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_DATA = "set|data|dataset|split"
_TESTING = "testing"
"""The word next to `training`. In a longer name it is a topic: software-testing."""
_LATIN = "|".join(sorted((word for word in _SPLIT_OF_WORD if word.isascii()), key=len, reverse=True))
_LATIN_WORD = re.compile(rf"({_LATIN})({_DATA})?")
_JOINED_WORDS = re.compile(rf"(?:{_LATIN}){{2,}}(?:{_DATA})?")
"""`trainval`: the rows of several splits."""
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_HAN = "|".join(word for word in _SPLIT_OF_WORD if not word.isascii())
_HAN_WORD = re.compile(rf"({_HAN})(集合|数据|样本)?|.*?({_HAN}|开发|留出)(数据)?集")
"""测试 alone or with a word for data. In a longer word only 测试集: 软件测试 is a topic."""
_WORDS = rf"[{HAN}]+|[^\W\d_{HAN}]+"  # a text: with these classes it is slow to compile
_HELD_OUT = re.compile(r"(?<![^\W\d_])(hold|held)[\W_]out(?![^\W\d_])", re.IGNORECASE)
_VERSION = re.compile(r"v?\d+")
_GENERIC = {
    *_DATA.split("|"),
    "datasets",
    "file",
    "files",
    "row",
    "rows",
    "sample",
    "samples",
    "json",
    "jsonl",
}


def splits_named_in(name: str) -> tuple[str, ...]:
    """The splits (train, eval, test) that the words of a name name, each once: `data_test_v2` → (test,)."""
    splits: dict[str, bool] = {}
    words = re.findall(_WORDS, _HELD_OUT.sub(r"\1out", name))
    lower_words = set(map(str.lower, words))
    if _TESTING in lower_words and _GENERIC.issuperset(lower_words - {_TESTING, "v"}):
        return (TEST,)
    for word in words:
        splits |= dict.fromkeys(_splits_of_word(word), True)
    return tuple(splits)


def split_of_folder(name: str) -> str:
    """The split that a folder is named like, "" if none: `test`, `test_data`, `rte-test`, `dev_2024`.

    Only the last word counts, next to words for data and versions. Folders have topics and projects as names:
    `test-questions` and `dev-tools` are none. A hidden folder has no rows.
    """
    if name.startswith("."):
        return ""
    words = re.split(r"[\W_]+", _HELD_OUT.sub(r"\1out", name))
    words = [word for word in words if word and not _VERSION.fullmatch(word.lower())]
    splits = {split for word in words for split in _splits_of_word(word)}
    if len(splits) != 1:
        return ""
    words_of_topic = [word for word in words if word.lower() not in _GENERIC]
    if not words_of_topic:
        return ""
    return next(iter(_splits_of_word(words_of_topic[-1])), "")


def stem_of_data(name: str) -> str:
    """The file name without the suffixes of its format: `my.test.json.gz` → `my.test`."""
    path = PurePath(name)
    if path.suffix.lower() in (".gz", ".zst"):
        path = path.with_suffix("")
    return path.stem


def _splits_of_word(word: str) -> tuple[str, ...]:
    """The splits of a whole word, () if it names none. `dataValidation` ends in one, `DevOps` does not."""
    lower_word = word.lower()
    match = _LATIN_WORD.fullmatch(lower_word)
    if match:
        return (_SPLIT_OF_WORD[match[1]],)
    match = _HAN_WORD.fullmatch(lower_word)
    if match:
        return (_SPLIT_OF_WORD.get(match[1] or match[3], EVAL),)
    if _JOINED_WORDS.fullmatch(lower_word):
        return tuple(dict.fromkeys(_SPLIT_OF_WORD[each] for each in re.findall(_LATIN, lower_word)))
    parts = [part.lower() for part in _CAMEL_CASE.split(word)]
    while len(parts) > 1 and parts[-1] in _GENERIC:
        parts.pop()
    if len(parts) == 1 and parts[0] == lower_word:
        return ()
    if not _splits_of_word(parts[-1]):
        return ()
    splits = [split for part in parts for split in _splits_of_word(part)]
    return tuple(dict.fromkeys(splits))

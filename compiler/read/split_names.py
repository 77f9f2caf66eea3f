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
        *("eval", "evaluation", "dev", "val", "valid", "validation", "holdout", "heldout"),
        *("验证", "评估", "评测"),
    ),
    TEST: ("test", "测试"),
}
"""The words for each split, in lower case."""
_SPLIT_OF_WORD = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_DATA = "set|data|dataset|split"
_TESTING = "testing"
"""The word next to `training`. In a longer name it is a topic: software-testing."""
_LATIN_WORD = re.compile(rf"({'|'.join(word for word in _SPLIT_OF_WORD if word.isascii())})({_DATA})?")
_HAN = "|".join(word for word in _SPLIT_OF_WORD if not word.isascii())
_HAN_WORD = re.compile(rf"({_HAN})(集合|数据|样本)?|.*?({_HAN}|开发|留出)(数据)?集")
"""测试 alone or with a word for data. In a longer word only 测试集: 软件测试 is a topic."""
_WORDS = rf"[{HAN}]+|[^\W\d_{HAN}]+"  # a text: with these classes it is slow to compile
_HELD_OUT = re.compile(r"(?<![^\W\d_])(hold|held)[\W_]out(?![^\W\d_])")
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
    splits = {}
    words = re.findall(_WORDS, _HELD_OUT.sub(r"\1out", name.lower()))
    if _TESTING in words and _GENERIC.issuperset(set(words) - {_TESTING, "v"}):
        return (TEST,)
    for word in words:
        split = _split_of_word(word)
        if split:
            splits[split] = True
    return tuple(splits)


def split_of_folder(name: str) -> str:
    """The split that a folder is named like, "" if none: `test`, `test_data`, `rte-test`, `dev_2024`.

    Only the last word counts, next to words for data and versions. Folders have topics and projects as names:
    `test-questions` and `dev-tools` are none.
    """
    words = re.split(r"[\W_]+", _HELD_OUT.sub(r"\1out", name.lower()))
    words = [word for word in words if word and not _VERSION.fullmatch(word)]
    splits = {_split_of_word(word) for word in words} - {""}
    if len(splits) != 1:
        return ""
    words_of_topic = [word for word in words if word not in _GENERIC]
    return _split_of_word(words_of_topic[-1]) if words_of_topic else ""


def stem_of_data(name: str) -> str:
    """The file name without the suffixes of its format: `my.test.json.gz` → `my.test`."""
    path = PurePath(name)
    if path.suffix.lower() in (".gz", ".zst"):
        path = path.with_suffix("")
    return path.stem


def _split_of_word(word: str) -> str:
    """The split of a whole word, "" if it names none."""
    match = _LATIN_WORD.fullmatch(word)
    if match:
        return _SPLIT_OF_WORD[match[1]]
    match = _HAN_WORD.fullmatch(word)
    if match:
        return _SPLIT_OF_WORD.get(match[1] or match[3], EVAL)
    return ""

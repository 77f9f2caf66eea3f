"""What the loss is measured on is what LLaMA-Factory trains on: ids and labels, cut alike."""

import math
from functools import partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.integration.templates import PROBES, TEMPLATES
from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory.prompt import chat_renderer
from tuneyard.core.llamafactory.prompt.supervision import (
    _fit,
    chat_turns,
    llamafactory_turns,
    supervise,
    supervise_text,
)
from tuneyard.eval.text import held_out

pytestmark = pytest.mark.slow  # importing LLaMA-Factory takes 10 s
ANSWER = {"role": "assistant", "content": "Yes: 不确定, all of it. " * 3}


def trained(tokenizer, talk, template, cutoff):
    """Ids and labels of LLaMA-Factory's own preprocessing."""
    from llamafactory.data.processor import SupervisedDatasetProcessor
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments

    arguments = DataArguments(template=template, cutoff_len=cutoff, enable_thinking=False)
    found = get_template_and_fix_tokenizer(tokenizer, arguments)
    processor = SupervisedDatasetProcessor(found, tokenizer, None, arguments)
    system = talk[0]["content"] if talk[0]["role"] == "system" else None
    turns = [m for m in talk if m["role"] != "system"]
    return processor._encode_data_example(turns, [ANSWER], system, None, [], [], [])


@pytest.mark.parametrize("talk", PROBES.values(), ids=PROBES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_and_labels_equal_llamafactorys(tokenizer, name, talk) -> None:
    by_jinja = partial(chat_turns, tokenizer, chat_renderer(tokenizer, TEMPLATES[name]))
    expected = {cutoff: trained(tokenizer, talk, name, cutoff) for cutoff in (7, 60, 90, 4096)}
    whole_ids, _ = expected[4096]
    for turns in (by_jinja, llamafactory_turns(tokenizer, name)):
        for cutoff, (ids, labels) in expected.items():
            supervised = supervise(turns([*talk, ANSWER]), cutoff)
            assert (supervised.ids, supervised.labels) == (ids, labels)
            assert supervised.cut == (len(ids) < len(whole_ids))


@pytest.mark.parametrize("name", ["solar", "qwen3", "empty"])
def test_labels_equal_under_other_kinds_of_template(tokenizer, name) -> None:
    """solar teaches the end of a turn at the next one's first token, qwen3 can think, empty has no marks."""
    turns = llamafactory_turns(tokenizer, name)([*PROBES["turns"], ANSWER])
    for cutoff in (60, 4096):
        supervised = supervise(turns, cutoff)
        assert (supervised.ids, supervised.labels) == trained(tokenizer, PROBES["turns"], name, cutoff)


@settings(deadline=None, max_examples=300)
@example(0, 0, 10)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 500))
def test_question_and_answer_are_cut_as_llamafactory_cuts_them(source, target, room) -> None:
    from llamafactory.data.processor.processor_utils import infer_seqlen

    assert _fit(source, target, room) == infer_seqlen(source, target, room)


@pytest.mark.parametrize("cutoff", [5, 4096])
def test_texts_are_learned_as_in_pretraining(tokenizer, cutoff) -> None:
    from llamafactory.data.processor import PretrainDatasetProcessor
    from llamafactory.hparams import DataArguments

    processor = PretrainDatasetProcessor(
        None, tokenizer, None, DataArguments(template="qwen", cutoff_len=cutoff, packing=False)
    )
    text = "A man is walking. 不确定"
    theirs = processor.preprocess_dataset({"_prompt": [[{"role": "user", "content": text}]]})["input_ids"][0]
    supervised = supervise_text(tokenizer, text, cutoff)
    assert supervised.ids == supervised.labels == theirs
    assert supervised.learned == list(range(1, len(theirs)))
    assert supervised.cut == (cutoff == 5)


@pytest.mark.parametrize(
    ("count", "ratio", "seed"), [(1, 0.5, 42), (10, 0.1, 42), (277, 0.1, 42), (101, 0.33, 7)]
)
def test_held_out_rows_are_those_of_val_size(count, ratio, seed, tmp_path) -> None:
    from datasets import Dataset

    from tuneyard.core.llamafactory.prompt import PromptAndAnswer
    from tuneyard.eval.data.dataset import EvalDataset
    from tuneyard.eval.data.origin import unknown_origin

    rows = [{"n": n} for n in range(count)]
    asked = [PromptAndAnswer([], str(n)) for n in range(count)]
    found = held_out(
        EvalDataset("x", tmp_path / "x.json", rows, asked, unknown_origin(asked), ""), ratio, seed
    )
    assert [int(c.answer) for c in found.conversations] == [r["n"] for r in found.records]
    assert len(found.records) == math.ceil(ratio * count)
    if count > 1:  # one row cannot be parted
        theirs = Dataset.from_list(rows).train_test_split(test_size=ratio, seed=seed)["test"]["n"]
        assert [r["n"] for r in found.records] == sorted(theirs)


def test_a_template_that_rewrites_a_turn_is_refused(tokenizer) -> None:
    rewriting = "{% for m in messages %}{{ loop.length }} {{ m['content'] }}\n{% endfor %}"
    with raises(ContentError, "--template NAME"):
        chat_turns(tokenizer, chat_renderer(tokenizer, rewriting), [*PROBES["plain"], ANSWER])

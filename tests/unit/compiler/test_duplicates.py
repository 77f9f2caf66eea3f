"""Near rows: similarity by hand, no false pair, few missed ones, beside every pair computed the plain way."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.messages import raises
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.lint.near_rows import THRESHOLD, near_rows, shingles, similarity
from tuneyard.compiler.publish import compile as compile_module
from tuneyard.compiler.publish.compile import check_dataset, compile_dataset
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.errors import RequestError

WORDS = [f"word{number}" for number in range(400)]


def test_shingles_by_hand():
    assert shingles("The cat, the 猫咪 sat.") == ["the cat the", "cat the 猫", "the 猫 咪", "猫 咪 sat"]
    assert shingles("Yes!") == ["yes"] and shingles("") == [""]


def test_similarity_by_hand():
    assert similarity("a b c d", "a b c d e") == 2 / 3
    assert similarity("A b, c", "a B c!") == 1 and similarity("a", "b") == 0


@given(st.text(max_size=40), st.text(max_size=40))
def test_similarity_is_symmetric(one, other):
    assert similarity(one, other) == similarity(other, one) and similarity(one, one) == 1


@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_ascii_has_the_same_words_beside_other_letters(text):
    beside = shingles(text + " 猫")
    assert shingles(text) == (beside[:-1] or [beside[0].removesuffix("猫").strip()])


def corpus(size: int) -> list[str]:
    """Return texts of which every other one is the one before it with some words changed."""
    draw = random.Random(7)
    texts = []
    for _ in range(size // 2):
        words = draw.choices(WORDS, k=60)
        changed = list(words)
        for place in draw.sample(range(60), draw.choice([0, 1, 1, 2, 4, 8])):
            changed[place] = draw.choice(WORDS)
        texts += [" ".join(words), " ".join(changed) + "."]
    return texts


def test_every_pair_found_is_near_and_few_are_missed():
    pytest.importorskip("rensa")
    texts = corpus(600)
    found = {(row, twin): share for row, twin, share in near_rows(texts)}
    sets = [set(shingles(text)) for text in texts]
    plain = {
        (row, twin): share
        for row, one in enumerate(sets)
        for twin, other in enumerate(sets[:row])
        if (share := len(one & other) / len(one | other)) >= THRESHOLD
    }
    assert found.items() <= plain.items()
    assert len(plain) > 100 and len(found) >= 0.95 * len(plain)
    assert list(near_rows(texts)) == list(near_rows(texts))


@pytest.fixture
def compared(monkeypatch) -> list[tuple[str, str]]:
    """The pairs of texts whose similarity is computed."""
    pairs: list[tuple[str, str]] = []

    def counted(one: str, other: str) -> float:
        pairs.append((one, other))
        return similarity(one, other)

    monkeypatch.setattr("tuneyard.compiler.lint.near_rows.similarity", counted)
    return pairs


def test_texts_that_share_a_third_are_rarely_compared(compared):
    """Texts with equal bands are compared: about 1 in 6 such pairs. A band has four numbers.

    By the first number of each band alone, almost every pair would be compared.
    """
    pytest.importorskip("rensa")
    draw = random.Random(7)
    texts, others = [], []
    for _ in range(300):
        beginning, end, other_end = (" ".join(draw.choices(WORDS, k=30)) for _ in range(3))
        texts.append(f"{beginning} {end}")
        others.append(f"{beginning} {other_end}")
    assert sum(map(similarity, texts, others)) / 300 == pytest.approx(0.32, abs=0.01)
    assert list(near_rows(texts, others)) == []
    assert 0 < len(compared) < 75


def test_a_spec_asks_for_it(bench):
    pytest.importorskip("rensa")
    text = " ".join(WORDS[:30])
    rows = [{"text": text}, {"text": text + " more"}, {"text": "another"}]
    for fit, codes in (("near", ["W212"]), ("{near: true}", ["W212"]), ("{near: false}", [])):
        output = "{file: t.jsonl, format: text, text: '{text}'}"
        lines = ["about: a", f"fit: {fit}", "columns: {text: [text]}", f"write: [{output}]"]
        spec = "\n".join(lines)
        report = bench.compile_rows(spec, rows, force=True)
        assert [problem.code for problem in report.problems.warnings] == codes


@pytest.mark.parametrize("command", [compile_dataset, check_dataset])
@pytest.mark.parametrize("fit", ["near", "{near: true}", "{group: text, near: true}"])
def test_without_rensa_the_message_has_its_install_line(bench, monkeypatch, command, fit):
    find_spec = compile_module.find_spec

    def without_rensa(name):
        return None if name == "rensa" else find_spec(name)

    monkeypatch.setattr(compile_module, "find_spec", without_rensa)
    output = "{file: t.jsonl, format: text, text: '{text}'}"
    spec = bench.write("t.yaml", f"about: a\nfit: {fit}\ncolumns: {{text: [text]}}\nwrite: [{output}]\n")
    source = bench.rows("t.jsonl", [{"text": "a"}])
    request = CompileRequest(load_spec(str(spec)), sources=(str(source),), out=bench.folder / "out")
    with raises(RequestError, "t.yaml", "near", "rensa", "setup-near"):
        command(request)
    assert not (bench.folder / "out").exists()


def test_rows_of_one_template_take_no_quadratic_time() -> None:
    words = " ".join(f"word{number}" for number in range(40))
    texts = [f"{words} number {number}" for number in range(4000)]

    def seconds(count: int) -> float:
        started = time.process_time()
        assert len(list(near_rows(texts[:count]))) == count - 1
        return time.process_time() - started

    # The least of a few: another process on the same core takes time of this one, too.
    large, small = (min(map(seconds, [count] * 4)) for count in (4000, 1000))
    assert large < 9 * small


def words(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


@pytest.mark.parametrize(
    ("shared", "more", "near"), [(6, 1, True), (10, 2, True), (21, 5, False), (17, 4, False)]
)
def test_texts_are_near_from_four_fifths_on(shared, more, near):
    """`shared` words are shared - 2 runs of three; each word more is one more run in the union."""
    pytest.importorskip("rensa")
    one, other = words(shared), words(shared + more)
    share = (shared - 2) / (shared - 2 + more)
    assert similarity(one, other) == share and (share >= 0.8) == near
    assert list(near_rows([one, other])) == ([(1, 0, share)] if near else [])
    assert list(near_rows([one], [other])) == ([(0, 0, share)] if near else [])


def test_of_several_near_texts_the_first_is_named_once():
    pytest.importorskip("rensa")
    texts = [words(20), words(21), words(22), "another text", words(20)]
    assert [(row, twin) for row, twin, _ in near_rows(texts)] == [(1, 0), (2, 0), (4, 1)]
    assert [(row, twin) for row, twin, _ in near_rows(texts[:1], texts[1:])] == [(0, 0)]
    for one, other in ((texts[:1], texts[:1]), ([], texts), (texts, [])):  # W208 names equal rows
        assert list(near_rows(one, other)) == []

"""Records as bytes: whatever the texts hold, each is what json.dumps makes of the same values."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tuneyard.compiler.chat.message_forms import ASSISTANT, SYSTEM, USER
from tuneyard.compiler.rows import Batch, Prefix
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.write.render import Renderer
from tuneyard.core.records import ChatMessage

ALPACA = """
about: hostile texts
columns: {a: [a], c: [c], b: {names: [b], is: extra}, idx: [idx], other: {names: [other], is: any}}
write:
  - dataset: x
    file: x.json
    format: alpaca
    instruction: '{a}", %s "{b}\\n'
    input: "{b}"
    output: "{c}"
    keep: [idx, other]
"""
TALK = """
about: hostile turns
columns: {turns: {names: [turns], is: turns}, system: {names: [system], is: extra}}
write: [{dataset: x, file: x.json, format: FORMAT}]
"""
# what an encoder that joins and splits could take for its own boundary
SIGNS = st.sampled_from(
    [
        '"',
        '",',
        '","',
        '",\n  "',
        '"\n]',
        "[\n",
        "\\",
        "\\u001e",
        "\x1e",
        "\x1f",
        "\n",
        ",",
        "%b",
        "%",
        "{}",
        "\u2028",
        "é",
        "𝒳",
    ]
)
TEXTS = st.lists(SIGNS | st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=6).map(
    "".join
)
INTS = st.integers(-(2**63), 2**63 - 1)
IDS = st.lists(INTS, min_size=3, max_size=3) | st.lists(INTS | TEXTS, min_size=3, max_size=3)
KEPT = st.none() | st.booleans() | INTS | TEXTS | st.lists(TEXTS, max_size=2)


def spec_of(folder, text):
    path = folder / "hostile.yaml"
    path.write_text(text)
    return load_spec(str(path))


def as_json(record):
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.fixture(scope="module")
def alpaca(tmp_path_factory):
    spec = spec_of(tmp_path_factory.mktemp("alpaca"), ALPACA)
    return Renderer(spec, spec.outputs[0])


@example([('he said "end",', "")] * 3, [1, 2, 3], [None] * 3)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=3, max_size=3), IDS, st.lists(KEPT, min_size=3, max_size=3))
def test_alpaca_records_are_what_json_makes_of_them(alpaca, texts, ids, kept):
    ones, others = map(list, zip(*texts, strict=True))
    batch = Batch(Prefix("f"), range(3), {"a": ones, "b": others, "c": ones, "idx": ids, "other": kept})
    wanted = [
        {"instruction": f'{a}", %s "{b}\\n', "input": b, "output": a, "idx": n, "other": k}
        for (a, b), n, k in zip(texts, ids, kept, strict=True)
    ]
    assert alpaca.render(batch) == list(map(as_json, wanted))


@pytest.mark.parametrize(
    ("form", "field", "keys", "names"),
    [
        ("sharegpt", "conversations", ("from", "value"), {USER: "human", ASSISTANT: "gpt"}),
        ("messages", "messages", ("role", "content"), {USER: "user", ASSISTANT: "assistant"}),
    ],
)
def test_turns_are_what_json_makes_of_them(tmp_path, form, field, keys, names):
    spec = spec_of(tmp_path, TALK.replace("FORMAT", form))
    renderer = Renderer(spec, spec.outputs[0])

    @given(TEXTS, TEXTS, TEXTS)
    def check(system, asked, answered):
        talk = [ChatMessage(USER, asked), ChatMessage(ASSISTANT, answered)]
        batch = Batch(Prefix("f"), range(1), {"turns": [talk], "system": [system]})
        said = [dict(zip(keys, (names[turn.role], turn.text), strict=True)) for turn in talk]
        if form == "messages":
            first = [{"role": SYSTEM, "content": system}] if system else []
            wanted = {field: first + said}
        else:
            wanted = {field: said, "system": system}
        assert renderer.render(batch) == [as_json(wanted)]

    check()

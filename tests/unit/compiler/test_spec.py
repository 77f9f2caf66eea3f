"""Specs: validated, inherited, and refused with the place and the way out."""

import pytest

from tests.messages import raises
from tests.unit.compiler.conftest import exchange
from tuneyard.compiler.publish.registry import Registry
from tuneyard.compiler.read.inputs import find_inputs
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.spec.model import placeholders
from tuneyard.core.errors import ContentError, RequestError

GOOD = """
about: a test
columns: {question: [q], answer: {names: [a], is: answer}}
write: [{dataset: t, file: t.jsonl, format: alpaca, instruction: "{question}", output: "{answer}"}]
"""


def refused(bench, text: str) -> str:
    with pytest.raises(ContentError) as error:
        load_spec(str(bench.write("t.yaml", text)))
    return str(error.value)


def test_like_lays_mappings_over_and_outputs_one_by_one(bench):
    bench.write("base.yaml", GOOD)
    over = "columns: {kind: [k]}\nwrite: [{dataset: mine, keep: [kind]}]\n"
    text = f"about: mine\nlike: {bench.folder}/base.yaml\n{over}"
    spec = load_spec(str(bench.write("mine.yaml", text)))
    assert [column.name for column in spec.columns] == ["question", "answer", "kind"]
    output = spec.outputs[0]
    assert (output.dataset, output.file, output.keep) == ("mine", "t.jsonl", ("kind",))
    assert output.templates == {"instruction": "{question}", "output": "{answer}"}


@pytest.mark.parametrize("column", ["question", "answer"])
def test_like_replaces_the_names_of_a_column_whole(bench, column):
    """Also where the spec below names more of it: its names, and what it is."""
    base = bench.write("base.yaml", GOOD)
    text = f"about: mine\nlike: {base}\ncolumns: {{{column}: [b, c]}}\n"
    spec = load_spec(str(bench.write("mine.yaml", text)))
    assert next(one for one in spec.columns if one.name == column).names == ("b", "c")


def test_own_files_and_an_own_split_go_without_those_of_the_base(bench):
    """They were refused as two sources, or as a split beside the splits that the source has."""
    own = "source: {files: mine.csv}\nsplit: {eval: 0.25}\nwrite: [{file: '{split}.json'}]\n"
    path = bench.folder / "mine.yaml"
    path.write_text(f"about: mine\nlike: mnli\n{own}")
    spec = load_spec(str(path))
    assert spec.source.hub == {} and spec.source.splits == {} and set(spec.splits) == {"train", "eval"}
    path.write_text("about: mine\nlike: mnli\n")
    spec = load_spec(str(path))
    assert spec.source.hub and "mismatched" in spec.source.splits


def test_like_in_a_circle_is_refused(bench):
    a, b = bench.folder / "a.yaml", bench.folder / "b.yaml"
    a.write_text(f"like: {b}\n")
    b.write_text(f"like: {a}\n")
    with raises(ContentError, "a.yaml", "`like`"):
        load_spec(str(a))


TWICE = 'labels: {"yes": [1, true], "no": [false, 1.0]}'


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("about: a test", "abuot: a test"), "unknown key 'abuot'"),
        (("format: alpaca", "format: alpacca"), "write.0.format"),
        (("{question}", "{qestion}"), "no column 'qestion'"),
        (("{question}", "{question!r}"), "only a column name"),
        (("{question}", "{question"), "t.yaml: "),
        (("columns:", "source: {encoding: utf-9}\ncolumns:"), "unknown encoding 'utf-9'"),
        (("columns:", "source: {splits: {train: a, eval: b}}\ncolumns:"), "must hold {split}"),
        (("columns:", "labels: {yes: [0], no: [1]}\ncolumns:"), 'write it in quotes, as "yes" or "no"'),
        (("columns:", 'labels: {"yes": [0], "no": [1]}\ncolumns:'), "`labels` needs a column `label`"),
        (("columns: {", f"{TWICE}\ncolumns: {{label: [l], "), "labels: 1.0 stands under two of them"),
        (("columns:", f'labels: {{"yes": [{"9" * 30}], "no": [0]}}\ncolumns:'), "labels.yes.0: found 999"),
        (("columns:", 'labels: {"yes": [.nan], "no": [0]}\ncolumns:'), "labels.yes.0: found NaN"),
        (("columns:", "fit: {group: nobody}\ncolumns:"), "fit.group: no column 'nobody'"),
        (("file: t.jsonl", "file: ../t.jsonl"), "write.0.file"),
        (("file: t.jsonl", "file: .t.jsonl"), "begins with no dot"),
        (("file: t.jsonl", "file: '{x}.jsonl'"), "{split} stands for the split"),
        (("file: t.jsonl", 'file: "t\\0.jsonl"'), "take it out"),
        (("file: t.jsonl", 'file: "t.jsonl\\n"'), "line break at its end"),
        (("file: t.jsonl", "file: manifest.json"), "'manifest.json' is the compiler's own"),
        (("dataset: t", "dataset: 'a,b'"), "without blanks and commas"),
        (("dataset: t", "dataset: 'a_{x}'"), "{split} stands for the split"),
        ((', output: "{answer}"', ""), "nothing says what the answer is; add `output`"),
        (('instruction: "{question}", output: "{answer}"', ""), "expected `instruction` or `input`"),
        (("format: alpaca", "format: sharegpt"), "(sharegpt) is; expected `user`, or a column `is: turns`"),
        (("}]", "}, {file: u.jsonl, format: messages, like: 0}]"), "(messages) is; expected `user`"),
        (("}]", "}, {file: u.jsonl, format: text, like: 0}]"), "expected `text`, or a column `is: turns`"),
        (("{question: [q]", "{question: {names: [q], is: turns}"), "column question: turns are no text for"),
        (("about: a test\n", "about: a test\nsplit: {seed: 1}\n"), "name at least one part"),
        (("about: a test\n", "about: a test\nsplit: {test: 0.5, eval: 0.5}\n"), "all together below 1"),
        (
            ("about: a test\n", "about: a test\nsplit: {test: 0.2, stratify: kind}\n"),
            "split.stratify: no column 'kind'",
        ),
        (
            ("about: a test\n", "about: a test\nsplit: {test: 0.2, by: hash, stratify: question}\n"),
            "cannot be stratified",
        ),
        (("about: a test\n", "about: a test\nsplit: {test: 0.2}\n"), "'t.jsonl' must hold {split}"),
        (
            ("about: a test\n", "about: a test\nmix: {total: 9, parts: {a: {share: 0.5, as: qa}}}\n"),
            "the shares add up to 0.5, expected 1",
        ),
        (
            (
                "about: a test\n",
                "about: a test\nmix: {total: 9, parts: {a: {share: 1, as: qa}}}\nclean: [nfc]\n",
            ),
            "`clean` and `mix` do not go together",
        ),
        (("about: a test\n", "about: a test\nsplit: {train: 0.2}\n"), "'train' is what the others leave"),
        (
            ("about: a test\n", "about: a test\nsample: 1.5\n"),
            "sample: found 1.5, expected more than 0 and less than 1",
        ),
        (
            ("about: a test\n", "about: a test\nsample: 1.0\n"),
            "sample: found 1.0, which is the share of all rows",
        ),
        (
            ("about: a test\n", "about: a test\nsource: {splits: {dev: d, test: t}}\nsample: 5\n"),
            "`sample` takes rows of the part 'train'",
        ),
        (
            (
                "about: a test\n",
                "about: a test\nmix: {total: 9, parts: {a: {share: 1, as: qa}}}\nsample: 5\n",
            ),
            "`sample` takes rows of the part",
        ),
        (
            ("about: a test\n", "about: a test\nclean: [lower]\n"),
            'clean.0: found "lower", expected one of nfc, strip, unescape, html',
        ),
    ],
)
def test_what_is_wrong_in_a_spec_is_said(bench, change, says):
    assert says in refused(bench, GOOD.replace(*change))


def test_only_plain_text_takes_turns_by_their_roles(bench):
    """The other formats have a field for them, so that their error does not ask for `roles`."""
    turns = "about: a test\ncolumns: {talk: {names: [talk], is: turns}}\n"
    assert refused(bench, f"{turns}write: [{{file: t.jsonl, format: text}}]\n").endswith("with `roles`")
    assert load_spec(str(bench.write("t.yaml", f"{turns}write: [{{file: t.jsonl, format: messages}}]\n")))
    for name in ("sharegpt", "messages"):
        assert "roles" not in refused(bench, GOOD.replace("format: alpaca", f"format: {name}"))


def test_a_spec_with_neither_columns_nor_mix_is_refused(bench):
    output = "{dataset: t, file: t.jsonl, format: alpaca, instruction: hello, output: world}"
    assert "expected `columns` or `mix`" in refused(bench, f"about: a test\nwrite: [{output}]\n")


def test_what_is_missing_is_said_once(bench):
    said = refused(bench, "columns: {q: [q]}").splitlines()
    assert [line.partition(": ")[2] for line in said] == ["the spec: 'about', 'write' is missing: add it"]


@pytest.mark.parametrize(
    "name",
    ["dataset_info.json.yaml", ".hidden.yaml", "-x.yaml", "..yaml", "a{b}.yaml", "a\nb.yaml", "a,b.yml"],
)
def test_a_spec_whose_name_no_set_can_have_is_refused(bench, name):
    with raises(RequestError, "dataset"):
        load_spec(str(bench.write(name, GOOD)))


@pytest.mark.parametrize("name", ["my data.yaml", "训练.yml", "v1.2+a_b-c.yaml", "_x.yaml"])
def test_a_spec_may_be_called_so(bench, name):
    spec = str(bench.write(f"specs/{name}", GOOD))
    bench.compile_rows(spec, [{"q": "a", "a": "b"}])
    assert list(Registry(bench.out).finish_publications().manifests) == [name.rpartition(".")[0]]


@pytest.mark.parametrize("name", ["", ".", "..", "rte/", "a/rte", "../specs/rte", "RTE", "rte.yaml", "r\0e"])
def test_a_name_that_is_no_spec_is_refused(name):
    with raises(RequestError, "spec"):
        load_spec(name)


def test_a_data_file_in_place_of_a_spec_is_told_what_makes_one(bench):
    file = bench.write("my hist.json", "[]")
    with raises(RequestError, "my hist.json", f"tuneyard data init '{file}'"):
        load_spec(str(file))


def test_the_name_of_a_spec_here_is_told_that_it_ends_with_yaml(bench, monkeypatch):
    monkeypatch.chdir(bench.write("good.yaml", GOOD).parent)
    with raises(RequestError, 'did you mean "good.yaml"'):
        load_spec("good")


def test_an_alias_may_stand_for_a_part_twice(bench):
    text = GOOD.replace("[q]", "&names [q]") + "filter: {keywords: *names}\n"
    assert load_spec(str(bench.write("t.yaml", text))).filter.keywords == ("q",)


def test_literal_braces_in_templates(bench):
    spec = bench.write("t.yaml", GOOD.replace('"{question}"', '"{{{question}}} at 100%"'))
    bench.compile_rows(spec, [{"q": "%s {a}", "a": "b"}])
    assert bench.first("t.jsonl")["instruction"] == "{%s {a}} at 100%"
    assert placeholders("{{x}}{y}") == [("{", None), ("x}", None), ("", "y")]


def test_wrap_leaves_values_that_are_no_text(bench):
    """A mark and turns have no text to wrap."""
    spec = """about: wraps
columns:
  turns: {names: [messages], is: turns, wrap: "<<{}>>"}
  kto_tag: {names: [wanted], is: kto, wrap: "<<{}>>"}
write:
  - {dataset: wraps, file: wraps.json, format: sharegpt}
"""
    turns = exchange("a", "b")
    rows = [{"messages": turns, "wanted": wanted} for wanted in (True, False)]
    report = bench.compile_rows(spec, rows)
    assert report.kept == 2


def test_a_name_of_two_splits_is_the_first_ones(bench):
    source = "source: {splits: {train: [train, all], test: [test, all]}}\n"
    text = GOOD.replace("dataset: t, file: t.jsonl", 'dataset: "t_{split}", file: "t_{split}.jsonl"')
    spec = load_spec(str(bench.write("t.yaml", source + text.strip())))
    rows = bench.write("rows.jsonl", "")
    assert [each.input_name for each in find_inputs(spec, [f"all={rows}"])] == ["train"]

"""init: what it proposes compiles the file, says what was guessed, and is refused where nothing can be."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.messages import printed, printed_line, raises
from tests.unit.compiler.conftest import ROWS, as_csv, layouts, questions
from tuneyard.compiler.init.command import propose
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.language.message import translated

NLI = [{"premise": "P.", "hypothesis": "H.", "label": name} for name in ("entailment", "neutral", "-")]
QA = [{"Question": "Why?", "Answer": "So, and so."}, {"Question": "Who?", "Answer": 'A "she".'}]


def proposed(bench, source):
    """Propose a spec, compile with it, and return (the spec's text, the records)."""
    text, _, _ = propose(source)
    bench.compile(text)
    return text, bench.records("*.jsonl")


@pytest.mark.parametrize("name", layouts(ROWS))
def test_a_labelled_pair_in_every_layout(bench, name):
    text, records = proposed(bench, bench.write(name, layouts(ROWS)[name]))
    assert [record["output"] for record in records] == ["yes", "no", "no"]
    assert records[0]["instruction"].startswith('Does "A "red" fox ran." imply that "An animal ran."?')
    assert "GLUE numbers them so" in text


def test_labels_by_name_and_without_gold(bench):
    text, records = proposed(bench, bench.rows("nli.jsonl", NLI))
    assert [record["output"] for record in records] == ["yes", "maybe"]
    assert "guessed" not in text


@pytest.mark.parametrize("odd", ["\n", "\r", "\x85", "\u2028", "\x7f", "\x1b", "🎬", '"'])
def test_any_sign_in_names_of_files_and_columns_is_quoted(bench, odd):
    column = f"a{odd}b"
    text, records = proposed(
        bench, bench.rows(f"qa{odd}.jsonl", [{"question": "Why?", "answer": "So.", column: 1}])
    )
    assert [record["output"] for record in records] == ["So."]
    assert yaml.safe_load(text)["source"]["files"].endswith(f"qa{odd}.jsonl")
    by_column, _, _ = propose(bench.rows("labels.jsonl", [{column: "Why?", "answer": "So."}]), text=column)
    assert yaml.safe_load(by_column)["columns"]


@pytest.mark.parametrize("foreign_rows", [1, 8, 15])
@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1252", "Wie groß ist München?"),
        ("cp1252", "L’été est déjà là, ça coûte 3 €"),
        ("cp1252", "“It’s” 5–10 £"),
        ("cp1252", "¿Qué dice el informe n° 0 del puerto (§ 0)?"),
        ("cp1251", "Спасибо за ответ"),
        ("cp949", "제품은 어떻게 초기화하나요?"),
        ("gb18030", "谢谢您的来信"),
        ("cp932", "プリンターの電源を入れてください"),
        ("big5", "謝謝您的來信"),
    ],
)
def test_a_few_rows_show_the_encoding(bench, encoding, words, foreign_rows) -> None:
    rows = [{"question": f"Where is part {number}?", "answer": f"In box {number}."} for number in range(15)]
    for row in rows[-foreign_rows:]:
        row["question"] = f"{words} ({row['question']})"
    source = bench.write("qa.csv", as_csv(rows).encode(encoding))
    _, records = proposed(bench, source)
    assert [record["instruction"] for record in records] == [row["question"] for row in rows]
    foreign_word = next(word for word in words.split() if not word.isascii())
    assert f'in which its words are "{foreign_word}' in propose(source)[1]


def test_a_broken_place_among_more_foreign_characters_is_one_of_utf_8(bench) -> None:
    rows = b"question,answer\nCaf\xc3\xa9?,na\xc3\xafve\nCafe?,na\xefve\n"
    assert "encoding" not in propose(bench.write("qa.csv", rows))[0]


def test_a_folder_in_the_folder_is_named(bench) -> None:
    bench.write("book/a.md", "# One text about a thing")
    bench.write("book/sub/b.jsonl", '{"text": "Another one"}')
    assert "sub: W224: 1 data file not read" in propose(bench.folder / "book")[1]


def test_the_only_split_that_datasets_saved_is_no_folder_that_is_left_out(bench) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list(questions(3))
    datasets.DatasetDict({"train": rows}).save_to_disk(str(bench.folder / "saved"))
    text, said, _ = propose(bench.folder / "saved")
    assert "kept 3" in said and "not read" not in said and "not read" not in text


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16"])
def test_a_table_that_is_cut_off_inside_a_character_is_refused(bench, encoding):
    source = bench.write("qa.csv", as_csv([{"问题": "什么", "回答": "因为"}]).rstrip().encode(encoding)[:-1])
    with raises(ContentError, "qa.csv", "character"):
        propose(source)


def test_a_quoted_tsv(bench):
    rows = [{"question": "two\nlines?", "answer": 'a\t"b"'}]
    text, records = proposed(bench, bench.write("qa.tsv", as_csv(rows, delimiter="\t")))
    assert "quoted: true" in text and records[0]["output"] == 'a\t"b"'
    lines = "question\tanswer\n" + '"A ""b""?"\tc\n' * 20
    with raises(ContentError, "broken.tsv:22: E011", "no spec can mend that"):
        propose(bench.write("broken.tsv", f'{lines}"q\tx\n'))


@pytest.mark.parametrize(
    ("row", "about"),
    [
        ({"QUESTION": "a", "CONTEXTS": ["x", "y"], "LONG_ANSWER": "b"}, "Questions and answers"),
        (
            {"instruction": [{"subtype": "s"}], "input": {"task": "t"}, "output": {"judgement": "j"}},
            "Questions and",
        ),
    ],
)
def test_roles_by_shape(bench, row, about):
    text, records = proposed(bench, bench.rows("set.jsonl", [row, row]))
    assert f"about: {about}" in text and len(records) == 2


def test_the_longest_text_with_a_column_of_classes(bench):
    said = ["The screen stays black.", "It does not charge any more.", "It falls off the net."]
    rows = [
        {"id": f"r{n}", "fault_type": kind, "problem": text, "country": "Malta"}
        for n, (kind, text) in enumerate(zip(("Display", "Power", ""), said, strict=True))
    ]
    text, records = proposed(bench, bench.write("faults.csv", as_csv(rows)))
    assert [record["output"] for record in records] == ["Display", "Power"], "without a class, no label"
    assert records[0]["instruction"] == "The screen stays black.\n\nPlease answer Display or Power."
    assert "it is the longest" in text and "unlabelled" in text


@pytest.mark.parametrize(
    ("name", "content", "error", "facts"),
    [
        (
            "numbers.jsonl",
            '{"x": 1, "y": 2.5}\n',
            ContentError,
            "numbers.jsonl; x (number); y (fraction)",
        ),
        ("head.tsv", "0\tA text.\t1\n1\tB\t0\n", ContentError, "head.tsv"),
        ("empty.jsonl", "", ContentError, "empty.jsonl"),
        ("scalar.json", "3", ContentError, "E007"),
        ("words.doc", "a", RequestError, "words.doc; .doc"),
        ("photo.csv", "a,b\n\0\0,2\n", ContentError, "photo.csv; NUL"),
        ("bytes.csv", b"question,answer\nwhy?,\x81\xff \x90 \x98\n", ContentError, "UTF-8; no other"),
        ("cut.jsonl.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab", ContentError, "cut.jsonl.gz"),
    ],
)
def test_what_cannot_be_guessed_is_refused(bench, name, content, error, facts):
    with raises(error, facts):
        propose(bench.write(name, content))


PAIRS = questions(5)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("document", "rows"),
    [
        ({"version": "1", "data": PAIRS}, "data"),
        ({"data": PAIRS, "version": "1"}, "data"),
        (
            {"data": [{"title": "T", "parts": [{"qas": PAIRS[:2]}, {"qas": PAIRS[2:]}]}]},
            ["data", "parts", "qas"],
        ),
        ({"data": [{"items": PAIRS[:1]}, {"items": PAIRS[1:]}]}, ["data", "items"]),
    ],
)
def test_a_wrapped_file_is_proposed_for_with_all_its_rows(bench, indent, document, rows):
    source = bench.write("wrapped.json", json.dumps(document, indent=indent))
    text, records = proposed(bench, source)
    assert yaml.safe_load(text)["source"]["rows"] == rows
    assert [record["output"] for record in records] == [row["answer"] for row in PAIRS]


@pytest.mark.parametrize("rows", [list, lambda pairs: dict(enumerate(pairs))])
def test_rows_under_the_names_of_splits_become_splits(bench, rows):
    document = {"train": rows(PAIRS[:3]), "test": rows(PAIRS[3:])}
    source = bench.write("train.json", json.dumps(document))
    text, said, _ = propose(source)
    report = bench.compile(bench.write("both.yaml", text))
    assert report.datasets == {"train_train": 3, "train_test": 2}, said
    assert bench.compile(bench.write("both.yaml", text), source, force=True).datasets == report.datasets


def test_of_several_marked_answers_the_first_is_learned_and_the_others_are_named(bench):
    answers = [{"text": "She", "answer_start": 1}, {"text": "Her", "answer_start": 5}]
    qas = [{"question": "Who is it?", "answers": answers}, {"question": "What?", "answers": answers[1:]}]
    document = {"data": [{"paragraphs": [{"context": context, "qas": qas} for context in "CD"]}]}
    source = bench.write("dev.json", json.dumps(document))
    assert "not used: answers (several objects)" in propose(source)[1]
    _, records = proposed(bench, source)
    outputs = [(record["instruction"], record["input"], record["output"]) for record in records]
    assert outputs == [
        (question, context, answer)
        for context in "CD"
        for question, answer in (("Who is it?", "She"), ("What?", "Her"))
    ]


def test_the_first_item_of_a_list_of_several_is_never_taken(bench):
    with raises(ContentError, "a.jsonl"):
        propose(bench.write("a.jsonl", json.dumps({"items": PAIRS}) + "\n"))


def test_of_several_lists_the_longest_that_fits_is_read_and_the_others_are_named(bench):
    people = [{"name": f"n{number}"} for number in range(2)]
    text, report, _ = propose(bench.write("a.json", json.dumps({"users": people, "faq": PAIRS * 3})))
    assert "rows: faq" in text and "ignored next to the rows: users" in report


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("医疗问答.jsonl", "医疗问答"),
        ("2024 数据.jsonl", "data_2024_数据"),
        ("Ünder__score-1.jsonl", "ünder_score_1"),
        ("16-100.dev.jsonl", "data_16_100_dev"),  # else a number to YAML
    ],
)
def test_a_file_name_of_any_script_names_the_dataset(bench, name, dataset):
    text, records = proposed(bench, bench.rows(name, QA))
    assert yaml.safe_load(text)["write"][0]["dataset"] == dataset and len(records) == 2


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=8), st.text(max_size=12) | st.integers(0, 3) | st.none(), max_size=4))
def test_any_row_is_proposed_for_or_refused(bench, row):
    row = {"question": "q", "answer": "a", **row}
    source = bench.write("any.jsonl", json.dumps(row) + "\n")
    try:
        text, said, _ = propose(source)
    except ContentError:
        return
    assert yaml.safe_load(text)["about"] and re.search("^tried on the whole file", said, re.M)


MANY = [{"问题": f"第{n // 2}个问题怎么办？", "回答": f"第{n}个答案。"} for n in range(120)]


def test_a_split_keeps_repeated_questions_on_one_side_and_chinese_headers_are_read(bench):
    source = bench.rows("问答.jsonl", MANY)
    text, said, steps = propose(source)
    split = yaml.safe_load(text)["split"]
    assert split == {"test": 0.2, "group": "question", "by": "hash", "seed": split["seed"]}
    report = bench.compile(text)
    assert report.datasets["问答_train"] + report.datasets["问答_test"] == 120
    assert 22 <= report.datasets["问答_test"] <= 26
    train, other = (
        {r["instruction"] for r in bench.records(f"*_{part}.jsonl")} for part in ("train", "test")
    )
    assert not train & other
    assert said.count("example ") == 3 and "  user: 第0个问题怎么办？\n  answer: 第0个答案。" in translated(
        said
    )
    training = steps.splitlines()[-1]
    printed_line(steps, "next:", f"init '{source}'", "--out '问答.yaml'", "compile '问答.yaml'")
    words = ("'dataset=问答_train'", "'output_dir=saves/问答'")
    printed(training, "then", "recipe check recipes/sft-lora.yaml", *words)
    assert "eval_dataset" not in training  # test chooses no checkpoint


def test_rows_that_share_an_id_are_a_group(bench):
    rows = [row | {"patient_id": f"p{n % 40}"} for n, row in enumerate(questions(100))]
    source = bench.rows("qa.jsonl", rows)
    spec = yaml.safe_load(propose(source)[0])
    assert spec["columns"]["group"] == {"names": ["patient_id"], "is": "extra"}
    assert spec["split"]["group"] == "group"
    assert "split" not in propose(source, share=0)[0]


def test_chinese_pairs_get_a_chinese_prompt(bench):
    names = ("entailment", "neutral", "contradiction")
    rows = [
        {"sentence1": f"他去了第{n}个商店", "sentence2": "他出门了", "label": names[n % 3]} for n in range(30)
    ]
    source = bench.rows("对.jsonl", rows)
    bench.compile(propose(source)[0])
    records = bench.records("*_train.jsonl")
    assert {record["output"] for record in records} == {"是", "否", "可能"}
    assert "请只用一个词回答：否、是、可能。" in records[0]["instruction"]


@pytest.mark.parametrize(
    ("values", "answers"),
    [((True, False), {"yes", "no"}), ((1.0, 2.0), {"1", "2"}), ((1.5, 2.5), {"1.5", "2.5"})],
)
def test_truth_values_and_fractions_are_labels(bench, values, answers):
    rows = [{"text": f"A review of some length, number {n}.", "label": values[n % 2]} for n in range(10)]
    _, records = proposed(bench, bench.rows("reviews.jsonl", rows))
    assert {record["output"] for record in records} == answers


def test_a_text_that_gives_the_answer_away_is_warned_of(bench):
    def said_of(text: str) -> str:
        rows = []
        for n in range(30):
            label = ("sports", "politics")[n % 2]
            rows.append({"text": text.format(n=n, label=label), "label": label})
        return propose(bench.rows("news.jsonl", rows))[1]

    printed_line(said_of("[{label}] Some news, number {n}."), "warning", "text", "label", "30 of 30")
    for honest in ("Some news, number {n}.", "News {n}: sports or politics?"):
        assert "warning" not in said_of(honest)


def test_columns_that_the_user_names_are_taken(bench):
    rows = [
        {"letter": f"Letter number {n}.", "remark": f"Some remark, number {n}.", "kind": "ab"[n % 2]}
        for n in range(30)
    ]
    source = bench.rows("own.jsonl", rows)
    spec = yaml.safe_load(propose(source, 0.2, text="remark", label="kind")[0])
    assert spec["about"] == "Texts with a class"
    assert spec["split"] == {"test": 0.2, "by": "hash", "seed": spec["split"]["seed"]}
    assert spec["columns"] == {"text": ["remark"], "label": ["kind"]}
    few = yaml.safe_load(propose(source, 0.05, text="remark", label="kind")[0])
    assert few["split"] == {"test": 0.05, "by": "hash", "seed": few["split"]["seed"]}
    assert "letter is used as the question: no column is named as one" in propose(source, answer="remark")[0]
    with raises(RequestError, "--label kinds", "columns"):
        propose(source, label="kinds")
    many = bench.rows("many.jsonl", [row | {"kind": f"k{n}"} for n, row in enumerate(rows * 2)])
    with raises(RequestError, "30 values", "--answer"):
        propose(many, label="kind")


def test_a_folder_whose_files_are_named_as_splits(bench):
    for name, count in (("train.jsonl", 8), ("dev.jsonl", 3), ("test_1.jsonl", 2)):
        bench.rows(f"own/{name}", questions(count))
    text, _, _ = propose(bench.folder / "own")
    report = bench.compile(text)
    assert report.datasets == {"own_train": 8, "own_eval": 3, "own_test": 2}


def test_a_table_without_a_header_gets_names_by_what_is_in_it(bench):
    names = ("entailment", "not_entailment")
    lines = [f"{n}\tA man number {n} walks his dog.\tSome man is outside.\t{names[n % 2]}" for n in range(30)]
    text, records = proposed(bench, bench.write("pairs.tsv", "\n".join(lines) + "\n"))
    assert yaml.safe_load(text)["source"]["header"] == ["column_1", "premise", "hypothesis", "label"]
    records += bench.records("*_test.jsonl")
    assert len(records) == 30
    (first,) = [record for record in records if "A man number 0" in record["instruction"]]
    assert first["output"] == "yes"
    said = [f"What is number {n} in words?;It is the number {n}, as it says." for n in range(30)]
    text, _, _ = propose(bench.write("asked.csv", "\n".join(said)))
    assert "Texts" not in text and "premise" not in text


@pytest.mark.parametrize(
    ("names", "question", "said"),
    [
        (("问题", "标签"), "怎么退{}", "请只用一个词回答：售前、售后。"),
        (("question", "label"), "Is {} ok?", "Please answer 售前 or 售后."),
    ],
)
def test_a_short_question_beside_a_label_is_the_text(bench, names, question, said):
    asked, label = names
    rows = [{"id": f"{n}", asked: question.format(n % 40), label: ("售前", "售后")[n % 2]} for n in range(60)]
    source = bench.write("kefu.csv", as_csv(rows))
    text, told, _ = propose(source)
    assert "about: Texts with a class" in text and yaml.safe_load(text)["columns"]["text"] == [asked]
    split = yaml.safe_load(text)["split"]
    assert split == {"test": 0.2, "group": "text", "by": "hash", "seed": split["seed"]}
    assert "tried on the whole file: kefu" in told
    assert told.count("warning") == 1 and printed_line(told, "warning", "20 of 60", "drop_duplicates")
    assert bench.compile(text).kept == 40
    prompts = [
        record["instruction"] for part in ("train", "test") for record in bench.records(f"*_{part}.jsonl")
    ]
    assert f"{question.format(0)}\n\n{said}" in prompts


def test_a_task_that_does_not_decide_a_label_alone_is_not_the_text(bench):
    rows = [{"task": "Judge the tone.", "remark": f"It is number {n} of the remarks."} for n in range(20)]
    source = bench.rows("set.jsonl", [row | {"label": "ab"[n % 2]} for n, row in enumerate(rows)])
    assert "it is the longest" in propose(source)[0]


def test_comments_that_answer_one_another_are_no_texts_but_parts_of_a_tree_are(bench):
    table = "id,parent_id,text\n0,,Why is the sky blue at noon?\n1,0,Light scatters.\n2,,And at night?"
    with raises(ContentError, "parent_id"):
        propose(bench.write("comments.csv", table))
    text, _, _ = propose(bench.write("parts.csv", table.replace("1,0,", "1,77,")))
    assert "Plain text for pretraining" in text


def test_trees_of_comments_are_no_texts_for_pretraining(bench):
    """The answers are inside the first message, and would be lost."""
    reply = {"body": "Light scatters.", "replies": []}
    for replies in ([reply], [reply, reply]):
        rows = [{"post": {"text": "Why is the sky blue at noon?", "replies": replies}}] * 3
        with raises(ContentError, "post"):
            propose(bench.rows("trees.jsonl", rows))


def test_a_parent_beside_a_question_and_its_answer_is_no_thread(bench):
    rows = [row | {"parent_id": n, "role": "x"} for n, row in enumerate(QA)]
    text, _, _ = propose(bench.rows("qa.jsonl", rows))
    assert "Questions and answers" in text


@pytest.mark.parametrize("nested", [False, True])
def test_a_key_of_its_own_in_each_row_takes_no_time_for_each(bench, nested):
    """The time for one column more is that of one row more: it does not depend on the columns."""
    seconds = {}
    for count in (1_000, 8_000):
        rows = []
        for number in range(count):
            key: dict[str, object] = {f"key_{number}": number}
            rows.append({"question": f"What is {number}?", "answer": f"It is the number {number}."})
            rows[-1].update({"meta": key} if nested else key)
        source = bench.rows(f"keys{count}.jsonl", rows)
        began = time.process_time()
        propose(source)
        seconds[count] = time.process_time() - began
    assert seconds[8_000] < 20 * max(seconds[1_000], 0.1)


def test_a_proposal_is_the_same_in_each_process():
    """A long text is kept by a hash, and Python's `hash` differs in each process."""
    path = ROOT / "tests/examples/bad/W207-long.rte.jsonl.gz"
    code = "import pathlib, sys; from tuneyard.compiler.init.command import propose; "
    code += "print(propose(pathlib.Path(sys.argv[1]), 0)[0])"
    proposals = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], env=environment, capture_output=True, check=True
        )
        proposals.add(done.stdout)
    assert len(proposals) == 1

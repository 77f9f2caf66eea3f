"""The golden files against a few lines each that follow the documents' formats and use none of our code;
mixtures, whose order is ours, against what is compiled."""

import csv
import json
from collections import Counter

import pytest

from tests.unit.compiler.test_specs import GOLDEN, GOOD, sources
from tuneyard.compiler.compile import compile_spec
from tuneyard.compiler.request import CompileRequest
from tuneyard.compiler.spec.model import load_spec
from tuneyard.core.datasets import read_records

ONE_WORD = "You only need to answer one word, no explanation"
EXPERT = "你是一位跨领域的专家，熟悉人工智能、集成电路与生物医学，请准确、有条理地回答问题。"
RTE = {"entailment": "yes", "not_entailment": "no"}
MNLI = {"entailment": "yes", "neutral": "maybe", "contradiction": "no"}


def example(name):
    return (GOOD / name).read_text(encoding="utf-8")


def table(name):
    header, *rows = (line.split("\t") for line in example(name).splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def alpaca(instruction, output, given="", **more):
    return {"instruction": instruction, "input": given, "output": output, **more}


def rte():
    for row in table("rte/train.tsv"):
        ask = f'Does "{row["sentence1"]}" imply that "{row["sentence2"]}"? Please answer yes or no.{ONE_WORD}'
        yield alpaca(ask, RTE[row["label"]], idx=int(row["index"]))


def mnli():
    for row in table("mnli/train.tsv"):
        pair = f'Does "{row["sentence1"]}" imply that "{row["sentence2"]}"?'
        ask = f"{pair} Please answer yes or no or maybe.{ONE_WORD}"
        if row["gold_label"] != "-":
            yield alpaca(ask, MNLI[row["gold_label"]], idx=int(row["index"]))


def ocnli():
    words = {"entailment": "是", "neutral": "可能", "contradiction": "否"}
    for row in lines(example("ocnli/train.json")):
        pair = f"由“{row['sentence1']}”能否推出“{row['sentence2']}”？"
        if row["label"] != "-":
            yield alpaca(f"{pair}请只用一个词回答：是、否或可能。", words[row["label"]], idx=row["id"])


def alpaca_text():
    for row in json.loads(example("alpaca-text/a.json")):
        middle = f"输入：{row['input']}\n" if row["input"] else ""
        yield {"text": f"指令：{row['instruction']}\n{middle}输出：{row['output']}"}


def messages_text():
    names = {"system": "系统", "user": "用户", "assistant": "助手"}
    for row in json.loads(example("messages-text/a.json")):
        yield {"text": "\n\n".join(f"{names[m['role']]}：{m['content']}" for m in row["messages"]).strip()}


def pubmedqa():
    for row in json.loads(example("pubmedqa/a.json")).values():
        yield alpaca(row["QUESTION"], row["LONG_ANSWER"], "\n".join(row["CONTEXTS"]))


def stackexchange():
    for row in lines(example("stackexchange/a.jsonl")):
        yield alpaca(row["question"], max(row["answers"], key=lambda answer: answer["pm_score"])["text"])


def text():
    with (GOOD / "text/a.csv").open(encoding="utf-8", newline="") as file:
        yield from ({"text": row["text"]} for row in csv.DictReader(file))


def qa():
    yield from (
        alpaca(row["question"], row["answer"]) | {"system": ""} for row in lines(example("qa/qa.jsonl"))
    )


def pr():
    yield from (
        alpaca(row["Prompt"], row["Response"]) | {"system": ""} for row in json.loads(example("pr/pr.json"))
    )


def io():
    for row in lines(example("io/io.jsonl")):
        yield alpaca(row["instruction"], row["output"], row.get("input") or "") | {"system": ""}


@pytest.mark.parametrize(
    ("file", "records"),
    [
        ("rte/alpaca_rte-train.json", rte),
        ("mnli/alpaca_mnli-train.json", mnli),
        ("ocnli/ocnli-train.jsonl", ocnli),
        ("alpaca-text/alpaca-text.jsonl", alpaca_text),
        ("messages-text/messages-text.jsonl", messages_text),
        ("pubmedqa/pubmedqa.jsonl", pubmedqa),
        ("stackexchange/stackexchange.jsonl", stackexchange),
        ("text/text.jsonl", text),
        ("qa/qa.json", qa),
        ("pr/pr.json", pr),
        ("io/io.json", io),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_golden_bytes_by_hand(file, records):
    made = [json.dumps(record, ensure_ascii=False, separators=(",", ":")) for record in records()]
    form = "[\n{}\n]\n" if file.endswith(".json") else "{}\n"
    between = ",\n" if file.endswith(".json") else "\n"
    assert made and (GOLDEN / file).read_text(encoding="utf-8") == form.format(between.join(made))


def test_defect_by_hand():
    """Both forms of every report; one in five of them, and each subtype at least once, in test."""
    raw = [row for name in "ab" for row in json.loads(example(f"defect/{name}.json"))]
    documents = Counter()
    for row in raw:
        given, told = row["input"], row["output"]
        user = f"任务：{given['task']}\n\n事件：\n{given['event']}\n\n输出格式：\n{given['output_format']}"
        answer = f"判断:{told['judgement']}\n\n原因：{told['reason']}"
        turns = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
        document = {"subtype": row["instruction"][0]["subtype"], "text": turns}
        documents[json.dumps(document, ensure_ascii=False, separators=(",", ":"))] += 1
    parts = {split: (GOLDEN / f"defect/{split}.jsonl").read_text("utf-8") for split in ("train", "test")}
    assert Counter("".join(parts.values()).splitlines()) == documents
    assert (GOLDEN / "defect/converted_data.jsonl").read_text("utf-8").splitlines() == [*documents.elements()]
    tested = {document["subtype"] for document in lines(parts["test"])}
    assert tested == {row["instruction"][0]["subtype"] for row in raw}
    for split, part in parts.items():
        talks = lines((GOLDEN / f"defect/defect-{split}.jsonl").read_text("utf-8"))
        turned = [[turn["content"] for turn in document["text"]] for document in lines(part)]
        assert turned == [[turn["value"] for turn in talk["conversations"]] for talk in talks]


def mixture(name):
    """Yield (instruction, input, output) of all rows that the parts of a mixture let through."""
    for row in lines(example(f"{name}/reports.jsonl")):
        yield row["instruction"], row.get("input", ""), row["output"]
    for row in lines(example(f"{name}/orca.jsonl")):
        asked, answered = (
            next(turn["value"] for turn in row["conversations"] if turn["from"] == role)
            for role in ("human", "gpt")
        )
        yield asked, "", answered
    for row in lines(example(f"{name}/pubmed.jsonl")):
        yield row["question"], "\n".join(row["context"]["contexts"]), row["long_answer"]
    for part in ("ai", "ic", "biomed") if name == "mix-large" else ():
        for row in lines(example(f"{name}/{part}.jsonl")):
            if "spoon" not in row["question"]:
                yield row["question"], "", max(row["answers"], key=lambda answer: answer["pm_score"])["text"]


@pytest.mark.parametrize("name", ["mix-small", "mix-large"])
def test_mixtures_by_hand(name, tmp_path):
    """What is compiled: every row of the parts (filtered by keyword) once, shuffled, one in ten in eval.

    LLaMA-Factory reads each input after a prefix, and the system text. The document's own file has neither.
    """
    spec = load_spec(name)
    assert not compile_spec(spec, CompileRequest(sources=sources(spec), out=tmp_path)).problems.errors
    train, held_out = (
        [tuple(row.values()) for row in lines((tmp_path / f"{name}/{name}-{split}.jsonl").read_text("utf-8"))]
        for split in ("train", "eval")
    )  # fmt: skip
    document = list(mixture(name))
    trained = {row: (row[0], row[1] and "补充信息：" + row[1], row[2], EXPERT) for row in document}
    assert Counter(train + held_out) == Counter(trained[row] for row in document)
    whole = lines((tmp_path / name / "mixed_finetune_dataset.jsonl").read_text("utf-8"))
    assert {tuple(row) for row in whole} == {("instruction", "input", "output")}
    rows = [tuple(row.values()) for row in whole]
    assert Counter(rows) == Counter(document)
    assert [trained[row] for row in rows if trained[row] in held_out] == held_out
    assert len(held_out) == round(0.1 * len(document))
    assert train != [trained[row] for row in document if trained[row] not in held_out]


def test_the_mixed_file_is_read_as_instructions(tmp_path):
    """`compile io` takes the file that a mixture writes for other programs, and keeps every row as it is."""
    mixture_spec = load_spec("mix-small")
    compile_spec(mixture_spec, CompileRequest(sources=sources(mixture_spec), out=tmp_path))
    mixed = tmp_path / "mix-small/mixed_finetune_dataset.jsonl"
    report = compile_spec(load_spec("io"), CompileRequest(sources=(str(mixed),), out=tmp_path))
    assert not report.problems.errors and report.kept == report.read > 0
    records = read_records(tmp_path / "io/io.json")
    assert {record.pop("system") for record in records} == {""}
    assert records == read_records(mixed)

"""A Chinese locale gives Chinese lines of the first steps, tables and errors; `--lang` overrides it."""

import json
import math
import re
import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.cli.scoring import invoke
from tests.conftest import Here
from tuneyard.cli import cli as tuneyard
from tuneyard.compiler.cli import cli as data
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.cli import doctor
from tuneyard.core.language.message import translated_template

ROWS = "评论,情感\n" + "".join(f"第{n}条,{'正面' if n % 2 else '负面'}\n" for n in range(40))


@pytest.fixture
def in_china(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Chinese locale in an empty folder. A test names it after `here`, which changes the folder, too."""
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_bundled_spec_is_described_in_chinese(in_china: Path) -> None:
    listed = invoke(data, "list").output
    for name in known_specs():
        about = translated_template(load_spec(name).about)
        assert re.search("[\u4e00-\u9fff]", about), name
        assert about in listed


def test_init_and_compile_are_chinese_in_a_chinese_locale(in_china: Path) -> None:
    Path("mine.csv").write_text(ROWS, encoding="utf-8")
    proposed = invoke(data, "init", "mine.csv", "--out", "mine.yaml")
    assert proposed.exit_code == 0 and "已在整个文件上试过：mine  读入 40  保留 40" in proposed.output
    made = invoke(data, "compile", "mine.yaml")
    assert made.exit_code == 0 and "mine  读入 40  保留 40  丢弃 0" in made.output
    assert "下一步：tuneyard data verify mine" in made.output
    english = invoke(data, "compile", "mine.yaml", "--lang", "en")
    assert "mine  read 40  kept 40  dropped 0" in english.output


def test_a_proposal_says_in_chinese_what_it_guesses_and_leaves_out(in_china: Path) -> None:
    rows = [f"第{n}条评论，内容很长,{n},{'正面' if n % 2 else '负面'}" for n in range(40)]
    Path("mine.csv").write_text("\n".join(["内容,编号,倾向", *rows]), encoding="utf-8")
    proposed = invoke(data, "init", "mine.csv", "--out", "mine.yaml")
    said = proposed.output.splitlines()
    comments = [
        line for line in Path("mine.yaml").read_text().splitlines() if line.startswith(("#", "about"))
    ]
    assert "没有用到的列：编号" in said and len(comments) > 1
    for line in filter(str.strip, (*said, *comments)):
        assert re.search("[\u4e00-\u9fff]", line), line


def test_a_compile_of_a_chat_that_rejects_rows_is_chinese(in_china: Path) -> None:
    lines = ["对话,角色,内容", "1,客户,你好", "1,客服,您好", "1,客户,谢谢", "2,客户,在吗"]
    Path("mine.csv").write_text("\n".join(lines), encoding="utf-8")
    proposed = invoke(data, "init", "mine.csv", "--out", "mine.yaml")
    made = invoke(data, "compile", "mine.yaml", "--on-error", "reject")
    assert "读入 2  保留 1  丢弃 0  拒绝 1" in made.output
    said = [*proposed.output.splitlines(), *made.output.splitlines()]
    for line in filter(str.strip, said):
        assert re.search("[\u4e00-\u9fff]", line), line


def test_the_registry_is_ascii_whatever_the_datasets_are_called(in_china: Path) -> None:
    """LLaMA-Factory opens it in the encoding of the locale. People's files have the names as they are."""
    Path("评论.csv").write_text(ROWS, encoding="utf-8")
    invoke(data, "init", "评论.csv", "--out", "评论.yaml")
    assert invoke(data, "compile", "评论.yaml").exit_code == 0
    registry = Path("dataset_info/dataset_info.json").read_bytes()
    assert registry.isascii() and any("评论" in name for name in json.loads(registry))
    (manifest,) = Path("dataset_info").glob("*/manifest.json")
    assert "评论" in manifest.read_text(encoding="utf-8")
    assert "评论" in invoke(data, "list").output


def test_tables_and_problems_of_the_first_steps_are_chinese(in_china: Path) -> None:
    Path("mine.csv").write_text("评论,情感,编号\n" + "".join(f"第{n}条,{n % 2},{n}\n" for n in range(40)))
    invoke(data, "init", "mine.csv", "--out", "mine.yaml", "--text", "评论", "--answer", "情感")
    assert "没有用到：编号（40 行中 40 行）" in invoke(data, "compile", "mine.yaml").output
    assert "  已是最新  " in invoke(data, "compile", "mine.yaml").output
    Path("mine.csv").write_text("评论,情感,编号\n好,1,1\n")
    assert "  需重新编译：数据源 mine.csv 有改动" in invoke(data, "list").output
    wrong = invoke(data, "compile", "qa", "--source", "mine.csv").output
    assert "没有这一列：有 " in wrong and ' 或 "query" 或 ' in wrong and "丢弃 1（缺少该列 1）" in wrong
    registry = Path("lf/dataset_info.json")
    registry.parent.mkdir()
    registry.write_text('{"identity": {"file_name": "identity.json"}}')
    assert "  identity  identity.json  不是在这里编译的" in invoke(data, "list", "--out", "lf").output
    registry.parent.rename("data")
    shutil.rmtree("dataset_info")
    assert (
        "这里没有 dataset_info/dataset_info.json：改读 data/dataset_info.json"
        in invoke(data, "show", "identity").output
    )
    assert "（文本）" in invoke(data, "init", "mine.csv").output


def test_the_steps_of_the_demo_are_chinese_and_their_commands_stand_in_one_column(in_china: Path) -> None:
    steps = invoke(tuneyard, "demo", "--dry-run").stdout.splitlines()
    assert steps[0].startswith("基座模型           tuneyard recipe base")
    assert steps[1].startswith("数据集 demo_rte    tuneyard data compile")


def test_doctor_is_chinese_in_a_chinese_locale(in_china: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MEMORY_LOW", math.inf)
    monkeypatch.setattr(doctor, "examine", lambda: iter([doctor._memory()]))
    lines = invoke(doctor.cli).output.splitlines()
    assert re.fullmatch(r"警告 +内存 +\d+ GB，\d+ 个 CPU 核", lines[0])
    assert lines[1].strip() == "解决：请用更小的模型，或内存更大的机器"
    english = invoke(doctor.cli, "--lang", "en").output.splitlines()
    assert re.fullmatch(r"warning +memory +\d+ GB, \d+ CPU cores", english[0])


def test_refusals_of_own_files_are_chinese(here: Here, in_china: Path) -> None:
    Path("tags.txt").write_text("王 B-PER\n在 O\n")
    Path("answers.jsonl").write_text('{"out": {"role": "assistant", "content": "Yes."}}\n')
    with ZipFile("two.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a.csv", "a\n1\n")
        archive.writestr("a.csv", "a\n2\n")
    said = here(tuneyard, "data", "init", "tags.txt", code=1).stderr
    assert "每行是一个词和它的标签（" in said and '{"question": 句子, "answer": 其中的实体}' in said
    assert "out.content 是模型的回答" in here(tuneyard, "data", "init", "answers.jsonl", code=1).stderr
    assert "请解压" in here(tuneyard, "data", "init", "two.zip", code=1).stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data", "compile"], "错误：缺少参数 NAME|SPEC.yaml…。"),
        (["data", "compile", "nope"], "错误：没有名为“nope”的数据规格（已有：alpaca, "),
        (["data", "compile", "rte", "--limit", "x"], "错误：--limit 的值无效：“x”不是整数。"),
    ],
)
def test_the_first_errors_are_chinese_in_a_chinese_locale(
    words: list[str], message: str, here: Here, in_china: Path
) -> None:
    assert message in here(tuneyard, *words, code=2).stderr


@pytest.mark.parametrize("words", [["compile"], ["compile", "nope"]])
def test_lang_holds_until_its_command_has_printed_its_error_and_no_longer(
    words: list[str], here: Here, in_china: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for locale, error, other, error_in_other in (
        ("C.UTF-8", "rror: ", "zh", "错误："),
        ("zh_CN.UTF-8", "错误：", "en", "rror: "),
    ):
        monkeypatch.setenv("LANG", locale)
        assert error_in_other in here(data, *words, "--lang", other, code=2).stderr
        assert error in here(data, *words, code=2).stderr


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("mixed/a.csv", "question,answer\n1,2\n", "各文件的数据不同："),
        ("photo.csv", "a,b\n\0\0,2\n", "不是文本文件："),
        ("dicts.jsonl", "{'question': 'a', 'answer': 'b'}\n", "这是 Python 的写法"),
        ("dicts.json", "[{'question': 'a', 'answer': 'b'}]", "此前有 0 条完整的数据；这是 Python 的写法"),
        ("comma.jsonl", '{"question": "a", "answer": "b"},\n', "行尾没有逗号："),
        (
            "calls.jsonl",
            '{"functions": [{"name": "find"}], "question": "Find it", "answer": "Here"}\n',
            "拟定的规格无法编译：",
        ),
        ("dicts.txt", "{'question': 'a'}\n{'question': 'b'}\n", "请改名为 .jsonl"),
        (
            "mine.db",
            "question,answer\n1,2\n",
            "无法读取数据库：file is not a database；它是 SQLite 数据库吗？",
        ),
        (
            "thread.csv",
            "message_id,parent_id,text\n1,,Hi\n2,1,Hello\n3,2,Bye\n",
            "从每个最后的回答沿 parent_id",
        ),
    ],
)
def test_a_first_file_that_cannot_be_read_is_refused_in_chinese(
    name: str, content: str, said: str, here: Here, in_china: Path
) -> None:
    assert Path.cwd() == in_china
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(content, encoding="utf-8")
    Path("mixed").mkdir(exist_ok=True)
    Path("mixed/b.csv").write_text("Title,Text,Class\n1,2,3\n", encoding="utf-8")
    source = Path(name).parts[0]
    refused = here(tuneyard, "data", "init", source, "--out", "mine.yaml", code=1)
    error = refused.stderr.splitlines()[-1]
    assert error.startswith(f"错误：{source}") and said in error

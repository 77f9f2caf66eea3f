"""A Chinese locale gives Chinese lines of the first steps, tables and errors; `--lang` overrides it."""

import json
import re
import shutil
import time
from pathlib import Path
from string import Formatter
from zipfile import ZipFile

import pytest

from tests.cli.scoring import invoke
from tests.conftest import ROOT, Here
from tests.json_files import read_json
from tuneyard.compiler.cli import cli as data
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.cli import doctor
from tuneyard.core.cli.main import cli as tuneyard
from tuneyard.core.language.messages import for_reader
from tuneyard.core.language.reader import CHINESE, in_language

MESSAGES = read_json(ROOT / "core/language/messages_zh.json")
FIELD = re.compile(r"\{\w+\}")
ROWS = "评论,情感\n" + "".join(f"第{n}条,{'正面' if n % 2 else '负面'}\n" for n in range(40))


@pytest.fixture
def in_china(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Chinese locale in an empty folder. A test names it after `here`, which changes the folder, too."""
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_fields_of_both_languages_are_the_same() -> None:
    for english, chinese in MESSAGES.items():
        fields = {f"{{{name}}}" for _, name, _, _ in Formatter().parse(chinese) if name is not None}
        assert fields <= set(FIELD.findall(english)), english  # other braces would be a traceback
        assert re.search("[：\u4e00-\u9fff]", chinese), english


def test_every_problem_is_chinese() -> None:
    """The messages of the examples, one or more of each code, are in Chinese."""
    for file in ("tests/golden/messages.txt", "docs/problems.md"):
        for message in (ROOT / file).read_text(encoding="utf-8").splitlines():
            if re.search(r": [EWN]\d\d\d[: ]", message):
                with in_language(CHINESE):
                    assert for_reader(message) != message, message


def test_every_bundled_spec_is_described_in_chinese(in_china: Path) -> None:
    listed = invoke(data, "list").output
    for name in known_specs():
        about = for_reader(load_spec(name).about)
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
    assert "没有这些列：找到 " in wrong and ' 或 "query" 或 ' in wrong and "丢弃 1（缺少该列 1）" in wrong
    registry = Path("lf/dataset_info.json")
    registry.parent.mkdir()
    registry.write_text('{"identity": {"file_name": "identity.json"}}')
    assert "  identity  identity.json  不是在这里编译的" in invoke(data, "list", "--out", "lf").output
    registry.parent.rename("data")
    shutil.rmtree("dataset_info")
    assert "这里没有 dataset_info/dataset_info.json：读取 data/" in invoke(data, "show", "identity").output
    assert "（文本）" in invoke(data, "init", "mine.csv").output


E107 = "a.jsonl:1: E107 messages (turns):"


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("demo_rte  2026-11-27 06:56  stale: the compiler has changed", "需重新编译：编译器已更新"),
        ("error: a.jsonl: E001: not gb18030: byte 0xff: illegal multibyte sequence; name it in a spec under "
         "`source:`, such as `encoding: utf-8`", "字节 0xff：有不合法的多字节序列；请在规格的"),
        ("error: b.csv: it is a link to /gone.csv, which does not exist: remove it, or bring back what it "
         "leads to", "错误：b.csv：它是指向 /gone.csv 的链接"),
        ("a.csv:2: E107 messages (turns): turn 1: found assistant, expected user (turns alternate); the rows "
         "with the same id are the turns of one conversation, in the order of n",
         "第 1 轮：是 assistant，应为 user（用户与助手须交替）；id 相同的行是同一对话的各轮，按 n 排序"),
        (f"{E107} turn 1: found assistant, expected user (`unasked: drop` at the column leaves out what "
         "comes before the user)", "第 1 轮：是 assistant，应为 user（在该列写 `unasked: drop`"),
        (f"{E107} turn 2: weight, name beside content would be lost; put it into the text or leave it out",
         "第 2 轮：content 旁边的 weight, name 会丢失"),
        (f"{E107} the last turn is the call's: nothing to learn; expected an assistant's",
         "最后一轮是 call，没有可学的内容"),
        (f"{E107} turn 1: found parts (sound, text), expected text in 'content'; write a picture as "
         '{"type": "image", "image": PATH} (spec media), or leave its row out',
         "'content' 中有 sound, text，应为文本"),
        ("a.db: the proposed spec does not compile: a.db row 2: E108 photo: 30 of 60 rows have images, and "
         "the spec uses no such column; in the spec a map it to a column, or leave it out by `ignore: "
         "[photo]`; name the columns with --text and --label or --answer, or run it without --out, which "
         "prints the spec: save it, edit it and run `tuneyard data check SPEC.yaml`",
         "a.db row 2：E108 photo：60 行中有 30 行带有图像，而规格没有用到这一列；请在规格 a 中"),
        ("error: x.foo: unknown kind of file '.foo' (known: .csv, .json, each also .gz or .zst); convert it "
         "to one of these", "支持：.csv, .json，均可带 .gz 或 .zst"),
        ("note: rank 32 is above vLLM's default of 16: serve with --max-lora-rank 32\n"
         "error: mine.yaml: the spec: unknown key 'splitt'; did you mean \"split\"?\n"
         "mine.csv: E013: no rows: the source holds none\n"
         "… 1,200 more W214: HTML in an answer (--all shows every one)\n"
         "a.json: ignored next to the rows: total\n"
         "error: base/rte/predictions.jsonl:3: label_mass: found NaN, expected a probability\n"
         "error: adapter 'rtee': no such folder (under saves/: rte); did you mean \"rte\"?\n"
         "error: --rescore results/b: no outputs on rte; name --dataset one of these: mnli\n"
         "rte 54 → eval 6: same 0, added 6, removed 54, changed 0\n"
         "error: --label 评论: more than 30 values, expected 2 to 30; name a column of free text or of "
         "lists with --answer\n"
         "a.yaml: 2 errors, 0 warnings, 1 note (E320 2, N362 1)\n"
         "base  rte  60.0% [31.3%, 83.2%]  n 10  majority 50.0%  always \"no\"  unparsed 0  label mass 0.39  "
         "4.4 s (2.2 rows/s)\n"
         "error: --out v: table.md would be replaced, which is not by this command; choose another folder\n"
         "error: the weights of each adapter add up to 0, which leaves nothing: change one\n"
         "error: a/adapter_config.json: r 8.0: expected a whole number above 0 and up to 9e15\n"
         "error: mine.txt: of a plug-in; choose another folder\n"
         "Error: No such command 'compil'. Did you mean `tuneyard data compile`?\n"
         "  answer: ok",
         "提示：秩 32 大于 vLLM 默认的 16：部署时请加 --max-lora-rank 32\n"
         "错误：mine.yaml：规格中有不认识的键“splitt”；你是指“split”吗？\n"
         "mine.csv：E013：没有任何行：数据源是空的\n"
         "……还有 1,200 处 W214（--all 显示全部）\n"
         "a.json：忽略了与行并列的字段：total\n"
         "错误：base/rte/predictions.jsonl:3：label_mass：为 NaN，应为概率\n"
         "错误：没有适配器“rtee”（saves/ 下有：rte）；你是指“rte”吗？\n"
         "错误：--rescore results/b：没有 rte 上的输出；请用 --dataset 指定其中之一：mnli\n"
         "rte 54 → eval 6：相同 0，新增 6，删除 54，更改 0\n"
         "错误：--label 评论：有多于 30 个取值，应为 2 到 30 个；自由文本或列表的列请用 --answer 指定\n"
         "a.yaml：2 个错误，0 个警告，1 条提示（E320 2, N362 1）\n"
         "base  rte  60.0% [31.3%, 83.2%]  共 10 个样本  多数类基线 50.0%  始终回答“no”  无法解析 0  "
         "标签概率 0.39  4.4 秒（2.2 行/秒）\n"
         "错误：--out v：会覆盖 table.md，而它不是这条命令写的；请换一个文件夹\n"
         "错误：每个适配器的权重之和都是 0，什么也不剩：请改动其中一个权重\n"
         "错误：a/adapter_config.json：r 8.0：应为大于 0、不超过 9e15 的整数\n"
         "错误：mine.txt：of a plug-in；请换一个文件夹\n"
         "错误：没有命令“compil”。你是指 `tuneyard data compile` 吗？\n"
         "  回答：ok"),
    ],
)  # fmt: skip
def test_other_lines_of_the_first_steps(english: str, chinese: str) -> None:
    with in_language(CHINESE):
        assert chinese in for_reader(english)


def test_the_steps_of_the_demo_are_chinese_and_their_commands_stand_in_one_column(in_china: Path) -> None:
    steps = invoke(tuneyard, "demo", "--dry-run").stdout.splitlines()
    assert steps[0].startswith("基座模型           tuneyard recipe base")
    assert steps[1].startswith("数据集 demo_rte    tuneyard data compile")


def test_doctor_is_chinese_in_a_chinese_locale(in_china: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = doctor.Finding(
        "memory", "warning", "2 GB, 1 CPU cores", "take a smaller model, or a machine with more memory"
    )
    monkeypatch.setattr(doctor, "examine", lambda: iter([finding]))
    lines = invoke(doctor.cli).output.splitlines()
    assert lines[0].split() == ["警告", "内存", "2", "GB，1", "个", "CPU", "核"]
    assert lines[1].strip() == "解决：请用更小的模型，或内存更大的机器"
    english = invoke(doctor.cli, "--lang", "en").output.splitlines()
    assert english[0].split() == ["warning", "memory", "2", "GB,", "1", "CPU", "cores"]


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
    ("english", "chinese"),
    [
        ("a.yaml: 1 error, 2 warnings (E301 1, W310 2); 1,200 rows, batch 16, 75 steps an epoch, 225 in all",
         "a.yaml：1 个错误，2 个警告（E301 1, W310 2）；1,200 行，批大小 16，每轮 75 步，共 225 步"),
        ("error: r.yaml: a training recipe, not a spec: tuneyard recipe check r.yaml",
         "错误：r.yaml 是训练配方，不是数据规格：tuneyard recipe check r.yaml"),
        ("tried on the whole file: 8 of 1,200 rows would be rejected; the first: a.csv:2: E107",
         "已在整个文件上试过：1,200 行中有 8 行会被拒绝；第一行：a.csv:2: E107"),
        ("a.jsonl:3: W203: the same input as in a.jsonl:1, another answer",
         "a.jsonl:3：W203：与 a.jsonl:1 的输入相同，回答不同"),
        ("error: 1 of 3 recipes cannot be trained as they are\n"
         "error: x: No such file or directory\nan answer\n"
         "error: mine: 2 problems; nothing was written. Correct them and compile again",
         "错误：3 份配方中有 1 份无法训练\n"
         "错误：x：没有这个文件或文件夹\nan answer\n"
         "错误：mine：2 个问题；什么都没有写入。请改正后重新编译"),
    ],
)  # fmt: skip
def test_a_whole_line_of_the_first_steps(english: str, chinese: str) -> None:
    assert for_reader(english) == english
    with in_language(CHINESE):
        assert for_reader(english) == chinese


def test_a_long_line_takes_no_time_and_words_are_no_count(in_china: Path) -> None:
    names = ", ".join(f"table_{number}" for number in range(500))
    started = time.process_time()
    assert for_reader(f"error: t.db: E007: found the tables {names}, expected one").startswith("错误：t.db")
    assert for_reader("error: " + "x: " * 120).startswith("错误：x")  # more fields than any line has
    assert time.process_time() - started < 2
    assert for_reader("error: a.json: found totals without rows") == "错误：a.json: found totals without rows"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("mixed/a.csv", "question,answer\n1,2\n", "文件夹里的文件内容不同："),
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
            "无法读取数据库（不是数据库文件）；它是 SQLite 数据库吗？",
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

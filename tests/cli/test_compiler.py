"""python -m compiler: what a user types, what it says, how it exits."""

import json

import pytest

from tests.conftest import ROOT
from tests.folders import names
from tests.json_files import write_lines
from tests.messages import printed, printed_line
from tuneyard.compiler.cli import cli

GOOD = ROOT / "tests/examples/good"
BAD = ROOT / "tests/examples/bad"


def test_compile_list_show_remove(here, tmp_path):
    out = tmp_path / "out"
    done = here(cli, "compile", "rte", "--source", GOOD / "rte", "--out", out)
    counts, *where = done.stdout.splitlines()
    assert counts.split("  ")[:4] == ["rte", "read 4", "kept 3", "dropped 1 (no gold label 1)"]
    assert counts.split("  ")[4:6] == ["alpaca_rte_train 2", "alpaca_rte_eval 1"]
    assert counts.endswith(" s")
    files, registered = where
    printed(files, f"{out}/rte/alpaca_rte-train.json", f"{out}/rte/alpaca_rte-eval.json")
    printed(registered, f"{out}/dataset_info.json", "alpaca_rte_train", "alpaca_rte_eval")
    verify, check = done.stderr.splitlines()[-1].split(" && ")
    assert verify == f"next: tuneyard data verify rte --dataset-dir {out}"
    assert check == f"tuneyard recipe check recipes/rte.yaml dataset_dir={out}"
    assert "up to date" in here(cli, "compile", "rte", "--source", GOOD / "rte", "--out", out).stdout
    listed = here(cli, "list", "--out", out).stdout
    assert "ocnli" in listed and "alpaca_rte_train  2 rows  rte" in listed
    shown = here(cli, "show", "rte", "--source", GOOD / "rte", "--row", 3).stdout
    assert "Zoë sold" in shown and '"output":"yes"' in shown
    gone = here(cli, "remove", "rte", "--out", out).stdout
    printed(gone, "rte", "alpaca_rte_train", "alpaca_rte_eval")
    assert names(out) == [".kept", "dataset_info.json"]
    back = here(cli, "restore", "rte", "--out", out).stdout
    printed(back, "restored", "alpaca_rte_train", "alpaca_rte_eval")
    printed(here(cli, "remove", "rte", "--now", "--out", out).stdout, "rte", "alpaca_rte_train")
    assert names(out) == ["dataset_info.json"]


def test_several_datasets_are_compiled_by_one_command(here, tmp_path):
    """Each has its rows, and its next commands."""
    out = tmp_path / "out"
    done = here(cli, "compile", "demo_rte", "demo_mnli", "--limit", 5, "--out", out)
    counts = [line.split("  ")[:3] for line in done.stdout.splitlines() if "  read " in line]
    assert counts == [["demo_rte", "read 10", "kept 10"], ["demo_mnli", "read 10", "kept 10"]]
    assert names(out) == ["dataset_info.json", "demo_mnli", "demo_rte"]
    following = done.stderr.splitlines()[-1]
    for name in ("demo_rte", "demo_mnli"):
        printed(following, f"tuneyard data verify {name} --dataset-dir {out}")
    checked = here(cli, "check", "demo_rte", "demo_mnli", "--limit", 5, "--out", out, "--json").stdout
    assert [json.loads(line)["name"] for line in checked.splitlines()] == ["demo_rte", "demo_mnli"]
    following = here(cli, "check", "demo_rte", "demo_mnli", "--limit", 5, "--out", out).stderr
    printed(following, f"tuneyard data compile demo_rte demo_mnli --limit 5 --dataset-dir {out}")


def test_a_dataset_that_fails_leaves_the_others_compiled(here, tmp_path, monkeypatch):
    """Whichever place it has among them. Exit 1 for wrong rows, 2 for a file that is missing."""
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "data/raw"
    for name, rows in (("qa", [{"question": "Q?", "answer": "A"}]), ("pr", [{"prompt": 7}])):
        (raw / name).mkdir(parents=True)
        write_lines(raw / name / "rows.jsonl", rows)
    for order in (("pr", "qa", "demo_rte"), ("demo_rte", "pr", "qa"), ("qa", "demo_rte", "pr")):
        out = tmp_path / "-".join(order)
        done = here(cli, "compile", *order, "--limit", 2, "--out", out, code=1)
        printed(done.stderr, "error: pr")
        printed_line(done.stderr, "error: 1 of 3", "pr")
        assert names(out) == ["dataset_info.json", "demo_rte", "qa"]
    done = here(cli, "compile", "demo_rte", "io", "--limit", 2, "--out", tmp_path / "out", code=2)
    printed_line(done.stderr, "error: 1 of 2", "io")
    done = here(cli, "compile", "io", "pr", "--limit", 2, "--out", tmp_path / "none", code=1)
    printed_line(done.stderr, "error: 2 of 2", "io, pr")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--source", "a.json"), ("--column", "question=q"), ("--split", "test=0.3"), ("--table", "rows")],
)
@pytest.mark.parametrize("command", ["compile", "check"])
def test_an_option_for_one_file_is_refused_for_several_datasets(here, tmp_path, command, option, value):
    done = here(cli, command, "qa", "pr", option, value, "--out", tmp_path / "out", code=2)
    printed_line(done.stderr, "error", f"{option} {value}", "2", "qa, pr")
    assert not (tmp_path / "out").exists()


def test_a_wrong_name_among_several_stops_before_the_first_compile(here, tmp_path):
    done = here(cli, "compile", "demo_rte", "demo_mnil", "--out", tmp_path / "out", code=2)
    printed_line(done.stderr, "error", "'demo_mnil'", '"demo_mnli"')
    assert not (tmp_path / "out").exists()


def test_bad_rows_exit_1_with_the_place_and_reject_exits_0(here, tmp_path):
    bad = f"train={BAD / 'E104-label.rte.jsonl'}"
    done = here(cli, "compile", "rte", "--source", bad, "--out", tmp_path / "out", code=1)
    assert f'{BAD / "E104-label.rte.jsonl"}:2: E104 label: found "7"' in done.stderr
    printed_line(done.stderr, "error", "rte", "1 problem")
    printed_line(done.stderr, "1 of 3", "--on-error reject")
    assert not (tmp_path / "out").exists()
    args = ("--on_error", "reject", "--out", tmp_path / "out")
    done = here(cli, "compile", "rte", "--source", bad, *args)
    assert "kept 2  dropped 0  rejected 1" in done.stdout
    assert f"rejected rows: {tmp_path}/out/rte/rejected.jsonl" in done.stdout


@pytest.mark.parametrize("order", [("--workers", 2, "--ray", "auto"), ("--ray", "auto", "--workers", 2)])
def test_workers_here_and_on_a_cluster_at_once_are_refused_before_anything(here, tmp_path, order):
    """Also for a dataset that is up to date, which needs no workers."""
    compiled = ("compile", "rte", "--source", GOOD / "rte", "--out", tmp_path / "out")
    here(cli, *compiled)
    for command in (compiled, ("check", "rte")):
        done = here(cli, *command, *order, code=2)
        printed_line(done.stderr, "--workers", "--ray", "one of them")
        assert done.stdout == ""


def test_rejecting_rows_is_not_recommended_where_it_cannot_help(here, tmp_path):
    """Every row is wrong, or the file is: without them nothing is left to compile."""
    every_row = tmp_path / "rows.jsonl"
    every_row.write_text('{"sentence1": "A.", "sentence2": "B.", "label": 7, "idx": 0}\n')
    no_column = tmp_path / "column.jsonl"
    no_column.write_text('{"sentence1": "A.", "label": 1, "idx": 0}\n' * 2)
    for source in (every_row, no_column):
        done = here(cli, "check", "rte", "--source", f"train={source}", code=1)
        assert "nothing was written. Correct" in done.stderr and "--on-error" not in done.stderr


def test_check_gives_json_and_writes_nothing(here, tmp_path):
    source = f"train={BAD / 'W202-row-twice.rte.jsonl'}"
    done = here(cli, "check", "rte", "--source", source, "--json", "--out", tmp_path / "out")
    report = json.loads(done.stdout)
    assert report["read"] == report["kept"] == 3 and report["counts"] == {"W202": 1}
    assert report["problems"][0]["place"].endswith("W202-row-twice.rte.jsonl:3")
    assert not (tmp_path / "out").exists()


def test_wrong_requests_exit_2_in_one_line(here, tmp_path):
    for args, says in (
        (("compile", "rti"), 'did you mean "rte"?'),
        (("compile", "rte", "--source", "no/such"), "no/such: source not found"),
        (
            ("compile", "rte", "--column", "premis=x", "--source", GOOD / "rte"),
            "TARGET one of premise, hypothesis",
        ),
        (
            ("compile", "mix-small", "--source", f"orca={GOOD / 'mix-small' / 'orca.jsonl'}"),
            "my_dataset.json",
        ),
        (("remove", "rte", "--out", tmp_path), "no dataset_info.json"),
        (("compile", "rte", "--source", GOOD / "rte", "--out", GOOD / "rte/train.tsv"), "train.tsv"),
    ):
        done = here(cli, *args, code=2)
        assert says in done.stderr and len(done.stderr.splitlines()) <= 5


@pytest.mark.parametrize("command", ["compile", "check"])
@pytest.mark.parametrize(("option", "value"), [("--ray", "nowhere:1"), ("--workers", 2)])
def test_a_limit_reads_in_one_process_and_says_so(here, tmp_path, command, option, value):
    out = ("--out", tmp_path / "out") if command == "compile" else ()
    limited = (command, "rte", "--source", GOOD / "rte", "--limit", 3, *out)
    done = here(cli, *limited, option, value)
    printed_line(done.stderr, "warning", "--limit 3", "one process")
    assert "one process" not in here(cli, *limited, "--workers", 1).stderr


PLAIN = """about: a
columns: {q: [q], a: {names: [a], is: answer}}
MORE
write:
  - {dataset: "s_{split}", file: "s-{split}.json", format: alpaca, instruction: "{q}", output: "{a}"}
"""


@pytest.mark.parametrize(
    ("more", "is_refused"),
    [
        ("", True),
        ("split: {test: 0.2, seed: 7}", True),
        ("split: {test: 0.2, by: hash}", True),
        ("split: {test: 0.2}", False),
        ("split: {test: 0.2, seed: 7}\nsample: 30", False),
        ("sample: 30", False),
    ],
)
def test_a_seed_is_refused_exactly_where_it_changes_nothing(here, tmp_path, more, is_refused):
    spec, source = tmp_path / "s.yaml", tmp_path / "rows.jsonl"
    spec.write_text(PLAIN.replace("MORE", more))
    write_lines(source, [{"q": f"question {n}", "a": f"answer {n}"} for n in range(60)])
    written = []
    for seed in (1, 2):
        command = ("compile", spec, "--source", source, "--out", tmp_path / f"out{seed}", "--seed", seed)
        done = here(cli, *command, code=2 if is_refused else 0)
        if is_refused:
            printed(done.stderr, f"--seed {seed} has no effect on the spec s", "`sample`")
            assert not (tmp_path / f"out{seed}").exists()
            here(cli, "check", spec, "--source", source, "--seed", seed, code=2)
            here(cli, "check", spec, "--source", source)
        else:
            written.append((tmp_path / f"out{seed}/s/s-train.json").read_bytes())
    assert is_refused or written[0] != written[1]

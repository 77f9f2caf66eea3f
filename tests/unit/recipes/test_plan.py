"""Planning before there is data, and the table of several machines; every figure is worked out by hand."""

import pytest

from tests.cli.scoring import call
from tests.messages import raises
from tests.tables import tables_of
from tuneyard.core.errors import ContentError, ProblemsError, RequestError
from tuneyard.core.records.json_form import from_json_form
from tuneyard.recipes import costs
from tuneyard.recipes.llamafactory.answer import Facts
from tuneyard.recipes.plan.__main__ import command
from tuneyard.recipes.planning import training_plan
from tuneyard.recipes.planning.lines import lines_below, plan_lines, table_lines
from tuneyard.recipes.planning.training_plan import (
    ExpectedRows,
    PlanRequest,
    epoch_of,
    make_plans,
    read_offer,
)
from tuneyard.recipes.recipe import Recipe

SETTINGS = {
    "model_name_or_path": "a/b", "stage": "sft", "do_train": True, "template": "qwen", "cutoff_len": 1024,
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 2,
    "learning_rate": 1e-4, "bf16": True,
}  # fmt: skip
LAYOUT = {
    "parameters": 1_000_000_000, "trainable": 10_000_000, "linear": 900_000_000, "hidden": 2048,
    "intermediate": 8192, "layers": 16, "vocabulary": 40_000,
}  # fmt: skip


def plans_of(recipe, offers, expected=None):
    return make_plans(PlanRequest(recipe, offers, None, expected))


@pytest.fixture
def make_recipe(tmp_path):
    def make(**changed):
        settings = {**SETTINGS, "output_dir": str(tmp_path / "out"), **changed}
        return Recipe(tmp_path / "r.yaml", settings, {})

    return make


@pytest.fixture
def laid_out(monkeypatch):
    """LLaMA-Factory's answer is a layout of a model of a billion parameters."""
    monkeypatch.setattr(
        training_plan, "ask", lambda *_, **__: from_json_form(Facts, {"model": {"shapes": LAYOUT}})
    )


@pytest.mark.parametrize(
    ("changed", "tokens", "epoch"),
    [
        ({}, 400, (1000, 400_000)),
        ({}, 5000, (1000, 1_024_000)),  # cut at 1,024
        ({"val_size": 0.1}, 400, (900, 360_000)),
        ({"val_size": 50, "max_samples": 300, "dataset": "a,b"}, 400, (550, 220_000)),
        ({"stage": "dpo"}, 400, (1000, 800_000)),  # both sides
        ({"packing": True}, 400, (391, 400_384)),  # 400,000 / 1,024 = 390.6
        ({"packing": True}, 5000, (1000, 1_024_000)),
        ({"stage": "pt"}, 400, (390, 399_360)),  # the rest is dropped
        ({"stage": "pt", "preprocessing_num_workers": 4}, 400, (388, 397_312)),  # of each worker, too
        ({"stage": "pt", "val_size": 0.1}, 400, (351, 359_424)),
        ({"stage": "pt"}, 5000, (4882, 4_999_168)),  # text is split, not cut
        ({"stage": "pt", "packing": False}, 400, (1000, 400_000)),
    ],
)
def test_an_epoch_of_expected_rows(make_recipe, changed, tokens, epoch):
    settings = {"dataset": "a", **changed}
    counts = epoch_of(make_recipe(**settings), ExpectedRows(1000, tokens))
    assert (counts.rows, counts.seen, counts.longest) == (*epoch, 1024)


def test_rows_that_fill_no_block(make_recipe):
    with raises(RequestError, "cutoff_len", 1024):
        epoch_of(make_recipe(stage="pt", dataset="a"), ExpectedRows(2, 300))
    with raises(RequestError, "10 rows of 50 tokens", "val_size", "cutoff_len", 1024):
        epoch_of(make_recipe(stage="pt", dataset="a", val_size=0.01), ExpectedRows(1000, 50))
    with raises(RequestError, "60 rows of 50 tokens", "val_size"):  # 15 of each worker
        few = make_recipe(stage="pt", dataset="a", val_size=60, preprocessing_num_workers=4)
        epoch_of(few, ExpectedRows(1000, 50))


@pytest.mark.parametrize("dataset", [{}, {"dataset": "not_there"}])
def test_a_plan_before_there_is_data(make_recipe, laid_out, dataset):
    (plan,) = make_plans(
        PlanRequest(make_recipe(**dataset), [read_offer("A100-80@2")], None, ExpectedRows(1000, 400))
    )
    # 8 rows a step: 125 steps an epoch, 2 epochs, 400 tokens a row
    assert (plan.rows, plan.batch, plan.steps, plan.tokens) == (1000, 8, 250, 800_000)
    assert (plan.longest, plan.tokens_counted, plan.tokens_expected) == (1024, False, True)
    assert (plan.trainable, plan.parameters) == (10_000_000, 1_010_000_000)  # the adapter's are added
    assert plan.cost["middle"] == pytest.approx(plan.seconds["middle"] / 3600 * 2, abs=0.01)
    lines = plan_lines(plan)
    assert sum(line.startswith("cost") for line in lines) == 1
    assert "--rows" in lines[1]


def test_several_machines_are_one_table(make_recipe, laid_out):
    offers = [read_offer(name) for name in ("T4", "4xA100-80@8", "2xMI300X@5.5")]
    plans = make_plans(
        PlanRequest(make_recipe(per_device_train_batch_size=32), offers, None, ExpectedRows(100_000, 400))
    )
    lines = "\n".join(table_lines(plans)).splitlines()
    (table,) = tables_of("\n".join(lines))
    assert table.column("machine") == ["T4", "4xA100-80", "2xMI300X"]
    assert table.column("of") == ["16", "80", "192"]
    assert table.column("batch") == ["64", "256", "128"]
    assert table.column("steps") == ["3,126", "782", "1,564"]
    assert "NOT" in table.cell("T4", "fits") and table.column("fits")[1:] == ["fits", "fits"]
    assert (table.cell("T4", "cost an hour"), table.column("cost")[0]) == ("not given", "not known")
    assert table.cell("4xA100-80", "cost an hour") == "8"
    assert plans[1].cost["upper"] == pytest.approx(plans[1].seconds["upper"] / 3600 * 8, abs=0.01)
    assert [line.split()[0] for line in lines if not line.startswith("|")][1:] == [
        "tokens", "parameters", "disk",
    ]  # fmt: skip


def test_the_disk_is_that_of_this_machine(make_recipe, laid_out, monkeypatch):
    monkeypatch.setattr(costs, "disk_of", lambda *_: (10**10, 3, 27 * 10**9))
    plans = plans_of(make_recipe(), [read_offer("A100")], ExpectedRows(9999, 400))
    (line,) = [line for line in lines_below(plans) if line.startswith("disk ")]
    assert line.endswith("NOT enough disk, 27 GB are free on this machine")


def test_a_slower_gpu_takes_longer(make_recipe, laid_out):
    offers = [read_offer("T4"), read_offer("A100")]
    slow, fast = plans_of(make_recipe(), offers, ExpectedRows(9999, 400))
    assert slow.seconds["middle"] / fast.seconds["middle"] == pytest.approx(4.92, rel=0.01)


def test_a_recipe_that_trains_nothing_is_not_planned(make_recipe):
    with raises(RequestError, "do_train"):
        plans_of(make_recipe(do_train=False), [read_offer("A100")])


def test_wrong_settings_are_errors_without_data_too(make_recipe, laid_out):
    with raises(ProblemsError, "E301"):
        plans_of(make_recipe(lora_ranks=8), [read_offer("A100")], ExpectedRows(10, 10))


@pytest.mark.parametrize("words", [["--rows", "5"], ["--tokens", "5"]])
def test_rows_and_tokens_belong_together(words, tmp_path):
    (tmp_path / "r.yaml").write_text("do_train: true\n", encoding="utf-8")
    with raises(RequestError, "--rows", "--tokens"):
        call(command, tmp_path / "r.yaml", *words)


@pytest.fixture
def recipe_without_data(tmp_path):
    """The file of a recipe without data."""
    settings = {**SETTINGS, "dataset": "not_there", "output_dir": str(tmp_path / "out")}
    path = tmp_path / "r.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in settings.items()), encoding="utf-8")
    return path


def test_a_missing_dataset_points_to_planning_without_data(recipe_without_data):
    with raises(ContentError, "E320", "--rows"):
        call(command, recipe_without_data)


@pytest.mark.parametrize(("machines", "tables"), [(["A100"], 0), (["A100", "T4"], 1)])
def test_one_machine_is_told_in_lines_and_several_in_a_table(
    recipe_without_data, laid_out, capsys, machines, tables
):
    words = [word for name in machines for word in ("--for", name)]
    call(command, recipe_without_data, "--rows", 9999, "--tokens", 400, *words)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| machine ") for line in lines) == tables


def test_a_short_training_in_the_table(make_recipe, laid_out):
    offers = [read_offer(name) for name in ("A100", "2xA100")]
    lines = table_lines(plans_of(make_recipe(max_steps=2), offers, ExpectedRows(1000, 400)))
    assert "\n".join(lines).count("under a minute") == 2


def test_hours_of_a_long_training_have_no_exponent(make_recipe, laid_out):
    offers = [read_offer(name) for name in ("A100", "T4")]
    plans = plans_of(make_recipe(), offers, ExpectedRows(20_000_000, 1000))
    assert all(plan.seconds["lower"] > 100 * 3600 for plan in plans)
    text = "\n".join(table_lines(plans))
    assert "e+" not in text
    for plan in plans:
        assert f"{plan.seconds['upper'] / 3600:,.0f})" in text


@pytest.mark.parametrize(
    ("changed", "tokens", "cut"),
    [
        ({}, 1024, False),
        ({}, 1025, True),
        ({"packing": True}, 5000, True),
        ({"stage": "pt"}, 5000, False),  # running text is split, and nothing is lost
    ],
)
def test_expected_rows_above_cutoff_len_are_said_to_be_cut(make_recipe, laid_out, changed, tokens, cut):
    (plan,) = make_plans(
        PlanRequest(make_recipe(**changed), [read_offer("A100")], None, ExpectedRows(1000, tokens))
    )
    assert plan.tokens_cut is cut
    assert ("CUT (cutoff_len=N" in "\n".join(plan_lines(plan))) is cut


def test_a_machine_that_is_too_small_has_no_price(make_recipe, laid_out, monkeypatch):
    monkeypatch.setattr(
        training_plan,
        "ask",
        lambda *_, **__: from_json_form(Facts, {"model": {"shapes": {**LAYOUT, "parameters": 30 * 10**9}}}),
    )
    offers = [read_offer("RTX5090@0.5"), read_offer("MI300X@2")]
    lines = table_lines(plans_of(make_recipe(), offers, ExpectedRows(1000, 400)))
    cells = {}
    for line in "\n".join(lines).splitlines():
        if line.startswith("| "):
            name, *rest = [cell.strip() for cell in line.strip("|").split("|")]
            cells[name] = rest
    assert cells["RTX5090"][0] == "does NOT fit, as far as it is known"
    assert (cells["RTX5090"][-3], cells["RTX5090"][-1]) == ("–", "–")
    assert "–" not in (cells["MI300X"][-3], cells["MI300X"][-1])

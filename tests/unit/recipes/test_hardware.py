"""Machines by name, by the name that a driver reports, and with a price."""

import pytest

from tests.messages import raises
from tuneyard.core.errors import RequestError
from tuneyard.recipes.machine.hardware import GPUS, gpu_model, machine
from tuneyard.recipes.planning.training_plan import read_offer


@pytest.mark.parametrize(
    ("name", "count", "model"),
    [("gpu", 1, "A100-80"), ("4xA100-80", 4, "A100-80"), ("8xb200", 8, "B200"), ("rtx5090", 1, "RTX5090"),
     ("2XMI300X", 2, "MI300X")],
)  # fmt: skip
def test_machines_by_name(name, count, model):
    gpus = machine(name).gpus
    assert [gpu.name for gpu in gpus] == [model] * count
    assert gpus[0].generation == GPUS[model].generation


@pytest.mark.parametrize(
    "name", ["", "x", "0xA100", "A100x4", "4x", "-1xA100", "99999xA100", "4xA100-80@8.5"]
)
def test_names_that_are_no_machine(name):
    with raises(RequestError, "4xA100-80"):
        machine(name)


def test_a_misspelt_name_gets_the_nearest():
    with raises(RequestError, 'did you mean "RTX5090"?'):
        machine("RTX509")


@pytest.mark.parametrize(
    ("driver", "model"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100-80"), ("NVIDIA A100-PCIE-40GB", "A100-40"), ("NVIDIA A10", "A10"),
        ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H200", "H200"), ("NVIDIA B200", "B200"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"), ("NVIDIA GeForce RTX 5090", "RTX5090"),
        ("NVIDIA RTX A6000", "A6000"), ("Tesla T4", "T4"), ("Tesla V100-SXM2-32GB", "V100"),
        ("NVIDIA L4", "L4"), ("NVIDIA L40S", "L40S"), ("AMD Instinct MI300X", "MI300X"), ("A100", "A100"),
    ],
)  # fmt: skip
def test_drivers_names(driver, model):
    assert gpu_model(driver) == model


@pytest.mark.parametrize(
    "driver", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce GTX 1080", "Tesla V100-SXM2-16GB", ""]
)
def test_gpus_without_figures(driver):
    with raises(RequestError, "--for"):
        gpu_model(driver)


def test_figures_of_the_new_machines():
    """Data sheets: B200 2.25 PFLOPS, 180 GB, 8 TB/s; RTX 5090 209.5 TFLOPS, 32 GB; MI300X 1,307.4 TFLOPS."""
    assert GPUS["B200"][:3] == (2.25e15, 180e9, 8e12)
    assert GPUS["RTX5090"][:3] == (209.5e12, 32e9, 1792e9)
    assert GPUS["MI300X"][:3] == (1307.4e12, 192e9, 5.3e12)


def test_a_price_follows_the_machine():
    offer = read_offer("4xA100-80@8.5")
    assert (offer.target.name, len(offer.target.gpus), offer.price) == ("4xA100-80", 4, 8.5)
    assert read_offer("A100").price is None
    assert read_offer("A100@0").price == 0


@pytest.mark.parametrize("text", ["A100@", "A100@x", "A100@-1", "A100@nan", "A100@inf", "@3"])
def test_prices_that_are_none(text):
    with raises(RequestError, ""):
        read_offer(text)


@pytest.mark.parametrize("text", ["cpu", "this"])
def test_a_machine_without_gpus_is_not_planned(text, monkeypatch):
    monkeypatch.setattr("tuneyard.recipes.machine.hardware.find_gpus", list)
    with raises(RequestError, "--for A100-80"):
        read_offer(text)

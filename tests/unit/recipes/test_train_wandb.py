"""Weights & Biases is reported to where it is installed and configured, and only there."""

import pytest

from tuneyard.core.installation.checkout import ROOT
from tuneyard.recipes.recipe import read_recipe
from tuneyard.recipes.training import train
from tuneyard.recipes.training.train import is_wandb_configured


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine with wandb, without any configuration of it."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DISABLED", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(train, "find_spec", lambda name: name)


@pytest.mark.parametrize("name", ["defect-lora", "defect-full"])
def test_the_recipes_of_the_document_with_monitoring_name_no_tracker(name):
    assert "report_to" not in read_recipe(ROOT / f"recipes/{name}.yaml").settings


def test_without_configuration_nothing_is_added():
    assert not is_wandb_configured()


@pytest.mark.parametrize(("name", "value"), [("WANDB_API_KEY", "abc"), ("WANDB_MODE", "offline")])
def test_a_key_or_offline_mode_configure_it(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert is_wandb_configured()


def test_a_login_in_netrc_configures_its_own_server_alone(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password abc\n")
    assert is_wandb_configured()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not is_wandb_configured()
    (tmp_path / "other").write_text("machine wandb.example.org login user password abc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "other"))
    assert is_wandb_configured()
    (tmp_path / "other").write_text("machine\n")
    assert not is_wandb_configured()


def test_switched_off_or_not_installed_it_is_not_added(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "abc")
    for name, value in (("WANDB_MODE", "disabled"), ("WANDB_DISABLED", "true")):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            assert not is_wandb_configured()
    monkeypatch.setattr(train, "find_spec", lambda _: None)
    assert not is_wandb_configured()

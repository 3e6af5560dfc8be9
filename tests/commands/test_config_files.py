"""A shipped config is found by its name, a user's own file by its path."""

from pathlib import Path

import pytest

from bt_multimodal.commands import config_files
from bt_multimodal.commands.config_files import config_path, shipped_configs, with_config_paths


def test_every_shipped_config_has_a_name():
    names = shipped_configs()
    assert {*map(Path.resolve, names.values())} == {
        path.resolve() for path in Path("configs").rglob("*.yaml")
    }
    assert names["image/digits"].name == "digits.yaml"
    assert "image/ablations/batch_128" in names


@pytest.mark.parametrize("name", ["image/digits", "image/digits.yaml", "configs/image/digits.yaml"])
def test_names_work_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(config_path(name)).samefile(shipped_configs()["image/digits"])


def test_a_users_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "digits").write_text("seed: 1\n")
    assert config_path("image/digits") == "image/digits"
    assert config_path("nowhere.yaml") == "nowhere.yaml"


def test_in_the_arguments():
    digits = str(shipped_configs()["image/digits"])
    argv = ["--config", "image/digits", "--data.source", "image/digits", "--config=image/digits", "--config"]
    assert with_config_paths(argv) == [
        "--config", digits, "--data.source", "image/digits", f"--config={digits}", "--config",
    ]  # fmt: skip


def test_an_installation_without_configs(monkeypatch, tmp_path):
    monkeypatch.setattr(config_files, "_FOLDERS", (tmp_path / "none", tmp_path / "neither"))
    assert shipped_configs() == {}
    assert config_path("image/digits") == "image/digits"

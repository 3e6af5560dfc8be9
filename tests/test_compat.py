"""What each name in `bt_multimodal.compat` needs of its library."""

import io
import tarfile

import pytest
import torch
from torch import nn

from bt_multimodal import compat


def test_trees_of_tensors():
    tree = {"a": torch.ones(2), "b": [torch.zeros(1), (torch.ones(3),)]}
    leaves, form = compat.tree_flatten(tree)
    assert [len(leaf) for leaf in leaves] == [2, 1, 3]
    again = compat.tree_unflatten([leaf + 1 for leaf in leaves], form)
    assert again["b"][1][0].tolist() == [2, 2, 2]
    assert compat.tree_map(len, tree) == {"a": 2, "b": [1, (3,)]}


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm])
def test_every_batch_norm_layer_is_one(kind):
    layer = kind(4)
    assert isinstance(layer, compat.BatchNorm)
    for name in (
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "momentum",
        "eps",
        "affine",
    ):
        assert hasattr(layer, name), name
    assert not isinstance(nn.LayerNorm(4), compat.BatchNorm)


def test_the_store_of_a_process_group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        store = compat.process_group_store(torch.distributed.group.WORLD)
        client = store.clone()
        client.set("key", "value")
        assert store.get("key") == b"value"
        assert client.check(["key"])
        assert not client.check(["another"])
    finally:
        torch.distributed.destroy_process_group()


def test_members_of_an_archive_are_forgotten():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in "abc":
            tar.addfile(tarfile.TarInfo(name))
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        names = []
        while (member := tar.next()) is not None:
            compat.forget_members(tar)
            assert tar.members == []
            names.append(member.name)
    assert names == ["a", "b", "c"]


def test_the_keys_of_a_parser():
    jsonargparse = pytest.importorskip("jsonargparse")

    class Model:
        def __init__(self, width: int = 3):
            pass

    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_argument("--seed", type=int)
    parser.add_class_arguments(Model, "model")
    assert {"seed", "model.width"} <= {*compat.parser_keys(parser)}
    assert not {"help", "config"} & {*compat.parser_keys(parser)}


def test_whether_the_loss_is_scaled():
    pl = pytest.importorskip("lightning.pytorch")
    options = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
    }
    assert not compat.has_scaler(pl.Trainer(**options))
    from lightning.pytorch.plugins.precision import MixedPrecision

    scaled = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    assert compat.has_scaler(pl.Trainer(plugins=[scaled], **options))


def test_the_files_and_values_of_a_parser_are_read_by_a_function(tmp_path, monkeypatch):
    import jsonargparse

    monkeypatch.setattr(jsonargparse._paths.Path, "read_text", None)
    monkeypatch.setitem(jsonargparse._loaders_dumpers.loaders, "yaml", None)
    read, checked = [], []
    compat.read_files_with(jsonargparse, lambda path: read.append(path) or "a: [1]")
    compat.load_values_with(jsonargparse, lambda text: checked.append(text) or text)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--a", type=list[int])
    (tmp_path / "c.yaml").write_text("a: [3]")
    assert parser.parse_args(["--config", str(tmp_path / "c.yaml"), "--a+", "[2]"]).a == [1, 2]
    assert read == [str(tmp_path / "c.yaml")]
    assert "a: [1]" in checked
    assert "[2]" in checked

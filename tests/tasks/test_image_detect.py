"""Detectors from the command line, on a few generated pictures."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from bt_multimodal.encoder_file import export_encoder
from encoders.image.detection.annotations import open_annotated
from encoders.image.detection.data import EvaluationPictures, TrainPictures
from encoders.image.encoders import ConvNet, TorchvisionEncoder
from tasks import image_detect

PATH = "encoders.image.encoders."
VIEWS = {"class_path": "encoders.image.views.ReferenceViews", "init_args": {}}
OBJECTS = [(3, 5, 19, 21), (30, 20, 46, 36)]  # in pixels, of every picture
KINDS = ["red", "blue"]


def painted(path):
    image = Image.new("RGB", (48, 48), "grey")
    for (x1, y1, x2, y2), colour in zip(OBJECTS, KINDS, strict=True):
        ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill=colour)
    image.save(path)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(99)  # another than the runs'
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    spec = {"class_path": PATH + "TorchvisionEncoder", "init_args": {"name": "resnet18"}}
    export_encoder(path, TorchvisionEncoder("resnet18"), spec, VIEWS)
    return path


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    year = tmp_path_factory.mktemp("data") / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (year / folder).mkdir(parents=True)
    rows = "".join(
        f"<object><name>{kind}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for kind, (x1, y1, x2, y2) in zip(KINDS, OBJECTS, strict=True)
    )
    text = f"<annotation><size><width>48</width><height>48</height></size>{rows}</annotation>"
    for i in range(4):
        painted(year / "JPEGImages" / f"{i}.jpg")
        (year / "Annotations" / f"{i}.xml").write_text(text)
    (year / "ImageSets" / "Main" / "trainval.txt").write_text("0\n1\n2\n3\n")
    (year / "ImageSets" / "Main" / "test.txt").write_text("0\n1\n")
    return year.parent


@pytest.fixture(scope="module")
def instances(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    (root / "mini").mkdir()
    annotations = []
    for i in range(4):
        painted(root / "mini" / f"{i}.png")
        for k, (x1, y1, x2, y2) in enumerate(OBJECTS):
            annotations.append({
                "id": len(annotations) + 1, "image_id": i, "category_id": 10 * (k + 1), "iscrowd": 0,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
            })  # fmt: skip
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 48, "width": 48} for i in range(4)],
        "categories": [{"id": 10 * (k + 1), "name": kind} for k, kind in enumerate(KINDS)],
        "annotations": annotations,
    }
    (root / "annotations" / "instances_mini.json").write_text(json.dumps(content))
    return root


SMALL = ["--data.sizes", "[64]", "--data.test_size", "64", "--data.num_workers", "0",
         "--data.batch_size", "2", "--model.anchor_sizes", "[16,24]", "--model.rois", "8",
         "--model.side", "6", "--model.proposals", "[40,20]", "--model.candidates", "[80,40]",
         "--model.milestones", "[]", "--model.warmup_steps", "0", "--model.lr", "0.05",
         "--trainer.accelerator", "cpu", "--trainer.devices", "1"]  # fmt: skip


def run(config, encoder, source, out, steps, *more):
    argv = ["fit", "--config", f"configs/image/{config}.yaml", "--encoder", str(encoder),
            "--data.source", str(source), "--run_dir", str(out), *SMALL,
            "--trainer.max_steps", str(steps), *more]  # fmt: skip
    return image_detect.main(argv)


def voc(encoder, devkit, out, steps, *more):
    splits = ("--data.train_split", "trainval", "--data.test_split", "test")
    return run("voc0712_detection", encoder, devkit, out, steps, *splits, *more)


def figures(out):
    ((name, cells),) = json.loads((out / "table.json").read_text(encoding="utf-8"))["rows"].items()
    return name, {column: value for column, (value, _) in cells.items()}


def last_checkpoint(out):
    return torch.load(max((out / "checkpoints").iterdir()), weights_only=True)


def weights(out):
    state = last_checkpoint(out)
    return state["state_dict"], state["global_step"]


def test_every_weight_is_trained_and_batchnorms_do_not_decay(tmp_path, encoder, devkit):
    assert voc(encoder, devkit, tmp_path, 1) == 0
    state = last_checkpoint(tmp_path)
    weights, norms = state["optimizer_states"][0]["param_groups"]
    assert (weights["weight_decay"], norms["weight_decay"]) == (1e-4, 0)
    resnet = TorchvisionEncoder("resnet18").module
    of_norms = [m for m in resnet.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms["params"]) == 2 * (len(of_norms) + 1)  # and the one after the fifth stage
    others = len([*resnet.parameters()]) - 2 * len(of_norms)
    # And weight and bias of three layers of proposals and two of boxes.
    assert len(weights["params"]) == others + 6 + 4


@pytest.mark.slow
def test_it_learns_and_leaves_a_picture(tmp_path, encoder, devkit, capsys):
    assert voc(encoder, devkit, tmp_path, 80) == 0
    name, found = figures(tmp_path)
    assert name == "trained encoder"
    assert found["AP50"] > 30
    assert found["AP50"] >= found["AP75"]
    out = capsys.readouterr().out
    assert "2 test images, trained on 4 for 80 steps" in out
    assert "AP50" in (tmp_path / "table.txt").read_text(encoding="utf-8")
    with Image.open(tmp_path / "detections.png") as picture:
        assert picture.width > 600


def test_a_run_that_stopped_is_continued(tmp_path, encoder, devkit):
    assert voc(encoder, devkit, tmp_path / "whole", 4) == 0
    assert voc(encoder, devkit, tmp_path / "two", 2) == 0
    whole, steps = weights(tmp_path / "whole")
    halfway, steps_halfway = weights(tmp_path / "two")
    assert (steps_halfway, steps) == (2, 4)
    assert voc(encoder, devkit, tmp_path / "two", 4) == 2
    assert voc(encoder, devkit, tmp_path / "two", 4, "--resume", "extend") == 0
    continued, steps = weights(tmp_path / "two")
    assert steps == 4
    key = "detector.backbone.layer1.0.conv1.weight"
    assert not torch.equal(halfway[key], whole[key])
    for name, tensor in whole.items():
        torch.testing.assert_close(continued[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    # One that has ended gives its table again.
    before = figures(tmp_path / "whole")
    (tmp_path / "whole" / "table.json").unlink()
    assert voc(encoder, devkit, tmp_path / "whole", 4) == 0
    assert figures(tmp_path / "whole") == before


def test_the_encoders_weights_and_fresh_ones(tmp_path, encoder, devkit):
    still = ("--model.lr", "1e-20")  # nothing moves
    assert voc(encoder, devkit, tmp_path / "trained", 1, *still) == 0
    assert voc(encoder, devkit, tmp_path / "fresh", 1, *still, "--fresh", "true") == 0
    torch.manual_seed(99)  # another than the runs'
    expected = TorchvisionEncoder("resnet18").module.state_dict()["layer3.0.conv1.weight"]
    trained, _ = weights(tmp_path / "trained")
    fresh, _ = weights(tmp_path / "fresh")
    assert torch.equal(trained["detector.backbone.layer3.0.conv1.weight"], expected)
    assert not torch.equal(fresh["detector.backbone.layer3.0.conv1.weight"], expected)
    assert figures(tmp_path / "fresh")[0] == "untrained encoder"


def test_masks(tmp_path, encoder, instances):
    splits = ("--data.train_split", "mini", "--data.test_split", "mini")
    assert run("coco_instances", encoder, instances, tmp_path, 4, *splits) == 0
    _, found = figures(tmp_path)
    assert [*found] == ["AP", "AP50", "AP75", "mask AP", "mask AP50", "mask AP75"]
    assert all(0 <= value <= 100 for value in found.values())
    assert (tmp_path / "detections.png").is_file()


def test_wrong_inputs_are_one_line(tmp_path, encoder, devkit, capsys):
    convnet = tmp_path / "convnet.safetensors"
    spec = {"class_path": PATH + "ConvNet", "init_args": {"widths": [8]}}
    export_encoder(convnet, ConvNet([8]), spec, VIEWS)
    for more, message in (
        (("--encoder", str(tmp_path / "nowhere")), "there is no encoder"),
        (("--encoder", str(convnet)), "not on ConvNet"),
        (("--data.source", str(tmp_path)), "neither COCO"),
        (("--data.test_split", "val"), "no ImageSets/Main/val.txt"),
        (("--data.masks", "true"), "has only boxes"),
        (("--data.batch_size", "5000"), "batch_size 5000"),
        (("--data.sizes", "[]"), "sizes []"),
        (("--model.milestones", "[0]"), "milestones must be 1 or more"),
        (("--trainer.max_steps", "-1"), "trainer.max_steps"),
        (("--model.ancor_sizes", "[8]"), "did you mean model.anchor_sizes"),
    ):
        assert voc(encoder, devkit, tmp_path / "run", 2, *more) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "run").exists()


def test_damaged_pictures_are_replaced_and_left_out(tmp_path, encoder, devkit):
    shutil.copytree(devkit, tmp_path / "devkit")
    (tmp_path / "devkit" / "VOC2007" / "JPEGImages" / "1.jpg").write_bytes(b"no picture")
    train, test = open_annotated(str(tmp_path / "devkit"), "trainval", "test")
    dataset = TrainPictures(train.pictures * 50, [64], 100, 0, with_masks=False)
    with pytest.warns(UserWarning, match=r"damaged record .*1\.jpg"):
        batch = dataset[(0, 1)]
    assert batch.indices != [1]
    assert len(batch.targets) == 1
    held_out = EvaluationPictures(test.pictures * 100, 64, 100, 2, 0, 1)
    with pytest.warns(UserWarning, match=r"damaged record .*1\.jpg"):
        assert held_out[0].indices == [0]


def test_views_depend_on_seed_epoch_and_index_alone(devkit):
    train, _ = open_annotated(str(devkit), "trainval", "test")
    dataset = TrainPictures(train.pictures, [48, 64, 80], 100, 0, with_masks=False)
    together = dataset.__getitems__([(3, 0), (3, 1), (3, 2)])
    alone = dataset[(3, 2)]
    assert torch.equal(together.pictures[2], alone.pictures[0])
    assert torch.equal(together.targets[2]["boxes"], alone.targets[0]["boxes"])
    many = [dataset[(epoch, 0)] for epoch in range(20)]
    assert {p.pictures[0].shape[-1] for p in many} == {48, 64, 80}
    sides = {bool(p.targets[0]["boxes"][0, 0] < p.pictures[0].shape[-1] / 2) for p in many}
    assert sides == {True, False}


def test_a_bare_command_imports_nothing_heavy():
    code = "import sys; from tasks import image_detect as t; t.main([]); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert "Faster R-CNN" in done.stdout

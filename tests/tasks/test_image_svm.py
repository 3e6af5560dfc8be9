"""SVMs from the command line, on pictures of two colours in the layout of VOC."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import adaptive_avg_pool2d

from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.encoder_file import export_encoder, load_encoder
from bt_multimodal.evaluation.features import extract_features
from bt_multimodal.evaluation.svm_probe import mean_average_precision, svm_probe
from encoders.image.encoders import ConvNet
from encoders.image.supervised_views import ClassificationViews
from encoders.image.voc import open_voc
from tasks import image_svm

VIEWS = {"class_path": "encoders.image.supervised_views.ClassificationViews", "init_args": {"size": 40}}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    spec = {"class_path": "encoders.image.encoders.ConvNet", "init_args": {"widths": [8, 16]}}
    encoder = ConvNet([8, 16]).train()
    for _ in range(20):  # BatchNorm learns the scale, no weight is trained
        encoder(torch.randn(16, 3, 16, 16))
    export_encoder(path, encoder, spec, VIEWS)
    return path


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """60 and 40 pictures of noise with a red and a blue square in some, which are the classes."""
    root = tmp_path_factory.mktemp("VOC2007")
    (root / "JPEGImages").mkdir()
    (root / "ImageSets/Main").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, n in (("trainval", 60), ("test", 40)):
        lines = {"red": [], "blue": []}
        for i in range(n):
            name = f"{split}{i:03d}"
            picture = rng.integers(0, 256, (48, 56, 3), dtype=np.uint8)
            for name_of, channel in (("red", 0), ("blue", 2)):
                has = rng.random() < 0.4
                if has:
                    top, left = rng.integers(4, 28, 2)
                    square = picture[top : top + 14, left : left + 14]
                    square[..., channel] = square[..., channel] // 2 + 127
                value = 0 if rng.random() < 0.05 else 1 if has else -1
                lines[name_of].append(f"{name} {value:2d}\n")
            Image.fromarray(picture).save(root / "JPEGImages" / f"{name}.jpg")
        for name_of, text in lines.items():
            (root / "ImageSets/Main" / f"{name_of}_{split}.txt").write_text("".join(text))
    return root


def run(encoder, voc, *more):
    argv = ["fit", "--config", "configs/image/voc07_svm.yaml", "--encoder", str(encoder),
            "--views.size", "40", "--data.source", str(voc), "--device", "cpu",
            "--svm.costs", "[0.1, 1.0, 10.0]", "--svm.folds", "4", *more]  # fmt: skip
    return image_svm.main(argv)


def expected(voc, table):
    """The SVMs of what ``table`` gives for each split's records, and their two figures in per cent."""
    train, test = open_voc(voc)
    fitted, tested = (table(part.records) for part in (train, test))
    found = svm_probe(
        fitted, train.targets, tested, (0.1, 1.0, 10.0), folds=4, seed=0, difficult_as_absent=True
    )
    figures = [
        100 * mean_average_precision(found.scores, test.targets, eleven)[0] for eleven in (False, True)
    ]
    return found, *figures


def test_the_table_and_what_is_kept(tmp_path, encoder, voc, capsys):
    out = tmp_path / "run"
    assert run(encoder, voc, "--run_dir", str(out)) == 0
    printed = capsys.readouterr().out
    table = json.loads((out / "table.json").read_text(encoding="utf-8"))
    assert table["title"] == "40 test images, 60 for the SVMs of 2 classes"
    assert (out / "table.txt").read_text(encoding="utf-8") in printed
    views = ClassificationViews(40, squeeze=True)

    def features(records):
        decoded = DecodedRecords(records, views.decode)
        return extract_features(load_encoder(encoder).encoder, views, decoded).features

    def pixels(records):
        decoded = DecodedRecords(records, views.decode)
        clean = torch.stack([views.clean(decoded.get(i)) for i in range(len(decoded))])
        return adaptive_avg_pool2d(views.clean_batch(clean), 32).flatten(1)

    svms = json.loads((out / "svms.json").read_text(encoding="utf-8"))
    for name, of in (("trained encoder", features), ("raw pixels", pixels)):
        found, area, eleven = expected(voc, of)
        assert table["rows"][name]["mAP"] == [pytest.approx(area, abs=0.01), None]
        assert table["rows"][name]["mAP (11-point)"] == [pytest.approx(eleven, abs=0.01), None]
        kept = [svms[name][each] for each in ("blue", "red")]
        assert [own["C"] for own in kept] == found.costs.tolist()
        assert np.mean([own["AP"] for own in kept]) == pytest.approx(area, abs=0.01)
        validation = [own["AP in cross-validation"] for own in kept]
        assert validation == pytest.approx((100 * found.validation.amax(1)).tolist(), abs=0.01)
    assert list(table["rows"]) == ["raw pixels", "untrained encoder", "trained encoder"]
    assert table["rows"]["untrained encoder"] != table["rows"]["trained encoder"]
    assert 70 < table["rows"]["trained encoder"]["mAP"][0] < 100
    assert "difficult_as_absent: true" in (out / "config.yaml").read_text(encoding="utf-8")


def test_damaged_pictures_keep_features_and_targets_together(tmp_path, encoder, voc, capsys, monkeypatch):
    decode = ClassificationViews.decode
    damaged = {(voc / "JPEGImages" / f"{name}.jpg").read_bytes() for name in ("trainval000", "test003")}

    def broken(self, raw):
        if raw in damaged:
            raise OSError("truncated")
        return decode(self, raw)

    assert run(encoder, voc, "--run_dir", str(tmp_path / "whole")) == 0
    monkeypatch.setattr(ClassificationViews, "decode", broken)
    with pytest.warns(UserWarning, match="damaged record"):
        assert run(encoder, voc, "--run_dir", str(tmp_path / "run")) == 0
    found = json.loads((tmp_path / "run" / "table.json").read_text(encoding="utf-8"))
    assert found["title"] == (
        "39 of 40 test images (1 damaged), 59 of 60 (1 damaged) for the SVMs of 2 classes"
    )
    listed = (tmp_path / "run" / "damaged.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("/")[-1] for line in listed[1:]] == [
        f"{name}.jpg: OSError: truncated" for name in ("trainval000", "test003")
    ]
    none = ("--data.damaged_least", "0")
    assert run(encoder, voc, "--run_dir", str(tmp_path / "strict"), *none) == 2
    assert "1 of 60 damaged so far, over the allowed 0" in capsys.readouterr().err
    # Shifted by one row, the targets would be as good as random.
    whole = json.loads((tmp_path / "whole" / "table.json").read_text(encoding="utf-8"))
    for name, figures in whole["rows"].items():
        assert found["rows"][name]["mAP"][0] == pytest.approx(figures["mAP"][0], abs=8)


def test_wrong_input_is_one_line(tmp_path, encoder, voc, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for more, message in (
        (("--encoder", str(tmp_path / "nowhere")), "there is no encoder"),
        (("--data.source", str(tmp_path)), "is not a VOC folder"),
        (("--data.test_split", "val"), "has no split 'val'"),
        (("--svm.folds", "50"), "class 'blue' has "),
        (("--svm.costs", "[0.0]"), "costs must be positive, got [0.0]"),
        (("--svm.fold", "3"), "unknown key svm.fold; did you mean svm.folds?"),
        (("--run_dir", str(tmp_path / "full")), "full is not empty"),
        (("--data.batch_size", "0"), "batch_size must be 1 or more, not 0"),
    ):
        assert run(encoder, voc, "--run_dir", str(tmp_path / "run"), *more) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "run").exists()
    assert image_svm.main(["test"]) == 2
    assert "unknown word 'test'; keys begin with --" in capsys.readouterr().err


def test_a_bare_command_imports_nothing_heavy():
    code = (
        "import sys; from tasks import image_svm as t; assert t.main([]) == 0; "
        "assert not {'torch', 'lightning', 'jsonargparse', 'sklearn', 'datasets'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Train one linear SVM per class on a frozen image encoder")
    assert (done.returncode, done.stderr) == (0, "")

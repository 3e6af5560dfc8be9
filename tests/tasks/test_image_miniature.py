"""The miniature's chain: every step is a shipped config with keys that exist, and its bookkeeping."""

import pytest

from bt_multimodal.evaluation.report import Comparison, save_comparison
from tasks import image_miniature as miniature
from tests.test_configs import parser_of


@pytest.mark.parametrize("step", [miniature.PRETRAINING, *miniature.EVALUATIONS], ids=lambda step: step.title)
def test_every_step_parses(step):
    path = miniature._CONFIGS / step.config
    parser, required = parser_of(path)
    argv = ["--config", str(path), *step.overrides.format(out="OUT").split(), *required]
    assert parser.parse_args(argv).data.source.startswith("OUT/")
    words = step.task.replace("_", " ")
    assert f"bt-multimodal {words} " in path.read_text(encoding="utf-8")


def test_the_chain(tmp_path, monkeypatch):
    """Untrained encoders get runs of their own where they need them; figures go to their columns."""
    done = []

    def command(task):
        def run(argv):
            folder = argv[argv.index("--run_dir") + 1]
            fresh, seed = "--fresh" in argv, int(argv[argv.index("--seed") + 1])
            done.append((task, fresh, argv[argv.index("--encoder") + 1] if "--encoder" in argv else None))
            columns = {c: (10.0 * seed + len(task) + fresh, None) for c in ("kNN", "top-1", "mAP", "AP50")}
            rows = {"untrained encoder" if fresh else "trained encoder": columns}
            (tmp_path / folder).mkdir(parents=True)
            save_comparison(tmp_path / folder, Comparison("", rows))
            return 0

        return run

    monkeypatch.setattr(miniature, "_command", command)
    rows = miniature.chain(tmp_path, [0, 1])
    assert len(done) == 2 * (1 + 2 * 4 + 1)
    assert done[0] == ("image_pretrain", False, None)
    assert {encoder for _, _, encoder in done[1:10]} == {str(tmp_path / "seed0" / "imagenet_resnet50")}
    assert [*rows["trained encoder"]] == ["kNN", "linear", "1 %", "10 %", "VOC mAP", "detection AP50"]
    assert rows["trained encoder"]["linear"] == (19.0, pytest.approx(50**0.5))
    assert rows["untrained encoder"]["linear"][0] == 20.0
    assert "VOC mAP" not in rows["untrained encoder"]  # the SVM task measures it itself
    miniature.chain(tmp_path, [0, 1])
    assert len(done) == 20  # all had ended
    monkeypatch.setattr(miniature, "_command", lambda task: lambda argv: 2)
    with pytest.raises(ValueError, match=r"kNN, seed 7, failed; see .*imagenet_resnet50\.log"):
        miniature.chain(tmp_path, [7])


def test_the_data_alone(tmp_path, capsys):
    for name in ("pictures", "VOC2007"):
        (tmp_path / name).mkdir()
    assert miniature.main(["--data.source", "anything", "--out", str(tmp_path), "--seeds"]) == 0
    assert capsys.readouterr().out == f"the data are in {tmp_path}\n"


def test_wrong_source(tmp_path, capsys):
    assert miniature.main(["--data.source", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "none' does not exist" in capsys.readouterr().err

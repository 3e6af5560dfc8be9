"""metrics.csv of a run that is continued."""

import csv
from types import SimpleNamespace

import pytest

from bt_multimodal.errors import TrainingFailedError
from bt_multimodal.training.callbacks import MetricsFile


def trainer(epoch, step):
    return SimpleNamespace(current_epoch=epoch, global_step=step, checkpoint_callback=None)


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["epoch"], row["step"], row["knn"]) for row in csv.DictReader(file)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    for epoch in range(3):
        file.append(trainer(epoch, 5 * epoch + 5), loss=0.5)
        file.append(trainer(epoch, 5 * epoch + 5), knn=50.0 + epoch)
    return path


@pytest.mark.parametrize(("step", "left"), [(0, 0), (4, 0), (5, 2), (14, 4), (15, 6), (99, 6)])
def test_rows_after_the_checkpoint_are_removed(path, step, left):
    before = rows(path)
    MetricsFile(path).rewind(step)
    assert rows(path) == before[:left]


def test_half_a_line_and_no_file(path, tmp_path):
    before = rows(path)
    with path.open("a") as file:
        file.write("4,20,0.3")
    MetricsFile(path).rewind(20)
    assert rows(path) == before
    MetricsFile(tmp_path / "none.csv").rewind(5)
    assert not (tmp_path / "none.csv").exists()


def test_columns_of_other_versions_stay(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",mine", *(line + ",7" for line in lines[1:])]) + "\n")
    MetricsFile(path).rewind(10)
    with path.open(newline="") as file:
        assert [row["mine"] for row in csv.DictReader(file)] == ["7"] * 4


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe broken\n",
        b"epoch,step\n1,banana\n",
        b"epoch,loss\n1,2\n",
        b"epoch,step\n1,5,6,7\n",
        b"epoch,step\n1\n",
    ],
)
def test_a_damaged_one_is_named_and_left(path, content):
    path.write_bytes(content)
    with pytest.raises(
        TrainingFailedError, match=r"metrics.csv is damaged \(.+\): repair it, or move it away"
    ):
        MetricsFile(path).rewind(5)
    assert path.read_bytes() == content


def test_whether_a_metric_is_there(path):
    file = MetricsFile(path)
    assert [file.has(epoch, "knn") for epoch in (1, 3, 4)] == [True, True, False]
    assert not file.has(1, "effective_rank")
    file.append(trainer(7, 40), epoch=4, knn=1.0)  # of an epoch that ended before
    assert file.has(4, "knn")

"""A run's directory is its own."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bt_multimodal.commands.run_folder import RunFolder, link_latest, new_folder

HOLD = """
import sys
from pathlib import Path
from bt_multimodal.commands.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


def test_only_one_process_has_it(tmp_path):
    run = tmp_path / "run"
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(
            ValueError, match=f"process {child.pid} on .* trains in .*run: wait for it or stop"
        ):
            RunFolder(run)
        child.kill()  # a lock ends with its process, however that ends
        child.wait()
    finally:
        child.kill()
        child.stdin.close()
        child.stdout.close()
    RunFolder(run).release()


def test_a_forked_process_does_not_hold_it_on(tmp_path):
    """Loader processes may live a little longer than the run."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        folder = RunFolder(tmp_path)
        grandchild = os.fork()
        if not grandchild:
            os.read(reader, 1)
            os._exit(0)
        assert folder.path == tmp_path
        os._exit(0)
    try:
        assert os.waitpid(child, 0)[1] == 0
        RunFolder(tmp_path).release()
    finally:
        os.write(writer, b"1")
        os.close(reader)
        os.close(writer)


def test_new_ones_are_never_shared_and_the_newest_has_a_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_folder("digits"), range(24)))
    assert len({*folders}) == 24
    assert all(folder.is_dir() for folder in folders)
    for folder in folders:
        link_latest(folder)
    newest = new_folder("digits")
    link_latest(newest)
    latest = Path("runs/digits/latest")
    assert latest.is_symlink()
    assert latest.resolve() == newest.resolve()
    assert not [path for path in Path("runs/digits").iterdir() if path.name.startswith(".")]


def test_a_folder_called_latest_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "digits" / "latest").mkdir(parents=True)
    link_latest(new_folder("digits"))
    assert not (tmp_path / "runs" / "digits" / "latest").is_symlink()


def made(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


@pytest.mark.parametrize(
    ("names", "continues", "refused"),
    [
        ((), False, None),
        ((".lock",), False, None),
        (("initial.safetensors", "damaged.txt", "config.yaml.partial"), False, None),
        (("config.yaml",), False, None),
        (("config.yaml", "metrics.csv"), False, None),
        (("config.yaml", "checkpoints/step=000000003.ckpt"), True, None),
        (("config.yaml", "checkpoints/other.ckpt"), False, None),
        (("chapter.tex",), False, "is not empty and holds no run to continue"),
        ((".hidden",), False, "is not empty and holds no run to continue"),
        (("metrics.csv",), False, "is not empty and holds no run to continue"),
        (("a/config.yaml", "b/config.yaml"), False, "it holds the runs a, b$"),
        (("config.yaml", "encoder.safetensors"), False, "has no checkpoint any more"),
        (("config.yaml", "table.json"), False, "has no checkpoint any more"),
    ],
)
def test_what_is_in_it(tmp_path, names, continues, refused):
    made(tmp_path, *names)
    before = sorted(tmp_path.rglob("*"))
    if refused:
        with pytest.raises(ValueError, match=refused):
            RunFolder(tmp_path)
        assert sorted(tmp_path.rglob("*")) == before
        return
    folder = RunFolder(tmp_path)
    assert folder.continues == continues
    folder.release()
    assert {*tmp_path.rglob("*")} == {*before} - {tmp_path / ".lock"}


def test_one_that_came_to_nothing_is_removed(tmp_path):
    RunFolder(tmp_path / "a" / "b").release()
    assert not (tmp_path / "a" / "b").exists()
    new = tmp_path / "new"
    new.mkdir()
    RunFolder(new, new=True).release()
    assert not new.exists()
    folder = RunFolder(tmp_path / "c")
    made(tmp_path / "c", "metrics.csv")
    folder.release()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["metrics.csv"]


def test_a_file_in_its_place(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError, match="run"):
        RunFolder(tmp_path / "run")

"""The directory of a run: made, found again, and kept from other processes."""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from bt_multimodal.safe_files import PARTIAL

CONFIG, CHECKPOINTS = "config.yaml", "checkpoints"
LATEST = "latest"  # a link to the newest run of a config
_LOCK = ".lock"
# What a run may have left before its config.
_EARLY = {_LOCK, CONFIG + PARTIAL, "damaged.txt", "initial.safetensors"}


class RunFolder:
    """A run directory that this process has locked.

    Args:
        path: the directory; made if it does not exist.
        new: it was made for this run alone (`new_folder`).

    Attributes:
        path: as given.
        continues: whether it holds a run to go on with.

    Raises:
        ValueError: a folder with something else in it, or one that another process uses.
        OSError: it cannot be made.
    """

    def __init__(self, path: Path, new: bool = False):
        self.path = path
        entries = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
        if entries - _EARLY and CONFIG not in entries:
            raise ValueError(f"{path} is not empty and holds no run to continue{runs_below(path)}")
        self.continues = any((path / CHECKPOINTS).glob("step=*.ckpt"))
        if not self.continues and (left := entries & {"encoder.safetensors", "table.json"}):
            raise ValueError(
                f"{path} holds {min(left)} of a run that has no checkpoint any more: choose another --run_dir"
            )
        self._made = new or not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(path / _LOCK)

    def release(self) -> None:
        """Unlock the directory, and remove it if this process made it and nothing came of it."""
        if self._lock is None:
            return
        with suppress(OSError):
            (self.path / _LOCK).unlink()
        os.close(self._lock)
        self._lock = None
        if self._made:
            with suppress(OSError):
                self.path.rmdir()  # only an empty one


def new_folder(name: str) -> Path:
    """Make ``runs/NAME/TIME``, which no other process gets."""
    parent = Path("runs") / name
    parent.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        with suppress(FileExistsError):
            (parent / (stamp + suffix)).mkdir()
            break
    return parent / (stamp + suffix)


def link_latest(folder: Path) -> None:
    """Let ``latest`` beside a run directory lead to it, where the file system has links."""
    latest, link = folder.parent / LATEST, folder.parent / f".{LATEST}-{os.getpid()}"
    if latest.exists() and not latest.is_symlink():
        return
    with suppress(OSError):
        link.symlink_to(folder.name)
        os.replace(link, latest)


def runs_below(path: Path) -> str:
    """For a message: the runs in a folder of runs, or of folders of runs; empty if it has none."""
    for depth in ("*", "*/*"):
        found = [entry.parent for entry in path.glob(f"{depth}/{CONFIG}") if not entry.parent.is_symlink()]
        if runs := sorted(str(run.relative_to(path)) for run in found):
            more = " and older ones" if len(runs) > 5 else ""
            newest = f"; {path / LATEST} is the newest" if (path / LATEST / CONFIG).is_file() else ""
            return f"; it holds the runs {', '.join(runs[-5:])}{more}{newest}"
    return ""


def check_encoder(name: str) -> None:
    """Refuse a folder of runs, and a run without an encoder, where an encoder is asked for.

    Raises:
        ValueError: names the runs in the folder, or says that the run has not ended.
    """
    path = Path(name)
    if not name or not path.is_dir() or (path / "encoder.safetensors").exists():
        return
    if (path / CONFIG).is_file():
        raise ValueError(f"the run in {path} has no encoder yet: its command with --run_dir {path} ends it")
    if below := runs_below(path):
        raise ValueError(f"{path} is no run directory{below}")


def _locked(path: Path) -> int | None:
    """Lock a file until this process ends; its file descriptor, or ``None`` where there are no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock it is not inherited by a fork
    except OSError as error:
        if not isinstance(error, BlockingIOError | PermissionError):
            os.close(descriptor)
            return None  # a file system without locks
        holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
        os.close(descriptor)
        raise ValueError(
            f"{holder} trains in {path.parent}: wait for it or stop it, or choose another --run_dir"
        ) from None
    os.truncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return descriptor

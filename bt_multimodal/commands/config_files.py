"""Where the shipped config files are: in the wheel, or in the checkout."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# In the wheel they lie within the package, in a checkout beside it.
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")


def shipped_configs() -> dict[str, Path]:
    """The shipped config files by name, such as ``image/digits``."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    if folder is None:
        return {}
    return {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.yaml"))}


def config_path(name: str) -> str:
    """A config's path: ``name`` itself where such a file exists, else the shipped config of that name."""
    if Path(name).exists():
        return name
    found = shipped_configs().get(name.removeprefix("configs/").removesuffix(".yaml"))
    return name if found is None else str(found)


def with_config_paths(argv: Sequence[str]) -> list[str]:
    """The arguments, with the path of each ``--config`` in place of a shipped config's name."""
    found = list(argv)
    for i, word in enumerate(found):
        if word.startswith("--config="):
            found[i] = f"--config={config_path(word.partition('=')[2])}"
        elif i and found[i - 1] == "--config":
            found[i] = config_path(word)
    return found


def with_own_config(argv: Sequence[str]) -> list[str]:
    """The arguments; those that name a run to continue and no config are preceded by the run's own."""
    pairs = pairwise([*argv, ""])
    words = dict(word.partition("=")[::2] if "=" in word else (word, value) for word, value in pairs)
    own = Path(words.get("--run_dir", "")) / "config.yaml"
    if "--config" in words or "--run_dir" not in words or not own.is_file():
        return list(argv)
    return ["--config", str(own), *argv]

"""Where the shipped config files are: in the wheel, or in the checkout."""

import difflib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from bt_multimodal.commands.config_text import config_text, reason
from bt_multimodal.commands.near_keys import check_mapping

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


def config_words(argv: Sequence[str]) -> list[str]:
    """The values of ``--config`` in the arguments."""
    pairs = pairwise([*argv, ""])
    words = [
        ("--config", word[9:]) if word.startswith("--config=") else (word, value) for word, value in pairs
    ]
    return [value for word, value in words if word == "--config"]


def check_configs(argv: Sequence[str], keys: Sequence[str]) -> None:
    """Read the config files among the arguments, and refuse what cannot be right in them.

    Args:
        argv: the arguments, with paths (`with_config_paths`).
        keys: those of the command.

    Raises:
        ValueError: as `config_text`, or an unknown key; names the file.
    """
    import yaml

    for name in config_words(argv):
        if not name or name.startswith("--"):
            raise ValueError("--config needs a YAML file, or the name of a shipped one such as image/digits")
        if not Path(name).exists() and "{" not in name:
            near = difflib.get_close_matches(name, shipped_configs(), n=1, cutoff=0.6)
            hint = (
                f"did you mean the shipped {near[0]}?" if near else "--config takes a path or a shipped name"
            )
            raise ValueError(f"there is no config file {name!r}; {hint}")
        if Path(name).exists():
            text = config_text(name)
            try:
                config = yaml.safe_load(text)
            except (yaml.YAMLError, ValueError) as error:
                raise ValueError(f"{name} cannot be read: {reason(error)}") from error
            if all(value is None for value in config.values()):
                raise ValueError(f"{name}: {next(iter(config))} has no value")
            check_mapping(config, keys, name)


def with_own_config(argv: Sequence[str]) -> list[str]:
    """The arguments; those that name a run to continue and no config are preceded by the run's own."""
    pairs = pairwise([*argv, ""])
    words = dict(word.partition("=")[::2] if "=" in word else (word, value) for word, value in pairs)
    own = Path(words.get("--run_dir", "")) / "config.yaml"
    if "--config" in words or "--run_dir" not in words or not own.is_file():
        return list(argv)
    return ["--config", str(own), *argv]

"""The help page of a command, and of a class that can be chosen in it.

It is made from the source files (`bt_multimodal.commands.sources`), so it answers at once and cannot differ
from the code.
"""

import difflib
import shutil
import textwrap

from bt_multimodal.commands import sources
from bt_multimodal.commands.keys import CONFIG, Choice, Group, Key, Keys
from bt_multimodal.commands.sources import Argument, Described

_COLUMN = 34  # where the texts begin


def page(doc: str, keys: Keys, modality: str, name: str | None = None) -> str:
    """The help of a command; with ``name``, of a class.

    Args:
        doc: what the command does.
        keys: its keys.
        modality: the folder of ``encoders`` whose encoders and augmentation sets are listed.
        name: a class path, or the last part of one that the page lists.

    Raises:
        ValueError: there is no such class.
    """
    package = f"encoders.{modality}"
    augmentation_sets, encoders = sources.augmentation_sets(package), sources.encoders(package)
    if name is not None:
        return _class_page(_named(name, [*augmentation_sets, *encoders]))
    lines = [doc.strip(), "", "keys", *_entry(f"--{CONFIG.name} FILE", CONFIG.help)]
    for item in keys:
        if isinstance(item, Key):
            shown = "" if item.required or item.default is None else f" [{item.default}]"
            lines += _entry(f"--{item.name}", item.help + shown + (" (required)" if item.required else ""))
    for item in keys:
        if isinstance(item, Choice):
            lines += ["", item.help]
            lines += _entry(f"--{item.name} CLASS", "one of those below, or yours: my_lab.MyViews")
            lines += _entry(f"--{item.name}.KEY", "its own keys")
        elif isinstance(item, Group):
            lines += ["", item.help, *_group(item)]
    names = argument_names(keys)
    for key, title, classes in (
        ("views", "augmentation sets (--views)", augmentation_sets),
        ("model.encoder", "encoders (--model.encoder)", encoders),
    ):
        if classes and key in names:
            lines += ["", title]
            for described in classes:
                lines += _entry(described.class_path, described.sentence)
    lines += [
        "",
        "--help CLASS shows the keys of a class: one of these, or any class path, such as torch.optim.AdamW.",
    ]
    return "\n".join(lines)


def argument_names(keys: Keys) -> list[str]:
    """All keys that the page shows, with their dots."""
    names = [CONFIG.name]
    for item in keys:
        if isinstance(item, Group):
            names += [f"{item.prefix}.{argument.name}" for argument in _shown(item)]
        else:
            names.append(item.name)
    return names


def _shown(group: Group) -> list[Argument]:
    described = sources.describe(group.class_path)
    arguments = {} if described is None else {a.name: a for a in described.arguments}
    if group.usual:
        return [arguments.get(name, Argument(name, "", "", "")) for name in group.usual]
    return [argument for name, argument in arguments.items() if name not in group.skip]


def _group(group: Group) -> list[str]:
    lines: list[str] = []
    for argument in _shown(group):
        default = str(group.defaults.get(argument.name, argument.default))
        lines += _entry(f"--{group.prefix}.{argument.name}", _with_default(argument, default))
    if group.usual:
        lines += _entry("", f"... the usual ones; all of them: --help {group.class_path}")
    return lines


def _with_default(argument: Argument, default: str) -> str:
    text = argument.sentence or argument.kind
    return text if default in ("", "None") else f"{text} [{default}]"


def _named(name: str, offered: list[Described]) -> Described:
    short = {described.class_path.rpartition(".")[2]: described for described in offered}
    if name in short:
        return short[name]
    described = sources.describe(name) if "." in name else None
    if described is not None:
        return described
    near = difflib.get_close_matches(name, [*short, *(d.class_path for d in offered)], n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(short)}, and any class path"
    raise ValueError(f"no class {name!r} was found{hint}")


def _class_page(described: Described) -> str:
    lines = [described.class_path, "", *textwrap.wrap(described.summary, _width()), "", "keys"]
    for argument in described.arguments:
        shown = "" if not argument.default else f" [{argument.default}]"
        kind = f"{argument.kind}{shown}" if argument.kind else shown
        lines += _entry(f"  .{argument.name}", f"{argument.text} ({kind.strip()})".strip())
    return "\n".join(lines)


def _entry(left: str, text: str) -> list[str]:
    indent = " " * _COLUMN
    lines = textwrap.wrap(text, max(30, _width() - _COLUMN)) or [""]
    left = f"  {left}"
    if len(left) > _COLUMN - 2:
        return [left, *(indent + line for line in lines)]
    return [left.ljust(_COLUMN) + lines[0], *(indent + line for line in lines[1:])]


def _width() -> int:
    return min(110, shutil.get_terminal_size((100, 24)).columns)

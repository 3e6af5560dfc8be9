"""What the folders of a data set mean: wrappers, splits and classes. Pure functions of the files' paths."""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from bt_multimodal.data.columns import printable, shortened
from bt_multimodal.data.sources.split_names import TEST, TRAIN, VALIDATION, exact_role, partner, role, words
from bt_multimodal.data.sources.walk import counted

# A lone folder of such a name says what its files are, and is no class.
_GENERIC = frozenset([
    "images", "image", "img", "imgs", "jpg", "jpeg", "jpegs", "png", "pictures", "photos", "audio", "audios",
    "wav", "wavs", "flac", "mp3", "clips", "clip", "sounds", "recordings", "files", "data", "raw", "samples",
    "texts", "documents",
])  # fmt: skip
_ANNOTATIONS = re.compile(
    r"annotations?|labels?|masks?|trimaps?|segmentation\w*|ground_?truth|gt", re.IGNORECASE
)
_PIECES = re.compile(r"(fold|part|shard|chunk|batch)[-_ ]?\d+", re.IGNORECASE)
_WITHOUT_LABEL = frozenset({"unsup", "unlabeled", "unlabelled"})
_NO_CLASS = frozenset({"_background_noise_"})  # of Speech Commands: long recordings to mix in
_FEW = 10  # classes beside which a folder called test is taken for a split


class Group(NamedTuple):
    """The files of a split.

    Attributes:
        base: the folder that they are in, relative to the root: ``""`` or ``"train/"``.
        files: ``N`` paths relative to ``base``.
        labels: ``N`` names of classes, ``None`` without one.
    """

    base: str
    files: list[str]
    labels: list[str | None]


class Layout(NamedTuple):
    """The splits of a folder by name, what is left out, and lines on unusual choices."""

    base: str
    groups: dict[str, Group]
    left: list[str]
    notes: list[str]


def folders_of(files: Sequence[str]) -> dict[str, list[str]]:
    """The files by the first folder of their paths, ``""`` for none; the paths below those folders."""
    found: dict[str, list[str]] = {}
    for file in files:
        top, separator, rest = file.partition(os.sep)
        found.setdefault(top if separator else "", []).append(rest if separator else file)
    return found


def arrange(files: Sequence[str], named: bool = False, loose: bool = True) -> Layout:
    """The splits and classes that the folders of ``files`` say.

    Args:
        files: sorted paths relative to the root.
        named: the user names the splits, so all folders are splits.
        loose: files beside the folders of classes are records without a label; otherwise they are left out.
    """
    left: list[str] = []
    notes: list[str] = []
    if named:
        below = {top: inner for top, inner in folders_of(files).items() if top}
        groups = {top: _group(top + os.sep, inner, loose, left) for top, inner in below.items()}
        base, inner = _unwrapped(files, left)
        for top, deeper in folders_of(inner).items():
            if top and top not in groups:
                groups[top] = _group(f"{base}{top}{os.sep}", deeper, loose, left)
        if not groups or not any(role(name) == TRAIN for name in groups):
            groups.setdefault(TRAIN, _group(base, inner, loose, left))
        return Layout(base, groups, [], notes)
    base, inner = _unwrapped(files, left)
    below = folders_of(inner)
    splits = _splits(below, notes)
    if not splits:
        groups = _splits_in_classes(base, below, notes) or {TRAIN: _group(base, inner, loose, left)}
        return Layout(base, groups, left, notes)
    groups = {}
    for name, tops in splits.items():
        if len(tops) == 1:
            groups[name] = _group(f"{base}{tops[0]}{os.sep}", below[tops[0]], loose, left)
        else:
            rest = [f"{top}{os.sep}{file}" for top in tops for file in below[top]]
            groups[name] = _group(base, rest, loose, left)
    used = {top for tops in splits.values() for top in tops}
    for top in sorted(set(below) - used - {""}):
        left.append(f"{base}{top}{os.sep} ({counted(below[top])}) beside the splits")
    if "" in below:
        left.append(f"{counted(below[''])} beside the folders of the splits")
    return Layout(base, groups, left, notes)


def _unwrapped(files: Sequence[str], left: list[str], in_split: bool = False) -> tuple[str, list[str]]:
    """The folder that holds everything, and the files relative to it.

    Args:
        in_split: in the folder of a split, a lone folder may be its only class or speaker, so its name
            has to say that it is not.
    """
    base, inner = "", list(files)
    steps = [(base, inner)]
    while True:
        below = folders_of(inner)
        aside: list[str] = []
        if len(below) > 1 and "" not in below:
            aside = [top for top in below if _ANNOTATIONS.fullmatch(top)]
        tops = [top for top in below if top not in aside]
        if len(tops) != 1 or tops[0] == "" or (aside and not _is_generic(tops[0])):
            break
        top = tops[0]
        if in_split and not (role(top) or _is_generic(top)):
            break
        if not in_split and role(top) and (exact_role(top) or not _has_train(below[top])):
            break
        for name in aside:
            left.append(f"{base}{name}{os.sep} ({counted(below[name])}): annotations")
        base, inner = f"{base}{top}{os.sep}", below[top]
        steps.append((base, inner))
    last = base.rstrip(os.sep).rpartition(os.sep)[2]
    if len(steps) > 1 and "" in below and not in_split and not _is_generic(last):
        return steps[-2]  # the only class
    return base, inner


def _is_generic(name: str) -> bool:
    """Whether a folder's name says what its files are: ``images``, ``AudioWAV``, ``jpg2``."""
    return bool(parts := words(name)) and _GENERIC.issuperset(parts)


def _has_train(files: Sequence[str]) -> bool:
    return any(role(top) == TRAIN for top in folders_of(files))


def _splits(below: dict[str, list[str]], notes: list[str]) -> dict[str, list[str]] | None:
    """The folders of each split; ``None`` if the folders are classes."""
    tops = [top for top in below if top]
    trains = [top for top in tops if role(top) == TRAIN]
    held = [top for top in tops if role(top) in (TEST, VALIDATION)]
    others = [top for top in tops if role(top) is None and not _WITHOUT_LABEL & {*words(top)}]
    nested = any(os.sep in file for top in trains for file in below[top])
    exact_train = any(map(exact_role, trains))
    exact_held = [top for top in held if exact_role(top)]
    partners = {partner(top) for top in trains} & {partner(top) for top in held}
    named = {top: [top] for top in (*trains, *held)}
    if trains and held and (not others or exact_train or exact_held or partners or nested):
        return named
    if not others and trains and (exact_train or len(trains) == 1 or nested):
        return named
    if not trains and not others and held:
        alike = {partner(top) for top in held}
        return named if exact_held or len(alike) < len(held) or len(held) == 1 else None
    if held and len(others) == 1 and not trains and any(os.sep in file for file in below[others[0]]):
        notes.append(f"took the folder {others[0]!r} for training, beside {', '.join(map(repr, held))}")
        return {TRAIN: others, **named}
    if exact_held and not trains:
        return _beside_classes(below, others, exact_held, notes)
    if trains or held:
        shown = ", ".join(printable(shortened(top)) for top in (*trains, *held)[:3])
        notes.append(
            f"took the folder(s) {shown} for classes, beside {len(others)} other(s); "
            "--data.train_split and --data.test_split name splits"
        )
    return None


def _splits_in_classes(base: str, below: dict[str, list[str]], notes: list[str]) -> dict[str, Group]:
    """The splits of folders of classes that each hold folders of splits (``dog/train/1.jpg``)."""
    inside = {name for inner in below.values() for name in folders_of(inner)}
    roles = {exact_role(name) for name in inside}
    if TRAIN not in roles or len(roles) < 2 or None in roles or "" in below:
        return {}
    notes.append(
        f"took the folders {', '.join(sorted(map(repr, inside)))} in those of the classes for splits"
    )
    groups: dict[str, Group] = {}
    for top, inner in below.items():
        for file in inner:
            group = groups.setdefault(file.partition(os.sep)[0], Group(base, [], []))
            group.files.append(f"{top}{os.sep}{file}")
            group.labels.append(printable(top))
    return groups


def _beside_classes(
    below: dict[str, list[str]], others: list[str], held: list[str], notes: list[str]
) -> dict[str, list[str]] | None:
    """Whether folders that are called test or val stand beside the classes that are trained on."""
    inside = {top for name in held for top in folders_of(below[name]) if top}
    shown = ", ".join(map(repr, held))
    if inside & set(others) or len(others) < _FEW:
        notes.append(f"took the folder(s) {shown} for no class but a split; rename it if it is a class")
        return {TRAIN: others, **{name: [name] for name in held}}
    notes.append(
        f"took the folder(s) {shown} for a class, beside {len(others)} others; "
        f"if it is a split, move the others into a folder 'train'"
    )
    return None


def _group(base: str, files: Sequence[str], loose: bool, left: list[str]) -> Group:
    """The files of one split with the classes that their first folders name."""
    deeper, inner = _unwrapped(files, left, in_split=bool(base))
    below = folders_of(inner)
    tops = {top for top in below if top}
    skip = 0
    if tops and all(map(_PIECES.fullmatch, tops)):
        skip = 1
        left.append(f"nothing: {base}{deeper}{', '.join(sorted(tops)[:3])} are pieces, no classes")
    kept: list[str] = []
    labels: list[str | None] = []
    dropped: dict[str, int] = {}
    for file in inner:
        parts = file.split(os.sep)
        top = parts[0] if len(parts) > 1 else ""
        if top in _NO_CLASS or (not top and tops and not loose):
            dropped[top] = dropped.get(top, 0) + 1
            continue
        name = parts[skip] if len(parts) > skip + 1 else None
        kept.append(file)
        labels.append(None if name is None or name.lower() in _WITHOUT_LABEL else printable(name))
    for top, count in dropped.items():
        where = f"{base}{deeper}{top}{os.sep}" if top else f"beside the classes in {base or 'the folder'}"
        left.append(f"{count:,} file(s) {where}: no class")
    return Group(base + deeper, kept, labels)

"""Opening of PASCAL VOC devkits for classification."""

import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bt_multimodal.data.records import DataError, Records, file_records

_PICTURES, _LISTS = "JPEGImages", "ImageSets/Main"
_VALUES = ("1", "-1", "0")


class VocSplit(NamedTuple):
    """Pictures sorted by name, and which of ``K`` classes each one shows.

    ``targets [N, K]`` int8 is 1 where a picture shows the class, -1 where it does not, and 0 where the class
    is difficult. A record's label is its row in ``targets``; ``records.classes`` names the columns.
    """

    records: Records
    targets: Tensor


def open_voc(folder: str | Path, train: str = "trainval", test: str = "test") -> tuple[VocSplit, VocSplit]:
    """Opens the training and test split of a folder such as ``VOCdevkit/VOC2007``; decodes nothing.

    Args:
        folder: holds ``JPEGImages/ID.jpg`` and ``ImageSets/Main/CLASS_SPLIT.txt``, whose lines are an id
            and 1, -1 or 0.
        train, test: names of the splits.

    Raises:
        DataError: says in one line what is wrong with the folder.
    """
    root = Path(folder).expanduser()
    if not _is_voc(root):
        years = sorted(path for path in root.iterdir() if _is_voc(path)) if root.is_dir() else []
        hint = f"; did you mean '{years[-1]}'?" if years else ""
        raise DataError(f"'{root}' is not a VOC folder: it has no {_PICTURES}/ and {_LISTS}/{hint}")
    pictures = {name for name in os.listdir(root / _PICTURES) if name.endswith(".jpg")}
    first, second = (_read(root, split, pictures) for split in (train, test))
    if differing := {*first.records.classes} ^ {*second.records.classes}:
        raise DataError(
            f"'{root}' has class {min(differing)!r} in only one of the splits {train!r} and {test!r}"
        )
    return first, second


def _is_voc(root: Path) -> bool:
    return (root / _PICTURES).is_dir() and (root / _LISTS).is_dir()


def _read(root: Path, split: str, pictures: set[str]) -> VocSplit:
    ending = f"_{split}.txt"
    files = {path.name.removesuffix(ending): path for path in (root / _LISTS).glob(f"[!.]*{ending}")}
    if not files:
        raise DataError(f"'{root}' has no split {split!r}: there is no {_LISTS}/CLASS{ending}")
    classes = sorted(files)
    columns = [_read_list(files[name]) for name in classes]
    for name, column in zip(classes, columns, strict=True):
        if differing := columns[0].keys() ^ column.keys():
            raise DataError(
                f"'{files[name]}' and '{files[classes[0]].name}' list different pictures: "
                f"{min(differing)!r} is in only one of them"
            )
    ids = sorted(columns[0])
    if not ids:
        raise DataError(f"'{files[classes[0]]}' lists no pictures")
    missing = [name for name in ids if f"{name}.jpg" not in pictures]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(ids)} pictures of split {split!r} are not in '{root / _PICTURES}'; "
            f"first: {missing[0]!r}"
        )
    targets = torch.tensor([[column[name] for column in columns] for name in ids], dtype=torch.int8)
    paths = [f"{name}.jpg" for name in ids]
    return VocSplit(file_records(root / _PICTURES, paths, torch.arange(len(ids)), classes), targets)


def _read_list(path: Path) -> dict[str, int]:
    """Returns the value, 1, -1 or 0, of each picture id."""
    values: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read '{path}': {error}") from error
    for number, line in enumerate(lines, start=1):
        if not (cells := line.split()):
            continue
        if len(cells) != 2 or cells[1] not in _VALUES:
            raise DataError(f"line {number} of '{path}' is not a picture id and 1, -1 or 0: {line!r}")
        if cells[0] in values:
            raise DataError(f"line {number} of '{path}' names {cells[0]!r} again")
        values[cells[0]] = int(cells[1])
    return values

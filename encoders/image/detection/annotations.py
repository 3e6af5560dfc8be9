"""Boxes and masks of the objects in pictures, from a PASCAL VOC devkit or COCO's files.

A box is ``x1, y1, x2, y2`` in continuous pixels, from 0 at the picture's left and upper edge.
"""

import contextlib
import io
import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from bt_multimodal.data.records import DataError


class Picture(NamedTuple):
    """An undecoded picture and the annotation of its ``K`` objects."""

    path: Path
    size: tuple[int, int]  # height and width in pixels, according to the annotation
    boxes: Tensor  # [K, 4] float32
    labels: Tensor  # [K] int64 from 1; 0 is the background
    ignore: Tensor  # [K] bool: does not count in evaluation (VOC: difficult, COCO: crowd)
    segments: list[Any] | None = None  # COCO's polygons or run lengths, one per object


class Annotated(NamedTuple):
    """The pictures of one split, the names of the classes 1, 2, ..., and whether VOC's rules apply."""

    pictures: list[Picture]
    classes: list[str]
    voc: bool

    def to_train_on(self) -> list[Picture]:
        """Returns the pictures with objects to train on.

        As in detectron2, these include VOC's difficult objects but not COCO's crowds.
        """
        pictures = [p if self.voc else _selected(p, ~p.ignore) for p in self.pictures]
        return [p for p in pictures if len(p.labels)]


def _selected(picture: Picture, keep: Tensor) -> Picture:
    segments = picture.segments
    if segments is not None:
        segments = [segment for segment, kept in zip(segments, keep.tolist(), strict=True) if kept]
    return picture._replace(
        boxes=picture.boxes[keep], labels=picture.labels[keep], ignore=picture.ignore[keep], segments=segments
    )


def masks(picture: Picture) -> Tensor:
    """Returns the masks of a picture's objects, uint8 ``[K, H, W]``.

    Raises:
        DataError: if the annotation has no masks.
    """
    if picture.segments is None:
        raise DataError(f"the annotation of {picture.path} has no masks, only boxes")
    decoded = [torch.from_numpy(decode(run_lengths(s, picture.size))) for s in picture.segments]
    return torch.stack(decoded) if decoded else torch.zeros(0, *picture.size, dtype=torch.uint8)


def run_lengths(segment: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Converts COCO's polygons or counts to pycocotools' compressed run lengths."""
    from pycocotools import mask

    if isinstance(segment, list):
        return mask.merge(mask.frPyObjects(segment, *size))
    return mask.frPyObjects(segment, *size) if isinstance(segment["counts"], list) else segment


def decode(lengths: dict[str, Any]) -> np.ndarray:
    """Decodes pycocotools' run lengths to a mask, uint8 ``[H, W]``."""
    from pycocotools import mask

    with warnings.catch_warnings():  # pycocotools uses an interface that NumPy 2 deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        return mask.decode(lengths)


def open_annotated(source: str, train_split: str, test_split: str) -> tuple[Annotated, Annotated]:
    """Opens the training and test pictures of one source.

    Args:
        source: a COCO folder with ``annotations/instances_<split>.json`` and pictures in ``<split>/``; or
            VOC years with ``JPEGImages/``, ``Annotations/`` and ``ImageSets/Main/<split>.txt``: one folder,
            several separated by commas, or a folder of them such as ``VOCdevkit``.
        train_split, test_split: names of splits. A VOC split combines all years that have it;
            ``VOC2007/test`` is one year's split. Several names are separated by commas.

    Raises:
        DataError: if there is no such source or split, an annotation is damaged or missing, or only the test
            split has some class.
    """
    folders = [Path(part.strip()) for part in source.split(",")]
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"there is no folder {str(folder)!r}")
    if len(folders) == 1 and (folders[0] / "annotations").is_dir():
        train, test = (_coco(folders[0], split) for split in (train_split, test_split))
        if test.classes != train.classes:
            raise DataError(f"the categories of {train_split!r} and {test_split!r} differ")
        return train, test
    years = {year.resolve().name: year for folder in folders for year in _years(folder)}
    if not years:
        raise DataError(f"{source!r} is neither COCO (annotations/) nor a VOC devkit (ImageSets/Main/)")
    files = [_annotation_files(years, split) for split in (train_split, test_split)]
    splits = [[_read(file) for file in of_split] for of_split in files]
    classes = sorted({name for _, names in splits[0] for name in names})
    label = {name: i + 1 for i, name in enumerate(classes)}
    for picture, names in splits[1]:
        if unknown := set(names) - set(classes):
            raise DataError(f"{picture.path} shows {min(unknown)!r}, which no training picture does")
    train, test = (
        Annotated([_labelled(picture, names, label) for picture, names in pictures], classes, voc=True)
        for pictures in splits
    )
    return train, test


def _labelled(picture: Picture, names: list[str], label: dict[str, int]) -> Picture:
    return picture._replace(labels=torch.tensor([label[name] for name in names], dtype=torch.int64))


def _years(folder: Path) -> list[Path]:
    return [f for f in (folder, *sorted(folder.iterdir())) if (f / "ImageSets" / "Main").is_dir()]


def _annotation_files(years: dict[str, Path], split: str) -> list[Path]:
    """Returns the annotation files of a split's pictures."""
    files: list[Path] = []
    for part in split.split(","):
        year, _, name = part.strip().rpartition("/")
        if year and year not in years:
            raise DataError(f"there is no year {year!r}, only {', '.join(years)}")
        lists = {
            folder: folder / "ImageSets" / "Main" / f"{name}.txt"
            for folder in ([years[year]] if year else years.values())
        }
        lists = {folder: file for folder, file in lists.items() if file.is_file()}
        if not lists:
            raise DataError(f"no ImageSets/Main/{name}.txt in {year or ', '.join(years)}")
        for folder, file in lists.items():
            ids = [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            files += [folder / "Annotations" / f"{id_}.xml" for id_ in ids]
    if not files:
        raise DataError(f"the split {split!r} lists no picture")
    return files


def _read(file: Path) -> tuple[Picture, list[str]]:
    """Reads a VOC annotation: a picture without labels, and its objects' class names."""
    try:
        root = ElementTree.parse(file).getroot()
        objects = root.findall("object")
        # VOC counts pixels from 1, and both ends belong to the box.
        boxes = [[float(_text(o, f"bndbox/{side}")) - shift for side, shift in _SIDES] for o in objects]
        difficult = [o.findtext("difficult", "0").strip() == "1" for o in objects]
        names = [_text(o, "name").strip() for o in objects]
        size = (int(_text(root, "size/height")), int(_text(root, "size/width")))
        path = file.parent.parent / "JPEGImages" / root.findtext("filename", f"{file.stem}.jpg")
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise DataError(f"cannot read the annotation {file}: {error}") from error
    return Picture(
        path, size, _boxes(boxes), torch.empty(0), torch.tensor(difficult, dtype=torch.bool)
    ), names


_SIDES = (("xmin", 1), ("ymin", 1), ("xmax", 0), ("ymax", 0))


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"it has no {path}")
    return text


def _boxes(rows: Iterable[Iterable[float]]) -> Tensor:
    return torch.tensor([[*row] for row in rows], dtype=torch.float32).view(-1, 4)


def _coco(folder: Path, split: str) -> Annotated:
    file = folder / "annotations" / f"instances_{split}.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        categories = sorted(content["categories"], key=lambda category: category["id"])
        label = {category["id"]: i + 1 for i, category in enumerate(categories)}
        objects: dict[int, list[Any]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            objects[annotation["image_id"]].append(annotation)
        pictures = [
            _coco_picture(folder / split / image["file_name"], image, objects[image["id"]], label)
            for image in content["images"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{file} is not a file of COCO's instances: {reason}") from error
    if not (folder / split).is_dir():
        raise DataError(f"there is no folder of pictures {folder / split}")
    return Annotated(pictures, [category["name"] for category in categories], voc=False)


def _coco_picture(path: Path, image: Any, objects: list[Any], label: dict[int, int]) -> Picture:
    boxes = [(x, y, x + w, y + h) for x, y, w, h in (object_["bbox"] for object_ in objects)]
    segments = [object_.get("segmentation") for object_ in objects]
    return Picture(
        path,
        (image["height"], image["width"]),
        _boxes(boxes),
        torch.tensor([label[object_["category_id"]] for object_ in objects], dtype=torch.int64),
        torch.tensor([bool(object_.get("iscrowd", 0)) for object_ in objects], dtype=torch.bool),
        segments if all(segments) else None,
    )


@contextlib.contextmanager
def quiet():
    """Silences pycocotools, which prints its progress."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield

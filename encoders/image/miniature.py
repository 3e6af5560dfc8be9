"""Small data sets in the layouts of the large ones, made of any labelled pictures.

A folder of pictures with lists of 1 % and 10 % of their names, as ImageNet has it, and scenes of
several pictures pasted on a background, with boxes, as PASCAL VOC has it.
"""

import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from bt_multimodal.data.records import DataError, Records, Splits, open_source
from encoders.image import ops
from encoders.image.modality import IMAGES

_SIDE = 64  # of a picture in the folder
_CANVAS = 128
_OBJECT = (32, 64)  # sides of a pasted picture
_OBJECTS = 3  # at most in a scene
_TRIES = 20


def make_miniature(source: str, out: Path) -> None:
    """`make_folder` in ``out/pictures`` and `make_scenes` in ``out/VOC2007``, unless they are there.

    Raises:
        DataError: a source that cannot be opened, without labels, or with too few pictures.
    """
    made = (make_folder, out / "pictures"), (make_scenes, out / "VOC2007")
    missing = [(make, folder) for make, folder in made if not folder.is_dir()]
    if not missing:
        return
    splits = open_source(source, IMAGES, require_labels=True)
    for make, folder in missing:
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        make(splits, partial)
        partial.rename(folder)


def make_folder(splits: Splits, folder: Path, per_class: tuple[int, int] = (1000, 200)) -> None:
    """Write ``train/CLASS/*.jpg`` and ``test/CLASS/*.jpg`` of 64 x 64 pixels, and the two lists.

    Args:
        splits: labelled pictures.
        folder: is made; ``one_percent.txt`` and ``ten_percent.txt`` name training pictures of it.
        per_class: pictures a class in training and in test.

    Raises:
        DataError: fewer pictures than asked for.
    """
    for name, records, count in zip(("train", "test"), splits[:2], per_class, strict=True):
        lists: dict[str, list[str]] = {"one_percent.txt": [], "ten_percent.txt": []}
        for label, indices in enumerate(_by_class(records, count)):
            of_class = records.classes[label]
            below = folder / name / of_class
            below.mkdir(parents=True, exist_ok=True)
            for k, i in enumerate(indices):
                side = (_SIDE, _SIDE)
                _picture(records, i).resize(side, Image.Resampling.BICUBIC).save(
                    below / f"{of_class}_{k:05}.jpg", quality=95
                )
            for file, share in zip(lists, (0.01, 0.1), strict=True):
                lists[file] += [f"{of_class}_{k:05}.jpg" for k in range(max(1, round(share * count)))]
        if name == "train":
            for file, names in lists.items():
                (folder / file).write_text("\n".join(names) + "\n")


def make_scenes(splits: Splits, folder: Path, counts: tuple[int, int] = (600, 300), seed: int = 1) -> None:
    """Write a VOC devkit's year: scenes of 1 to 3 pasted pictures, ``trainval`` and ``test``.

    A scene has 128 x 128 pixels, its background smooth colours and noise; objects do not overlap.

    Args:
        splits: labelled pictures; test scenes are made of test pictures alone.
        folder: is made.
        counts: scenes in ``trainval`` and in ``test``.
        seed: of everything drawn.
    """
    rng = np.random.default_rng(seed)
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for split, records, count in zip(("trainval", "test"), splits[:2], counts, strict=True):
        names, labels = [], []
        for k in range(count):
            scene, boxes, inside = _scene(records, rng)
            names.append(f"{split}_{k:05}")
            labels.append({*inside})
            scene.save(folder / "JPEGImages" / f"{names[-1]}.jpg", quality=95)
            _annotate(folder / "Annotations" / f"{names[-1]}.xml", names[-1], boxes, inside, records.classes)
        lists = folder / "ImageSets" / "Main"
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for label, of_class in enumerate(records.classes):
            lines = [f"{name} {1 if label in own else -1}\n" for name, own in zip(names, labels, strict=True)]
            (lists / f"{of_class}_{split}.txt").write_text("".join(lines))


def _by_class(records: Records, count: int) -> list[list[int]]:
    """The first ``count`` records of every class."""
    indices = [
        (records.labels == label).nonzero()[:count, 0].tolist() for label in range(len(records.classes))
    ]
    for name, found in zip(records.classes, indices, strict=True):
        if len(found) < count:
            raise DataError(f"class {name!r} has {len(found)} pictures, {count} are needed")
    return indices


def _picture(records: Records, i: int) -> Image.Image:
    return ops.to_pil(ops.decode_rgb(records.raw(i)))


def _scene(
    records: Records, rng: np.random.Generator
) -> tuple[Image.Image, list[tuple[int, int, int, int]], list[int]]:
    """A scene, its objects' boxes (left, top, right, bottom; exclusive) and their labels."""
    colours = rng.integers(64, 192, (4, 4, 3), dtype=np.uint8)
    smooth = Image.fromarray(colours).resize((_CANVAS, _CANVAS), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth, np.float32) + rng.normal(0, 12, (_CANVAS, _CANVAS, 1))
    scene = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    wanted = int(rng.integers(1, _OBJECTS + 1))
    for _ in range(_TRIES):
        side = int(rng.integers(_OBJECT[0], _OBJECT[1] + 1))
        left, top = (int(x) for x in rng.integers(0, _CANVAS - side + 1, 2))
        box = (left, top, left + side, top + side)
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes):
            continue
        i = int(rng.integers(len(records)))
        scene.paste(_picture(records, i).resize((side, side), Image.Resampling.BICUBIC), (left, top))
        boxes.append(box)
        labels.append(int(records.labels[i]))
        if len(boxes) == wanted:
            break
    return scene, boxes, labels


def _annotate(
    path: Path, name: str, boxes: list[tuple[int, int, int, int]], labels: list[int], classes: list[str]
) -> None:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{name}.jpg"
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", _CANVAS), ("height", _CANVAS), ("depth", 3)):
        ElementTree.SubElement(size, key).text = str(value)
    for (left, top, right, bottom), label in zip(boxes, labels, strict=True):
        one = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(one, "name").text = classes[label]
        ElementTree.SubElement(one, "difficult").text = "0"
        box = ElementTree.SubElement(one, "bndbox")
        # VOC counts pixels from 1 and includes the last.
        for key, value in (("xmin", left + 1), ("ymin", top + 1), ("xmax", right), ("ymax", bottom)):
            ElementTree.SubElement(box, key).text = str(value)
    ElementTree.ElementTree(root).write(path)

"""Small data sets in the layouts of ImageNet and PASCAL VOC, made from any labelled pictures.

ImageNet's layout is a folder of pictures with lists of 1 % and 10 % of their names. VOC's has scenes of
several pictures pasted on a background, with boxes.
"""

import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from bt_multimodal.data.records import DataError, Records, Splits, open_source
from encoders.image import ops
from encoders.image.modality import IMAGES

# Sizes in pixels.
_SIDE = 64  # side of a picture in the folder
_CANVAS = 128  # side of a scene
_OBJECT = (32, 64)  # range of a pasted picture's side
_OBJECTS = 3  # most objects in a scene
_TRIES = 20  # attempts to place objects in a scene


def make_miniature(source: str, out: Path) -> None:
    """Runs `make_folder` into ``out/pictures`` and `make_scenes` into ``out/VOC2007``, unless they exist.

    Raises:
        DataError: if the source cannot be opened, has no labels, or has too few pictures.
    """
    parts = (make_folder, out / "pictures"), (make_scenes, out / "VOC2007")
    missing = [(make, folder) for make, folder in parts if not folder.is_dir()]
    if not missing:
        return
    splits = open_source(source, IMAGES, require_labels=True)
    for make, folder in missing:
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        make(splits, partial)
        partial.rename(folder)


def make_folder(splits: Splits, folder: Path, per_class: tuple[int, int] = (1000, 200)) -> None:
    """Writes ``train/CLASS/*.jpg`` and ``test/CLASS/*.jpg`` of 64 x 64 pixels, and lists of 1 % and 10 %.

    Args:
        splits: labelled pictures.
        folder: the folder to write. Its ``one_percent.txt`` and ``ten_percent.txt`` name training pictures.
        per_class: pictures per class in the training and in the test split.

    Raises:
        DataError: if a class has fewer pictures.
    """
    for name, records, count in zip(("train", "test"), splits[:2], per_class, strict=True):
        lists: dict[str, list[str]] = {"one_percent.txt": [], "ten_percent.txt": []}
        for label, indices in enumerate(_by_class(records, count)):
            class_name = records.classes[label]
            class_folder = folder / name / class_name
            class_folder.mkdir(parents=True, exist_ok=True)
            for k, i in enumerate(indices):
                picture = _picture(records, i).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
                picture.save(class_folder / f"{class_name}_{k:05}.jpg", quality=95)
            for file, share in zip(lists, (0.01, 0.1), strict=True):
                lists[file] += [f"{class_name}_{k:05}.jpg" for k in range(max(1, round(share * count)))]
        if name == "train":
            for file, names in lists.items():
                (folder / file).write_text("\n".join(names) + "\n", encoding="utf-8")


def make_scenes(splits: Splits, folder: Path, counts: tuple[int, int] = (600, 300), seed: int = 1) -> None:
    """Writes scenes of 1 to 3 pasted pictures as one year of a VOC devkit, ``trainval`` and ``test``.

    A scene has 128 x 128 pixels and a background of smooth colours and noise; objects do not overlap.

    Args:
        splits: labelled pictures; test scenes show only test pictures.
        folder: the folder to write.
        counts: scenes in ``trainval`` and in ``test``.
        seed: seed of all random choices.
    """
    rng = np.random.default_rng(seed)
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for split, records, count in zip(("trainval", "test"), splits[:2], counts, strict=True):
        scenes: dict[str, set[int]] = {}  # name to labels
        for k in range(count):
            scene, boxes, labels = _scene(records, rng)
            name = f"{split}_{k:05}"
            scenes[name] = {*labels}
            scene.save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
            _annotate(folder / "Annotations" / f"{name}.xml", name, boxes, labels, records.classes)
        lists = folder / "ImageSets" / "Main"
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in scenes), encoding="utf-8")
        for label, class_name in enumerate(records.classes):
            lines = [f"{name} {1 if label in labels else -1}\n" for name, labels in scenes.items()]
            (lists / f"{class_name}_{split}.txt").write_text("".join(lines), encoding="utf-8")


def _by_class(records: Records, count: int) -> list[list[int]]:
    """Returns the indices of the first ``count`` records of every class."""
    indices = [
        (records.labels == label).nonzero()[:count, 0].tolist() for label in range(len(records.classes))
    ]
    for name, of_class in zip(records.classes, indices, strict=True):
        if len(of_class) < count:
            raise DataError(f"class {name!r} has {len(of_class)} pictures, {count} are needed")
    return indices


def _picture(records: Records, i: int) -> Image.Image:
    return ops.to_pil(ops.decode_rgb(records.raw(i)))


def _scene(
    records: Records, rng: np.random.Generator
) -> tuple[Image.Image, list[tuple[int, int, int, int]], list[int]]:
    """Returns a scene, its objects' boxes (left, top, right, bottom; exclusive) and their labels."""
    colours = rng.integers(64, 192, (4, 4, 3), dtype=np.uint8)
    smooth = Image.fromarray(colours).resize((_CANVAS, _CANVAS), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth, np.float32) + rng.normal(0, 12, (_CANVAS, _CANVAS, 1))
    scene = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    n_objects = int(rng.integers(1, _OBJECTS + 1))
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
        if len(boxes) == n_objects:
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
        object_ = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(object_, "name").text = classes[label]
        ElementTree.SubElement(object_, "difficult").text = "0"
        box = ElementTree.SubElement(object_, "bndbox")
        # VOC counts pixels from 1 and includes the last one.
        for key, value in (("xmin", left + 1), ("ymin", top + 1), ("xmax", right), ("ymax", bottom)):
            ElementTree.SubElement(box, key).text = str(value)
    ElementTree.ElementTree(root).write(path)

"""What people bring: layouts of well-known sets, names of splits, dialects of tables; records by split and class."""

# ruff: noqa: E501, RUF001, RUF005 -- tables of cases

import ast
import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import subprocess
import sys
import tarfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bt_multimodal.data.records import DataError, Records, open_source
from bt_multimodal.data.sources.rows import read_rows
from bt_multimodal.data.streams import open_stream
from encoders.audio.modality import AUDIO
from encoders.image.modality import IMAGES
from encoders.text.modality import TEXTS

ROOT = Path(__file__).parents[2]


def counted(part: Records) -> dict[str | None, int]:
    """Records by class, ``None`` for those without one."""
    return dict(Counter(part.classes[label] if label >= 0 else None for label in part.labels.tolist()))


def put(root: Path, *names: str, content: str = "x") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def many(pattern: str, n: int) -> list[str]:
    return [pattern.format(i) for i in range(n)]


def classes(root: str, ending: str, **sizes: int) -> list[str]:
    return [f"{root}{name}/{i}{ending}" for name, size in sizes.items() for i in range(size)]


AB = {"a": 2, "b": 2}

# name: files, (train, test); a file may be (name, content). `held` of 4 records of two classes is 3 and 1.
IMAGE_LAYOUTS: dict[str, tuple[list[Any], dict, dict]] = {}
for train, test in [
    ("train", "test"), ("Training", "Testing"), ("TRAIN", "TEST"), ("training", "testing"), ("Train", "Val"),
    ("train", "valid"), ("train", "Validation"), ("train", "dev"), ("train", "eval"), ("train", "evaluation"),
    ("training_set", "test_set"), ("seg_train", "seg_test"), ("train_images", "test_images"), ("TrainingSet", "TestSet"),
    ("train2017", "val2017"), ("imgs-train", "imgs-test"), ("trainset", "testset"), ("trainval", "test"),
]:  # fmt: skip
    IMAGE_LAYOUTS[f"{train} and {test}"] = (
        classes(f"{train}/", ".jpg", **AB) + classes(f"{test}/", ".jpg", a=1, b=3), AB, {"a": 1, "b": 3}
    )  # fmt: skip
IMAGE_LAYOUTS |= {
    "val and test: test is it": (
        classes("train/", ".png", **AB) + classes("val/", ".png", a=5) + classes("test/", ".png", a=1), AB, {"a": 1},
    ),
    "ImageNet": (classes("train/", ".JPEG", n01=2, n02=2) + classes("val/", ".JPEG", n01=1), {"n01": 2, "n02": 2}, {"n01": 1}),
    "ImageNet with the hub's archives beside": (
        ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", *classes("train/", ".JPEG", n01=2, n02=2),
         *classes("val/", ".JPEG", n01=1)], {"n01": 2, "n02": 2}, {"n01": 1},
    ),
    "ImageNet of Kaggle": (
        classes("ILSVRC/Data/CLS-LOC/train/", ".JPEG", n01=2, n02=2) + many("ILSVRC/Data/CLS-LOC/val/{}.JPEG", 3)
        + many("ILSVRC/Data/CLS-LOC/test/{}.JPEG", 2) + many("ILSVRC/Annotations/CLS-LOC/val/{}.xml", 2)
        + ["ILSVRC/ImageSets/CLS-LOC/train_cls.txt", ("LOC_val_solution.csv", "ImageId,PredictionString\n")],
        {"n01": 2, "n02": 2}, {None: 2},
    ),
    "val without folders of classes": (
        classes("train/", ".JPEG", n01=2, n02=2) + many("val/{}.JPEG", 3), {"n01": 2, "n02": 2}, {None: 3},
    ),
    "Kaggle's Intel scenes": (
        classes("seg_train/seg_train/", ".jpg", **AB) + classes("seg_test/seg_test/", ".jpg", a=1)
        + many("seg_pred/seg_pred/{}.jpg", 3), AB, {"a": 1},
    ),
    "a wrapper": (classes("archive/data/train/", ".jpg", **AB) + classes("archive/data/test/", ".jpg", b=1), AB, {"b": 1}),
    "images/train": (
        classes("images/train/", ".jpg", **AB) + classes("images/val/", ".jpg", b=1) + ["labels/train/1.txt"], AB, {"b": 1},
    ),
    "CIFAR in folders of numbers": (classes("train/", ".png", **{"0": 1, "1": 1, "10": 1}) + classes("test/", ".png", **{"1": 2}),
                                    {"0": 1, "1": 1, "10": 1}, {"1": 2}),
    "Caltech-101": (classes("101_ObjectCategories/", ".jpg", a=2, BACKGROUND_Google=2), {"a": 2, "BACKGROUND_Google": 1}, {"BACKGROUND_Google": 1}),
    "EuroSAT": (classes("2750/", ".jpg", Forest=2, River=2), {"Forest": 1, "River": 2}, {"Forest": 1}),
    "EuroSAT of Kaggle": (
        [*classes("", ".jpg", Forest=2, River=2),
         ("train.csv", ",Filename,Label,ClassName\n0,Forest/0.jpg,0,Forest\n1,River/0.jpg,1,River\n"),
         ("test.csv", ",Filename,Label,ClassName\n0,Forest/1.jpg,0,Forest\n"),
         ("validation.csv", ",Filename,Label,ClassName\n0,River/1.jpg,1,River\n")],
        {"0": 1, "1": 1}, {"0": 1},
    ),
    "Tiny ImageNet": (
        [f"train/{c}/images/{c}_{i}.JPEG" for c in ("n1", "n2") for i in range(2)] + many("val/images/val_{}.JPEG", 2)
        + many("test/images/test_{}.JPEG", 3) + ["wnids.txt", "words.txt"]
        + [("val/val_annotations.txt", "val_0.JPEG\tn1\t0\t32\t44\t62\nval_1.JPEG\tn2\t0\t0\t6\t6\n")],
        {"n1": 2, "n2": 2}, {"n1": 1, "n2": 1},
    ),
    "Oxford flowers, flat": (many("jpg/image_{:05d}.jpg", 4) + ["imagelabels.mat", "setid.mat"], {None: 4}, {}),
    "Oxford pets": (
        many("images/Abyssinian_{}.jpg", 2) + many("images/pug_{}.jpg", 2) + many("annotations/trimaps/pug_{}.png", 2)
        + [("annotations/trainval.txt", "Abyssinian_0 1 1 1\npug_0 2 2 1\npug_1 2 2 1\n"), ("annotations/test.txt", "Abyssinian_1 1 1 1\n")],
        {"1": 1, "2": 2}, {"1": 1},
    ),
    "Food-101": (
        classes("food-101/images/", ".jpg", pie=2, soup=2)
        + [("food-101/meta/train.txt", "pie/0\nsoup/0\nsoup/1\n"), ("food-101/meta/test.txt", "pie/1\n")],
        {"pie": 1, "soup": 2}, {"pie": 1},
    ),
    "dog breeds of Kaggle": (
        many("train/{}.jpg", 3) + many("test/{}.jpg", 2)
        + [("labels.csv", "id,breed,label\n0,pug,pug\n1,pug,pug\n2,boxer,boxer\n")],
        {"pug": 2, "boxer": 1}, {None: 2},
    ),
    "train.csv and test.csv of Kaggle": (
        many("train/{}.jpg", 3) + many("test/{}.jpg", 2)
        + [("train.csv", "image_id,label\n0.jpg,x\n1.jpg,x\n2.jpg,y\n"), ("test.csv", "image_id\n0.jpg\n1.jpg\n")],
        {"x": 2, "y": 1}, {None: 2},
    ),
    "metadata.csv of the hub": (
        many("{}.jpg", 4) + [("metadata.csv", "file_name,label,split\n0.jpg,x,train\n1.jpg,y,train\n2.jpg,x,test\n3.jpg,,test\n")],
        {"x": 1, "y": 1}, {"x": 1, None: 1},
    ),
    "metadata.jsonl in each split": (
        many("train/{}.jpg", 2) + many("test/{}.jpg", 2)
        + [("train/metadata.jsonl", '{"file_name": "0.jpg", "label": "x"}\n{"file_name": "1.jpg", "label": "y"}\n'),
           ("test/metadata.jsonl", '{"file_name": "1.jpg", "label": "y"}\n{"file_name": "0.jpg", "label": "y"}\n')],
        {"x": 1, "y": 1}, {"y": 2},
    ),
    "manifest.tsv inside": (
        many("pics/{}.jpg", 3) + [("manifest.tsv", "path\tclass\tsplit\npics/0.jpg\tx\tTrain\npics/2.jpg\ty\tTest\npics/1.jpg\ty\tTrain\n")],
        {"x": 1, "y": 1}, {"y": 1},
    ),
    "a class called test among many": (
        [f"c{i}/{k}.jpg" for i in range(12) for k in range(5)] + many("test/{}.jpg", 5),
        {**{f"c{i}": 4 for i in range(12)}, "test": 4}, {**{f"c{i}": 1 for i in range(12)}, "test": 1},
    ),
    "folders of classes and a folder called test": (classes("", ".jpg", **AB) + many("test/{}.jpg", 3), AB, {None: 3}),
    "test beside the classes that it has too": (classes("", ".jpg", **AB) + classes("test/", ".jpg", a=1), AB, {"a": 1}),
    "bus and train": (classes("", ".jpg", bus=5, train=5), {"bus": 4, "train": 4}, {"bus": 1, "train": 1}),
    "a parquet beside train": (
        ["index.parquet", *classes("train/", ".jpg", **AB), *classes("test/", ".jpg", a=1)], AB, {"a": 1},
    ),
    "one picture a folder, one class": (classes("dog/", ".jpg", dog=3), {"dog": 2}, {"dog": 1}),
    "folds": (classes("", ".jpg", fold1=2, fold2=2), {None: 4}, {}),
    "other endings": (classes("train/", ".JFIF", **AB) + classes("test/", ".Pgm", a=1), AB, {"a": 1}),
    "a metadata.csv about something else": (
        [*classes("train/", ".jpg", **AB), *classes("test/", ".jpg", a=1), ("metadata.csv", "key,value\nversion,1\n")], AB, {"a": 1},
    ),
    "Mac's shadows": (classes("train/", ".jpg", **AB) + classes("__MACOSX/train/", ".jpg", a=4) + classes("test/", ".jpg", a=1), AB, {"a": 1}),
    "DTD": (
        classes("dtd/images/", ".jpg", banded=3, dotted=1)
        + [("dtd/labels/train1.txt", "banded/1.jpg\ndotted/0.jpg\n"), ("dtd/labels/val1.txt", "banded/2.jpg\n"),
           ("dtd/labels/test1.txt", "banded/0.jpg\n"), ("dtd/labels/train2.txt", "banded/0.jpg\ndotted/0.jpg\n"),
           ("dtd/labels/val2.txt", "banded/2.jpg\n"), ("dtd/labels/test2.txt", "banded/1.jpg\n")],
        {"banded": 1, "dotted": 1}, {"banded": 1},
    ),
    "a manifest with Windows' paths and a row too many": (
        many("pics/{}.jpg", 2) + [("manifest.csv", "path,label,split\npics\\0.jpg,x,train\npics\\1.jpg,x,test\npics\\2.jpg,x,test\n")],
        {"x": 1}, {"x": 1},
    ),
    "splits within classes": (
        [f"{c}/{s}/{i}.jpg" for c in "ab" for s, n in (("train", 2), ("test", 1)) for i in range(n)], AB, {"a": 1, "b": 1},
    ),
    "train and holdout": (classes("train/", ".jpg", **AB) + classes("holdout/", ".jpg", a=1), AB, {"a": 1}),
    "detection in YOLO's folders": (
        many("train/images/{}.jpg", 2) + many("train/labels/{}.txt", 2) + many("valid/images/{}.jpg", 1) + many("test/images/{}.jpg", 1),
        {None: 2}, {None: 1},
    ),
    "masks beside pictures": (
        many("train/images/{}.jpg", 2) + many("train/masks/{}.png", 2) + many("test/images/{}.jpg", 1), {None: 2}, {None: 1},
    ),
    "training, validation and evaluation": (
        classes("training/", ".jpg", **AB) + classes("validation/", ".jpg", a=3) + classes("evaluation/", ".jpg", a=1), AB, {"a": 1},
    ),
    "Places365": (
        classes("data_large/", ".jpg", **AB) + many("val_large/{}.jpg", 2) + many("test_large/{}.jpg", 1), AB, {None: 1},
    ),
    "iNaturalist": (classes("train_mini/", ".jpg", a=1) + classes("train/", ".jpg", **AB) + classes("val/", ".jpg", a=1), AB, {"a": 1}),
    "GTSRB": (classes("GTSRB/Training/", ".ppm", **{"00000": 2, "00001": 2}) + many("GTSRB/Final_Test/Images/{}.ppm", 2),
              {"00000": 2, "00001": 2}, {None: 2}),
    "FGVC aircraft": (
        many("data/images/{}.jpg", 4) + [
            ("data/images_variant_train.txt", "0 707-320\n1 Cessna 172\n"), ("data/images_variant_test.txt", "2 707-320\n"),
            ("data/images_variant_val.txt", "3 Cessna 172\n"), ("data/images_family_train.txt", "0 Boeing 707\n1 Cessna 172\n")],
        {"707-320": 1, "Cessna 172": 1}, {"707-320": 1},
    ),
    "CelebA": (
        many("img_align_celeba/{:06d}.jpg", 3) + [("list_eval_partition.txt", "000000.jpg 0\n000001.jpg 1\n000002.jpg 2\n")],
        {"img_align_celeba": 2}, {"img_align_celeba": 1},
    ),
    "CycleGAN": (many("trainA/{}.jpg", 2) + many("trainB/{}.jpg", 1) + many("testA/{}.jpg", 1), {None: 3}, {None: 1}),
}  # fmt: skip

AUDIO_LAYOUTS: dict[str, tuple[list[Any], dict, dict]] = {
    "LibriSpeech": (
        ["LibriSpeech/train-clean-100/19/198/19-198-0.flac", "LibriSpeech/train-clean-100/26/495/26-495-0.flac",
         "LibriSpeech/train-other-500/26/496/26-496-0.flac", "LibriSpeech/dev-clean/84/1/84-1-0.flac",
         "LibriSpeech/test-clean/61/2/61-2-0.flac", "LibriSpeech/test-other/67/2/67-2-0.flac",
         "LibriSpeech/test-clean/61/2/61-2.trans.txt", "LibriSpeech/BOOKS.TXT"],
        {"19": 1, "26": 2}, {None: 2},
    ),
    "one part of LibriSpeech": (
        ["LibriSpeech/train-clean-100/19/198/0.flac", *many("LibriSpeech/train-clean-100/26/495/{}.flac", 4)],
        {"26": 3, "19": 1}, {"26": 1},
    ),
    "Speech Commands": (
        [*classes("", ".wav", yes=3, no=3), "_background_noise_/pink.wav", "README.md",
         ("validation_list.txt", "yes/0.wav\n"), ("testing_list.txt", "no/0.wav\nyes/1.wav\n")],
        {"yes": 1, "no": 2}, {"no": 1, "yes": 1},
    ),
    "some classes of Speech Commands": (
        [*classes("", ".wav", yes=2, no=2), ("testing_list.txt", "bed/0.wav\nbed/1.wav\ncat/0.wav\nno/0.wav\n")], {"yes": 2, "no": 1}, {"no": 1},
    ),
    "a list of tests within the list of trainings": (
        [*classes("", ".wav", yes=2, no=2), ("train_list.txt", "yes/0.wav\nyes/1.wav\nno/0.wav\nno/1.wav\n"), ("test_list.txt", "no/0.wav\n")],
        {"yes": 2, "no": 1}, {"no": 1},
    ),
    "ESC-50": (
        [*many("ESC-50-master/audio/1-{}-A-0.wav", 4),
         ("ESC-50-master/meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take\n"
          + "".join(f"1-{i}-A-0.wav,{i},{i % 2},c{i % 2},True,{i},A\n" for i in range(4)))],
        {"0": 1, "1": 2}, {"0": 1},
    ),
    "UrbanSound8K": (
        [f"audio/fold{k}/{k}-{i}.wav" for k in (1, 2) for i in range(2)]
        + [("metadata/UrbanSound8K.csv", "slice_file_name,fsID,fold,classID,class\n"
            + "".join(f"{k}-{i}.wav,9,{k},{i},{'siren' if i else 'dog'}\n" for k in (1, 2) for i in range(2)))],
        {"dog": 1, "siren": 2}, {"dog": 1},
    ),
    "GTZAN": (classes("Data/genres_original/", ".au", blues=2, rock=2) + ["Data/images_original/blues/1.png"],
              {"blues": 1, "rock": 2}, {"blues": 1}),
    "Common Voice": (
        [*many("cv/en/clips/common_voice_{}.mp3", 5),
         ("cv/en/train.tsv", "client_id\tpath\tsentence\tgender\nz\tcommon_voice_0.mp3\tSay \"yes\tmale\nz\tcommon_voice_1.mp3\tno\tmale\n"),
         ("cv/en/dev.tsv", "client_id\tpath\tsentence\tgender\nz\tcommon_voice_2.mp3\tno\tmale\n"),
         ("cv/en/test.tsv", "client_id\tpath\tsentence\tgender\nz\tcommon_voice_3.mp3\tno\tmale\n"),
         ("cv/en/validated.tsv", "client_id\tpath\tsentence\tgender\nz\tcommon_voice_4.mp3\tno\tmale\n")],
        {None: 2}, {None: 1},
    ),
    "VoxCeleb": (
        [f"vox1_dev_wav/wav/id1000{k}/x{i}/00001.wav" for k in (1, 2) for i in range(2)]
        + [f"vox1_test_wav/wav/id1027{k}/x/00001.wav" for k in (1, 2)],
        {"id10001": 2, "id10002": 2}, {None: 2},
    ),
    "FSD50K": (many("FSD50K.dev_audio/{}.wav", 3) + many("FSD50K.eval_audio/{}.wav", 2) + ["FSD50K.ground_truth/dev.csv"],
               {None: 3}, {None: 2}),
    "LJSpeech": (
        [*many("LJSpeech-1.1/wavs/LJ001-000{}.wav", 3), ("LJSpeech-1.1/metadata.csv",
         'LJ001-0000|Printing, "in|Printing, "in\nLJ001-0001|"was so.|"was so.\nLJ001-0002|1 end|one end\n')],
        {None: 3}, {},
    ),
    "NSynth": ([*many("nsynth-train/audio/{}.wav", 3), *many("nsynth-valid/audio/{}.wav", 2), *many("nsynth-test/audio/{}.wav", 1),
                "nsynth-train/examples.json"], {None: 3}, {None: 1}),
    "CREMA-D": (many("AudioWAV/1001_{}.wav", 3), {None: 3}, {}),
    "BirdCLEF": (
        classes("train_audio/", ".ogg", abethr1=2, abhori1=2) + many("test_soundscapes/{}.ogg", 2) + many("unlabeled_soundscapes/{}.ogg", 2),
        {"abethr1": 2, "abhori1": 2}, {None: 2},
    ),
    "AudioSet's parts": (
        [*many("balanced_train_segments/{}.wav", 2), *many("unbalanced_train_segments/{}.wav", 3), *many("eval_segments/{}.wav", 1)],
        {None: 5}, {None: 1},
    ),
    "endings": (["a.aif", "b.AIFF", "c.w64", "d.caf", "e.oga", "f.rf64", "g.snd"], {None: 7}, {}),
    "a flat folder with a list of its tests": (
        [*many("{}.wav", 4), ("test_files.txt", "3.wav\n")], {None: 3}, {None: 1},
    ),
    "metadata.csv with file_name in data": (
        [*many("data/{}.wav", 2), ("metadata.csv", "file_name,label\ndata/0.wav,x\ndata/1.wav,y\n")],
        {"y": 1}, {"x": 1},
    ),
}  # fmt: skip

TEXT_LAYOUTS: dict[str, tuple[list[Any], dict, dict]] = {
    "aclImdb": (
        classes("aclImdb/train/", ".txt", pos=2, neg=2, unsup=3) + classes("aclImdb/test/", ".txt", pos=1, neg=1)
        + ["aclImdb/train/urls_pos.txt", "aclImdb/train/labeledBow.feat", "aclImdb/imdbEr.txt", "aclImdb/README", "aclImdb/imdb.vocab"],
        {"pos": 2, "neg": 2, None: 3}, {"pos": 1, "neg": 1},
    ),
    "aclImdb from within": (
        classes("train/", ".txt", pos=2, neg=2) + classes("test/", ".txt", pos=1) + ["imdbEr.txt", "train/urls_neg.txt"],
        {"pos": 2, "neg": 2}, {"pos": 1},
    ),
    "20 newsgroups by date": (
        classes("20news-bydate-train/", "", **{"alt.atheism": 2, "sci.med": 2}) + classes("20news-bydate-test/", "", **{"sci.med": 1}),
        {"alt.atheism": 2, "sci.med": 2}, {"sci.med": 1},
    ),
    "BBC's folders": (classes("bbc/", ".txt", sport=2, tech=2) + ["bbc/README.TXT"], {"sport": 1, "tech": 2}, {"sport": 1}),
    "train.csv and test.csv": (
        [("train.csv", "text,label\na,x\nb,y\n"), ("test.csv", "text\nc\n"), ("sample_submission.csv", "id,label\n1,x\n")],
        {"x": 1, "y": 1}, {None: 1},
    ),
    "dev.tsv, and a test.tsv without labels": (
        [("train.tsv", "sentence\tlabel\na\t0\nb\t1\n"), ("dev.tsv", "sentence\tlabel\nc\t1\n"), ("test.tsv", "index\tsentence\n0\td\n")],
        {"0": 1, "1": 1}, {"1": 1},
    ),
    "shards": (
        [("data/train-00000-of-00002.jsonl", '{"text": "a"}\n'), ("data/train-00001-of-00002.jsonl", '{"text": "b"}\n'),
         ("data/test-00000-of-00001.jsonl", '{"text": "c"}\n')], {None: 2}, {None: 1},
    ),
    "folders of splits with tables": (
        [("train/part-0.csv", "text\na\n"), ("train/part-1.csv", "text\nb\n"), ("test/part-0.csv", "text\nc\n")], {None: 2}, {None: 1},
    ),
    "Training.csv": ([("Training.csv", "text\na\nb\n"), ("Testing.csv", "text\nc\n")], {None: 2}, {None: 1}),
    "train.jsonl beside a README.txt": ([("train.jsonl", '{"text": "a"}\n'), ("test.jsonl", '{"text": "b"}\n'), ("README.txt", "hi\n")],
                                        {None: 1}, {None: 1}),
    "train.json, lists": ([("train.json", '[{"text": "a"}, {"text": "b"}]'), ("test.json", '{"data": [{"text": "c"}]}')], {None: 2}, {None: 1}),
    "lines": ([("train.txt", "a\nb\n"), ("valid.txt", "c\n")], {None: 2}, {None: 1}),
    "lines with a README": ([("corpus.txt", "a\nb\n"), ("README.txt", "not this\n")], {None: 2}, {}),
    "Reuters": ([*many("training/{}", 3), *many("test/{}", 2), "cats.txt"], {None: 3}, {None: 2}),
    "lines in folders of splits, and another file": ([("train/a.txt", "a\nb\n"), ("test/a.txt", "c\n"), "words.txt"], {None: 2}, {None: 1}),
    "lines beside a table of something else": ([("train.txt", "a\nb\n"), ("test.txt", "c\n"), ("labels.csv", "id,label\n1,x\n")],
                                               {None: 2}, {None: 1}),
    "MRPC": (
        [("train.tsv", '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t7\tAmrozi accused, "\tReferring " to\n0\t1\t2\ta\tb\n'),
         ("test.tsv", "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t1\tc\td\n")], {None: 4}, {None: 2},
    ),
    "QQP": (
        [("train.tsv", 'id\tquestion1\tquestion2\tlabel\n1\tWhat "is\tit" is\t0\n2\tx\ty\t1\n'),
         ("dev.tsv", "id\tquestion1\tquestion2\tlabel\n1\ta\tb\t0\n")], {"0": 2, "1": 2}, {"0": 2},
    ),
    "test_matched and test_mismatched": (
        [("train.tsv", "sentence1\tsentence2\na\tb\n"), ("test_matched.tsv", "sentence1\tsentence2\nc\td\n"),
         ("test_mismatched.tsv", "sentence1\tsentence2\ne\tf\n"), ("dev_matched.tsv", "sentence1\tsentence2\ne\tf\n")],
        {None: 2}, {None: 4},
    ),
}  # fmt: skip

LAYOUTS = [
    pytest.param(modality, *case, id=f"{modality.unit}-{name}")
    for modality, cases in ((IMAGES, IMAGE_LAYOUTS), (AUDIO, AUDIO_LAYOUTS), (TEXTS, TEXT_LAYOUTS))
    for name, case in cases.items()
]


@pytest.mark.parametrize(("modality", "files", "train", "test"), LAYOUTS)
def test_layouts(tmp_path, modality, files, train, test):
    for file in files:
        name, content = (file, "x\n") if isinstance(file, str) else file
        put(tmp_path, name, content=content)
    splits = open_source(str(tmp_path), modality)
    assert (counted(splits.train), counted(splits.test)) == (train, test)
    tested = {splits.test.name(i) for i in range(len(splits.test))}
    trained = {splits.train.name(i) for i in range(len(splits.train))}
    assert not trained & tested


REFUSED = {
    "only a test split": (IMAGES, classes("test/", ".jpg", **AB), "no split 'train'; available splits: test"),
    "only val and test": (IMAGES, many("test/{}.jpg", 2) + many("val/{}.jpg", 2), "no split 'train'; available splits: test, val"),
    "only test.csv": (TEXTS, [("test.csv", "text\na\nb\n")], "no split 'train'; available splits: test"),
    "no file of the modality": (IMAGES, ["a/1.heic", "a/2.heic", "b/3.xml"], "there are 2 .heic, 1 .xml"),
    "archives": (IMAGES, ["a.zip", "b.tar.gz"], "there are 1 .zip, 1 .tar.gz: unpack the archives"),
    "nothing": (TEXTS, ["a/1.heic"], "there are 1 .heic"),
    "a metadata.csv that names nothing": (IMAGES, ["1.jpg", ("metadata.csv", "file_name,label\n9.jpg,x\n")], "names no file"),
    "an unknown class": (IMAGES, classes("train/", ".jpg", **AB) + classes("test/", ".jpg", a=1, z=1), "class 'z' of"),
    "two tables that disagree": (
        IMAGES, [*many("{}.jpg", 2), ("metadata.csv", "file_name,label\n0.jpg,x\n1.jpg,y\n"), ("manifest.csv", "file,label\n0.jpg,q\n")],
        "of '0.jpg', another table '",
    ),
    "a broken metadata.csv": (IMAGES, ["1.jpg", ("metadata.csv", "file_name,label\n1.jpg,x,y\n")], "row 0 (from 0) does not fit the columns (line 2)"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("modality", "files", "message"), [pytest.param(*case, id=name) for name, case in REFUSED.items()]
)
def test_refused_in_one_line(tmp_path, modality, files, message):
    for file in files:
        name, content = (file, "x\n") if isinstance(file, str) else file
        put(tmp_path, name, content=content)
    with pytest.raises(DataError) as caught:
        open_source(str(tmp_path), modality)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


TABLE = {"text": ["one", 'he said "yes"', "a, b; c|d", '"quoted"', "", "x\ny", "é 字", "tab\there", "5\" disk"],
         "label": ["x", "y"] * 4 + ["x"], "n": [*range(9)]}  # fmt: skip
FLAT = {name: [cell for i, cell in enumerate(cells) if i not in (5, 7)] for name, cells in TABLE.items()}
QUOTED = [
    {"sep": ","}, {"sep": ";"}, {"sep": "\t"}, {"sep": "|"}, {"sep": ",", "quoting": csv.QUOTE_ALL},
    {"sep": "\t", "quoting": csv.QUOTE_ALL}, {"sep": ";", "quoting": csv.QUOTE_NONNUMERIC}, {"sep": ",", "index": True},
    {"sep": ",", "lineterminator": "\r\n"}, {"sep": ",", "lineterminator": "\r"}, {"sep": ",", "encoding": "utf-8-sig"},
    {"sep": ";", "encoding": "utf-16"}, {"sep": "\t", "encoding": "utf-16"}, {"sep": ",", "encoding": "utf-16-le"},
    {"sep": ",", "escapechar": "\\", "doublequote": False}, {"sep": "\t", "lineterminator": "\r\n"},
]  # fmt: skip


@pytest.mark.parametrize("written", QUOTED, ids=str)
@pytest.mark.parametrize(
    "name", ["all.csv", "all.tsv", "all.csv.gz", "all.tsv.bz2", "all.csv.xz", "all.csv.zst"]
)
def test_tables_that_pandas_writes(tmp_path, written, name):
    if name.startswith("all.tsv") and written["sep"] not in ("\t", ";"):
        pytest.skip("a .tsv has tabs; what Excel writes has semicolons")
    table = pd.DataFrame(TABLE)
    if "lineterminator" in written and written["lineterminator"] == "\r":
        table = table.drop(index=5)
    whole = {"index": False} | written
    text = table.to_csv(**{key: value for key, value in whole.items() if key != "encoding"})
    raw = text.encode(whole.get("encoding", "utf-8"))
    path = tmp_path / name
    if name.endswith(".zst"):
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(raw)
    else:
        opener = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(path.suffix, open)
        with opener(path, "wb") as file:
            file.write(raw)
    splits = open_source(str(path), TEXTS)
    found = sorted(part.raw(i).decode() for part in splits[:2] for i in range(len(part)))
    assert found == sorted(table["text"])
    assert splits.train.classes == ["x", "y"]


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("name", ["train.tsv", "train.tsv.gz"])
def test_quotes_in_a_tsv_are_characters(tmp_path, name, rows):
    sentences = [
        '" it begins',
        "plain",
        'it "is" quoted',
        'ends "',
        '"whole"',
        '" a "b" c "',
        '5" disk',
        "''",
    ] * rows
    text = "sentence\tlabel\n" + "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(sentences))
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    put(tmp_path, "dev.tsv", content='sentence\tlabel\n"whole"\t0\nplain\t1\n')
    splits = open_source(str(tmp_path), TEXTS)
    assert [splits.train.raw(i).decode() for i in range(len(splits.train))] == sentences
    assert [splits.test.raw(i).decode() for i in range(2)] == ['"whole"', "plain"]


HEADERLESS = {
    "Tatoeba": ("all.csv", "1\tcmn\t我們試試看！\n4\tdeu\tIch bin so müde, dass ich schlafe.\n", ["我們試試看！", "Ich bin so müde, dass ich schlafe."]),
    "CoLA": ("all.tsv", "gj04\t1\t\tOur friends won't buy this.\ngj04\t0\t*\tOne more \"pseudo and I'm done.\n",
             ["Our friends won't buy this.", "One more \"pseudo and I'm done."]),
    "AG news": ("all.csv", '"3","Wall St.","Reuters - Short-sellers, seeing green."\n"4","Oil","A ""quoted"" and longer text"\n',
                ["Reuters - Short-sellers, seeing green.", 'A "quoted" and longer text']),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "texts"), [pytest.param(*case, id=key) for key, case in HEADERLESS.items()]
)
def test_tables_without_a_header(tmp_path, name, content, texts):
    put(tmp_path, name, content=content)
    with pytest.warns(UserWarning, match="has no header: took column"):
        splits = open_source(str(tmp_path / name), TEXTS)
    assert [splits.train.raw(i).decode() for i in range(len(splits.train))] == texts
    assert len(open_source(str(tmp_path / name), TEXTS, content_column="column2").train) == 2


def test_the_first_sts_benchmark(tmp_path):
    """Tabs in a ``.csv``, no header, quotes that do not pair, and rows of other lengths."""
    rows = ["main-captions\tMSRvid\t2012test\t0001\t5.000\tA plane is taking off.\tAn air plane is taking off.",
            'main-news\theadlines\t2013\t0004\t3.800\tHe said "so, or\tThe man "said, it is so.\tlicence\thttp://x',
            "main-news\theadlines\t2013\t0005\t3.800\tA third.\tA fourth, longer than that."]  # fmt: skip
    put(tmp_path, "sts-train.csv", content="\n".join(rows) + "\n")
    splits = open_source(str(tmp_path / "sts-train.csv"), TEXTS, content_column="column6,column7")
    assert len(splits.train) == 6
    assert splits.train.raw(1).decode() == 'He said "so, or'


ROWS = {
    "jsonl": ("a.jsonl", '{"text": "a"}\n\n{"text": "b"}\n'),
    "ndjson": ("a.ndjson", '{"text": "a"}\n{"text": "b"}'),
    "jsonl.gz": ("a.jsonl.gz", '{"text": "a"}\n{"text": "b"}'),
    "a list": ("a.json", '[{"text": "a"}, {"text": "b"}]'),
    "a list in an object": ("a.json", '{"version": 1, "data": [{"text": "a"}, {"text": "b"}]}'),
    "objects on lines in a .json": ("a.json", '{"text": "a"}\n{"text": "b"}\n'),
    "old Mac's lines": ("a.txt", "a\rb\r"),
    "sep=": ("a.csv", "sep=;\ntext;n\na;1\nb;2\n"),
    "R's names of rows": ("a.csv", 'text,n\n1,a,1\n2,b,2\n'),
    "a comma at each end": ("a.csv", "text,n\na,1,\nb,2,\n"),
    "names in capitals": ("a.csv", "Text,N\na,1\nb,2\n"),
    "two columns of one name": ("a.csv", "text,text\na,1\nb,2\n"),
    "blank lines": ("a.csv", "text,n\n\na,1\n\nb,2\n\n"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), [pytest.param(*case, id=key) for key, case in ROWS.items()])
def test_files_of_rows(tmp_path, name, content):
    raw = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    splits = open_source(str(tmp_path / name), TEXTS)
    assert [splits.train.raw(i) for i in range(len(splits.train))] == [b"a", b"b"]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.csv", 'text,n\na,1\n"b,2\n', r"unexpected end of data \(line"),
    ("a.csv", "text,n\na,1\nb,2,3\n", r"row 1 \(from 0\) does not fit the columns \(line 3\)"),
    ("a.tsv", 'text\tn\na"\t1\nb\t2\t3\n', r"\(line 3\)"),
    ("a.jsonl", '{"text": "a"}\n{"text"}\n', r"Expecting ':' delimiter.*\(line 2\)"),
    ("a.jsonl", '{"text": "a"}\n[1]\n', r"row 1 \(from 0\) does not fit"),
    ("a.json", "[1, 2", "Expecting"),
    ("a.csv.gz", "no gzip", "cannot read"), ("a.csv.zst", "no zstd", "cannot read"), ("a.csv.xz", "no", "cannot read"),
])  # fmt: skip
def test_broken_tables_are_one_line_with_the_place(tmp_path, name, content, message):
    put(tmp_path, name, content=content)
    with pytest.raises(DataError, match=rf"^cannot read '.*{name}': .*{message}|{message}"):
        open_source(str(tmp_path / name), TEXTS)


@pytest.mark.parametrize(("column", "cells"), [
    ("split", ["train", "Training", "TEST", "testing", "val", ""]), ("Split", ["train", "train", "test", "test", "val", "train"]),
    ("Usage", ["Training", "Training", "PublicTest", "PrivateTest", "val", "Training"]),
    ("data set", ["train", "train", "test", "test", "valid", "train"]),
])  # fmt: skip
def test_cells_that_say_the_split(tmp_path, column, cells):
    pd.DataFrame({"text": list("abcdef"), column: cells}).to_csv(tmp_path / "all.csv", index=False)
    splits = open_source(str(tmp_path / "all.csv"), TEXTS)
    assert [splits.train.raw(i) for i in range(len(splits.train))] == [b"a", b"b", b"f"] or column == "split"
    assert sorted(splits.train.raw(i) for i in range(len(splits.train))) == [b"a", b"b", b"f"]
    assert sorted(splits.test.raw(i) for i in range(len(splits.test))) == [b"c", b"d"]


@pytest.mark.parametrize(("names", "train", "test"), [
    (["imagenet-train-000000.tar", "imagenet-train-000001.tar", "imagenet-val-000000.tar"], 2, 1),
    (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"], 2, 1),
    (["data/train_001.parquet", "data/train_002.parquet", "data/Test_001.parquet", "data/dev_001.parquet"], 2, 1),
    (["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"], 2, 1),
    (["plain_text/train-00000-of-00001.parquet", "plain_text/unsupervised-00000-of-00001.parquet",
      "plain_text/test-00000-of-00001.parquet"], 1, 1),
    (["train-clean-100.tar", "train-clean-360.tar", "dev-clean.tar"], 2, 1),
    (["TRAIN.parquet", "EVALUATION.parquet"], 1, 1),
])  # fmt: skip
def test_shards_named_after_splits(tmp_path, names, train, test):
    for i, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".tar"):
            with tarfile.open(path, "w") as tar:
                info = tarfile.TarInfo(f"{i}.jpg")
                info.size = 1
                tar.addfile(info, io.BytesIO(b"x"))
        else:
            pq.write_table(pa.table({"image": [b"x"]}), path)
    splits = open_source(str(tmp_path), IMAGES)
    assert (len(splits.train), len(splits.test)) == (train, test)


STREAMS = {
    "Training.csv": (["Training.csv", "Testing.csv"], {"train": 1, "testing": 1, "Testing": 1}),
    "folders": (["train/0.csv", "train/1.csv", "test/0.csv"], {"train": 2, "test": 1}),
    "LibriSpeech's names": (["train-clean-100.csv", "train-other-500.csv", "dev-clean.csv"],
                            {"train": 2, "train-clean-100": 1, "train-clean-100,dev-clean": 2}),
    "no names": (["a.csv", "b.csv"], {"train": 2}),
    "only a test split": (["test.csv"], {"test": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("files", "splits"), [pytest.param(*case, id=key) for key, case in STREAMS.items()])
def test_streams_find_the_same_splits(tmp_path, files, splits):
    put(tmp_path, *files, content="text\na\n")
    for split, n in splits.items():
        assert len(list(open_stream(str(tmp_path), TEXTS, split=split).rows(0, 0))) == n
    if "train" not in splits:
        with pytest.raises(DataError, match="has no split 'train'; available splits: test"):
            open_stream(str(tmp_path), TEXTS)
        assert len(list(open_stream(str(tmp_path / files[0]), TEXTS).rows(0, 0))) == 1


def test_several_splits_between_commas(tmp_path):
    put(tmp_path, *(f"{name}/{i}.jpg" for name in ("one", "two", "train", "test") for i in range(2)))
    splits = open_source(str(tmp_path), IMAGES, train_split="one, Train", test_split="two")
    assert (len(splits.train), len(splits.test)) == (4, 2)
    with pytest.raises(DataError, match="cannot be both trained and tested on"):
        open_source(str(tmp_path), IMAGES, train_split="one", test_split="one")


NAMES = ["nan", "NaN", "1", "1.0", "01", "1e0", "-0", "0", "٣", " 1", "inf", "None", "null", "n/a", "1_0"]
ORDER = """
from bt_multimodal.data.columns import sorted_classes
names = {names!r}
numbers = [name for name in names if name.strip() not in ("nan", "NaN", "None", "null", "n/a")]
print(ascii([sorted_classes(set(names)), sorted_classes(set(numbers)), sorted_classes({{*numbers, "nan"}})]))
"""


def test_the_order_of_classes_is_the_same_in_every_process():
    """Sets of names are in another order in each of these."""
    found = {
        subprocess.run(
            [sys.executable, "-c", ORDER.format(names=NAMES)], cwd=ROOT, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in range(4)
    }  # fmt: skip
    assert len(found) == 1
    words, numbers, mixed = ast.literal_eval(found.pop())
    assert words == sorted(NAMES)
    assert numbers == ["-0", "0", " 1", "01", "1", "1.0", "1e0", "٣", "1_0", "inf"]
    assert mixed == sorted([*numbers, "nan"])


def test_missing_labels_and_texts_that_look_like_them(tmp_path):
    names = ["None", "nan", "NA", "null", "n/a", "-1", "NaN"]
    put(tmp_path, "a.csv", content="text,label\n" + "".join(f"t,{name}\n" * 2 for name in [*names, ""]))
    splits = open_source(str(tmp_path / "a.csv"), TEXTS)
    assert splits.train.classes == sorted(names)
    assert sum(int((part.labels < 0).sum()) for part in splits[:2]) == 2
    lines = [{"text": "t", "label": label} for label in (None, float("nan"), "nan", "x")]
    put(tmp_path, "a.jsonl", content="\n".join(map(json.dumps, lines)))
    splits = open_source(str(tmp_path / "a.jsonl"), TEXTS)
    assert splits.train.classes == ["nan", "x"]
    cells = pa.array([None, float("nan"), 1.0, 2.0])
    pq.write_table(pa.table({"text": list("abcd"), "label": cells}), tmp_path / "a.parquet")
    assert open_source(str(tmp_path / "a.parquet"), TEXTS).train.classes == ["1.0", "2.0"]


def test_minus_one_alone_is_no_class_and_beside_others_it_is(tmp_path):
    put(tmp_path, "train.csv", content="text,label\na,-1\nb,1\n")
    put(tmp_path, "test.csv", content="text,label\na,-1\nb,-1\n")
    splits = open_source(str(tmp_path), TEXTS)
    assert (splits.train.classes, splits.test.labels.tolist()) == (["-1", "1"], [-1, -1])


@pytest.mark.skipif(os.sep != "/", reason="names of files are bytes only on POSIX")
def test_names_that_are_not_utf_8(tmp_path):
    for name in (b"train/caf\xe9/1\xff.jpg", b"train/b/2.jpg", b"test/caf\xe9/3\xfe.jpg"):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(name)
    splits = open_source(str(tmp_path), IMAGES)
    assert splits.train.classes == ["b", "caf\\xe9"]
    assert [splits.train.raw(i) for i in range(2)] == [b"train/b/2.jpg", b"train/caf\xe9/1\xff.jpg"]
    assert splits.test.raw(0) == b"test/caf\xe9/3\xfe.jpg"
    for text in (*splits.train.classes, *(splits.train.name(i) for i in range(2)), splits.test.name(0)):
        assert json.loads(json.dumps(text)) == text
        text.encode()


@pytest.mark.skipif(os.sep != "/", reason="names of files are bytes only on POSIX")
def test_tar_files_whose_names_are_not_utf_8(tmp_path):
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9.tar"))
    with tarfile.open(path, "w") as tar:
        for i in range(2):
            info = tarfile.TarInfo(os.fsdecode(b"\xe9%d.jpg" % i))
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    splits = open_source(path, IMAGES)
    assert [splits.train.raw(i) for i in range(2)] == [b"x", b"x"]
    splits.train.name(0).encode()


def test_what_was_found_is_said(tmp_path):
    from bt_multimodal.data.sources.summary import summary

    put(tmp_path, *classes("train/", ".jpg", **{f"c{i}": i + 1 for i in range(6)}), *many("val/{}.jpg", 2), "train/gone/1.heic",
        *classes("test/", ".jpg", c0=1), "a.xml", "x.tar", "extra/1.jpg")  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lines = "\n".join(summary(open_source(str(tmp_path), IMAGES)))
    for text in ("train: 21 records; 6 classes: c5 (6), c4 (5), c3 (4), c2 (3) and 2 more", "test: 1 record; 1 class: c0 (1)",
                 "left out: the split val (2 records)", "left out: extra/ (1 .jpg) beside the splits", "1 .heic", "1 .xml",
                 "'train/gone' is no class", "x.tar beside the folders"):  # fmt: skip
        assert text in lines


PIECES = [
    "a",
    "b c",
    '"',
    "'",
    ",",
    ";",
    "\t",
    "|",
    "\n",
    "é",
    "字",
    '""',
    ' " ',
    'x"y',
    "#",
    "\\",
    "1",
    "",
    " ",
    "NA",
]


@pytest.mark.parametrize("seed", range(12))
def test_no_row_of_what_pandas_writes_is_lost(tmp_path, seed):
    draw = random.Random(seed)
    for _ in range(10):
        cells = ["".join(draw.choices(PIECES, k=draw.randint(0, 5))) for _ in range(draw.randint(1, 30))]
        table = pd.DataFrame(
            {"text": cells, "label": draw.choices("xy", k=len(cells)), "n": range(len(cells))}
        )
        tabs = draw.random() < 0.5
        path = tmp_path / ("all.tsv" if tabs else "all.csv")
        table.to_csv(
            path, sep="\t" if tabs else draw.choice(",;|\t"), index=draw.random() < 0.3,
            quoting=draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
            lineterminator=draw.choice(["\n", "\r\n"]), encoding=draw.choice(["utf-8", "utf-8-sig", "utf-16"]),
        )  # fmt: skip
        rows = list(read_rows(path, "text", True, ["text"]))
        assert [(row["text"], row["label"]) for row in rows] == [*zip(cells, table["label"], strict=True)]

"""Labelled texts and pairs of texts with all their splits, and their evaluation by `senteval.protocol`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from bt_multimodal.data.columns import DataError
from bt_multimodal.data.records import Records, read_parts
from bt_multimodal.data.sources.split_names import TEST, TRAIN, VALIDATION, by_role
from bt_multimodal.data.sources.tables import SourceOptions, Split, find_splits
from bt_multimodal.evaluation.figures import Figure, Rows
from bt_multimodal.evaluation.report import Comparison
from encoders.text.evaluation.pairs import check_names, source_name
from encoders.text.evaluation.senteval import ProtocolResult, Samples, pair_features, protocol
from encoders.text.modality import TEXTS
from encoders.text.tfidf import TfidfSvd, contents


class LabelledTexts(NamedTuple):
    """``N`` labelled records: one list of texts, or two for pairs, and ``labels [N]``, names of classes."""

    texts: list[list[str]]
    labels: np.ndarray


class Task(NamedTuple):
    """A source's splits, ``None`` for a missing one, and optionally the class whose F1 is computed."""

    name: str
    train: LabelledTexts
    validation: LabelledTexts | None = None
    test: LabelledTexts | None = None
    positive: str | None = None


def open_task(source: str, content_column: str | None = None, label_column: str | None = None) -> Task:
    """Opens all splits of a source of labelled texts.

    Args:
        source: as in `bt_multimodal.data.records.open_records`. A validation split is used as the test split
            if there is no test split.
        content_column: column of the texts; ``"a,b"`` makes pairs, as ``sentence1,sentence2`` does by
            convention.
        label_column: column of the labels, by convention if not given.

    Raises:
        DataError: says in one line what is wrong with the source.
    """
    options = SourceOptions(
        TEXTS.extensions, content_column, TEXTS.columns, label_column, splits_named=False, inline=True
    )
    splits = find_splits(source, options, TEXTS.embedded).splits
    roles = by_role([*splits])
    train_name = next(iter(splits)) if len(splits) == 1 else next(iter(roles[TRAIN]), "train")
    if train_name not in splits:
        raise DataError(f"{source!r} has no split 'train': it has {', '.join(splits)}")
    held_out = [name for name in roles[TEST] + roles[VALIDATION] if name != train_name]
    test_name, validation_name = (*held_out[:2], None, None)[:2]
    train = _read(splits[train_name], options)
    validation = _read(splits[validation_name], options) if validation_name else None
    test = _read(splits[test_name], options) if test_name else None
    return checked_task(Task(source_name(source), train, validation, test), repr(source))


def checked_task(task: Task, origin: str) -> Task:
    """Returns the task after a check that the training split has all of its classes.

    Raises:
        DataError: if the training split lacks a class.
    """
    known = {*task.train.labels.tolist()}
    for split in (task.validation, task.test):
        if split is not None and (unknown := sorted({*split.labels.tolist()} - known)):
            raise DataError(f"class {unknown[0]!r:.60} of {origin} is not in the training split")
    return task


def _read(split: Split, options: SourceOptions) -> LabelledTexts:
    parts, names, _ = read_parts(split, options, require_labels=True)
    if len(parts) > 2:
        raise DataError(f"{len(parts)} texts are not a pair: content_column takes two columns")
    if None in names:
        raise DataError(f"{names.count(None)} of {len(names)} records of {split.origin} have no label")
    rows, none = torch.arange(len(names)), torch.full((len(names),), -1)
    texts = [contents(Records([part], rows, none, [])) for part in parts]
    return LabelledTexts(texts, np.array(names))


def transfer_table(
    tasks: Sequence[Task], encoders: Mapping[str, Callable[[Sequence[str]], Any]], width: int, folds: int = 10
) -> Comparison:
    """Returns a table of accuracies by SentEval's protocol, with F1 where a task has it, and their average.

    The first rows are TF-IDF of each task's training texts and its normalised SVD. The average is that of the
    accuracies.

    Args:
        tasks: the tasks, one column each.
        encoders: functions from ``N`` texts to ``[N, F]`` by row name.
        width: dimensions of the SVD.
        folds: see `senteval.protocol`.

    Raises:
        ValueError: as in `senteval.protocol`.
    """
    from sklearn.preprocessing import normalize

    check_names([task.name for task in tasks])
    rows: Rows = {}
    for task in tasks:
        model = TfidfSvd([text for texts in task.train.texts for text in texts], width)

        def reduced(texts: Sequence[str], model: TfidfSvd = model) -> np.ndarray:
            return normalize(model.reduced(texts))

        all_rows = {"TF-IDF": model.counted, f"TF-IDF's SVD ({width})": reduced, **encoders}
        for name, encode in all_rows.items():
            result = _evaluate(task, encode, folds)
            cells = rows.setdefault(name, {})
            cells[task.name] = Figure(result.accuracy)
            if result.f1 is not None:
                cells[f"{task.name} F1"] = Figure(result.f1)
    if len(tasks) > 1:
        for cells in rows.values():
            cells["average"] = Figure(sum(cells[task.name].mean for task in tasks) / len(tasks))
    described = "; ".join(f"{task.name}: {_described(task, folds)}" for task in tasks)
    return Comparison(f"SentEval's protocol, {described}", rows)


def _evaluate(task: Task, encode: Callable[[Sequence[str]], Any], folds: int) -> ProtocolResult:
    def samples(split: LabelledTexts) -> Samples:
        features = [encode(texts) for texts in split.texts]
        return Samples(features[0] if len(features) == 1 else pair_features(*features), split.labels)

    validation = samples(task.validation) if task.validation else None
    test = samples(task.test) if task.test else None
    return protocol(samples(task.train), validation, test, folds, task.positive)


def _described(task: Task, folds: int) -> str:
    trained = f"{len(task.train.labels)} to train"
    if task.test is None:
        return f"{len(task.train.labels)} in {folds} folds, C by {folds} folds of each training part"
    tested = f"{len(task.test.labels)} to test"
    if task.validation is None:
        return f"{trained}, {tested}, C by {folds} folds"
    return f"{trained}, {tested}, C by {len(task.validation.labels)} to validate"

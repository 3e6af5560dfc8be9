"""Labelled texts and pairs of texts with all their splits, and a table of `senteval.protocol` on them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from bt_multimodal.data.columns import DataError
from bt_multimodal.data.records import Records, read_parts
from bt_multimodal.data.tables import TEST_SPLITS, SourceOptions, Split, find_splits
from bt_multimodal.evaluation.figures import Figure, Rows
from bt_multimodal.evaluation.report import Comparison
from encoders.text.evaluation.pairs import check_names, source_name
from encoders.text.evaluation.senteval import ProtocolResult, Samples, pair_features, protocol
from encoders.text.modality import TEXTS
from encoders.text.tfidf import TfidfSvd, contents


class LabelledTexts(NamedTuple):
    """``N`` records: their texts in one list, or those of pairs in two; ``labels [N]``, names."""

    texts: list[list[str]]
    labels: np.ndarray


class Task(NamedTuple):
    """A source's splits, ``None`` for those it has not, and the class whose F1 is wanted, if any."""

    name: str
    train: LabelledTexts
    validation: LabelledTexts | None = None
    test: LabelledTexts | None = None
    positive: str | None = None


def open_task(source: str, content_column: str | None = None, label_column: str | None = None) -> Task:
    """All splits of a source of labelled texts.

    Args:
        source: as in `bt_multimodal.data.records.open_records`; a validation split is the test split
            where there is no other.
        content_column: ``"a,b"`` are pairs, which ``sentence1,sentence2`` are by convention.
        label_column: by convention if not given.

    Raises:
        DataError: what is wrong with the source, in one line.
    """
    options = SourceOptions(
        TEXTS.extensions, content_column, TEXTS.columns, label_column, splits_named=False, inline=True
    )
    splits = find_splits(source, options, TEXTS.embedded)
    train = next(iter(splits)) if len(splits) == 1 else "train"
    if train not in splits:
        raise DataError(f"{source!r} has no split 'train': it has {', '.join(splits)}")
    held = [name for name in TEST_SPLITS if name in splits and name != train]
    test, validation = (*held[:2], None, None)[:2]
    parts = [_read(splits[name], options) if name else None for name in (train, validation, test)]
    assert parts[0] is not None
    return checked_task(Task(source_name(source), parts[0], parts[1], parts[2]), repr(source))


def checked_task(task: Task, origin: str) -> Task:
    """The task as it is, all of whose classes can be learnt.

    Raises:
        DataError: a class that the training split has not.
    """
    known = {*task.train.labels.tolist()}
    for part in (task.validation, task.test):
        if part is not None and (unknown := sorted({*part.labels.tolist()} - known)):
            raise DataError(f"class {unknown[0]!r:.60} of {origin} is not in the training split")
    return task


def _read(split: Split, options: SourceOptions) -> LabelledTexts:
    parts, names, _ = read_parts(split, options, require_labels=True)
    if len(parts) > 2:
        raise DataError(f"{len(parts)} texts are no pair: content_column takes two")
    if None in names:
        raise DataError(f"{names.count(None)} of {len(names)} records of {split.origin} have no label")
    rows, none = torch.arange(len(names)), torch.full((len(names),), -1)
    texts = [contents(Records([part], rows, none, [])) for part in parts]
    return LabelledTexts(texts, np.array(names))


def transfer_table(
    tasks: Sequence[Task], encoders: Mapping[str, Callable[[Sequence[str]], Any]], width: int, folds: int = 10
) -> Comparison:
    """Accuracies by SentEval's protocol, a column for each task and for its F1, and the accuracies' average.

    The first rows are TF-IDF of each task's training texts, and its SVD brought to length 1.

    Args:
        encoders: by name, from ``N`` texts to ``[N, F]``.
        width: of the SVD.
        folds: see `senteval.protocol`.

    Raises:
        ValueError: as `senteval.protocol`.
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
            found = _measured(task, encode, folds)
            cells = rows.setdefault(name, {})
            cells[task.name] = Figure(found.accuracy)
            if found.f1 is not None:
                cells[f"{task.name} F1"] = Figure(found.f1)
    if len(tasks) > 1:
        for cells in rows.values():
            cells["average"] = Figure(sum(cells[task.name].mean for task in tasks) / len(tasks))
    described = "; ".join(f"{task.name}: {_described(task, folds)}" for task in tasks)
    return Comparison(f"SentEval's protocol, {described}", rows)


def _measured(task: Task, encode: Callable[[Sequence[str]], Any], folds: int) -> ProtocolResult:
    def samples(part: LabelledTexts | None) -> Samples | None:
        if part is None:
            return None
        found = [encode(texts) for texts in part.texts]
        return Samples(found[0] if len(found) == 1 else pair_features(*found), part.labels)

    train = samples(task.train)
    assert train is not None
    return protocol(train, samples(task.validation), samples(task.test), folds, task.positive)


def _described(task: Task, folds: int) -> str:
    trained = f"{len(task.train.labels)} to train"
    if task.test is None:
        return f"{len(task.train.labels)} in {folds} folds, C by {folds} folds of each training part"
    tested = f"{len(task.test.labels)} to test"
    if task.validation is None:
        return f"{trained}, {tested}, C by {folds} folds"
    return f"{trained}, {tested}, C by {len(task.validation.labels)} to validate"

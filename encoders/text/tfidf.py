"""Baselines for text encoders that count words."""

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bt_multimodal.evaluation.figures import Cells, Figure, Rows
from bt_multimodal.evaluation.probes import accuracy, few_labels, knn, vote
from encoders.text.tokens import text_of


class Texts(Protocol):
    """`Records` or `DecodedRecords`: texts in UTF-8 by index, and class labels ``[N]`` (-1: none)."""

    labels: Tensor

    def __len__(self) -> int: ...
    def raw(self, i: int) -> Any: ...


def contents(records: Texts) -> list[str]:
    """Returns all texts. A damaged one is empty, so that the labels keep their places."""

    def content(i: int) -> str:
        try:
            return text_of(records.raw(i))
        except (OSError, ValueError):
            return ""

    return [content(i) for i in range(len(records))]


class TfidfSvd:
    """TF-IDF with logarithmic counts and rows of norm 1, and its truncated SVD (latent semantic analysis).

    A text's SVD vector is the average of its words' vectors, weighted by TF-IDF (Deerwester et al., 1990).
    The vector of a text without known words is 0.

    Args:
        texts: texts from which words, weights and SVD are learnt.
        width: dimensions of the SVD; fewer if there are fewer texts or words.
    """

    def __init__(self, texts: Sequence[str], width: int):
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._counts = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        words: set[str] = set()
        for words_of_text in map(self._counts.build_analyzer(), texts):
            words.update(words_of_text)
            if len(words) > 1:
                break
        else:  # the SVD needs two columns: adds words that no text has
            self._counts.set_params(vocabulary=[*words, "", " "])
        counts = self._counts.fit_transform(texts)
        self._svd = TruncatedSVD(max(1, min(width, min(counts.shape) - 1)), n_iter=7, random_state=0)
        with np.errstate(invalid="ignore"):  # explained shares of a variance of 0
            self._svd.fit(counts)

    def counted(self, texts: Sequence[str]) -> Any:
        """Returns the TF-IDF of texts as a sparse matrix ``[N, V]``."""
        return self._counts.transform(texts)

    def reduced(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the SVD of the texts' TF-IDF, ``[N, width]``, not normalised."""
        return self._svd.transform(self.counted(texts))


def tfidf_baselines(
    train: Texts, test: Texts, width: int,
    per_class: Sequence[int] = (10,), draws: int = 5, k: int = 20, seed: int = 0, linear: bool = True,
) -> Rows:  # fmt: skip
    """Returns two rows of a run's table: logistic regression on TF-IDF and on its normalised SVD.

    The strength of the penalty is chosen by cross-validation on the available labels, few or all. Draws and
    other arguments are those of `bt_multimodal.evaluation.probes.evaluate`.

    Args:
        width: dimensions of the SVD.
    """
    from sklearn.preprocessing import normalize

    labelled = (train.labels >= 0).nonzero().flatten()
    texts, queries = contents(train), contents(test)
    model = TfidfSvd(texts, width)
    labelled_texts = [texts[i] for i in labelled.tolist()]
    y, expected = train.labels[labelled], test.labels
    subsets = {count: [few_labels(y, count, draw, seed) for draw in range(draws)] for count in per_class}
    features = {
        "TF-IDF": (model.counted(labelled_texts), model.counted(queries)),
        f"TF-IDF's SVD ({width})": tuple(
            normalize(model.reduced(part)) for part in (labelled_texts, queries)
        ),
    }
    rows: Rows = {}
    for name, (bank, x) in features.items():
        row: Cells = {}
        row["kNN"] = Figure(accuracy(_neighbours(bank, y, x, min(k, len(y))), expected))
        if linear:
            row["linear"] = Figure(accuracy(_regression(bank, y, x), expected))
        for count, indices in subsets.items():
            accuracies = [accuracy(_regression(bank[i.numpy()], y[i], x), expected) for i in indices]
            spread = float(np.std(accuracies, ddof=1)) if draws > 1 else None
            row[f"linear, {count} a class"] = Figure(float(np.mean(accuracies)), spread)
        rows[name] = row
    return rows


def _neighbours(bank: Any, labels: Tensor, queries: Any, k: int) -> Tensor:
    """Applies `bt_multimodal.evaluation.probes.knn` to rows of norm 1, which may be sparse."""
    if isinstance(bank, np.ndarray):
        return knn(torch.from_numpy(bank), labels, torch.from_numpy(queries), k)
    chunks = [queries[start : start + 512] for start in range(0, queries.shape[0], 512)]
    cosines = (torch.from_numpy((chunk @ bank.T).toarray()) for chunk in chunks)
    return torch.cat([vote(cosine, labels, k, 0.1, int(labels.max()) + 1) for cosine in cosines])


def _regression(x: Any, labels: Tensor, queries: Any) -> Tensor:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    y = labels.numpy()
    folds = min(5, int(np.unique(y, return_counts=True)[1].min()))
    model = LogisticRegression(max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fits with a weak penalty may not quite converge
        if folds > 1:
            search = GridSearchCV(
                model, {"C": [0.1, 1.0, 10.0, 100.0]}, cv=StratifiedKFold(folds, shuffle=True, random_state=0)
            )
            return torch.from_numpy(search.fit(x, y).predict(queries))
        return torch.from_numpy(model.fit(x, y).predict(queries))

"""What counting words is worth: the baselines beside which a text encoder stands."""

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bt_multimodal.evaluation.figures import Cells, Figure, Rows
from bt_multimodal.evaluation.probes import accuracy, few_labels, knn, vote


class Texts(Protocol):
    """`Records` or `DecodedRecords`: UTF-8 by number, and labels ``[N]`` of classes (-1: none)."""

    labels: Tensor

    def __len__(self) -> int: ...
    def raw(self, i: int) -> Any: ...


def contents(records: Texts) -> list[str]:
    """All texts; an empty one in the place of a damaged one, so that the labels fit."""

    def content(i: int) -> str:
        try:
            return bytes(records.raw(i)).decode(errors="replace")
        except OSError:
            return ""

    return [content(i) for i in range(len(records))]


class TfidfSvd:
    """TF-IDF with logarithmic counts, rows of length 1, and its truncated SVD (latent semantic analysis).

    A text's vector is the average of its words' vectors, weighted by TF-IDF (Deerwester et al., 1990);
    that of a text without a word that is known is 0.

    Args:
        texts: what words, their weights and the SVD are learnt from.
        width: dimensions of the SVD; fewer where the texts or their words are.
    """

    def __init__(self, texts: Sequence[str], width: int):
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._counts = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        words: set[str] = set()
        for found in map(self._counts.build_analyzer(), texts):
            words.update(found)
            if len(words) > 1:
                break
        else:  # the SVD wants two columns: words that no text has
            self._counts.set_params(vocabulary=[*words, "", " "])
        counted = self._counts.fit_transform(texts)
        self._svd = TruncatedSVD(max(1, min(width, min(counted.shape) - 1)), n_iter=7, random_state=0)
        with np.errstate(invalid="ignore"):  # shares of a variance of 0
            self._svd.fit(counted)

    def counted(self, texts: Sequence[str]) -> Any:
        """TF-IDF as a sparse matrix ``[N, V]``."""
        return self._counts.transform(texts)

    def reduced(self, texts: Sequence[str]) -> np.ndarray:
        """Its SVD ``[N, width]``, not brought to length 1."""
        return self._svd.transform(self.counted(texts))


def tfidf_baselines(
    train: Texts, test: Texts, width: int,
    per_class: Sequence[int] = (10,), draws: int = 5, k: int = 20, seed: int = 0, linear: bool = True,
) -> Rows:  # fmt: skip
    """Rows of the final table: logistic regression on TF-IDF, and on its SVD brought to length 1.

    The strength of the penalty is chosen by cross-validation among the labels that are given, for the
    few as for all of them; the draws are those of
    `bt_multimodal.evaluation.probes.evaluate`, which says what the arguments are.

    Args:
        width: of the SVD.
    """
    from sklearn.preprocessing import normalize

    known = (train.labels >= 0).nonzero().flatten()
    texts, queries = contents(train), contents(test)
    model = TfidfSvd(texts, width)
    labelled = [texts[i] for i in known.tolist()]
    y, expected = train.labels[known], test.labels
    picks = {count: [few_labels(y, count, draw, seed) for draw in range(draws)] for count in per_class}
    features = {
        "TF-IDF": (model.counted(labelled), model.counted(queries)),
        f"TF-IDF's SVD ({width})": tuple(normalize(model.reduced(part)) for part in (labelled, queries)),
    }
    rows: Rows = {}
    for name, (bank, x) in features.items():
        row: Cells = {}
        row["kNN"] = Figure(accuracy(_neighbours(bank, y, x, min(k, len(y))), expected))
        if linear:
            row["linear"] = Figure(accuracy(_regression(bank, y, x), expected))
        for count, indices in picks.items():
            found = [accuracy(_regression(bank[i.numpy()], y[i], x), expected) for i in indices]
            spread = float(np.std(found, ddof=1)) if draws > 1 else None
            row[f"linear, {count} a class"] = Figure(float(np.mean(found)), spread)
        rows[name] = row
    return rows


def _neighbours(bank: Any, labels: Tensor, queries: Any, k: int) -> Tensor:
    """As `bt_multimodal.evaluation.probes.knn`, of rows of length 1 that may be sparse."""
    if isinstance(bank, np.ndarray):
        return knn(torch.from_numpy(bank), labels, torch.from_numpy(queries), k)
    chunks = [queries[at : at + 512] for at in range(0, queries.shape[0], 512)]
    cosines = (torch.from_numpy((chunk @ bank.T).toarray()) for chunk in chunks)
    return torch.cat([vote(cosine, labels, k, 0.1, int(labels.max()) + 1) for cosine in cosines])


def _regression(x: Any, labels: Tensor, queries: Any) -> Tensor:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    y = labels.numpy()
    folds = min(5, int(np.unique(y, return_counts=True)[1].min()))
    model = LogisticRegression(max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fit of a weak penalty has not quite converged
        if folds > 1:
            choice = GridSearchCV(
                model, {"C": [0.1, 1.0, 10.0, 100.0]}, cv=StratifiedKFold(folds, shuffle=True, random_state=0)
            )
            return torch.from_numpy(choice.fit(x, y).predict(queries))
        return torch.from_numpy(model.fit(x, y).predict(queries))

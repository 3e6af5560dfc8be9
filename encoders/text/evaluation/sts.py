"""Semantic textual similarity: how well cosines of features rank pairs as people do."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bt_multimodal.evaluation.figures import Cells, Figure, Rows
from bt_multimodal.evaluation.probes import pearson, spearman
from bt_multimodal.evaluation.report import Comparison
from encoders.text.evaluation.pairs import Pairs, check_names

Encode = Callable[[Sequence[str]], Any]  # maps N texts to [N, F], an array or a sparse matrix


def sentences(sets: Sequence[Pairs]) -> list[str]:
    """Returns every sentence of several sets once."""
    return list(dict.fromkeys(text for pairs in sets for text in (*pairs.first, *pairs.second)))


def cosines(first: Any, second: Any) -> Tensor:
    """Returns the cosines ``[N]`` float64 of corresponding rows; 0 where a row is all zero.

    Args:
        first, second: ``[N, F]``, arrays or sparse matrices.
    """
    first, second = (features.astype(np.float64) for features in (first, second))

    def dot(a: Any, b: Any) -> Tensor:
        products = a * b if isinstance(a, np.ndarray) else a.multiply(b)
        return torch.from_numpy(np.asarray(products.sum(1)).reshape(-1))

    # With a single root the cosine of a row with itself is exactly 1, so that such pairs are ties.
    norms = (dot(first, first) * dot(second, second)).sqrt()
    return torch.where(norms == 0, 0.0, dot(first, second) / norms)


def similarity_table(sets: Sequence[Pairs], encoders: Mapping[str, Encode], learnt: str) -> Comparison:
    """Returns a table of Spearman's correlation x 100 of cosines and scores, per set, and its average.

    For a single set the table has Pearson's correlation too. If all cosines are equal, both are 0.

    Args:
        sets: the sets of pairs, one column each.
        encoders: functions from texts to features by row name.
        learnt: source of TF-IDF's texts, for the title.
    """
    check_names([pairs.name for pairs in sets])
    texts = sentences(sets)
    index = {text: i for i, text in enumerate(texts)}
    indices = [[[index[text] for text in column] for column in (pairs.first, pairs.second)] for pairs in sets]
    rows: Rows = {}
    for name, encode in encoders.items():
        features = encode(texts)
        cells: Cells = {}
        for pairs, (first, second) in zip(sets, indices, strict=True):
            similarity = cosines(features[first], features[second])
            constant = bool((similarity == similarity[0]).all())
            cells[pairs.name] = Figure(0.0 if constant else 100 * spearman(similarity, pairs.scores))
            if len(sets) == 1:
                cells["Pearson"] = Figure(0.0 if constant else 100 * pearson(similarity, pairs.scores))
        if len(sets) > 1:
            cells["average"] = Figure(sum(figure.mean for figure in cells.values()) / len(sets))
        rows[name] = cells
    counts = ", ".join(f"{pairs.name} {len(pairs.scores)}" for pairs in sets)
    return Comparison(f"pairs: {counts}; TF-IDF learnt from {learnt}", rows, "Spearman x 100")

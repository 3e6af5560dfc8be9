"""Semantic textual similarity: how well cosines of representations rank pairs as people do."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bt_multimodal.evaluation.figures import Cells, Figure, Rows
from bt_multimodal.evaluation.probes import pearson, spearman
from bt_multimodal.evaluation.report import Comparison
from encoders.text.evaluation.pairs import Pairs, check_names

Encode = Callable[[Sequence[str]], Any]  # N texts to [N, F], an array or a sparse matrix


def sentences(sets: Sequence[Pairs]) -> list[str]:
    """Every sentence of several sets once."""
    return list(dict.fromkeys(text for pairs in sets for text in (*pairs.first, *pairs.second)))


def cosines(first: Any, second: Any) -> Tensor:
    """Cosines of rows, ``[N, F]`` twice, arrays or sparse, to ``[N]`` float64; 0 where a row is all zero."""
    first, second = (part.astype(np.float64) for part in (first, second))

    def dot(a: Any, b: Any) -> Tensor:
        products = a * b if isinstance(a, np.ndarray) else a.multiply(b)
        return torch.from_numpy(np.asarray(products.sum(1)).reshape(-1))

    # One root: the cosine of a row with itself is 1 to the last bit, so that such pairs are ties.
    lengths = (dot(first, first) * dot(second, second)).sqrt()
    return torch.where(lengths == 0, 0.0, dot(first, second) / lengths)


def similarity_table(sets: Sequence[Pairs], encoders: Mapping[str, Encode], learnt: str) -> Comparison:
    """Spearman's correlation x 100 of cosines with the scores, of each set, and their average.

    Of one set Pearson's is beside. Representations that give all pairs the same cosine have 0.

    Args:
        encoders: by name.
        learnt: what TF-IDF was learnt from, for the title.
    """
    check_names([pairs.name for pairs in sets])
    texts = sentences(sets)
    place = {text: i for i, text in enumerate(texts)}
    at = [[[place[text] for text in column] for column in (pairs.first, pairs.second)] for pairs in sets]
    rows: Rows = {}
    for name, encode in encoders.items():
        found = encode(texts)
        cells: Cells = {}
        for pairs, (first, second) in zip(sets, at, strict=True):
            similarity = cosines(found[first], found[second])
            constant = bool((similarity == similarity[0]).all())
            cells[pairs.name] = Figure(0.0 if constant else 100 * spearman(similarity, pairs.scores))
            if len(sets) == 1:
                cells["Pearson"] = Figure(0.0 if constant else 100 * pearson(similarity, pairs.scores))
        if len(sets) > 1:
            cells["average"] = Figure(sum(figure.mean for figure in cells.values()) / len(sets))
        rows[name] = cells
    counts = ", ".join(f"{pairs.name} {len(pairs.scores)}" for pairs in sets)
    return Comparison(f"pairs: {counts}; TF-IDF learnt from {learnt}", rows, "Spearman x 100")

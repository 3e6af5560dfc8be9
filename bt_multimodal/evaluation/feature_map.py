"""A map of features: where each sample is drawn, in which colour, and what the legend says."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_MOST = 20  # colours that people tell apart
_LONGEST = 32  # characters of a name in the legend
_UNLABELLED, _OTHER = "#d9d9d9", "#303030"


class Group(NamedTuple):
    """Samples that are drawn in one colour; ``chosen [N]`` says which."""

    name: str
    colour: Any
    chosen: np.ndarray


def groups(labels: np.ndarray, classes: Sequence[str]) -> list[Group]:
    """The colour of each sample: every sample is in exactly one group.

    Up to 20 classes have a colour each; of more, the 19 with the most samples have, and the rest is one
    group. Samples without a label (-1) are grey and come first, so that they are drawn below the others.

    Args:
        labels: ``[N]``.
        classes: the name of each label.
    """
    from matplotlib import colormaps

    # The first ten as matplotlib begins, then their light companions.
    twenty = [colormaps["tab20"](i)[:3] for i in range(_MOST)]
    palette = [*twenty[0::2], *twenty[1::2]]
    palette[17] = (0.0, 0.0, 0.5)  # its light grey is that of samples without a label
    found = []
    if (unlabelled := labels < 0).any():
        found.append(Group("unlabelled", _UNLABELLED, unlabelled))
    own = list(range(len(classes)))
    if len(classes) > _MOST:
        counts = np.bincount(labels[labels >= 0], minlength=len(classes))
        own = sorted(np.argsort(-counts, kind="stable")[: _MOST - 1].tolist())
        rest = (labels >= 0) & ~np.isin(labels, own)
        found.append(Group(f"{len(classes) - len(own)} other classes", _OTHER, rest))
    return found + [Group(shown(classes[label]), palette[i], labels == label) for i, label in enumerate(own)]


def shown(name: str) -> str:
    """A class's name in one line of at most 32 characters, without what no font here can draw."""
    drawable = _drawable()
    text = "".join(
        c if ord(c) in drawable else c.encode("ascii", "backslashreplace").decode()
        for c in " ".join(name.split())
    )
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) or '""'
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 9]}…{text[-8:]}"
    return text


@cache
def families() -> tuple[str, ...]:
    """matplotlib's font, and those installed here that have the letters of other scripts."""
    from matplotlib import font_manager

    usual = [
        "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans", "WenQuanYi Zen Hei", "Microsoft YaHei",
        "PingFang SC", "Hiragino Sans", "Yu Gothic", "Malgun Gothic", "Noto Sans Devanagari", "Nirmala UI",
        "Noto Sans Thai", "Noto Sans Bengali", "Noto Sans Tamil", "Arial Unicode MS", "Unifont",
    ]  # fmt: skip
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in usual if name in installed))


@cache
def _drawable() -> frozenset[int]:
    from matplotlib import font_manager

    codes: set[int] = set()
    for family in families():
        codes |= font_manager.get_font(font_manager.findfont(family)).get_charmap().keys()
    return frozenset(codes)


def places(features: Tensor, seed: int) -> np.ndarray:
    """Where to draw each sample: a t-SNE ``[N, 2]`` of features ``[N, F]``.

    Samples with a feature that is not finite have no place: not a number. Too few samples for a t-SNE, or
    too few that differ, are drawn by their two principal components.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    found = np.full((len(features), 2), np.nan)
    finite = features.isfinite().all(1)
    rows = torch.nn.functional.normalize(features[finite]).numpy()
    if len(rows) < 4 or rows.shape[1] < 2 or len(np.unique(rows, axis=0)) < 4:
        centred = rows - rows.mean(0) if len(rows) else rows
        left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
        components = (left * lengths)[:, :2]
        found[finite.numpy()] = np.pad(components, ((0, 0), (0, 2 - components.shape[1])))
        return found
    perplexity = min(30.0, max(1.0, (len(features) - 1) / 3))
    # The OpenMP loops of t-SNE are short: on a busy machine, several threads wait minutes for each other.
    with threadpool_limits(1):
        found[finite.numpy()] = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(rows)
    return found

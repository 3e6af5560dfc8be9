"""Measured figures and tables of figures."""

from typing import NamedTuple


class Figure(NamedTuple):
    """A measured figure: the mean and sample standard deviation over draws (``None`` for a single draw)."""

    mean: float
    spread: float | None = None


Cells = dict[str, Figure]  # the figures of one row, by column
Rows = dict[str, Cells]  # a table's rows, by name

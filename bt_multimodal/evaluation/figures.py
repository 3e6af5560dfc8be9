"""Measured figures, and tables of them."""

from typing import NamedTuple


class Figure(NamedTuple):
    """A measured figure: its mean, and its sample standard deviation over draws (``None`` for one draw)."""

    mean: float
    spread: float | None = None


Cells = dict[str, Figure]  # the figures of one row, by column
Rows = dict[str, Cells]  # a table's rows, by name

"""How much damage is tolerated, and the list of a run's damaged records."""

import os
import warnings
from pathlib import Path
from typing import NamedTuple

FILE = "damaged.txt"  # in a run directory
_SHOWN = 10  # warnings of a run that has a list
_HEADER = (
    b"# Damaged or unsupported records of this run, one a line. "
    b"Training took others instead, evaluation left them out.\n"
)


class DamageLog:
    """The damaged records of a run, each named once: all in a file, the first ones in warnings as well.

    Several processes may have logs of one file. What it names already, also from an earlier part of the
    run, is not named again.

    Args:
        file: the list, which `begin` starts; without one every record is named in a warning.
    """

    def __init__(self, file: Path | None = None):
        self.file = file
        self._begun, self._end = False, 0  # of what has been read of the file
        self._listed: set[str] = set()
        self._waiting: dict[str, None] = {}  # in order

    def begin(self) -> None:
        """Write to the file from now on, what was noted before first; its folder exists.

        Until then a run may still be refused, in one line.
        """
        self._begun = True
        waiting, self._waiting = self._waiting, {}
        for line in waiting:
            self.note(line)

    def keep(self, line: str) -> None:
        """Put a damaged record into the list alone: an error names it."""
        if self._begun:
            self._append(_written(line))

    def note(self, line: str) -> None:
        """Name a damaged record by one line."""
        line = _written(line)
        if self.file is not None and not self._begun:
            self._waiting[line] = None
        elif self._append(line):
            count = len(self._listed) + 1
            if self.file is None or count < _SHOWN:
                _warn(line)
            elif count == _SHOWN:
                _warn(f"{line}; any more are only named in {self.file}")

    def _append(self, line: str) -> bool:
        """Append a line that the file does not have; returns whether it was new."""
        if self.file is None:
            return True
        try:
            descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            with open(descriptor, "r+b", buffering=0) as file:
                file.seek(self._end)
                *whole, _ = file.read().split(b"\n")  # another process may be at the last line
                self._end += sum(len(text) + 1 for text in whole)
                self._listed.update(text.decode() for text in whole if not text.startswith(b"#"))
                if line in self._listed:
                    return False
                # One write: the lines of several processes do not mix.
                file.write((b"" if self._end else _HEADER) + line.encode() + b"\n")
        except (OSError, UnicodeDecodeError) as error:
            _warn(f"{self.file} cannot be kept: {error}")
            self.file = None
        return True


def _written(line: str) -> str:
    return line.encode(errors="backslashreplace").decode()  # names may have bytes that are not UTF-8


def _warn(line: str) -> None:
    warnings.warn_explicit(line, UserWarning, "data", 0)  # one line: without the code that was running


class Tolerance(NamedTuple):
    """How much damage is tolerated: arguments of `DecodedRecords`.

    Attributes:
        allowed: the share of damaged records.
        least: the number of damaged records that is allowed of any set, but of at most half of it.
        log: where damaged records are named.
    """

    allowed: float = 0.01
    least: int = 5
    log: DamageLog | None = None

    def begin(self) -> None:
        """Begin the list of damaged records, if there is one: its folder exists."""
        if self.log is not None:
            self.log.begin()


USUAL = Tolerance()


def tolerance(share: float, least: int, run: Path | None = None) -> Tolerance:
    """The tolerance of a run, which lists its damaged records in a file of the folder ``run``.

    Raises:
        ValueError: ``share`` is not from 0 to 1, or ``least`` is below 0.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"damaged_share is a share of the records from 0 to 1, not {share}")
    if least < 0:
        raise ValueError(f"damaged_least is a number of records, 0 or more, not {least}")
    return Tolerance(share, least, DamageLog(run and run / FILE))

"""Errors of training."""

import signal
import traceback

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: exit status of a run that the same command can continue


def one_line(error: BaseException) -> str:
    """An error's type and message in one line; the failing line of code where it has no message."""
    text = " ".join(str(error).split())
    if not text and (frames := traceback.extract_tb(error.__traceback__)):
        text = f"in {frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class TrainingFailedError(RuntimeError):
    """Training failed for a known reason; the message is one line."""


class Stopped(BaseException):
    """A signal has stopped this process; the message is one line.

    Like ``KeyboardInterrupt`` it is no ``Exception``: what catches those, such as decoding, lets it through.

    Args:
        number: the signal.
        state: what the process had reached.
    """

    def __init__(self, number: int, state: str = ""):
        super().__init__(number, state)
        self.number = number

    def __str__(self) -> str:
        return " ".join(filter(None, (f"stopped by {signal.Signals(self.number).name}", self.args[1])))

    @property
    def status(self) -> int:
        """The exit status: 130 after Ctrl-C, so that a shell's loop ends too, or else `TRY_AGAIN`."""
        return 130 if self.number == signal.SIGINT else TRY_AGAIN

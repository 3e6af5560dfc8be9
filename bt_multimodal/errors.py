"""Errors of training."""

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: exit status of a run that the same command can continue


class TrainingFailedError(RuntimeError):
    """Training failed for a known reason; the message is one line."""


class StoppedError(RuntimeError):
    """A run was stopped by a signal and is saved; the message is one line."""

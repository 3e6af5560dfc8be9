"""How training goes wrong."""

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the status of a run that the same command can continue


class TrainingFailedError(RuntimeError):
    """Training went wrong in a way that has a name; the message is one line."""


class StoppedError(RuntimeError):
    """A run was told to stop and has saved itself; the message is one line."""

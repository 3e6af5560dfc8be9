"""How training goes wrong."""


class TrainingFailedError(RuntimeError):
    """Training went wrong in a way that has a name; the message is one line."""

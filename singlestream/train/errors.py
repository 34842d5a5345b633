"""What can go wrong with a run through no fault of the program. Light to import: the command line catches these."""

from __future__ import annotations


class RunError(RuntimeError):
    """A user can mend this: the message is shown alone, without a traceback."""


class FolderError(RunError):
    """A run's folder that cannot be used; the message names the file and says what to do."""


class CheckpointError(RunError):
    """A checkpoint that is not there, damaged, of another model or cannot be written; the message names its folder."""


class NonFiniteError(RunError):
    """A loss or gradient, at which training stopped, or a score of an evaluation is no finite number."""


class Interrupted(RunError):
    """A signal asked the run to stop; its state is saved. `signal` is the signal's number."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal

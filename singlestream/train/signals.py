"""SIGTERM and SIGINT as a wish that the loop looks at between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils


class Stop:
    """Whether someone asked the run to stop. `signal` is the signal's number, 0 for none."""

    def __init__(self) -> None:
        self.signal = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listens while the loop runs; a second signal acts as it would have without us.

        Among several processes jax listens for SIGTERM itself and lets all agree on the step; SIGINT becomes one.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        ours = (signal.SIGINT,) if jax.process_count() > 1 else (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._note) for number in ours}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def asked(self, step: int) -> bool:
        if jax.process_count() == 1:
            return bool(self.signal)
        if not multihost_utils.reached_preemption_sync_point(step):
            return False
        self.signal = self.signal or signal.SIGTERM
        return True

    def _note(self, number: int, frame: Any) -> None:
        del frame
        self.signal = number
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
        if jax.process_count() > 1:
            signal.raise_signal(signal.SIGTERM)

"""Every visible key, by softmax of the scores."""

from __future__ import annotations

from singlestream.model.attention.whole import Softmax


class Selection(Softmax):
    """All that is visible; no parameters."""

"""Several examples in one row, by next fit: a row is closed when the next example does not fit it."""

from __future__ import annotations

from typing import Any

import grain

from singlestream.data.processor import Entry, Processor, Row


class NextFit(grain.IterDataset[Row]):
    """Rows of up to `data.examples_per_row` examples whose pictures take at most `data.row_patches` image tokens.

    Next fit keeps the order of the stream and looks one example ahead, so the state to save is the stream's state
    before that example. Pictures of very different sizes fill rows best when `examples_per_row` is generous: what
    limits a row should be the image tokens.
    """

    def __init__(self, parent: grain.IterDataset[Entry], processor: Processor):
        super().__init__(parent)
        self._processor = processor

    def __iter__(self) -> _NextFitIterator:
        return _NextFitIterator(self._parent.__iter__(), self._processor)


class _NextFitIterator(grain.DatasetIterator[Row]):
    def __init__(self, parent: grain.DatasetIterator[Entry], processor: Processor):
        super().__init__(parent)
        self._processor = processor
        self._before = parent.get_state()  # of the stream, before `_ahead` was taken from it
        self._ahead: Entry | None = None

    def __next__(self) -> Row:
        limit = self._processor.data.examples_per_row
        first = self._take()
        row, room = [first], self._processor.num_patches - self._processor.count_patches(first[0])
        while len(row) < limit:
            following = self._take()
            room -= self._processor.count_patches(following[0])
            if room < 0:
                self._ahead = following
                break
            row.append(following)
        return self._processor.row(row)

    def _take(self) -> Entry:
        if self._ahead is not None:
            element, self._ahead = self._ahead, None
            return element
        self._before = self._parent.get_state()
        return next(self._parent)

    def get_state(self) -> dict[str, Any]:
        return self._before if self._ahead is not None else self._parent.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._parent.set_state(state)
        self._before, self._ahead = state, None

"""Millions of short texts in little memory."""

from __future__ import annotations

import array


class TextColumn:
    """Texts in one block of bytes: eight bytes each beside their letters, where a `str` takes fifty."""

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), array.array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> str:
        return self._bytes[self._ends[i] : self._ends[i + 1]].decode("utf-8", "surrogatepass")

    def append(self, text: str) -> None:
        self._bytes += text.encode("utf-8", "surrogatepass")  # JSON may hold half of a character
        self._ends.append(len(self._bytes))

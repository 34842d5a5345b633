"""What a training has to know of published weights. It knows no family of them: who starts it hands this over."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from singlestream.model.heads import HeadConfig


@runtime_checkable
class Weights(Protocol):
    """Published weights as `singlestream.interop.training` reads them; a plan says what the weights in a folder are."""

    def holds(self, path: Path) -> bool:
        """Whether there are published weights, and no run."""

    def read_plan(self, path: Path) -> Any:
        """Reads the names and shapes alone."""

    def read(self, path: Path) -> tuple[Any, Any, Any]:
        """The model, its plan, and an account of what was taken."""

    def by_path(self, module: Any) -> Mapping[str, Any]:
        """A model's parameters by path."""

    def answer_names(self, plan: Any) -> tuple[str, ...]:
        """The answers of its head, in order."""

    def family_heads(self, plan: Any, heads: Mapping[str, HeadConfig]) -> dict[str, HeadConfig]:
        """The heads in the form that the family has."""

    def family_rows(self, plan: Any, heads: Collection[str]) -> Mapping[str, Any]:
        """Fields of `DataConfig` in which its rows differ."""

    def origin_of(self, plan: Any) -> dict[str, Any] | None:
        """What is kept so that a run can be written back; None where it cannot be."""

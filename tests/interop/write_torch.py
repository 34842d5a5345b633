"""Writes small files with `torch.save`, for the tests of what reads them: python -m tests.interop.write_torch FOLDER

The files in tests/golden/torch were written so, by torch 2.13; they are there for machines without torch.
"""

from __future__ import annotations

import argparse
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FILES = ("zip.pt", "legacy.pt", "lightning.ckpt", "numpy.pt")

# Views of one storage of 24 numbers, [4, 6], by numpy's and by torch's arrays alike.
VIEWS: dict[str, Callable[[Any], Any]] = {
    "whole": lambda x: x,
    "transposed": lambda x: x.T,
    "rows": lambda x: x[1:3],
    "columns": lambda x: x[:, 2:4],
    "steps": lambda x: x[::2, ::3],
    "number": lambda x: x[2, 3],
    "nothing": lambda x: x[:0],
    "cube": lambda x: x.reshape(2, 2, 6)[:, 1],
}
DTYPES = ("float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")


class Callback:
    """An object of a class that a reader does not have."""

    def __init__(self) -> None:
        self.best = {"score": np.float64(0.5), "names": {"a", "b"}, "arrays": np.array([None, "x"])}


def write(folder: Path) -> None:
    """Writes FILES into a folder."""
    import torch

    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8
    state = OrderedDict((name, view(base)) for name, view in VIEWS.items())
    state |= {name: torch.arange(6).to(getattr(torch, name)) for name in DTYPES}
    state["parameter"] = torch.nn.Parameter(torch.ones(3))
    state["expanded"] = torch.arange(3.0).expand(2, 3)
    torch.save(state, folder / "zip.pt")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)

    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.nn.init.constant_(layer.weight, 0.25)
    torch.nn.init.constant_(layer.bias, -1)
    lightning = {
        "epoch": 3,
        "state_dict": layer.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "callbacks": {Callback: Callback()},
        "hyper_parameters": argparse.Namespace(path=Path("data"), size=torch.Size([2])),
    }
    torch.save(lightning, folder / "lightning.ckpt")
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3))}
    torch.save({"model": {**arrays, "c": np.float32(1.5)}, "step": 7}, folder / "numpy.pt")


if __name__ == "__main__":
    write(Path(sys.argv[1]))

"""Runs authors' code with a recipe's numbers, for the programs here that write golden files. Needs torch."""

from __future__ import annotations

import importlib
import json
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
STEPS = 3


def stub(name: str, **values: Any) -> None:
    """A module that the authors' files import, where it is not installed."""
    try:
        importlib.import_module(name)
    except ImportError:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(values)


def fill(model: torch.nn.Module, weights: Callable[[Mapping[str, tuple[int, ...]]], dict[str, Any]]) -> torch.nn.Module:
    """The model in float64 with the numbers that a recipe draws for its shapes."""
    model = model.double().eval()
    drawn = weights({name: tuple(value.shape) for name, value in model.state_dict().items()})
    model.load_state_dict({name: torch.tensor(value) for name, value in drawn.items()})
    return model


def shapes(model: torch.nn.Module) -> np.ndarray:
    return np.array(json.dumps({name: list(value.shape) for name, value in model.state_dict().items()}))


def arrays(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {f"{prefix}/{name}": value.detach().numpy() for name, value in tensors.items()}


def trained(case: str, model: torch.nn.Module, loss_of: Callable[[], torch.Tensor]) -> dict[str, np.ndarray]:
    """Loss, gradients, and the parameters after three steps of AdamW."""
    loss = loss_of()
    loss.backward()
    used = {name: p for name, p in model.named_parameters() if p.grad is not None}
    found = {
        f"{case}/loss": loss.detach().numpy(),
        f"{case}/trained": np.array(json.dumps(list(used))),
        f"{case}/gradients": flat(p.grad for p in used.values()),
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()
    return {**found, f"{case}/stepped": flat(p.detach() for p in used.values())}


def flat(tensors: Iterable[torch.Tensor]) -> np.ndarray:
    """One array of all, since a file of many small ones is mostly names."""
    return np.concatenate([tensor.numpy().ravel() for tensor in tensors])


def save(name: str, found: Mapping[str, np.ndarray]) -> None:
    np.savez_compressed(HERE / f"{name}.npz", **found)
    print(name, len(found), "arrays", (HERE / f"{name}.npz").stat().st_size, "bytes")

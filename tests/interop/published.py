"""Models of transformers with random weights, and ours made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx

from singlestream.interop.plan import Plan

from .compare import Held, Precision, Training, check_training, held
from .golden_files import make


def state(model: torch.nn.Module) -> dict[str, Held]:
    return held({key: value.detach().numpy().copy() for key, value in model.state_dict().items()})


def randomise(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every parameter drawn anew, LayerNorms and biases too, so that none of them is a neutral element."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            scale = 0.1 if value.ndim > 1 else 0.2
            offset = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            value.copy_(offset + scale * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return model.eval()


def ours(model: torch.nn.Module) -> tuple[nnx.Module, Plan]:
    """Our model of theirs."""
    return make(state(model), model.config.to_dict())


def tree_by_path(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(keys, simple=True, separator="/"): np.asarray(leaf) for keys, leaf in leaves}


def trained(model: torch.nn.Module, loss: Callable[[], torch.Tensor], steps: int) -> Training:
    """What training gives; the model is another afterwards."""
    model.zero_grad()
    value = loss()
    value.backward()
    used = {name: p for name, p in model.named_parameters() if p.grad is not None}
    gradients = {name: p.grad.numpy().copy() for name, p in used.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return Training(value.item(), gradients, {name: p.detach().numpy() for name, p in used.items()})


def check_trained(
    model: torch.nn.Module, loss: Callable[[], torch.Tensor], loss_of: Callable[[Any], Any], precision: Precision
) -> None:
    """The reference's loss, every parameter's gradient, and the parameters after steps of AdamW on both sides.

    Args:
        loss: the reference's of its model as it is at the time.
        loss_of: the same of a model of ours.
    """
    module, plan = ours(model)
    check_training(module, plan, loss_of, trained(model, loss, precision.steps), precision)

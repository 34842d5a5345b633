"""The mesh, and the one table that says which axis of which parameter is split over it."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from singlestream.config import ConfigError, MeshConfig, TrainConfig
from singlestream.train.paths import map_with_path

AXES = ("data", "fsdp", "tensor")

# First match wins; patterns are searched in the path, so optimizer moments and averages fall under them too. Kernels of
# stacked blocks are [layers, inputs, outputs], of attention [layers, inputs, 3, outputs]: what widens is split by its
# outputs over `tensor`, what narrows by its inputs, so that attention and feed-forward layer need one reduction each.
TABLE: tuple[tuple[str, PartitionSpec], ...] = (
    (r"(blocks|cross/\w+)/attention/kernel$", PartitionSpec(None, "fsdp", None, "tensor")),
    (r"(blocks|cross/\w+)/attention/bias$", PartitionSpec(None, None, "tensor")),
    (r"(blocks|cross)/.*(up|query|key|value)/kernel$", PartitionSpec(None, "fsdp", "tensor")),
    (r"(blocks|cross)/.*(up|query|key|value)/bias$", PartitionSpec(None, "tensor")),
    (r"(blocks|cross)/.*(out|down)/kernel$", PartitionSpec(None, "tensor", "fsdp")),
    (r"embedding$", PartitionSpec("tensor", "fsdp")),
    (r"blocks/(inputs|conv)/kernel$", PartitionSpec(None, "fsdp", "tensor")),
    (r"(embed|heads|pooler|join|gate)/.*kernel$", PartitionSpec("fsdp", "tensor")),
)

ROWS = PartitionSpec(("data", "fsdp"))


def make_mesh(config: MeshConfig, devices: list[Any] | None = None) -> Mesh:
    """A mesh (data, fsdp, tensor) over all devices; an axis of -1 takes what the others leave.

    Raises:
        ConfigError: the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    if sizes.count(-1) == 1:
        rest = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = len(devices) // max(rest, 1)
    if min(sizes) < 1 or math.prod(sizes) != len(devices):
        given = ", ".join(f"{name}={getattr(config, name)}" for name in AXES)
        raise ConfigError(f"config.train.mesh ({given}) does not fit {len(devices)} devices")
    # Auto axes: the compiler propagates shardings through plain jnp code; Explicit ones would ask for annotations.
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def check_rows(config: TrainConfig, mesh: Mesh) -> None:
    """Every part of a batch must divide over the devices that split it, and a process must hold whole rows.

    Raises:
        ConfigError: names the batch size and what must divide it, or the axis that spans processes.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if config.batch_size % (ways * config.accumulate):
        raise ConfigError(
            f"config.train.batch_size={config.batch_size} is not divisible by {ways} devices (data x fsdp) "
            f"times config.train.accumulate={config.accumulate}"
        )
    owners = [{device.process_index for device in group} for group in mesh.devices.reshape(ways, -1)]
    if any(len(group) > 1 for group in owners):
        own = mesh.size // len(set().union(*owners))
        raise ConfigError(
            f"config.train.mesh.tensor={mesh.shape['tensor']} spans processes, but each reads rows of its own: set "
            f"it to a divisor of {own}, the devices of one process, and data or fsdp to more"
        )


def spec_of(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The table's entry for a leaf, without the axes that do not divide its size (those stay whole)."""
    found = next((spec for pattern, spec in TABLE if re.search(pattern, path)), PartitionSpec())
    if len(found) > len(shape):
        return PartitionSpec()
    axes = [axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(found, shape, strict=False)]
    while axes and axes[-1] is None:
        axes.pop()
    return PartitionSpec(*axes)


def shard_state(state: Any, mesh: Mesh) -> Any:
    """The tree of shapes with the table's sharding on each leaf (`ShapeDtypeStruct`s, for compiling and restoring)."""

    def place(path: str, leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, spec_of(path, leaf.shape, mesh))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return map_with_path(place, state)


def gather(params: Any, mesh: Mesh | None) -> Any:
    """Inside of jit: the parameters as a step computes with them, whole over `fsdp`, split over `tensor` only.

    What is split at rest is gathered once a step (moments and gradients stay split). Left to itself the compiler
    contracts over the axis that also splits the rows, and with jax 0.10.2 some of those gradients come out wrong.
    """

    if mesh is None or mesh.size == 1:
        return params

    def place(path: str, leaf: jax.Array) -> jax.Array:
        axes = (None if axis == "fsdp" else axis for axis in spec_of(path, leaf.shape, mesh))
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, PartitionSpec(*axes)))

    return map_with_path(place, params)


def shard_rows(batch: Any, mesh: Mesh) -> Any:
    """The shapes of a process's batch, as those of the global one with its rows split over data and fsdp."""
    sharding = NamedSharding(mesh, ROWS)

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        shape = (leaf.shape[0] * jax.process_count(), *leaf.shape[1:])
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(place, batch)


def put_rows(batch: Any, mesh: Mesh) -> Any:
    """A process's numpy rows onto its devices, as its share of the global batch."""
    sharding = NamedSharding(mesh, ROWS)
    if mesh.size == 1:
        # A compiled call takes host arrays in a quarter of the time of `jax.device_put`, which goes leaf by leaf.
        with jax.transfer_guard("allow"):
            return _placed(mesh.devices.flat[0])(batch)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)

    def put(leaf: Any) -> jax.Array:
        whole = (leaf.shape[0] * jax.process_count(), *leaf.shape[1:])
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf), whole)

    return jax.tree.map(put, batch)


@functools.lru_cache
def _placed(device: jax.Device) -> Callable[[Any], Any]:
    return jax.jit(lambda batch: batch, out_shardings=SingleDeviceSharding(device))

"""Several processes as one: joined when the environment says so, and kept in step."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from singlestream.config import ConfigError

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def join_cluster(env: dict[str, str] | None = None) -> bool:
    """Calls `jax.distributed.initialize` where the environment asks for it; must come before anything else of jax.

    By addresses: `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES`, `JAX_PROCESS_ID`. Slurm (more than one task), TPU pods
    and GKE are found by jax itself.

    Raises:
        ConfigError: an address without the number of processes or this one's, or not a number.
    """
    env = dict(os.environ) if env is None else env
    if jax.distributed.is_initialized() or not asks(env):
        return False
    if ADDRESS not in env:
        jax.distributed.initialize()
        return True
    try:
        count, index = int(env[COUNT]), int(env[INDEX])
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{ADDRESS} is set: {COUNT} and {INDEX} must be set to numbers, too") from error
    jax.distributed.initialize(env[ADDRESS], count, index)
    return True


def asks(env: dict[str, str]) -> bool:
    """Whether the environment is that of one process among several."""
    if ADDRESS in env or "MEGASCALE_COORDINATOR_ADDRESS" in env:
        return True
    if int(env.get("SLURM_NTASKS", "1") or 1) > 1 and "SLURM_PROCID" in env:
        return True
    return "," in env.get("TPU_WORKER_HOSTNAMES", "")


def sync(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def gather(value: Any) -> list[Any]:
    """A JSON value of each process, in the order of processes, on all of them."""
    import json

    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(text)))
    padded = np.zeros(int(np.max(sizes)), np.uint8)
    padded[: len(text)] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:size])) for row, size in zip(np.asarray(rows), np.ravel(sizes), strict=True)]

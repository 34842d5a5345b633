"""A model as a folder that runs without this package: a program of StableHLO, its parameters, and what both mean.

    program.jax_export   the model and its heads, lowered by `jax.export` (`singlestream.program`)
    parameters.npz       the program's first argument, {path: array}
    export.json          inputs and outputs by name, heads, answers, sizes, versions
    vocab.txt ...        the processor's files

Parameters are an argument and not constants of the program: they lie on disk and in memory once, whatever the number of
platforms and of compiled shapes of a batch, and `numpy.load` reads them. docs/export.md runs such a folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import shutil
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import export as jax_export

from singlestream.batch import Array
from singlestream.config import ConfigError
from singlestream.data.processor import Processor
from singlestream.predict import Model
from singlestream.program import DIMENSIONS, PLATFORMS, lower
from singlestream.train.errors import FolderError

PROGRAM, PARAMETERS, DESCRIPTION = "program.jax_export", "parameters.npz", "export.json"
# How the processor prepares texts and pictures, as far as a service has to do the same.
PREPARATION = ("text_length", "mask_last", "max_patches", "shorter_side", "mean_region")


def export(
    model: Model,
    folder: str | os.PathLike[str],
    *,
    platforms: Sequence[str] = PLATFORMS,
    heads: Collection[str] | None = None,
) -> Path:
    """Writes a model for a service that has jax and numpy, but not this package.

    Args:
        folder: a new one; it appears when it is whole.
        platforms: that the program is lowered for; this machine need not have them.
        heads: names of those to take along; all by default. The others' parameters stay behind.

    Returns:
        The folder.

    Raises:
        ConfigError: a platform or head that there is not; lists those there are.
        FolderError: the folder exists, or cannot be written.
    """
    check_platforms(platforms)
    module = _with_heads(model.module, heads)
    with _new_folder(Path(folder).expanduser().absolute()) as part:
        exported, params = lower(module, platforms)
        _write_arrays(part / PARAMETERS, params)
        (part / PROGRAM).write_bytes(exported.serialize())
        processor = _processor(model)
        if processor is not None:
            processor.save(part)
        about = _describe(model, module, processor, exported)
        (part / DESCRIPTION).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return Path(folder)


def check_platforms(platforms: Sequence[str]) -> None:
    """Raises ConfigError for a name that is none of `PLATFORMS`, and for no name at all."""
    for name in platforms or ("",):
        if name not in PLATFORMS:
            raise ConfigError(f"platform {name!r}: choose from {', '.join(PLATFORMS)}")


def _with_heads(module: Any, heads: Collection[str] | None) -> Any:
    """The module with some of its heads; the arrays are shared."""
    unknown = sorted(set(heads or ()) - set(module.heads))
    if unknown:
        raise ConfigError(f"no head {', '.join(unknown)}: this model has {', '.join(module.heads) or 'none'}")
    module = nnx.merge(*nnx.split(module))
    for name in () if heads is None else set(module.heads) - set(heads):
        del module.heads[name]
    return module


def _processor(model: Model) -> Processor | None:
    """None for published weights that came without a vocabulary."""
    try:
        return model.processor
    except ConfigError:
        return None


# ---- export.json -----------------------------------------------------------------------------------------------------


def _describe(model: Model, module: Any, processor: Processor | None, exported: jax_export.Exported) -> dict[str, Any]:
    """Whatever one has to know to call the program, and to read what comes out."""
    (_, inputs), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        "program": PROGRAM,
        "parameters": PARAMETERS,
        "platforms": list(exported.platforms),
        "versions": {name: importlib.metadata.version(name) for name in ("singlestream", "jax", "jaxlib")},
        "calling_convention": exported.calling_convention_version,
        "dimensions": DIMENSIONS,
        "inputs": {name: _aval(value) for name, value in inputs.items()},
        "outputs": {name: _aval(value) for name, value in outputs.items()},
        "heads": {name: dataclasses.asdict(head.head) for name, head in module.heads.items()},
        "model": dataclasses.asdict(module.config),
        "spec": dataclasses.asdict(model.spec),
        "answers": list(processor.answers) if processor else [],
        "preparation": {name: getattr(processor.data, name) for name in PREPARATION} if processor else None,
        "step": model.step,
    }


def _aval(value: Any) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else str(size) for size in value.shape]
    return {"dtype": str(value.dtype), "shape": shape}


# ---- the folder ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that gets its name when all is written; if something fails, nothing is left."""
    if os.path.lexists(target):
        raise FolderError(f"{target} exists already; an export overwrites nothing: name a new folder")
    part = target.with_name(f".{target.name}.part-{os.getpid()}")
    try:
        part.mkdir(parents=True)
        yield part
        os.rename(part, target)
    except OSError as error:
        raise FolderError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """What `numpy.savez` writes, but closed also where the disk is full, so that no traceback follows the error."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)

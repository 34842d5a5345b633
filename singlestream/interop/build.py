"""From a published file's tensors to a model, and back."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from singlestream import interop
from singlestream.interop.files import open_tensors, write_safetensors
from singlestream.interop.params import read_params, write_params
from singlestream.interop.plan import Plan, legacy
from singlestream.interop.rules import Account, Tensor, WeightsError
from singlestream.model.build import AnyModel, build_model


def families() -> dict[str, Any]:
    """The modules of this package that know a family, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(interop.__path__))
    modules = {name: importlib.import_module(f"{interop.__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "plan") and name != "plan"}


def find_plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None, *, where: str) -> Plan:
    """The plan of the family that knows the file.

    A file in float64 makes a float64 model where `jax_enable_x64` is on; else the model is float32.

    Raises:
        WeightsError: no family does, or sizes cannot be told.
    """
    known = families()
    found = (family.plan(tensors, settings) for family in known.values())
    try:
        plan = next((plan for plan in found if plan is not None), None)
    except WeightsError:
        raise
    except (TypeError, ValueError) as error:  # settings that no model can have, said of ours
        raise WeightsError(f"{where}: its sizes or config.json make no model: {error}") from error
    if plan is None:
        first = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise WeightsError(f"{where} holds no model of a known family ({', '.join(known)}); it begins with {first}")
    copies = [copy for copy in plan.rules.copies if copy.key in tensors]
    plan = dataclasses.replace(plan, rules=dataclasses.replace(plan.rules, copies=copies))
    float64 = jax.dtypes.canonicalize_dtype(np.float64)  # float32 unless `jax_enable_x64`
    wide = any(tensor.dtype == float64 == np.float64 for tensor in tensors.values())
    return dataclasses.replace(plan, config=dataclasses.replace(plan.config, dtype="float64")) if wide else plan


def make_module(plan: Plan) -> AnyModel:
    """The plan's model with fresh parameters."""
    return build_model(plan.config, plan.spec, heads=plan.heads, rngs=nnx.Rngs(params=0))


def build(plan: Plan, tensors: Mapping[str, Tensor], *, strict: bool = True, where: str) -> tuple[AnyModel, Account]:
    """The model with the file's numbers.

    Args:
        strict: refuse a file that does not fit whole; else what it lacks stays fresh.

    Raises:
        WeightsError: lists every key that is missing, unknown or of another shape; nothing was read.
    """
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: make_module(plan)))
    leaves, tree = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(abstract))
    paths = [jax.tree_util.keystr(keys, simple=True, separator="/") for keys, _ in leaves]
    shapes = {path: leaf.shape for path, (_, leaf) in zip(paths, leaves, strict=True)}
    arrays, account = read_params(plan.rules, tensors, shapes, strict=strict, fresh=plan.fresh, where=where)
    fresh = by_path(make_module(plan)) if account.fresh else {}
    # One after the other, waiting for each: all copies under way at once would hold the model twice.
    params = [
        jax.block_until_ready(jax.device_put(arrays.pop(path) if path in arrays else fresh[path])) for path in paths
    ]
    return nnx.merge(graphdef, jax.tree.unflatten(tree, params)), account


def read(path: Path, *, strict: bool = True) -> tuple[AnyModel, Plan, Account]:
    """The model in a published folder or file.

    Raises:
        WeightsError: it is damaged, of no known family, or does not fit.
    """
    plan, tensors = _open(path)
    module, account = build(plan, tensors, strict=strict, where=str(path))
    return module, plan, account


def read_plan(path: Path) -> Plan:
    """What model a published folder or file is; no weights are read.

    Raises:
        WeightsError: it is damaged or of no known family.
    """
    return _open(path)[0]


def _open(path: Path) -> tuple[Plan, dict[str, Tensor]]:
    settings = read_settings(path / "config.json" if path.is_dir() else path.with_name("config.json"))
    found = open_tensors(path)
    settings = getattr(found, "settings", None) if settings is None else settings
    tensors = {legacy(key): tensor for key, tensor in found.items()}
    return find_plan(tensors, settings, where=str(path)), tensors


def answer_names(plan: Plan) -> tuple[str, ...]:
    """What the answers of the head that answers are called: `id2label` of config.json, else their numbers."""
    names = plan.settings.get("id2label") or {}
    return tuple(str(names.get(str(i), names.get(i, i))) for i in range(plan.spec.num_answers))


def read_settings(path: Path) -> dict[str, Any] | None:
    """`config.json`, None where there is none."""
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON: {error}") from error
    if not isinstance(settings, dict):
        raise WeightsError(f"{path} holds no settings: expected an object, found {type(settings).__name__}")
    return settings


def save(plan: Plan, module: nnx.Module, folder: str | os.PathLike[str]) -> None:
    """Writes `model.safetensors` and `config.json`.

    Raises:
        WeightsError: the folder cannot be written.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        write_safetensors(place / "model.safetensors", unbuild(plan, module))
        (place / "config.json").write_text(json.dumps(dict(plan.settings), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise WeightsError(f"{place} cannot be written: {error.strerror}") from error


def unbuild(plan: Plan, module: nnx.Module) -> Iterator[tuple[str, np.ndarray]]:
    """Every (key, array) of the plan's file."""
    return write_params(plan.rules, {path: np.asarray(leaf) for path, leaf in by_path(module).items()})


def by_path(module: nnx.Module) -> dict[str, jax.Array]:
    """A module's parameters by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.split(module)[1]))
    return {jax.tree_util.keystr(keys, simple=True, separator="/"): leaf for keys, leaf in leaves}

"""Published models of one modality that objectives learn from: found at the start of a run, then kept with it.

`teachers.json` in the run's folder says what they are, the checkpoints hold their parameters, so that the run goes on
without the folders that they came from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from singlestream.config import Config, ConfigError, build_options
from singlestream.data.published import read_normalisation
from singlestream.model.config import ModelConfig
from singlestream.model.unimodal import Unimodal
from singlestream.objectives import published_models
from singlestream.train.errors import FolderError
from singlestream.train.folder import RunFolder
from singlestream.train.state import take_params
from singlestream.train.weights import Weights

Teachers = dict[str, dict[str, Unimodal]]  # by objective, and by the option that names the folder
FAMILIES = {"bert": "text", "vit": "image"}
# What the run decides: how it computes.
OWN = ("dtype", "layers", "attention")
SECOND_TOKEN = ("distillation_token", "dist_token")  # of DeiT


def read_teachers(config: Config, weights: Weights | None) -> Teachers:
    """What the models in the folders are that `config.objective_options` names.

    Raises:
        FolderError, WeightsError: no such folder, or no BERT, ViT or DeiT; names the option.
    """
    return {
        objective: {
            name: _read_teacher(f"{objective}.{name}", where, config, weights) for name, where in folders.items()
        }
        for objective, folders in published_models(config).items()
    }


def kept_teachers(folder: RunFolder) -> Teachers:
    """Those of a run.

    Raises:
        FolderError: `teachers.json` does not describe models.
    """
    if not folder.teachers.is_file():
        return {}
    try:
        return {
            objective: {name: build_options(Unimodal, model, name) for name, model in models.items()}
            for objective, models in folder.read_json(folder.teachers).items()
        }
    except (AttributeError, TypeError, ConfigError) as error:
        raise FolderError(f"{folder.teachers} does not describe models: {error}") from error


def keep_teachers(folder: RunFolder, teachers: Teachers) -> None:
    """Writes `teachers.json`, where there are some."""
    if not teachers:
        folder.teachers.unlink(missing_ok=True)  # of a start with other settings, of which nothing else is left
        return
    kept = {o: {name: dataclasses.asdict(model) for name, model in models.items()} for o, models in teachers.items()}
    folder.write_json(folder.teachers, kept)


def fill_teachers(state: dict[str, Any], config: Config, weights: Weights | None) -> list[str]:
    """Puts the parameters in their folders into the fresh state of objectives; what was read, in lines."""
    lines = []
    for objective, folders in published_models(config).items():
        for name, where in folders.items():
            path, reader = _found(f"{objective}.{name}", where, weights)
            module, plan, _ = reader.read(path)
            params = dict(reader.by_path(module))
            if FAMILIES[plan.family] == "image":
                params |= _of_run_pixels(params, path)
            state[objective][name], taken, _ = take_params(state[objective][name], params)
            lines.append(f"{objective}.{name} learns from {path} ({plan.family}, {plan.dialect}), {len(taken)} arrays")
    return lines


def text_teachers(config: Config, teachers: Teachers) -> list[tuple[str, str, int]]:
    """Folder, the option that names it, and number of words, of each that reads text."""
    return [
        (where, _named(f"{objective}.{name}", where), teachers[objective][name].vocab_size)
        for objective, folders in published_models(config).items()
        for name, where in folders.items()
        if objective in teachers and teachers[objective][name].reads == "text"
    ]


def _read_teacher(key: str, where: str, config: Config, weights: Weights | None) -> Unimodal:
    path, reader = _found(key, where, weights)
    plan = reader.read_plan(path)
    if plan.family not in FAMILIES:
        raise FolderError(
            f"{_named(key, where)}: this is {plan.family}, which reads both; a BERT, ViT or DeiT is needed"
        )
    if any(constant.key.endswith(SECOND_TOKEN) for constant in plan.rules.constants):
        raise FolderError(
            f"{_named(key, where)}: a DeiT with a distillation token, which has no place here; take one without it"
        )
    if FAMILIES[plan.family] == "image":
        read_normalisation(path)  # says now what it does not like
    return _unimodal(plan, config)


def _unimodal(plan: Any, config: Config) -> Unimodal:
    """What the weights of one modality have, computed as the run's model is."""
    own: dict[str, Any] = {name: getattr(config.model, name) for name in OWN}
    body = plan.config
    assert isinstance(body, ModelConfig)
    body = dataclasses.replace(body, modality="none", pooler=False, **own)
    if FAMILIES[plan.family] == "text":
        body = dataclasses.replace(body, region_dim=1)
        return Unimodal(reads="text", config=body, vocab_size=plan.spec.vocab_size, heads=plan.heads)
    return Unimodal(reads="image", config=dataclasses.replace(body, max_text_length=1, num_token_types=1))


def _found(key: str, where: str, weights: Weights | None) -> tuple[Path, Weights]:
    path = RunFolder.at(where).path
    if not path.exists():
        raise FolderError(f"{_named(key, where)}: no such folder")
    if weights is None or not weights.holds(path):
        raise FolderError(
            f"{_named(key, where)}: no published weights there; the folder of a BERT, ViT or DeiT is needed"
        )
    return path, weights


def _named(key: str, where: str) -> str:
    return f"config.objective_options.{key}={where!r}"


def _of_run_pixels(params: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The stem for pixels x in [-1, 1], as models here read them, where the weights expect ((x + 1) / 2 - mean) / std.

    W ((x + 1) / 2 - mean) / std + b = (W / (2 std)) x + (b + sum W (1 - 2 mean) / (2 std)).
    """
    mean, std = read_normalisation(path)
    stem = "embed/image/stem/project"
    kernel = np.asarray(params[f"{stem}/kernel"])
    scale, shift = (np.tile(each, len(kernel) // 3)[:, None] for each in (0.5 / std, (0.5 - mean) / std))
    return {
        f"{stem}/kernel": (kernel * scale).astype(kernel.dtype),
        f"{stem}/bias": (params[f"{stem}/bias"] + (kernel * shift).sum(0)).astype(kernel.dtype),
    }

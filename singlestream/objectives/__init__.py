"""What a model is trained for: one file an objective, found by its name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from singlestream.batch import Spec
from singlestream.config import Config, ConfigError, build_options
from singlestream.model.unimodal import Unimodal
from singlestream.objectives.base import Objective

_NOT_OBJECTIVES = ("base", "total")


def objective_names() -> list[str]:
    """The names that `config.objectives` may hold: the files of this folder."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if name not in _NOT_OBJECTIVES)


def build_objectives(
    config: Config, spec: Spec, models: Mapping[str, Mapping[str, Unimodal]] | None = None
) -> dict[str, Objective]:
    """The objectives of a run whose weight is above 0, by name.

    Args:
        models: what the models in `published_models` are.

    Raises:
        ConfigError: an unknown objective or option, with the valid ones; an objective that this data cannot serve.
    """
    objectives = _make_objectives(config)
    for name, objective in objectives.items():
        objective.models = (models or {}).get(name, {})
        _check_others(name, objective, config)
        try:
            objective.heads(config.model, spec)
        except ValueError as error:
            raise ConfigError(f"config.objectives.{name}: {error}") from error
    return objectives


def published_models(config: Config) -> dict[str, dict[str, str]]:
    """Folders of the published models that objectives of a run read, by objective and name (`Objective.published`).

    Raises:
        ConfigError: as `build_objectives`, of names and options.
    """
    found = {name: objective.published() for name, objective in _make_objectives(config).items()}
    return {name: folders for name, folders in found.items() if folders}


def _make_objectives(config: Config) -> dict[str, Objective]:
    objectives = {}
    for name, weight in sorted(config.objectives.items()):
        if name not in objective_names():
            raise ConfigError(f"config.objectives.{name}: no such objective; there are {', '.join(objective_names())}")
        if weight == 0:
            continue
        module = importlib.import_module(f"{__name__}.{name}")
        values: Mapping[str, object] = config.objective_options.get(name, {})
        objectives[name] = module.Objective(build_options(module.Options, values, f"config.objective_options.{name}"))
    return objectives


def _check_others(name: str, objective: Objective, config: Config) -> None:
    objective.check(config)
    train = config.train
    for other in objective.needs:
        if not config.objectives.get(other, 0) > 0:
            raise ConfigError(f"config.objectives.{name} needs config.objectives.{other} above 0, too")
    if objective.needs and train.one_objective:
        raise ConfigError(
            f"config.objectives.{name} needs config.objectives.{objective.needs[0]} in the same step: "
            "config.train.one_objective must be False"
        )
    if objective.needs_average and not train.ema_decay > 0:
        raise ConfigError(
            f"config.objectives.{name} needs a moving average of the parameters as its teacher: set "
            "config.train.ema_decay (ALBEF: 0.995)"
        )
    if objective.needs_others and config.model.inputs.audio_dim:
        raise ConfigError(
            f"config.objectives.{name} takes other pictures as negatives, and would leave each with the first one's "
            f"sound: it does not go with config.model.audio_dim={config.model.inputs.audio_dim}"
        )
    # A packed row holds others itself.
    if objective.needs_others and train.batch_size == train.accumulate and config.data.examples_per_row == 1:
        raise ConfigError(
            f"config.objectives.{name} needs other rows to take negatives from: with config.train.batch_size="
            f"{train.batch_size} and config.train.accumulate={train.accumulate} each part has one row"
        )

"""Pictures made once for all tests of a session; runs on one device, with programs compiled once for a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from singlestream import evaluate
from singlestream.config import Config
from singlestream.train import loop
from singlestream.train.build import Run
from singlestream.train.sharding import make_mesh

# What the loop calls to trace and to compile: functions of a run's settings and data alone.
COMPILING = (
    *("split_model", "place_init", "make_train_step", "make_eval_step"),
    *("compile_train_step", "compile_eval_step"),
)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that all workers of a parallel run share; the first to come makes the pictures."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if base.name.startswith("popen-") else base) / "scenes"


@pytest.fixture(scope="module")
def one_device() -> Iterator[None]:
    """Of the eight that the tests have: what several do is tested on steps, and compiles twice as long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
        yield


@pytest.fixture(scope="module")
def compiled_once() -> Iterator[None]:
    """A run that goes on, or begins again, with all that makes its programs equal computes with those of its start.

    That a new process compiles the same is asked by `test_kill.py`.
    """
    made: dict[tuple[str, str], Any] = {}
    build_run, settings = loop.build_run, ""

    def building(config: Config, *args: Any) -> Run:
        nonlocal settings
        run = build_run(config, *args)
        teachers = {name: objective.models for name, objective in run.objectives.items()}
        settings = f"{config.to_json()} {run.spec} {run.heads} {teachers}"
        return run

    def once(name: str) -> Callable[..., Any]:
        make = getattr(loop, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if (name, settings) not in made:
                made[name, settings] = make(*args, **kwargs)
            return made[name, settings]

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "build_run", building)
        for name in COMPILING:
            patch.setattr(loop, name, once(name))
        yield


@pytest.fixture(scope="module")
def evaluation_compiled_once() -> Iterator[None]:
    """Evaluations of a run, or of two with equal settings, trace each of their functions once."""
    keys: dict[str, Callable[..., Any]] = {
        "make_eval_step": lambda graphdef, objectives, config, spec: (graphdef, config.to_json(), repr(spec)),
        "_answers_fn": lambda graphdef, config, count: (graphdef, config.to_json(), count),
        "_count_fn": lambda model: (model.graphdef, repr(model.spec)),
    }
    made: dict[tuple[Any, ...], Any] = {}

    def once(name: str, key_of: Callable[..., Any]) -> Callable[..., Any]:
        make = getattr(evaluate, name)

        def call(*args: Any) -> Any:
            key = (name, *key_of(*args))
            if key not in made:
                made[key] = make(*args)
            return made[key]

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name, key_of in keys.items():
            patch.setattr(evaluate, name, once(name, key_of))
        yield

"""The smallest run that is one: forty generated pictures, a model of a few thousand weights, eight rows a step."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from singlestream.config import Config, DataConfig, ModelConfig, TrainConfig
from singlestream.train import loop

OPTIONS = {"train_scenes": 24, "validation_scenes": 8, "test_scenes": 4, "composition_scenes": 4}


def toy_config(folder: Path | str, *, model: dict[str, Any] | None = None, **train: Any) -> Config:
    """A run's settings; `folder` is where its pictures lie, `train` changes `config.train`."""
    sizes = dict(width=16, num_layers=2, num_heads=2, mlp_dim=32, patch_size=16, image_grid=(3, 3), direction="prefix")
    defaults = dict(
        num_steps=8,
        batch_size=8,
        warmup_steps=2,
        log_every=2,
        eval_every=4,
        eval_batches=1,
        checkpoint_every=2,
        cache_dir=jax.config.jax_compilation_cache_dir or "none",
        huge_pages=False,
    )
    return Config(
        data=DataConfig(
            dir=str(folder), options=OPTIONS, vocab_size=120, text_length=16, max_patches=9, texts_per_row=2
        ),
        model=ModelConfig(**{**sizes, **(model or {})}),
        train=TrainConfig(**{**defaults, **train}),
    )


def with_train(config: Config, **changes: Any) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))


def config_file(config: Config, path: Path) -> str:
    """Writes a file for `--config`."""
    path.write_text(
        "from singlestream.config import Config\n\n\n"
        f"def get_config():\n    return Config.from_json({config.to_json()!r}).to_config_dict()\n"
    )
    return f"--config={path}"


@contextlib.contextmanager
def stopped_at(at: int) -> Iterator[None]:
    """Within it a run is asked to stop after so many steps, as by SIGTERM."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Stop, "asked", lambda self, step: step == at and setattr(self, "signal", 15) is None)
        yield


@contextlib.contextmanager
def power_cut(at: int) -> Iterator[None]:
    """Within it a run ends with a RuntimeError where it would read the batch that follows so many."""
    put_rows, calls = loop.put_rows, []

    def failing(batch: Any, mesh: Any) -> Any:
        calls.append(1)
        if len(calls) > at:
            raise RuntimeError("power cut")
        return put_rows(batch, mesh)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(loop, "put_rows", failing)
        yield

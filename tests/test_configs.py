"""Every shipped config builds, says what it claims, and makes the model that its golden file describes.

python -m tests.test_configs        # writes the golden files anew, after a change that is meant
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import Batch, Patches, Spec, Text, make_batch
from singlestream.config import Config
from singlestream.model.single_stream import SingleStream
from singlestream.objectives import build_objectives

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
ROWS = 2


def read(name: str) -> Config:
    return Config.from_config_dict(importlib.import_module(f"configs.{name}").get_config())


def spec_of(config: Config) -> Spec:
    """What the data would fix: the vocabulary as large as it may be, some answers, some classes of regions."""
    return Spec(vocab_size=config.data.vocab_size, num_answers=30, region_classes=(8, 6, 2))


def batch_of(config: Config) -> Batch:
    """A batch of the shapes that the config's pipeline makes, of zeros."""
    num_texts = config.data.texts_per_row * config.data.examples_per_row
    text = (ROWS, num_texts * config.data.text_length)
    image = (ROWS, config.data.max_patches * config.model.num_images * config.data.examples_per_row)
    number = np.repeat(np.arange(num_texts, dtype=np.int32), config.data.text_length) + 1
    place = np.zeros((*image, 2), np.int32)
    shared = config.data.texts_per_row > 1
    return make_batch(
        text=Text(
            ids=np.zeros(text, np.int32),
            segments=np.broadcast_to(np.ones_like(number) if shared else number, text),
            part=np.broadcast_to(number if shared else np.zeros_like(number), text),
        ),
        image=Patches(pixels=np.zeros((*image, 3 * config.model.window**2), np.uint8), yx=place, grid=place + 1),
    )


def describe(name: str) -> dict[str, Any]:
    """Parameter count of a config's model, and the shapes that it returns for its own rows."""
    config = read(name)
    spec, heads = spec_of(config), {}
    for objective in build_objectives(config, spec).values():
        heads.update(objective.heads(config.model, spec))
    model = nnx.eval_shape(lambda: SingleStream(config.model, spec, heads=heads, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)

    def run(state: Any, batch: Batch) -> dict[str, Any]:
        model = nnx.merge(graphdef, state)
        encoded = model(batch)
        return {
            "text": encoded.text,
            "image": encoded.image,
            "pooled": encoded.pooled,
            **{f"heads.{head}": model.heads[head](encoded) for head in heads},
        }

    shapes = jax.eval_shape(run, state, batch_of(config))
    return {
        "parameters": sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state)),
        "shapes": {key: f"{value.dtype}{list(value.shape)}" for key, value in sorted(shapes.items())},
    }


@pytest.mark.parametrize("name", NAMES)
def test_model_is_the_one_in_the_golden_file(name):
    golden = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert describe(name) == golden, "where the change is meant: python -m tests.test_configs"


@pytest.mark.parametrize("name", NAMES)
def test_config_survives_the_run_folder(name):
    config = read(name)
    assert Config.from_json(config.to_json()) == config
    assert dataclasses.replace(config, seed=1) != config


@pytest.mark.parametrize("name", NAMES)
def test_docstring_says_how_to_run_it_and_what_to_expect(name):
    text = ast.get_docstring(ast.parse((ROOT / "configs" / f"{name}.py").read_text(encoding="utf-8"))) or ""
    assert f"python train.py --config=configs/{name}.py --workdir=runs/" in text
    assert "python eval.py --workdir=runs/" in text
    for part in ("Claim:", "Command", "Expected:"):
        assert part in text, f"the docstring of configs/{name}.py has no {part!r}"


def test_no_golden_file_is_left_behind():
    assert sorted(path.stem for path in GOLDEN.glob("*.json")) == NAMES


if __name__ == "__main__":
    for config_name in NAMES:
        text = json.dumps(describe(config_name), indent=2) + "\n"
        (GOLDEN / f"{config_name}.json").write_text(text, encoding="utf-8")
        print(f"wrote tests/golden/{config_name}.json")

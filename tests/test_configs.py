"""Every shipped config builds, says what it claims, and makes the model that its golden file describes.

python -m tests.test_configs        # writes the golden files anew, after a change that is meant
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import Audio, Batch, Patches, Regions, Spec, Text, make_batch
from singlestream.config import Config
from singlestream.model.build import build_model
from singlestream.model.heads import every_logits
from singlestream.objectives import build_objectives

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).parent / "golden"
FILES = sorted((ROOT / "configs").glob("*.py"))
ROWS = 2


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def variants(path: Path) -> list[str]:
    """A config by its name, and `name:variant` for each variant that its docstring shows."""
    found = re.findall(rf"configs/{path.stem}\.py:(\w+)", docstring(path))
    return [path.stem, *(f"{path.stem}:{variant}" for variant in sorted(set(found)))]


NAMES = [name for path in FILES for name in variants(path)]


def read(name: str) -> Config:
    module, _, variant = name.partition(":")
    get_config = importlib.import_module(f"configs.{module}").get_config
    return Config.from_config_dict(get_config(variant) if variant else get_config())


def spec_of(config: Config) -> Spec:
    """What the data would fix: the vocabulary as large as it may be, some answers, some classes of regions."""
    num_answers = 2 if "choose" in config.objectives else 30
    return Spec(vocab_size=config.data.vocab_size, num_answers=num_answers, region_classes=(8, 6, 2))


def batch_of(config: Config) -> Batch:
    """A batch of the shapes that the config's pipeline makes, of zeros."""
    num_texts = config.data.texts_per_row * config.data.examples_per_row * config.data.apart
    text = (ROWS, num_texts * config.data.text_length)
    reads = config.model.inputs
    num_pictures = max(reads.num_images, config.data.apart) * config.data.examples_per_row
    image = (ROWS, config.data.max_patches * num_pictures)
    number = np.repeat(np.arange(num_texts, dtype=np.int32), config.data.text_length) + 1
    place = np.zeros((*image, 2), np.int32)
    shared = config.data.texts_per_row > 1
    if reads.image_stem == "regions":
        found: Patches | Regions = Regions(features=np.zeros((*image, reads.region_dim), np.float32))
    else:
        pixels = np.zeros((*image, 3 * reads.window**2), np.uint8)
        found = Patches(pixels=pixels, yx=place, grid=place + 1)
    sound = (ROWS, config.data.max_audio * config.data.examples_per_row, reads.audio_dim)
    return make_batch(
        audio=Audio(features=np.zeros(sound, np.float32)) if reads.audio_dim else None,
        text=Text(
            ids=np.zeros(text, np.int32),
            segments=np.broadcast_to(np.ones_like(number) if shared else number, text),
            part=np.broadcast_to(number if shared else np.zeros_like(number), text),
        ),
        image=found,
    )


def describe(name: str) -> dict[str, Any]:
    """Parameter count of a config's model, and the shapes that it returns for its own rows."""
    config = read(name)
    spec, heads = spec_of(config), {}
    for objective in build_objectives(config, spec).values():
        heads.update(objective.heads(config.model, spec))
    model = nnx.eval_shape(lambda: build_model(config.model, spec, heads=heads, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)

    def run(state: Any, batch: Batch) -> dict[str, Any]:
        encoded, logits = every_logits(nnx.merge(graphdef, state), batch)
        return {
            "text": encoded.text,
            "image": encoded.image,
            "pooled": encoded.pooled,
            **{f"heads.{head}": value for head, value in logits.items()},
        }

    shapes = jax.eval_shape(run, state, batch_of(config))
    return {
        "parameters": sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state)),
        "shapes": {key: f"{value.dtype}{list(value.shape)}" for key, value in sorted(shapes.items())},
    }


@pytest.mark.parametrize("name", NAMES)
def test_model_is_the_one_in_the_golden_file(name):
    golden = json.loads((GOLDEN / f"{name.partition(':')[0]}.json").read_text(encoding="utf-8"))
    assert describe(name) == golden[name], "where the change is meant: python -m tests.test_configs"


@pytest.mark.parametrize("name", NAMES)
def test_config_survives_the_run_folder(name):
    config = read(name)
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_docstring_says_how_to_run_it_and_what_to_expect(path):
    text = docstring(path)
    assert f"python train.py --config=configs/{path.name} --workdir=runs/" in text
    assert "python eval.py --workdir=runs/" in text
    for part in ("Claim:", "Command", "Hardware:", "Expected:"):
        assert part in text, f"the docstring of configs/{path.name} has no {part!r}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_unknown_variants_are_refused(path):
    module = importlib.import_module(f"configs.{path.stem}")
    if inspect.signature(module.get_config).parameters:
        with pytest.raises(ValueError, match=path.name):
            module.get_config("nosuchvariant")


def test_no_golden_file_is_left_behind():
    assert sorted(path.stem for path in GOLDEN.glob("*.json")) == [path.stem for path in FILES]


if __name__ == "__main__":
    for config_file in FILES:
        described = {name: describe(name) for name in variants(config_file)}
        golden_file = GOLDEN / f"{config_file.stem}.json"
        golden_file.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        print(f"wrote tests/golden/{golden_file.name}")

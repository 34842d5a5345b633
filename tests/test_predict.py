"""Pictures and questions in, answers out; and what of the package is public."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import singlestream as ss
from singlestream.config import Config, DataConfig, ModelConfig
from singlestream.data.text import Tokenizer
from singlestream.predict import MAX_ROWS

QUESTIONS = ["what colour is it?", "is it red?", "how many are there?"]
ANSWERS = ("blue", "no", "red", "yes")


@pytest.fixture(scope="module")
def model() -> ss.Model:
    """A model of random weights with a vocabulary of its own; two pictures an example where asked for."""
    sizes = dict(width=16, num_layers=2, num_heads=2, mlp_dim=32, patch_size=8, image_grid=(2, 2), num_images=2)
    config = Config(data=DataConfig(text_length=12, max_patches=6), model=ModelConfig(**sizes))
    processor = ss.Processor(
        data=config.data, model=config.model, tokenizer=Tokenizer.train(QUESTIONS, 80), answers=ANSWERS
    )
    heads = {"vqa": ss.HeadConfig(kind="classifier", size=len(ANSWERS))}

    @jax.jit  # one program instead of one for each initialiser
    def init() -> nnx.State:
        return nnx.state(make())

    def make() -> ss.SingleStream:
        return ss.SingleStream(config.model, processor.spec, heads=heads, rngs=nnx.Rngs(params=0))

    module = nnx.merge(nnx.graphdef(nnx.eval_shape(make)), init())
    return ss.Model(module=module, processor=processor, config=config, step=7)


def picture(seed: int, height: int = 16, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def same(a: ss.Prediction, b: ss.Prediction) -> None:
    assert a.answer == b.answer
    assert a.probabilities == pytest.approx(b.probabilities, abs=1e-6)


def test_one_prediction(model):
    found = model.predict(picture(0), QUESTIONS[0])
    assert set(found.probabilities) == set(ANSWERS)
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-5)
    values = list(found.probabilities.values())
    assert values == sorted(values, reverse=True)
    assert (found.answer, found.probability) == next(iter(found.probabilities.items()))


def test_a_path_a_pil_image_and_an_array_are_the_same_picture(model, tmp_path):
    array = picture(1)
    Image.fromarray(array).save(tmp_path / "a.png")
    wanted = model.predict(array, QUESTIONS[1])
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(array), array / 255.0):
        same(model.predict(image, QUESTIONS[1]), wanted)


def test_many_answers_are_those_of_each_alone(model):
    images = [picture(i, 8 + 8 * (i % 2), 16) for i in range(3)]
    found = model.predict(images, QUESTIONS)
    for image, text, each in zip(images, QUESTIONS, found, strict=True):
        same(each, model.predict(image, text))
    for text, each in zip(QUESTIONS, model.predict(images[0], QUESTIONS), strict=True):
        same(each, model.predict(images[0], text))
    for image, each in zip(images, model.predict(images, QUESTIONS[0]), strict=True):
        same(each, model.predict(image, QUESTIONS[0]))
    assert model.predict([images[0]], [QUESTIONS[0]])[0].answer == model.predict(images[0], QUESTIONS[0]).answer
    assert model.predict([], []) == model.predict(images[0], []) == model.predict([], QUESTIONS[0]) == []


def test_a_long_list_goes_in_several_batches_of_few_sizes(model):
    found = model.predict(picture(2), [QUESTIONS[i % 3] for i in range(MAX_ROWS + 3)])
    assert len(found) == MAX_ROWS + 3
    same(found[-1], found[(MAX_ROWS + 2) % 3])


def test_a_tuple_holds_the_pictures_of_one_example(model):
    pair = (picture(3, 8, 16), picture(4, 8, 16))
    found = model.predict(pair, QUESTIONS[0])
    assert isinstance(found, ss.Prediction)
    assert found != model.predict(pair[::-1], QUESTIONS[0])
    same(model.predict([pair, pair[::-1]], QUESTIONS[0])[0], found)


def test_a_question_that_is_cut_gets_a_warning(model):
    long = "is it red? " * 3
    with pytest.warns(UserWarning, match="'is it red. is it red. .*' is longer than 12 tokens, its end was") as told:
        model.predict(picture(0), [long, QUESTIONS[0], long])
    assert len(told) == 1


def test_what_predict_refuses(model, tmp_path):
    with pytest.raises(ss.DataError, match="2 images and 3 texts"):
        model.predict([picture(0), picture(1)], QUESTIONS)
    with pytest.raises(ss.DataError, match="nothing.png: no such image file"):
        model.predict(tmp_path / "nothing.png", QUESTIONS[0])
    with pytest.raises(ss.DataError, match="empty"):
        model.predict(picture(0), "  ")


def test_a_batch_gives_states_attention_and_logits(model):
    """`model(batch)` and a head are what `predict` is made of."""
    batch = model.processor.batch_of([picture(5)], [QUESTIONS[0]])
    out = model(batch, attention=True)
    length = out.text.shape[1] + out.image.shape[1]
    assert out.attention["self"].shape == (2, 1, 2, length, length)
    assert model(batch).attention is None
    logits = model.heads["vqa"](out)
    probabilities = np.asarray(jax.nn.softmax(logits))[0, 0]
    wanted = model.predict(picture(5), QUESTIONS[0]).probabilities
    assert dict(zip(ANSWERS, probabilities.tolist(), strict=True)) == pytest.approx(wanted, abs=1e-5)
    assert model.num_parameters == sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model.module)))


def test_parameters_travel_to_the_device_once(model):
    """A checkpoint is read as numpy arrays, and those would travel with every call."""
    read = nnx.merge(model.graphdef, jax.tree.map(np.asarray, model.params))
    again = ss.Model(module=read, processor=model.processor, config=model.config, step=7)
    for kept in (again.params, nnx.state(again.module)):
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(kept))


def test_a_batch_out_of_range_is_refused(model):
    """`model(batch)` is compiled, so it checks before."""
    batch = model.processor.batch_of([picture(5)], [QUESTIONS[0]])
    text = dataclasses.replace(batch.text, positions=batch.text.positions + 60)
    with pytest.raises(ss.BatchError, match="text.positions holds 60 to "):
        model(batch.replace(text=text))


def test_every_public_name_is_there():
    for name in ss.__all__:
        assert getattr(ss, name).__name__ in (name, "patchify_batch")
    assert set(ss.__all__) <= set(dir(ss))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ss.nothing


def test_the_names_for_type_checkers_are_those_of_the_interpreter():
    import ast
    import inspect

    tree = ast.parse(inspect.getsource(ss))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    homes = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == {name: f"singlestream.{home}" for name, home in ss._HOMES.items()}


def test_the_import_does_not_wait_for_jax():
    code = "import sys, singlestream; assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

"""A question a row for tiny models of one and of two streams, and what every instrument says, compiled once."""

from __future__ import annotations

import functools

import jax
import numpy as np
from flax import nnx

from singlestream.batch import Patches, Text, make_batch
from singlestream.explain.embedded import way
from singlestream.explain.instruments import explain, instrument_names
from singlestream.explain.layers import attention_and_gradient
from singlestream.explain.question import Question, answer_logit
from tests.model import test_two_stream, toy
from tests.model.test_two_stream import PAIRED, SHARED

CONFIG = toy.replace(toy.CONFIG, num_images=1)
MODELS = {"one": CONFIG, "shared": SHARED, "paired": PAIRED}
# What is not asked of two streams, which it treats as it treats one. On the way of integrated gradients `paired` has
# the kinks of ReLU (ViLBERT's pooling), where completeness holds to one part in `steps` alone.
LEFT_OUT = {
    "one": (),
    "shared": ("gradient_input", "occlusion"),
    "paired": ("gradient_input", "integrated_gradients", "occlusion"),
}


def model_of(name: str):
    return toy.toy_model(CONFIG) if name == "one" else test_two_stream.toy_model(MODELS[name])


def question(name: str, batch=None) -> Question:
    """Two rows, the second of fewer words and image tokens."""
    spec = toy.SPEC if name == "one" else test_two_stream.SPEC
    batch = batch or (one_stream_batch() if name == "one" else two_stream_batch())
    return Question(batch=batch, target=np.array([2, 5], np.int32), head="vqa", spec=spec)


def one_stream_batch(seed: int = 0, padding: int = 7):
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, 40, (2, 6)).astype(np.int32)
    pixels = rng.integers(0, 256, (2, 6, 48)).astype(np.uint8)
    ids[1, 4:], pixels[1, 3:] = padding, 10 * padding
    yx = np.stack(np.meshgrid(range(2), range(3), indexing="ij"), -1).reshape(1, 6, 2).repeat(2, 0).astype(np.int32)
    grid = np.broadcast_to(np.array([2, 3], np.int32), yx.shape)
    seen = np.array([[1] * 6, [1, 1, 1, 0, 0, 0]], np.int32)
    text = Text(ids=ids, segments=np.array([[1] * 6, [1, 1, 1, 1, 0, 0]], np.int32))
    return make_batch(text=text, image=Patches(pixels=pixels, yx=yx, grid=grid, segments=seen))


def two_stream_batch():
    examples = [test_two_stream.example(0, 5, 4), test_two_stream.example(1, 3, 2)]
    return test_two_stream.pack(examples, 2, 1, [(0, 0), (1, 0)])


@functools.cache
def _compiled(name: str, function, *options):
    """`function(model, ...)` with a model's parameters, compiled once."""
    graph, params = nnx.split(model_of(name))
    return functools.partial(jax.jit(lambda params, *args: function(nnx.merge(graph, params), *options, *args)), params)


def _everything(model, names, asked):
    said = {each: explain(each, model, asked) for each in names}
    return said | {"one head": explain("attention", model, asked, layer=0, head=1)}, attention_and_gradient(
        model, asked
    )


def _along(model, asked, share):
    full, empty, answers = way(model, asked)
    return answers(jax.tree.map(lambda x, start: start + share * (x - start), full, empty))


def _forward(model, asked):
    encoded = model(asked.batch)
    return answer_logit(model, asked, encoded), encoded.text


def everything(name: str, asked: Question | None = None):
    """What each instrument says by name, but those of `LEFT_OUT`; the attention weights and their gradient."""
    names = tuple(each for each in instrument_names() if each not in LEFT_OUT[name])
    return jax.device_get(_compiled(name, _everything, names)(asked or question(name)))


def along(name: str, share: float) -> np.ndarray:
    """The answers' logits on the way from the blank batch, 0, to the question's, 1."""
    return np.asarray(_compiled(name, _along)(question(name), share))


def forward(asked: Question) -> tuple[np.ndarray, np.ndarray]:
    """The answers' logits of one stream, and the states of its words."""
    return jax.device_get(_compiled("one", _forward)(asked))

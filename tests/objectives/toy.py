"""What tests of objectives share: a model that says what it is told, one loss at a time, the references' arithmetic."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from singlestream.batch import Batch, Encoded
from singlestream.config import Config, DataConfig, ModelConfig, TrainConfig
from singlestream.model.build import build_model
from singlestream.objectives import build_objectives
from singlestream.objectives.total import total_loss
from tests.model import toy
from tests.model.toy import SPEC

KEY = jax.random.key(0)
MODEL = ModelConfig(direction="prefix", num_layers=3)


def build(objectives, *, model=MODEL, spec=SPEC, ema_decay=0.0, data=None, **options):
    """The objectives of a run with these weights and options; `data` changes `config.data`."""
    train = TrainConfig(ema_decay=ema_decay)
    data = DataConfig(**{"text_length": 12, **(data or {})})
    config = Config(objectives=objectives, objective_options=options, model=model, train=train, data=data)
    return build_objectives(config, spec)


class FakeModel:
    """Returns given logits, and states, whatever it reads; counts how often it was called."""

    def __init__(self, *, text=None, image=None, **logits):
        self.calls = []
        arrays = {name: jnp.asarray(value) for name, value in logits.items()}
        self.heads = {name: (lambda encoded, value=value: value) for name, value in arrays.items()}
        self.text, self.image = text, image

    def __call__(self, batch: Batch, *, key=None) -> Encoded:
        self.calls.append((batch, key))
        none = np.zeros((len(batch.picture), 1, 1), np.float32)
        text, image = (none if states is None else states for states in (self.text, self.image))
        return Encoded(text=text, image=image, pooled=none)


def run(objectives, batch, model, *, state=None, train=False, teacher=None):
    """(sum, count) of each metric as numbers, and the new state."""
    state = {name: objective.init_state(SPEC) for name, objective in objectives.items()} if state is None else state
    fakes = [fake for fake in (model, teacher) if isinstance(fake, FakeModel)]
    before = [fake.calls for fake in fakes]

    @jax.jit  # eagerly, each operation would be compiled by itself
    def losses(state, batch):
        for fake in fakes:
            fake.calls = []
        metrics, state = total_loss(model, objectives, batch, SPEC, KEY, state, train=train, teacher=teacher)
        return metrics, state, [fake.calls for fake in fakes]

    metrics, state, calls = losses(state, batch)
    for fake, old, new in zip(fakes, before, calls, strict=True):
        fake.calls = old + [(jax.tree.map(np.asarray, read), key) for read, key in new]
    return {name: (float(total), float(count)) for name, (total, count) in metrics.items()}, state


def drawn(model, heads, *, spec=SPEC, seed=0):
    """The graph of the model that settings describe, and its parameters, in numpy."""
    return toy.drawn(lambda: build_model(model, spec, heads=heads, rngs=nnx.Rngs(0)), seed=seed)


def check_slope(loss, params):
    """The gradient of `loss`, in float64 along a random direction, against central differences."""
    step, rng = 1e-6, np.random.default_rng(0)
    way = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
    value_and_grad = jax.jit(jax.value_and_grad(loss))
    moved = (jax.tree.map(lambda p, w, by=by: p + by * w, params, way) for by in (step, -step))
    up, down = (float(value_and_grad(each)[0]) for each in moved)
    gradient = jax.device_get(value_and_grad(params)[1])
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, w: float((g * w).sum()), gradient, way)))
    np.testing.assert_allclose(along, (up - down) / (2 * step), rtol=1e-6)


def log_softmax(logits):
    """In float64, whatever it is given."""
    logits = np.asarray(logits, np.float64)
    top = logits.max(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)

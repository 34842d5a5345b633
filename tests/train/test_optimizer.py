"""Schedules as numbers, and what applies to which parameter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from singlestream.config import ConfigError, GroupConfig, TrainConfig
from singlestream.train.optimizer import make_optimizer, make_schedule, trainable

PARAMS = {
    "embed": {"embedding": jnp.ones((5, 4))},
    "encoder": {"blocks": {"mlp": {"kernel": jnp.ones((2, 4, 6)), "bias": jnp.ones((2, 6))}}},
    "heads": {"vqa": {"kernel": jnp.ones((4, 3))}},
}
ZEROS = jax.tree.map(jnp.zeros_like, PARAMS)


def updates(config: TrainConfig, grads=ZEROS, params=PARAMS):
    optimizer = make_optimizer(config, params)
    return jax.jit(lambda: optimizer.update(grads, optimizer.init(params), params)[0])()


def constant(**changes) -> TrainConfig:
    return TrainConfig(**{"schedule": "constant", "warmup_steps": 0, "clip_norm": 0.0, **changes})


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", [5, 10, 10, 10, 10]), ("linear", [5, 10, 7.75, 5.5, 1]), ("cosine", [5, 10, 8.682, 5.5, 1])],
)
def test_schedules(schedule, rates):
    config = TrainConfig(num_steps=6, warmup_steps=2, schedule=schedule, final_rate=0.1)
    found = [float(make_schedule(config, 10.0)(jnp.int32(step))) for step in (0, 1, 3, 4, 6)]
    np.testing.assert_allclose(found, rates, atol=1e-3)


def test_decay_takes_kernels_and_nothing_else():
    """A stacked bias [layers, features] is a matrix by its rank; it must not decay."""
    found = updates(constant(learning_rate=0.5, weight_decay=0.1))
    np.testing.assert_allclose(found["encoder"]["blocks"]["mlp"]["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_allclose(found["heads"]["vqa"]["kernel"], -0.05, rtol=1e-6)
    assert not np.any(found["encoder"]["blocks"]["mlp"]["bias"]) and not np.any(found["embed"]["embedding"])


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "muon"])
def test_groups(optimizer):
    groups = (
        GroupConfig(pattern="^embed", frozen=True),
        GroupConfig(pattern="bias$", rate=0.5),
        GroupConfig(pattern="^heads", decay=3.0),
        GroupConfig(pattern="vqa", rate=100.0),  # too late: the group before has it
    )
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    plain = updates(constant(optimizer=optimizer, weight_decay=0.0), ones)
    found = updates(constant(optimizer=optimizer, weight_decay=0.1, groups=groups), ones)
    assert not np.any(found["embed"]["embedding"])
    np.testing.assert_allclose(
        found["encoder"]["blocks"]["mlp"]["bias"], 0.5 * plain["encoder"]["blocks"]["mlp"]["bias"], rtol=1e-5
    )
    np.testing.assert_allclose(found["heads"]["vqa"]["kernel"], plain["heads"]["vqa"]["kernel"] - 0.3e-3, rtol=1e-5)


def test_what_is_frozen_has_no_moments_and_does_not_count_in_the_norm():
    config = constant(groups=(GroupConfig(pattern="^embed", frozen=True),))
    state = make_optimizer(config, PARAMS).init(PARAMS)
    assert not [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (5, 4)]
    assert trainable(PARAMS, config)["embed"]["embedding"] is False
    # So small that Adam's epsilon shows in the update: what clipping scales down moves less.
    grads = {**jax.tree.map(lambda p: 1e-9 * p, PARAMS), "embed": {"embedding": 1e9 * PARAMS["embed"]["embedding"]}}
    kernels = [
        updates(constant(groups=groups, clip_norm=norm, weight_decay=0.0), grads)["heads"]["vqa"]["kernel"]
        for groups, norm in ((config.groups, 1.0), (config.groups, 0.0), ((), 1.0))
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.all(np.abs(kernels[2]) < np.abs(kernels[0]) / 1000)


def test_muon_takes_each_matrix_of_a_stack_by_itself():
    """[layers, inputs, outputs] and attention's [layers, inputs, 3, outputs], against Muon of one matrix."""
    keys = jax.random.split(jax.random.key(0), 2)
    grads = {
        "blocks": {
            "up": {"kernel": jax.random.normal(keys[0], (2, 4, 6))},
            "attention": {"kernel": jax.random.normal(keys[1], (2, 4, 3, 4))},
        }
    }
    params = jax.tree.map(jnp.ones_like, grads)
    found = updates(constant(optimizer="muon", muon_learning_rate=0.1, weight_decay=0.0), grads, params)["blocks"]
    muon = optax.contrib.muon(0.1)
    for name, at in (("up", (1,)), ("attention", (1, slice(None), 2))):
        single = {"kernel": grads["blocks"][name]["kernel"][at]}
        expected = jax.jit(lambda single=single: muon.update(single, muon.init(single), single)[0])()
        np.testing.assert_allclose(found[name]["kernel"][at], expected["kernel"], rtol=1e-4, atol=1e-6)


def test_muon_leaves_the_rest_to_adam():
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    adam = updates(constant(optimizer="adamw"), ones)
    muon = updates(constant(optimizer="muon"), ones)
    for room in ("embed", "heads"):
        jax.tree.map(np.testing.assert_array_equal, muon[room], adam[room])
    mlp = [tree["encoder"]["blocks"]["mlp"] for tree in (muon, adam)]
    np.testing.assert_array_equal(mlp[0]["bias"], mlp[1]["bias"])
    assert not np.allclose(mlp[0]["kernel"], mlp[1]["kernel"])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("nosuch", r"groups\[0\].pattern='nosuch' finds no parameter; .*embed/embedding"), ("(", "no regular expression")],
)
def test_a_group_of_nothing_is_refused(pattern, message):
    with pytest.raises(ConfigError, match=message):
        make_optimizer(constant(groups=(GroupConfig(pattern=pattern),)), PARAMS)

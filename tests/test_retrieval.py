"""Retrieval in two stages against scoring every pair, and going on after an end in the middle."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import singlestream as ss
from singlestream import gallery, retrieval
from singlestream.data.sources import open_split
from singlestream.evaluate import evaluate
from singlestream.ranking import first_stage, recall, reranked
from singlestream.train import loop
from singlestream.train.sharding import make_mesh
from tests.train.conftest import scenes  # noqa: F401  (a fixture)
from tests.train.toy import toy_config


def test_ranks_by_sorting_everything(monkeypatch):
    monkeypatch.setattr("singlestream.ranking._CELLS", 40)  # several blocks
    rng = np.random.default_rng(0)
    queries, items = rng.normal(size=(9, 4)), rng.normal(size=(12, 4))
    own = [np.array([i, 11]) for i in range(9)]
    best, ranks = first_stage(queries, items, own, 5)
    order = np.argsort(-(queries @ items.T), axis=1)
    np.testing.assert_array_equal(best, order[:, :5])
    places = [min(list(row).index(i) for i in mine) + 1 for row, mine in zip(order, own, strict=True)]
    assert ranks.tolist() == places
    assert first_stage(queries, items, own, 99)[0].shape == (9, 12)


def test_what_is_on_the_shortlist_is_put_in_order():
    scores = np.array([[0.1, 0.9, 0.5], [0.3, 0.3, 0.1], [3, 2, 1]])
    true = np.array([[False, False, True], [False, True, True], [False] * 3])
    ranks = reranked(scores, true, np.array([3, 2, 7]))
    assert ranks.tolist() == [2, 1, 7]
    assert recall("x", ranks) == {"x/r1": 1 / 3, "x/r5": 2 / 3, "x/r10": 1, "x/median": 2}


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):  # noqa: F811
    """Two steps of contrast and matching on captions of which several share a picture."""
    config = toy_config(scenes, num_steps=2, eval_every=2)
    data = dataclasses.replace(config.data, texts="captions", text_length=12, kinds=("short",))
    objectives = {"itc": 1.0, "itm": 1.0}
    folder = tmp_path_factory.mktemp("retrieval") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
        loop.train(dataclasses.replace(config, data=data, objectives=objectives), folder)
    return folder


def _every_pair(model, source):
    """Log odds of every text with every picture, one a row, and whose picture each text is."""
    records = [source[i] for i in range(len(source))]
    texts = [(i, text.text) for i, record in enumerate(records) for text in record.texts if text.kind == "short"]
    rows = [(record.images[0], text) for record in records for _, text in texts]
    logits = model.heads["itm"](model(model.processor.batch_of(*map(list, zip(*rows, strict=True)))))
    return np.asarray(logits[:, 0, 1] - logits[:, 0, 0]).reshape(len(records), -1).T, [i for i, _ in texts]


def test_a_full_shortlist_is_every_pair(run):
    model = ss.load(run)
    found = evaluate(run, split="validation", shortlist=99)
    scores, truth = _every_pair(model, open_split(model.config.data, "validation"))
    own = np.array([scores[t, i] for t, i in enumerate(truth)])
    ranks = 1 + (scores > own[:, None]).sum(1)
    best = np.array([max(scores[t, i] for t in range(len(truth)) if truth[t] == i) for i in range(scores.shape[1])])
    text_ranks = 1 + (scores > best).sum(0)
    for name, wanted in (("image", ranks), ("text", text_ranks)):
        for key, value in recall(f"retrieve/{name}", wanted).items():
            assert found[key] == pytest.approx(value), key
    assert found["retrieve/encoded"] == scores.size
    few = evaluate(run, split="validation", shortlist=2)
    assert few["retrieve/encoded"] <= 2 * sum(scores.shape)
    assert few["retrieve/itc/image/r1"] == found["retrieve/itc/image/r1"]


def test_a_run_that_was_stopped_goes_on(run, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "RECORDS", 3)
    monkeypatch.setattr(retrieval, "PAIRS", 20)
    model = ss.load(run)
    source = open_split(model.config.data, "validation")
    whole = retrieval.retrieve(model, source, tmp_path / "whole", shortlist=3)
    real, left = gallery.kept, iter(range(4))

    def four_blocks(path, make):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(path, make)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "kept", four_blocks)
        patch.setattr(retrieval, "kept", four_blocks)
        with pytest.raises(KeyboardInterrupt):
            retrieval.retrieve(model, source, tmp_path / "stopped", shortlist=3)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "stopped").glob("*.npz")}
    assert set(before) == {"vectors-0.npz", "vectors-3.npz", "vectors-6.npz", "pairs-3-0.npz"}
    assert retrieval.retrieve(model, source, tmp_path / "stopped", shortlist=3) == whole
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "stopped").glob("*.npz")}
    assert len(after) > len(before) and before.items() <= after.items()
    model.step += 1  # of another checkpoint nothing is taken
    assert retrieval.retrieve(model, source, tmp_path / "stopped", shortlist=3) == whole
    assert all((tmp_path / "stopped" / name).stat().st_mtime_ns > time for name, time in after.items())


def test_a_run_without_both_heads_is_refused(run, tmp_path):
    model = ss.load(run)
    del model.module.heads["itm"]
    with pytest.raises(ss.ConfigError, match="retrieval needs the objectives itc and itm; this run has no head 'itm'"):
        retrieval.retrieve(model, open_split(model.config.data, "validation"), tmp_path, shortlist=3)

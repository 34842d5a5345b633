"""Retrieval in two stages against scoring every pair, and going on after an end in the middle."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

import singlestream as ss
from singlestream import gallery, retrieval
from singlestream.data.sources import open_split
from singlestream.evaluate import evaluate
from singlestream.ranking import recall
from singlestream.train import loop
from singlestream.train.sharding import make_mesh
from tests.data.conftest import ToySource
from tests.test_ranking import rank
from tests.train.conftest import scenes  # noqa: F401  (a fixture)
from tests.train.toy import toy_config


@pytest.mark.parametrize("content", [None, b"", b"junk", b"PK\x03\x04junk", "half"])
def test_a_damaged_block_is_made_anew(tmp_path, content):
    block = {"score": np.arange(5.0)}
    file = tmp_path / "pairs-0.npz"
    if content is not None:
        gallery.kept(tmp_path / "pairs-0", lambda: block)
        file.write_bytes(file.read_bytes()[:200] if content == "half" else content)
    made = []
    for _ in range(2):
        found = gallery.kept(tmp_path / "pairs-0", lambda: made.append(1) or block)
        np.testing.assert_array_equal(found["score"], block["score"])
    assert len(made) == 1 and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", ["", '{"step": 1', '{"step": 2}'])
def test_a_folder_whose_description_is_damaged_is_begun_anew(tmp_path, content):
    model, source, folder = object.__new__(ss.Model), ToySource(), tmp_path / "retrieval"
    model._config, model.step, model.params = ss.Config(), 1, {"a": jax.numpy.zeros(2)}
    retrieval._begin(folder, model, source)
    block = folder / "vectors-0.npz"
    block.touch()
    retrieval._begin(folder, model, source)
    assert block.exists()  # the same: it goes on
    (folder / "about.json").write_text(content)
    retrieval._begin(folder, model, source)
    assert not block.exists() and json.loads((folder / "about.json").read_text())["step"] == 1
    block.touch()
    model.params = {"a": jax.numpy.ones(2)}  # of a run that was begun anew and has come as far
    retrieval._begin(folder, model, source)
    assert not block.exists()


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


@pytest.mark.slow
def test_a_full_shortlist_is_every_pair(run):
    model = ss.load(run)
    found = evaluate(run, split="validation", shortlist=99)
    scores, truth = _every_pair(model, open_split(model.config.data, "validation"))
    own = np.array([scores[t, i] for t, i in enumerate(truth)])
    ranks = (scores >= own[:, None]).sum(1)
    text_ranks = [
        rank(column, {t for t, i in enumerate(truth) if i == number}) for number, column in enumerate(scores.T)
    ]
    for name, wanted in (("image", ranks), ("text", text_ranks)):
        for key, value in recall(f"retrieve/{name}", np.array(wanted)).items():
            assert found[key] == pytest.approx(value), key
    assert found["retrieve/encoded"] == scores.size
    few = evaluate(run, split="validation", shortlist=2)
    assert few["retrieve/encoded"] <= 2 * sum(scores.shape)
    assert few["retrieve/itc/image/r1"] == found["retrieve/itc/image/r1"]


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_run_without_both_heads_is_refused(run, tmp_path):
    model = ss.load(run)
    del model.module.heads["itm"]
    with pytest.raises(ss.ConfigError, match="retrieval needs the objectives itc and itm; this run has no head 'itm'"):
        retrieval.retrieve(model, open_split(model.config.data, "validation"), tmp_path, shortlist=3)

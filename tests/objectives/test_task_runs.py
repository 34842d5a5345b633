"""Tasks in the programs: two steps of training, and what an evaluation says of them."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import singlestream as ss
from singlestream.config import ConfigError, DataConfig
from singlestream.evaluate import evaluate
from singlestream.interop import training
from singlestream.train import loop
from singlestream.train.errors import FolderError
from singlestream.train.sharding import make_mesh
from tests.interop.toy_vilt import write_vilt
from tests.test_configs import read
from tests.train.conftest import scenes  # noqa: F401  (a fixture)
from tests.train.toy import toy_config

STEPS = dict(num_steps=2, eval_every=2, batch_size=4)


@pytest.fixture(autouse=True, scope="module")
def one_device():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pairs of grey pictures: are they alike? Each pair is asked twice, a group; the same as a choice of two texts."""
    folder = tmp_path_factory.mktemp("pairs")
    for grey in (50, 200):
        Image.fromarray(np.full((32, 32, 3), grey, np.uint8)).save(folder / f"{grey}.png")
    for split in ("train", "validation", "test"):
        lines = []
        for i in range(8):
            images, alike = (["50.png", "200.png"], ["50.png", "50.png"])[i % 2], i % 2 == 1
            for said in (True, False):
                lines.append({"image": images, "question": f"{said} {i}", "answer": str(alike == said).lower()})
                lines[-1]["group"] = f"{i}"
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def _config(folder, objectives, **data):
    base = toy_config(folder, **STEPS)
    rows = DataConfig(name="jsonl", dir=str(folder), text_length=8, max_patches=4, **data)
    model = dataclasses.replace(base.model, direction="full", num_images=2)
    return dataclasses.replace(base, data=rows, model=model, objectives=objectives)


def test_grounding(scenes, tmp_path):  # noqa: F811
    config = toy_config(scenes, **STEPS, best_metric="ground/accuracy")
    loop.train(dataclasses.replace(config, objectives={"ground": 1.0}), tmp_path / "run")
    found = evaluate(tmp_path / "run")
    assert 0 <= found["ground/accuracy"] <= 1 and found["ground/l1_loss"] > 0
    assert found["attention/grounding/low"] <= found["attention/grounding"] <= found["attention/grounding/high"]


def test_pairs_of_pictures(folder, tmp_path):
    loop.train(_config(folder, {"nlvr": 1.0}, apart=2), tmp_path / "run")
    found = evaluate(tmp_path / "run")
    assert found["vqa/accuracy"] == pytest.approx(found["nlvr/accuracy"]) and found["vqa/questions"] == 16
    lines = [json.loads(line) for line in (tmp_path / "run/eval/test/predictions.jsonl").read_text().splitlines()]
    pairs = zip(lines[::2], lines[1::2], strict=True)
    assert found["vqa/consistency"] == np.mean([first["correct"] and second["correct"] for first, second in pairs])
    said = ss.load(tmp_path / "run").predict((folder / "50.png", folder / "200.png"), lines[0]["text"])
    assert said.answer == lines[0]["predicted"]
    assert said.probability == pytest.approx(lines[0]["probability"], abs=1e-5)


def test_choices_and_labels(folder, tmp_path):
    """Every text with a copy of its pictures; the two labels rank examples, as all pairs of them say."""
    config = _config(folder, {"choose": 1.0, "classify": 1.0}, texts_per_row=2, copies=True)
    loop.train(config, tmp_path / "run")
    found = evaluate(tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/eval/test/choices.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [str(i) for i in range(8)]
    hits = [line["chosen"] == line["right"] for line in lines]
    assert hits == [line["correct"] for line in lines] and found["choose/accuracy"] == np.mean(hits)
    assert all(sum(line["probabilities"]) == pytest.approx(1, abs=1e-5) for line in lines)
    assert evaluate(tmp_path / "run", together=tmp_path / "run")["choose/together"] == np.mean(hits)
    _other_answers_than(tmp_path / "run", tmp_path / "other", lines)
    assert "classify/auroc/true" not in found
    model = ss.load(tmp_path / "run")
    lines = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    pictures = [tuple(folder / name for name in line["image"]) for line in lines]
    batch = model.processor.batch_of(pictures, [line["question"] for line in lines])
    odds = np.asarray(model.heads["classify"](model(batch)))[:, 0] @ (-1, 1)
    right = np.array([line["answer"] == "true" for line in lines])
    ranked = [(p > n) + (p == n) / 2 for p in odds[right] for n in odds[~right]]
    assert found["classify/auroc"] == pytest.approx(np.mean(ranked))


def _other_answers_than(run, other, lines):
    """Beside a run that is right where this one is wrong, nothing is right together."""
    shutil.copytree(run, other)
    path = other / "eval/test/choices.jsonl"
    path.write_text("".join(json.dumps({**line, "correct": not line["correct"]}) + "\n" for line in lines))
    assert evaluate(run, together=other)["choose/together"] == 0
    path.write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(ConfigError, match="--together: that run chose in 1 questions, and not in the same"):
        evaluate(run, together=other)
    path.write_text("{}\n")
    with pytest.raises(FolderError, match=r"choices.jsonl is damaged .*: evaluate .*other again"):
        evaluate(run, together=other)
    path.unlink()
    with pytest.raises(FolderError, match=r"there is no .*choices.jsonl: evaluate .*other on that split first"):
        evaluate(run, together=other)


def test_pairs_from_published_weights(folder, tmp_path):
    """The recipe for NLVR2 on a ViLT that knew single pictures: both pictures are read as those were."""
    write_vilt(tmp_path / "vilt", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "true", "false"], ["no", "yes"])
    shipped = read("nlvr2:pair")
    rows = dict(name="jsonl", dir=str(folder), text_length=8, shorter_side=16, max_patches=6)
    steps = dict(
        num_steps=1, batch_size=4, accumulate=1, warmup_steps=1, eval_every=1, eval_batches=1, huge_pages=False
    )
    config = dataclasses.replace(
        shipped,
        init=str(tmp_path / "vilt"),
        data=dataclasses.replace(shipped.data, **rows),
        train=dataclasses.replace(shipped.train, **steps, checkpoint_every=1, cache_dir="none"),
    )
    results = loop.train(config, tmp_path / "run", training)
    assert np.isfinite(results["nlvr/loss"])
    model = ss.load(tmp_path / "run")
    assert model.config.model.num_images == 1 and model.heads["nlvr2"].head.source == "pairs"

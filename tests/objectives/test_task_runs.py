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
from singlestream.data.record import DataError
from singlestream.evaluate import evaluate
from singlestream.interop import training
from singlestream.train import loop
from singlestream.train.errors import FolderError
from tests.data.toy_published import write_hateful_memes
from tests.interop.toy_vilt import write_vilt
from tests.test_configs import read
from tests.train.conftest import evaluation_compiled_once, one_device, scenes  # noqa: F401  (fixtures)
from tests.train.toy import toy_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device", "evaluation_compiled_once")]
SMALL = dict(model={"num_layers": 1}, num_steps=2, eval_every=2, batch_size=4)


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


def _lines(run, name, split="test"):
    return [json.loads(line) for line in (run / "eval" / split / name).read_text().splitlines()]


def _config(folder, objectives, **data):
    base = toy_config(folder, **SMALL)
    rows = DataConfig(name="jsonl", dir=str(folder), text_length=8, max_patches=4, **data)
    model = dataclasses.replace(base.model, direction="full", num_images=2)
    return dataclasses.replace(base, data=rows, model=model, objectives=objectives)


def test_grounding(scenes, tmp_path):  # noqa: F811
    config = toy_config(scenes, **SMALL, best_metric="ground/accuracy")
    results = loop.train(dataclasses.replace(config, objectives={"ground": 1.0}), tmp_path / "run")
    found = evaluate(tmp_path / "run", split="validation")
    lines = _lines(tmp_path / "run", "groundings.jsonl", "validation")
    assert found["ground/accuracy"] == np.mean([line["iou"] >= 0.5 for line in lines])
    assert found["ground/accuracy"] == pytest.approx(results["ground/accuracy"]) and found["ground/l1_loss"] > 0
    assert found["ground/expressions"] == len(lines) > 0 and all(line["region"] is None for line in lines)
    assert found["attention/grounding/low"] <= found["attention/grounding"] <= found["attention/grounding/high"]


def test_pairs_of_pictures(folder, tmp_path):
    loop.train(_config(folder, {"nlvr": 1.0}, apart=2), tmp_path / "run")
    found = evaluate(tmp_path / "run")
    assert found["vqa/accuracy"] == pytest.approx(found["nlvr/accuracy"]) and found["vqa/questions"] == 16
    lines = _lines(tmp_path / "run", "predictions.jsonl")
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
    lines = _lines(tmp_path / "run", "choices.jsonl")
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
    texts = [line["question"] for line in lines]
    odds = np.asarray(model.heads["classify"](model(model.processor.batch_of(pictures, texts))))[:, 0] @ (-1, 1)
    right = np.array([line["answer"] == "true" for line in lines])
    ranked = [(p > n) + (p == n) / 2 for p in odds[right] for n in odds[~right]]
    assert found["classify/auroc"] == pytest.approx(np.mean(ranked))
    labelled, answered = _lines(tmp_path / "run", "labels.jsonl"), _lines(tmp_path / "run", "predictions.jsonl")
    for text, odd, label, answer in zip(texts, odds, labelled, answered, strict=True):
        assert label["text"] == answer["text"] == text and label["correct"] == answer["correct"]
        assert label["probabilities"]["true"] == pytest.approx(1 / (1 + np.exp(-odd)), abs=1e-5)
        assert label["predicted"] == [answer["predicted"]] == ["true" if odd > 0 else "false"]
        assert label["right"] == [answer["answer"]]
    for name in ("accuracy", "blind_accuracy", "majority_accuracy"):
        assert found[f"classify/{name}"] == found[f"vqa/{name}"]
        assert found[f"classify/{name}/low"] <= found[f"classify/{name}"] <= found[f"classify/{name}/high"]
    said = model.predict(pictures, texts)
    assert [each.answer for each in said] == [line["predicted"] for line in answered]
    _more_texts_than_a_row_holds(folder, tmp_path / "more")
    message = "record test-1 has 3 texts that belong into one row, which holds config.data.texts_per_row=2"
    with pytest.raises(DataError, match=message):
        evaluate(tmp_path / "run", data_dir=str(tmp_path / "more"))


def _more_texts_than_a_row_holds(folder, other):
    """The same pairs, of which the first of each split has a third text."""
    shutil.copytree(folder, other)
    for path in other.glob("*.jsonl"):
        first = path.read_text().splitlines()[0]
        path.write_text(f"{first}\n{path.read_text()}")


def test_choices_that_a_row_has_no_room_for_are_refused_at_the_start(folder, tmp_path):
    _more_texts_than_a_row_holds(folder, tmp_path / "more")
    for split in ("train", "validation"):
        config = _config(tmp_path / "more", {"choose": 1.0}, texts_per_row=2, copies=True)
        with pytest.raises(DataError, match=f"record {split}-1 has 3 texts that belong into one row, which holds"):
            loop.train(config, tmp_path / "run")
        shutil.copy(folder / f"{split}.jsonl", tmp_path / "more")
    assert not (tmp_path / "run/config.json").exists()


def test_several_labels(folder, tmp_path):
    """Each label by itself; `purple` came in no training."""
    answers = ("big|red", "red", "blue", "big|blue", "red|purple")
    for split in ("train", "validation", "test"):
        said = answers[: None if split == "test" else -1]
        lines = [{"image": f"{folder}/50.png", "question": f"what {i}?", "answer": a} for i, a in enumerate(said)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = _config(tmp_path, {"classify": 1.0}, label_separator="|")
    config = dataclasses.replace(config, objective_options={"classify": {"several": True}})
    loop.train(config, tmp_path / "run")
    found, model = evaluate(tmp_path / "run"), ss.load(tmp_path / "run")
    assert not (tmp_path / "run/eval/test/predictions.jsonl").exists() and "vqa/accuracy" not in found
    hits = []
    for line, answer in zip(_lines(tmp_path / "run", "labels.jsonl"), answers, strict=True):
        share, right = line["probabilities"], answer.split("|")
        assert list(share) == ["big", "blue", "red"] and line["right"] == right
        assert line["predicted"] == [label for label in share if share[label] > 0.5]
        hits.append(set(line["predicted"]) == set(right) - {"purple"})
        said = model.predict(folder / "50.png", line["text"])
        assert dict(said.probabilities) == pytest.approx(share, abs=1e-5)
        assert said.answer == max(share, key=share.get) and said.probability == max(said.probabilities.values())
    assert found["classify/accuracy"] == np.mean(hits) and found["classify/texts"] == 5
    assert found["classify/blind_accuracy"] == 0.8  # all questions but the last were trained on
    assert found["classify/accuracy/low"] <= found["classify/accuracy"] <= found["classify/accuracy/high"]
    assert "classify/auroc/blue" in found


def test_labels_that_are_not_published(tmp_path):
    """`labels.jsonl` holds what the challenge of Hateful Memes asks for: id, probability of the label, and label."""
    write_hateful_memes(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "test_unseen.jsonl").read_text().splitlines()]
    (tmp_path / "test_unseen.jsonl").write_text("\n".join(json.dumps({**line, "label": None}) for line in lines))
    base = toy_config(tmp_path, **SMALL)
    data = DataConfig(name="hateful_memes", dir=str(tmp_path), text_length=8, max_patches=4)
    loop.train(dataclasses.replace(base, data=data, objectives={"classify": 1.0}), tmp_path / "run")
    found = evaluate(tmp_path / "run", split="test_unseen")
    (label,), (answer,) = (_lines(tmp_path / "run", f"{x}.jsonl", "test_unseen") for x in ("labels", "predictions"))
    assert found["classify/texts"] == 1 and not any("accuracy" in name or "auroc" in name for name in found)
    assert label["id"] == lines[0]["id"] and label["right"] is label["correct"] is None
    share = label["probabilities"]
    assert sum(share.values()) == pytest.approx(1, abs=1e-5)
    assert label["predicted"] == [answer["predicted"]] == [max(share, key=share.get)]


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
    cache = jax.config.jax_compilation_cache_dir or "none"
    steps = dict(
        num_steps=1, batch_size=4, accumulate=1, warmup_steps=1, eval_every=1, eval_batches=1, huge_pages=False
    )
    config = dataclasses.replace(
        shipped,
        init=str(tmp_path / "vilt"),
        data=dataclasses.replace(shipped.data, **rows),
        train=dataclasses.replace(shipped.train, **steps, checkpoint_every=1, cache_dir=cache),
    )
    results = loop.train(config, tmp_path / "run", training)
    assert np.isfinite(results["nlvr/loss"])
    model = ss.load(tmp_path / "run")
    assert model.config.model.num_images == 1 and model.heads["nlvr2"].head.source == "pairs"

"""Evaluation from a run's folder alone: every figure against one computed another way, and the program's answers."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import singlestream as ss
from singlestream.answers import Answered, answers_table, prior_answers, summarise
from singlestream.data.pipeline import blind_answer
from singlestream.data.record import Sentence
from singlestream.data.sources import open_split
from singlestream.evaluate import evaluate
from singlestream.page import make_curves
from singlestream.page_examples import choose_examples
from singlestream.train.checkpoint import restore_tree, steps
from singlestream.train.errors import CheckpointError, FolderError
from singlestream.train.folder import RunFolder
from singlestream.train.loop import train
from singlestream.train.metrics import read_rows
from singlestream.words import group_words
from tests.train.conftest import evaluation_compiled_once, one_device  # noqa: F401  (fixtures)
from tests.train.toy import OPTIONS, toy_config

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("one_device", "evaluation_compiled_once")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on shared pictures (`vqa` and `locate`), trained for 4 steps on so few that some answers never come."""
    base = tmp_path_factory.mktemp("evaluate")
    config = toy_config(base / "scenes", num_steps=4, keep_latest=2, ema_decay=0.9, best_metric="vqa/accuracy")
    data = dataclasses.replace(config.data, options={**OPTIONS, "train_scenes": 8})
    objectives = {"vqa": 1.0, "locate": 1.0}
    options = {"locate": {"layer": 1}}
    train(dataclasses.replace(config, data=data, objectives=objectives, objective_options=options), base / "run")
    return base / "run"


@pytest.fixture(scope="module")
def metrics(run: Path) -> dict[str, float]:
    return evaluate(run, split="test", report=True)


def predictions(run: Path, split: str = "test") -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "eval" / split / "predictions.jsonl").read_text().splitlines()]


def test_predictions_hold_every_question_once_and_make_the_accuracy(run, metrics):
    source = open_split(ss.load(run).config.data, "test")
    asked = [text for i in range(len(source)) for text in source.texts(i) if text.answer]
    lines = predictions(run)
    assert [line["id"] for line in lines] == [text.id for text in asked]
    assert all(line["correct"] == (line["predicted"] == line["answer"]) for line in lines)
    assert {"id", "text", "answer", "predicted", "probability", "kind", "correct"} == set(lines[0])
    assert metrics["vqa/accuracy"] == pytest.approx(np.mean([line["correct"] for line in lines]))
    assert metrics["vqa/questions"] == len(asked)
    for kind in {text.kind for text in asked}:
        share = np.mean([line["correct"] for line in lines if line["kind"] == kind])
        assert metrics[f"vqa/accuracy/{kind}"] == pytest.approx(share)


def test_the_loop_and_evaluation_agree(run, metrics):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    final = next(row for row in rows if row["split"] == "results")
    found = evaluate(run, split="validation", checkpoint="latest")
    assert {line["answer"] for line in predictions(run, "validation")} - set(ss.load(run).answers)  # never trained on
    assert found["vqa/accuracy"] > 0
    for name in ("loss", "vqa/loss", "vqa/accuracy", "vqa/blind_accuracy", "vqa/majority_accuracy"):
        assert found[name] == pytest.approx(final[name], rel=1e-5), name


def test_blind_and_majority_come_from_the_training_questions_alone(run, metrics):
    priors = json.loads((run / "priors.json").read_text())
    lines = predictions(run)
    blind = np.mean([blind_answer(priors, line["text"]) == line["answer"] for line in lines])
    majority = np.mean([priors["majority"] == line["answer"] for line in lines])
    assert metrics["vqa/blind_accuracy"] == pytest.approx(blind)
    assert metrics["vqa/majority_accuracy"] == pytest.approx(majority)
    assert next(key for key in metrics if "blind" in key) == "vqa/blind_accuracy"


def test_predict_says_what_evaluation_says(run, metrics):
    model = ss.load(run)
    source = open_split(model.config.data, "test")
    lines = {line["id"]: line for line in predictions(run)}
    record = source[0]
    found = model.predict(record.images[0], [text.text for text in record.texts if text.answer])
    for text, prediction in zip([t for t in record.texts if t.answer], found, strict=True):
        assert prediction.probability == pytest.approx(lines[text.id]["probability"], abs=1e-5)
        assert prediction.answer == lines[text.id]["predicted"]


def test_every_metric_is_a_number_and_every_share_lies_in_its_interval(metrics):
    assert all(type(value) in (int, float) and np.isfinite(value) for value in metrics.values())
    shares = [key.removesuffix("/low") for key in metrics if key.endswith("/low")]
    assert {"vqa/accuracy", "vqa/no_image_accuracy", "attention/pointing"} <= set(shares)
    assert all(metrics[f"{key}/low"] <= metrics[key] <= metrics[f"{key}/high"] for key in shares)
    assert 0 < metrics["attention/pointing_chance"] < 0.5
    assert 0 <= metrics["vqa/ece"] <= 1
    assert "locate/region_accuracy" in metrics


@pytest.mark.slow
def test_layer_and_head_are_chosen_on_validation_once(run, metrics):
    path = run / "eval" / "pointing.json"
    chosen = json.loads(path.read_text())
    assert chosen["split"] == "validation"
    scores = np.array(chosen["by_head"])
    assert scores.shape == (2, 2) and scores[chosen["layer"], chosen["head"]] == scores.max()
    path.write_text(json.dumps({**chosen, "layer": 1 - chosen["layer"]}))
    evaluate(run, split="test_composition")
    assert json.loads(path.read_text())["layer"] == 1 - chosen["layer"]  # it was read
    for other in ("broken", json.dumps({**chosen, "weights": 1})):  # no file of ours, or of a run that was begun anew
        path.write_text(other)
        evaluate(run, split="test_composition")
        assert json.loads(path.read_text()) == chosen  # it was made anew


def test_the_page_shows_the_run(run, metrics):
    page = (run / "eval" / "test" / "report.html").read_text()
    assert page.count("data:image/png") >= 8
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["table"][0]["model"]["value"] == pytest.approx(metrics["vqa/accuracy"])
    assert [curve["title"] for curve in data["curves"]][:2] == ["Loss, all objectives", "Accuracy (vqa/accuracy)"]
    example = data["examples"][0]
    assert len(example["patches"]) == 9 and example["to_text"] is None  # `prefix`: the picture reads no words
    assert any(word["boxes"] for example in data["examples"] for word in example["words"])


@pytest.mark.slow
def test_texts_that_were_cut_are_counted(run, metrics, tmp_path):
    assert metrics["text/truncated"] == 0
    shutil.copytree(run, tmp_path / "short", ignore=shutil.ignore_patterns("eval"))
    path = tmp_path / "short" / "config.json"
    path.write_text(path.read_text().replace('"text_length": 16', '"text_length": 8'))
    model = ss.load(tmp_path / "short")
    source = open_split(model.config.data, "test")
    asked = [text.text for i in range(len(source)) for text in source.texts(i) if text.answer]
    cut = sum(len(model.processor.tokenizer.encode(text, 99).ids) > 8 for text in asked)
    assert evaluate(tmp_path / "short", split="test")["text/truncated"] == cut > 0


@pytest.mark.slow
def test_mlm_and_itm_without_answers(tmp_path):
    """Pre-training has no answers: its objectives' metrics, no predictions; one text a row, the picture reads it."""
    config = toy_config(tmp_path / "scenes", model={"num_layers": 1}, num_steps=4)
    data = dataclasses.replace(config.data, texts="captions", texts_per_row=1, text_length=32)
    model = dataclasses.replace(config.model, direction="full")
    objectives = {"itm": 1.0, "mlm": 1.0}
    train(dataclasses.replace(config, data=data, model=model, objectives=objectives), tmp_path / "run")
    found = evaluate(tmp_path / "run", split="test", report=True)
    assert {"mlm/accuracy", "itm/accuracy", "attention/pointing"} <= set(found)
    assert not any(key.startswith("vqa/") for key in found)
    assert not any(key.startswith("vqa/") for row in read_rows(RunFolder.at(tmp_path / "run")) for key in row)
    assert not (tmp_path / "run/eval/test/predictions.jsonl").exists()
    assert (tmp_path / "run/eval/test/report.html").exists()
    with pytest.raises(ss.ConfigError, match="the head 'vqa' or 'nlvr2' or 'classify'; this run has itm, mlm"):
        ss.load(tmp_path / "run").predict(np.zeros((8, 8, 3), np.uint8), "what?")


def test_load_takes_the_averaged_weights_of_the_step_asked_for(run):
    loaded = {step: ss.load(run, step) for step in steps(run / "checkpoints")}
    assert len(loaded) > 1
    for step, model in loaded.items():
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), model.params)
        saved = restore_tree(run / "checkpoints", step, {"ema": abstract, "params": abstract})
        same = [jax.tree.all(jax.tree.map(np.array_equal, saved[key], model.params)) for key in ("ema", "params")]
        assert same == [True, False]
    assert ss.load(run, "latest").step == max(loaded)


def test_what_load_refuses(run, tmp_path):
    with pytest.raises(FolderError, match="no such folder"):
        ss.load(tmp_path / "none")
    with pytest.raises(FolderError, match="is not a run's folder"):
        ss.load(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint '77' in .*: choose best, latest or"):
        ss.load(run, "77")
    shutil.copytree(run, tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        ss.load(tmp_path / "bare")
    shutil.copytree(run, tmp_path / "odd")
    (tmp_path / "odd" / "heads.json").write_text('{"vqa": {"colour": "red"}}')
    with pytest.raises(FolderError, match="heads.json does not describe heads"):
        ss.load(tmp_path / "odd")


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(ROOT / "eval.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=ROOT)


@pytest.mark.slow
def test_the_program_needs_the_folder_alone_and_ends_with_one_line_of_json(run, metrics, tmp_path):
    """The run and its data were moved: `--data_dir` says where to. With `--report` it makes the page, too."""
    moved, data = tmp_path / "moved", tmp_path / "data"
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("eval"))
    shutil.copytree(run.parent / "scenes", data)
    config = json.loads((moved / "config.json").read_text())
    config["data"]["dir"] = str(tmp_path / "gone")
    (moved / "config.json").write_text(json.dumps(config))
    done = program(f"--workdir={moved}", "--split=test", f"--data_dir={data}", "--report")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == pytest.approx(metrics)
    assert json.loads((moved / "eval/test/metrics.json").read_text()) == found
    assert "question alone" in done.stdout
    assert not (tmp_path / "gone").exists()  # data that is nowhere would be made there
    assert (moved / "eval/test/report.html").read_text().count("data:image/png") >= 8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--workdir=RUN", "--split=holiday"], "--split=holiday: scenes has train, validation, test, test_composition"),
        (["--workdir=RUN", "--checkpoint=999999"], "no checkpoint '999999'"),
        pytest.param(["--workdir=NOWHERE"], "no such folder", marks=pytest.mark.slow),
        ([], "--workdir is missing"),
        pytest.param(
            ["--workdir=RUN", "--search=greedy"],
            "--search=greedy: it is for a run with config.objectives.prefix_lm",
            marks=pytest.mark.slow,
        ),
        (["--workdir=RUN", "--beams=0"], "--search and its flags: num_beams=0, top_p=0.9, temperature=1.0: a search"),
    ],
)
def test_a_mistake_gets_one_line(run, tmp_path, arguments, says):
    places = {"RUN": str(run), "NOWHERE": str(tmp_path / "nowhere")}
    filled = [a.replace("RUN", places["RUN"]).replace("NOWHERE", places["NOWHERE"]) for a in arguments]
    done = program(*filled)
    assert done.returncode == 1
    assert says in done.stderr and len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr


# ---- arithmetic on made-up answers -----------------------------------------------------------------------------------


def answer(number: int, *, kind: str, truth: str, said: str, record: int = 0) -> Answered:
    return Answered(
        record=record,
        sentence=Sentence(id=f"{number}", text="what colour?", answer=truth, kind=kind),
        top=((said, 0.75), ("other", 0.25)),
        no_image="red",
        blind="red",
        majority="red",
        kind_majority="yes",
    )


def test_summarise_counts():
    answered = [
        answer(0, kind="colour", truth="red", said="red"),
        answer(1, kind="colour", truth="blue", said="red"),
        answer(2, kind="exist", truth="yes", said="yes"),
        answer(3, kind="exist", truth="yes", said="yes"),
    ]
    found = summarise(answered)
    assert found["vqa/accuracy"] == 0.75 and found["vqa/blind_accuracy"] == 0.25
    assert found["vqa/accuracy/colour"] == 0.5 and found["vqa/accuracy/exist"] == 1.0
    assert found["vqa/majority_accuracy"] == 0.25 and found["vqa/majority_accuracy/exist"] == 1.0
    assert found["vqa/ece"] == 0.0  # says 0.75, is right three times in four
    assert "vqa/no_audio_accuracy" not in found
    heard = summarise([dataclasses.replace(each, no_audio="yes") for each in answered])
    assert heard["vqa/no_audio_accuracy"] == 0.5 and heard["vqa/no_audio_accuracy/colour"] == 0.0
    assert [str(column.header) for column in answers_table(heard, "test").columns][4] == "no sound"


def test_prior_answers_back_off():
    priors = {"text": {"a b c": "x"}, "prefix": {"a b": "y"}, "majority": "z", "by_kind": {"k": "w"}}
    ask = lambda text, kind="": prior_answers(priors, Sentence(id="", text=text, kind=kind))  # noqa: E731
    assert ask("A b C") == {"blind": "x", "majority": "z", "kind_majority": "z"}
    assert ask("a b d", "k") == {"blind": "y", "majority": "z", "kind_majority": "w"}
    assert ask("q")["blind"] == "z"


def test_examples_come_from_every_kind_and_from_many_pictures():
    answered = [answer(i, kind="ab"[i % 2], truth="red", said="red", record=i // 4) for i in range(16)]
    chosen = choose_examples(answered, right=True, count=4)
    assert [each.sentence.kind for each in chosen] == ["a", "b", "a", "b"]
    assert len({each.record for each in chosen}) == 4
    assert len(choose_examples(answered, right=True, count=99)) == 16
    assert choose_examples(answered, right=False) == []


def test_words_are_spelled_as_the_text_and_keep_their_boxes(run):
    processor = ss.load(run).processor
    source = open_split(processor.data, "test")
    for sentence in (text for text in source.texts(0) if text.answer):
        words, pieces = group_words(processor, sentence)
        assert sorted(i for piece in pieces for i in piece) == list(range(sum(map(len, pieces))))
        assert words[0].text == "[CLS]" and words[-1].text == "[SEP]"
        assert "".join(w.text for w in words[1:-1]) == sentence.text.replace(" ", "")
        named = {sentence.text[m.start : m.end] for m in sentence.mentions}
        assert {w.text for w in words if w.boxes} == named


def test_curves_leave_out_what_was_not_logged():
    rows = [{"step": s, "split": "train", "loss": 1.0 / s, "itm/accuracy": 0.5} for s in (1, 2, 3)]
    loss, accuracy = make_curves([*rows, {"step": 3, "split": "results", "loss": 0.2}])
    assert loss.lines == {"train": [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]}
    assert accuracy.title == "Accuracy (itm/accuracy)" and accuracy.percent


@pytest.mark.slow
def test_a_pruned_model_is_evaluated_beside_the_whole_one(run, metrics):
    """All that is written is of the pruned model, but for the head that points; a wrong share leaves no folder."""
    before = (run / "eval" / "test" / "metrics.json").read_bytes()
    found = evaluate(run, split="test", prune=0.25)
    lines = predictions(run, "test-prune-0.25")
    model = ss.load(run).pruned(keep=0.25)
    source = open_split(model.config.data, "test")
    record, sentence = source[0], source.texts(0)[0]
    said = model.predict(record.images[0], sentence.text)
    own = next(line for line in lines if line["id"] == sentence.id)
    assert own["predicted"] == said.answer and own["probability"] == pytest.approx(said.probability, abs=1e-4)
    assert (
        found["vqa/loss"] != metrics["vqa/loss"]
        and found["attention/pointing_words"] == metrics["attention/pointing_words"]
    )
    assert (run / "eval" / "test" / "metrics.json").read_bytes() == before
    with pytest.raises(ss.ConfigError, match="keep=1.5"):
        evaluate(run, split="test", prune=1.5)
    assert not (run / "eval" / "test-prune-1.5").exists()

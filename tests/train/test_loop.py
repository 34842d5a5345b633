"""Whole runs, small: what lies in the folder, and that stopping anywhere changes nothing."""

from __future__ import annotations

import dataclasses
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singlestream.config import ConfigError, CorpusConfig, GroupConfig, MeshConfig
from singlestream.train import checkpoint, loop
from singlestream.train.build import build_run
from singlestream.train.errors import FolderError, Interrupted, NonFiniteError
from singlestream.train.flops import peak_flops
from singlestream.train.folder import RunFolder
from singlestream.train.metrics import read_rows
from singlestream.train.paths import paths
from singlestream.train.state import take_params

from .events import read_events, rows_as_events
from .toy import power_cut, stopped_at, toy_config, with_train


@pytest.fixture(scope="module", autouse=True)
def known_device(one_device, compiled_once):
    """It counts as one whose peak is known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "peak_flops", lambda kind: peak_flops("NVIDIA H100 80GB HBM3"))
        yield


TIMES = ("examples_per_second", "seconds_per_step", "flops_utilisation")


@pytest.fixture(scope="module")
def calm(scenes, tmp_path_factory):
    """A run that nothing disturbed."""
    path = tmp_path_factory.mktemp("calm")
    modality = {"modality": "pictures"}
    config = toy_config(scenes, model=modality, best_metric="vqa/accuracy", ema_decay=0.9, optimizer="muon")
    return config, RunFolder.at(path), loop.train(config, path)


def final_state(folder: RunFolder):
    return checkpoint.read_state(folder.checkpoints, checkpoint.steps(folder.checkpoints)[-1])


def rows_without_times(folder: RunFolder):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(folder)]


def assert_same_run(folder: RunFolder, calm: RunFolder):
    jax.tree.map(np.testing.assert_array_equal, final_state(folder), final_state(calm))
    assert rows_without_times(folder) == rows_without_times(calm)


def test_folder_of_a_run(calm):
    config, folder, results = calm
    names = {path.name for path in folder.path.iterdir() if not path.name.startswith((".", "events."))}
    assert names == {
        *("config.json", "vocab.txt", "answers.json", "spec.json", "heads.json", "priors.json", "metrics.jsonl"),
        *("tokenizer_config.json", "checkpoints"),
    }
    assert not list(folder.path.rglob("*.part"))
    assert folder.read_config() == config
    assert checkpoint.steps(folder.checkpoints)[-1] == 8
    assert 0 <= results["vqa/accuracy"] <= 1 and {"vqa/blind_accuracy", "vqa/majority_accuracy"} <= results.keys()


def test_rows_of_metrics(calm):
    _, folder, results = calm
    rows = read_rows(folder)
    assert [(row["step"], row["split"]) for row in rows] == [
        *((2, "train"), (4, "train"), (4, "validation"), (6, "train"), (8, "train"), (8, "validation"), (8, "results")),
    ]
    assert rows[0].keys() >= {"loss", "vqa/loss", "vqa/accuracy", "learning_rate", "gradient_norm", *TIMES}
    # Two texts a row, but counted as what they are: a record may have fewer.
    assert rows[0]["examples"] == 16
    assert rows[-1].items() >= results.items()
    assert read_events(folder.path) == rows_as_events(folder.path)
    # Multiplications of 8 rows of 41 tokens, 9 of them patches of 768 values, in two layers of width 16. Each of the
    # two texts of 16 tokens reads itself and the picture, the picture itself.
    layer = 41 * (4 * 16**2 + 2 * 16 * 32) + 2 * (32 * (16 + 9) + 9**2) * 16
    flops = 2 * 3 * 8 * (2 * layer + 9 * 768 * 16)
    for row in (row for row in rows if row["split"] == "train"):
        assert row["flops_utilisation"] == pytest.approx(flops / row["seconds_per_step"] / 989e12, rel=1e-9)


def test_best_and_latest_are_kept(calm):
    config, folder, _ = calm
    values = {row["step"]: row["vqa/accuracy"] for row in read_rows(folder) if row["split"] == "validation"}
    best = max(values, key=lambda step: (values[step], step))
    assert checkpoint.steps(folder.checkpoints) == sorted({best, 8})
    assert checkpoint.find_step(folder.checkpoints, "best", config.train) == best


def test_a_finished_run_says_so(calm, capsys):
    config, folder, results = calm
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()}
    assert loop.train(config, folder.path) == results
    assert "is finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()} == before


def test_moved_data_are_no_other_settings(calm, tmp_path, monkeypatch):
    config, folder, _ = calm
    (tmp_path / "moved").symlink_to(config.data.dir)
    monkeypatch.chdir(tmp_path)
    moved = dataclasses.replace(config, data=dataclasses.replace(config.data, dir="moved"))
    folder.check_same(moved.with_absolute_paths())
    began, now = (CorpusConfig(dir=where) for where in ("here", "moved"))
    mixed = RunFolder.at(tmp_path / "mixed")
    mixed.create()
    with_more = dataclasses.replace(config, data=dataclasses.replace(config.data, corpora={"more": began}))
    mixed.config.write_text(with_more.to_json())
    mixed.check_same(dataclasses.replace(config, data=dataclasses.replace(config.data, corpora={"more": now})))


def test_other_settings_are_refused(calm):
    config, folder, _ = calm
    other = with_train(dataclasses.replace(config, seed=5), learning_rate=0.5, num_steps=9)
    before = folder.config.read_text()
    with pytest.raises(ConfigError, match=r"config.seed was 0 and is now 5; config.train.learning_rate was 0.001"):
        loop.train(other, folder.path)
    assert folder.config.read_text() == before


@pytest.mark.parametrize("at", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_bit_for_bit(calm, tmp_path, at):
    config, whole, _ = calm
    with stopped_at(at), pytest.raises(Interrupted, match=f"at step {at}") as stopped:
        loop.train(config, tmp_path)
    assert stopped.value.signal == signal.SIGTERM
    loop.train(config, tmp_path)
    assert_same_run(RunFolder.at(tmp_path), whole)


@pytest.mark.slow
def test_packed_rows_go_on_bit_for_bit(scenes, tmp_path):
    """Two pictures fill the budget of a row; the packer looked one example ahead when the run stopped."""
    steps = dict(num_steps=4, eval_every=4, checkpoint_every=4, log_every=1)
    config = toy_config(scenes, model={"num_layers": 1}, **steps)
    data = dataclasses.replace(config.data, texts_per_row=1, examples_per_row=3, row_patches=20)
    config = dataclasses.replace(config, data=data, model=dataclasses.replace(config.model, direction="full"))
    loop.train(config, tmp_path / "whole")
    with stopped_at(3), pytest.raises(Interrupted, match="at step 3"):
        loop.train(config, tmp_path / "parts")
    loop.train(config, tmp_path / "parts")
    whole, parts = (RunFolder.at(tmp_path / name) for name in ("whole", "parts"))
    assert_same_run(parts, whole)
    assert [row["examples"] for row in read_rows(whole) if row["split"] == "train"] == [16] * 4  # of 8 rows
    assert read_events(parts.path).keys() == read_events(whole.path).keys()


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 5])
def test_a_crashed_run_goes_on_bit_for_bit(calm, tmp_path, at):
    """Whatever happened after the last checkpoint is forgotten, its lines in metrics.jsonl too."""
    config, whole, _ = calm
    with power_cut(at):
        loop.train(config, tmp_path)
    loop.train(config, tmp_path)
    assert_same_run(RunFolder.at(tmp_path), whole)


@pytest.mark.slow
def test_a_longer_run_continues(calm, tmp_path):
    config, _, _ = calm
    short = with_train(config, num_steps=2, schedule="constant")
    long = with_train(config, num_steps=4, schedule="constant", log_every=1)
    loop.train(short, tmp_path / "a")
    loop.train(long, tmp_path / "a")
    loop.train(long, tmp_path / "b")
    a, b = (final_state(RunFolder.at(tmp_path / name)) for name in "ab")
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert RunFolder.at(tmp_path / "a").read_config() == long


def test_first_step_that_is_not_finite(scenes, tmp_path):
    steps = dict(learning_rate=1e38, warmup_steps=1, clip_norm=0.0, log_every=8, checkpoint_every=1)
    config = toy_config(scenes, model={"num_layers": 1}, **steps)
    with pytest.raises(NonFiniteError, match=r"of step 2 is (nan|inf); the last good checkpoint is .*checkpoints/1$"):
        loop.train(config, tmp_path)
    assert checkpoint.steps(tmp_path / "checkpoints") == [1]


@pytest.mark.slow
def test_start_from_another_run(calm, scenes, tmp_path, capsys):
    """Of one picture an example, for two of them: the second starts as the first."""
    config, folder, _ = calm
    model, frozen = {"modality": "pictures", "num_images": 2}, GroupConfig(pattern="^embed|^encoder", frozen=True)
    new = dataclasses.replace(
        toy_config(scenes, model=model, num_steps=1, groups=(frozen,)),
        init=str(folder.path),
        objectives={"vqa": 1.0, "mlm": 1.0},
    )
    loop.train(new, tmp_path)
    out = capsys.readouterr().out
    table = "embed/modality/table/embedding"
    assert "arrays taken" in out and "fresh: heads/mlm/" in out
    assert f"more pictures here, further ones as the last there: {table}\n" in out
    assert (tmp_path / "vocab.txt").read_text() == (folder.path / "vocab.txt").read_text()
    mine = checkpoint.read_any_params(tmp_path / "checkpoints", 1)
    best = checkpoint.find_step(folder.checkpoints, "best", config.train)
    theirs = checkpoint.read_any_params(folder.checkpoints, best)
    assert mine[table].shape == (3, 16)
    theirs[table] = theirs[table][[0, 1, 1]]
    frozen = [path for path in mine if path.startswith(("embed", "encoder"))]
    assert frozen
    for path in frozen:
        np.testing.assert_array_equal(mine[path], theirs[path])
    assert any("heads/mlm" in path for path in mine.keys() - theirs.keys())


@pytest.mark.parametrize("change", [{}, {"answers": ("no", "yes")}, {"region_classes": {"colour": ("red",)}}])
def test_heads_are_taken_where_their_classes_are_the_same(calm, tmp_path, change):
    """As many answers in another order make the same shapes with another meaning."""
    config, folder, _ = calm
    run = build_run(dataclasses.replace(config, objectives={"vqa": 1.0, "mlm": 1.0}), RunFolder.at(tmp_path))
    others = run.heads_of_other_classes(dataclasses.replace(run.processor, **change))
    assert others == (["vqa"] if "answers" in change else [])
    given = {"heads/vqa/bias": jnp.zeros(2), "heads/mlm/bias": jnp.zeros(2)}
    fresh = {"heads": {"vqa": {"bias": jnp.ones(2)}, "mlm": {"bias": jnp.ones(2)}}}
    _, taken, left = take_params(fresh, given, others)
    assert left == (["heads/vqa/bias"] if others else []) and "heads/mlm/bias" in taken


def test_start_from_what_is_no_run(scenes, tmp_path):
    config = dataclasses.replace(toy_config(scenes), init=str(tmp_path / "nowhere"))
    with pytest.raises(
        FolderError, match="config.init=.*nowhere.*no vocabulary .* names a run's folder, or published weights"
    ):
        loop.train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(train=dict(best_metric="vqa/acuracy")), "evaluation gives loss, vqa/accuracy, vqa/loss"),
        (
            dict(train=dict(mesh=MeshConfig(tensor=2))),
            r"config.train.mesh \(data=-1, fsdp=1, tensor=2\) does not fit 1",
        ),
        (dict(objectives={"vqa": 1.0, "nosuch": 1.0}), "no such objective; there are .*itm.*vqa"),
    ],
)
def test_settings_that_cannot_be(scenes, tmp_path, changes, message):
    config = toy_config(scenes, **changes.pop("train", {}))
    with pytest.raises(ConfigError, match=message):
        loop.train(dataclasses.replace(config, **changes), tmp_path)


def test_texts_that_are_cut_are_told_before_the_first_step(scenes, tmp_path, monkeypatch, capsys):
    def stop(batch, mesh):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "put_rows", stop)
    config = toy_config(scenes)
    data = dataclasses.replace(config.data, text_length=8)
    with pytest.raises(KeyboardInterrupt):
        loop.train(dataclasses.replace(config, data=data), tmp_path)
    assert re.search(
        r"\n\d+ of \d+ different texts are cut to config.data.text_length=8 tokens\n", capsys.readouterr().out
    )


@pytest.mark.slow
def test_profile_and_scan(scenes, tmp_path):
    config = toy_config(scenes, model={"layers": "scan"}, num_steps=3, profile=(1, 2), accumulate=1, optimizer="lion")
    loop.train(config, tmp_path)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert any("blocks" in path for path in paths(final_state(RunFolder.at(tmp_path))["params"]))

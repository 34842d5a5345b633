"""Runs that begin with a folder of transformers, are killed and continued, and go back as another of its classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import singlestream as ss  # noqa: E402
from singlestream.batch import Batch  # noqa: E402
from singlestream.config import Config, DataConfig, TrainConfig  # noqa: E402
from singlestream.data.record import RegionFeatures  # noqa: E402
from singlestream.interop import training  # noqa: E402
from singlestream.train import loop  # noqa: E402
from singlestream.train.sharding import make_mesh  # noqa: E402
from tests.train.test_kill import kill_when, last_step, start  # noqa: E402
from tests.train.toy import config_file  # noqa: E402

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "colour", "is", "it", "?", *map(str, range(20))]
ANSWERS = ["blue", "green", "red"]
QUESTIONS = ["what colour is it?", "is it 7?"]
REGION_DIM = 20
SIZES = dict(
    vocab_size=len(WORDS), hidden_size=42, num_attention_heads=3, intermediate_size=50, max_position_embeddings=12
)
# What a run begins with: class, sizes beside SIZES, and the class that it goes back as.
STARTS = {
    "vilt": (
        "ViltForMaskedLM",
        dict(num_hidden_layers=2, image_size=32, patch_size=8),
        "ViltForQuestionAnswering",
    ),
    "visualbert": (
        "VisualBertForPreTraining",
        dict(num_hidden_layers=2, visual_embedding_dim=REGION_DIM),
        "VisualBertForQuestionAnswering",
    ),
    "lxmert": (
        "LxmertForPreTraining",
        dict(l_layers=2, r_layers=1, x_layers=2, visual_feat_dim=REGION_DIM, num_qa_labels=9),
        "LxmertForQuestionAnswering",
    ),
}


def write_start(folder: Path, name: str, sizes: Mapping[str, Any]) -> None:
    """The reference with random weights, LayerNorms and biases too, and its vocabulary."""
    kind = getattr(transformers, name)
    generator = torch.Generator().manual_seed(0)
    model = kind(kind.config_class(**SIZES, **sizes))
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.3 * torch.randn(value.shape, generator=generator) + (value.ndim == 1))
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))


def shown(seed: int, family: str) -> Any:
    """A picture, or regions and their boxes."""
    rng = np.random.default_rng(seed)
    if family == "vilt":
        return Image.fromarray(rng.integers(0, 256, (24 + 8 * (seed % 2), 40, 3), np.uint8))
    count = 3 + seed % 3
    corners = np.sort(rng.random((count, 2, 2), np.float32), axis=1).reshape(count, 4)
    return RegionFeatures(features=rng.normal(size=(count, REGION_DIM)).astype(np.float32), boxes=corners)


def write_data(folder: Path, family: str) -> None:
    (folder / "pictures").mkdir(parents=True)
    for split, count in (("train", 12), ("validation", 4)):
        lines = []
        for i in range(count):
            name, what = f"{split}{i}", shown(i, family)
            if family == "vilt":
                what.save(folder / f"pictures/{name}.png")
            else:
                np.savez(folder / f"pictures/{name}.npz", features=what.features, norm_bb=what.boxes)
            picture = f"{name}.png" if family == "vilt" else name
            lines.append({"image": picture, "question": QUESTIONS[i % 2], "answer": ANSWERS[i % 3]})
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def settings(family: str, start: Path, data: Path) -> Config:
    options = {"images": "pictures"} if family == "vilt" else {"features": "pictures"}
    rows = dict(shorter_side=16, max_patches=6) if family == "vilt" else dict(max_patches=5)
    return Config(
        init=str(start),
        data=DataConfig(name="jsonl", dir=str(data), options=options, text_length=9, **rows),
        train=TrainConfig(
            **dict(num_steps=40, batch_size=4, warmup_steps=1, learning_rate=1e-2, ema_decay=0.5, huge_pages=False),
            **dict(log_every=10, eval_every=40, checkpoint_every=2),
            cache_dir=jax.config.jax_compilation_cache_dir or "none",
        ),
    )


def train_killed(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By train.py until a checkpoint is there, killed with SIGKILL; then on from it to the end."""
    process = start(config_file(config, folder.with_suffix(".py")), folder)
    assert kill_when(process, lambda: last_step(folder) >= 2)
    assert 2 <= last_step(folder) < config.train.num_steps
    monkeypatch.setattr(loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
    loop.train(config, folder, training)
    assert last_step(folder) == config.train.num_steps


def given(family: str, batch: Batch, folder: Path, pictures: list[Any]) -> dict[str, Any]:
    """The reference's inputs for a batch of ours; where there are pictures, its own processor makes them."""
    if family == "vilt":
        return dict(
            transformers.ViltProcessor.from_pretrained(folder)(pictures, QUESTIONS, padding=True, return_tensors="pt")
        )
    text, image = batch.text, batch.image
    seen = {"visual_attention_mask": torch.tensor(image.segments)}
    if family == "visualbert":
        seen["visual_embeds"] = torch.tensor(image.features)
    else:
        seen |= {"visual_feats": torch.tensor(image.features), "visual_pos": torch.tensor(image.boxes)}
    words = torch.tensor(text.ids, dtype=torch.long)
    return dict(input_ids=words, attention_mask=torch.tensor(text.segments), **seen)


@pytest.mark.filterwarnings("default")  # of transformers and what it imports
@pytest.mark.parametrize("family", STARTS)
def test_transformers_opens_a_tuned_run(family, tmp_path, monkeypatch):
    """No key missing, none unexpected; the answers are the run's, and their logits ours."""
    name, sizes, back = STARTS[family]
    write_start(tmp_path / "start", name, sizes)
    write_data(tmp_path / "data", family)
    train_killed(settings(family, tmp_path / "start", tmp_path / "data"), tmp_path / "run", monkeypatch)
    tuned = ss.load(tmp_path / "run")
    assert tuned.config.data.mask_last == (family == "visualbert")
    tuned.save_pretrained(tmp_path / "back")

    theirs, info = getattr(transformers, back).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), info
    assert theirs.config.architectures == [back]
    assert [theirs.config.id2label[i] for i in range(3)] == ANSWERS and theirs.config.label2id["red"] == 2

    pictures = [shown(seed, family) for seed in (50, 51)]
    batch = tuned.processor.batch_of(pictures, QUESTIONS)
    mine = np.asarray(tuned.heads["vqa"](tuned(batch)))[:, 0]
    with torch.no_grad():
        out = theirs.eval()(**given(family, batch, tmp_path / "back", pictures))
    expected = (out.question_answering_score if family == "lxmert" else out.logits).numpy()
    assert mine.shape == expected.shape == (2, len(ANSWERS))
    assert np.abs(mine - expected).max() <= 2e-5 * np.abs(expected).max()

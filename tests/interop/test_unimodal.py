"""BERT and ViT as teachers: the states that transformers gives for the text, or for the pictures, of a batch."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from singlestream.batch import make_batch  # noqa: E402
from singlestream.config import Config, ModelConfig  # noqa: E402
from singlestream.data.image import patchify_batch  # noqa: E402
from singlestream.interop import training  # noqa: E402
from singlestream.model.unimodal import pictures_alone, text_alone  # noqa: E402
from singlestream.train.teachers import fill_teachers, read_teachers  # noqa: E402
from tests.data.toy_bert import vocabulary, write_bert  # noqa: E402
from tests.model.toy import random_batch  # noqa: E402

from .compare import close  # noqa: E402
from .published import randomise  # noqa: E402

SIZES = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40)
PATCH = 8


def teachers(**folders):
    """The teachers of a run by name, with their parameters."""
    config = Config(
        model=ModelConfig(patch_size=PATCH),
        objectives={"distill_unimodal": 1.0},
        objective_options={"distill_unimodal": {name: str(folder) for name, folder in folders.items()}},
    )
    (models,) = read_teachers(config, training).values()
    state = {"distill_unimodal": {name: model.empty_params() for name, model in models.items()}}
    fill_teachers(state, config, training)
    return {name: model.with_params(state["distill_unimodal"][name]) for name, model in models.items()}


def test_states_and_words_of_bert(tmp_path):
    config = transformers.BertConfig(vocab_size=len(vocabulary()), max_position_embeddings=12, **SIZES)
    bert = randomise(transformers.BertForPreTraining(config), 3)
    bert.save_pretrained(write_bert(tmp_path / "bert"))
    batch = random_batch(0, text=7)
    ids = torch.tensor(np.asarray(batch.text.ids)).long()
    with torch.no_grad():
        expected = bert(ids, output_hidden_states=True)
    model = teachers(text=tmp_path / "bert")["text"]
    out = model(text_alone(batch))
    close(out.text, expected.hidden_states[-1], tolerance=2e-5)
    close(model.heads["mlm"](out), expected.prediction_logits, tolerance=2e-5)


@pytest.mark.parametrize("settings", [{}, {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}])
def test_states_of_vit(settings, tmp_path):
    """Also with pixels normalised as DeiT's; with a second picture in the row, and a margin around each patch."""
    vit = randomise(transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=PATCH, **SIZES)), 4)
    vit.save_pretrained(tmp_path)
    processor = transformers.ViTImageProcessor(do_resize=False, **settings)
    processor.save_pretrained(tmp_path)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 2, 32, 32, 3)).astype(np.uint8)
    theirs = processor(list(pictures.reshape(4, 32, 32, 3)), return_tensors="pt")
    with torch.no_grad():
        expected = vit(**theirs).last_hidden_state[:, 1:].reshape(2, 32, 24)
    first, second = (patchify_batch(pictures[:, i], PATCH, margin=2) for i in range(2))
    image = jax.tree.map(lambda *parts: np.concatenate(parts, 1), first, second)
    index = np.broadcast_to(np.repeat(np.arange(2, dtype=np.int32), 16), (2, 32))
    batch = make_batch(text=random_batch(0).text, image=dataclasses.replace(image, index=index))
    out = teachers(image=tmp_path)["image"](pictures_alone(batch, patch_size=PATCH, num_images=2))
    close(out.image, expected, tolerance=2e-5)

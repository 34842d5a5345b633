"""Models of one modality as a start: what they have is taken, the rest stays fresh."""

from __future__ import annotations

import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import singlestream as ss  # noqa: E402
from singlestream.batch import Spec, Text, make_batch  # noqa: E402
from singlestream.config import Config, DataConfig, TwoStreamConfig  # noqa: E402
from singlestream.interop import training  # noqa: E402
from singlestream.interop.build import by_path  # noqa: E402
from singlestream.model.build import build_model  # noqa: E402
from singlestream.model.heads import HeadConfig  # noqa: E402
from singlestream.train.initial import adopt_model, read_initial  # noqa: E402

from .compare import close  # noqa: E402
from .published import randomise, tree_by_path  # noqa: E402

SIZES = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40)


def saved(model, folder):
    randomise(model, 3).save_pretrained(folder)
    with pytest.warns(UserWarning, match="fresh, not in the file: embed/"):
        return ss.load(folder)


def test_bert_reads_text_as_before(tmp_path):
    """Without a region the model is BERT: states, pooled vector and masked words."""
    bert = transformers.BertForPreTraining(transformers.BertConfig(vocab_size=60, max_position_embeddings=12, **SIZES))
    model = saved(bert, tmp_path)
    ids = np.random.default_rng(0).integers(5, 60, (2, 7)).astype(np.int32)
    with torch.no_grad():
        expected = bert.bert(torch.tensor(ids))
        words = bert(torch.tensor(ids)).prediction_logits
    out = model(make_batch(text=Text(ids=ids)))
    close(out.text, expected.last_hidden_state, tolerance=2e-5)
    close(out.pooled[:, 0], expected.pooler_output, tolerance=2e-5)
    close(model.heads["mlm"](out), words, tolerance=2e-5)
    assert model.account.fresh == (
        *("embed/image/position/table", "embed/image/stem/bias", "embed/image/stem/kernel"),
        "embed/modality/table/embedding",
    )
    with pytest.raises(ss.ConfigError, match="a start from bert, which is read and not written"):
        model.save_pretrained(tmp_path / "out")


@pytest.mark.parametrize("kind", ["ViTModel", "ViTForImageClassification", "DeiTModel"])
def test_vit_gives_patches_positions_and_layers(kind, tmp_path):
    config = transformers.DeiTConfig if kind == "DeiTModel" else transformers.ViTConfig
    vit = getattr(transformers, kind)(config(image_size=32, patch_size=8, **SIZES))
    model = saved(vit, tmp_path)
    mine = tree_by_path(model.params)
    theirs = {key.removeprefix("vit."): value.numpy() for key, value in _on_disk(tmp_path).items()}
    tokens = 2 if kind.startswith("DeiT") else 1
    positions = theirs["embeddings.position_embeddings"][0]
    np.testing.assert_array_equal(mine["embed/image/position/table"].reshape(16, -1), positions[tokens:])
    np.testing.assert_array_equal(mine["embed/cls/position"], positions[0])
    np.testing.assert_array_equal(mine["embed/cls/token"], theirs["embeddings.cls_token"][0, 0])
    kernel = mine["embed/image/stem/project/kernel"].reshape(8, 8, 3, -1)
    np.testing.assert_array_equal(kernel[1, 2, 0], theirs["embeddings.patch_embeddings.projection.weight"][:, 0, 1, 2])
    up = theirs["encoder.layer.1.intermediate.dense.weight"]
    np.testing.assert_array_equal(mine["encoder/blocks/mlp/up/kernel"][1], up.T)
    assert all(path.startswith(("embed/text/", "embed/modality/", "pooler/")) for path in model.account.fresh)


def _on_disk(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(("size", "layers"), [("lxmert_tiny", 2), ("vilbert_tiny", 4)])
def test_bert_starts_the_text_of_two_streams(size, layers, tmp_path):
    """Its first layers, words, and the head of masked words; a stream of text alone then is BERT."""
    words = [*("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), *(f"w{i}" for i in range(20))]
    sizes = dict(hidden_size=96, num_hidden_layers=4, num_attention_heads=3, intermediate_size=384)
    bert = transformers.BertForPreTraining(transformers.BertConfig(vocab_size=25, max_position_embeddings=12, **sizes))
    randomise(bert, 3).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert/vocab.txt").write_text("\n".join(words))
    config = Config(
        init=str(tmp_path / "bert"),
        data=DataConfig(text_length=12),
        model=TwoStreamConfig.named(size, max_text_length=12, region_dim=6),
        objectives={"mlm": 1.0},
    )
    assert adopt_model(config, training) == config
    initial = read_initial(config, training)
    theirs = {key: value.numpy() for key, value in _on_disk(tmp_path / "bert").items()}
    for i in range(layers):
        up = theirs[f"bert.encoder.layer.{i}.intermediate.dense.weight"]
        np.testing.assert_array_equal(initial.params["text/blocks/mlp/up/kernel"][i], up.T)
    heads = {"mlm": HeadConfig(kind="vocabulary", size=25, source="text")}
    shapes = by_path(build_model(config.model, Spec(vocab_size=25), heads=heads, rngs=nnx.Rngs(0)))
    taken = {
        path for path, leaf in shapes.items() if path in initial.params and initial.params[path].shape == leaf.shape
    }
    fresh = {path for path in shapes if path not in taken}
    assert [p for p in sorted(fresh) if not p.startswith(("embed/image/", "image/", "cross/", "pooler/"))] == []

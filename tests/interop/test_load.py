"""A folder that transformers wrote: loaded, asked, written, and opened by transformers again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import singlestream as ss  # noqa: E402

from . import test_vilt, test_visualbert  # noqa: E402
from .compare import close  # noqa: E402
from .published import ours  # noqa: E402

REFERENCES = {
    **{("VisualBert", name): test_visualbert for name in (*test_visualbert.CLASSES, "ForRegionToPhraseAlignment")},
    **{("Vilt", name): test_vilt for name in test_vilt.CLASSES},
}


@pytest.fixture(params=REFERENCES, ids="".join)
def published(request, tmp_path):
    """The reference, its class, and its folder."""
    family, name = request.param
    model = REFERENCES[request.param].reference(name, "odd")
    model.save_pretrained(tmp_path / "theirs")
    return model, getattr(transformers, f"{family}{name}"), tmp_path / "theirs"


def test_transformers_opens_what_is_written(published, tmp_path):
    """No missing key, no unexpected one, and every tensor bit for bit."""
    model, kind, folder = published
    ss.load(folder).save_pretrained(tmp_path / "ours")
    again, info = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), info
    theirs = model.state_dict()
    assert theirs.keys() == again.state_dict().keys()
    for key, value in again.state_dict().items():
        assert torch.equal(value, theirs[key]), key
    assert json.loads((tmp_path / "ours/config.json").read_text())["architectures"] == [kind.__name__]


def test_a_loaded_model_encodes(tmp_path):
    model = test_vilt.reference("ForQuestionAnswering", "odd")
    model.save_pretrained(tmp_path)
    theirs, batch, _ = test_vilt.inputs()
    with torch.no_grad():
        expected = model(**theirs).logits
    loaded = ss.load(tmp_path)
    close(loaded.heads["vqa"](loaded(batch))[:, 0], expected, tolerance=2e-5)


@pytest.mark.parametrize("act", ["relu", "gelu_new"])
def test_the_activation_is_that_of_the_settings(act):
    """Of the layers and of the masked-language head; ViLT's classifier has GELU whatever they say."""
    for family, name, head in (
        (test_vilt, "ForQuestionAnswering", "vqa"),
        (test_visualbert, "ForQuestionAnswering", "vqa"),
        (test_vilt, "ForMaskedLM", "mlm"),
    ):
        model = family.reference(name, "odd", hidden_act=act)
        theirs, batch, text, *_ = family.inputs()
        with torch.no_grad():
            expected = model(**theirs).logits.numpy()
        module, _ = ours(model)
        logits = np.asarray(module.heads[head](module(batch)))
        mine, expected = (logits[text], expected[:, :9][text]) if head == "mlm" else (logits[:, 0], expected)
        close(mine, expected, tolerance=2e-5)


def test_weights_without_settings_get_some_that_transformers_opens(tmp_path):
    """As many heads of attention as published models of that width have."""
    sizes = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=32)
    for (family, name), source in REFERENCES.items():
        model = source.reference(name, "odd", **sizes)
        torch.save(model.state_dict(), tmp_path / f"{family}{name}.bin")
        ss.load(tmp_path / f"{family}{name}.bin").save_pretrained(tmp_path / name)
        kind = getattr(transformers, f"{family}{name}")
        again, info = kind.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), (kind, info)
        assert again.config.num_attention_heads == 1


def test_a_file_that_does_not_fit_is_refused_whole(tmp_path):
    model = test_visualbert.reference("ForPreTraining", "odd")
    model.save_pretrained(tmp_path)
    tensors = model.state_dict()
    del tensors["visual_bert.pooler.dense.bias"]
    tensors["left.over"] = torch.zeros(2)
    tensors["cls.seq_relationship.bias"] = torch.zeros(2)
    key = "visual_bert.encoder.layer.1.output.dense.weight"
    tensors[key] = torch.zeros(3, 4)
    Path(tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(ss.WeightsError) as told:
        ss.load(tmp_path)
    for part in ("missing: visual_bert.pooler.dense.bias", "not known here: left.over", f"{key} is [3, 4], expected"):
        assert part in str(told.value)
    with pytest.warns(UserWarning) as warned:
        part = ss.load(tmp_path, strict=False)
    assert any("left.over" in str(each.message) for each in warned)
    taken = np.asarray(part.params["heads"]["itm"]["out"]["kernel"])
    np.testing.assert_array_equal(taken.T, tensors["cls.seq_relationship.weight"].numpy())


def test_what_is_no_published_model(tmp_path):
    with pytest.raises(ss.RunError, match="no such folder"):
        ss.load(tmp_path / "nowhere")
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "some.bin")
    with pytest.raises(
        ss.WeightsError, match=r"some.bin holds no model of a known family \(.*vilt.*\); it begins with a"
    ):
        ss.load(tmp_path / "some.bin")

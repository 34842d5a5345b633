"""A model of BERT-base's size through the whole path. `weights.py` calls each step in a process of its own:

    make    transformers makes and writes it with random numbers, and writes down what it gives for a batch
    ours    `singlestream.load` reads it, runs it on the batch, and `save_pretrained` writes it
    theirs  transformers opens what was written here, runs it on the batch, and writes it

Each prints what it measured as JSON. `make` and `theirs` need torch and transformers, `ours` needs neither.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from memory import measured

CLASSES = {
    "vilt": "ViltForQuestionAnswering",
    "visualbert": "VisualBertForPreTraining",
    "lxmert": "LxmertForPreTraining",
}
NAMES = {"vilt": "ViLT-B/32, pictures of 384 pixels", "visualbert": "VisualBERT", "lxmert": "LXMERT, 9/5/5 layers"}
# What differs from transformers' own defaults.
SIZES = {"vilt": {"num_labels": 3129}, "visualbert": {"visual_embedding_dim": 2048}, "lxmert": {}}
# What the reference calls our heads' logits.
LOGITS = {
    "vilt": {"vqa": "logits"},
    "visualbert": {"mlm": "prediction_logits", "itm": "seq_relationship_logits"},
    "lxmert": {
        "mlm": "prediction_logits",
        "itm": "cross_relationship_score",
        "vqa": "question_answering_score",
    },
}
ROWS, WORDS, REGIONS, FEATURES, VOCABULARY = 4, 40, 36, 2048, 30522
PICTURE, PATCH = 384, 32
RUNS = 5  # forward passes that are timed, after the first


def inputs(family: str) -> dict[str, np.ndarray]:
    """Random texts of several lengths beside pictures, or regions of which some are padding."""
    rng = np.random.default_rng(0)
    text = (np.arange(WORDS) < np.array([WORDS, 12, 30, 7])[:, None]).astype(np.int32)
    given = {"text": text, "ids": rng.integers(1000, VOCABULARY, text.shape, np.int32) * text}
    if family == "vilt":
        return {**given, "pixels": rng.integers(0, 256, (ROWS, PICTURE, PICTURE, 3), np.uint8)}
    return {
        **given,
        "image": (np.arange(REGIONS) < np.array([REGIONS, 10, 20, 30])[:, None]).astype(np.int32),
        "features": rng.standard_normal((ROWS, REGIONS, FEATURES), np.float32),
        "boxes": np.sort(rng.random((ROWS, REGIONS, 2, 2), np.float32), axis=2).reshape(ROWS, REGIONS, 4),
    }


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What the first run gives, and the median seconds of the others."""
    first, seconds = run(), []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return first, statistics.median(seconds)


def seconds_of(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# ---- here ------------------------------------------------------------------------------------------------------------


def ours(family: str, folder: Path) -> dict[str, Any]:
    """Reads `folder/made`, writes `folder/ours`."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import jax
    from flax import nnx

    import singlestream as ss
    from singlestream.loading import load  # `ss.load` imports it when it is called first; that is not reading

    jax.block_until_ready(jax.numpy.zeros(()))  # nor is the backend's start
    model, found = measured(lambda: load(folder / "made"))
    given = inputs(family)
    if family == "vilt":
        image: Any = ss.patchify(given["pixels"], patch_size=PATCH)
    else:
        boxes = given["boxes"] if family == "lxmert" else None
        image = ss.Regions(features=given["features"], boxes=boxes, segments=given["image"])
    batch = ss.make_batch(text=ss.Text(ids=given["ids"], segments=given["text"]), image=image)

    @jax.jit
    def forward(params: Any) -> dict[str, Any]:
        module = nnx.merge(model.graphdef, params)
        encoded = module(batch)
        return {name: module.heads[name](encoded) for name in LOGITS[family]}

    start = time.perf_counter()
    jax.block_until_ready(forward(model.params))
    found["first"] = time.perf_counter() - start
    logits, found["forward"] = timed(lambda: jax.block_until_ready(forward(model.params)))
    found["save"] = seconds_of(lambda: model.save_pretrained(folder / "ours"))
    with np.load(folder / "logits.npz") as expected:
        return {**found, "parameters": model.num_parameters, **differences(logits, expected, given["text"] > 0)}


def differences(logits: Mapping[str, Any], expected: Mapping[str, np.ndarray], words: np.ndarray) -> dict[str, Any]:
    """The largest relative to the largest value, of the head where that is most; how often the argmax is another."""
    worst, other, count = 0.0, 0, 0
    for name in logits:
        mine, reference = np.asarray(logits[name]), expected[name]
        mine, reference = (mine[words], reference[:, :WORDS][words]) if name == "mlm" else (mine[:, 0], reference)
        worst = max(worst, float(np.abs(mine - reference).max() / np.abs(reference).max()))
        other += int((mine.argmax(-1) != reference.argmax(-1)).sum())
        count += len(mine)
    return {"difference": worst, "other_argmax": other, "vectors": count}


# ---- transformers ----------------------------------------------------------------------------------------------------


def their_inputs(family: str) -> dict[str, Any]:
    import torch

    given = inputs(family)
    found = {"input_ids": torch.tensor(given["ids"]).long(), "attention_mask": torch.tensor(given["text"])}
    if family == "vilt":
        pixels = given["pixels"].transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
        return {**found, "pixel_values": torch.tensor(pixels)}
    features, boxes, image = (torch.tensor(given[name]) for name in ("features", "boxes", "image"))
    if family == "visualbert":
        return {**found, "visual_embeds": features, "visual_attention_mask": image}
    return {**found, "visual_feats": features, "visual_pos": boxes, "visual_attention_mask": image}


def make(family: str, folder: Path) -> dict[str, Any]:
    """Writes `folder/made` and the logits. LayerNorms and biases, which start at 1 and 0, are drawn, too."""
    import torch
    import transformers

    torch.manual_seed(0)
    kind = getattr(transformers, CLASSES[family])
    model = kind(kind.config_class(**SIZES[family])).eval()
    with torch.inference_mode():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.02 * torch.randn(parameter.shape))
        out = model(**their_inputs(family))
    model.save_pretrained(folder / "made")
    np.savez(folder / "logits.npz", **{name: out[theirs].numpy() for name, theirs in LOGITS[family].items()})
    return {"bytes": (folder / "made" / "model.safetensors").stat().st_size}


def theirs(family: str, folder: Path) -> dict[str, Any]:
    """Reads `folder/ours`, holds it against `folder/made`, writes `folder/theirs`."""
    import torch
    import transformers
    from safetensors.torch import load_file

    kind = getattr(transformers, CLASSES[family])

    def read() -> Any:
        model, report = kind.from_pretrained(folder / "ours", output_loading_info=True)
        # It maps the file; each number is looked at once, so that it has been read as it has been here.
        return model.eval(), report, [float(parameter.detach().sum()) for parameter in model.parameters()]

    (model, report, _), found = measured(read)
    given = their_inputs(family)
    with torch.inference_mode():
        _, found["forward"] = timed(lambda: model(**given))
    found["save"] = seconds_of(lambda: model.save_pretrained(folder / "theirs"))
    made, written = (load_file(folder / name / "model.safetensors") for name in ("made", "ours"))
    opened = model.state_dict()
    equal = [
        key in written and all(torch.equal(bits(value), bits(other[key])) for other in (written, opened))
        for key, value in made.items()
    ]
    problems = [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]]
    problems += sorted(written.keys() - made.keys())
    return {**found, "tensors": len(made), "equal": sum(equal), "problems": problems}


def bits(tensor: Any) -> Any:
    """So that -0 is not 0."""
    import torch

    return tensor.detach().view(torch.int32) if tensor.dtype == torch.float32 else tensor


if __name__ == "__main__":
    step = {"make": make, "ours": ours, "theirs": theirs}[sys.argv[1]]
    print(json.dumps(step(sys.argv[2], Path(sys.argv[3]))))

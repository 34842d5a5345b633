"""The one contract of shapes: what data makes, the model reads, and objectives measure.

Letters, used everywhere: B rows, T text tokens, N image tokens, A audio tokens, E learned tokens an example,
L = T + N + A + K*E tokens of a row, K examples per row, D width, H heads. Most batches have no audio: A is 0.

An *example* is one picture (or pair, or frames) and one text. A row holds one example, several packed side by side
(segments 1, 2, ...), or several texts that share one picture (one segment, parts 1, 2, ...). Who sees whom follows from
two integers a token, and from nothing else (`singlestream.model.visibility`):

    a query sees a key iff their segments are equal and not 0, and the key's part is 0 or the query's own.

Arrays may be numpy or jax arrays; the dataclasses are pytrees, so `jax.jit` takes and returns them whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int32, Shaped, UInt8

if TYPE_CHECKING:
    # A checker would want a cast wherever an array meets Flax; what arrays must be, jaxtyping checks in the tests.
    Array = Any
    Size = int
else:
    Array = jax.Array | np.ndarray
    Size = Any  # no int while `singlestream.program` lowers a model for batches of every size

TEXT, IMAGE, EXTRA, AUDIO = 0, 1, 2, 3  # values of Stream.modality; EXTRA: bottlenecks, which are of none
NONE, ALL = -1, -2  # in targets["edges"]: (NONE, NONE) is no edge, (i, ALL) joins token i with all of its modality


class BatchError(ValueError):
    """A batch that does not fit the contract; its message names the field and says what was expected."""


def _pytree(cls: type) -> type:
    """Registers a frozen dataclass as a pytree whose unflattening skips `__init__`.

    jax also puts things that are no arrays into the leaves (shardings, `ShapeDtypeStruct`s); those must not meet the
    shape checks that jaxtyping hangs on `__init__` in the tests.
    """
    names = tuple(f.name for f in dataclasses.fields(cls) if not f.metadata.get("static"))
    static = tuple(f.name for f in dataclasses.fields(cls) if f.metadata.get("static"))
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in names)

    def meta(value: Any) -> tuple[Any, ...]:
        return tuple(getattr(value, name) for name in static)

    def flatten_with_keys(value: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        return [(key, getattr(value, name)) for key, name in zip(keys, names, strict=True)], meta(value)

    def flatten(value: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(value, name) for name in names], meta(value)

    def unflatten(aux: tuple[Any, ...], leaves: Any) -> Any:
        value: Any = object.__new__(cls)
        for name, leaf in (*zip(names, leaves, strict=True), *zip(static, aux, strict=True)):
            object.__setattr__(value, name, leaf)
        return value

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


@_pytree
@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """Text tokens: `ids`, `positions` within their text, `types` (sentence A or B), `segments`, `part`.

    `slots` is a promise that lets attention skip work: T is divided into that many equal stretches, and no token
    sees text of another stretch than its own. `make_batch` holds it against `segments` and `part`.
    """

    ids: Int32[Array, "B T"]
    positions: Int32[Array, "B T"] | None = None
    types: Int32[Array, "B T"] | None = None
    segments: Int32[Array, "B T"] | None = None
    part: Int32[Array, "B T"] | None = None
    slots: int = dataclasses.field(default=1, metadata={"static": True})


@_pytree
@dataclasses.dataclass(frozen=True, kw_only=True)
class Patches:
    """Image tokens that are windows of pixels, in raster order.

    `pixels` holds the window of each patch, row by row, channels last: a square of P pixels with a margin of m on
    each side, which only a convolutional stem reads. `yx` is the patch's place in its picture's own `grid` (rows,
    columns); `index` counts the pictures of one example (pairs, frames).
    """

    pixels: UInt8[Array, "B N C"]
    yx: Int32[Array, "B N 2"]
    grid: Int32[Array, "B N 2"]
    index: Int32[Array, "B N"] | None = None
    segments: Int32[Array, "B N"] | None = None
    part: Int32[Array, "B N"] | None = None


@_pytree
@dataclasses.dataclass(frozen=True, kw_only=True)
class Regions:
    """Image tokens that are regions of a detector: `features`, and `boxes` (x0, y0, x1, y1) in [0, 1].

    `words`, where alignments are known, are the positions in its text (`Text.positions`) of the words that speak of a
    region, up to A of them, then -1.
    """

    features: Float[Array, "B N F"]
    boxes: Float[Array, "B N 4"] | None = None
    words: Int32[Array, "B N A"] | None = None
    index: Int32[Array, "B N"] | None = None
    segments: Int32[Array, "B N"] | None = None
    part: Int32[Array, "B N"] | None = None


@_pytree
@dataclasses.dataclass(frozen=True, kw_only=True)
class Audio:
    """Audio tokens that are windows of a log-mel spectrogram, in the order of their `time`.

    `features` holds a window's bands, column by column (`data.audio.log_mel`); `time` counts the windows of an example
    from its beginning, `config.model.audio_per_frame` of them to each frame of its video (`Patches.index`).
    """

    features: Float[Array, "B A F"]
    time: Int32[Array, "B A"] | None = None
    segments: Int32[Array, "B A"] | None = None
    part: Int32[Array, "B A"] | None = None


@_pytree
@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """What the pipeline yields and every objective reads.

    `examples[b, k]` is the (segment, part) of row b's k-th example, (0, 0) where there is none; `example_mask` is
    True where it counts; `picture[b, k]` identifies the source of its picture, so that a negative is never the same.
    `pictures` is a promise that spares room where image tokens are pruned: no row has image tokens of more segments; 0:
    not told.
    """

    inputs: dict[str, Text | Patches | Regions | Audio]
    examples: Int32[Array, "B K 2"]
    example_mask: Bool[Array, "B K"]
    picture: Int32[Array, "B K"]
    targets: dict[str, Shaped[Array, "B ..."]] = dataclasses.field(default_factory=dict)
    pictures: int = dataclasses.field(default=0, metadata={"static": True})

    @property
    def text(self) -> Text:
        return self.inputs["text"]  # type: ignore[return-value]

    @property
    def image(self) -> Patches | Regions:
        return self.inputs["image"]  # type: ignore[return-value]

    @property
    def audio(self) -> Audio | None:
        return self.inputs.get("audio")  # type: ignore[return-value]

    def replace(self, **changes: Any) -> Batch:
        """The same batch with some fields, or some `inputs` by name (`text=`, `image=`, `audio=`), changed."""
        inputs = {k: changes.pop(k) for k in tuple(changes) if k in self.inputs}
        return dataclasses.replace(self, inputs={**self.inputs, **inputs}, **changes)


@_pytree
@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """What the encoder reads: one sequence of tokens, text first, then image, then audio."""

    x: Float[Array, "B L D"]
    segments: Int32[Array, "B L"]
    part: Int32[Array, "B L"]
    modality: Int32[Array, "B L"]


@_pytree
@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """What a model returns: final states by modality, one `pooled` vector an example.

    `audio` is None where the batch has none.
    `extra` holds what only some models have: `image_cls` [B, K, D], the states of the images' class tokens;
    `bottlenecks` [B, K, E, D], those of an example's bottlenecks; `modality_weights` [B, K, 2], the shares of text and
    image in `pooled`; `decisions` [B, K, 2, D], of text and image, which heads read each by itself in place of
    `pooled`; `channel_gates` [B, L, D], what the stream was multiplied by before the layers on both;
    `second_last` [B, K, D], those of each text's last token but one; `decoder` [B, T, D], those of text tokens in a
    decoder, beside which the encoder has read no text.
    `hidden[i]` is the state [B, L, D] after layer i + 1 (of the unrolled or stacked layers). `attention` is filled
    only where it was asked for: {"self": [layers, B, H, Q, K]}.
    """

    text: Float[Array, "B T Dt"]
    image: Float[Array, "B N Di"]
    pooled: Float[Array, "B K D"]
    audio: Float[Array, "B A D"] | None = None
    extra: dict[str, Array] = dataclasses.field(default_factory=dict)
    hidden: Any = None
    attention: dict[str, Array] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """What the data fixes and heads need: sizes of vocabularies, ids of special tokens. Kept with a run.

    `region_classes` gives the number of classes of each attribute of a region, without the background;
    `continuations` are the ids of word pieces that continue a word (`##ing`).
    """

    vocab_size: int
    pad_id: int = 0
    unk_id: int = 1
    cls_id: int = 2
    sep_id: int = 3
    mask_id: int = 4
    num_answers: int = 0
    region_classes: tuple[int, ...] = ()
    continuations: tuple[int, ...] = ()


def without_image(batch: Batch) -> Batch:
    """The same batch with the pictures taken away: nobody sees an image token."""
    hidden = dataclasses.replace(batch.image, segments=batch.image.segments * 0)  # type: ignore[operator]
    return batch.replace(image=hidden)


def without_audio(batch: Batch) -> Batch:
    """The same batch with the sound taken away: nobody sees an audio token. One without audio stays what it is."""
    if batch.audio is None:
        return batch
    return batch.replace(audio=dataclasses.replace(batch.audio, segments=batch.audio.segments * 0))  # type: ignore[operator]


def without_text(batch: Batch) -> Batch:
    """The same batch with no text token, and nothing of the texts in its pictures."""
    text = batch.text
    none = {field.name: getattr(text, field.name)[:, :0] for field in dataclasses.fields(text) if field.name != "slots"}
    image = batch.image
    if isinstance(image, Regions):
        image = dataclasses.replace(image, words=None)  # they tell a region where in the text it is spoken of
    return batch.replace(text=Text(**none), image=image)


def make_batch(
    *,
    text: Text,
    image: Patches | Regions | None = None,
    audio: Audio | None = None,
    picture: Int32[Array, "B K"] | None = None,
    pictures: int = 0,
    targets: Mapping[str, Array] | None = None,
) -> Batch:
    """Completes the optional fields and gathers them into a `Batch` (numpy in, numpy out).

    Args:
        text: only `ids` is needed; `segments` defaults to 1 everywhere, `positions` are counted within each
            (segment, part), `types` and `part` default to 0.
        image: likewise; without one the batch has an image of no tokens.
        audio: likewise, `time` counted from 0; without one the batch has none.
        picture: identity of each example's picture; by default every segment of every row has its own.
        pictures: segments that a row has at most; 0: not told.
        targets: arrays by name, as objectives ask for them.

    Raises:
        BatchError: a field of the wrong rank, dtype or size, by name; `text.slots` that a text crosses;
            `pictures` that a row exceeds; `targets["edges"]` that number no tokens.
    """
    text = _complete_text(text)
    batch = text.ids.shape[0]
    if image is None:
        image = Regions(features=np.zeros((batch, 0, 0), np.float32))
    image = _complete_image(image)
    examples = _examples(np.asarray(text.segments), np.asarray(text.part))
    if picture is None:
        rows = np.arange(batch, dtype=np.int32)[:, None] * (int(examples[..., 0].max(initial=0)) + 1)
        picture = np.where(examples[..., 0] > 0, rows + examples[..., 0], 0).astype(np.int32)
    inputs: dict[str, Text | Patches | Regions | Audio] = {"text": text, "image": image}
    if audio is not None:
        inputs["audio"] = _complete_audio(audio)
    result = Batch(
        inputs=inputs,
        examples=examples,
        example_mask=examples[..., 0] > 0,
        picture=picture,
        targets=dict(targets or {}),
        pictures=pictures,
    )
    check_batch(result)
    if pictures:
        _check_pictures(np.asarray(image.segments), pictures)
    if text.slots > 1:
        _check_slots(np.asarray(text.segments), np.asarray(text.part), text.slots)
    if "edges" in result.targets:
        _check_edges(np.asarray(result.targets["edges"]), text.ids.shape[1] + np.asarray(image.segments).shape[1])
    return result


def _check_edges(edges: np.ndarray, num_tokens: int) -> None:
    if edges.ndim != 3 or edges.shape[2] != 2 or edges.dtype != np.int32:
        raise BatchError(f"targets['edges'] is {edges.dtype}{list(edges.shape)}, expected int32[B, any, 2]")
    first, second = edges[..., 0], edges[..., 1]
    joins = (first >= 0) & (np.maximum(first, second) < num_tokens) & ((second >= 0) | (second == ALL))
    wrong = np.argwhere(~joins & (edges != NONE).any(-1))
    if len(wrong):
        row, number = wrong[0]
        raise BatchError(
            f"targets['edges']: edge {number} of row {row} is {edges[row, number].tolist()}, but a row's tokens, text "
            f"and then image, are 0 to {num_tokens - 1}; ({NONE}, {NONE}) is no edge, (i, {ALL}) joins token i with all"
        )


def _check_pictures(segments: np.ndarray, pictures: int) -> None:
    for number, row in enumerate(segments):
        if (there := len(np.unique(row[row > 0]))) > pictures:
            raise BatchError(
                f"pictures={pictures} promises so many segments a row at most, but row {number} has {there} with image "
                "tokens: raise it, or leave it at 0"
            )


def _check_slots(segments: np.ndarray, part: np.ndarray, slots: int) -> None:
    slot = np.arange(segments.shape[1]) * slots // segments.shape[1]
    seen = (segments[:, :, None] == segments[:, None]) & (segments[:, None] != 0)
    seen &= (part[:, None] == 0) | (part[:, :, None] == part[:, None])
    crossing = np.argwhere(seen & (slot[:, None] != slot))
    if len(crossing):
        row, query, key = crossing[0]
        raise BatchError(
            f"text.slots={slots} promises texts that stay in their slots, but in row {row} token {query} of slot "
            f"{slot[query]} sees token {key} of slot {slot[key]}: move the text, or leave slots at 1"
        )


def _examples(segments: np.ndarray, part: np.ndarray) -> Int32[np.ndarray, "B K 2"]:
    """The (segment, part) of each example of each row, in the order in which their texts begin."""
    rows = []
    for s, p in zip(segments, part, strict=True):
        pairs = np.stack([s, p], axis=1)[s > 0]
        _, first = np.unique(pairs, axis=0, return_index=True)
        rows.append(pairs[np.sort(first)])
    result = np.zeros((len(rows), max([len(r) for r in rows] + [1]), 2), np.int32)
    for i, row in enumerate(rows):
        result[i, : len(row)] = row
    return result


def count_positions(segments: Array, part: Array) -> Int32[np.ndarray, "B T"]:
    """Position of each token within its (segment, part), whatever lies between; 0 for padding."""
    segments, part = np.asarray(segments), np.asarray(part)
    same = (segments[:, :, None] == segments[:, None, :]) & (part[:, :, None] == part[:, None, :])
    before = np.tril(np.ones(same.shape[1:], bool), -1)
    return np.where(segments > 0, (same & before).sum(-1), 0).astype(np.int32)


def _complete_text(text: Text) -> Text:
    ids = np.asarray(text.ids)
    if ids.ndim != 2:
        raise BatchError(f"text.ids: expected [B, T] of int32, got shape {ids.shape}")
    segments = _or(text.segments, lambda: np.ones(ids.shape, np.int32))
    part = _or(text.part, lambda: np.zeros(ids.shape, np.int32))
    return Text(
        ids=_int32(ids),
        segments=segments,
        part=part,
        types=_or(text.types, lambda: np.zeros(ids.shape, np.int32)),
        slots=text.slots,
        positions=_or(text.positions, lambda: count_positions(segments, part)),
    )


def _complete_image(image: Patches | Regions) -> Patches | Regions:
    lead = image.pixels if isinstance(image, Patches) else image.features
    if np.ndim(lead) != 3:
        name = "pixels" if isinstance(image, Patches) else "features"
        raise BatchError(f"image.{name}: expected [B, N, size], got shape {np.shape(lead)}")
    shape = lead.shape[:2]
    common: dict[str, Any] = dict(
        index=_or(image.index, lambda: np.zeros(shape, np.int32)),
        segments=_or(image.segments, lambda: np.ones(shape, np.int32)),
        part=_or(image.part, lambda: np.zeros(shape, np.int32)),
    )
    if isinstance(image, Patches):
        return dataclasses.replace(image, yx=_int32(image.yx), grid=_int32(image.grid), **common)
    whole = np.broadcast_to(np.array([0, 0, 1, 1], np.float32), (*shape, 4))
    boxes = whole if image.boxes is None else image.boxes
    words = None if image.words is None else _int32(image.words)
    return dataclasses.replace(image, boxes=boxes, words=words, **common)


def _complete_audio(audio: Audio) -> Audio:
    if np.ndim(audio.features) != 3:
        raise BatchError(f"audio.features: expected [B, A, size], got shape {np.shape(audio.features)}")
    shape = audio.features.shape[:2]
    return dataclasses.replace(
        audio,
        time=_or(audio.time, lambda: np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)),
        segments=_or(audio.segments, lambda: np.ones(shape, np.int32)),
        part=_or(audio.part, lambda: np.zeros(shape, np.int32)),
    )


def _or(value: Array | None, default: Any) -> Array:
    return default() if value is None else _int32(value)


def _int32(value: Array) -> Array:
    """Host integers of another width become int32, as jax would make them; anything else is left for the check."""
    if isinstance(value, jax.Array):
        return value
    value = np.asarray(value)
    return value.astype(np.int32) if value.dtype.kind in "iu" else value


def check_batch(batch: Batch) -> None:
    """Holds a batch against the contract; shapes and dtypes only, so it also works on tracers.

    Raises:
        BatchError: names every field that is wrong, what was found and what was expected.
    """
    text, image = batch.text, batch.image
    rows, length = _shape(text.ids, 2)
    _, num_image = _shape(image.pixels if isinstance(image, Patches) else image.features, 3)[:2]
    num_examples = _shape(batch.examples, 3)[1]
    expect: list[tuple[str, Any, tuple[int | None, ...], str]] = [
        (f"text.{name}", getattr(text, name), (rows, length), "int32")
        for name in ("ids", "positions", "types", "segments", "part")
    ]
    expect += [(f"image.{name}", getattr(image, name), (rows, num_image), "int32") for name in _IMAGE_INTS]
    if isinstance(image, Patches):
        expect += [("image.pixels", image.pixels, (rows, num_image, None), "uint8")]
        expect += [(f"image.{n}", getattr(image, n), (rows, num_image, 2), "int32") for n in ("yx", "grid")]
    else:
        expect += [("image.features", image.features, (rows, num_image, None), "float")]
        expect += [("image.boxes", image.boxes, (rows, num_image, 4), "float")]
        if image.words is not None:
            expect += [("image.words", image.words, (rows, num_image, None), "int32")]
    if (audio := batch.audio) is not None:
        num_audio = _shape(audio.features, 3)[1]
        expect += [("audio.features", audio.features, (rows, num_audio, None), "float")]
        expect += [(f"audio.{n}", getattr(audio, n), (rows, num_audio), "int32") for n in ("time", "segments", "part")]
    expect += [
        ("examples", batch.examples, (rows, num_examples, 2), "int32"),
        ("example_mask", batch.example_mask, (rows, num_examples), "bool"),
        ("picture", batch.picture, (rows, num_examples), "int32"),
    ]
    wrong = [line for entry in expect if (line := _mismatch(*entry))]
    if text.slots < 1 or length % text.slots:
        wrong.append(f"text.slots is {text.slots}, expected a divisor of the {length} text tokens")
    if wrong:
        raise BatchError("the batch does not fit the model's input: " + "; ".join(wrong))


_IMAGE_INTS = ("index", "segments", "part")


def _shape(value: Any, rank: int) -> tuple[Size, ...]:
    shape = tuple(np.shape(value))
    return shape if len(shape) == rank else (*shape, *(-1,) * rank)[:rank]


def _mismatch(name: str, value: Any, shape: tuple[Size | None, ...], dtype: str) -> str:
    wanted = f"{dtype}[{', '.join('any' if s is None else str(s) for s in shape)}]"
    if value is None:
        return f"{name} is missing, expected {wanted} (make_batch fills it)"
    found = tuple(np.shape(value))
    fits = len(found) == len(shape) and all(s is None or s == f for s, f in zip(shape, found, strict=True))
    if fits and str(value.dtype).startswith(dtype):
        return ""
    return f"{name} is {value.dtype}{list(found)}, expected {wanted}"

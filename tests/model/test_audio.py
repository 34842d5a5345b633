import dataclasses
import functools
import re

import jax
import numpy as np
import pytest

from singlestream.batch import AUDIO, IMAGE, TEXT, Audio, BatchError, make_batch, without_audio, without_image
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.positions.image_video import frame_time
from singlestream.model.visibility import Visibility
from tests.model.toy import CONFIG, random_batch, replace, room, run, toy_model

HEARS = replace(CONFIG, audio_dim=6, audio_per_frame=2, image_positions="video")
SIZES = [(3, (1, 2), 4), (6, (2, 3), 1), (2, (1, 1), 3)]  # words, grid, audio tokens of each example
HEARD = 4
ROOM = {"text": 6, "image": 6, "audio": HEARD}  # tokens of an example at most


def heard(seed, *, rows=1, audio=4, **sizes):
    """A random batch whose patches are two frames, with random sound."""
    batch, rng = random_batch(seed, rows=rows, **sizes), np.random.default_rng(seed)
    index = np.arange(batch.image.index.shape[1], dtype=np.int32) % 2 + np.zeros((rows, 1), np.int32)
    image = dataclasses.replace(batch.image, index=index)
    sound = Audio(features=rng.normal(size=(rows, audio, HEARS.audio_dim)).astype(np.float32))
    return make_batch(text=batch.text, image=image, audio=sound)


def side_by_side(batches):
    """All in one row, a segment each, with padding after every one."""
    fields = {name: [] for name in ROOM}
    for number, batch in enumerate(batches, start=1):
        for name, size in ROOM.items():
            tokens = batch.inputs[name]
            tokens = dataclasses.replace(tokens, segments=tokens.segments * np.int32(number))
            fields[name].append(jax.tree.map(functools.partial(_padded, size), tokens))
    joined = {name: jax.tree.map(lambda *x: np.concatenate(x, 1), *parts) for name, parts in fields.items()}
    return room(make_batch(**joined), len(SIZES))


def _padded(size, x):
    return np.pad(x, ((0, 0), (0, size - x.shape[1]), *((0, 0),) * (x.ndim - 2)))


BLOCKS = AttentionConfig(selection="routed", block=2, keep=1.0, relative="bias")  # both go by modality


@pytest.mark.parametrize(
    "changes", [{}, {"direction": "prefix"}, {"direction": "bottleneck", "bottlenecks": 2}, {"attention": BLOCKS}]
)
def test_an_examples_outputs_do_not_depend_on_its_row(changes):
    config = replace(HEARS, **changes)
    alone = [heard(i, text=t, grid=g, audio=a) for i, (t, g, a) in enumerate(SIZES)]
    encoded, logits = run(side_by_side(alone), config)
    nothing = [batch.replace(**{name: _empty(batch.inputs[name]) for name in ROOM}) for batch in alone[1:]]
    for k, batch in enumerate(alone):
        own, own_logits = run(side_by_side([batch, *nothing]), config)
        audio = batch.audio.time.shape[1]
        np.testing.assert_allclose(encoded.pooled[0, k], own.pooled[0, 0], atol=1e-5)
        np.testing.assert_allclose(encoded.audio[0, HEARD * k : HEARD * k + audio], own.audio[0, :audio], atol=1e-5)
        np.testing.assert_allclose(logits["vqa"][0, k], own_logits["vqa"][0, 0], atol=1e-5)


def _empty(tokens):
    return dataclasses.replace(tokens, segments=tokens.segments * 0)


def test_all_three_are_read_and_silence_is_no_audio():
    batch, other = heard(0), heard(1)

    def pooled(batch):
        return run(batch, HEARS)[0].pooled

    full = pooled(batch)
    assert np.abs(full - pooled(batch.replace(audio=other.audio))).max() > 1e-3
    assert np.abs(full - pooled(batch.replace(image=other.image))).max() > 1e-3
    bare = make_batch(text=batch.text, image=batch.image)
    np.testing.assert_allclose(pooled(without_audio(batch)), pooled(bare), atol=1e-6)
    assert without_audio(bare) is bare
    deaf = without_image(without_audio(batch))
    np.testing.assert_array_equal(pooled(deaf), pooled(without_image(without_audio(other.replace(text=batch.text)))))


def test_a_direction_rules_audio_as_it_rules_the_picture():
    modality = np.array([[TEXT, TEXT, IMAGE, AUDIO, AUDIO]], np.int32)
    ones, numbers = np.ones((1, 5), np.int32), np.arange(5, dtype=np.int32)[None]

    def seen(direction):
        sees = Visibility(segments=ones, part=ones * 0, modality=modality, token=numbers, direction=direction)
        return np.asarray(sees.mask()[0]).astype(int)

    assert seen("full").all()
    np.testing.assert_array_equal(seen("prefix"), [[1, 1, 1, 1, 1]] * 2 + [[0, 0, 1, 1, 1]] * 3)
    np.testing.assert_array_equal(seen("text_to_image")[:2], [[1, 0, 1, 1, 1], [0, 1, 1, 1, 1]])
    np.testing.assert_array_equal(seen("text_to_image")[2:], np.eye(5)[2:])
    np.testing.assert_array_equal(seen("bottleneck")[2:], [[0, 0, 1, 0, 0]] + [[0, 0, 0, 1, 1]] * 2)


def test_a_moment_has_one_time_in_video_and_audio():
    """Of two audio tokens a frame the middle between both is the frame's number."""
    embed = toy_model(replace(HEARS, audio_per_frame=1)).embed
    batch = heard(0)
    silent = dataclasses.replace(batch.audio, features=batch.audio.features * 0)
    time = np.asarray(embed.audio(silent)) - np.asarray(embed.audio.stem.bias)
    np.testing.assert_allclose(time[0], frame_time(np.arange(4.0), HEARS.width), atol=1e-6)
    finer = toy_model(HEARS).embed
    first = np.asarray(finer.audio(silent)) - np.asarray(finer.audio.stem.bias)
    np.testing.assert_allclose(first[0, :2], frame_time(np.array([-0.25, 0.25]), HEARS.width), atol=1e-6)
    late = dataclasses.replace(batch.image, index=batch.image.index * 0 + 2)
    moved = np.asarray(embed.image.position(late)) - np.asarray(
        embed.image.position(dataclasses.replace(late, index=late.index * 0))
    )
    expected = frame_time(np.array(2.0), HEARS.width) - frame_time(np.array(0.0), HEARS.width)
    np.testing.assert_allclose(moved[0], np.broadcast_to(expected, moved[0].shape), atol=1e-5)


def test_blocks_of_all_keys_are_soft_attention_where_audio_is_a_modality_by_itself():
    """Of text, picture and sound each by itself and the tokens between them; every block is chosen."""
    apart, every = {"direction": "bottleneck", "bottlenecks": 2}, {"selection": "routed", "block": 2, "keep": 20.0}
    routed, soft = (replace(HEARS, **apart, attention=AttentionConfig(**kind)) for kind in (every, {}))
    batch = heard(0, grid=(1, 3))  # an odd number: side by side, a block would hold both
    np.testing.assert_allclose(run(batch, routed)[0].audio, run(batch, soft)[0].audio, atol=1e-5)
    np.testing.assert_allclose(run(batch, routed)[0].text, run(batch, soft)[0].text, atol=1e-5)


def test_audio_that_a_model_cannot_read_is_named():
    batch = heard(0)
    with pytest.raises(BatchError, match=re.escape("config.model.audio_dim is 0")):
        toy_model()(batch)
    later = Audio(features=np.zeros((2, 4, 6), np.float32))
    with pytest.raises(BatchError, match=re.escape("audio.features is float32[2, 4, 6], expected float[1, 4, any]")):
        make_batch(text=batch.text, image=batch.image, audio=later)
    for changes in (
        {"decoder_layers": 1},
        {"channel_gate": 2},
        {"join": "sum"},
        {"direction": "image_to_text", "join": "sum"},
    ):
        with pytest.raises(ValueError, match="config.model.audio_dim=6 does not go with config.model."):
            replace(HEARS, **changes)

import collections
import dataclasses

import numpy as np
import pytest
from scipy.io import wavfile

from singlestream.config import Config, ConfigError, DataConfig
from singlestream.data.audio import log_mel, mel_filters, read_sound
from singlestream.data.processor import Processor
from singlestream.data.record import DataError
from singlestream.data.sources import open_split
from singlestream.data.sources.events_world import COLOURS, FRAMES, HALVES, is_held_out
from singlestream.model.config import ModelConfig

CLIPS = 3000
OPTIONS = {"train_clips": CLIPS, "validation_clips": 4, "composition_clips": 300}
DATA = DataConfig(name="events", options=OPTIONS, max_patches=9, max_audio=16, text_length=14, texts_per_row=5)
MODEL = ModelConfig(direction="prefix", num_images=8, image_positions="video", audio_dim=64, audio_per_frame=2)


@pytest.fixture(scope="module")
def clips():
    """Every clip of the training split with the answer to each kind of question, and the question."""
    source = open_split(DATA, "train")
    return [(source.clip(i), {text.kind: text for text in source.texts(i)}) for i in range(CLIPS)]


def tells_nothing(pairs, chance):
    """Whether the commonest answer to each clue in the first half is right in the second no more often than chance.

    Four standard deviations are allowed for.
    """
    pairs, known = list(pairs), collections.defaultdict(collections.Counter)
    half = len(pairs) // 2
    for clue, answer in pairs[:half]:
        known[clue][answer] += 1
    hits = [known[clue].most_common(1)[0][0] == answer for clue, answer in pairs[half:] if clue in known]
    return np.mean(hits) < chance + 4 * np.sqrt(chance * (1 - chance) / len(hits))


def test_the_words_alone_tell_no_more_than_chance(clips):
    for kind, chance in (("video", 1 / 3), ("audio", 1 / 4), ("duration", 1 / 2), ("colour", 1 / 4), ("tone", 1 / 4)):
        assert tells_nothing(((said[kind].text, said[kind].answer) for _, said in clips), chance), kind


def test_two_of_the_three_do_not_suffice(clips):
    """What one of the modalities tells of the answer beside the words: how many it leaves open, and nothing more."""
    of = [(clip, clip.phases[clip.target], next(t for t in clip.tones if t.phase == clip.target)) for clip, _ in clips]
    # Words and video: which phase a tone belongs to, from the lengths of all; which pitch, from what is shown.
    assert tells_nothing(((tuple(p.stop - p.start for p in clip.phases), clip.target) for clip, *_ in of), 1 / 3)
    assert tells_nothing((((p.colour, p.shape, p.stop - p.start), tone.pitch) for _, p, tone in of), 1 / 4)
    # Words and sound: which tone goes with a shape, from how long each is; which colour, from a tone or its time.
    assert tells_nothing(((tuple(t.long for t in clip.tones), clip.tones.index(tone)) for clip, _, tone in of), 1 / 2)
    assert tells_nothing((((tone.pitch, tone.long, tone.start), p.colour) for _, p, tone in of), 1 / 4)
    # Video and sound, without the words: any kind of question could be meant.
    assert all(len({text.answer for text in said.values()}) >= 3 for _, said in clips)


def test_held_out_pairs_are_shown_where_they_are_asked_and_nowhere_else(clips):
    assert not any(is_held_out(phase) for clip, _ in clips for phase in clip.phases)
    source = open_split(DATA, "test_composition")
    for i in range(len(source)):
        clip = source.clip(i)
        assert is_held_out(clip.phases[clip.target])


def test_a_clip_is_the_same_every_time_and_shows_what_it_says():
    one, again = (open_split(DATA, "validation")[2] for _ in range(2))
    clip = open_split(DATA, "validation").clip(2)
    np.testing.assert_array_equal(one.images, again.images)
    np.testing.assert_array_equal(one.sound, again.sound)
    assert one.texts == again.texts and len(one.images) == FRAMES
    bands = log_mel(one.sound, rate=4096, hop=512, bands=16)
    sounding = np.zeros(FRAMES * HALVES, bool)
    for tone in clip.tones:
        sounding[tone.start : tone.stop] = True
        assert len(set(bands[tone.start : tone.stop].argmax(1))) == 1
    assert bands[sounding].max(1).min() > bands[~sounding].max() + 0.5
    for phase in clip.phases:
        shown = np.stack(one.images[phase.start : phase.stop]).astype(int)
        red, green, blue = (shown[..., c].max((1, 2)) > 150 for c in range(3))
        expected = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}
        np.testing.assert_array_equal(np.stack([red, green, blue], 1), [expected[COLOURS[phase.colour]]] * len(shown))


def test_bands_lie_evenly_on_the_mel_scale():
    filters = mel_filters(4, 512, 4096)
    bins = np.arange(257) * 8.0
    mel = 2595 * np.log10(1 + bins / 700)
    step = 2595 * np.log10(1 + 2048 / 700) / 5
    for band, row in enumerate(filters, start=1):
        assert abs(mel[row.argmax()] - band * step) < 10
        assert (row[abs(mel - band * step) > step + 1e-6] == 0).all()
    silence, tone = np.zeros(1024), 0.5 * np.sin(2 * np.pi * 500 * np.arange(1024) / 4096)
    np.testing.assert_allclose(log_mel(silence, rate=4096, hop=128, bands=8), 0, atol=1e-5)
    heard = log_mel(tone, rate=4096, hop=128, bands=8)
    assert heard.shape == (8, 8) and heard[1:-1].max() < 4 - 2 * np.log10(4) + 0.1


def test_a_row_holds_words_frames_and_sound():
    config = Config(data=DATA, model=MODEL)
    source = open_split(DATA, "train")
    processor = Processor.build(config, open_split(DATA, "validation"))
    record = source[0]
    batch = processor.batch([processor.row([(record, record.texts)])])
    assert batch.audio.features.shape == (1, 16, 64) and batch.image.index.shape == (1, 72)
    np.testing.assert_array_equal(batch.audio.time[0], np.arange(16))
    np.testing.assert_array_equal(batch.image.index[0], np.repeat(np.arange(8), 9))
    assert (batch.audio.segments == 1).all() and (batch.audio.part == 0).all()
    expected = log_mel(record.sound, rate=4096, hop=128, bands=16)
    np.testing.assert_array_equal(batch.audio.features[0].reshape(64, 16), expected)
    given = [record.texts[0].text] * 2
    both = processor.batch_of([list(record.images)] * 2, given, [record.sound, None])
    np.testing.assert_array_equal(both.audio.features[0], batch.audio.features[0])
    assert (both.audio.segments[0] == 1).all() and (both.audio.segments[1] == 0).all()
    with pytest.raises(DataError, match="1 sounds and 2 texts"):
        processor.batch_of([list(record.images)] * 2, given, [None])


def test_a_sound_comes_from_a_file_or_an_array(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2048) / 4096)
    path = tmp_path / "tone.wav"
    for kind, depth in ((np.uint8, 7), (np.int16, 15), (np.int32, 31), (np.float32, 0)):
        whole = np.rint(tone * (1 << depth)) + 128 * (kind is np.uint8) if depth else tone
        wavfile.write(path, 4096, whole.astype(kind))
        np.testing.assert_allclose(read_sound(path, rate=4096), tone, atol=1 / 128)
    wavfile.write(path, 8192, np.stack([np.repeat(tone, 2), np.zeros(4096)], -1))
    other = read_sound(path, rate=4096)
    assert other.shape == tone.shape and other.dtype == np.float32
    # Two channels are one of half the strength; both rates say the same, but for half a sample's delay.
    heard, wanted = (log_mel(each, rate=4096, hop=128, bands=16)[1:-1] for each in (2 * other, tone))
    assert np.abs(heard - wanted).max() < 0.1
    np.testing.assert_array_equal(read_sound(tone, rate=4096), tone.astype(np.float32))


def test_what_is_no_sound_is_refused(tmp_path):
    (tmp_path / "no.wav").write_text("a text")
    for sound, message in (
        (tmp_path / "none.wav", "none.wav: no such sound file"),
        (tmp_path / "no.wav", r"no.wav: not a readable sound, expected a file .wav \("),
        (np.full(3, 2.0), r"sound 4: expected an array \[S\] of floats in \[-1, 1\], 4096 samples a second"),
        (np.zeros((3, 2)), "sound 4: expected an array"),
        (np.zeros(3, np.int16), "sound 4: expected an array"),
    ):
        with pytest.raises(DataError, match=message):
            read_sound(sound, rate=4096, name="sound 4")


def test_audio_settings_that_do_not_go_together_are_named():
    with pytest.raises(
        ConfigError, match="config.data.audio_hop=64 is not read without sound: config.data.max_audio=0"
    ):
        Config(data=DataConfig(audio_hop=64))
    for data, message in (
        ({"max_audio": 0}, "config.model.audio_dim=64 with config.data.max_audio=0"),
        ({"audio_columns": 5}, "config.model.audio_dim=64 is not divisible by config.data.audio_columns=5"),
        ({"texts_per_row": 1, "apart": 8}, "config.model.audio_dim=64 does not go with config.data.apart"),
    ):
        with pytest.raises(ConfigError, match=message):
            Config(data=dataclasses.replace(DATA, **data), model=MODEL)
    small = Processor.build(
        Config(data=dataclasses.replace(DATA, max_audio=3), model=MODEL), open_split(DATA, "validation")
    )
    record = open_split(DATA, "validation")[0]
    with pytest.raises(DataError, match="takes 16 audio tokens, config.data.max_audio is 3"):
        small.row([(record, record.texts)])

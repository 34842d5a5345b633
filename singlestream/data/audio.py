"""Sound to audio tokens: windows of a log-mel spectrogram."""

from __future__ import annotations

import functools
import os
import warnings

import numpy as np
import scipy  # its parts are read when they are first used: `scipy.signal` takes a third of a program's start
from jaxtyping import Float

from singlestream.config import DataConfig, ModelConfig
from singlestream.data.record import DataError, Record

FLOOR = 1e-4  # power that is next to silence, beside 0.25 of the loudest tone

# What people hand over for one sound: a file .wav, or samples in [-1, 1].
Sound = str | os.PathLike[str] | np.ndarray


def read_sound(sound: Sound, *, rate: int, name: str = "the sound") -> Float[np.ndarray, " S"]:
    """Samples in [-1, 1], `rate` a second.

    Args:
        sound: an array [S] of floats of that rate, taken as it is; or a file, whose channels are averaged and which is
            resampled.
        name: what errors call an array.

    Raises:
        DataError: no such file, no sound in it, or an array of another kind; names it.
    """
    if isinstance(sound, np.ndarray):
        if sound.ndim != 1 or sound.dtype.kind != "f" or not np.abs(sound).max(initial=0) <= 1:
            raise DataError(f"{name}: expected an array [S] of floats in [-1, 1], {rate} samples a second")
        return sound.astype(np.float32, copy=False)
    if not os.path.isfile(sound):
        raise DataError(f"{os.fspath(sound)}: no such sound file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.io.wavfile.WavFileWarning)  # parts of the file that hold no sound
            own, samples = scipy.io.wavfile.read(sound)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{os.fspath(sound)}: not a readable sound, expected a file .wav ({error})") from error
    found = _unit(samples).reshape(len(samples), -1).mean(1)
    return (found if own == rate else np.clip(scipy.signal.resample_poly(found, rate, own), -1, 1)).astype(np.float32)


def _unit(samples: np.ndarray) -> np.ndarray:
    """Samples of a file as numbers in [-1, 1]."""
    if samples.dtype.kind == "f":
        return np.clip(samples, -1, 1)
    middle = 128 if samples.dtype == np.uint8 else 0
    return (samples.astype(np.float64) - middle) / (1 << (8 * samples.dtype.itemsize - 1))


def mel_filters(bands: int, size: int, rate: int) -> Float[np.ndarray, "bands bins"]:
    """Triangles over the bins of a transform of `size` samples, even on the mel scale from 0 to rate / 2.

    mel = 2595 log10(1 + f / 700) (O'Shaughnessy 1987, as in HTK); neighbours meet at half height, each peaks at 1.
    """
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    bins = np.arange(size // 2 + 1) * rate / size
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rise, fall))


def log_mel(sound: Float[np.ndarray, " S"], *, rate: int, hop: int, bands: int) -> Float[np.ndarray, "M bands"]:
    """log10(1 + power / 1e-4) of each band, 0 where it is silent: one column for every `hop` samples.

    A last part of one is left out. Column m is about the samples from m * hop to (m + 1) * hop: a Hann window of twice
    that around their middle.
    """
    transform, filters = _transform(rate, hop), _filters(bands, 2 * hop, rate)
    columns = len(sound) // hop
    power = transform.spectrogram(sound, p0=0, p1=columns, k_offset=hop // 2) if columns else np.zeros((hop + 1, 0))
    return np.log10(1 + filters @ power / FLOOR).T.astype(np.float32)


@functools.cache
def _transform(rate: int, hop: int) -> scipy.signal.ShortTimeFFT:
    window = scipy.signal.get_window("hann", 2 * hop)
    return scipy.signal.ShortTimeFFT(window, hop, fs=rate, scale_to="magnitude")


_filters = functools.cache(mel_filters)


class AudioTokens:
    """A record's sound as the model's audio tokens: `data.audio_columns` columns of `log_mel` each."""

    def __init__(self, data: DataConfig, model: ModelConfig):
        self._data, self._size = data, model.audio_dim

    @property
    def room(self) -> int:
        """A, audio tokens of a row."""
        return self._data.max_audio * self._data.examples_per_row

    def empty(self) -> dict[str, np.ndarray]:
        """A row's fields of `Audio`, all padding."""
        ints = {name: np.zeros(self.room, np.int32) for name in ("time", "segments", "part")}
        return {"features": np.zeros((self.room, self._size), np.float32), **ints}

    def read(self, record: Record) -> Float[np.ndarray, "A F"]:
        """The tokens of a record, none where it has no sound.

        Raises:
            DataError: more of them than `config.data.max_audio`; names the record.
        """
        data, columns = self._data, self._data.audio_columns
        sound = np.zeros(0, np.float32) if record.sound is None else record.sound
        found = log_mel(sound, rate=data.audio_rate, hop=data.audio_hop, bands=self._size // columns)
        count = len(found) // columns
        if count > data.max_audio:
            raise DataError(
                f"record {record.id}: its sound takes {count} audio tokens, config.data.max_audio is {data.max_audio}"
            )
        return found[: count * columns].reshape(count, self._size)

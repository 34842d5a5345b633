"""Against transformers itself: the same ids for any text, the same numbers for any picture, files that it opens.

Runs where torch and transformers are installed; elsewhere `test_published.py` holds the same against golden files.
`ViltImageProcessor` is there in two kinds; matched is the one that resizes by PIL, as the authors' code does.
"""

from __future__ import annotations

import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from singlestream.config import ModelConfig
from singlestream.data.image import read_image, resize_to_grid, side_grid
from singlestream.data.processor import Processor
from singlestream.data.record import DataError
from singlestream.data.text import Tokenizer
from tests.data.toy_bert import GOLDEN, READINGS, SIGNS, WORDS, cases, write_bert

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("default")  # of transformers and what it imports

from transformers.image_utils import load_image  # noqa: E402
from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil  # noqa: E402

VILT = ModelConfig(patch_size=32, image_grid=(12, 12), max_text_length=40)
# Words of the vocabulary among any characters, control characters and special tokens included.
TEXTS = st.lists(
    st.one_of(st.text(max_size=6), st.sampled_from([*WORDS, *SIGNS, "[MASK]", "[CLS]", "[sep]", " ", "\n", "##"])),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Theirs, ours, and theirs of what ours saved, for each reading."""
    found = []
    for i, settings in enumerate(READINGS):
        folder = tmp_path_factory.mktemp(f"bert{i}")
        theirs = transformers.BertTokenizer.from_pretrained(write_bert(folder / "theirs", **settings))
        ours = Tokenizer.from_folder(folder / "theirs")
        (folder / "ours").mkdir()
        ours.save(folder / "ours")
        found.append((theirs, ours, transformers.BertTokenizer.from_pretrained(folder / "ours")))
    return found


def test_golden_ids_are_up_to_date():
    assert json.loads(GOLDEN.read_text(encoding="utf-8")) == cases()


@pytest.mark.parametrize("reading", range(len(READINGS)), ids=[str(each) for each in READINGS])
@hypothesis.given(text=TEXTS)
@hypothesis.settings(max_examples=400, deadline=None)
def test_any_text_has_the_same_ids(tokenizers, reading, text):
    theirs, ours, saved = tokenizers[reading]
    expected = theirs(text)["input_ids"]
    assert saved(text)["input_ids"] == expected
    try:
        assert list(ours.encode(text, 10_000).ids) == expected
    except DataError:
        assert len(expected) == 2  # no word: refused here, [CLS] [SEP] there


def test_a_folder_that_transformers_wrote_is_read(tokenizers, tmp_path):
    theirs, ours, _ = tokenizers[1]
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file() and not (tmp_path / "vocab.txt").is_file()
    again = Tokenizer.from_folder(tmp_path)
    assert again.vocabulary == ours.vocabulary and again.reading == ours.reading


def _files(folder):
    """(path, whether nothing of it is transparent)."""
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (90, 140, 3), np.uint8)).resize((333, 217), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels.save(folder / "a.jpg", quality=90)
    pixels.save(folder / "turned.jpg", exif=exif)
    pixels.save(folder / "rgb.png")
    pixels.convert("L").save(folder / "grey.png")
    pixels.convert("L").save(folder / "grey.jpg")
    pixels.convert("P").save(folder / "palette.png")
    pixels.convert("1").save(folder / "bits.png")
    pixels.convert("CMYK").save(folder / "cmyk.jpg")
    pixels.convert("RGBA").save(folder / "rgba.png")
    pixels.save(folder / "rgb.webp", lossless=True)
    return sorted(folder.iterdir())


def _theirs(processor, image):
    return processor(image, return_tensors="np")["pixel_values"][0]


def _ours(image: np.ndarray, shorter: int = 384) -> np.ndarray:
    resized = resize_to_grid(image, 32, side_grid(*image.shape[:2], 32, shorter))
    return resized.transpose(2, 0, 1) / 127.5 - 1


def test_files_of_every_kind_become_the_same_numbers(tmp_path):
    processor = ViltImageProcessorPil()
    for path in _files(tmp_path):
        np.testing.assert_allclose(_ours(read_image(path)), _theirs(processor, load_image(str(path))), atol=1e-6)


def test_two_hundred_sizes_are_the_same_pixels():
    processor = ViltImageProcessorPil(size={"shortest_edge": 96})
    rng = np.random.default_rng(1)
    thin = 0
    for height, width in rng.integers(8, 700, (200, 2)):
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        try:
            expected = _theirs(processor, Image.fromarray(image))
        except ValueError:  # a side of no pixels: there it fails, here it is one patch
            assert 1 in side_grid(int(height), int(width), 32, 96)
            thin += 1
            continue
        np.testing.assert_array_equal(((_ours(image, 96) + 1) * 127.5).round(), ((expected + 1) * 127.5).round())
        np.testing.assert_allclose(_ours(image, 96), expected, atol=1e-6)
    assert thin < 100


@hypothesis.given(st.integers(1, 5000), st.integers(1, 5000), st.integers(32, 800))
@hypothesis.settings(max_examples=1000, deadline=None)
def test_any_size_has_the_same_grid(height, width, shorter):
    from transformers.models.vilt.image_processing_pil_vilt import get_resize_output_image_size

    longer = int(1333 / 800 * shorter)
    image = np.broadcast_to(np.uint8(0), (3, height, width))
    expected = get_resize_output_image_size(image, shorter, longer, 32, "channels_first")
    assert side_grid(height, width, 32, shorter) == tuple(max(1, side // 32) for side in expected)


def test_transformers_opens_what_a_processor_saved(tmp_path):
    write_bert(tmp_path / "a", model_max_length=40)
    transformers.ViltImageProcessor(size={"shortest_edge": 96}).save_pretrained(tmp_path / "a")
    processor = Processor.from_published(tmp_path / "a", VILT)
    assert processor.data.shorter_side == 96
    (tmp_path / "b").mkdir()
    processor.save_pretrained(tmp_path / "b")
    opened = transformers.ViltProcessor.from_pretrained(tmp_path / "b")
    image = np.random.default_rng(0).integers(0, 256, (130, 170, 3), np.uint8)
    inputs = opened(Image.fromarray(image), "The cat's [MASK]?", return_tensors="np")
    batch = processor.batch_of([image], ["The cat's [MASK]?"])
    used = batch.text.segments[0] > 0
    assert batch.text.ids[0, used].tolist() == inputs["input_ids"][0].tolist()
    rows, cols = batch.image.grid[0, 0]
    pixels = batch.image.pixels[0, : rows * cols].reshape(rows, cols, 32, 32, 3).transpose(4, 0, 2, 1, 3)
    np.testing.assert_allclose(
        pixels.reshape(3, rows * 32, cols * 32) / 127.5 - 1, inputs["pixel_values"][0], atol=1e-6
    )
    opened.save_pretrained(tmp_path / "c")  # transformers 5: processor_config.json and tokenizer.json
    again = Processor.from_published(tmp_path / "c", VILT)
    assert again.data == processor.data and again.tokenizer.vocabulary == processor.tokenizer.vocabulary

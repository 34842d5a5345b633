"""A published folder's own tokenizer and preparation of pictures, read and written back, without transformers.

That transformers reads the same is in `test_transformers.py`.
"""

from __future__ import annotations

import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from singlestream.batch import check_batch
from singlestream.config import Config, ConfigError, DataConfig, ModelConfig
from singlestream.data.image import longer_side, resize_to_grid, side_grid
from singlestream.data.processor import Processor
from singlestream.data.published import PICTURES, read_normalisation, read_picture_settings, write_picture_settings
from singlestream.data.record import DataError, RegionFeatures
from singlestream.data.text import Tokenizer
from tests.data.toy_bert import GOLDEN, vocabulary, write_bert

CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))
VILT = ModelConfig(patch_size=32, image_grid=(12, 12), max_text_length=40)
REGIONS = ModelConfig(image_stem="regions", image_positions="boxes", region_dim=6, max_text_length=512)


@pytest.mark.parametrize(
    "settings", [json.loads(s) for s in sorted({json.dumps(c["settings"]) for c in CASES})], ids=str
)
def test_ids_are_those_of_transformers(settings, tmp_path):
    tokenizer = Tokenizer.from_folder(write_bert(tmp_path, **settings))
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (
        0,
        *range(100, 104),
    )
    for case in CASES:
        if case["settings"] == settings:
            assert list(tokenizer.encode(case["text"], 1000).ids) == case["ids"], case["text"]


def test_special_tokens_in_a_text_are_not_split(tmp_path):
    tokenizer = Tokenizer.from_folder(write_bert(tmp_path))
    text = "the [MASK] cat"
    tokens = tokenizer.encode(text, 10)
    assert [tokenizer.token(i) for i in tokens.ids] == ["[CLS]", "the", "[MASK]", "cat", "[SEP]"]
    assert [text[a:b] for a, b in tokens.spans] == ["", "the", "[MASK]", "cat", ""]


def test_an_ending_stays_where_the_text_is_cut(tmp_path):
    tokenizer = Tokenizer.from_folder(write_bert(tmp_path))
    tokens = tokenizer.encode("the cat the cat", 5, ending=(tokenizer.mask_id,))
    assert [tokenizer.token(i) for i in tokens.ids] == ["[CLS]", "the", "cat", "[MASK]", "[SEP]"]
    assert tokens.truncated and len(tokens.spans) == 5


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": False, "model_max_length": 40, "strip_accents": True}])
def test_a_saved_tokenizer_reads_the_same(settings, tmp_path):
    tokenizer = Tokenizer.from_folder(write_bert(tmp_path / "theirs", **settings))
    (tmp_path / "ours").mkdir()
    tokenizer.save(tmp_path / "ours")
    for again in (Tokenizer.from_folder(tmp_path / "ours"), Tokenizer.from_file(tmp_path / "ours" / "vocab.txt")):
        assert again.vocabulary == tokenizer.vocabulary and again.reading == tokenizer.reading


def test_a_vocabulary_without_settings_is_read_as_before(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary()), encoding="utf-8")
    assert Tokenizer.from_folder(tmp_path).encode("THE", 5).ids[1] == vocabulary().index("the")


def test_characters_that_end_lines_elsewhere_are_tokens(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*vocabulary(), "\u2028", "\x85", "last"]) + "\n", encoding="utf-8")
    assert Tokenizer.from_folder(tmp_path).vocab_size == len(vocabulary()) + 3


def _whole(**changes: object) -> dict:
    model = {
        "type": "WordPiece",
        "vocab": {token: i for i, token in enumerate(vocabulary())},
        **changes.pop("model", {}),
    }
    return {"version": "1.0", "added_tokens": [{"id": 103, "content": "[MASK]"}], "model": model, **changes}


def test_the_whole_file_of_newer_folders_comes_first(tmp_path):
    write_bert(tmp_path)
    (tmp_path / "vocab.txt").write_text("not this one")
    (tmp_path / "tokenizer.json").write_text(json.dumps(_whole()))
    assert Tokenizer.from_folder(tmp_path).vocab_size == len(vocabulary())


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", "{", r"tokenizer\.json: cannot be read"),
        ("tokenizer.json", "[]", r"tokenizer\.json: expected a JSON object"),
        ("tokenizer.json", json.dumps(_whole(model={"type": "BPE"})), r"tokenizer\.json: no WordPiece tokenizer"),
        ("tokenizer.json", json.dumps(_whole(model={"vocab": {"a": "b"}})), r"ids are no whole numbers"),
        (
            "tokenizer.json",
            json.dumps(_whole(model={"vocab": {"a": 0}})),
            r"tokenizer\.json: the vocabulary lacks \[PAD\]",
        ),
        (
            "tokenizer.json",
            json.dumps(_whole(model={"continuing_subword_prefix": "@@"})),
            "continuing_subword_prefix='@@'",
        ),
        ("tokenizer.json", json.dumps(_whole(added_tokens=[{"content": "[IMG]"}])), r"added_tokens has '\[IMG\]'"),
        ("tokenizer_config.json", "{", r"tokenizer_config\.json: cannot be read"),
        ("tokenizer_config.json", '{"unk_token": "<unk>"}', r"unk_token='<unk>', BERT's is '\[UNK\]'"),
        ("tokenizer_config.json", '{"do_lower_case": "no"}', "do_lower_case='no', expected true or false"),
        ("tokenizer_config.json", '{"extra_special_tokens": ["[IMG]"]}', r"extra_special_tokens has '\[IMG\]'"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"9": {"content": "a"}}}', "added_tokens_decoder has 'a'"),
    ],
)
def test_what_is_damaged_or_of_another_kind_is_named(tmp_path, file, content, message):
    write_bert(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=message):
        Tokenizer.from_folder(tmp_path)


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(DataError, match=r"has no tokenizer: vocab\.txt or tokenizer\.json is needed"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((480, 640), (12, 16)),
        ((384, 384), (12, 12)),
        ((100, 2000), (1, 19)),
        ((2000, 100), (19, 1)),
        ((3, 900), (1, 19)),
        ((1, 1), (12, 12)),
    ],
)
def test_pictures_by_their_sides(size, grid):
    assert side_grid(*size, 32, 384) == grid


@hypothesis.given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 40), st.integers(40, 800))
def test_sides_keep_to_their_limits(height, width, patch, shorter):
    rows, cols = side_grid(height, width, patch, shorter)
    assert 1 <= min(rows, cols) <= max(1, shorter // patch) and max(rows, cols) <= longer_side(shorter) // patch


def _published(folder, **settings):
    write_bert(folder, model_max_length=40)
    if settings:
        (folder / PICTURES).write_text(json.dumps(settings))
    return folder


def test_a_vilt_folder_makes_vilts_batch(tmp_path):
    folder = _published(tmp_path, size={"shortest_edge": 384}, size_divisor=32)
    processor = Processor.from_published(folder, VILT, answers=["yes", "no"])
    assert processor.answers == ("yes", "no") and processor.data.text_length == 40 and processor.num_patches == 228
    image = np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)
    batch = processor.batch_of([image], ["Is the cat walking?"])
    check_batch(batch)
    assert batch.text.ids.shape == (1, 40) and batch.image.grid[0, 0].tolist() == [11, 19]
    resized = resize_to_grid(image, 32, (11, 19))
    np.testing.assert_array_equal(batch.image.pixels[0, 20].reshape(32, 32, 3), resized[32:64, 32:64])
    assert int((batch.image.segments > 0).sum()) == 11 * 19


def test_a_saved_processor_reads_the_same(tmp_path):
    processor = Processor.from_published(_published(tmp_path / "a", size=192, size_divisor=32), VILT)
    (tmp_path / "b").mkdir()
    processor.save_pretrained(tmp_path / "b")
    again = Processor.from_published(tmp_path / "b", VILT)
    assert again.data == processor.data and again.data.shorter_side == 192
    assert again.tokenizer.vocabulary == processor.tokenizer.vocabulary


def test_a_run_that_began_from_a_cased_vocabulary_keeps_it(tmp_path):
    processor = Processor.from_published(write_bert(tmp_path / "a", do_lower_case=False), VILT)
    (tmp_path / "run").mkdir()
    processor.save(tmp_path / "run")
    config = Config(data=processor.data, model=processor.model)
    assert Processor.from_folder(tmp_path / "run", config).tokenizer.reading == processor.tokenizer.reading


def test_the_processor_file_of_newer_folders_is_read(tmp_path):
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"size": {"shortest_edge": 96}}}))
    assert read_picture_settings(tmp_path, 32) == 96
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": 3}))
    with pytest.raises(DataError, match=r"processor_config\.json: image_processor is no JSON object"):
        read_picture_settings(tmp_path, 32)


def test_without_a_file_pictures_have_the_budget_of_the_models_grid(tmp_path):
    data = Processor.from_published(_published(tmp_path), VILT).data
    assert (data.shorter_side, data.max_patches) == (0, 144)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"image_mean": [0.48, 0.46, 0.41]},
            r"preprocessor_config\.json: image_mean=\[0\.48, 0\.46, 0\.41\]; pictures are",
        ),
        ({"do_resize": False}, "do_resize=False"),
        ({"resample": 2}, "resample=2"),
        ({"rescale_factor": 0.5}, r"rescale_factor=0\.5"),
        ({"size_divisor": 16}, "size_divisor=16, but the model's patches have 32"),
        ({"size": {"height": 224, "width": 224}}, "expected the pixels of the shorter side"),
        ({"size": True}, "size=True"),
    ],
)
def test_other_preparations_are_refused_by_name(tmp_path, settings, message):
    (tmp_path / PICTURES).write_text(json.dumps(settings))
    with pytest.raises(DataError, match=message):
        read_picture_settings(tmp_path, 32)


def test_written_settings_are_those_of_transformers(tmp_path):
    write_picture_settings(tmp_path, 384, 32)
    written = json.loads((tmp_path / PICTURES).read_text())
    assert written["image_processor_type"] == "ViltImageProcessor" and written["size"] == {"shortest_edge": 384}


@pytest.mark.parametrize(
    ("file", "settings", "mean", "std"),
    [
        (PICTURES, {}, (0.5,) * 3, (0.5,) * 3),
        (PICTURES, {"image_mean": [0.4, 0.5, 0.6], "size": 224, "resample": 2}, (0.4, 0.5, 0.6), (0.5,) * 3),
        (PICTURES, {"do_normalize": False, "image_std": [9, 9, 9]}, (0,) * 3, (1,) * 3),
        ("config.json", {"pretrained_cfg": {"std": [0.1, 0.2, 0.3]}}, (0.5,) * 3, (0.1, 0.2, 0.3)),
    ],
)
def test_how_pixels_of_a_vit_are_normalised(tmp_path, file, settings, mean, std):
    (tmp_path / file).write_text(json.dumps(settings))
    np.testing.assert_array_equal(read_normalisation(tmp_path), [mean, std])


@pytest.mark.parametrize("settings", [{"image_std": [1, 0, 1]}, {"image_mean": "half"}, {"do_rescale": False}])
def test_a_normalisation_that_cannot_be_is_refused_by_name(tmp_path, settings):
    (tmp_path / PICTURES).write_text(json.dumps(settings))
    with pytest.raises(DataError, match=f"{PICTURES}: {next(iter(settings))}="):
        read_normalisation(tmp_path)


def test_a_folder_of_a_region_model(tmp_path):
    folder = write_bert(tmp_path)
    processor = Processor.from_published(folder, REGIONS)
    features = np.random.default_rng(0).random((3, 6), np.float32)
    boxes = np.array([[0, 0, 0.5, 0.5], [0.2, 0.2, 1, 1], [0, 0, 1, 1]], np.float32)
    batch = processor.batch_of([RegionFeatures(features=features, boxes=boxes)], ["the cat"])
    check_batch(batch)
    np.testing.assert_array_equal(batch.image.features[0, :3], features)
    np.testing.assert_array_equal(batch.image.boxes[0, :3], boxes)
    assert batch.image.segments[0].tolist() == [1] * 3 + [0] * 97 and batch.text.ids.shape == (1, 40)


def test_room_for_every_picture_is_needed():
    with pytest.raises(ConfigError, match=r"max_patches=36: with config\.data\.shorter_side=384 .* up to 228"):
        Processor(data=DataConfig(shorter_side=384), model=VILT, tokenizer=Tokenizer.train(["a"], 10))
    with pytest.raises(ConfigError, match=r"mean_region=True: config\.model\.image_stem='linear' reads no regions"):
        Processor(data=DataConfig(mean_region=True), model=VILT, tokenizer=Tokenizer.train(["a"], 10))

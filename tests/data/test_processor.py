"""Rows: where every token lies, what belongs together, and what the targets say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from singlestream.batch import Text, check_batch
from singlestream.config import Config, ConfigError, DataConfig, ModelConfig
from singlestream.data.processor import Processor
from singlestream.data.record import DataError, Mention, Record, RegionFeatures, Sentence
from singlestream.data.targets import MAX_BOXES, put_mentions, region_targets
from singlestream.interop.vilbert_inputs import with_task


def _pieces(processor, row):
    return [processor.tokenizer.token(i) for i in row["text/ids"]]


def test_one_text_a_row(source, make_processor):
    processor = make_processor()
    record = source[4]
    row = processor.row([(record, record.texts[:1])])
    words = ["[CLS]", "what", "colour", "is", "a", "box", "?", "[SEP]"]
    assert _pieces(processor, row) == words + ["[PAD]"] * 4
    assert row["text/segments"].tolist() == [1] * 8 + [0] * 4
    assert row["text/positions"].tolist() == [*range(8), 0, 0, 0, 0]
    assert not row["text/part"].any() and not row["text/types"].any()
    assert row["examples"].tolist() == [[1, 0]]
    assert row["picture"].tolist() == [5]
    assert processor.answers[row["targets/answer"][0]] == "green"
    assert row["image/segments"].tolist() == [1] * 24
    assert row["image/grid"].tolist() == [[4, 6]] * 24
    assert row["image/pixels"].shape == (24, 12 * 12 * 3)


def test_texts_that_share_a_picture_are_parts(source, make_processor):
    processor = make_processor(texts_per_row=4)
    record = source[0]
    row = processor.row([(record, record.texts[:3])])
    segments, part = row["text/segments"].reshape(4, 12), row["text/part"].reshape(4, 12)
    for k, sentence in enumerate(record.texts[:3]):
        ids = processor.tokenizer.encode(sentence.text, 12).ids
        assert row["text/ids"].reshape(4, 12)[k, : len(ids)].tolist() == list(ids)
        assert segments[k].tolist() == [1] * len(ids) + [0] * (12 - len(ids))
        assert part[k].tolist() == [k + 1] * len(ids) + [0] * (12 - len(ids))
    assert not segments[3].any() and not part[3].any()
    assert row["examples"].tolist() == [[1, 1], [1, 2], [1, 3], [0, 0]]
    assert row["example_mask"].tolist() == [True, True, True, False]
    assert row["picture"].tolist() == [1, 1, 1, 0]
    assert set(row["image/segments"]) == {1} and not row["image/part"].any()


def test_packed_examples_are_segments(source, make_processor):
    processor = make_processor(examples_per_row=3)
    entries = [(source[i], source[i].texts[i : i + 1]) for i in (0, 1)]
    row = processor.row(entries)
    assert set(row["text/segments"][:12]) == {0, 1} and set(row["text/segments"][12:24]) == {0, 2}
    assert not row["text/part"].any() and not row["text/segments"][24:].any()
    assert row["image/segments"].tolist() == [1] * 24 + [2] * 24 + [0] * 24
    assert row["examples"].tolist() == [[1, 0], [2, 0], [0, 0]]
    assert row["targets/region_class"][48:].tolist() == [[-1]] * 24
    alone = processor.unpacked()
    for e, entry in enumerate(entries):
        single = alone.row([entry])
        np.testing.assert_array_equal(row["image/pixels"][24 * e : 24 * e + 24], single["image/pixels"])
        np.testing.assert_array_equal(row["text/ids"][12 * e : 12 * e + 12], single["text/ids"])


def test_rows_become_a_batch_that_fits_the_contract(source, make_processor):
    processor = make_processor(texts_per_row=2)
    rows = [processor.row([(source[i], source[i].texts[:2])]) for i in range(3)] + [processor.row([])]
    batch = processor.batch(rows)
    check_batch(batch)
    assert batch.example_mask.tolist() == [[True, True]] * 3 + [[False, False]]
    shapes = {name: value.shape for name, value in batch.targets.items()}
    assert shapes == {
        "answer": (4, 2),
        "word_boxes": (4, 24, MAX_BOXES, 4),
        "region_class": (4, 24, 1),
        "region_centre": (4, 24, 2),
    }
    assert not batch.text.segments[3].any() and not batch.image.segments[3].any()


def test_pictures_of_an_example_follow_one_another(make_processor):
    processor = make_processor(model=ModelConfig(patch_size=8, num_images=3))
    images = tuple(np.full((16, 16, 3), 10 * i, np.uint8) for i in (1, 2))
    text = Sentence(id="a", text="A red box.")
    row = processor.row([(Record(id="r", images=images, texts=(text,), picture=1), [text])])
    assert row["image/index"][:8].tolist() == [0] * 4 + [1] * 4
    assert row["image/segments"].tolist() == [1] * 8 + [0] * 64
    assert row["image/pixels"][3].max() == 10 and row["image/pixels"][4].min() == 20


def _packed(processor, entries, size=None):
    """The same in segments, by hand; `size`: of the row, where it has room for more."""
    changes = dict(apart=1, copies=False, texts_per_row=1, examples_per_row=size or len(entries))
    data = dataclasses.replace(processor.data, **changes)
    return dataclasses.replace(processor, data=data).row(entries)


@pytest.mark.parametrize("num_images", [1, 2])
def test_pictures_apart_each_have_the_text(source, make_processor, num_images):
    """As two records side by side, each with what is known of its own picture."""
    model = ModelConfig(patch_size=8, num_images=num_images)
    processor = make_processor(apart=2, model=model)
    first, second = source[0], source[1]
    box = np.array([[0, 0, 0.5, 0.5]], np.float32)
    text = Sentence(
        id="t", text="Which box is red?", answer="red", mentions=(Mention(start=6, end=9, boxes=box, index=1),)
    )
    pair = dataclasses.replace(
        first,
        images=first.images + second.images,
        boxes=np.concatenate([first.boxes, second.boxes]),
        classes=np.concatenate([first.classes, second.classes]),
        index=np.array([0, 1]),
    )
    row = processor.row([(pair, [text])])
    bare, about = dataclasses.replace(text, mentions=()), text.about(1)
    expected = _packed(processor, [(first, [bare]), (dataclasses.replace(second, picture=first.picture), [about])])
    if num_images == 2:  # of one segment there would be room for more
        assert row["image/index"].tolist() == [0] * 24 + [1] * 24
        expected = {name: value[: len(row[name])] for name, value in expected.items() if name != "image/index"}
    assert row["targets/word_boxes"].any() and row["examples"].tolist() == [[1, 0], [2, 0]]
    for name, value in expected.items():
        np.testing.assert_array_equal(row[name], value, err_msg=name)
    with pytest.raises(DataError, match="record toy-0 has 1 pictures, config.data.apart is 2"):
        processor.row([(first, [text])])


def test_each_text_may_have_a_copy_of_the_picture(source, make_processor):
    processor = make_processor(texts_per_row=3, copies=True, model=ModelConfig(patch_size=8))
    texts = source[0].texts[:2]
    row = processor.row([(source[0], texts)])
    expected = _packed(processor, [(source[0], [text]) for text in texts], size=3)
    for name, value in expected.items():
        np.testing.assert_array_equal(row[name], value, err_msg=name)
    assert row["examples"].tolist() == [[1, 0], [2, 0], [0, 0]]


def test_what_lies_under_a_patch():
    # A grid of 2 x 2: the first object fills the upper left and a little of the upper right, the second is a dot.
    boxes = np.array([[0, 0, 0.52, 0.5], [0.6, 0.7, 0.7, 0.8]], np.float32)
    record = Record(
        id="r",
        images=(),
        texts=(),
        picture=1,
        boxes=boxes,
        classes=np.array([[2, 0], [1, -1]], np.int32),
        index=np.array([0, 0]),
    )
    classes, centres = region_targets(record, 0, (2, 2), 2)
    assert classes.tolist() == [[3, 1], [0, 0], [0, 0], [2, -1]]
    np.testing.assert_allclose(centres, [[0.26, 0.25], [-1, -1], [-1, -1], [0.65, 0.75]], atol=1e-6)
    classes, centres = region_targets(record, 1, (1, 2), 2)
    assert not classes.any() and (centres == -1).all()
    assert region_targets(dataclasses.replace(record, classes=np.zeros((2, 0), np.int32)), 0, (2, 2), 2) is None
    with pytest.raises(DataError, match="record r: classes of 2 attributes, the source has 3"):
        region_targets(record, 0, (2, 2), 3)


def test_the_larger_overlap_names_the_patch():
    record = Record(
        id="r",
        images=(),
        texts=(),
        picture=1,
        boxes=np.array([[0, 0, 1, 0.4], [0, 0.4, 1, 1]], np.float32),
        classes=np.array([[0], [1]], np.int32),
        index=np.array([0, 0]),
    )
    assert region_targets(record, 0, (1, 1), 1)[0].tolist() == [[2]]


def test_a_word_takes_the_boxes_of_its_mention(make_processor):
    text = "A greenish red box."
    boxes = np.arange(28, dtype=np.float32).reshape(7, 4) / 28
    mentions = (
        Mention(start=2, end=10, boxes=boxes[:1]),
        Mention(start=15, end=18, boxes=boxes),
        Mention(start=11, end=14, boxes=boxes, index=1),
    )
    tokens = make_processor().tokenizer.encode(text, 20)
    target = np.zeros((len(tokens.ids), MAX_BOXES, 4), np.float32)
    put_mentions(target, tokens.spans, Sentence(id="a", text=text, mentions=mentions))
    for (start, end), token in zip(tokens.spans, target, strict=True):
        if 2 <= start < 10:  # every piece of "greenish"
            np.testing.assert_array_equal(token[0], boxes[0])
            assert not token[1:].any()
        elif (start, end) == (15, 18):
            np.testing.assert_array_equal(token, boxes[:MAX_BOXES])
        else:
            assert not token.any()


def test_what_is_not_known_is_left_out(make_processor):
    class Plain:
        region_classes: dict = {}

        def __len__(self):
            return 1

        def __getitem__(self, i):
            return Record(id="r", images=(np.zeros((8, 8, 3), np.uint8),), texts=self.texts(i), picture=1)

        def texts(self, i):
            return (Sentence(id="a", text="A dog."),)

    source = Plain()
    processor = Processor.build(Config(), source)
    batch = processor.batch([processor.row([(source[0], source[0].texts)])])
    assert batch.targets == {} and processor.spec.num_answers == 0 and processor.spec.region_classes == ()


def test_an_answer_that_training_never_gave_is_marked(source, make_processor):
    record = source[0]
    texts = [dataclasses.replace(record.texts[0], answer=answer) for answer in ("mauve", "")]
    processor = make_processor(texts_per_row=3)
    unseen, no_question, padding = len(processor.answers), -1, -1
    assert processor.row([(record, texts)])["targets/answer"].tolist() == [unseen, no_question, padding]


def test_texts_that_are_too_long_are_known(source, make_processor):
    processor = make_processor(text_length=6)
    assert [processor.truncates(text.text) for text in source.texts(0)] == [True, True, True, False]


def test_saved_processor_makes_the_same_rows(source, make_processor, tmp_path):
    processor = make_processor(texts_per_row=2)
    processor.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "vocab.txt",
        "tokenizer_config.json",
        "answers.json",
        "spec.json",
    }
    again = Processor.from_folder(tmp_path, Config(data=processor.data, model=processor.model))
    assert again.spec == processor.spec and again.answers == processor.answers
    first, second = (p.row([(source[0], source[0].texts[:2])]) for p in (processor, again))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_damaged_files_are_named(make_processor, tmp_path):
    processor = make_processor()
    config = Config(data=processor.data, model=processor.model)
    with pytest.raises(DataError, match=r"spec\.json: cannot be read"):
        Processor.from_folder(tmp_path, config)
    processor.save(tmp_path)
    (tmp_path / "answers.json").write_text("{}")
    with pytest.raises(DataError, match=r"answers\.json: expected a JSON list"):
        Processor.from_folder(tmp_path, config)
    processor.save(tmp_path)
    (tmp_path / "spec.json").write_text("{}")
    with pytest.raises(DataError, match=r"spec\.json: expected the keys region_classes and mentions"):
        Processor.from_folder(tmp_path, config)


def test_the_vocabulary_is_the_same_every_time(source, make_processor):
    assert make_processor().tokenizer.vocabulary == make_processor(share=0.5).tokenizer.vocabulary


def test_errors_name_the_record(source, make_processor):
    processor = make_processor()
    record = source[3]
    with pytest.raises(DataError, match="record toy-3, text x: the text ' ' is empty"):
        processor.row([(record, [Sentence(id="x", text=" ")])])
    two = dataclasses.replace(record, images=record.images * 2)
    with pytest.raises(DataError, match=r"record toy-3 has 2 pictures, config\.model\.num_images is 1"):
        processor.row([(two, record.texts[:1])])


def test_the_number_of_a_picture_fits_into_int32(source):
    with pytest.raises(DataError, match="picture=2147483648 does not fit into int32"):
        dataclasses.replace(source[0], picture=2**31)


REGIONS = ModelConfig(image_stem="regions", image_positions="boxes", region_dim=6, direction="prefix", num_images=2)


def _regions(seed: int, count: int, *, boxes: bool = True) -> RegionFeatures:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2), np.float32), axis=1).reshape(count, 4)
    return RegionFeatures(features=rng.random((count, 6), np.float32), boxes=corners if boxes else None)


def _with_regions(record: Record, *regions: RegionFeatures) -> Record:
    return dataclasses.replace(record, images=(), regions=regions)


def test_regions_lie_in_a_row_as_patches_do(source, make_processor):
    processor = make_processor(model=REGIONS, max_patches=5, texts_per_row=2)
    said = np.array([[2], [0], [-1], [1], [1], [0], [0], [0]], np.int32)
    first, second = _regions(0, 3), dataclasses.replace(_regions(1, 8), classes=said)
    record = _with_regions(source[0], first, second)
    row = processor.row([(record, record.texts[:2])])
    assert processor.count_patches(record) == 3 + 5  # the first five are read
    assert (
        row["image/segments"].tolist() == [1] * 8 + [0] * 2
        and row["image/index"].tolist() == [0] * 3 + [1] * 5 + [0] * 2
    )
    np.testing.assert_array_equal(row["image/features"], [*first.features, *second.features[:5], *np.zeros((2, 6))])
    np.testing.assert_array_equal(row["image/boxes"], [*first.boxes, *second.boxes[:5], *np.zeros((2, 4))])
    assert row["examples"].tolist() == [[1, 1], [1, 2]]
    assert row["targets/region_class"][:, 0].tolist() == [-1] * 3 + [3, 1, -1, 2, 2] + [-1] * 2
    assert "targets/region_centre" not in row  # the box is read
    check_batch(processor.batch([row, processor.row([])]))


def test_regions_are_packed(source, make_processor):
    processor = make_processor(model=REGIONS, max_patches=4, examples_per_row=3, row_patches=9)
    records = [_with_regions(source[i], _regions(i, count)) for i, count in enumerate((2, 3, 4))]
    row = processor.row([(record, record.texts[:1]) for record in records])
    assert row["image/segments"].tolist() == [1] * 2 + [2] * 3 + [3] * 4
    np.testing.assert_array_equal(row["image/features"][2:5], records[1].regions[0].features)
    one = dataclasses.replace(processor, data=dataclasses.replace(processor.data, row_patches=8))
    with pytest.raises(DataError, match="record toy-2: its pictures do not fit the row's 8 image tokens"):
        one.row([(record, record.texts[:1]) for record in records])


def test_the_mean_region_comes_first(source, make_processor):
    processor = make_processor(model=REGIONS, max_patches=4, mean_region=True)
    regions = _regions(0, 6)
    record = _with_regions(source[0], regions)
    row = processor.row([(record, record.texts[:1])])
    np.testing.assert_allclose(row["image/features"][0], regions.features.mean(0))
    np.testing.assert_array_equal(row["image/features"][1:4], regions.features[:3])
    assert row["image/boxes"][0].tolist() == [0, 0, 1, 1] and processor.count_patches(record) == 4


def test_regions_without_boxes_serve_models_that_read_none(source, make_processor):
    record = _with_regions(source[0], _regions(0, 3, boxes=False))
    blind = dataclasses.replace(REGIONS, image_positions="none")
    row = make_processor(model=blind).row([(record, record.texts[:1])])
    assert row["image/boxes"][:3].tolist() == [[0, 0, 1, 1]] * 3
    with pytest.raises(
        DataError, match=r"record toy-0: regions without boxes .* config\.model\.image_positions='boxes' reads them"
    ):
        make_processor(model=REGIONS).row([(record, record.texts[:1])])


def test_regions_and_pictures_are_not_mistaken(source, make_processor):
    reads_regions, reads_pixels = make_processor(model=REGIONS), make_processor()
    record = source[0]
    with pytest.raises(DataError, match=r"record toy-0 has 0 sets of region features, .*num_images is 2 .*'regions'"):
        reads_regions.row([(record, record.texts[:1])])
    with pytest.raises(DataError, match="record toy-0 has 0 pictures"):
        reads_pixels.row([(_with_regions(record, _regions(0, 3)), record.texts[:1])])
    wide = RegionFeatures(features=np.ones((3, 7), np.float32), boxes=np.ones((3, 4), np.float32))
    with pytest.raises(DataError, match=r"record toy-0: regions of 7 numbers, config\.model\.region_dim is 6"):
        reads_regions.row([(_with_regions(record, wide), record.texts[:1])])
    with pytest.raises(DataError, match="image 0: region features, but config.model.image_stem='linear' reads pixels"):
        reads_pixels.batch_of([wide], ["a box"])
    with pytest.raises(DataError, match=r"image 0: config\.model\.image_stem='regions' reads RegionFeatures"):
        reads_regions.batch_of([record.images[0]], ["a box"])
    with pytest.raises(ConfigError, match=r"config\.data\.augment has 'shift': .* reads no pixels"):
        make_processor(model=REGIONS, augment=("shift",))
    with pytest.raises(ConfigError, match=r"config\.data\.shorter_side=64: .* reads no pixels"):
        make_processor(model=REGIONS, shorter_side=64)


def test_a_batch_from_region_features(make_processor, tmp_path):
    regions = _regions(0, 3)
    np.savez(tmp_path / "a.npz", features=regions.features, boxes=regions.boxes)
    batch = make_processor(model=REGIONS).batch_of([regions, tmp_path / "a.npz", (regions, regions)], ["a box"] * 3)
    check_batch(batch)
    for row in range(3):
        np.testing.assert_array_equal(batch.image.features[row, :3], regions.features)
        np.testing.assert_array_equal(batch.image.boxes[row, :3], regions.boxes)
    assert batch.image.index[2, :6].tolist() == [0] * 3 + [1] * 3
    blind = dataclasses.replace(REGIONS, image_positions="none")
    batch = make_processor(model=blind).batch_of([regions.features], ["a box"])
    np.testing.assert_array_equal(batch.image.features[0, :3], regions.features)


def test_a_mask_ends_every_text(source, make_processor):
    processor = make_processor(mask_last=True, text_length=6)
    record = source[0]
    row = processor.row([(record, record.texts[:1])])
    assert _pieces(processor, row) == ["[CLS]", "what", "colour", "is", "[MASK]", "[SEP]"]
    assert processor.truncates(record.texts[0].text) and not processor.truncates("a box")
    assert _pieces(processor, processor.row([(record, record.texts[3:])]))[-2:] == ["[MASK]", "[SEP]"]


def test_a_task_is_named_after_cls(source, make_processor):
    """As `interop.vilbert_inputs.with_task` lays it out: the words keep their positions."""
    plain = make_processor(text_length=6)
    processor = dataclasses.replace(plain, data=dataclasses.replace(plain.data, task=2, text_length=7))
    record = source[0]
    row, other = (each.row([(record, record.texts[:1])]) for each in (processor, plain))
    wanted = with_task(Text(ids=other["text/ids"][None]), 2, vocab_size=processor.tokenizer.vocab_size)
    np.testing.assert_array_equal(row["text/ids"], wanted.ids[0])
    np.testing.assert_array_equal(row["text/positions"], wanted.positions[0])
    assert processor.truncates(record.texts[0].text) and not processor.truncates("a box")


def test_pictures_by_their_sides(source, make_processor):
    processor = make_processor(shorter_side=16, max_patches=6)  # 32 x 48 pixels become 16 x 24
    record = source[0]
    row = processor.row([(record, record.texts[:1])])
    assert row["image/grid"][0].tolist() == [2, 3] and processor.count_patches(record) == 6
    assert int((row["image/segments"] > 0).sum()) == 6


@pytest.mark.parametrize("settings", [{"texts_per_row": 3}, {"examples_per_row": 2}, {}])
def test_a_batch_from_what_people_have(source, make_processor, tmp_path, settings):
    processor = make_processor(**settings)
    record = source[2]
    Image.fromarray(record.images[0]).save(tmp_path / "a.png")
    pictures = [record.images[0], Image.fromarray(record.images[0]), tmp_path / "a.png", str(tmp_path / "a.png")]
    batch = processor.batch_of(pictures, [record.texts[0].text] * 4)
    check_batch(batch)
    assert batch.targets == {} and batch.examples.tolist() == [[[1, 0]]] * 4
    row = make_processor().row([(record, record.texts[:1])])
    for i in range(4):
        np.testing.assert_array_equal(batch.text.ids[i], row["text/ids"])
        np.testing.assert_array_equal(batch.image.pixels[i], row["image/pixels"])


def test_a_batch_names_what_it_cannot_read(make_processor, tmp_path):
    processor = make_processor()
    picture = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(DataError, match=r"none\.png: no such image file"):
        processor.batch_of([picture, tmp_path / "none.png"], ["a box", "a box"])
    with pytest.raises(DataError, match="image 1: an array of int64"):
        processor.batch_of([picture, picture.astype(np.int64)], ["a box", "a box"])
    with pytest.raises(DataError, match="text ''"):
        processor.batch_of([picture], [""])
    with pytest.raises(DataError, match="2 images and 1 texts"):
        processor.batch_of([picture, picture], ["a box"])


def test_the_source_divides_a_picture_of_several():
    data = DataConfig(name="nlvr", max_patches=25)
    config = Config(data=data, model=ModelConfig(patch_size=20, num_images=3))
    other = Processor.build(config, _Sentences())
    drawing = np.repeat(np.arange(400)[None, :, None] // 2, 100, axis=0).repeat(3, axis=2).astype(np.uint8)
    one = other.batch_of([drawing], ["a box"])
    several = other.batch_of([(drawing[:, :100], drawing[:, 150:250], drawing[:, 300:])], ["a box"])
    np.testing.assert_array_equal(one.image.pixels, several.image.pixels)
    assert one.image.index[0].tolist() == [0] * 25 + [1] * 25 + [2] * 25


class _Sentences:
    region_classes: dict = {}

    def __len__(self):
        return 1

    def __getitem__(self, i):
        raise AssertionError("a vocabulary needs no picture")

    def texts(self, i):
        return (Sentence(id="a", text="a box", answer="true"),)

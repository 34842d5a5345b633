"""The tokenizer: what its tokens stand for, and a vocabulary that the same texts always give."""

from __future__ import annotations

import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import pytest

from singlestream.data.record import DataError
from singlestream.data.text import SPECIAL, Tokenizer, count_words, train_vocabulary

TEXTS = ["Is the red cube left of the blue ball?", "How many cubes are there?", "A large red cube.", "the reddest"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 200)


def test_special_tokens_have_berts_order(tokenizer):
    assert [tokenizer.vocabulary[token] for token in SPECIAL] == [0, 1, 2, 3, 4]
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (*range(5),)


def test_encode_gives_words_and_their_characters(tokenizer):
    text = "The  RED cubé?"
    tokens = tokenizer.encode(text, 12)
    assert [tokenizer.token(i) for i in tokens.ids] == ["[CLS]", "the", "red", "cube", "?", "[SEP]"]
    assert [text[a:b] for a, b in tokens.spans] == ["", "The", "RED", "cubé", "?", ""]
    assert not tokens.truncated
    assert tokenizer.decode(tokens.ids) == "the red cube?"


def test_long_text_loses_its_end_and_says_so(tokenizer):
    tokens = tokenizer.encode("the red cube left of the ball", 5)
    assert [tokenizer.token(i) for i in tokens.ids] == ["[CLS]", "the", "red", "cube", "[SEP]"]
    assert tokens.truncated
    assert not tokenizer.encode("the red cube", 5).truncated


def test_unknown_characters_become_unk(tokenizer):
    ids = tokenizer.encode("the 立 cube", 9).ids
    assert [tokenizer.token(i) for i in ids] == ["[CLS]", "the", "[UNK]", "cube", "[SEP]"]


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u200b"])
def test_text_without_a_word_is_an_error(tokenizer, text):
    with pytest.raises(DataError, match="is empty"):
        tokenizer.encode(text, 8)


def test_saved_vocabulary_reads_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = Tokenizer.from_file(tmp_path / "vocab.txt")
    assert again.vocabulary == tokenizer.vocabulary
    assert all(again.token(i).startswith("##") for i in again.continuations)


def test_damaged_vocabulary_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt: cannot read"):
        Tokenizer.from_file(tmp_path / "none.txt")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nthe\n")
    with pytest.raises(DataError, match=r"vocab\.txt: the vocabulary lacks \[CLS\], \[SEP\], \[MASK\]"):
        Tokenizer.from_file(tmp_path / "vocab.txt")
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "the", "the", "a"]))
    with pytest.raises(DataError, match="gaps or repeat"):
        Tokenizer.from_file(tmp_path / "vocab.txt")


def test_words_that_fit_are_taken_whole():
    assert train_vocabulary({"aab": 3, "ab": 2}, 10) == [*SPECIAL, "##b", "a", "##a", "aab", "ab"]


def test_else_the_most_frequent_pair_is_merged_first():
    # Characters by frequency; then ##a+##b (3, before a+##a by name), a+##ab (3), a+##b (2).
    counts = {"aab": 3, "ab": 2, "aabb": 1, "ba": 1}
    characters = [*SPECIAL, "##b", "a", "##a", "b"]
    assert train_vocabulary(counts, 12) == [*characters, "##ab", "aab", "ab"]
    assert train_vocabulary(counts, 10) == [*characters, "##ab"]
    assert train_vocabulary(counts, 7) == [*SPECIAL, "##b", "a"]


def test_repeated_letters_merge_without_overlap():
    assert train_vocabulary({"aaaaa": 2, "aaaaaa": 2}, 8) == [*SPECIAL, "##a", "a", "##aa"]
    assert train_vocabulary({"aaaaa": 2, "aaaaab": 1, "bb": 1}, 11)[-2:] == ["##aa", "##aaaa"]


words = st.lists(st.text("abcd", min_size=1, max_size=6), min_size=1, max_size=30)


@hypothesis.given(words, st.integers(20, 120))
def test_a_trained_vocabulary_spells_every_training_word(texts, vocab_size):
    tokenizer = Tokenizer.train(texts, vocab_size)
    assert tokenizer.vocab_size <= vocab_size
    for text in texts:
        tokens = tokenizer.encode(text, 20)
        assert tokenizer.unk_id not in tokens.ids
        assert tokenizer.decode(tokens.ids) == text


@hypothesis.given(words)
def test_the_order_of_texts_does_not_matter(texts):
    assert Tokenizer.train(texts, 60).vocabulary == Tokenizer.train(texts[::-1], 60).vocabulary


@hypothesis.given(st.lists(st.text(max_size=30), max_size=5))
@hypothesis.example(["a\x1fb c\u00a0d", "Éa\u0301 x"])
def test_counted_words_are_those_that_the_tokenizer_reads(texts):
    # A vocabulary of whole words knows every word of the texts: the tokenizer splits as the count did.
    words = list(count_words(texts))
    tokenizer = Tokenizer({token: i for i, token in enumerate(dict.fromkeys([*SPECIAL, *words]))})
    for text in texts:
        if text.strip(" "):
            try:
                tokens = tokenizer.encode(text, 100)
            except DataError:
                continue
            assert all(tokenizer.token(i) in [*words, "[CLS]", "[SEP]"] for i in tokens.ids)


def test_vocabulary_does_not_depend_on_the_process():
    code = f"from singlestream.data.text import Tokenizer; print(Tokenizer.train({TEXTS!r}, 60).vocabulary)"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1

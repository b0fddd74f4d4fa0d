"""The sequential tokenizer: the same notes as the pooled one, one family after another."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_songs import VOCABULARY, random_song

from backline.common.errors import UserError
from backline.music.vocab import BOS, EOS
from benchmarks.sequential_tokenizer import MidiTokenizerSequential
from tokenizer import MidiTokenizerPooled

TOKENIZER = MidiTokenizerSequential()


@given(st.integers(0, 10_000), st.integers(0, 60))
def test_rows_come_back(seed, n_notes):
    rows = random_song(seed, n_notes)
    ids = TOKENIZER.rows_to_ids(rows)
    assert ids[0] == BOS and ids[-1] == EOS
    assert np.array_equal(TOKENIZER.ids_to_rows(ids), rows)
    assert np.array_equal(TOKENIZER.ids_to_rows(torch.tensor(ids)), rows)


def test_bar_and_position_are_said_only_where_they_change():
    rows = np.array([[4, 4, 7, 4], [4, 4, 7, 51], [4, 12, 7, 4], [5, 12, 7, 4]])
    events = TOKENIZER.tokens_to_events(TOKENIZER.rows_to_ids(rows))
    assert events == ["BOS_None", "bar0", "start_pos0", "pitch35_drums", "note_dur4", "pitch21_bass", "note_dur4",
                      "start_pos8", "pitch35_drums", "note_dur4", "bar1", "start_pos8", "pitch35_drums", "note_dur4",
                      "EOS_None"]


def test_there_is_an_id_for_every_event():
    assert TOKENIZER.n_tokens == sum(VOCABULARY.sizes) - 3 * 4
    names = TOKENIZER.tokens_to_events(range(TOKENIZER.n_tokens))
    assert len(set(names)) == TOKENIZER.n_tokens


def test_it_makes_the_same_midi_as_the_pooled_tokenizer(tmp_path):
    rows, pooled = random_song(3, 40), MidiTokenizerPooled()
    own = TOKENIZER.create_midi_from_tokens(TOKENIZER.rows_to_ids(rows))
    theirs = pooled.create_midi_from_tokens(pooled.rows_to_ids(rows))
    assert [track.notes for track in own.instruments] == [track.notes for track in theirs.instruments]
    tokens = TOKENIZER(own, tmp_path / "song.json")
    written = json.loads((tmp_path / "song.json").read_text())
    assert written["ids"] == tokens["ids"] and written["format"] == "sequential-tokens"
    assert len(written["events"]) == len(written["ids"])


@pytest.mark.parametrize(("ids", "text"), [
    ([1, 264], "start_pos4 cannot stand as note token 0"),
    ([4, 260, 300], "pitch43_drums cannot stand as note token 2"),
    ([4, 260, 300, 600, 600], "cannot stand as note token 4"),
    ([643], "id 643 at 0 is outside the vocabulary of 643"),
    ([-1], "id -1 at 0 is outside"),
    ([[1, 1, 1, 1]], "whole numbers in a row"),
    (["bar0"], "whole numbers in a row"),
])
def test_ids_that_say_no_song_are_errors(ids, text):
    with pytest.raises(UserError, match=text):
        TOKENIZER.ids_to_rows(ids)

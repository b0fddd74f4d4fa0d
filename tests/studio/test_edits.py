"""Edits without the model: what moves moves exactly so far, and everything else stays."""

from __future__ import annotations

import numpy as np
import pytest
from pages import TOKENIZER, V, write_idea
from random_songs import random_song

from backline.common.errors import UserError
from backline.listening.song_view import view_song
from backline.music.midi_reader import read_song
from backline.music.song import TICKS_PER_QUARTER
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, QUARTERS_PER_BAR
from backline.studio.edits import (
    Selection,
    at_tempo,
    edited_files,
    hear_song,
    selection_bytes,
    trimmed,
    with_part_of,
    with_pitches_moved,
)
from backline.studio.folder import read_edit

BAR_TICKS = QUARTERS_PER_BAR * TICKS_PER_QUARTER
N_BARS = 6
EDIT = {"operation": "test", "said": "tested", "parents": ["a1"]}


def short_song(seed: int) -> np.ndarray:
    """Six bars of notes that end in them."""
    rows = random_song(seed, 120, N_BARS)
    rows[:, NOTE_DUR] = FIRST_ID + rows[:, NOTE_DUR] % 3
    return rows[(rows[:, BAR] - FIRST_ID < N_BARS - 1) | (rows[:, 1] < FIRST_ID + V.steps_per_bar - 4)]


def notes_of(path, data=None) -> dict[str, list[tuple[int, int, int, int]]]:
    """(onset, end, pitch, velocity) of each part's notes, sorted."""
    view, _ = view_song(path, V, data)
    return {lane.name: sorted(zip(*lane.notes.T.tolist(), lane.velocities.tolist(), strict=True))
            for lane in view.lanes}


@pytest.fixture(params=[0, 1])
def song(request, tmp_path):
    return write_idea(tmp_path, request.param, short_song(request.param))


def written(folder, heard, name="9.mid"):
    """The edited song in a file, and its stems hold the same parts."""
    files = edited_files(heard, EDIT)
    path = folder / name
    path.write_bytes(files[""])
    whole = notes_of(path)
    for part in V.part_names:
        stem = notes_of(folder / "stem.mid", files[f"-{part}"]) if whole[part] else {part: []}
        assert stem[part] == whole[part]
    return whole


@pytest.mark.parametrize("semitones", [-12, -1, 1, 12])
def test_selected_notes_move_and_no_others(song, semitones):
    before = notes_of(song)
    heard = with_pitches_moved(hear_song(song, V), Selection(2, 3, ("bass", "drums")), semitones)
    after = written(song.parent, heard)
    assert after["drums"] == before["drums"] and after["piano"] == before["piano"]
    inside = [note for note in before["bass"] if BAR_TICKS <= note[0] < 3 * BAR_TICKS]
    assert inside
    moved = [(onset, end, pitch + semitones, velocity) for onset, end, pitch, velocity in inside]
    # A moved note may meet one of its new pitch, whose end then is that of the first; onsets tell.
    expected = sorted((onset, pitch) for onset, _, pitch, _ in [*moved, *(set(before["bass"]) - set(inside))])
    assert sorted((onset, pitch) for onset, _, pitch, _ in after["bass"]) == expected


def test_moving_there_and_back_is_nothing(song):
    heard = hear_song(song, V)
    everything = Selection(1, heard.n_bars, ("bass", "piano"))
    there = with_pitches_moved(heard, everything, 12)
    assert written(song.parent, with_pitches_moved(there, everything, -12)) == notes_of(song)


def test_a_note_cannot_leave_midi(song):
    with pytest.raises(UserError, match="cannot move by 48 semitones"):
        heard = hear_song(song, V)
        for _ in range(4):
            heard = with_pitches_moved(heard, Selection(1, N_BARS, ("piano",)), 48)


@pytest.mark.parametrize(("selection", "message"), [
    (Selection(0, 1, ("bass",)), "name bars from 1 to 6"),
    (Selection(5, 7, ("bass",)), "the song has 6 bars"),
    (Selection(3, 2, ("bass",)), "name bars from 1 to 6"),
    (Selection(1, 2, ("kazoo",)), "the song has no kazoo; it has drums, bass, piano"),
    (Selection(1, 2, ("drums",)), "drums have no octaves"),
])
def test_what_cannot_be_moved_is_said(song, selection, message):
    with pytest.raises(UserError, match=message):
        with_pitches_moved(hear_song(song, V), selection, 1)


def test_another_tempo_changes_nothing_else(song):
    before = notes_of(song)
    assert written(song.parent, at_tempo(hear_song(song, V), 83.5)) == before
    assert read_song(song.parent / "9.mid").main_tempo() == pytest.approx(83.5, abs=0.001)
    with pytest.raises(UserError, match="tempo must be a number"):
        at_tempo(hear_song(song, V), "fast")


def test_a_trimmed_song_is_exactly_its_bars(song):
    before = notes_of(song)
    after = written(song.parent, trimmed(hear_song(song, V), Selection(3, 4, tuple(V.part_names))))
    start, end = 2 * BAR_TICKS, 4 * BAR_TICKS
    for name, notes in before.items():
        assert after[name] == [(onset - start, min(stop, end) - start, *rest)
                               for onset, stop, *rest in notes if start <= onset < end]
    view, recipe = view_song(song.parent / "9.mid", V)
    assert view.n_bars == 2 and recipe is None, "the recipe of the whole song would be wrong"
    assert read_edit(song.parent / "9.mid")["parents"] == ["a1"]


def test_a_selection_is_a_file_of_these_bars_and_parts(song):
    before = notes_of(song)
    data = selection_bytes(hear_song(song, V), Selection(2, 4, ("piano",)))
    (song.parent / "cut.mid").write_bytes(data)
    after = notes_of(song.parent / "cut.mid")
    assert not after["drums"] and not after["bass"]
    assert [note[0] for note in after["piano"]] == [onset - BAR_TICKS for onset, *_ in before["piano"]
                                                    if BAR_TICKS <= onset < 4 * BAR_TICKS]
    assert view_song(song.parent / "cut.mid", V)[0].n_bars == 3


@pytest.mark.parametrize("part", V.part_names)
def test_a_part_of_another_song_takes_the_place_of_the_own(tmp_path, part):
    one = write_idea(tmp_path, 0, short_song(0))
    other = write_idea(tmp_path, 1, short_song(1))
    after = written(tmp_path, with_part_of(hear_song(one, V), hear_song(other, V), part))
    for name, notes in notes_of(one).items():
        assert after[name] == (notes_of(other)[part] if name == part else notes)


def test_songs_of_other_resolutions_and_lengths_mix(tmp_path):
    one = write_idea(tmp_path, 0, short_song(0))
    fine = TOKENIZER.create_midi_from_tokens(short_song(1).tolist(), tpb=960, tempo=80.0)
    fine.dump(tmp_path / "1.mid")
    longer = write_idea(tmp_path, 2, random_song(2, 300, 12))
    mixed = with_part_of(hear_song(one, V), hear_song(tmp_path / "1.mid", V), "bass")
    whole = written(tmp_path, mixed)
    scale = mixed.song.midi.ticks_per_quarter // TICKS_PER_QUARTER
    assert [(onset / scale, pitch) for onset, _, pitch, _ in whole["piano"]] \
        == [(onset, pitch) for onset, _, pitch, _ in notes_of(one)["piano"]]
    assert len(whole["bass"]) == len(notes_of(tmp_path / "1.mid")["bass"])
    shorter = written(tmp_path, with_part_of(hear_song(one, V), hear_song(longer, V), "drums"))
    end = N_BARS * BAR_TICKS
    expected = [(onset, min(stop, end), *rest) for onset, stop, *rest in notes_of(longer)["drums"] if onset < end]
    assert shorter["drums"] == sorted(expected)


def test_a_part_that_is_not_there_cannot_be_taken(tmp_path):
    rows = short_song(0)
    one = write_idea(tmp_path, 0, rows)
    is_drum = V.part_of_id[rows[:, 3]] == 0
    other = write_idea(tmp_path, 1, rows[is_drum])
    with pytest.raises(UserError, match="the song has no bass; it has drums"):
        with_part_of(hear_song(one, V), hear_song(other, V), "bass")

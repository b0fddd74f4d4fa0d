"""Whether new notes fit those that were there: marks with their reasons."""

from __future__ import annotations

import numpy as np
import pytest
from random_songs import random_song
from written_songs import song

from backline.generation.fitting import fits_of
from backline.music.vocab import load_vocabulary

V = load_vocabulary()
KICK = 36


def marks(new: np.ndarray, known: np.ndarray, bars=range(4)) -> dict[str, float]:
    return {fit.reason: fit.mark for fit in fits_of(new, known, V, bars)}


CHORDS = song(*[(bar, 0, 32, "piano", pitch) for bar in range(4) for pitch in (60, 64, 67)],
              *[(bar, 0, 2, "drums", KICK) for bar in range(4)])


def test_a_bass_on_the_kick_and_in_the_chord_fits():
    bass = song(*[(bar, 0, 16, "bass", 36) for bar in range(4)])
    assert marks(bass, CHORDS) == {"bass plays in 4 of 4 bars": 1.0, "bass 100% in the chord": 1.0,
                                   "bass 1 notes a bar beside 2": 1.0, "bass with the kick 100%": 1.0}


def test_what_does_not_fit_says_so():
    bass = song((0, 5, 32, "bass", 37), (3, 5, 3, "bass", 37))
    found = marks(bass, CHORDS)
    assert found["bass plays in 2 of 4 bars"] == pytest.approx(0.5 / 0.75)
    first = marks(song((0, 0, 4, "bass", 36)), CHORDS)
    assert "bass plays in 1 of 4 bars" in first, "also at the end, where it has no note"
    assert found["bass 0% in the chord"] == 0 and found["bass with the kick 0%"] == 0


def test_a_storm_beside_a_clean_beat_costs():
    storm = song(*[(bar, step, 1, "drums", 54) for bar in range(4) for step in range(24)])
    known = song(*[(bar, step, 4, "bass", 36) for bar in range(4) for step in (0, 8, 16, 24)])
    calm = song(*[(bar, step, 1, "drums", 42) for bar in range(4) for step in range(0, 32, 4)])
    assert marks(storm, known)["drums 24 notes a bar beside 4"] == 0
    assert marks(calm, known)["drums 8 notes a bar beside 4"] == 1


def test_a_part_is_compared_with_itself_where_it_was_there():
    known = song(*[(bar, step, 1, "drums", 42) for bar in range(4) for step in range(0, 32, 2)],
                 *[(bar, 0, 4, "bass", 36) for bar in range(4)])
    new = song(*[(bar, step, 1, "drums", 42) for bar in range(4, 8) for step in range(0, 32, 2)])
    assert marks(new, known, range(4, 8)) == {"drums 16 notes a bar beside 16": 1.0}, "it plays alone there"


def test_without_known_notes_nothing_is_to_fit():
    assert fits_of(random_song(1, 50, 4), CHORDS[:0], V, range(4)) == []


def test_marks_of_any_songs_are_from_0_to_1():
    for seed in range(20):
        for fit in fits_of(random_song(seed, 80, 5), random_song(seed + 100, 60, 4), V, range(5)):
            assert 0 <= fit.mark <= 1, fit


def test_only_bars_that_were_to_be_made_count():
    bass = song((2, 0, 16, "bass", 36), (3, 0, 16, "bass", 36))
    assert "bass plays in 2 of 2 bars" in marks(bass, CHORDS, [2, 3])

"""The velocity of each note of a song, from its MIDI file.

Rows of ids hold no velocities. They are looked up in the file that the rows were made from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backline.music.bars import quantize_onsets
from backline.music.casting import Assignment
from backline.music.midi_tracks import MidiTracks
from backline.music.players import Voice
from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, START_POS, Vocabulary

UNKNOWN_VELOCITY = 0  # no note has this velocity: it is how MIDI switches notes off


def strikes_of_parts(midi: MidiTracks,
                     voices: Sequence[Voice],
                     assignment: Assignment) -> list[np.ndarray]:
    """For each part, (N, 3) int64 onset in ticks, pitch and velocity of its note-ons.

    `voices` belong to the tracks of the song that `assignment` is about; see `song_of_tracks`.
    """
    found: dict[Voice, list[tuple[int, int, int]]] = {voice: [] for voice in voices}
    for track, events in enumerate(midi.tracks):
        for event in events:
            if event.is_onset:
                _, pitch, velocity = event.message
                strike = (event.tick, pitch, velocity)
                found[Voice(track, event.channel)].append(strike)
    strikes = []
    for tracks in assignment.tracks.values():
        rows = [strike for i in tracks for strike in found[voices[i]]]
        strikes.append(np.array(rows, np.int64).reshape(-1, 3))
    return strikes


def row_velocities(rows: np.ndarray,
                   strikes: Sequence[np.ndarray],
                   ticks_per_quarter: int,
                   vocabulary: Vocabulary) -> np.ndarray:
    """(N,) velocities of (N, F) rows. Of several note-ons in one row, the loudest counts.

    A row without a note-on, such as a note moved by octaves, is UNKNOWN_VELOCITY.

    Args:
        strikes: for each part of the vocabulary, as `strikes_of_parts` finds them, in ticks from
            the first bar of the rows on.
    """
    by_place = []
    for part, own in zip(vocabulary.parts, strikes, strict=True):
        inside = own[(own[:, 1] >= part.lowest_pitch) & (own[:, 1] <= part.highest_pitch)]
        by_place.append(inside)
    n_strikes = [len(own) for own in by_place]
    onset, pitch, velocity = np.concatenate(by_place).T      # (M,) each
    lowest = np.array([part.lowest_pitch for part in vocabulary.parts])
    id_of_pitch_0 = np.array(vocabulary.first_pitch_ids) - lowest
    ids = pitch + np.repeat(id_of_pitch_0, n_strikes)
    step = quantize_onsets(onset, ticks_per_quarter, vocabulary.steps_per_quarter)
    n_ids = vocabulary.sizes[PITCH_INSTRUMENT]
    key = step * n_ids + ids
    order = np.lexsort((velocity, key))
    key = key[order]
    velocity = velocity[order]
    bar = rows[:, BAR].astype(np.int64) - FIRST_ID
    wanted_step = bar * vocabulary.steps_per_bar + rows[:, START_POS] - FIRST_ID
    wanted = wanted_step * n_ids + rows[:, PITCH_INSTRUMENT]
    place = np.searchsorted(key, wanted, side="right") - 1   # the last of equal keys is the loudest
    velocities = np.full(len(rows), UNKNOWN_VELOCITY)
    if len(key):
        is_found = (place >= 0) & (key[place] == wanted)
        velocities[is_found] = velocity[place[is_found]]
    return velocities

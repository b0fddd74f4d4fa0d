"""Whether a track is played like drums or like a bass, by its notes alone.

`python -m benchmarks.bench_roles` measures how often this is right. Keys cannot be told from
guitars, strings and pads by their notes, so they are never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backline.music.theory import OCTAVE

DRUMS, BASS = "drums", "bass"
FEWEST_NOTES = 16  # that tell anything
KIT = (35, 36, 38, 40, 42, 44, 46)  # kicks, snares and hi-hats of General MIDI
KIT_SHARE = 0.57  # of the notes, at least
LOWEST_DRUM = 34
STRUCK_TOGETHER = 1.02  # notes for each onset, at least: hands and feet
LONGEST_DRUM = 1.0  # quarters, the median
HIGHEST_BASS = 55  # 95 % of the notes are at most as high
MEDIAN_BASS = 43
LOWEST_BASS = 36  # 5 % are at most as high
BASS_CHORDS = 0.05  # share of the onsets with more than one note, at most
BASS_PITCHES = 3  # pitch classes, at least


def plays_like(notes: np.ndarray, ticks_per_quarter: int) -> str | None:
    """`DRUMS` or `BASS` where (N, 3) onsets, ends and pitches are clear, else None."""
    if len(notes) < FEWEST_NOTES:
        return None
    onset, end, pitch = notes.T
    _, n_at_once = np.unique(onset, return_counts=True)
    lowest, middle, highest = np.percentile(pitch, [5, 50, 95])
    is_kit = np.isin(pitch, KIT).mean() >= KIT_SHARE
    if is_kit:
        is_short = np.median(end - onset) <= LONGEST_DRUM * ticks_per_quarter
        is_struck_together = n_at_once.mean() > STRUCK_TOGETHER
        return DRUMS if lowest >= LOWEST_DRUM and is_short and is_struck_together else None
    is_low = lowest <= LOWEST_BASS and middle <= MEDIAN_BASS and highest <= HIGHEST_BASS
    is_one_voice = (n_at_once > 1).mean() <= BASS_CHORDS
    n_classes = len(np.unique(pitch % OCTAVE))
    return BASS if is_low and is_one_voice and n_classes >= BASS_PITCHES else None


def play_like(tracks: Mapping[int, np.ndarray], ticks_per_quarter: int) -> dict[int, str]:
    """What the tracks of one song play like, where that is clear. Two basses are not."""
    found = {}
    for i, notes in tracks.items():
        like = plays_like(notes, ticks_per_quarter)
        if like is not None:
            found[i] = like
    basses = [i for i, like in found.items() if like == BASS]
    if len(basses) > 1:
        for i in basses:
            del found[i]
    return found

"""What a prompt is besides its rows: how long it lasts, and what of it still sounds."""

from __future__ import annotations

import dataclasses

import numpy as np

from backline.music.rows import bars_in
from backline.music.song import NO_NOTES
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS, Vocabulary


@dataclasses.dataclass(frozen=True)
class Clip:
    """What a prompt is besides its rows.

    n_bars: how many bars it lasts, from the first that the model hears; new bars come after them.
    first_bar: bars of the song before the first that the model hears.
    goes_on: whether new notes may begin in the prompt's last bar, after its last note.
    sounding: (M, 3) onset and end in steps, and id, of its notes as they were given: they may
        sound longer than a token can say.
    """

    n_bars: int
    first_bar: int = 0
    goes_on: bool = False
    sounding: np.ndarray = dataclasses.field(default_factory=lambda: NO_NOTES)


def clip_of_rows(rows: np.ndarray, vocabulary: Vocabulary, goes_on: bool) -> Clip:
    """The clip of a prompt of (N, F) rows alone: whole bars until its last note has ended.

    As in `bars.clip_length`, what sounds up to a 32nd past a bar line does not count.
    """
    onset = (rows[:, BAR] - FIRST_ID) * vocabulary.steps_per_bar + rows[:, START_POS] - FIRST_ID
    end = onset + rows[:, NOTE_DUR] - FIRST_ID + 1
    sounding = np.stack([onset, end, rows[:, PITCH_INSTRUMENT]], axis=1)
    if goes_on:
        return Clip(bars_in(rows), goes_on=True, sounding=sounding)
    late = vocabulary.steps_per_quarter // 8
    n_bars = -((late - int(end.max(initial=0))) // vocabulary.steps_per_bar)
    return Clip(max(n_bars, bars_in(rows)), sounding=sounding)

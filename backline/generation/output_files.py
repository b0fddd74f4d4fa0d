"""The files of a generated song: the song and its stems, and its line on the terminal."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from backline.generation.claims import write_new, write_over
from backline.generation.recipes import Recipe, with_recipe
from backline.music.bars import bar_origin
from backline.music.casting import assign_parts
from backline.music.midi_tracks import read_tracks, song_of_tracks
from backline.music.midi_writer import end_at_next_onset, parts_to_bytes
from backline.music.percussion import split_song
from backline.music.song import TICKS_PER_QUARTER
from backline.music.vocab import FIELDS, PITCH_INSTRUMENT, QUARTERS_PER_BAR, Vocabulary
from tokenizer import MidiTokenizerPooled


def song_bytes(rows: np.ndarray,
               tokenizer: MidiTokenizerPooled,
               tempo: float,
               recipe: Recipe,
               n_bars: int = 0) -> dict[str, bytes]:
    """The MIDI files of a song's notes, by name ending: "" for the whole, "-drums" for a stem.

    Every track of every file lasts the same whole bars: until the last note has ended, and `n_bars`
    at least. Imported into a DAW, or looped there, they stay together.

    `rows`: (N, F) ids, or (N, F + 1) with a velocity behind them; without, all are `VELOCITY`.
    """
    v = tokenizer.vocabulary
    ids = rows[:, :len(FIELDS)]
    parts = tokenizer.rows_to_parts(ids, TICKS_PER_QUARTER)
    if rows.shape[1] > len(FIELDS):
        velocities = rows[:, -1]
        part_of_note = v.part_of_id[ids[:, PITCH_INSTRUMENT]]
        parts = [np.column_stack([part, velocities[part_of_note == p]])  # (N, 4)
                 for p, part in enumerate(parts)]
    parts = [end_at_next_onset(part) for part in parts]
    last_ticks = (part[:, 1].max(initial=0) for part in parts)
    last_tick = int(max(last_ticks))
    ticks_per_bar = QUARTERS_PER_BAR * TICKS_PER_QUARTER
    n_played = math.ceil(last_tick / ticks_per_bar)
    end_tick = ticks_per_bar * max(n_bars, n_played)
    track_sets: dict[str, int | None] = {"": None}
    for p, name in enumerate(v.part_names):
        track_sets[f"-{name}"] = p
    files = {}
    for ending, only in track_sets.items():
        midi = parts_to_bytes(parts, v, TICKS_PER_QUARTER, tempo, only=only)
        files[ending] = with_recipe(midi, recipe, end_tick)
    return files


def write_song(folder: Path,
               number: int | None,
               files: dict[str, bytes],
               beside: dict[str, bytes] | None = None) -> Path:
    """Write a song, its stems and what goes beside it; returns the path of the whole song.

    All other files are there before the whole song is.

    Args:
        number: replaces the song of this number; None: takes the next free number.
        files: what `song_bytes` made.
        beside: other files, by name ending: ".png".
    """
    named = dict(beside or {})
    for ending, data in reversed(files.items()):
        named[f"{ending}.mid"] = data
    if number is None:
        number = write_new(folder, named)
    else:
        write_over(folder, number, named)
    return folder / f"{number}.mid"


def describe(midi: bytes,
             n_new: int,
             vocabulary: Vocabulary,
             n_bars: int) -> str:
    """Bars, minutes, notes and notes per part of a song of `n_bars`, on one line.

    It tells of the file: the model may hear fewer notes, at one tempo.
    """
    song, _ = song_of_tracks(read_tracks("the song", midi), "the song")
    song = split_song(song, vocabulary)
    tracks = assign_parts(song, vocabulary).tracks
    counts = {name: sum(len(song.tracks[i].notes) for i in indices)
              for name, indices in tracks.items()}
    n_others = song.n_notes - sum(counts.values())
    if n_others:
        counts["others"] = n_others
    parts = ", ".join(f"{name} {count}" for name, count in counts.items())
    new = ""
    if n_new < song.n_notes:
        new = f", {n_new} of them new"
    end = bar_origin(song) + n_bars * QUARTERS_PER_BAR * song.ticks_per_quarter
    lasts = minutes(song.seconds_until(end))
    return f"{n_bars} bars, {lasts}, {song.n_notes} notes{new} ({parts})"


def minutes(seconds: float) -> str:
    """A time as clocks show it: "0:32" of half a minute."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"

"""A song as pages and pictures show it: lanes of notes, read from its file event by event.

So they show and play what the file holds: notes with their own timing and velocities, tracks that
play no part, and every tempo.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backline.common.errors import UserError
from backline.common.files import file_hash
from backline.generation.config import Reading
from backline.generation.given_song import MADE_MARK
from backline.generation.prompt import read_rows_alone
from backline.generation.reading import cast
from backline.generation.recipes import Recipe, find_recipe
from backline.generation.wish import Wish
from backline.music.bars import bar_origin, check_meters, clip_length, without_pickup
from backline.music.midi_edits import SUSTAIN
from backline.music.midi_events import CONTROL_CHANGE
from backline.music.midi_tracks import Event, MidiTracks, note_pairs, read_tracks, song_of_tracks, text_of
from backline.music.percussion import split_tracks
from backline.music.players import Voice
from backline.music.song import DEFAULT_TEMPO, NO_NOTES, TICKS_PER_QUARTER, VELOCITY, Song, Track
from backline.music.vocab import PITCH_INSTRUMENT, QUARTERS_PER_BAR, Vocabulary
from tokenizer import MidiTokenizerPooled

SHOWN_METERS = ("pages and pictures show bars of four quarters alone: export its 4/4 part to see "
                "that")
PEDAL_DOWN = 64  # least value of a pedal that is down
PartNotes = list[np.ndarray]  # for each part (N, 3): onset and end in ticks, pitch


class Lane(NamedTuple):
    """Notes on one background with one instrument: a part, or a track that plays none.

    notes: (N, 3) onsets and ends in ticks from bar 1 on, and pitches.
    velocities: (N,) 1 to 127.
    fades: (N,) ticks at which notes are released: after their ends while a pedal is down.
    is_old: (N,) bool, which notes were there before the song was made.
    """

    name: str
    is_drum: bool
    program: int
    notes: np.ndarray
    velocities: np.ndarray
    fades: np.ndarray
    is_old: np.ndarray


@dataclasses.dataclass(frozen=True)
class SongView:
    """A song in bars of four quarters; a pickup is the end of the first.

    tempo: the main one, in beats per minute.
    tempos: (tick, tempo) pairs; the first is at 0.
    lanes: of the vocabulary's parts in order, then of tracks that play none of them.
    fresh: the stretches that are new, (begin, end) in ticks; none if new notes may stand anywhere.
    """

    ticks_per_quarter: int
    n_bars: int
    tempo: float
    tempos: tuple[tuple[int, float], ...]
    lanes: tuple[Lane, ...]
    fresh: tuple[tuple[int, int], ...] = ()

    @property
    def bar_ticks(self) -> int:
        """Ticks in a bar."""
        return QUARTERS_PER_BAR * self.ticks_per_quarter


# ---------------------------------------------------------------- of a file


def view_song(path: Path,
              vocabulary: Vocabulary,
              data: bytes | None = None) -> tuple[SongView, Recipe | None]:
    """The song in a MIDI file, and its recipe if it holds one. With `data` no file is read.

    Raises UserError about a song that cannot be read or is not in 4/4, or a recipe that is damaged.
    """
    midi = read_tracks(path, data)
    recipe = find_recipe(midi, path)
    midi = split_tracks(midi, vocabulary, str(path))
    song, voices = song_of_tracks(midi, str(path))
    check_meters(without_pickup(song), str(path), SHOWN_METERS)
    origin = bar_origin(song)
    players = _players(song, voices, vocabulary, recipe)
    tracks = dict(zip(voices, _heard_tracks(midi, song, voices), strict=True))
    view = SongView(
        song.ticks_per_quarter,
        clip_length(song, origin).n_bars,
        song.main_tempo(),
        _tempos(song, origin),
        tuple(_moved(lane, -origin) for lane in _lanes(tracks, players, vocabulary)),
    )
    if recipe:
        if not _made(midi):
            view = _with_old_of_recipe(view, path, recipe, vocabulary)
        view = dataclasses.replace(view, fresh=_fresh(view, recipe.wish))
    return view, recipe


def _players(song: Song,
             voices: Sequence[Voice],
             vocabulary: Vocabulary,
             recipe: Recipe | None) -> dict[str, list[Voice]]:
    """The tracks of each part, by its name: as they would be read from a prompt.

    What the file says counts more than the recipe, whose choices are about the prompt's tracks.
    """
    reading = recipe.reading if recipe and not song.players else None
    casting = cast(song, vocabulary, reading or Reading())
    return {name: [voices[i] for i in indices]
            for name, indices in casting.tracks.items()}


def _made(midi: MidiTracks) -> set[int]:
    """The numbers of the tracks that hold made notes alone."""
    return {index
            for index, events in enumerate(midi.tracks)
            if any(text_of(event) == MADE_MARK for event in events)}


def _heard_tracks(midi: MidiTracks,
                  song: Song,
                  voices: Sequence[Voice]) -> Iterator[Lane]:
    """A lane for each track of a song. Without marks of made tracks no note is old."""
    made = _made(midi)
    for track, voice in zip(song.tracks, voices, strict=True):
        own = [event
               for event in midi.tracks[voice.track]
               if event.channel == voice.channel]
        name = track.name or f"track {voice.track + 1}"
        is_old = bool(made) and voice.track not in made
        yield Lane(
            name,
            track.is_drum,
            track.program,
            track.notes,
            _velocities(own),
            _fades(own, track.notes),
            np.full(len(track.notes), is_old),
        )


def _velocities(events: Sequence[Event]) -> np.ndarray:
    """(N,) velocities of one voice, by pitch, then onset, as `song_of_tracks` sorts its notes."""
    onsets = [events[on] for on, _ in note_pairs(events)]
    values = np.array([(event.tick, event.message[1], event.message[2]) for event in onsets])
    tick, pitch, velocity = values.T
    return velocity[np.lexsort((tick, pitch))]


def _fades(events: Sequence[Event], notes: np.ndarray) -> np.ndarray:
    """(N,) ticks at which one voice's (N, 3) notes are released.

    A pedal holds a note until it comes up, or the note's pitch is struck again.
    """
    ends = notes[:, 1]
    downs: list[int] = []
    ups: list[int] = []
    is_down = False
    for event in events:
        if event.kind != CONTROL_CHANGE or event.message[1] != SUSTAIN:
            continue
        if is_down != (event.message[2] >= PEDAL_DOWN):
            is_down = not is_down
            (downs if is_down else ups).append(event.tick)
    if not downs:
        return ends
    ups += [int(ends.max())] * (len(downs) - len(ups))
    place = np.searchsorted(np.array(downs), ends, side="right") - 1
    fades = np.where(place >= 0, np.maximum(ends, np.array(ups)[place]), ends)
    pitch = notes[:, 2]
    next_onsets = np.append(notes[1:, 0], 0)  # of its pitch, as notes are sorted by pitch, then onset
    is_struck_again = np.append(pitch[1:] == pitch[:-1], [False])
    return np.where(is_struck_again, np.maximum(ends, np.minimum(fades, next_onsets)), fades)


def _lanes(tracks: Mapping[Voice, Lane],
           players: Mapping[str, Sequence[Voice]],
           vocabulary: Vocabulary) -> Iterator[Lane]:
    """One lane for each part, its tracks joined; then one for each track that plays no part."""
    for part in vocabulary.parts:
        lanes = [tracks[voice] for voice in players[part.name]]
        joined = _joined([lane[3:] for lane in lanes])
        yield Lane(part.name, part.is_drum, part.program, *joined)
    playing = {voice for voices in players.values() for voice in voices}
    for voice, lane in tracks.items():
        if voice not in playing:
            yield lane


def _joined(lanes: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Several lanes joined: notes, velocities, fades, and which notes are old."""
    nothing = np.zeros(0, np.int64)
    columns = zip((NO_NOTES, nothing, nothing, nothing.astype(bool)), *lanes, strict=True)
    return tuple(np.concatenate(column) for column in columns)


def _moved(lane: Lane, ticks: int) -> Lane:
    """The lane so much later."""
    notes = lane.notes + np.array([ticks, ticks, 0])
    return lane._replace(notes=notes, fades=lane.fades + ticks)


def _tempos(song: Song, origin: int) -> tuple[tuple[int, float], ...]:
    """The tempo map from bar 1 on. Of several tempos at one tick, the last holds."""
    by_tick = {0: DEFAULT_TEMPO}
    for tick, tempo in song.tempos:
        by_tick[tick - origin if tick else 0] = tempo  # a pickup is filled up at its own tempo
    changes: list[tuple[int, float]] = []
    for tick, tempo in by_tick.items():
        if not changes or tempo != changes[-1][1]:
            changes.append((tick, tempo))
    return tuple(changes)


# ---------------------------------------------------------------- of notes alone


def view_of_notes(time_line: Song,
                  notes: PartNotes,
                  is_old: Sequence[np.ndarray],
                  vocabulary: Vocabulary) -> SongView:
    """The view of a song that is in no file: for each part (N, 3) notes, and (N,) which are old."""
    tracks = []
    lanes = []
    for part, own, old in zip(vocabulary.parts, notes, is_old, strict=True):
        tracks.append(Track(part.name, part.program, part.is_drum, own))
        velocities = np.full(len(own), VELOCITY)
        lanes.append(Lane(part.name, part.is_drum, part.program, own, velocities, own[:, 1], old))
    return SongView(
        time_line.ticks_per_quarter,
        clip_length(dataclasses.replace(time_line, tracks=tuple(tracks))).n_bars,
        time_line.main_tempo(),
        _tempos(time_line, 0),
        tuple(lanes),
    )


def view_of_rows(rows: np.ndarray,
                 vocabulary: Vocabulary,
                 given: np.ndarray | None = None) -> SongView:
    """The view of (N, F) rows; `given`, (N,) bool, marks those that were there before."""
    parts = MidiTokenizerPooled(vocabulary).rows_to_parts(rows, TICKS_PER_QUARTER)
    is_old = np.zeros(len(rows), bool) if given is None else given
    part_of_row = vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]
    old_of_parts = [is_old[part_of_row == p] for p in range(len(parts))]
    return view_of_notes(Song(TICKS_PER_QUARTER, ()), parts, old_of_parts, vocabulary)


# ---------------------------------------------------------------- old and new


def _fresh(view: SongView, wish: Wish) -> tuple[tuple[int, int], ...]:
    """The stretches of a song that are new, in ticks; none if new notes may stand anywhere."""
    if wish.fill:
        return tuple(((first - 1) * view.bar_ticks, last * view.bar_ticks)
                     for first, last in wish.stretches)
    if wish.given or not any(lane.is_old.any() for lane in view.lanes):
        return ()
    new_onsets = [lane.notes[~lane.is_old, 0] for lane in view.lanes]
    first_onsets = [int(onsets.min()) for onsets in new_onsets if len(onsets)]
    if not first_onsets:
        return ()
    return ((min(first_onsets), view.n_bars * view.bar_ticks),)


def new_stretch(view: SongView) -> tuple[tuple[int, int], ...]:
    """The end of a song, where all old notes come before all new ones; else none."""
    old = np.concatenate([lane.notes[lane.is_old, 0] for lane in view.lanes])
    new = np.concatenate([lane.notes[~lane.is_old, 0] for lane in view.lanes])
    if not len(old) or not len(new) or old.max() > new.min():
        return ()
    return ((int(new.min()), view.n_bars * view.bar_ticks),)


def _with_old_of_recipe(view: SongView,
                        path: Path,
                        recipe: Recipe,
                        vocabulary: Vocabulary) -> SongView:
    """The view of a song without marked tracks: the recipe tells which notes of its parts are old.

    Such are songs from scratch, those from token files, and all of earlier versions.
    """
    n_parts = len(vocabulary.parts)
    notes = [lane.notes for lane in view.lanes[:n_parts]]
    before = _kept_notes(path, recipe, vocabulary) if recipe.prompt else None
    old = _old_notes(notes, view.ticks_per_quarter, recipe.wish, before, vocabulary)
    of_parts = [lane._replace(is_old=is_old)
                for lane, is_old in zip(view.lanes[:n_parts], old, strict=True)]
    return dataclasses.replace(view, lanes=(*of_parts, *view.lanes[n_parts:]))


def _kept_notes(path: Path,
                recipe: Recipe,
                vocabulary: Vocabulary) -> PartNotes | None:
    """Notes of the prompt that a song continues, in steps of the grid; None if the prompt is gone.

    The prompt is looked for beside the song, where -sp saves it, then where the recipe says.
    """
    source = path.with_name(f"{path.stem}-prompt.mid")
    n_rows = 0
    if not source.is_file():
        source = Path(recipe.prompt)
        n_rows = recipe.prompt_rows
        if not source.is_file() or file_hash(source) != recipe.prompt_hash:
            return None
    tokenizer = MidiTokenizerPooled(vocabulary)
    try:
        prompt = read_rows_alone(source, n_rows, tokenizer)
    except UserError:
        return None
    return tokenizer.rows_to_parts(prompt.rows, vocabulary.steps_per_quarter)


def _old_notes(notes: PartNotes,
               ticks_per_quarter: int,
               wish: Wish,
               before: PartNotes | None,
               vocabulary: Vocabulary) -> list[np.ndarray]:
    """For each part, which of its (N, 3) notes were there before the song was made, (N,) bool.

    Args:
        before: notes of the prompt in steps of the grid. Only a continuation needs them: for given
            parts and for bars made anew, the wish is enough.
    """
    names = vocabulary.part_names
    if wish.given:
        return [np.full(len(part), name in wish.given)
                for part, name in zip(notes, names, strict=True)]
    if wish.fill:
        return _outside(notes, ticks_per_quarter, wish, names)
    if before is None:
        return [np.zeros(len(part), bool) for part in notes]
    old = []
    for part, kept in zip(notes, before, strict=True):
        # Onsets in a unit that both share: ticks times steps.
        there = {(onset * ticks_per_quarter, pitch)
                 for onset, _, pitch in kept.tolist()}
        steps = vocabulary.steps_per_quarter
        is_old = [(onset * steps, pitch) in there
                  for onset, _, pitch in part.tolist()]
        old.append(np.array(is_old, bool))
    return old


def _outside(notes: PartNotes,
             ticks_per_quarter: int,
             wish: Wish,
             names: Sequence[str],
             ) -> list[np.ndarray]:
    """(N,) bool: which notes lie outside the bars of `wish.fill`, or in parts that it keeps."""
    outside = []
    for part, name in zip(notes, names, strict=True):
        bar = part[:, 0] // (QUARTERS_PER_BAR * ticks_per_quarter) + 1
        is_left = bool(wish.make and name not in wish.make)
        is_outside = np.full(len(part), True)
        for first, last in wish.stretches:
            is_outside &= (bar < first) | (bar > last)
        outside.append(is_outside | is_left)
    return outside

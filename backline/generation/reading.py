"""How a given song is read: what the model hears of it, what is kept, and the lines that say so.

The model hears notes of the vocabulary's parts, on its grid, in bars of four quarters, and no more
bars than it holds. The song itself is kept event by event (`given_song.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from backline.common.errors import UserError, counted
from backline.generation.clip import Clip
from backline.generation.config import Reading
from backline.generation.given_song import MADE_MARK, GivenSong
from backline.generation.recipes import BEGINNING, EDIT_BEGINNING
from backline.generation.wish import fill_text
from backline.music.bars import (
    Stretch,
    bar_origin,
    check_meters,
    check_notes,
    clip_length,
    cut,
    four_quarter_stretches,
    without_pickup,
)
from backline.music.casting import LONGEST_NAME, Assignment, assign_parts, check_clear, nobody, track_texts
from backline.music.choices import CUT, NO_TRACK, SKIP, Choices
from backline.music.midi_edits import (
    KeepNote,
    cut_file,
    with_finer_ticks,
    with_releases,
    with_tempo,
    without_texts,
)
from backline.music.midi_tracks import Event, MidiTracks, song_of_tracks
from backline.music.note_velocities import row_velocities, strikes_of_parts
from backline.music.parts import fit_range, without_switches
from backline.music.percussion import split_tracks
from backline.music.players import PLAYERS_BEGINNING, Voice
from backline.music.rows import bars_in
from backline.music.song import Song
from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, QUARTERS_PER_BAR, START_POS, Vocabulary
from tokenizer import parts_to_rows

FEWEST_TICKS = 24  # per quarter: MIDI's own clock; with fewer, made notes would be out of time
FINE_TICKS = 96  # per quarter, at least, in their place
OFF_GRID = 0.1  # share of onsets off the grid from which on a line says so
FAR_OFF = 0.2  # of a step: from how far off a note counts as off the grid
ROOM_BEFORE = 0.5  # share of the bars heard of a long song that lie before those made anew
# Text events of songs that this program wrote; the next one has its own.
OWN_TEXTS = (MADE_MARK, PLAYERS_BEGINNING, BEGINNING.encode(), EDIT_BEGINNING)


class Asked(NamedTuple):
    """What is asked of a prompt.

    n_rows: how many of its first rows are kept, counting BOS; 0: all.
    fill: the bars that are made anew, as `Wish.fill` has them.
    n_new: how many bars are added after it.
    made: parts that are made to others; no track of the prompt has to play them.
    """

    reading: Reading = Reading()
    n_rows: int = 0
    fill: tuple[int, ...] = ()
    n_new: int = 0
    made: tuple[str, ...] = ()


class Heard(NamedTuple):
    """A song as it is kept, and what the model hears of it.

    rows: (N, F) note ids in order.
    tempo: the song's main tempo, in quarters per minute.
    velocities: (N,) of the rows; 0 for notes heard at another pitch.
    notices: what people may not expect, a line each.
    """

    rows: np.ndarray
    clip: Clip
    given: GivenSong
    tempo: float
    velocities: np.ndarray
    notices: tuple[str, ...]


def hear(midi: MidiTracks,
         path: Path,
         asked: Asked,
         vocabulary: Vocabulary) -> Heard:
    """What the model hears of a file, and what is kept of it.

    Raises UserError about a song that cannot be played to.
    """
    hearing = _Hearing(midi, path, asked, vocabulary)
    hearing.cut_to_meter()
    hearing.cast()
    hearing.check_asked()
    hearing.measure()
    hearing.choose_bars()
    rows = hearing.rows()
    rows = hearing.first_rows(rows)
    return hearing.result(rows)


def cast(song: Song,
         vocabulary: Vocabulary,
         choices: Choices,
         file_name: str = "") -> Assignment:
    """Who plays what in a song that somebody gives, or that a page shows."""
    return assign_parts(song, vocabulary, dict(choices.tracks), choices.join, file_name)


class _Hearing:
    """One song on its way from a file to what the model hears."""

    def __init__(self,
                 midi: MidiTracks,
                 path: Path,
                 asked: Asked,
                 vocabulary: Vocabulary) -> None:
        self.where = str(path)
        self.path = path
        self.asked = asked
        self.reading = asked.reading
        self.vocabulary = vocabulary
        self.notices: list[str] = []
        self.midi = midi
        self._refine()
        self._release()
        self.midi = split_tracks(self.midi, vocabulary, self.where)
        self._read()
        check_notes(self.song, self.where)

    def _read(self) -> None:
        self.song, self.voices = song_of_tracks(self.midi, self.where)
        self.bar_ticks = QUARTERS_PER_BAR * self.song.ticks_per_quarter

    def _refine(self) -> None:
        """Give a song more ticks per quarter if it has too few for the model's grid."""
        given = self.midi.ticks_per_quarter
        if given >= FEWEST_TICKS:
            return
        self.midi = with_finer_ticks(self.midi, -(-FINE_TICKS // given))
        self.notices.append(f"its {counted(given, 'tick')} a quarter are too few for made "
                            f"notes: written with {self.midi.ticks_per_quarter}; nothing moves")

    def _release(self) -> None:
        """End notes that are never switched off, or they would ring on through made bars."""
        self.midi, n_by_controller, n_by_track = with_releases(self.midi)
        if n_by_controller:
            self.notices.append(f"{counted(n_by_controller, 'note')} switched off "
                                f"by a controller alone: note-offs added there")
        if n_by_track:
            self.notices.append(f"{counted(n_by_track, 'note')} never switched off: "
                                f"note-offs added where their tracks end")

    # ------------------------------------------------------------ bars

    def cut_to_meter(self) -> None:
        """Find the first bar line. With --meters cut, keep the longest stretch in 4/4 alone."""
        self.origin = bar_origin(self.song)
        if self.origin:
            self.notices.append("its first bar is a pickup: it counts as bar 1, filled up with silence")
        song = without_pickup(self.song)
        if self.reading.meters == SKIP:
            check_meters(song, self.where)
            return
        stretches = four_quarter_stretches(song, self.reading.min_stretch_bars)
        if not stretches:
            raise UserError(f"{self.where}: no stretch of {self.reading.min_stretch_bars} bars of "
                            f"four quarters; lower --min-stretch-bars")
        end_of_song = max(song.end_tick, *self.midi.ends)
        longest = max(stretches, key=lambda stretch: (stretch.end or end_of_song) - stretch.start)
        if longest != Stretch(0, None):
            self.origin = 0
            self._keep_only(longest.start, longest.end or end_of_song)

    def _keep_only(self, start: int, end: int) -> None:
        early = self._early()

        def keep(_track: int, onset: Event) -> bool:
            """Whether a note is heard in the stretch."""
            return start - early <= onset.tick < end - early

        n_before = self.song.n_notes
        self.midi = cut_file(self.midi, start, end, keep)
        self._read()
        self.notices.append(f"its longest stretch in bars of four quarters is kept, "
                            f"{round((end - start) / self.bar_ticks)} bars from quarter "
                            f"{start // self.song.ticks_per_quarter + 1} on: {self.song.n_notes} of "
                            f"{n_before} notes")

    def _early(self) -> int:
        """A note up to this many ticks before a bar line is heard at it."""
        return (self.song.ticks_per_quarter - 1) // (2 * self.vocabulary.steps_per_quarter)

    def measure(self) -> None:
        """Count the bars that the song lasts, and cut it to those of --prompt-bars."""
        self.n_bars, n_silent = clip_length(self.song, self.origin)
        if n_silent:
            self.notices.append(f"{n_silent} bars of silence at its end do not count")
        wanted = self.reading.n_bars
        if wanted > self.n_bars:
            raise UserError(f"{self.where}: --prompt-bars {wanted}: the song has {self.n_bars} "
                            f"bars; ask for fewer")
        if wanted:
            self._keep_bars(wanted)

    def _keep_bars(self, n_bars: int) -> None:
        """Cut the song after its first bars."""
        end = self.origin + n_bars * self.bar_ticks
        early = self._early()
        n_before = self.song.n_notes
        self.midi = cut_file(self.midi, 0, end, lambda _, onset: onset.tick < end - early)
        self.n_bars = n_bars
        self._read()
        self.cast()
        if n_left_out := n_before - self.song.n_notes:
            self.notices.append(f"{n_left_out} notes after bar {n_bars} are left out")

    # ------------------------------------------------------------ parts

    def cast(self) -> None:
        """Find out who plays what."""
        self.casting = cast(self.song, self.vocabulary, self.reading, self.path.name)
        needed = [name for name in self.vocabulary.part_names if name not in self.asked.made]
        check_clear(self.song, self.casting, needed, self.where)
        if not any(self.casting.tracks.values()):
            names = ", ".join(self.vocabulary.part_names)
            raise UserError(f"{self.where}: no track fills any of {names}; choose with --part")

    def check_asked(self) -> None:
        """Raise UserError if --part names tracks that the song does not have."""
        for name, which in self.reading.tracks:
            if which != NO_TRACK and not self.casting.tracks[name]:
                tracks = ", ".join(track_texts(self.song, LONGEST_NAME).values())
                raise UserError(f"{self.where}: --part {name}={which}: no such track, or it plays "
                                f"another part; name one of {tracks:.400}")

    def describe_casting(self) -> str:
        """Who plays what, on one line."""
        texts = []
        for name, indices in self.casting.tracks.items():
            if indices:
                tracks = " and ".join(self._track_names(indices))
                texts.append(f"{name}: {tracks}")
        unheard = self._track_names(self.casting.left_out(self.song))
        if unheard:
            texts.append(f"kept, but not heard by the model: {', '.join(unheard)}")
        return "; ".join(texts)

    def _track_names(self, indices: list[int]) -> list[str]:
        """Names of tracks; one with several channels is named once, with their number."""
        counts: dict[tuple[int, str], int] = {}
        for i in indices:
            track = self.voices[i].track
            name = self.song.tracks[i].name[:LONGEST_NAME] or f"track {track + 1}"
            counts[track, name] = counts.get((track, name), 0) + 1
        return [name if n == 1 else f"{name} ({n} channels)"
                for (_, name), n in counts.items()]

    # ------------------------------------------------------------ what the model hears

    def choose_bars(self) -> None:
        """Choose the bars to hear of a song that is longer than the vocabulary allows."""
        room = self.vocabulary.bars
        needed = self.n_bars + self.asked.n_new
        self.first_bar = 0  # that is heard, from 0
        if needed <= room:
            return
        if self.reading.long_songs == SKIP:
            raise UserError(f"{self.where}: {self.n_bars} bars, and the model holds {room}; "
                            f"give --long-songs {CUT}")
        if self.asked.n_new:
            self.first_bar = min(needed - room, self.n_bars - 1)
        elif self.asked.fill:
            before = self.asked.fill[0] - 1 - int(room * ROOM_BEFORE)
            self.first_bar = min(max(before, 0), self.n_bars - room)
            first, last = self.asked.fill[0] - 1, min(self.asked.fill[-1], self.n_bars)
            self.first_bar = max(self.first_bar, last - room)
            if self.first_bar > first:
                raise UserError(f"--fill {fill_text(self.asked.fill)}: the model holds {room} bars at once; "
                                "name bars that lie nearer to each other, and the others in another run")
        last_bar = min(self.first_bar + room, self.n_bars)
        self.notices.append(f"{self.n_bars} bars, and the model holds {room}: it hears bars "
                            f"{self.first_bar + 1} to {last_bar}")

    def rows(self) -> np.ndarray:
        """(N, F) ids of the notes heard."""
        parts = []
        for part, played in zip(self.vocabulary.parts, self.casting.notes, strict=True):
            notes = without_switches(played, part)
            if n_switches := len(played) - len(notes):
                self.notices.append(f"{n_switches} of {len(played)} {part.name} notes are below E0, "
                                    f"as key switches are: kept, but not heard")
            fitted, _ = fit_range(notes, part, self.reading, self.where)
            self._say_range(part.name, notes, fitted)
            parts.append(fitted[np.argsort(fitted[:, 0], kind="stable")])
        start = self.origin + self.first_bar * self.bar_ticks
        longest = Stretch(start, start + self.vocabulary.bars * self.bar_ticks)
        if start or self.n_bars > self.vocabulary.bars:
            parts = cut(parts, longest, self._early())
        rows = parts_to_rows(parts, self.song.ticks_per_quarter, self.vocabulary, self.where)
        n_played = sum(map(len, parts))
        if n_merged := n_played - len(rows):
            self.notices.append(f"{n_merged} of {n_played} notes are struck twice within a step of "
                                f"the model's grid, which hears them once")
        self._say_grid(parts)
        return rows

    def _say_range(self, name: str, notes: np.ndarray, fitted: np.ndarray) -> None:
        if n_unheard := len(notes) - len(fitted):
            self.notices.append(f"{n_unheard} of {len(notes)} {name} notes are out of the model's "
                                f"range: kept, but not heard")
        elif n_moved := int((notes[:, 2] != fitted[:, 2]).sum()):
            self.notices.append(f"{n_moved} of {len(notes)} {name} notes are out of the model's "
                                f"range: kept, but heard an octave or more away")

    def _say_grid(self, parts: list[np.ndarray]) -> None:
        onset = np.concatenate(parts)[:, 0]
        steps = onset * self.vocabulary.steps_per_quarter / self.song.ticks_per_quarter
        n_off = int((np.abs(steps - np.round(steps)) > FAR_OFF).sum())
        if n_off and n_off >= OFF_GRID * len(steps):
            self.notices.append(f"{n_off / len(steps):.0%} of its notes are off the model's grid "
                                f"({self.vocabulary.steps_per_quarter} steps a quarter): kept as "
                                f"they are, but made notes are on it")

    def first_rows(self, rows: np.ndarray) -> np.ndarray:
        """The rows that -pi keeps; the song is cut after them."""
        self.goes_on = False
        n_notes = self.asked.n_rows - 1  # but the row of BOS
        if n_notes < 0 or n_notes >= len(rows):
            return rows
        kept = rows[:n_notes]
        places = {(int(row[BAR]), int(row[START_POS]), int(row[PITCH_INSTRUMENT])) for row in kept}
        given = self._given()
        next_row = rows[n_notes]
        step = (int(next_row[BAR]) - FIRST_ID) * self.vocabulary.steps_per_bar
        limit = given.tick(step + int(next_row[START_POS]) - FIRST_ID) - self._early()
        self.n_bars = bars_in(kept)
        n_before = self.song.n_notes
        end = self.origin + (self.first_bar + self.n_bars) * self.bar_ticks
        self.midi = cut_file(self.midi, 0, max(end, 0), _is_among(given, places, limit))
        self._read()
        if self.song.n_notes:
            self.cast()
        else:
            self.casting = nobody(self.vocabulary)
        self.goes_on = True
        self.notices.append(f"-pi {self.asked.n_rows} leaves out {n_before - self.song.n_notes} of "
                            f"{n_before} notes")
        return kept

    # ------------------------------------------------------------ result

    def _given(self) -> GivenSong:
        voices = {name: tuple(self.voices[i] for i in indices)
                  for name, indices in self.casting.tracks.items()}
        start = self.origin + self.first_bar * self.bar_ticks
        midi = without_texts(self.midi, OWN_TEXTS)
        return GivenSong(midi, voices, tuple(self.casting.notes), start, self.vocabulary)

    def result(self, rows: np.ndarray) -> Heard:
        """The song as it is kept now, with its `rows`, clip and notices."""
        tempo = self.reading.tempo or self.song.main_tempo()
        if not self.song.tempos and not self.reading.tempo:
            self.notices.append(f"names no tempo: plays at {tempo:g} BPM; --tempo sets another")
        if self.reading.tempo:
            self.midi = with_tempo(self.midi, self.reading.tempo)
        given = self._given()
        n_bars = self.n_bars - self.first_bar
        clip = Clip(n_bars, self.first_bar, self.goes_on, given.sounding())
        heard = self.describe_casting()
        notices = [*self.song.notices, heard, *self.notices]
        lines = tuple(f"{self.path.name}: {text}" for text in notices)
        return Heard(rows, clip, given, tempo, self._velocities(rows, given.origin), lines)

    def _velocities(self, rows: np.ndarray, origin: int) -> np.ndarray:
        """(N,) of (N, F) rows."""
        strikes = strikes_of_parts(self.midi, self.voices, self.casting)
        from_origin = [own - np.array([origin, 0, 0]) for own in strikes]
        return row_velocities(rows, from_origin, self.song.ticks_per_quarter, self.vocabulary)


def _is_among(given: GivenSong, places: set[tuple[int, int, int]], limit: int) -> KeepNote:
    """Keep notes at `places`; of notes that the model does not hear, those before `limit`."""
    v = given.vocabulary
    part_of_voice = {voice: p
                     for p, name in enumerate(v.part_names)
                     for voice in given.voices[name]}

    def keep(track: int, onset: Event) -> bool:
        """Whether a note stays."""
        p = part_of_voice.get(Voice(track, onset.channel))
        pitch = onset.message[1]
        if p is None or not v.parts[p].lowest_pitch <= pitch <= v.parts[p].highest_pitch:
            return onset.tick < limit
        bar, start_pos = divmod(given.step(onset.tick), v.steps_per_bar)
        pitch_id = v.first_pitch_ids[p] + pitch - v.parts[p].lowest_pitch
        return (FIRST_ID + bar, FIRST_ID + start_pos, pitch_id) in places

    return keep

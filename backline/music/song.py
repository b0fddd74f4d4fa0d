"""A song as arrays of notes, and written as MIDI.

What is about music and not about tokens; `midi_reader.py` makes songs out of MIDI. Nothing here changes its input,
and nothing is rounded: times stay in ticks.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import miditoolkit
import numpy as np
import symusic

from backline.common.errors import UserError
from backline.music.vocab import QUARTERS_PER_BAR, Vocabulary

DEFAULT_TEMPO = 120.0  # beats per minute: what a MIDI file without a tempo plays at
SLOWEST, FASTEST = 60e6 / 0xFFFFFF, 60e6  # beats per minute: MIDI stores microseconds per quarter in 24 bits, from 1
TICKS_PER_QUARTER = 96  # of songs made from tokens
MAX_TICKS_PER_QUARTER = 0x7FFF  # 15 bits of a MIDI header
VELOCITY = 100
NO_NOTES = np.zeros((0, 3), np.int64)


class TimeSignature(NamedTuple):
    """`numerator`/`denominator` from `tick` on."""

    tick: int
    numerator: int
    denominator: int


@dataclasses.dataclass(frozen=True)
class Track:
    """Notes of one track, channel and program. `notes` is (N, 3) int64: onset and end in ticks, pitch."""

    name: str
    program: int
    is_drum: bool
    notes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Song:
    """A MIDI file's notes and time line. `tempos` are (tick, beats per minute) pairs; both lists sorted by tick.

    `notices` say what was odd about the file, and read all the same; an ordinary file has none.
    """

    ticks_per_quarter: int
    tracks: tuple[Track, ...]
    tempos: tuple[tuple[int, float], ...] = ()
    time_signatures: tuple[TimeSignature, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def end_tick(self) -> int:
        return max((int(track.notes[:, 1].max()) for track in self.tracks if len(track.notes)), default=0)

    @property
    def last_onset_tick(self) -> int:
        return max((int(track.notes[:, 0].max()) for track in self.tracks if len(track.notes)), default=0)

    @property
    def n_notes(self) -> int:
        return sum(len(track.notes) for track in self.tracks)

    def main_tempo(self) -> float:
        """The tempo in force for most of the song's ticks, 120 where there is none."""
        end = max(self.end_tick, 1)
        changes = [(0, DEFAULT_TEMPO), *((tick, tempo) for tick, tempo in self.tempos if tick < end)]
        ticks: dict[float, int] = {}
        for (tick, tempo), (until, _) in zip(changes, [*changes[1:], (end, 0.0)], strict=True):
            ticks[tempo] = ticks.get(tempo, 0) + until - tick
        return max(ticks, key=lambda tempo: ticks[tempo])


# ---------------------------------------------------------------- tempo


def rounded_tempo(tempo: float) -> float:
    """A tempo as songs hold it, to three digits after the point, and within what MIDI can say."""
    return min(max(round(tempo, 3), SLOWEST), FASTEST)


def check_tempo(tempo: object, where: str) -> float:
    """`tempo` in beats per minute, if MIDI can hold it; otherwise raise UserError."""
    if isinstance(tempo, bool) or not isinstance(tempo, int | float) or not SLOWEST <= tempo <= FASTEST:
        raise UserError(f"{where}: tempo must be a number from {SLOWEST:.2f} to {FASTEST:.0f} beats per minute, "
                        f"not {tempo!r:.40}; correct it, or leave it out for {DEFAULT_TEMPO:g}")
    return float(tempo)


# ---------------------------------------------------------------- writing


def end_at_next_onset(notes: np.ndarray) -> np.ndarray:
    """What a MIDI file can hold of (N, 3) notes: per pitch, each ends no later than the next one begins.

    Of several at one onset the longest stays. Sorted by onset and pitch; the input stays unchanged.
    """
    if not len(notes):
        return NO_NOTES
    notes = notes[np.lexsort((-notes[:, 1], notes[:, 0], notes[:, 2]))]
    first = np.ones(len(notes), bool)
    first[1:] = (notes[1:, [0, 2]] != notes[:-1, [0, 2]]).any(axis=1)
    notes = notes[first]
    same_pitch = notes[1:, 2] == notes[:-1, 2]
    notes[:-1, 1] = np.where(same_pitch, np.minimum(notes[:-1, 1], notes[1:, 0]), notes[:-1, 1])
    return notes[np.lexsort((notes[:, 2], notes[:, 0]))]


class PartsMidiFile(miditoolkit.MidiFile):
    """A `miditoolkit.MidiFile` whose notes may overlap in memory; `dump` writes what a file can hold."""

    def dump(self, *args, **kwargs) -> None:
        """Write the file, as `miditoolkit.MidiFile.dump` does, each note ended at the next onset of its pitch."""
        writable = miditoolkit.MidiFile(ticks_per_beat=self.ticks_per_beat)
        writable.__dict__.update(self.__dict__)
        writable.instruments = [_writable(instrument) for instrument in self.instruments]
        writable.dump(*args, **kwargs)


def _writable(instrument: miditoolkit.Instrument) -> miditoolkit.Instrument:
    rows = np.array([(note.start, note.end, note.pitch) for note in instrument.notes], np.int64).reshape(-1, 3)
    velocity = {(note.start, note.pitch): note.velocity for note in instrument.notes}
    copy = miditoolkit.Instrument(instrument.program, instrument.is_drum, instrument.name)
    copy.notes = [miditoolkit.Note(velocity[start, pitch], pitch, start, end)
                  for start, end, pitch in end_at_next_onset(rows).tolist()]
    return copy


def parts_to_bytes(notes: list[np.ndarray], vocabulary: Vocabulary, ticks_per_quarter: int,
                   tempo: float = DEFAULT_TEMPO, only: int | None = None) -> bytes:
    """A Type-1 MIDI file in 4/4 with one track and channel per part, empty or not; see `parts_to_midi`.

    `only` is the index of the one part to write, as a stem.

    Each note ends at the next onset of its pitch. symusic writes it, since folders of songs are written so.
    """
    score = symusic.Score(ticks_per_quarter)
    score.tempos.append(symusic.Tempo(0, qpm=tempo))
    score.time_signatures.append(symusic.TimeSignature(0, QUARTERS_PER_BAR, 4))
    for p, (part, rows) in enumerate(zip(vocabulary.parts, notes, strict=True)):
        if only not in (None, p):
            continue
        track = symusic.Track(part.name, part.program, part.is_drum)
        onset, end, pitch = end_at_next_onset(rows).T
        track.notes = symusic.Note.from_numpy(onset.astype(np.int32), (end - onset).astype(np.int32),
                                              pitch.astype(np.int8), np.full(len(pitch), VELOCITY, np.int8))
        score.tracks.append(track)
    return score.dumps_midi()


def parts_to_midi(notes: list[np.ndarray], vocabulary: Vocabulary, ticks_per_quarter: int,
                  tempo: float = DEFAULT_TEMPO) -> PartsMidiFile:
    """A MIDI object with one track per part, empty or not, in 4/4.

    Args:
        notes: for each part of the vocabulary an (N, 3) array of onset, end (ticks) and pitch.
        tempo: beats per minute.
    """
    midi = PartsMidiFile(ticks_per_beat=ticks_per_quarter)
    midi.tempo_changes = [miditoolkit.TempoChange(tempo, 0)]
    midi.time_signature_changes = [miditoolkit.TimeSignature(QUARTERS_PER_BAR, 4, 0)]
    for part, rows in zip(vocabulary.parts, notes, strict=True):
        instrument = miditoolkit.Instrument(part.program, part.is_drum, part.name)
        instrument.notes = [miditoolkit.Note(VELOCITY, pitch, start, end) for start, end, pitch in rows.tolist()]
        midi.instruments.append(instrument)
    midi.max_tick = max((int(rows[:, 1].max()) for rows in notes if len(rows)), default=0) + 1
    return midi

"""Write notes as MIDI: a track for each part, and no note that sounds when the next one of its pitch begins.

Nothing here changes its input, and nothing is rounded: times stay in ticks.
"""

from __future__ import annotations

import miditoolkit
import numpy as np
import symusic

from backline.music.song import DEFAULT_TEMPO, NO_NOTES
from backline.music.vocab import QUARTERS_PER_BAR, Vocabulary

VELOCITY = 100


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

    Each note ends at the next onset of its pitch. symusic writes it, since folders of songs are
    written so.
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

"""Write notes as MIDI: a track for each part; a note ends where the next one of its pitch begins.

Nothing here changes its input, and nothing is rounded: times stay in ticks.
"""

from __future__ import annotations

from typing import Any

import miditoolkit
import numpy as np
import symusic

from backline.music.song import DEFAULT_TEMPO, NO_NOTES, VELOCITY
from backline.music.vocab import QUARTERS_PER_BAR, Part, Vocabulary


def end_at_next_onset(notes: np.ndarray) -> np.ndarray:
    """What a MIDI file can hold of notes: each ends by the next onset of its pitch.

    Notes are (N, 3) onset, end and pitch, or (N, 4) with their velocities; so is what is returned.
    Of several at one onset the longest stays. Sorted by onset and pitch; the input stays unchanged.
    """
    if not len(notes):
        return NO_NOTES
    onset, end, pitch = notes.T[:3]
    by_pitch = np.lexsort((-end, onset, pitch))              # then by onset, the longest first
    notes = notes[by_pitch]
    place = notes[:, [0, 2]]
    is_first = np.ones(len(notes), bool)
    differs = place[1:] != place[:-1]                        # (N - 1, 2)
    is_first[1:] = differs.any(axis=1)
    notes = notes[is_first]

    onset, end, pitch = notes.T[:3]                          # views: writing here changes `notes`
    has_next = pitch[1:] == pitch[:-1]
    cut_off = np.minimum(end[:-1], onset[1:])
    end[:-1] = np.where(has_next, cut_off, end[:-1])
    by_onset = np.lexsort((pitch, onset))
    return notes[by_onset]


# ---------------------------------------------------------------- bytes, by symusic


def parts_to_bytes(notes: list[np.ndarray],
                   vocabulary: Vocabulary,
                   ticks_per_quarter: int,
                   tempo: float = DEFAULT_TEMPO,
                   only: int | None = None) -> bytes:
    """A Type-1 MIDI file in 4/4 with one track and channel per part, empty or not.

    Each note ends at the next onset of its pitch. symusic writes the file, fast enough for folders.

    Args:
        notes: for each part of the vocabulary an (N, 3) array of onset, end (ticks) and pitch; a
            fourth column, if there is one, holds velocities (else `VELOCITY`).
        tempo: beats per minute.
        only: index of the one part to write, as a stem.
    """
    score: Any = symusic.Score(ticks_per_quarter)
    score.tempos.append(symusic.Tempo(0, qpm=tempo))
    score.time_signatures.append(symusic.TimeSignature(0, QUARTERS_PER_BAR, 4))
    for p, part in enumerate(vocabulary.parts):
        if only in (None, p):
            score.tracks.append(_track(part, notes[p]))
    return score.dumps_midi()


def _track(part: Part, notes: np.ndarray) -> Any:
    """A symusic track of (N, 3) notes, or of (N, 4) with velocities."""
    onset, end, pitch, *velocities = end_at_next_onset(notes).T
    velocity = velocities[0] if velocities else np.full(len(pitch), VELOCITY)
    duration = end - onset
    track: Any = symusic.Track(part.name, part.program, part.is_drum)
    track.notes = symusic.Note.from_numpy(
        onset.astype(np.int32),
        duration.astype(np.int32),
        pitch.astype(np.int8),
        velocity.astype(np.int8),
    )
    return track


# ---------------------------------------------------------------- objects, by miditoolkit


class PartsMidiFile(miditoolkit.MidiFile):
    """A `miditoolkit.MidiFile` whose notes may overlap in memory.

    `dump` writes what a file can hold of them.
    """

    def dump(self, *args: Any, **kwargs: Any) -> None:
        """As `miditoolkit.MidiFile.dump`, with each note ended at the next onset of its pitch."""
        writable = miditoolkit.MidiFile(ticks_per_beat=self.ticks_per_beat)
        writable.__dict__.update(self.__dict__)
        writable.instruments = [_writable(instrument)
                                for instrument in self.instruments]
        writable.dump(*args, **kwargs)


def _writable(instrument: miditoolkit.Instrument) -> miditoolkit.Instrument:
    rows = [(note.start, note.end, note.pitch) for note in instrument.notes]
    velocity = {(note.start, note.pitch): note.velocity for note in instrument.notes}
    notes = np.array(rows, np.int64).reshape(-1, 3)
    notes = end_at_next_onset(notes)
    copy = miditoolkit.Instrument(instrument.program, instrument.is_drum, instrument.name)
    copy.notes = [miditoolkit.Note(velocity[start, pitch], pitch, start, end)
                  for start, end, pitch in notes.tolist()]
    return copy


def parts_to_midi(notes: list[np.ndarray],
                  vocabulary: Vocabulary,
                  ticks_per_quarter: int,
                  tempo: float = DEFAULT_TEMPO) -> PartsMidiFile:
    """A MIDI object in 4/4 with one track per part, empty or not; see `parts_to_bytes`."""
    midi = PartsMidiFile(ticks_per_beat=ticks_per_quarter)
    midi.tempo_changes = [miditoolkit.TempoChange(tempo, 0)]
    midi.time_signature_changes = [miditoolkit.TimeSignature(QUARTERS_PER_BAR, 4, 0)]
    for part, rows in zip(vocabulary.parts, notes, strict=True):
        instrument = miditoolkit.Instrument(part.program, part.is_drum, part.name)
        instrument.notes = [miditoolkit.Note(VELOCITY, pitch, start, end)
                            for start, end, pitch in rows.tolist()]
        midi.instruments.append(instrument)
    all_notes = np.concatenate([NO_NOTES, *notes])
    last_tick = int(all_notes[:, 1].max(initial=0))
    midi.max_tick = last_tick + 1
    return midi

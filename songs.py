"""A song as arrays of notes: read from MIDI, its parts found, its bars checked.

Everything between a `.mid` file and the tokenizer that is about MIDI and not about tokens. Nothing here changes
its input, and nothing is rounded: times stay in ticks.
"""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import NamedTuple

import miditoolkit
import numpy as np
import symusic

from errors import UserError
from files import read_input
from vocab import QUARTERS_PER_BAR, Vocabulary

DEFAULT_TEMPO = 120.0  # beats per minute: what a MIDI file without a tempo plays at
SLOWEST, FASTEST = 60e6 / 0xFFFFFF, 60e6  # beats per minute: MIDI stores microseconds per quarter in 24 bits, from 1
TICKS_PER_QUARTER = 96  # of songs made from tokens
MAX_TICKS_PER_QUARTER = 0x7FFF  # 15 bits of a MIDI header
VELOCITY = 100
NO_NOTES = np.zeros((0, 3), np.int64)
N_PITCHES = 128
END_OF_TRACK = b"\xff\x2f\x00"
# Longest song that is read, in quarters: a day of music. Past it the times are garbage, and would overflow.
MAX_QUARTERS = 24 * 60 * 240


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
    """A MIDI file's notes and time line. `tempos` are (tick, beats per minute) pairs; both lists sorted by tick."""

    ticks_per_quarter: int
    tracks: tuple[Track, ...]
    tempos: tuple[tuple[int, float], ...] = ()
    time_signatures: tuple[TimeSignature, ...] = ()

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


# ---------------------------------------------------------------- reading


def read_song(path: str | Path, data: bytes | None = None) -> Song:
    """Read a `.mid` file.

    Bytes before the `MThd` header are skipped; a note that is never switched off lasts to the end of its track.

    Raises:
        UserError: missing, empty, truncated or not MIDI, or a division that is not ticks per quarter.
    """
    if data is None:
        data = read_input(Path(path))
    if not data:
        raise UserError(f"{path}: an empty file, not MIDI; export it again")
    start = data.find(b"MThd")
    if start < 0:
        raise UserError(f"{path}: not a MIDI file (no MThd header in it); give a Standard MIDI File")
    data = data[start:]
    if len(data) < 14:
        raise UserError(f"{path}: truncated MIDI file (its header is cut off); export it again")
    ticks_per_quarter = struct.unpack(">H", data[12:14])[0]
    if not 0 < ticks_per_quarter < 0x8000:
        raise UserError(f"{path}: its time is not counted in ticks per quarter note (division "
                        f"0x{ticks_per_quarter:04x}); export it with a musical time base")
    bodies = _track_bodies(data, str(path))
    try:
        score = _parse(data[8:14], bodies)
    except Exception as err:  # whatever the parser throws: it is C++, and its error classes differ by version
        raise UserError(f"{path}: not a readable MIDI file ({err}); export it again") from None
    return _song_from_score(score, str(path))


def _song_from_score(score: symusic.Score, where: str) -> Song:
    tracks = tuple(Track(track.name.strip(), track.program, track.is_drum,
                         first_release(_notes_of(track.notes.numpy()))) for track in score.tracks)
    tempos = [(tempo.time, round(tempo.qpm, 3)) for tempo in score.tempos if tempo.mspq > 0]
    signatures = [TimeSignature(s.time, s.numerator, s.denominator) for s in score.time_signatures]
    song = Song(score.ticks_per_quarter, tracks, _by_tick(tempos), _by_tick(signatures))
    latest = song.end_tick / score.ticks_per_quarter
    if latest > MAX_QUARTERS or any(track.notes.min(initial=0) < 0 for track in tracks):
        raise UserError(f"{where}: has a note at quarter {latest:.0f}, beyond any song; its times are damaged")
    return song


def _notes_of(columns: dict[str, np.ndarray]) -> np.ndarray:
    onset = columns["time"].astype(np.int64)
    return np.stack([onset, onset + columns["duration"], columns["pitch"].astype(np.int64)], axis=1)


def song_from_miditoolkit(midi: miditoolkit.MidiFile) -> Song:
    """The same from an object in memory, which stays unchanged.

    Its notes end as they would after being written and read. Only a `PartsMidiFile`, whose notes come from tokens
    and may overlap, is taken as it stands, so that the round trip in memory is exact.
    """
    exact = isinstance(midi, PartsMidiFile)
    tracks = []
    for instrument in midi.instruments:
        rows = [(note.start, note.end, note.pitch) for note in instrument.notes]
        notes = np.array(rows, np.int64).reshape(-1, 3)
        name = (instrument.name or "").strip()
        tracks.append(Track(name, int(instrument.program), bool(instrument.is_drum),
                            notes if exact else first_release(notes)))
    tempos = [(int(change.time), round(float(change.tempo), 3)) for change in midi.tempo_changes]
    signatures = [TimeSignature(int(s.time), s.numerator, s.denominator) for s in midi.time_signature_changes]
    return Song(midi.ticks_per_beat, tuple(tracks), _by_tick(tempos), _by_tick(signatures))


def _by_tick(changes: list) -> tuple:
    """Sorted by tick alone: of several at one tick the last in the file is in force."""
    return tuple(sorted(changes, key=lambda change: change[0]))


def first_release(notes: np.ndarray) -> np.ndarray:
    """End each note at the first note-off of its pitch after its onset.

    MIDI readers pair overlapping notes of one pitch first in, first out; what sounds ends at the first note-off.
    The note-offs are exactly the ends that the reader found, whatever it paired them with.

    Args:
        notes: (N, 3) onset, end, pitch of one track and channel; left unchanged.
    Returns:
        (N, 3), sorted by pitch and onset. A note of length zero stays so.
    """
    if not len(notes):
        return NO_NOTES
    notes = notes[np.lexsort((notes[:, 0], notes[:, 2]))]
    onset, end, pitch = notes.T
    span = int(end.max()) + 1  # one time axis for all pitches: pitch × span + tick
    releases = np.unique(pitch * span + end)
    found = np.searchsorted(releases, pitch * span + onset, side="right")
    first = releases[np.minimum(found, len(releases) - 1)] - pitch * span
    return np.stack([onset, np.where(end > onset, first, onset), pitch], axis=1)


def _track_bodies(data: bytes, where: str) -> list[bytes]:
    """What the track chunks hold. Chunks of other kinds are skipped, as are bytes after the last track.

    Raises UserError if a track is cut off, or missing: the parser would read what is left as a whole song.
    """
    n_tracks = struct.unpack(">H", data[10:12])[0]
    bodies, place = [], 8 + struct.unpack(">I", data[4:8])[0]
    while place + 8 <= len(data) and (data[place:place + 4] == b"MTrk" or len(bodies) < n_tracks):
        end = place + 8 + struct.unpack(">I", data[place + 4:place + 8])[0]
        if end > len(data):
            break
        if data[place:place + 4] == b"MTrk":
            bodies.append(data[place + 8:end])
        place = end
    if len(bodies) < n_tracks or data[place:place + 4] == b"MTrk":
        raise UserError(f"{where}: truncated MIDI file ({len(bodies)} whole tracks, where its header promises "
                        f"{n_tracks}); export it again")
    return bodies


def _parse(header: bytes, bodies: list[bytes]) -> symusic.Score:
    """Parse a MIDI file (format, number of tracks and division; tracks), none of its notes lost.

    symusic drops a note that nothing switches off, and in `on on off` the second, which really ends with the
    first. With note-offs added before each end of track it keeps both, and `first_release` gives each its
    right end. A pitch that uses all it got (drums are often never switched off) gets more.
    """
    releases = np.full(N_PITCHES, 2)
    header = b"MThd" + struct.pack(">I", 6) + header[:2] + struct.pack(">H", len(bodies)) + header[4:]
    while True:
        offs = b"\0".join(b"\0".join([bytes([pitch, 0])] * n) for pitch, n in enumerate(releases.tolist()))
        score = symusic.Score.from_midi(header + b"".join(_switched_off(body, offs) for body in bodies))
        used = np.max([np.zeros(N_PITCHES, int), *map(_ending_last, score.tracks)], axis=0)
        if (used < releases).all():
            return score
        releases[used >= releases] *= 8


def _switched_off(body: bytes, offs: bytes) -> bytes:
    """A track chunk; if it ends as it should, with the note-offs `offs` (under running status) on each channel."""
    if body.endswith(END_OF_TRACK):
        added = b"\0".join(bytes([0x80 | c]) + offs for c in range(16) if bytes([0x90 | c]) in body)
        if added:
            body = body[:-len(END_OF_TRACK)] + added + b"\0" + END_OF_TRACK
    return b"MTrk" + struct.pack(">I", len(body)) + body


def _ending_last(track: symusic.Track) -> np.ndarray:
    """(N_PITCHES,) how many notes of each pitch end where the track's last note ends."""
    notes = track.notes.numpy()
    end = notes["time"].astype(np.int64) + notes["duration"]
    return np.bincount(notes["pitch"][end == end.max(initial=0)], minlength=N_PITCHES)


# ---------------------------------------------------------------- bars and parts


def check_tempo(tempo: object, where: str) -> float:
    """`tempo` in beats per minute, if MIDI can hold it; otherwise raise UserError."""
    if isinstance(tempo, bool) or not isinstance(tempo, int | float) or not SLOWEST <= tempo <= FASTEST:
        raise UserError(f"{where}: tempo must be a number from {SLOWEST:.2f} to {FASTEST:.0f} beats per minute, "
                        f"not {tempo!r}")
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

"""Turn MIDI into pooled tokens, one per note: (bar, start_pos, note_dur, pitch_instrument).

Input    .mid, .midi, .kar and .rmi files, and folders of them (searched recursively)
Output   in the tokens folder: one .json per song in the same sub-folders, report.jsonl with a row per input
         (what was chosen, or why it was left out) and logs.txt, the same for reading
Example  python tokenizer.py -td tokens_output dataset
"""

from __future__ import annotations

import abc
import argparse
import dataclasses
import functools
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import miditoolkit
import numpy as np
import orjson

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import json_bytes, read_json_object, write_bytes
from backline.folders import convert as folder_run
from backline.music import parts as arranging
from backline.music.midi_reader import read_song, song_from_miditoolkit
from backline.music.parts import STRUCK_TWICE, Choices, arrange, choices_of, quantize_durations, quantize_onsets
from backline.music.song import (
    DEFAULT_TEMPO,
    MAX_TICKS_PER_QUARTER,
    TICKS_PER_QUARTER,
    PartsMidiFile,
    Song,
    check_tempo,
    parts_to_midi,
)
from backline.music.vocab import (
    BAR,
    BOS,
    EOS,
    FIELDS,
    FIRST_ID,
    NOTE_DUR,
    PITCH_INSTRUMENT,
    START_POS,
    Part,
    Vocabulary,
    load_vocabulary,
)

NOT_NUMBERS = {str, list, dict}  # in JSON
TOKEN_FORMAT, TOKEN_VERSION = "pooled-tokens", 1


def sorted_rows(start: np.ndarray, duration: np.ndarray, pitch_instrument: np.ndarray, v: Vocabulary) -> np.ndarray:
    """(N, F) note ids sorted by (bar, start_pos, pitch_instrument); of exact repeats the longest stays.

    Args:
        start, duration: (N,) in steps, from 0 and from 1.
        pitch_instrument: (N,) ids.
    """
    n_pitches, longest = v.sizes[PITCH_INSTRUMENT], v.max_duration_steps
    key = (start * n_pitches + pitch_instrument) * longest + (longest - duration)  # one sort, not three
    key.sort()
    place, shortness = np.divmod(key, longest)
    first = np.ones(len(place), bool)
    first[1:] = place[1:] != place[:-1]
    start, pitch_instrument = np.divmod(place[first], n_pitches)
    rows = np.empty((len(start), len(FIELDS)), np.int64)
    rows[:, BAR], rows[:, START_POS] = np.divmod(start, v.steps_per_bar)
    rows[:, NOTE_DUR] = longest - shortness[first] - 1
    rows[:, PITCH_INSTRUMENT] = pitch_instrument - FIRST_ID
    rows += FIRST_ID
    return rows


def in_order(rows: np.ndarray) -> np.ndarray:
    """Sort (N, F) note ids by (bar, start_pos, pitch_instrument); of exact repeats the longest stays."""
    rows = rows[np.lexsort((-rows[:, NOTE_DUR], rows[:, PITCH_INSTRUMENT], rows[:, START_POS], rows[:, BAR]))]
    first = np.ones(len(rows), bool)
    key = rows[:, [BAR, START_POS, PITCH_INSTRUMENT]]
    first[1:] = (key[1:] != key[:-1]).any(axis=1)
    return rows[first]


# ---------------------------------------------------------------- tokenizers


class MidiTokenizerBase(abc.ABC):
    """What tokenizers share: the vocabulary, reading a song, and its notes on the grid.

    A subclass says how rows of note ids become a token sequence (`rows_to_ids`) and back (`ids_to_rows`).
    """

    file_format = TOKEN_FORMAT  # what a token file calls itself

    def __init__(self, vocab: str | Path | dict[str, Any] | Vocabulary | None = None) -> None:
        """`vocab`: a path or dict, in this project's form or the published one; by default `configs/vocab.json`."""
        self.vocabulary = load_vocabulary(vocab)

    @property
    def vocab(self) -> dict[str, Any]:
        """The published form: `n_tokens`, and an event → id table for each family."""
        return self.vocabulary.to_published()

    @abc.abstractmethod
    def rows_to_ids(self, rows: np.ndarray) -> list:
        """The ids of a whole song, from its (N, F) note ids in order."""

    @abc.abstractmethod
    def ids_to_rows(self, ids: Any, where: str = "ids") -> np.ndarray:
        """(N, F) int64 note ids, in order and checked, of the song that `ids` hold."""

    def __call__(self, midi: str | Path | miditoolkit.MidiFile, out: str | Path | None = None,
                 events: bool = True) -> dict[str, Any]:
        """Tokenize one song.

        Args:
            midi: a path, or an object, which stays unchanged.
            out: also write the result as a token file here.
            events: also name the event of every id.
        Returns:
            `ids`, `events`, and what else a token file holds (see `token_file`).
        Raises:
            UserError: the song cannot be represented; the message says where and what to do.
        """
        is_object = isinstance(midi, miditoolkit.MidiFile)
        where = "MIDI object" if is_object else str(midi)
        song = song_from_miditoolkit(midi) if is_object else read_song(midi)
        rows = self.song_rows(song, where)
        if out is not None:
            write_bytes(Path(out), self.token_bytes(rows, song, where, events))
        return self.token_file(rows, song, where, events)

    def song_rows(self, song: Song, where: str) -> np.ndarray:
        """(N, F) note ids of a song, in order. Raises UserError if the vocabulary does not hold all of it."""
        arranged = arrange(song, self.vocabulary, Choices(), where)
        return self.parts_to_rows(arranged.pieces[0].parts, song.ticks_per_quarter, where)

    def parts_to_rows(self, parts: Sequence[np.ndarray], ticks_per_quarter: int, where: str) -> np.ndarray:
        """(N, F) note ids, in order, from the (N, 3) onsets, ends and pitches of each part.

        Raises UserError naming the first note that the vocabulary does not hold.
        """
        v = self.vocabulary
        for part, notes in zip(v.parts, parts, strict=True):
            self._check_range(part, notes, ticks_per_quarter, where)
        onset, end, pitch = np.concatenate(parts).T
        start = quantize_onsets(onset, ticks_per_quarter, v.steps_per_quarter)
        duration = quantize_durations(end - onset, ticks_per_quarter, v.steps_per_quarter, v.max_duration_steps)
        first_ids = np.array(v.first_pitch_ids) - [part.lowest_pitch for part in v.parts]
        pitch_instrument = pitch + np.repeat(first_ids, [len(notes) for notes in parts])
        if start.min(initial=0) < 0:
            raise UserError(f"{where}: a note begins before the song does (at tick {onset.min()}); move it")
        late = start[start >= v.bars * v.steps_per_bar]
        if len(late):
            raise UserError(f"{where}: bar {late.min() // v.steps_per_bar} is past the last bar this vocabulary holds "
                            f"({v.bars - 1}); shorten the song, --long-songs cut, or give a vocabulary with more bars")
        return sorted_rows(start, duration, pitch_instrument, v)

    def _check_range(self, part: Part, notes: np.ndarray, ticks_per_quarter: int, where: str) -> None:
        pitch = notes[:, 2]
        if not len(notes) or (pitch.min() >= part.lowest_pitch and pitch.max() <= part.highest_pitch):
            return
        outside = notes[(pitch < part.lowest_pitch) | (pitch > part.highest_pitch)]
        onset, _, pitch = outside[np.argmin(outside[:, 0])]
        v = self.vocabulary
        bar = quantize_onsets(onset, ticks_per_quarter, v.steps_per_quarter) // v.steps_per_bar
        raise UserError(f"{where}: bar {bar}: {part.name} pitch {pitch} is outside {part.lowest_pitch} to "
                        f"{part.highest_pitch} ({len(outside)} of {len(notes)} notes); move or delete such notes, or "
                        f"--ranges drop")

    def token_file(self, rows: np.ndarray, song: Song, source: str, events: bool = True) -> dict[str, Any]:
        """What a token file holds: `ids`, `events` if wanted, and where they come from."""
        ids = self.rows_to_ids(rows)
        named = {"events": ["<<BOS>>", *self.tokens_to_events(ids[1:-1]), "<<EOS>>"]} if events else {}
        return {"ids": ids, **named, **self._metadata(song, source)}

    def token_bytes(self, rows: np.ndarray, song: Song, source: str, events: bool = True) -> bytes:
        """The same as JSON."""
        return json_bytes(self.token_file(rows, song, source, events))

    def _metadata(self, song: Song, source: str) -> dict[str, Any]:
        return {"format": self.file_format, "version": TOKEN_VERSION, "vocabulary": self.vocabulary.digest,
                "source": source, "ticks_per_quarter": song.ticks_per_quarter, "tempo": song.main_tempo()}

    @abc.abstractmethod
    def tokens_to_events(self, ids: Any) -> list:
        """The event names of `ids`."""

    def create_midi_from_tokens(self, ids: Any, tpb: int = TICKS_PER_QUARTER,
                                tempo: float = DEFAULT_TEMPO) -> PartsMidiFile:
        """The song as MIDI: velocity 100, 4/4, a track for each part, empty or not.

        Args:
            ids: token ids as a list, array or tensor; special rows are left out, EOS ends the song.
            tpb: ticks per quarter note, a multiple of the grid's steps per quarter.
            tempo: beats per minute.
        Raises:
            UserError: `tpb` off the grid, a tempo that MIDI cannot hold, or ids outside the vocabulary.
        """
        v = self.vocabulary
        if not 0 < tpb <= MAX_TICKS_PER_QUARTER or tpb % v.steps_per_quarter or tpb != int(tpb):
            raise UserError(f"tpb={tpb} must be a positive multiple of {v.steps_per_quarter}, at most "
                            f"{MAX_TICKS_PER_QUARTER}")
        check_tempo(tempo, "create_midi_from_tokens")
        tpb = int(tpb)
        parts = self.rows_to_parts(self.ids_to_rows(ids), tpb)
        return parts_to_midi(parts, v, tpb, tempo)

    def rows_to_parts(self, rows: np.ndarray, ticks_per_quarter: int) -> list[np.ndarray]:
        """For each part the (N, 3) onsets, ends (in ticks) and pitches of (N, F) note ids."""
        v = self.vocabulary
        step = ticks_per_quarter // v.steps_per_quarter
        onset = ((rows[:, BAR] - FIRST_ID) * v.steps_per_bar + rows[:, START_POS] - FIRST_ID) * step
        end = onset + (rows[:, NOTE_DUR] - FIRST_ID + 1) * step
        notes = np.stack([onset, end, v.pitch_of_id[rows[:, PITCH_INSTRUMENT]]], axis=1)
        part = v.part_of_id[rows[:, PITCH_INSTRUMENT]]
        return [notes[part == p] for p in range(len(v.parts))]


class MidiTokenizerPooled(MidiTokenizerBase):
    """One row of F ids per note; `(1, 1, 1, 1)` begins a song and `(2, 2, 2, 2)` ends it."""

    def rows_to_ids(self, rows: np.ndarray) -> list[tuple[int, ...]]:
        return [(BOS,) * len(FIELDS), *map(tuple, rows.tolist()), (EOS,) * len(FIELDS)]

    def token_bytes(self, rows: np.ndarray, song: Song, source: str, events: bool = True) -> bytes:
        """What `json_bytes(token_file(...))` gives, put together without a Python object per id."""
        edge = np.ones((1, len(FIELDS)), rows.dtype)
        ids = orjson.dumps(np.concatenate([BOS * edge, rows, EOS * edge]), option=orjson.OPT_SERIALIZE_NUMPY)
        named = [b',"events":["<<BOS>>",', *self._event_fragments(rows), b'"<<EOS>>"]'] if events else []
        return b"".join([b'{"ids":', ids, *named, b",", json_bytes(self._metadata(song, source))[1:]])

    def _event_fragments(self, rows: np.ndarray) -> list[bytes]:
        """JSON of the events of (N, F) note ids: three ready-made fragments per note."""
        bars, middles, ends = self._fragments
        durations = self.vocabulary.sizes[NOTE_DUR]
        fragments = np.empty((len(rows), 3), object)
        fragments[:, 0] = bars[rows[:, BAR]]
        fragments[:, 1] = middles[rows[:, START_POS] * durations + rows[:, NOTE_DUR]]
        fragments[:, 2] = ends[rows[:, PITCH_INSTRUMENT]]
        return fragments.ravel().tolist()

    @functools.cached_property
    def _fragments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Object arrays of bytes: beginnings by bar, middles by start_pos and note_dur together, ends by pitch."""
        bars, starts, durations, pitches = self.vocabulary.event_names
        return (np.array([f'["{bar}",'.encode() for bar in bars], object),
                np.array([f'"{start}","{duration}",'.encode() for start in starts for duration in durations], object),
                np.array([f'"{pitch}"],'.encode() for pitch in pitches], object))

    def ids_to_rows(self, ids: Any, where: str = "ids") -> np.ndarray:
        rows = self.check_ids(ids, where)
        ends = np.flatnonzero((rows == EOS).all(axis=1))
        rows = rows[:ends[0]] if len(ends) else rows
        return in_order(rows[(rows >= FIRST_ID).all(axis=1)])

    def check_ids(self, ids: Any, where: str = "ids") -> np.ndarray:
        """(N, F) int64 array of rows that are either notes or special as a whole.

        Raises UserError naming the first row that is neither.
        """
        array = _as_array(ids, where)
        if not len(array):
            return array
        bad = (array < 0).any(axis=1) | (array >= self.vocabulary.sizes).any(axis=1)
        special = array < FIRST_ID
        bad |= special.any(axis=1) & (array != array[:, :1]).any(axis=1)
        if bad.any():
            row = int(np.argmax(bad))
            raise UserError(f"{where}: row {row} {array[row].tolist()} is outside the vocabulary "
                            f"(sizes {list(self.vocabulary.sizes)}, special ids all or none); make it again with "
                            f"tokenizer.py")
        return array

    def tokens_to_events(self, ids: Any) -> list[list[str]]:
        """The four event names of each row."""
        columns = self.check_ids(ids).T
        names = [[table[i] for i in column.tolist()] for table, column in
                 zip(self.vocabulary.event_names, columns, strict=True)]
        return [list(row) for row in zip(*names, strict=True)]


def _as_array(ids: Any, where: str) -> np.ndarray:
    """Ids as an (N, F) int64 array, from lists, arrays or tensors (without importing torch)."""
    try:
        if isinstance(ids, list) and not NOT_NUMBERS.isdisjoint(map(type, itertools.chain.from_iterable(ids))):
            raise ValueError  # before numpy gives every id the room of the longest text
        array = np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)
        if not array.size:
            array = np.zeros((0, len(FIELDS)), np.int64)
    except (TypeError, ValueError):  # no rows, or of different lengths
        array = np.zeros(0)
    if array.ndim != 2 or array.shape[1] != len(FIELDS) or not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"{where}: must be rows of {len(FIELDS)} whole numbers, one per family: {', '.join(FIELDS)}; "
                        f"make it again with tokenizer.py")
    return array.astype(np.int64)


def read_tokens(path: Path, tokenizer: MidiTokenizerPooled) -> tuple[np.ndarray, float]:
    """Read a token file, this project's or the predecessor's.

    Only `ids` (and the tempo) are trusted, never `events`. Notes are put into the order of `in_order`.

    Returns:
        rows: (N, F) int64 note ids, special rows left out.
        tempo: beats per minute, 120 where the file says none.
    Raises:
        UserError: not JSON, no `ids`, ids outside the vocabulary, or made with another vocabulary.
    """
    ids, tempo = token_ids(parse_token_file(path), path, tokenizer)
    return tokenizer.ids_to_rows(ids, str(path)), tempo


def parse_token_file(path: Path) -> dict[str, Any]:
    """A token file's content, as far as it can be checked without a vocabulary."""
    data = read_json_object(path, orjson.loads)
    if "ids" not in data:
        raise UserError(f"{path}: has no 'ids': not a token file; make one with tokenizer.py")
    if data.get("format", TOKEN_FORMAT) != TOKEN_FORMAT or data.get("version", TOKEN_VERSION) != TOKEN_VERSION:
        raise UserError(f"{path}: a file of format {data.get('format')!r:.40} and version "
                        f"{data.get('version')!r:.40}, not {TOKEN_FORMAT} version {TOKEN_VERSION}; make it again with "
                        f"tokenizer.py")
    return data


def token_ids(data: dict[str, Any], path: Path, tokenizer: MidiTokenizerPooled) -> tuple[np.ndarray, float]:
    """Every row of a parsed token file as it stands there, (N, F) int64 ids, special rows too; and the tempo."""
    tokenizer.vocabulary.check_digest(data.get("vocabulary"), str(path), "make it again with tokenizer.py")
    tempo = check_tempo(data.get("tempo", DEFAULT_TEMPO), str(path))
    return tokenizer.check_ids(data["ids"], str(path)), tempo


# ---------------------------------------------------------------- command


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(f"{__doc__}\n{arranging.OPTIONS}")
    parser.add_argument("inputs", type=Path, nargs="+", metavar="MIDI", help="files and folders to tokenize")
    parser.add_argument("-td", "--tokens_dir", type=Path, default=Path("tokens"),
                        help="folder for the token files (default: %(default)s)")
    parser.add_argument("-p", "--pooled", action="store_true",
                        help="pooled tokens: the default and only kind, accepted for published command lines")
    parser.add_argument("--no-events", dest="events", action="store_false",
                        help="write ids alone: files a quarter as large")
    parser.add_argument("--vocab", type=Path, help="vocabulary JSON (default: configs/vocab.json)")
    arranging.add_options(parser, Choices())
    folder_run.add_options(parser)
    return parser


@dataclasses.dataclass(frozen=True)
class SongTokens:
    """The job on one song of a folder: its token files, and what the report says."""

    tokenizer: MidiTokenizerPooled
    choices: Choices
    events: bool

    def __call__(self, song: Song, source: str) -> tuple[list[bytes], dict[str, Any]]:
        pieces, lost, facts = arrange(song, self.tokenizer.vocabulary, self.choices, source)
        rows = [self.tokenizer.parts_to_rows(piece.parts, song.ticks_per_quarter, source) for piece in pieces]
        contents = [self.tokenizer.token_bytes(each, song, source, self.events) for each in rows]
        n_notes = sum(map(len, rows))
        lost[STRUCK_TWICE] = sum(piece.n_notes for piece in pieces) - n_notes
        return contents, {"notes": n_notes, "bars": [int(each[-1, BAR]) - FIRST_ID + 1 for each in rows],
                          "first_bars": [piece.first_bar for piece in pieces], "lost": dict(lost), **facts}


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    tokenizer = MidiTokenizerPooled(args.vocab)
    choices = choices_of(args, Choices(), tokenizer.vocabulary)
    return folder_run.run(args, args.tokens_dir, ".json", "tokenized", SongTokens(tokenizer, choices, args.events),
                          choices, vocabulary=tokenizer.vocabulary.to_dict(), events=args.events)


if __name__ == "__main__":
    sys.exit(main())

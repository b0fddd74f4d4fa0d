"""Turn MIDI into pooled tokens, one per note: (bar, start_pos, note_dur, pitch_instrument).

Input    .mid, .midi, .kar and .rmi files, and folders of them (searched recursively)
Output   in the tokens folder: one .json per song in the same sub-folders; report.jsonl with a row
         per input (what was chosen, or why it was left out); logs.txt, the same as plain text
Example  python tokenizer.py -td tokens_output dataset
"""

from __future__ import annotations

import abc
import argparse
import dataclasses
import functools
import itertools
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import miditoolkit
import numpy as np
import orjson

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import json_bytes, read_json_object, write_bytes
from backline.folders import convert
from backline.folders.convert import Converted
from backline.music import choices as song_choices
from backline.music.bars import quantize_durations, quantize_onsets
from backline.music.choices import Choices, choices_of
from backline.music.midi_reader import read_song, song_from_miditoolkit
from backline.music.midi_writer import PartsMidiFile, parts_to_midi
from backline.music.parts import STRUCK_TWICE, arrange
from backline.music.rows import bars_in
from backline.music.song import (
    DEFAULT_TEMPO,
    MAX_TICKS_PER_QUARTER,
    TICKS_PER_QUARTER,
    Song,
    check_tempo,
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

TOKEN_FORMAT, TOKEN_VERSION = "pooled-tokens", 1
BOS_EVENT, EOS_EVENT = "<<BOS>>", "<<EOS>>"
NOT_NUMBERS = {str, list, dict}  # in JSON
REMEDY = "make it again with tokenizer.py"


# ---------------------------------------------------------------- from a song to rows


class Tokenized(NamedTuple):
    """A song as rows of ids, and what a report says of it."""

    rows: list[np.ndarray]  # (N, F) note ids of each piece the song is cut into, usually one
    first_bars: list[int]  # where in the song each piece begins
    lost: Counter[str]  # notes left out, by reason
    about_song: dict[str, Any]

    @property
    def n_notes(self) -> int:
        """Notes in all pieces."""
        return sum(len(rows) for rows in self.rows)


def tokenize(song: Song,
             vocabulary: Vocabulary,
             choices: Choices,
             where: str) -> Tokenized:
    """Give a song's notes to the parts, cut it where it must be, and turn each piece into rows.

    Raises UserError, beginning with `where`, if the song cannot be represented.
    """
    pieces, lost, about_song = arrange(song, vocabulary, choices, where)
    rows = [parts_to_rows(piece.parts, song.ticks_per_quarter, vocabulary, where)
            for piece in pieces]
    first_bars = [piece.first_bar for piece in pieces]
    tokenized = Tokenized(rows, first_bars, lost, about_song)
    n_played = sum(piece.n_notes for piece in pieces)
    lost[STRUCK_TWICE] = n_played - tokenized.n_notes
    return tokenized


def parts_to_rows(parts: Sequence[np.ndarray],
                  ticks_per_quarter: int,
                  vocabulary: Vocabulary,
                  where: str) -> np.ndarray:
    """(N, F) note ids, in order, from the (N, 3) onsets, ends and pitches of each part.

    Raises UserError naming the first note that the vocabulary does not hold.
    """
    for part, notes in zip(vocabulary.parts, parts, strict=True):
        _check_range(part, notes, ticks_per_quarter, vocabulary, where)
    onset, end, pitch = np.concatenate(parts).T  # each (N,); ticks, ticks, MIDI pitches
    steps_per_quarter = vocabulary.steps_per_quarter
    start = quantize_onsets(onset, ticks_per_quarter, steps_per_quarter)  # (N,) steps
    duration = quantize_durations(end - onset,
                                  ticks_per_quarter,
                                  steps_per_quarter,
                                  vocabulary.max_duration_steps)
    if start.min(initial=0) < 0:
        raise UserError(f"{where}: a note begins before the song (at tick {onset.min()}); "
                        f"move it")
    late = start[start >= vocabulary.bars * vocabulary.steps_per_bar]
    if len(late):
        bar = 1 + late.min() // vocabulary.steps_per_bar
        raise UserError(f"{where}: bar {bar} is past the last bar this vocabulary holds "
                        f"({vocabulary.bars}); shorten the song, --long-songs cut, or give a "
                        f"vocabulary with more bars")
    lowest = np.array([part.lowest_pitch for part in vocabulary.parts])
    id_of_pitch_0 = np.array(vocabulary.first_pitch_ids) - lowest
    n_notes = [len(notes) for notes in parts]
    pitch_instrument = pitch + np.repeat(id_of_pitch_0, n_notes)  # (N,) ids
    return rows_in_order(start, duration, pitch_instrument, vocabulary)


def _check_range(part: Part,
                 notes: np.ndarray,
                 ticks_per_quarter: int,
                 vocabulary: Vocabulary,
                 where: str) -> None:
    """Raise UserError naming the first of (N, 3) notes that is outside the part's pitch range."""
    pitch = notes[:, 2]
    is_outside = (pitch < part.lowest_pitch) | (pitch > part.highest_pitch)
    if not is_outside.any():
        return
    outside = notes[is_outside]
    first = np.argmin(outside[:, 0])
    onset, _, pitch = outside[first]
    step = quantize_onsets(onset, ticks_per_quarter, vocabulary.steps_per_quarter)
    bar = 1 + step // vocabulary.steps_per_bar
    allowed = f"{part.lowest_pitch} to {part.highest_pitch}"
    raise UserError(f"{where}: bar {bar}: {part.name} pitch {pitch} is outside {allowed} "
                    f"({len(outside)} of {len(notes)} notes); move or delete such notes, or "
                    f"--ranges drop")


# ---------------------------------------------------------------- the order of rows


def rows_in_order(start: np.ndarray,
                  duration: np.ndarray,
                  pitch_instrument: np.ndarray,
                  vocabulary: Vocabulary) -> np.ndarray:
    """(N, F) note ids in canonical order, see `canonical`, made and sorted in one go.

    Args:
        start, duration: (N,) in steps, from 0 and from 1.
        pitch_instrument: (N,) ids.
    """
    n_pitches = vocabulary.sizes[PITCH_INSTRUMENT]
    longest = vocabulary.max_duration_steps
    place = start * n_pitches + pitch_instrument
    key = place * longest + (longest - duration)  # one number a note: one sort instead of three
    key.sort()
    place, shortness = np.divmod(key, longest)
    is_first = np.ones(len(place), bool)
    is_first[1:] = place[1:] != place[:-1]
    start, pitch_instrument = np.divmod(place[is_first], n_pitches)
    bar, start_pos = np.divmod(start, vocabulary.steps_per_bar)
    rows = np.empty((len(start), len(FIELDS)), np.int64)
    rows[:, BAR] = FIRST_ID + bar
    rows[:, START_POS] = FIRST_ID + start_pos
    shortness = shortness[is_first]
    rows[:, NOTE_DUR] = FIRST_ID + longest - shortness - 1
    rows[:, PITCH_INSTRUMENT] = pitch_instrument
    return rows


def canonical(rows: np.ndarray) -> np.ndarray:
    """(N, F) note ids by (bar, start_pos, pitch_instrument); of exact repeats the longest stays."""
    bar, start_pos, note_dur, pitch_instrument = rows.T
    order = np.lexsort((-note_dur, pitch_instrument, start_pos, bar))
    rows = rows[order]
    key = rows[:, [BAR, START_POS, PITCH_INSTRUMENT]]
    is_first = np.ones(len(rows), bool)
    differs = key[1:] != key[:-1]
    is_first[1:] = differs.any(axis=1)
    return rows[is_first]


def note_rows(ids: np.ndarray) -> np.ndarray:
    """(N, F) note ids in canonical order, from checked rows of ids; EOS ends the song."""
    ends = np.flatnonzero((ids == EOS).all(axis=1))
    if len(ends):
        ids = ids[:ends[0]]
    is_note = (ids >= FIRST_ID).all(axis=1)
    return canonical(ids[is_note])


# ---------------------------------------------------------------- tokenizers


class MidiTokenizerBase(abc.ABC):
    """What tokenizers share: a vocabulary, tokenizing a song, and making MIDI of tokens.

    A subclass says how rows of note ids become a token sequence (`rows_to_ids`) and back
    (`ids_to_rows`).
    """

    file_format = TOKEN_FORMAT  # what a token file calls itself

    def __init__(self, vocab: str | Path | dict[str, Any] | Vocabulary | None = None) -> None:
        """`vocab`: a path or dict, in this project's form or the published one.

        The default is `configs/vocab.json`.
        """
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

    @abc.abstractmethod
    def tokens_to_events(self, ids: Any) -> list:
        """The event names of `ids`."""

    def __call__(self,
                 midi: str | Path | miditoolkit.MidiFile,
                 out: str | Path | None = None,
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
        if isinstance(midi, miditoolkit.MidiFile):
            where = "MIDI object"
            song = song_from_miditoolkit(midi)
        else:
            where = str(midi)
            song = read_song(midi)
        rows = self.song_rows(song, where)
        if out is not None:
            write_bytes(Path(out), self.token_bytes(rows, song, where, events))
        return self.token_file(rows, song, where, events)

    def song_rows(self, song: Song, where: str) -> np.ndarray:
        """(N, F) note ids of a song, in order.

        Raises UserError if the vocabulary does not hold all of it.
        """
        rows, = tokenize(song, self.vocabulary, Choices(), where).rows
        return rows

    def token_file(self,
                   rows: np.ndarray,
                   song: Song,
                   source: str,
                   events: bool = True) -> dict[str, Any]:
        """What a token file holds: `ids`, `events` if wanted, and where they come from."""
        ids = self.rows_to_ids(rows)
        content: dict[str, Any] = {"ids": ids}
        if events:
            of_notes = self.tokens_to_events(ids[1:-1])
            content["events"] = [BOS_EVENT, *of_notes, EOS_EVENT]
        return content | self._metadata(song, source)

    def token_bytes(self,
                    rows: np.ndarray,
                    song: Song,
                    source: str,
                    events: bool = True) -> bytes:
        """`token_file` as JSON."""
        return json_bytes(self.token_file(rows, song, source, events))

    def _metadata(self, song: Song, source: str) -> dict[str, Any]:
        return {
            "format": self.file_format,
            "version": TOKEN_VERSION,
            "vocabulary": self.vocabulary.digest,
            "source": source,
            "ticks_per_quarter": song.ticks_per_quarter,
            "tempo": song.main_tempo(),
        }

    def create_midi_from_tokens(self,
                                ids: Any,
                                tpb: int = TICKS_PER_QUARTER,
                                tempo: float = DEFAULT_TEMPO) -> PartsMidiFile:
        """The song as MIDI: velocity 100, 4/4, a track for each part, empty or not.

        Args:
            ids: token ids as a list, array or tensor; special rows are left out, EOS ends the song.
            tpb: ticks per quarter note, a multiple of the grid's steps per quarter.
            tempo: beats per minute.
        Raises:
            UserError: `tpb` off the grid, a tempo that MIDI cannot hold, or ids outside the
                vocabulary.
        """
        step = self.vocabulary.steps_per_quarter
        if not 0 < tpb <= MAX_TICKS_PER_QUARTER or tpb % step or tpb != int(tpb):
            raise UserError(f"tpb={tpb} must be a positive multiple of {step}, at most "
                            f"{MAX_TICKS_PER_QUARTER}")
        tempo = check_tempo(tempo, "create_midi_from_tokens")
        tpb = int(tpb)
        parts = self.rows_to_parts(self.ids_to_rows(ids), tpb)
        return parts_to_midi(parts, self.vocabulary, tpb, tempo)

    def rows_to_parts(self, rows: np.ndarray, ticks_per_quarter: int) -> list[np.ndarray]:
        """For each part the (N, 3) onsets, ends (in ticks) and pitches of (N, F) note ids."""
        vocabulary = self.vocabulary
        ticks_per_step = ticks_per_quarter // vocabulary.steps_per_quarter
        bar = rows[:, BAR] - FIRST_ID
        start_pos = rows[:, START_POS] - FIRST_ID
        duration = rows[:, NOTE_DUR] - FIRST_ID + 1
        pitch_instrument = rows[:, PITCH_INSTRUMENT]
        start = bar * vocabulary.steps_per_bar + start_pos
        onset = start * ticks_per_step
        end = onset + duration * ticks_per_step
        pitch = vocabulary.pitch_of_id[pitch_instrument]
        notes = np.stack([onset, end, pitch], axis=1)  # (N, 3)
        part = vocabulary.part_of_id[pitch_instrument]
        return [notes[part == p] for p in range(len(vocabulary.parts))]


class MidiTokenizerPooled(MidiTokenizerBase):
    """One row of F ids per note; `(1, 1, 1, 1)` begins a song and `(2, 2, 2, 2)` ends it."""

    def rows_to_ids(self, rows: np.ndarray) -> list[tuple[int, ...]]:
        """The rows as tuples, between those of BOS and EOS."""
        bos = (BOS,) * len(FIELDS)
        eos = (EOS,) * len(FIELDS)
        return [bos, *map(tuple, rows.tolist()), eos]

    def ids_to_rows(self, ids: Any, where: str = "ids") -> np.ndarray:
        """(N, F) int64 note ids, in order and checked, of the song that rows of `ids` hold."""
        checked = self.check_ids(ids, where)
        return note_rows(checked)

    def check_ids(self, ids: Any, where: str = "ids") -> np.ndarray:
        """(N, F) int64 array of rows that are either notes or special as a whole.

        Raises UserError naming the first row that is neither.
        """
        array = _as_array(ids, where)
        if not len(array):
            return array
        is_beyond = (array < 0) | (array >= self.vocabulary.sizes)  # (N, F)
        is_outside = is_beyond.any(axis=1)                   # (N,)
        is_special = (array < FIRST_ID).any(axis=1)
        is_mixed = (array != array[:, :1]).any(axis=1)
        is_bad = is_outside | (is_special & is_mixed)
        if is_bad.any():
            row = int(np.argmax(is_bad))
            raise UserError(f"{where}: row {row} {array[row].tolist()} is outside the vocabulary "
                            f"(sizes {list(self.vocabulary.sizes)}, special ids all or none); "
                            f"{REMEDY}")
        return array

    def tokens_to_events(self, ids: Any) -> list[list[str]]:
        """The four event names of each row."""
        rows = self.check_ids(ids).tolist()
        bars, starts, durations, pitches = self.vocabulary.event_names
        return [[bars[bar], starts[start], durations[duration], pitches[pitch]]
                for bar, start, duration, pitch in rows]

    def token_bytes(self,
                    rows: np.ndarray,
                    song: Song,
                    source: str,
                    events: bool = True) -> bytes:
        """What `json_bytes(token_file(...))` gives, put together without a Python object per id.

        test_bytes_put_together_are_those_of_the_whole_file_as_json holds the two equal.
        """
        edge = np.ones((1, len(FIELDS)), rows.dtype)
        all_rows = np.concatenate([BOS * edge, rows, EOS * edge])
        ids = orjson.dumps(all_rows, option=orjson.OPT_SERIALIZE_NUMPY)
        pieces = [b'{"ids":', ids]
        if events:
            first = f',"events":["{BOS_EVENT}",'.encode()
            last = f'"{EOS_EVENT}"]'.encode()
            pieces += [first, *self._event_fragments(rows), last]
        about = json_bytes(self._metadata(song, source))
        pieces += [b",", about[1:]]  # without its opening bracket
        return b"".join(pieces)

    def _event_fragments(self, rows: np.ndarray) -> list[bytes]:
        """JSON of the events of (N, F) note ids: three ready-made fragments per note."""
        bars, middles, ends = self._fragments
        n_durations = self.vocabulary.sizes[NOTE_DUR]
        middle = rows[:, START_POS] * n_durations + rows[:, NOTE_DUR]
        fragments = np.empty((len(rows), 3), object)
        fragments[:, 0] = bars[rows[:, BAR]]
        fragments[:, 1] = middles[middle]
        fragments[:, 2] = ends[rows[:, PITCH_INSTRUMENT]]
        return fragments.ravel().tolist()

    @functools.cached_property
    def _fragments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bytes as objects: beginnings by bar, middles by start_pos and note_dur, ends by pitch."""
        bars, starts, durations, pitches = self.vocabulary.event_names
        beginnings = [f'["{bar}",'.encode() for bar in bars]
        middles = [f'"{start}","{duration}",'.encode()
                   for start, duration in itertools.product(starts, durations)]
        ends = [f'"{pitch}"],'.encode() for pitch in pitches]
        return (
            np.array(beginnings, object),
            np.array(middles, object),
            np.array(ends, object),
        )


def _as_array(ids: Any, where: str) -> np.ndarray:
    """Ids as an (N, F) int64 array, from lists, arrays or tensors (without importing torch)."""
    array = _numbers(ids)
    if array is None or not _is_rows(array):
        raise UserError(f"{where}: must be rows of {len(FIELDS)} whole numbers, one per family: "
                        f"{', '.join(FIELDS)}; {REMEDY}")
    return array.astype(np.int64)


def _is_rows(array: np.ndarray) -> bool:
    """Whether an array is (N, F) whole numbers."""
    if array.ndim != 2 or array.shape[1] != len(FIELDS):
        return False
    return bool(np.issubdtype(array.dtype, np.integer))


def _numbers(ids: Any) -> np.ndarray | None:
    """`ids` as an array; None if they are not rows of equal lengths.

    A list that holds text is refused first, or numpy would allocate the longest string for every
    id.
    """
    try:
        if isinstance(ids, list):
            items = itertools.chain.from_iterable(ids)
            kinds = set(map(type, items))
            if kinds & NOT_NUMBERS:
                return None
        if hasattr(ids, "cpu"):
            ids = ids.cpu()
        array = np.asarray(ids)
    except (TypeError, ValueError):
        return None
    if not array.size:
        return np.zeros((0, len(FIELDS)), np.int64)
    return array


# ---------------------------------------------------------------- token files


@dataclasses.dataclass(frozen=True)
class TokenFile:
    """A token file's content, read without a vocabulary: its ids are not checked yet."""

    path: Path
    ids: Any
    digest: str | None  # of the vocabulary it was made with; None in the predecessor's files
    tempo: float  # beats per minute

    def checked_ids(self, tokenizer: MidiTokenizerPooled) -> np.ndarray:
        """(N, F) int64 ids of every row of the file, special rows too.

        Raises UserError if it was made with another vocabulary, or ids are outside this one.
        """
        tokenizer.vocabulary.check_digest(self.digest, str(self.path), REMEDY)
        return tokenizer.check_ids(self.ids, str(self.path))


def open_token_file(path: Path) -> TokenFile:
    """Read a token file, this project's or the predecessor's, without a vocabulary.

    Only `ids` and the tempo are trusted, never `events`. A file that says no tempo has 120.

    Raises UserError: not JSON, no `ids`, another format or version, or no tempo that MIDI can hold.
    """
    data = read_json_object(path, orjson.loads)
    if "ids" not in data:
        raise UserError(f"{path}: has no 'ids': not a token file; make one with tokenizer.py")
    file_format = data.get("format", TOKEN_FORMAT)
    version = data.get("version", TOKEN_VERSION)
    if (file_format, version) != (TOKEN_FORMAT, TOKEN_VERSION):
        raise UserError(f"{path}: a file of format {data.get('format')!r:.40} and version "
                        f"{data.get('version')!r:.40}, not {TOKEN_FORMAT} version {TOKEN_VERSION}; "
                        f"{REMEDY}")
    tempo = check_tempo(data.get("tempo", DEFAULT_TEMPO), str(path))
    return TokenFile(path, data["ids"], data.get("vocabulary"), tempo)


def read_tokens(path: Path, tokenizer: MidiTokenizerPooled) -> tuple[np.ndarray, float]:
    """The notes of a token file and its tempo.

    Returns:
        rows: (N, F) int64 note ids in canonical order, special rows left out.
        tempo: beats per minute.
    Raises:
        UserError: what `open_token_file` and `TokenFile.checked_ids` raise.
    """
    file = open_token_file(path)
    return note_rows(file.checked_ids(tokenizer)), file.tempo


# ---------------------------------------------------------------- command


@dataclasses.dataclass(frozen=True)
class SongTokens:
    """The job on one song of a folder: its token files, and what the report says."""

    tokenizer: MidiTokenizerPooled
    choices: Choices
    events: bool

    def __call__(self, song: Song, source: str) -> Converted:
        """Tokenize a song. Raises UserError if it is to be left out."""
        tokenized = tokenize(song, self.tokenizer.vocabulary, self.choices, source)
        files = [self.tokenizer.token_bytes(rows, song, source, self.events)
                 for rows in tokenized.rows]
        about_files = {
            "bars": [bars_in(rows) for rows in tokenized.rows],
            "first_bars": tokenized.first_bars,
        }
        return Converted(files,
                         tokenized.n_notes,
                         about_files,
                         dict(tokenized.lost),
                         tokenized.about_song)


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = Parser(f"{__doc__}\n{song_choices.OPTIONS}")
    parser.add_argument("inputs",
                        type=Path,
                        nargs="+",
                        metavar="MIDI",
                        help="files and folders to tokenize")
    parser.add_argument("-td", "--tokens_dir",
                        type=Path,
                        default=Path("tokens"),
                        help="folder for the token files (default: %(default)s)")
    parser.add_argument("-p", "--pooled",
                        action="store_true",
                        help="pooled tokens: the only kind and the default; accepted for published "
                             "command lines")
    parser.add_argument("--no-events",
                        dest="events",
                        action="store_false",
                        help="write ids only; files are a quarter as large")
    parser.add_argument("--vocab", type=Path, help="vocabulary JSON (default: configs/vocab.json)")
    song_choices.add_options(parser, Choices())
    convert.add_options(parser)
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Tokenize files and folders; returns the exit code."""
    args = build_parser().parse_args(argv)
    tokenizer = MidiTokenizerPooled(args.vocab)
    choices = choices_of(args, Choices(), tokenizer.vocabulary)
    job = SongTokens(tokenizer, choices, args.events)
    output = convert.Output(args.tokens_dir, ".json", "tokenized")
    settings = {"vocabulary": tokenizer.vocabulary.to_dict(), "events": args.events}
    return convert.run(args, output, job, choices, settings)


if __name__ == "__main__":
    sys.exit(main())

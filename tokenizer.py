"""Turn MIDI into pooled tokens, one per note: (bar, start_pos, note_dur, pitch_instrument).

Input    .mid, .midi, .kar and .rmi files, and folders of them (searched recursively)
Output   in the tokens folder: one .json per song in the same sub-folders, report.jsonl with a row per input
         (what was chosen, or why it was left out) and logs.txt, the same for reading
Example  python tokenizer.py -td tokens_output dataset
"""

from __future__ import annotations

import abc
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import miditoolkit
import numpy as np
from tqdm import tqdm

from errors import UserError, reports_user_errors
from files import (
    MIDI_SUFFIXES,
    check_new,
    check_writable,
    distinct_outputs,
    find_files,
    json_bytes,
    read_json_object,
    write_bytes,
)
from midi_reader import read_song, song_from_miditoolkit
from reports import Report
from songs import (
    DEFAULT_TEMPO,
    MAX_TICKS_PER_QUARTER,
    TICKS_PER_QUARTER,
    PartsMidiFile,
    Song,
    assign_parts,
    check_playable,
    check_tempo,
    parts_to_midi,
)
from vocab import (
    BAR,
    BOS,
    EOS,
    FIELDS,
    FIRST_ID,
    NOTE_DUR,
    PITCH_INSTRUMENT,
    START_POS,
    Vocabulary,
    load_vocabulary,
)

TOKEN_FORMAT, TOKEN_VERSION = "pooled-tokens", 1


# ---------------------------------------------------------------- quantization, on exact integers


def quantize_onsets(ticks: np.ndarray, ticks_per_quarter: int, steps_per_quarter: int) -> np.ndarray:
    """Nearest step of each onset, a tie going down: ceil(steps − 1/2)."""
    return -((ticks_per_quarter - 2 * steps_per_quarter * ticks) // (2 * ticks_per_quarter))


def quantize_durations(ticks: np.ndarray, ticks_per_quarter: int, steps_per_quarter: int, longest: int) -> np.ndarray:
    """Nearest number of steps, a tie going down, from 1 to `longest`."""
    return np.clip(quantize_onsets(ticks, ticks_per_quarter, steps_per_quarter), 1, longest)


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
        rows, _ = self.song_rows(song, where)
        tokens = self.token_file(rows, song, where, events)
        if out is not None:
            write_bytes(Path(out), json_bytes(tokens))
        return tokens

    def song_rows(self, song: Song, where: str) -> tuple[np.ndarray, dict[str, list[int]]]:
        """(N, F) note ids of a song, in order, and the tracks chosen for each part (see `assign_parts`)."""
        check_playable(song, where)
        parts, chosen = assign_parts(song, self.vocabulary)
        if not any(chosen.values()):
            raise UserError(f"{where}: no track fills any of {', '.join(self.vocabulary.part_names)}; "
                            f"name the tracks so, or set their programs")
        return self.parts_to_rows(parts, song.ticks_per_quarter, where), chosen

    def parts_to_rows(self, parts: list[np.ndarray], ticks_per_quarter: int, where: str) -> np.ndarray:
        """(N, F) note ids, in order, from the (N, 3) onsets, ends and pitches of each part.

        Raises UserError naming the first note that the vocabulary does not hold.
        """
        rows = [self._part_rows(p, notes, ticks_per_quarter, where) for p, notes in enumerate(parts)]
        return in_order(np.concatenate(rows))

    def _part_rows(self, p: int, notes: np.ndarray, ticks_per_quarter: int, where: str) -> np.ndarray:
        """(N, F) note ids of one part from its (N, 3) onsets, ends and pitches in ticks."""
        v, part = self.vocabulary, self.vocabulary.parts[p]
        onset, end, pitch = notes.T
        start = quantize_onsets(onset, ticks_per_quarter, v.steps_per_quarter)
        duration = quantize_durations(end - onset, ticks_per_quarter, v.steps_per_quarter, v.max_duration_steps)
        bar, start_pos = np.divmod(start, v.steps_per_bar)
        outside = np.flatnonzero((pitch < part.lowest_pitch) | (pitch > part.highest_pitch))
        if len(outside):
            i = outside[np.argmin(onset[outside])]
            raise UserError(f"{where}: bar {bar[i]}: {part.name} pitch {pitch[i]} is outside {part.lowest_pitch} to "
                            f"{part.highest_pitch}; move or delete the note, or run clean_midi.py first")
        if len(bar) and bar.max() >= v.bars:
            raise UserError(f"{where}: bar {bar[bar >= v.bars].min()} is past the last bar this vocabulary holds "
                            f"({v.bars - 1}); shorten the song, or give a vocabulary with more bars")
        return np.stack([bar + FIRST_ID, start_pos + FIRST_ID, duration - 1 + FIRST_ID,
                         pitch - part.lowest_pitch + v.first_pitch_ids[p]], axis=1)

    def token_file(self, rows: np.ndarray, song: Song, source: str, events: bool = True) -> dict[str, Any]:
        """What a token file holds: `ids`, `events` if wanted, and where they come from."""
        ids = self.rows_to_ids(rows)
        return {"ids": ids, **({"events": self._file_events(ids)} if events else {}),
                "format": TOKEN_FORMAT, "version": TOKEN_VERSION, "vocabulary": self.vocabulary.digest,
                "source": source, "ticks_per_quarter": song.ticks_per_quarter, "tempo": song.main_tempo()}

    def _file_events(self, ids: list) -> list:
        return ["<<BOS>>", *self.tokens_to_events(ids[1:-1]), "<<EOS>>"]

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
                            f"(sizes {list(self.vocabulary.sizes)}; special ids all or none)")
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
        array = np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)
        if not array.size:
            array = np.zeros((0, len(FIELDS)), np.int64)
    except ValueError:  # rows of different lengths
        array = np.zeros(0)
    if array.ndim != 2 or array.shape[1] != len(FIELDS) or not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"{where}: must be rows of {len(FIELDS)} whole numbers, one per family: {', '.join(FIELDS)}")
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
    data = read_json_object(path)
    if "ids" not in data:
        raise UserError(f"{path}: has no 'ids': not a token file; make one with tokenizer.py")
    if data.get("format", TOKEN_FORMAT) != TOKEN_FORMAT or data.get("version", TOKEN_VERSION) != TOKEN_VERSION:
        raise UserError(f"{path}: a {data.get('format')} file of version {data.get('version')}, not {TOKEN_FORMAT} "
                        f"version {TOKEN_VERSION}; make it again with tokenizer.py")
    return data


def token_ids(data: dict[str, Any], path: Path, tokenizer: MidiTokenizerPooled) -> tuple[np.ndarray, float]:
    """Every row of a parsed token file as it stands there, (N, F) int64 ids, special rows too; and the tempo."""
    tokenizer.vocabulary.check_digest(data.get("vocabulary"), str(path), "make it again with tokenizer.py")
    tempo = check_tempo(data.get("tempo", DEFAULT_TEMPO), str(path))
    return tokenizer.check_ids(data["ids"], str(path)), tempo


# ---------------------------------------------------------------- command


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path, nargs="+", metavar="MIDI", help="files and folders to tokenize")
    parser.add_argument("-td", "--tokens_dir", type=Path, default=Path("tokens"),
                        help="folder for the token files (default: %(default)s)")
    parser.add_argument("-p", "--pooled", action="store_true",
                        help="pooled tokens: the default and only kind, accepted for published command lines")
    parser.add_argument("--no-events", dest="events", action="store_false",
                        help="write ids alone: files a quarter as large")
    parser.add_argument("--vocab", type=Path, help="vocabulary JSON (default: configs/vocab.json)")
    parser.add_argument("--force", action="store_true", help="overwrite token files that exist")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    tokenizer = MidiTokenizerPooled(args.vocab)
    found = find_files(args.inputs, MIDI_SUFFIXES, args.tokens_dir)
    outputs = [args.tokens_dir / path for path in distinct_outputs((relative for _, relative in found), ".json")]
    check_new(outputs, args.force)
    check_writable(args.tokens_dir)
    with Report(args.tokens_dir, "tokenized") as report:
        for (path, _), out in zip(tqdm(found, unit="song", disable=None), outputs, strict=True):
            try:
                report.kept(path, **_tokenize_file(tokenizer, path, out, args.events))
            except UserError as err:
                report.dropped(path, err)
                out.unlink(missing_ok=True)  # of an earlier run, under --force
    return report.finish()


def _tokenize_file(tokenizer: MidiTokenizerPooled, path: Path, out: Path, events: bool) -> dict[str, Any]:
    """Tokenize one file; returns what the report says of it."""
    song = read_song(path)
    rows, chosen = tokenizer.song_rows(song, str(path))
    write_bytes(out, json_bytes(tokenizer.token_file(rows, song, str(path), events)))
    return {"output": str(out), "notes": len(rows), "bars": int(rows[-1, BAR]) - FIRST_ID + 1,
            "tempo": song.main_tempo(), "tempo_changes": max(len(song.tempos) - 1, 0),
            **describe_tracks(song, chosen)}


def describe_tracks(song: Song, chosen: dict[str, list[int]]) -> dict[str, Any]:
    """For a report: the tracks that play each part, the tracks left out, and what was odd about the file, if so."""
    def text(i: int) -> str:
        track = song.tracks[i]
        kind = "drums" if track.is_drum else f"program {track.program}"
        return f"{track.name or 'unnamed'} ({kind}, {len(track.notes)} notes)"

    used = {i for indices in chosen.values() for i in indices}
    return {"parts": {name: [text(i) for i in indices] for name, indices in chosen.items()},
            "left_out": [text(i) for i in range(len(song.tracks)) if i not in used and len(song.tracks[i].notes)],
            **({"notices": list(song.notices)} if song.notices else {})}


if __name__ == "__main__":
    sys.exit(main())

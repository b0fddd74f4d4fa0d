"""Songs that are dropped on the page: one song, or several stems that are joined into one.

They are read before anything is kept, so a file that is no MIDI leaves nothing behind. What a person
corrects, which track plays which part, is written into the kept copy, as songs of generate.py say it.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backline.common.errors import UserError
from backline.generation.config import Reading
from backline.generation.reading import OWN_TEXTS, Asked, cast, hear
from backline.listening.song_view import view_song
from backline.music.midi_chunks import MIDI_SUFFIXES
from backline.music.midi_edits import without_texts
from backline.music.midi_tracks import (
    TEXT,
    Event,
    MidiTracks,
    meta_message,
    read_tracks,
    song_of_tracks,
    tracks_to_bytes,
)
from backline.music.percussion import split_tracks
from backline.music.players import Voice, players_text
from backline.music.stems import find_part, merge, read_stem
from backline.music.vocab import Vocabulary

MOST_FILES = 16  # dropped at once
MOST_FILE_BYTES = 4 << 20
LONGEST_NAME = 200  # characters
UNHEARD = "none"  # instead of a part, of a track that is kept but not heard


class DroppedFile(NamedTuple):
    """A file. `part`: of a stem, as somebody said; "" where its name is to tell."""

    name: str
    data: bytes
    part: str = ""


class Dropped(NamedTuple):
    """Files that were dropped at once.

    players: of a single song, by the number of a track with notes, the part that it plays; empty
        where the song is to tell.
    """

    files: tuple[DroppedFile, ...]
    players: Mapping[int, str] = {}


class ReadGiven(NamedTuple):
    """A song to be kept.

    stems: the files that it was joined from, by name.
    tracks: what was read as what: name and part of each track with notes.
    """

    name: str
    data: bytes
    stems: dict[str, bytes]
    notices: list[str]
    tracks: list[dict[str, str]]


class UnclearStemsError(UserError):
    """A stem whose name tells no part, or several. `files`: name and part of each, "" if unclear."""

    def __init__(self, message: str, files: list[dict[str, str]]) -> None:
        super().__init__(message)
        self.files = files


# ---------------------------------------------------------------- from a request


def dropped_of(data: dict[str, Any]) -> Dropped:
    """The files in a request. Raises UserError: too many, too large, or not as the page sends them."""
    files = data.get("files")
    if not isinstance(files, list) or not files:
        raise UserError("files: must be a list of files with name and data")
    if len(files) > MOST_FILES:
        raise UserError(f"{len(files)} files at once; drop at most {MOST_FILES}, the stems of one song")
    players = data.get("players") or {}
    if not isinstance(players, dict) or not all(number.isdecimal() and isinstance(part, str)
                                                for number, part in players.items()):
        raise UserError("players: must say the part of each track")
    found = tuple(_file(one) for one in files)
    return Dropped(found, {int(number): part for number, part in players.items()})


def _file(data: Any) -> DroppedFile:
    fields = data if isinstance(data, dict) else {}
    name, text, part = fields.get("name"), fields.get("data"), fields.get("part", "")
    if not isinstance(name, str) or not isinstance(text, str) or not isinstance(part, str):
        raise UserError("files: each must have a name, and data as base64")
    shown = name[:LONGEST_NAME]
    if Path(shown).suffix.lower() not in MIDI_SUFFIXES:
        raise UserError(f"{shown}: is no MIDI file by its name; export it as .mid")
    if len(text) > 4 * MOST_FILE_BYTES // 3 + 4:
        raise UserError(f"{shown}: more than {MOST_FILE_BYTES >> 20} MB, too large for a song; "
                        "export it without sound")
    try:
        return DroppedFile(shown, base64.b64decode(text, validate=True), part)
    except binascii.Error:
        raise UserError(f"{shown}: its data are damaged; drop it again") from None


# ---------------------------------------------------------------- reading


def read_dropped(dropped: Dropped, vocabulary: Vocabulary) -> ReadGiven:
    """Read what was dropped. Raises UserError in the words of merge_midi.py and generate.py."""
    if len(dropped.files) == 1:
        file = dropped.files[0]
        return read_song(file.name, file.data, {}, [], dropped.players, vocabulary)
    stems = []
    parts = _parts_of(dropped.files, vocabulary)
    for file, part in zip(dropped.files, parts, strict=True):
        stems.append(read_stem(Path(file.name), part, file.data))
    name = " + ".join(Path(file.name).stem for file in dropped.files)
    merged = merge(stems, vocabulary, name)
    by_name = {file.name: file.data for file in dropped.files}
    data = tracks_to_bytes(merged.midi)
    return read_song(name, data, by_name, merged.notices, {}, vocabulary)


def _parts_of(files: tuple[DroppedFile, ...], vocabulary: Vocabulary) -> list[int]:
    """The index of each stem's part. Raises UnclearStemsError."""
    names = vocabulary.part_names
    found: list[int | None] = []
    message = ""
    for file in files:
        try:
            found.append(names.index(file.part) if file.part in names
                         else find_part(Path(file.name), vocabulary))
        except UserError as err:
            message = message or str(err)
            found.append(None)
    if message:
        unclear = [{"name": file.name, "part": "" if part is None else names[part]}
                   for file, part in zip(files, found, strict=True)]
        raise UnclearStemsError(message, unclear)
    return [part for part in found if part is not None]


def read_song(name: str,
              data: bytes,
              stems: dict[str, bytes],
              notices: list[str],
              players: Mapping[int, str],
              vocabulary: Vocabulary) -> ReadGiven:
    """Read a song as the model will hear it, with the parts that `players` says."""
    path = Path(name)
    midi = read_tracks(path, data)
    if (split := split_tracks(midi, vocabulary, name)) is not midi:
        midi = split
        data = tracks_to_bytes(midi)
    if players:
        midi = with_players(midi, path, players, vocabulary)
        data = tracks_to_bytes(midi)
    view_song(path, vocabulary, data)
    heard = hear(midi, path, Asked(Reading()), vocabulary)
    said = [*notices, *heard.notices]
    return ReadGiven(name, data, stems, said, tracks_of(midi, path, vocabulary))


def tracks_of(midi: MidiTracks, path: Path, vocabulary: Vocabulary) -> list[dict[str, str]]:
    """Name and part of each track with notes, in the file's order; "" for one that plays none."""
    song, _ = song_of_tracks(midi, str(path))
    casting = cast(song, vocabulary, Reading(), path.name)
    part_of_track = {i: name for name, indices in casting.tracks.items() for i in indices}
    return [{"name": track.name or f"track {i + 1}", "part": part_of_track.get(i, "")}
            for i, track in enumerate(song.tracks)]


def with_players(midi: MidiTracks,
                 path: Path,
                 players: Mapping[int, str],
                 vocabulary: Vocabulary) -> MidiTracks:
    """The song with a text event that says who plays what.

    Raises UserError about parts and tracks that there are not.
    """
    _, voices = song_of_tracks(midi, str(path))
    by_part: dict[str, list[Voice]] = {name: [] for name in vocabulary.part_names}
    for number, part in players.items():
        if part == UNHEARD:
            continue
        if part not in by_part or not 0 <= number < len(voices):
            raise UserError(f"track {number + 1} as {part:.40}: there are {len(voices)} tracks, and "
                            f"the parts {', '.join(by_part)}")
        by_part[part].append(voices[number])
    midi = without_texts(midi, OWN_TEXTS)
    text = Event(0, meta_message(TEXT, players_text(by_part, len(midi.tracks))))
    first, *others = midi.tracks
    return dataclasses.replace(midi, tracks=((text, *first), *others))

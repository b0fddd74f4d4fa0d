"""The studio's folder: it is the whole state, so that closing anything loses nothing.

FOLDER/0.mid, 0-drums.mid …  ideas, as generate.py writes them, with their recipes; edited ones hold
                             what was done to which songs (`edits.py`) in the recipe's place
FOLDER/given/                songs that were dropped on the page; stems of a joined one lie in a
                             folder of its name
FOLDER/bin/                  deleted ideas, under numbers of their own
FOLDER/studio.json           names, notes, stars and what was said, by the SHA-256 of the song

Where an idea came from is not kept twice: each song says which song it was made from, by hash.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from backline.common.errors import UserError
from backline.common.files import (
    file_hash,
    json_bytes,
    make_folder,
    read_json_object,
    size_and_mtime,
    write_bytes,
    write_new_file,
)
from backline.generation.claims import endings_of, write_new
from backline.generation.recipes import EDIT_BEGINNING
from backline.listening.ideas_page import idea_data, numbered_songs
from backline.music.midi_chunks import MIDI_SUFFIXES
from backline.music.midi_tracks import read_tracks, text_of
from backline.music.vocab import Vocabulary

SIDECAR = "studio.json"
SIDECAR_FORMAT = "backline-studio"
SIDECAR_VERSION = 1
GIVEN, BIN = "given", "bin"
HASH_DIGITS = 12  # of an idea's id
LONGEST_TEXT = {"name": 80, "note": 500}  # characters
UNSAFE = re.compile(r"[^\w \-.()+#&]+")  # in the name of a dropped file
LONGEST_FILE_NAME = 60


class IdeaGoneError(UserError):
    """An id that names no idea: it was deleted, or its file changed."""


class Idea(NamedTuple):
    """A song of the folder.

    id: what requests call it: its number, or "given", and the beginning of its hash.
    number: of its files; None for a given song.
    data: what the page shows, as `ideas_page.idea_data` has it.
    parents: hashes of the songs that it was made from.
    """

    id: str
    path: Path
    hash: str
    number: int | None
    data: dict[str, Any]
    parents: tuple[str, ...]

    @property
    def title(self) -> str:
        """How people call it, unless they gave it a name."""
        return str(self.data["title"])


class StudioFolder:
    """Ideas, given songs, the bin, and what people wrote on them.

    `unreadable` says why numbered songs are not shown, by file name.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary) -> None:
        """Raises UserError if the folder cannot be used, or holds a damaged `studio.json`."""
        self.folder = folder
        self.vocabulary = vocabulary
        make_folder(folder)
        self.given = folder / GIVEN
        self.bin = folder / BIN
        self.kept = read_sidecar(folder / SIDECAR)
        self.unreadable: dict[str, str] = {}
        self._read: dict[Path, tuple[tuple[int, int], Idea]] = {}  # size and time, to know changes by

    # ---------------------------------------------------------- ideas

    def ideas(self) -> list[Idea]:
        """All that can be shown: given songs by name, then numbered ones by number."""
        given = self._given_songs()
        numbered = numbered_songs(self.folder)
        found = []
        self.unreadable = {}
        for path in [*given, *numbered]:
            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                try:
                    found.append(self._idea(path))
                except UserError as err:
                    self.unreadable[path.name] = str(err)
        self._read = {idea.path: self._read[idea.path] for idea in found}
        return found

    def idea(self, id_: str) -> Idea:
        """The idea that a request names. Raises IdeaGoneError."""
        for idea in self.ideas():
            if idea.id == id_:
                return idea
        raise IdeaGoneError("this idea is no longer in the folder, or its file has changed; "
                         "choose another one")

    def by_hash(self, hash_: str) -> Idea | None:
        """The idea whose song has this hash."""
        return next((idea for idea in self.ideas() if idea.hash == hash_), None)

    def _given_songs(self) -> list[Path]:
        if not self.given.is_dir():
            return []
        return sorted(path
                      for path in self.given.iterdir()
                      if path.suffix.lower() in MIDI_SUFFIXES and path.is_file())

    def _idea(self, path: Path) -> Idea:
        stamp = size_and_mtime(path)
        known = self._read.get(path)
        if known and known[0] == stamp:
            return known[1]
        is_given = path.parent == self.given
        data = idea_data(path, self.vocabulary)
        hash_ = data["hash"]
        number = None if is_given else int(path.stem)
        prefix = GIVEN if is_given else str(number)
        edit = None
        if data["recipe"]:
            from_hash = data["recipe"]["prompt_hash"]
            parents = (from_hash,) if from_hash else ()
        else:
            edit = read_edit(path)
            parents = tuple(edit["parents"]) if edit else ()
        if edit:
            data["asked"] = edit["said"]
        idea = Idea(f"{prefix}-{hash_[:HASH_DIGITS]}", path, hash_, number, data, parents)
        self._read[path] = stamp, idea
        return idea

    # ---------------------------------------------------------- what people wrote

    def keep(self, hash_: str, change: dict[str, Any]) -> dict[str, Any]:
        """Write a name, a note or a star on a song; returns what was there before.

        Raises UserError about anything else.
        """
        for name, value in change.items():
            if name == "star" and isinstance(value, bool):
                continue
            if name not in LONGEST_TEXT or not isinstance(value, str):
                raise UserError(f"{name:.40}: must be a name, a note or a star")
            if len(value) > LONGEST_TEXT[name]:
                raise UserError(f"{name}: at most {LONGEST_TEXT[name]} characters; shorten it")
        own = self._change(hash_, change)
        return {name: own.get(name, False if name == "star" else "") for name in change}

    def remember(self, hash_: str, said: list[str]) -> None:
        """Write on a song what is to be said about how it was made, a line each."""
        self._change(hash_, {"said": said})

    def _change(self, hash_: str, change: dict[str, Any]) -> dict[str, Any]:
        """Write something on a song; returns all that was written on it before.

        The file is read first: another studio may have written to it.
        """
        path = self.folder / SIDECAR
        kept = read_sidecar(path)
        own = kept.get(hash_, {})
        kept[hash_] = own | change
        write_bytes(path, sidecar_bytes(kept))
        self.kept = kept
        return own

    def name_of(self, idea: Idea) -> str:
        """The name that somebody gave it, else its title."""
        return self.kept.get(idea.hash, {}).get("name") or idea.title

    # ---------------------------------------------------------- the bin

    def binned(self) -> list[Path]:
        """The songs in the bin, by number."""
        return list(numbered_songs(self.bin)) if self.bin.is_dir() else []

    def binned_hashes(self) -> list[str]:
        """The hashes of the songs in the bin, by number."""
        return [file_hash(path) for path in self.binned()]

    def throw_away(self, idea: Idea) -> None:
        """Move an idea with all its files to the bin. A kill leaves it in one place or in both."""
        if idea.number is None:
            if not self.kept.get(idea.hash, {}).get("name"):
                self.keep(idea.hash, {"name": idea.title})  # as its file has a number from now on
            write_new(self.bin, {".mid": idea.path.read_bytes()})
            idea.path.unlink()
            return
        self._move(self.folder, idea.number, self.bin)

    def take_back(self, hash_: str) -> Path:
        """Move an idea from the bin to the folder; its path. Raises IdeaGoneError."""
        for path in self.binned():
            if file_hash(path) == hash_:
                number = self._move(self.bin, int(path.stem), self.folder)
                return self.folder / f"{number}.mid"
        raise IdeaGoneError("this idea is not in the bin any more; it may be back already")

    def _move(self, folder: Path, number: int, to: Path) -> int:
        """Move the files of a numbered song to the next free number elsewhere; returns that.

        They are copied first, and the whole song goes before its stems. Files of other names stay,
        whatever their number.
        """
        places = {ending: folder / f"{number}{ending}"
                  for ending in endings_of(self.vocabulary.part_names)}
        files = {ending: path.read_bytes() for ending, path in places.items() if path.is_file()}
        new_number = write_new(to, files)
        for ending in reversed(files):
            places[ending].unlink(missing_ok=True)
        return new_number

    # ---------------------------------------------------------- given songs

    def add_given(self, name: str, data: bytes, stems: dict[str, bytes] | None = None) -> Path:
        """Keep a dropped song, and the stems that it was joined from; its path.

        One that is there with the same bytes is not kept twice; no file is replaced.
        """
        stem = safe_name(name)
        for path in _free_names(self.given, stem, ".mid"):
            if path.is_file() and path.read_bytes() == data:
                return path
            if write_new_file(path, data):
                break
        for stem_name, stem_data in (stems or {}).items():
            folder = path.with_suffix("")
            for place in _free_names(folder, safe_name(stem_name), ".mid"):
                if write_new_file(place, stem_data):
                    break
        return path


# ---------------------------------------------------------------- files


def safe_name(name: str) -> str:
    """The stem of a file name from the browser, as a name that any system takes and no path."""
    last = re.split(r"[/\\]", name)[-1]
    stem = re.sub(r"\.midi?$", "", last, flags=re.IGNORECASE)
    plain = UNSAFE.sub(" ", stem).strip(" .")[:LONGEST_FILE_NAME].strip(" .")
    return plain or "song"


def _free_names(folder: Path, stem: str, suffix: str) -> Iterator[Path]:
    """ "loop.mid", "loop 2.mid" and so on."""
    yield folder / f"{stem}{suffix}"
    number = 2
    while True:
        yield folder / f"{stem} {number}{suffix}"
        number += 1


def read_edit(path: Path) -> dict[str, Any] | None:
    """What was done to which songs, of a song that the studio edited; None of any other."""
    for events in read_tracks(path).tracks:
        for event in events:
            text = text_of(event)
            if text.startswith(EDIT_BEGINNING):
                return _checked_edit(text)
    return None


def _checked_edit(text: bytes) -> dict[str, Any] | None:
    try:
        edit = json.loads(text)
    except (ValueError, RecursionError):
        return None
    parents = edit.get("parents")
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        return None
    return edit if isinstance(edit.get("said"), str) else None


# ---------------------------------------------------------------- the sidecar


def sidecar_bytes(kept: dict[str, dict[str, Any]]) -> bytes:
    """What people wrote, by the hash of the song, as `read_sidecar` reads it."""
    return json_bytes({"format": SIDECAR_FORMAT, "version": SIDECAR_VERSION, "ideas": kept}) + b"\n"


def read_sidecar(path: Path) -> dict[str, dict[str, Any]]:
    """What people wrote, by the hash of the song; nothing where there is no file.

    Raises UserError about a damaged file.
    """
    if not path.exists():
        return {}
    data = read_json_object(path)
    ideas = data.get("ideas")
    if data.get("format") != SIDECAR_FORMAT or data.get("version") != SIDECAR_VERSION \
            or not isinstance(ideas, dict) or not all(isinstance(own, dict) for own in ideas.values()):
        raise UserError(f"{path}: is no file of names and notes of this version; move it away, and "
                        "the studio makes a new one")
    return ideas

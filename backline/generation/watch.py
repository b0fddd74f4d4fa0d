"""Watch a folder for songs that are dropped into it, for `generate.py --watch`.

The folder is polled, which works on every system and network drive, where change events do not. A
file is taken once two looks in a row find the same size and time of change: until then it may still
be written. So may a file with fewer tracks than its header promises: it gets PATIENCE seconds to
grow.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from backline.common.errors import UserError
from backline.common.files import file_hash, read_input, size_and_mtime
from backline.generation.claims import song_of
from backline.generation.recipes import read_recipe
from backline.music.midi_chunks import LARGEST_FILE, MIDI_SUFFIXES, open_chunks, tracks_held

SECONDS_BETWEEN_LOOKS = 0.5
PATIENCE = 10.0  # seconds that a file may stay as it is, and lack tracks

Stamp = tuple[int, int]  # bytes, and time of change in nanoseconds
Play = Callable[[Path, Path], object]  # makes the songs for a file in a folder


class Watcher:
    """A folder, and which of its files songs were made for.

    Songs for FOLDER/name.mid go to OUTPUT/name. Files in folders inside FOLDER are left alone, and
    so are hidden ones, such as those that macOS puts beside files on foreign disks.
    """

    def __init__(self,
                 folder: Path,
                 output: Path,
                 play: Play,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.folder = folder
        self.output = output
        self.play = play
        self.seen: dict[Path, Stamp] = {}  # at the last look
        self.done: dict[Path, Stamp] = {}  # when last played, or found to be bad
        self.waits: dict[Path, tuple[Stamp, float]] = {}  # since when for which tracks

    def pass_over_done(self) -> int:
        """Count files as done that have songs, made of the same bytes; returns how many."""
        for path, stamp in stamps(self.folder).items():
            if was_prompt(path, self.output_of(path)):
                self.done[path] = stamp
        return len(self.done)

    def look(self) -> None:
        """Look once: play every file that has changed since it was last played and is now stable."""
        found = stamps(self.folder)
        self.done = {path: stamp
                     for path, stamp in self.done.items()
                     if path in found}
        self.waits = {path: wait
                      for path, wait in self.waits.items()
                      if path in found}
        for path, stamp in found.items():
            is_new = self.seen.get(path) == stamp != self.done.get(path)
            if is_new and not self.waits_for_tracks(path, stamp):
                self.done[path] = stamp  # a bad file is not tried again before it changes, either
                self.try_to_play(path)
        self.seen = found

    def waits_for_tracks(self, path: Path, stamp: Stamp) -> bool:
        """Whether a file lacks tracks, and has not lacked them for long."""
        try:
            held, promised = tracks_held(read_input(path, LARGEST_FILE))
        except (UserError, OSError):  # gone, or no song: said when it is played
            return False
        now = self.clock()
        last_stamp, since = self.waits.get(path, (stamp, now))
        if last_stamp != stamp:
            since = now
        self.waits[path] = stamp, since
        return held < promised and now - since < PATIENCE

    def try_to_play(self, path: Path) -> None:
        """Play a file; an error is one line, and the watch goes on."""
        try:
            output = self.output_of(path)
            if output.resolve() == self.folder.resolve():
                raise UserError(f"{path}: its songs would go into the watched folder, "
                                "and be played to in turn; give another -o")
            check_tracks(path)
            self.play(path, output)
        except UserError as err:
            text = str(err)
            named = text if str(path) in text else f"{path}: {text}"
            print(f"error: {named}", file=sys.stderr, flush=True)
        except OSError as err:  # it was taken away again, or the disk is full
            what = err.strerror or err
            print(f"error: {path}: {what}", file=sys.stderr, flush=True)
        sys.stdout.flush()  # whoever reads along through a pipe sees it now

    def output_of(self, path: Path) -> Path:
        """The folder for the songs of a file."""
        return self.output / path.stem


def stamps(folder: Path) -> dict[Path, Stamp]:
    """Size and time of change of each MIDI file in `folder`, sorted by name.

    Raises UserError if the folder is gone.
    """
    check_folder(folder)
    found = {}
    for path in sorted(folder.iterdir()):
        is_midi = path.suffix.lower() in MIDI_SUFFIXES and not path.name.startswith(".")
        if is_midi and path.is_file():
            try:
                found[path] = size_and_mtime(path)
            except UserError:  # gone since it was listed
                continue
    return found


def check_tracks(path: Path) -> None:
    """Raise UserError if a file lacks tracks that its header promises."""
    data = read_input(path, LARGEST_FILE)
    held, promised = tracks_held(data)
    if held < promised:
        open_chunks(path, data)  # raises what is cut off, if anything is
        raise UserError(f"{path}: holds {held} of the {promised} tracks that its header promises; "
                        "save it again, or give it with -p")


def was_prompt(path: Path, folder: Path) -> bool:
    """Whether `folder` has a song that was made for the file `path`, byte for byte as it is now."""
    for song in folder.glob("*.mid"):
        if not song_of(song).exists():  # a stem, whose run was killed before the song was there
            continue
        try:
            if read_recipe(song).prompt_hash == file_hash(path):
                return True
        except (UserError, OSError):  # not a song of ours, or gone
            continue
    return False


def check_folder(folder: Path) -> None:
    """Raise UserError if there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder to watch; make it, and drop .mid files into it")


def folder_beside(folder: Path, ending: str) -> Path:
    """The folder next to `folder` that is named like it, with `ending` added."""
    named = folder.resolve() if folder.name in ("", "..") else folder
    return named.parent / f"{named.name}{ending}"


def watch(watcher: Watcher,
          again: bool,
          sleep: Callable[[float], None] = time.sleep) -> int:
    """Look until Ctrl-C, the normal end: returns 0. `again`: also play files that have songs."""
    n_done = 0 if again else watcher.pass_over_done()
    before = f", but for {n_done} that have theirs" if n_done else ""
    print(f"watching {watcher.folder}: songs for each .mid in it go to {watcher.output}{before}; "
          "Ctrl-C ends", flush=True)
    try:
        while True:
            watcher.look()
            sleep(SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        print(f"no longer watching {watcher.folder}")
    return 0

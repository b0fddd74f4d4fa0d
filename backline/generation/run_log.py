"""genconfigs.txt: what each run made, and with which settings."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backline.common.settings import config_to_dict

if TYPE_CHECKING:
    from backline.generation.session import GeneratedSong, Session

LOG_NAME = "genconfigs.txt"
RECORD = "\n{\n"  # how each record of ours begins; published ones are lines of text


@dataclasses.dataclass
class RunLog:
    """The songs of one run, and what they were made from.

    seed: of the first song.
    device: as asked for, such as "auto".
    songs: an entry for each song written so far.
    """

    session: Session
    seed: int
    device: str
    songs: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def add(self, song: GeneratedSong, number: int) -> None:
        """Take note of a song that was written."""
        self.songs.append({
            "file": f"{number}.mid",
            "seed": song.seed,
            "score": song.score or None,
            "copied": song.copied or None,
        })

    def first_stems(self) -> list[str]:
        """Names of the first song's stems."""
        first = Path(self.songs[0]["file"]).stem
        return [f"{first}-{name}.mid" for name in self.session.loaded.vocabulary.part_names]

    def write(self, folder: Path) -> None:
        """Append the run to the log of a folder."""
        session = self.session
        prompt = session.prompt
        log_run(folder, {
            "genconfig": config_to_dict(session.config),
            "wish": config_to_dict(session.wish),
            "model": str(session.loaded.path),
            "prompt": prompt.path or None,
            "prompt_idx": prompt.n_rows,
            "prompt_notes": len(prompt.rows),
            "tempo": prompt.tempo,
            "seed": self.seed,
            "device": self.device,
            "dtype": session.loaded.dtype,
            "songs": self.songs,
        })


def log_run(folder: Path, record: dict[str, Any]) -> None:
    """Append a record to the log of a folder."""
    line = "=" * 80
    stamp = datetime.datetime.now().isoformat(sep=" ", timespec="seconds")
    text = json.dumps(record, indent=2)
    entry = f"{line}\n{stamp}\n{line}\n{text}\n\n"
    # In one write, so that entries of several runs do not mix.
    with open(folder / LOG_NAME, "ab", buffering=0) as file:
        file.write(entry.encode())


def said_of(path: Path, seed: int) -> list[str]:
    """What the run that made a song said of it: its score, what it shares with training songs.

    Nothing if the log is gone, or the last song of this name was made with another seed.
    """
    log = path.parent / LOG_NAME
    try:
        stat = log.stat()
    except OSError:
        return []
    song = _logged(log, stat.st_mtime_ns, stat.st_size).get(path.name, {})
    if song.get("seed") != seed:
        return []
    return [text for text in (song.get("score"), song.get("copied")) if isinstance(text, str)]


@functools.lru_cache(maxsize=4)
def _logged(log: Path, _mtime: int, _size: int) -> dict[str, dict[str, Any]]:
    """The last entry of each song in a log, by file name; what cannot be read is skipped."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    decoder = json.JSONDecoder()
    found: dict[str, dict[str, Any]] = {}
    place = text.find(RECORD)
    while place >= 0:
        end = place + len(RECORD)
        try:
            record, end = decoder.raw_decode(text, place + 1)
        except (ValueError, RecursionError):
            record = {}
        songs = record.get("songs") if isinstance(record, dict) else None
        for song in songs if isinstance(songs, list) else []:
            if isinstance(song, dict):
                found[str(song.get("file"))] = song
        place = text.find(RECORD, end)
    return found

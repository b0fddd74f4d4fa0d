"""genconfigs.txt: what each run made, and with which settings."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any

from backline.common.settings import config_to_dict
from backline.generation.session import GeneratedSong, Session

LOG_NAME = "genconfigs.txt"


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

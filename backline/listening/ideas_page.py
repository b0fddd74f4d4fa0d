"""The page of a folder of songs: what it holds of each song, and how it is put together.

A page is one HTML file that needs no network: data as JSON, style and script from `web/`. Blind
pages and the player of notebooks are made of the same pieces.
"""

from __future__ import annotations

import contextlib
import html
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backline.common.errors import UserError
from backline.common.files import file_hash, json_bytes, read_input, write_bytes
from backline.common.paths import WEB
from backline.generation.recipes import STARS_FORMAT, STARS_VERSION, recipe_to_dict
from backline.generation.run_log import said_of
from backline.listening.harmony import heard_harmony
from backline.listening.recipe_words import asked_for, recipe_rows, recipe_summary
from backline.listening.song_view import Lane, SongView, view_song
from backline.music.midi_writer import VELOCITY
from backline.music.vocab import QUARTERS_PER_BAR, Vocabulary

PAGE_NAME = "index.html"
PAGE_MARK = "pooled ideas page"  # by which our own page is known, and may be replaced
PAGE_TRIES = 5  # to write a page of all songs, while other runs write more
SHARED_SCRIPTS = ("elements.js", "sound.js", "player.js", "midi_port.js", "roll.js", "cards.js", "dock.js", "page.js")
SCRIPTS = (*SHARED_SCRIPTS, "blind.js", "start.js")
OTHERS = "other"  # all tracks that play no part, which one mutes together


# ---------------------------------------------------------------- the page


def page_bytes(data: dict[str, Any]) -> bytes:
    """The page, all in one file, with `data` for its script."""
    # JSON may write "<" like this, so that no text, such as a file's name, ends the script.
    data_text = json_bytes(data).decode().replace("<", r"\u003c")
    values = {
        "data": data_text,
        "mark": html.escape(PAGE_MARK),
        "style": _web_file("page.css").strip(),
        "script": "\n".join(_web_file(name).strip() for name in SCRIPTS),
    }
    page = re.sub(r"{{(\w+)}}", lambda match: values[match[1]], _web_file("page.html"))
    return page.encode("utf-8")


def _web_file(name: str) -> str:
    return (WEB / name).read_text(encoding="utf-8")


def common_data(title: str, summary: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """What the script needs besides the ideas. Times of ideas are in their own ticks."""
    parts = [{"name": part.name,
              "drum": part.is_drum,
              "program": part.program}
             for part in vocabulary.parts]
    return {
        "title": title,
        "summary": summary,
        "parts": parts,
        "beats_per_bar": QUARTERS_PER_BAR,
        "stars": {"format": STARS_FORMAT, "version": STARS_VERSION},
    }


def check_page(path: Path) -> None:
    """Raise UserError if something other than a page of ours stands where the page is to be."""
    if path.exists() and PAGE_MARK.encode() not in read_input(path)[:1000]:
        raise UserError(f"{path}: not a page of this program, which would replace it; move it away, "
                        f"or give another folder")


def write_page(folder: Path, vocabulary: Vocabulary) -> Path:
    """Write the page of a folder of numbered songs; returns its path.

    Songs that cannot be read are left out, with a notice.

    Raises UserError if no song is left, or if something else stands there.
    """
    path = folder / PAGE_NAME
    check_page(path)
    for _ in range(PAGE_TRIES):
        songs = numbered_songs(folder)
        ideas = _readable(list(songs), vocabulary)
        if ideas:
            plural = "s" if len(ideas) > 1 else ""
            summary = f"{len(ideas)} idea{plural}"
            data = common_data(folder.resolve().name, summary, vocabulary)
            if any(idea["others"] for idea in ideas):
                data["parts"].append({"name": OTHERS, "other": True})
            write_bytes(path, page_bytes(data | {"ideas": ideas}))
        if numbered_songs(folder) == songs:
            break
        # Another run wrote a song meanwhile, and maybe a page with it, which this one replaced.
    if not ideas:
        raise UserError(f"{folder}: no numbered songs in it that can be shown (0.mid, 1.mid, …); "
                        f"make some with generate.py -o {folder}")
    return path


def numbered_songs(folder: Path) -> dict[Path, int]:
    """The songs of a folder by number, and when they were last changed, in nanoseconds."""
    found = {}
    for path in folder.iterdir():
        if re.fullmatch(r"\d+\.mid", path.name):
            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                found[path] = path.stat().st_mtime_ns
    in_order = sorted(found, key=lambda path: (int(path.stem), path.name))
    return {path: found[path] for path in in_order}


def _readable(paths: Sequence[Path], vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The ideas of all songs that can be read; a notice names each of the others."""
    ideas = []
    for path in paths:
        try:
            ideas.append(idea_data(path, vocabulary))
        except UserError as err:
            print(f"notice: not on the page: {err}", file=sys.stderr)
        except FileNotFoundError:  # gone since it was listed
            pass
    return ideas


# ---------------------------------------------------------------- an idea


def idea_data(path: Path, vocabulary: Vocabulary) -> dict[str, Any]:
    """What the page shows of a song. Raises UserError as `song_view.view_song` does."""
    view, recipe = view_song(path, vocabulary)
    return {
        **music_data(view, len(vocabulary.parts)),
        **heard_harmony(view, vocabulary)._asdict(),
        "title": f"Idea {int(path.stem) + 1}" if path.stem.isdecimal() else path.stem,
        "file": path.name,
        "hash": file_hash(path),
        "files": files_of(path, vocabulary),
        "asked": asked_for(recipe) if recipe else "",
        "recipe": recipe_to_dict(recipe) if recipe else None,
        "recipe_summary": recipe_summary(recipe) if recipe else "",
        "recipe_rows": recipe_rows(recipe) if recipe else [],
        "said": said_of(path, recipe.seed) if recipe else [],
    }


def music_data(view: SongView, n_parts: int) -> dict[str, Any]:
    """What is played and drawn of a song whose first `n_parts` lanes are parts. Times are in ticks.

    A note is [onset, end, pitch, whether it is old, velocity, end with pedal]. The last two are left
    out where they say nothing: a velocity of 100, no pedal that holds the note.
    """
    others = [{"name": lane.name,
               "drum": lane.is_drum,
               "program": lane.program}
              for lane in view.lanes[n_parts:]]
    return {
        "ticks_per_quarter": view.ticks_per_quarter,
        "tempo": view.tempo,
        "tempos": view.tempos,
        "notes": [_note_rows(lane) for lane in view.lanes],
        "others": others,
        "bars": view.n_bars,
        "fresh": view.fresh,
    }


def _note_rows(lane: Lane) -> list[list[int]]:
    """The notes of a lane, as `music_data` has them."""
    rows = np.column_stack([lane.notes, lane.is_old, lane.velocities, lane.fades])  # (N, 6)
    is_held = lane.fades > lane.notes[:, 1]
    n_said = np.where(is_held, 6, np.where(lane.velocities == VELOCITY, 4, 5))
    return [row[:n] for row, n in zip(rows.tolist(), n_said.tolist(), strict=True)]


def files_of(path: Path, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The song's files that are there: the whole, a stem for each part, the prompt, the sound."""
    files: list[tuple[str, str, int | None]] = [("all parts", path.name, None)]
    for p, name in enumerate(vocabulary.part_names):
        files.append((name, f"{path.stem}-{name}.mid", p))
    files.append(("prompt", f"{path.stem}-prompt.mid", None))
    files.append(("sound", f"{path.stem}.wav", None))
    return [{"label": label, "file": file, "part": part}
            for label, file, part in files
            if (path.parent / file).is_file()]

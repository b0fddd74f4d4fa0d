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
from backline.generation.config import RuleConfig
from backline.generation.prompt import read_rows_alone
from backline.generation.recipes import (
    BEGINNING,
    STARS_FORMAT,
    STARS_VERSION,
    Recipe,
    read_recipe,
    recipe_to_dict,
)
from backline.generation.task import Wish
from backline.music.bars import check_meters
from backline.music.midi_reader import read_song
from backline.music.parts import Assignment, assign_parts
from backline.music.song import Song
from backline.music.vocab import FIELDS, QUARTERS_PER_BAR, Vocabulary
from tokenizer import MidiTokenizerPooled

PAGE_NAME = "index.html"
PAGE_MARK = "pooled ideas page"  # by which our own page is known, and may be replaced
PAGE_TRIES = 5  # to write a page of all songs, while other runs write more
SCRIPTS = ("elements.js", "sound.js", "player.js", "roll.js", "cards.js", "dock.js", "blind.js",
           "page.js")
PartNotes = list[np.ndarray]  # for each part (N, 3): onset and end in ticks, pitch


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
        songs = _numbered_songs(folder)
        ideas = _readable(list(songs), vocabulary)
        if ideas:
            plural = "s" if len(ideas) > 1 else ""
            summary = f"{len(ideas)} idea{plural}"
            data = common_data(folder.resolve().name, summary, vocabulary)
            write_bytes(path, page_bytes(data | {"ideas": ideas}))
        if _numbered_songs(folder) == songs:
            break
        # Another run wrote a song meanwhile, and maybe a page with it, which this one replaced.
    if not ideas:
        raise UserError(f"{folder}: no numbered songs in it that can be shown (0.mid, 1.mid, …); "
                        f"make some with generate.py -o {folder}")
    return path


def _numbered_songs(folder: Path) -> dict[Path, int]:
    """The songs of a folder by number, and when they were last changed, in nanoseconds."""
    found = {}
    for path in folder.iterdir():
        if re.fullmatch(r"\d+\.mid", path.name):
            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                found[path] = path.stat().st_mtime_ns
    in_order = sorted(found, key=lambda path: (int(path.stem), path.name))
    return {path: found[path] for path in in_order}


def _readable(paths: Sequence[Path], vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The ideas of all songs that can be read.

    A notice names each of the others, and one more the tracks that no part plays.
    """
    ideas = []
    unplayed: dict[str, None] = {}  # names of tracks, in the order in which they are met
    for path in paths:
        try:
            song, parts = read_parts(path, vocabulary)
            ideas.append(idea_data(path, song, parts.notes, vocabulary))
        except UserError as err:
            print(f"notice: not on the page: {err}", file=sys.stderr)
            continue
        except FileNotFoundError:  # gone since it was listed
            continue
        unplayed |= dict.fromkeys(song.tracks[i].name for i in parts.left_out(song))
    if unplayed:
        names = ", ".join(f"{name!r:.40}" for name in unplayed)
        print(f"notice: tracks {names} are not on the page: no part of this vocabulary plays them; "
              f"page.py {paths[0].parent} --vocab shows them with the vocabulary of their model",
              file=sys.stderr)
    return ideas


# ---------------------------------------------------------------- an idea


def idea_data(path: Path,
              song: Song,
              notes: PartNotes,
              vocabulary: Vocabulary) -> dict[str, Any]:
    """What the page shows of a song. Raises UserError if its recipe cannot be read."""
    has_recipe = BEGINNING.encode() in read_input(path)
    recipe = read_recipe(path) if has_recipe else None
    wish = recipe.wish if recipe else Wish()
    before = kept_notes(path, recipe, vocabulary) if recipe and recipe.prompt else None
    old = old_notes(notes, song.ticks_per_quarter, wish, before, vocabulary)
    return {
        **music_data(song, notes, old),
        "title": f"Idea {int(path.stem)}",
        "file": path.name,
        "hash": file_hash(path),
        "files": files_of(path, vocabulary),
        "fresh": fresh_ticks(song, notes, old, wish),
        "asked": asked_for(recipe) if recipe else "",
        "recipe": recipe_to_dict(recipe) if recipe else None,
        "recipe_summary": recipe_summary(recipe) if recipe else "",
        "recipe_rows": recipe_rows(recipe, path) if recipe else [],
    }


def read_parts(path: Path, vocabulary: Vocabulary) -> tuple[Song, Assignment]:
    """A song, and which tracks play each part. Raises UserError if it is unreadable, or not in 4/4."""
    song = read_song(path)
    check_meters(song, str(path))
    return song, assign_parts(song, vocabulary)


def music_data(song: Song,
               notes: PartNotes,
               old: Sequence[np.ndarray]) -> dict[str, Any]:
    """Notes of each part as [onset, end, pitch, whether it is old], and bars up to the last onset.

    Times are in ticks.
    """
    rows = []
    for part, is_old in zip(notes, old, strict=True):
        rows.append(np.column_stack([part, is_old]).tolist())  # (N, 4)
    return {
        "ticks_per_quarter": song.ticks_per_quarter,
        "tempo": song.main_tempo(),
        "notes": rows,
        "bars": n_bars(song, notes),
    }


def n_bars(song: Song, notes: PartNotes) -> int:
    """The number of bars up to that of the last onset, at least 1."""
    last_onsets = [int(part[:, 0].max()) for part in notes if len(part)]
    bar = QUARTERS_PER_BAR * song.ticks_per_quarter
    return max(last_onsets, default=0) // bar + 1


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


# ---------------------------------------------------------------- old and new


def kept_notes(path: Path,
               recipe: Recipe,
               vocabulary: Vocabulary) -> PartNotes | None:
    """The notes of the prompt that a song continues, in steps of the grid; None if it is gone.

    The prompt is looked for beside the song, where -sp saves it, then where the recipe says.
    """
    source = path.with_name(f"{path.stem}-prompt.mid")
    n_rows = 0
    if not source.is_file():
        source = Path(recipe.prompt)
        n_rows = recipe.prompt_rows
        if not source.is_file() or file_hash(source) != recipe.prompt_hash:
            return None
    tokenizer = MidiTokenizerPooled(vocabulary)
    try:
        prompt = read_rows_alone(source, n_rows, tokenizer)
    except UserError:
        return None
    return tokenizer.rows_to_parts(prompt.rows, vocabulary.steps_per_quarter)


def old_notes(notes: PartNotes,
              ticks_per_quarter: int,
              wish: Wish,
              before: PartNotes | None,
              vocabulary: Vocabulary) -> list[np.ndarray]:
    """For each part, which of its (N, 3) notes were there before the song was made, (N,) bool.

    Args:
        before: notes of the prompt in steps of the grid. Only a song that goes on needs them; of
            given parts and of bars made anew, the wish says enough.
    """
    names = vocabulary.part_names
    if wish.given:
        return [np.full(len(part), name in wish.given)
                for part, name in zip(notes, names, strict=True)]
    if wish.fill:
        return _outside(notes, ticks_per_quarter, wish, names)
    if before is None:
        return [np.zeros(len(part), bool) for part in notes]
    old = []
    for part, kept in zip(notes, before, strict=True):
        # Onsets in a unit that both share: ticks times steps.
        there = {(onset * ticks_per_quarter, pitch)
                 for onset, _, pitch in kept.tolist()}
        steps = vocabulary.steps_per_quarter
        is_old = [(onset * steps, pitch) in there
                  for onset, _, pitch in part.tolist()]
        old.append(np.array(is_old, bool))
    return old


def _outside(notes: PartNotes,
             ticks_per_quarter: int,
             wish: Wish,
             names: Sequence[str],
             ) -> list[np.ndarray]:
    """Which notes lie outside the bars that `wish.fill` has made anew, or in parts it leaves."""
    assert wish.fill
    first, last = wish.fill
    outside = []
    for part, name in zip(notes, names, strict=True):
        bar = part[:, 0] // (QUARTERS_PER_BAR * ticks_per_quarter) + 1
        is_left = bool(wish.make and name not in wish.make)
        outside.append((bar < first) | (bar > last) | is_left)
    return outside


def fresh_ticks(song: Song,
                notes: PartNotes,
                old: Sequence[np.ndarray],
                wish: Wish,
                ) -> tuple[int, int] | None:
    """The stretch in which a song is new; None if it is new from end to end, in any part."""
    bar = QUARTERS_PER_BAR * song.ticks_per_quarter
    if wish.fill:
        first, last = wish.fill
        return (first - 1) * bar, last * bar
    parts = zip(notes, old, strict=True)
    new_onsets = [part[~is_old, 0] for part, is_old in parts]
    first_onsets = [int(onsets.min()) for onsets in new_onsets if len(onsets)]
    is_any_old = any(is_old.any() for is_old in old)
    if wish.given or not first_onsets or not is_any_old:
        return None
    return min(first_onsets), n_bars(song, notes) * bar


# ---------------------------------------------------------------- the recipe in words


def asked_for(recipe: Recipe) -> str:
    """What was asked for, in a few words; "" for a song from scratch without further wishes."""
    wish = recipe.wish
    rules = recipe.genconfig.rules
    made = " and ".join(wish.make)
    if wish.given:
        text = f"{made or 'the rest'} to given {' and '.join(wish.given)}"
    elif wish.fill:
        first, last = wish.fill
        bars = f"bars {first}–{last}"
        if first == last:
            bars = f"bar {first}"
        text = f"{bars} anew" + (f" in {made}" if made else "")
    elif recipe.prompt:
        text = "continued" + (f" in {made}" if made else "")
    else:
        text = made
    wishes = [text]
    if wish.loop:
        wishes.append("loop")
    if rules.key:
        wishes.append(f"{rules.key} {rules.scale}")
    return ", ".join(filter(None, wishes))


def recipe_summary(recipe: Recipe) -> str:
    """The recipe in a line."""
    temperatures = " ".join(f"{value:g}" for value in recipe.genconfig.temperature)
    return f"Recipe: seed {recipe.seed}, {recipe.model}, temperature {temperatures}"


def recipe_rows(recipe: Recipe, path: Path) -> list[tuple[str, str]]:
    """The recipe of the song at `path` as names and values, for people; without empty ones."""
    config = recipe.genconfig
    filters = {name: _by_family(getattr(config, name))
               for name in ("threshold", "top_p", "min_p")}
    if config.sampling_fn == "none":
        del filters["threshold"]
    rows = {
        "asked for": asked_for(recipe),
        "prompt": recipe.prompt,
        "seed": str(recipe.seed),
        "model": f"{recipe.model}, {recipe.dtype}",
        "temperature": _by_family(config.temperature),
        "filter": config.sampling_fn,
        **filters,
        "variety": f"{config.variety:g}" if config.variety else "",
        **_rule_rows(config.rules),
        "again": f"python generate.py --reproduce {path.name}",
    }
    return [(name, text) for name, text in rows.items() if text]


def _by_family(values: Sequence[float] | None) -> str:
    if not values:
        return ""
    by_family = zip(FIELDS, values, strict=True)
    return ", ".join(f"{field} {value:g}" for field, value in by_family)


def _rule_rows(rules: RuleConfig) -> dict[str, str]:
    rows = {"key": f"{rules.key} {rules.scale}" if rules.key else "",
            "one note at a time": ", ".join(rules.monophonic)}
    for name in ("pitches", "max_chord", "max_per_bar"):
        by_part = getattr(rules, name)
        rows[name] = ", ".join(f"{part} {value}" for part, value in by_part.items())
    rows["no empty bars"] = "yes" if rules.no_empty_bars else ""
    return rows

"""The page of a folder of songs: what it holds of each song, and how the page is put together.

One HTML file that needs no network: data as JSON, style and script from `web/`. Pages of notebooks and blind pages are
made of the same pieces.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backline.common.errors import UserError
from backline.common.files import file_hash, json_bytes, read_input, write_bytes
from backline.generation.prompt import open_prompt, read_prompt
from backline.generation.recipes import BEGINNING, Recipe, read_recipe, recipe_to_dict
from backline.generation.stars import STARS_FORMAT, STARS_VERSION
from backline.generation.task import Wish
from backline.music.midi_reader import read_song
from backline.music.parts import Assignment, assign_parts, check_meters
from backline.music.song import Song
from backline.music.vocab import FIELDS, QUARTERS_PER_BAR, Vocabulary
from tokenizer import MidiTokenizerPooled

PAGE_NAME = "index.html"
PAGE_MARK = "pooled ideas page"  # by which a page of ours is known, and may be replaced
WEB = Path(__file__).parent / "web"
SCRIPTS = ("elements.js", "sound.js", "player.js", "roll.js", "cards.js", "dock.js", "blind.js", "page.js")
PartNotes = list[np.ndarray]  # for each part (N, 3): onset and end in ticks, pitch


# ---------------------------------------------------------------- the page


def page_bytes(data: dict[str, Any]) -> bytes:
    """The page, all in one file, with `data` for its script."""
    # "<" is written as JSON can also write it, so that no text, such as a file's name, ends the script.
    inside = {"data": json_bytes(data).decode().replace("<", r"\u003c"), "mark": html.escape(PAGE_MARK),
              "style": (WEB / "page.css").read_text(encoding="utf-8").strip(),
              "script": "\n".join((WEB / name).read_text(encoding="utf-8").strip() for name in SCRIPTS)}
    template = (WEB / "page.html").read_text(encoding="utf-8")
    return re.sub(r"{{(\w+)}}", lambda match: inside[match[1]], template).encode("utf-8")


def common_data(title: str, summary: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """What the script needs besides the ideas. Times of ideas are in their own ticks."""
    parts = [{"name": part.name, "drum": part.is_drum, "program": part.program} for part in vocabulary.parts]
    return {"title": title, "summary": summary, "parts": parts, "beats_per_bar": QUARTERS_PER_BAR,
            "stars": {"format": STARS_FORMAT, "version": STARS_VERSION}}


def check_page(path: Path) -> None:
    """Raise UserError if something that is no page of ours stands where the page is to be."""
    if path.exists() and PAGE_MARK.encode() not in read_input(path)[:1000]:
        raise UserError(f"{path}: not a page of this program, which would replace it; move it away, or give another "
                        f"folder")


def write_page(folder: Path, vocabulary: Vocabulary) -> Path:
    """Write the page of a folder of numbered songs; returns its path. Songs that cannot be read are left out, with a
    notice.

    Raises UserError if no song is left, or if another page stands there.
    """
    path = folder / PAGE_NAME
    check_page(path)
    songs = [song for song in folder.iterdir() if re.fullmatch(r"\d+\.mid", song.name)]
    ideas = _readable(sorted(songs, key=lambda song: (int(song.stem), song.name)), vocabulary)
    if not ideas:
        raise UserError(f"{folder}: no numbered songs in it that can be shown (0.mid, 1.mid, …); make some with "
                        f"generate.py -o {folder}")
    summary = f"{len(ideas)} idea{'s' * (len(ideas) > 1)}"
    write_bytes(path, page_bytes(common_data(folder.resolve().name, summary, vocabulary) | {"ideas": ideas}))
    return path


def _readable(paths: Sequence[Path], vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The ideas of those songs that can be read, with notices of the others, and of tracks that no part plays."""
    found = []
    unplayed: dict[str, None] = {}  # names of tracks in the order in which they are met
    for path in paths:
        try:
            song, parts = read_parts(path, vocabulary)
            found.append(idea_data(path, song, parts.notes, vocabulary))
        except UserError as err:
            print(f"notice: not on the page: {err}", file=sys.stderr)
            continue
        unplayed |= dict.fromkeys(song.tracks[i].name for i in parts.left_out(song))
    if unplayed:
        names = ", ".join(f"{name!r:.40}" for name in unplayed)
        print(f"notice: tracks {names} are not on the page: no part of this vocabulary plays them; page.py "
              f"{paths[0].parent} --vocab shows them with the vocabulary of their model", file=sys.stderr)
    return found


# ---------------------------------------------------------------- an idea


def idea_data(path: Path, song: Song, notes: PartNotes, vocabulary: Vocabulary) -> dict[str, Any]:
    """What the page shows of a song. Raises UserError if its recipe cannot be read."""
    recipe = read_recipe(path) if BEGINNING.encode() in read_input(path) else None
    wish = recipe.wish if recipe else Wish()
    before = kept_notes(path, recipe, vocabulary) if recipe and recipe.prompt else None
    old = old_notes(notes, song.ticks_per_quarter, wish, before, vocabulary)
    return {**music_data(song, notes, old), "title": f"Idea {int(path.stem)}", "file": path.name,
            "hash": file_hash(path), "files": files_of(path, vocabulary),
            "fresh": fresh_ticks(song, notes, old, wish),
            "asked": asked_for(recipe) if recipe else "",
            "recipe": recipe_to_dict(recipe) if recipe else None,
            "recipe_summary": recipe_summary(recipe) if recipe else "",
            "recipe_rows": recipe_rows(recipe, path) if recipe else []}


def read_parts(path: Path, vocabulary: Vocabulary) -> tuple[Song, Assignment]:
    """A song, and which tracks play each part. Raises UserError if it is unreadable, or not in 4/4."""
    song = read_song(path)
    check_meters(song, str(path))
    return song, assign_parts(song, vocabulary)


def music_data(song: Song, notes: PartNotes, old: Sequence[np.ndarray]) -> dict[str, Any]:
    """Notes per part as [onset, end, pitch, whether it was there before], in ticks; bars up to the last onset's."""
    rows = [np.column_stack([part, was_there]).tolist() for part, was_there in zip(notes, old, strict=True)]
    return {"ticks_per_quarter": song.ticks_per_quarter, "tempo": song.main_tempo(), "notes": rows,
            "bars": n_bars(song, notes)}


def n_bars(song: Song, notes: PartNotes) -> int:
    last = max((int(part[:, 0].max()) for part in notes if len(part)), default=0)
    return last // (QUARTERS_PER_BAR * song.ticks_per_quarter) + 1


def files_of(path: Path, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The song's files that are there: the whole, a stem per part, the prompt, the sound."""
    named = [("all parts", path.name, None),
             *((name, f"{path.stem}-{name}.mid", p) for p, name in enumerate(vocabulary.part_names)),
             ("prompt", f"{path.stem}-prompt.mid", None), ("sound", f"{path.stem}.wav", None)]
    return [{"label": label, "file": file, "part": part} for label, file, part in named
            if (path.parent / file).is_file()]


# ---------------------------------------------------------------- old and new


def kept_notes(path: Path, recipe: Recipe, vocabulary: Vocabulary) -> PartNotes | None:
    """The notes of the prompt that a song goes on from, in steps of the grid; None where it is no longer to be had.

    It is looked for beside the song, as -sp saves it, and then where the recipe says.
    """
    tokenizer = MidiTokenizerPooled(vocabulary)
    saved, source, n_rows = path.with_name(f"{path.stem}-prompt.mid"), Path(recipe.prompt), recipe.prompt_rows
    if saved.is_file():
        source, n_rows = saved, 0
    elif not source.is_file() or file_hash(source) != recipe.prompt_hash:
        return None
    try:
        rows = read_prompt(open_prompt(source), source, n_rows, tokenizer).rows
    except UserError:
        return None
    return tokenizer.rows_to_parts(rows, vocabulary.steps_per_quarter)


def old_notes(notes: PartNotes, ticks_per_quarter: int, wish: Wish, before: PartNotes | None, vocabulary: Vocabulary,
              ) -> list[np.ndarray]:
    """For each part, which of its (N, 3) notes were there before, (N,) bool.

    `before`: notes of the prompt in steps of the grid, which only the rest of a song needs: all else the wish says.
    """
    names = vocabulary.part_names
    if wish.given:
        return [np.full(len(part), name in wish.given) for part, name in zip(notes, names, strict=True)]
    if wish.fill:
        first, last = wish.fill
        bars = [part[:, 0] // (QUARTERS_PER_BAR * ticks_per_quarter) + 1 for part in notes]
        return [(bar < first) | (bar > last) | bool(wish.make and name not in wish.make)
                for bar, name in zip(bars, names, strict=True)]
    if before is None:
        return [np.zeros(len(part), bool) for part in notes]
    struck = [{(onset * ticks_per_quarter, pitch) for onset, _, pitch in part.tolist()} for part in before]
    steps = vocabulary.steps_per_quarter
    return [np.array([(onset * steps, pitch) in there for onset, _, pitch in part.tolist()], bool)
            for part, there in zip(notes, struck, strict=True)]


def fresh_ticks(song: Song, notes: PartNotes, old: Sequence[np.ndarray], wish: Wish) -> tuple[int, int] | None:
    """From where to where a song is new; None where it is from end to end, in one part or in all."""
    bar = QUARTERS_PER_BAR * song.ticks_per_quarter
    if wish.fill:
        return (wish.fill[0] - 1) * bar, wish.fill[1] * bar
    new = [int(part[~was_there, 0].min()) for part, was_there in zip(notes, old, strict=True) if not was_there.all()]
    if wish.given or not new or not any(was_there.any() for was_there in old):
        return None
    return min(new), n_bars(song, notes) * bar


# ---------------------------------------------------------------- the recipe in words


def asked_for(recipe: Recipe) -> str:
    """What was asked for, in a few words; "" for a song from scratch without further wishes."""
    wish, key = recipe.wish, recipe.genconfig.rules.key
    made = " and ".join(wish.make)
    if wish.given:
        text = f"{made or 'the rest'} to given {' and '.join(wish.given)}"
    elif wish.fill:
        bars = "–".join(map(str, dict.fromkeys(wish.fill)))
        text = f"bar{'s' * ('–' in bars)} {bars} anew" + (f" in {made}" if made else "")
    else:
        text = ("continued" if recipe.prompt else "") + (f" in {made}" if made and recipe.prompt else made)
    wished = [text, "loop" if wish.loop else "", f"{key} {recipe.genconfig.rules.scale}" if key else ""]
    return ", ".join(filter(None, wished))


def recipe_summary(recipe: Recipe) -> str:
    warmth = " ".join(f"{value:g}" for value in recipe.genconfig.temperature)
    return f"Recipe: seed {recipe.seed}, {recipe.model}, temperature {warmth}"


def recipe_rows(recipe: Recipe, path: Path) -> list[tuple[str, str]]:
    """Names and values, for people."""
    config, rules = recipe.genconfig, recipe.genconfig.rules
    by_family = {name: ", ".join(f"{field} {value:g}" for field, value in zip(FIELDS, values, strict=True))
                 for name, values in (("temperature", config.temperature), ("threshold", config.threshold),
                                      ("top_p", config.top_p), ("min_p", config.min_p)) if values}
    if config.sampling_fn == "none":
        del by_family["threshold"]
    ruled = {"key": f"{rules.key} {rules.scale}" if rules.key else "",
             "one note at a time": ", ".join(rules.monophonic),
             **{name: ", ".join(f"{part} {value}" for part, value in getattr(rules, name).items())
                for name in ("pitches", "max_chord", "max_per_bar")},
             "no empty bars": "yes" if rules.no_empty_bars else ""}
    rows = {"asked for": asked_for(recipe), "prompt": recipe.prompt, "seed": str(recipe.seed),
            "model": f"{recipe.model}, {recipe.dtype}", "temperature": by_family.pop("temperature"),
            "filter": config.sampling_fn, **by_family, "variety": f"{config.variety:g}" if config.variety else "",
            **ruled, "again": f"python generate.py --reproduce {path.name}"}
    return [(name, text) for name, text in rows.items() if text]

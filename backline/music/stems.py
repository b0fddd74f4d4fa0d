"""Stems, one MIDI file per part, and the song that they make: which part each is, what was read."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from backline.common.errors import UserError, counted
from backline.music.bars import (
    bar_origin,
    check_notes,
    clip_length,
    four_quarter_stretches,
    is_four_quarters,
    meters,
    pickup_ticks,
    without_pickup,
)
from backline.music.joining import Stem, join_stems
from backline.music.midi_edits import ending_at, with_tempo
from backline.music.midi_tracks import MidiTracks, read_tracks, song_of_tracks
from backline.music.roles import names_other_instrument, part_asked_for, parts_named
from backline.music.song import DEFAULT_TEMPO, Song
from backline.music.vocab import QUARTERS_PER_BAR, Vocabulary

LONGEST_NAME = 40  # characters of a track's name that a line shows


class StemFile(NamedTuple):
    """A stem as it was read: its events, its notes, and the index of its part."""

    path: Path
    midi: MidiTracks
    song: Song
    part: int


# ---------------------------------------------------------------- which part a stem is


def find_part(path: Path, vocabulary: Vocabulary) -> int:
    """Index of the part that the file's name tells, by the part's name or a word for it.

    Where no word does, a part's name inside a word counts: "mybass.mid", but not "bassoon.mid".

    Raises UserError if it tells none, or more than one, with the list of parts.
    """
    names = vocabulary.part_names
    named = parts_named(path.stem, vocabulary)
    found = [name for name in names if name in named]
    if not found and not names_other_instrument(path.stem, vocabulary):
        found = [name for name in names if name.casefold() in path.stem.casefold()]
    if len(found) == 1:
        return names.index(found[0])
    holds = " and ".join(found) or "no part's name"
    raise UserError(f"{path}: its file name holds {holds}; choose with --part "
                    f"PART={_quoted(path.name)}, or rename it to hold one of the parts: "
                    f"{', '.join(names)}")


def _quoted(text: str) -> str:
    """As a shell takes it."""
    return f'"{text}"' if " " in text else text


def asked_parts(texts: Sequence[str],
                paths: Sequence[Path],
                vocabulary: Vocabulary) -> dict[Path, int]:
    """The parts that --part gives to stems, as indices.

    Raises UserError for what is no part, no stem, or a stem that is given two parts.
    """
    asked: dict[Path, int] = {}
    for text in texts:
        word, _, which = text.partition("=")
        name = part_asked_for(word, vocabulary)
        if name is None or not which:
            raise UserError(f"--part {text}: must be PART=STEM, PART one of "
                            f"{', '.join(vocabulary.part_names)}")
        part = vocabulary.part_names.index(name)
        found = [path for path in paths if _is_meant(path, which)]
        if not found:
            raise UserError(f"--part {text}: no stem has this name; they are "
                            f"{', '.join(path.name for path in paths)}")
        for path in found:
            if asked.setdefault(path, part) != part:
                raise UserError(f"--part {text}: {path} has another part already; give it one")
    return asked


def _is_meant(path: Path, which: str) -> bool:
    """Whether a stem has this path, or this name, with or without its ending, or pattern of one."""
    names = [path.name.casefold(), path.stem.casefold()]
    pattern = which.casefold()
    return path == Path(which) or pattern in names or fnmatch.fnmatchcase(names[0], pattern)


# ---------------------------------------------------------------- stems


def read_stem(path: Path, part: int, data: bytes | None = None) -> StemFile:
    """Read one stem. With its bytes in `data` no file is read, and `path` only names it.

    Raises UserError: unreadable, without notes or bars of four quarters.
    """
    midi = read_tracks(path, data)
    song, _ = song_of_tracks(midi, str(path))
    check_notes(song, str(path))
    check_meters(song, path)
    return StemFile(path, midi, song, part)


def check_meters(song: Song, path: Path) -> None:
    """Raise UserError if no bar with music is four quarters long: no command could play to it."""
    whole = without_pickup(song)
    if not four_quarter_stretches(whole, min_bars=1):
        signature = meters(whole)[-1][1]
        raise UserError(f"{path}: all of it is in {signature.numerator}/{signature.denominator}, "
                        f"or bars of other lengths; nothing can be played to it: export a song "
                        f"with bars of four quarters (4/4, 2/2)")


def describe_stem(stem: StemFile, vocabulary: Vocabulary) -> str:
    """What a stem was read as: its part, its notes, and its tracks by name."""
    tracks = [track for track in stem.song.tracks if len(track.notes)]
    n_notes = stem.song.n_notes
    line = f"{stem.path}: {vocabulary.part_names[stem.part]}, {counted(n_notes, 'note')}"
    names = [track.name[:LONGEST_NAME] or "unnamed" for track in tracks]
    if len(tracks) > 1 or tracks[0].name:
        line = f"{line}, {counted(len(tracks), 'track')}: {', '.join(names)}"
    return line


def notices_of(stems: Sequence[StemFile], vocabulary: Vocabulary) -> list[str]:
    """A line for each stem; for what was odd about it; for stems that share a part."""
    lines = []
    for stem in stems:
        lines.append(describe_stem(stem, vocabulary))
        lines += [f"{stem.path}: {notice}" for notice in stem.song.notices]
        drums = [track.name or "unnamed" for track in stem.song.tracks if track.is_drum]
        is_mixed = 0 < len(drums) < len(stem.song.tracks)
        if is_mixed and not vocabulary.parts[stem.part].is_drum:
            lines.append(f"{stem.path}: its drums ({', '.join(drums)}) count as "
                         f"{vocabulary.part_names[stem.part]} too; if that is wrong, remove "
                         f"them from the stem")
    for part, name in enumerate(vocabulary.part_names):
        sharing = [str(stem.path) for stem in stems if stem.part == part]
        if len(sharing) > 1:
            lines.append(f"{' and '.join(sharing)} are joined into one part, {name}")
    return lines


# ---------------------------------------------------------------- the song


class Merged(NamedTuple):
    """The song, and what people may not expect of it, a line each."""

    midi: MidiTracks
    notices: list[str]


def merge(stems: Sequence[StemFile],
          vocabulary: Vocabulary,
          name: str,
          tempo: float | None = None) -> Merged:
    """Join stems into the song that messages call `name`, with `tempo` in place of their maps.

    Raises UserError where a MIDI file cannot hold them together.
    """
    joined = join_stems([Stem(str(stem.path), _at_tempo(stem.midi, tempo), stem.part)
                         for stem in stems],
                        vocabulary)
    notices = [*notices_of(stems, vocabulary), *joined.notices]
    if not joined.names_tempo:
        notices.append(f"{name}: names no tempo: plays at {DEFAULT_TEMPO:g} BPM; "
                       f"--tempo sets another")
    notices += pickup_notices(stems)
    song, _ = song_of_tracks(joined.midi, name)
    end, n_silent = end_of(song)
    if n_silent:
        notices.append(f"{name}: {n_silent} bars of silence at its end do not count")
    if odd := odd_meter(song):
        notices.append(f"{name}: has bars in {odd}, which are kept, but not heard by the model; "
                       f"generate.py and tokenizer.py need --meters cut for the others")
    return Merged(ending_at(joined.midi, end), notices)


def _at_tempo(midi: MidiTracks, tempo: float | None) -> MidiTracks:
    return with_tempo(midi, tempo) if tempo else midi


def pickup_notices(stems: Sequence[StemFile]) -> list[str]:
    """A line if some stems begin with a pickup and others, that name a meter, do not."""
    with_meter = [stem for stem in stems if stem.song.time_signatures]
    by_pickup: dict[float, list[str]] = {}
    for stem in with_meter:
        quarters = pickup_ticks(stem.song) / stem.song.ticks_per_quarter
        by_pickup.setdefault(quarters, []).append(str(stem.path))
    if len(by_pickup) < 2:
        return []
    texts = [f"{' and '.join(paths)}: {quarters:g}" for quarters, paths in by_pickup.items()]
    return [f"the stems' pickups differ, in quarters ({'; '.join(texts)}); notes keep their times "
            f"from the beginning: export all from the same bar if they should not"]


def odd_meter(song: Song) -> str:
    """The first meter with music in it of which bars are not four quarters long; "" for none."""
    last_onset = song.last_onset_tick
    for stretch, signature in meters(without_pickup(song)):
        if not is_four_quarters(signature) and stretch.start <= last_onset:
            return f"{signature.numerator}/{signature.denominator}"
    return ""


def end_of(song: Song) -> tuple[int, int]:
    """The tick of the last bar line, and the bars of silence after it that do not count.

    A song in several meters ends where its stems do.
    """
    if odd_meter(song):
        return max(song.end_tick, song.last_end_of_track), 0
    bar_ticks = QUARTERS_PER_BAR * song.ticks_per_quarter
    origin = bar_origin(song)
    n_bars, n_silent = clip_length(song, origin)
    return origin + n_bars * bar_ticks, n_silent

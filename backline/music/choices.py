"""Choices in how a song becomes the vocabulary's parts: options that several commands share."""

from __future__ import annotations

import argparse
import dataclasses
import re
from typing import TypeVar

from backline.common.errors import UserError
from backline.music.roles import part_asked_for
from backline.music.vocab import Vocabulary

SKIP, DROP, BY_OCTAVE, CUT = "skip", "drop", "octave", "cut"
RANGES = (DROP, BY_OCTAVE, SKIP)
KNOWN = {"ranges": RANGES,
         "long_songs": (SKIP, CUT),
         "meters": (SKIP, CUT)}  # values of `Choices`
PROGRAMS = r"(\d+)(?:-(\d+))?"
CHANNEL = r"ch(?:annel)? ?(\d+)"
MAX_PROGRAM = 127
MAX_CHANNEL = 16  # counted from 1, as people do
ALL, MOST_NOTES, NO_TRACK = "all", "most-notes", "none"

OPTIONS = """Which tracks play a part (--part NAME=TRACKS, once per part), instead of the rule in DATA.md:
  all, most-notes   all candidates by name and program joined, or the one with the most notes
  'Track 3'         tracks of this name, or whose names match a pattern such as '*strings*', in any
                    letter case, joined
  24-31 or 33       the track with the most notes among those with these programs (counted from 0)
  '#3'              the third track with notes, as the report counts them
  ch10              the tracks on this channel (counted from 1), joined
  none              no track
Notes outside a part's pitch range (--ranges):
  drop              leave them out; leave out the song if a part would lose more than --max-lost
  octave            move them into the range by octaves, but key switches, which are notes below E0
                    among others; drums as with drop
  skip              leave the song out, as the published system did"""


@dataclasses.dataclass(frozen=True)
class Choices:
    """How a song becomes the vocabulary's parts. The defaults are those of the published system."""

    tracks: tuple[tuple[str, str], ...] = ()  # (part, which tracks), see OPTIONS
    ranges: str = SKIP
    max_lost: float = 0.2  # largest share of a part's notes that may lie outside its range
    long_songs: str = SKIP  # or CUT: into several, at a bar line
    meters: str = SKIP  # or CUT: keep the stretches in bars of four quarters
    min_stretch_bars: int = 8  # shortest such stretch
    join: bool = False  # a part is all tracks of its role, not the one with the most notes

    def __post_init__(self) -> None:
        if any(len(pair) != 2 for pair in self.tracks):
            raise UserError("tracks must be a list of [part, which tracks] pairs")
        for name, known in KNOWN.items():
            value = getattr(self, name)
            if value not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        if not 0 <= self.max_lost <= 1:
            raise UserError(f"max_lost {self.max_lost} must be a share from 0 to 1")
        if self.min_stretch_bars < 1:
            raise UserError(f"min_stretch_bars {self.min_stretch_bars}: at least 1")

    @property
    def cuts(self) -> bool:
        """Whether one file may become several songs."""
        return CUT in (self.long_songs, self.meters)


C = TypeVar("C", bound=Choices)


def add_options(parser: argparse._ActionsContainer, base: Choices) -> None:
    """An option for each field of `Choices`; `base` holds the command's defaults."""
    parser.add_argument("--part",
                        action="append",
                        metavar="NAME=TRACKS",
                        dest="tracks",
                        help="which tracks play a part, see above; once for each part")
    parser.add_argument("--ranges",
                        choices=RANGES,
                        help=f"what to do with notes outside a part's range, see above "
                             f"(default: {base.ranges})")
    parser.add_argument("--max-lost",
                        type=float,
                        metavar="SHARE",
                        help=f"largest share of a part's notes that --ranges drop or octave may "
                             f"leave out (default: {base.max_lost})")
    parser.add_argument("--long-songs",
                        choices=(SKIP, CUT),
                        help=f"songs with more bars than the vocabulary: leave out, or cut into "
                             f"several at a bar line, NAME, NAME.part2, ... "
                             f"(default: {base.long_songs})")
    parser.add_argument("--meters",
                        choices=(SKIP, CUT),
                        help=f"songs with bars that are not four quarters long: leave out, or keep "
                             f"their stretches of four quarters as songs (default: {base.meters})")
    parser.add_argument("--min-stretch-bars",
                        type=int,
                        metavar="BARS",
                        help=f"shortest stretch that --meters cut keeps "
                             f"(default: {base.min_stretch_bars})")
    parser.add_argument("--join",
                        action=argparse.BooleanOptionalAction,
                        help=f"whether a part is all tracks of its name or family of programs "
                             f"(two hands, a pair of guitars), or the one with the most notes; "
                             f"drums are always joined (default: {'' if base.join else 'no-'}join)")


def choices_of(args: argparse.Namespace, base: C, vocabulary: Vocabulary) -> C:
    """`base` with the parsed options in place of its fields.

    Raises UserError for a value out of range, a part that the vocabulary lacks, tracks that mean
    nothing, or an option that another one leaves without effect.
    """
    given = {}
    for field in dataclasses.fields(Choices):
        value = getattr(args, field.name)
        if value is not None:
            given[field.name] = value
    if "tracks" in given:
        asked = [_asked(text, vocabulary) for text in given["tracks"]]
        if len(dict(asked)) < len(asked):
            raise UserError("--part: the same part twice; give each once")
        tracks = dict(base.tracks) | dict(asked)
        given["tracks"] = tuple(tracks.items())
    choices = dataclasses.replace(base, **given)
    if "max_lost" in given and choices.ranges == SKIP:
        raise UserError(f"--max-lost: has no effect with --ranges {SKIP}; give --ranges {DROP} or "
                        f"{BY_OCTAVE}")
    if "min_stretch_bars" in given and choices.meters == SKIP:
        raise UserError(f"--min-stretch-bars: has no effect with --meters {SKIP}; give --meters "
                        f"{CUT}")
    for name, which in choices.tracks:
        _check_tracks(name, which, vocabulary)
    return choices


def _asked(text: str, vocabulary: Vocabulary) -> tuple[str, str]:
    """The part and its tracks in "NAME=TRACKS"; a synonym stands for the part."""
    name, _, which = text.partition("=")
    return part_asked_for(name, vocabulary) or name, which


def _check_tracks(name: str, which: str, vocabulary: Vocabulary) -> None:
    """Raise UserError if there is no such part, or if `which` cannot name any track."""
    where = f"--part {name}={which}"
    if name not in vocabulary.part_names or not which:
        names = ", ".join(vocabulary.part_names)
        raise UserError(f"{where}: must be NAME=TRACKS, NAME one of {names}")
    if which.startswith("#"):
        number = which[1:]
        if not number.isdecimal() or not int(number):
            raise UserError(f"{where}: must be a track's number, such as #3")
    channel = re.fullmatch(CHANNEL, which.casefold())
    if channel and not 1 <= int(channel[1]) <= MAX_CHANNEL:
        raise UserError(f"{where}: channels go from 1 to {MAX_CHANNEL}")
    if programs := re.fullmatch(PROGRAMS, which):
        first = int(programs[1])
        last = int(programs[2] or first)
        if not first <= last <= MAX_PROGRAM:
            raise UserError(f"{where}: programs go from 0 to {MAX_PROGRAM}, the lower one first")

"""The vocabulary: which ids there are, what they mean, and which parts a song has.

It is data: a JSON file lists the parts (name, drum or not, the General MIDI program to write, the
programs to accept, the pitch range) and the sizes. `configs/vocab.json` gives the published ids
exactly.

A note is one pooled token, a row of F = 4 ids in the order of `FIELDS`; ids 0–3 are special in
every family.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from backline.common.errors import UserError
from backline.common.files import read_json_object
from backline.common.paths import DEFAULT_VOCABULARY
from backline.common.settings import config_from_dict, config_to_dict
from backline.music.midi_events import N_PITCHES

FIELDS = ("bar", "start_pos", "note_dur", "pitch_instrument")
BAR, START_POS, NOTE_DUR, PITCH_INSTRUMENT = range(len(FIELDS))
# Rows of training may have more columns: one marks given notes, and those of controls come after it.
GIVEN = len(FIELDS)
FIRST_CONTROL = GIVEN + 1
# The order of a note's families when one is chosen after another: when, what, how long.
CHOICE_ORDER = (BAR, START_POS, PITCH_INSTRUMENT, NOTE_DUR)

SPECIALS = ("PAD_None", "BOS_None", "EOS_None", "Mask_None")
PAD, BOS, EOS, MASK = range(len(SPECIALS))
FIRST_ID = len(SPECIALS)  # of the ids that are not special

QUARTERS_PER_BAR = 4
MELODIC_CHANNELS = 15  # of MIDI's 16; the tenth is for drums
FORMAT, VERSION = "pooled-vocabulary", 1


@dataclasses.dataclass(frozen=True)
class Part:
    """One instrument of the vocabulary.

    Programs are General MIDI's, counted from 0; ranges are inclusive.
    """

    name: str
    is_drum: bool
    program: int  # written to files
    accepts: tuple[tuple[int, ...], ...]  # [first, last] programs that may fill it; []: name only
    lowest_pitch: int
    highest_pitch: int
    # [first, last] pitches that are this drum part's on tracks that play the first drum part, see
    # `percussion.py`.
    takes: tuple[tuple[int, ...], ...] = ()
    # Other words for it in names of tracks and files, see `roles.py`. They say nothing of the ids.
    synonyms: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+", self.name):
            raise UserError(f"part name {self.name!r} must be letters, digits and _ only")
        if not 0 <= self.lowest_pitch <= self.highest_pitch <= 127:
            raise UserError(f"part {self.name}: pitches {self.lowest_pitch} to "
                            f"{self.highest_pitch} are no range within 0 to 127")
        are_pairs = all(len(pair) == 2 for pair in (*self.accepts, *self.takes))
        if not 0 <= self.program <= 127 or not are_pairs:
            raise UserError(f"part {self.name}: program must be 0 to 127, accepts and takes "
                            f"lists of [first, last] pairs")
        if self.takes and not self.is_drum:
            raise UserError(f"part {self.name}: takes is for drums; a part of pitched notes is known "
                            f"by its programs")

    @property
    def n_pitches(self) -> int:
        """How many pitches its range holds."""
        return self.highest_pitch - self.lowest_pitch + 1

    def accepts_program(self, program: int) -> bool:
        """Whether a track with this program may fill the part."""
        return any(first <= program <= last for first, last in self.accepts)

    def takes_pitch(self, pitch: int) -> bool:
        """Whether hits of this pitch are taken out of other drum tracks for the part."""
        return any(first <= pitch <= last for first, last in self.takes)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Sizes and parts, and everything that follows from them.

    Time is counted in steps of the grid.
    """

    bars: int
    steps_per_bar: int
    max_duration_steps: int
    parts: tuple[Part, ...]
    # Words for what is none of them; () stands for those of the default vocabulary, see `roles.py`.
    other_instruments: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    # Words for tracks that count time for the players, and are no music; () likewise.
    click_tracks: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    def __post_init__(self) -> None:
        if min(self.bars, self.steps_per_bar, self.max_duration_steps, len(self.parts)) < 1:
            raise UserError("bars, steps_per_bar, max_duration_steps and the number of parts must "
                            "be at least 1")
        if self.steps_per_bar % QUARTERS_PER_BAR:
            raise UserError(f"steps_per_bar={self.steps_per_bar} must be a multiple of "
                            f"{QUARTERS_PER_BAR}")
        names = {name.casefold() for name in self.part_names}  # file names may not tell letter case
        if len(names) < len(self.parts):
            raise UserError(f"two parts share a name: {', '.join(self.part_names)}")
        if sum(not part.is_drum for part in self.parts) > MELODIC_CHANNELS:
            raise UserError(f"more than {MELODIC_CHANNELS} parts besides drums; a MIDI file has no "
                            f"more channels")

    def check_overlap(self, where: str) -> None:
        """Raise UserError if two parts accept one program, or take one pitch of drums.

        Such a vocabulary works: the first part gets what both want. But whoever wrote it hardly
        meant that.
        """
        for one, other in itertools.combinations(self.parts, 2):
            for number in range(N_PITCHES):  # of pitches, and as many programs
                accepted = not one.is_drum and not other.is_drum and one.accepts_program(number) \
                    and other.accepts_program(number)
                if accepted or (one.takes_pitch(number) and other.takes_pitch(number)):
                    what = "accept program" if accepted else "take drum pitch"
                    raise UserError(f"{where}: parts {one.name} and {other.name} both {what} "
                                    f"{number}; leave it to one of them")

    @property
    def part_names(self) -> tuple[str, ...]:
        """In the order of `parts`."""
        return tuple(part.name for part in self.parts)

    @property
    def steps_per_quarter(self) -> int:
        """Steps of the grid in a quarter note."""
        return self.steps_per_bar // QUARTERS_PER_BAR

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """Ids per family V_f, special ones counted, in `FIELDS` order."""
        n_pitches = sum(part.n_pitches for part in self.parts)
        counts = (self.bars, self.steps_per_bar, self.max_duration_steps, n_pitches)
        return tuple(FIRST_ID + count for count in counts)

    @functools.cached_property
    def first_pitch_ids(self) -> tuple[int, ...]:
        """For each part, the pitch_instrument id of its lowest pitch."""
        counts = [part.n_pitches for part in self.parts]
        before = itertools.accumulate(counts[:-1], initial=FIRST_ID)
        return tuple(before)

    @functools.cached_property
    def part_of_id(self) -> np.ndarray:
        """(V,) part index of each pitch_instrument id; −1 for special ids."""
        counts = [FIRST_ID, *(part.n_pitches for part in self.parts)]
        return np.repeat(np.arange(-1, len(self.parts)), counts)

    @functools.cached_property
    def pitch_of_id(self) -> np.ndarray:
        """(V,) MIDI pitch of each pitch_instrument id; −1 for special ids."""
        ranges = [np.arange(part.lowest_pitch, part.highest_pitch + 1)
                  for part in self.parts]
        of_specials = np.full(FIRST_ID, -1)
        return np.concatenate([of_specials, *ranges])

    @functools.cached_property
    def event_names(self) -> tuple[tuple[str, ...], ...]:
        """For each family, the event name of each id."""
        parts = self.part_of_id[FIRST_ID:]
        pitches = self.pitch_of_id[FIRST_ID:]
        notes = zip(parts, pitches, strict=True)
        return (
            SPECIALS + tuple(f"bar{i}" for i in range(self.bars)),
            SPECIALS + tuple(f"start_pos{i}" for i in range(self.steps_per_bar)),
            SPECIALS + tuple(f"note_dur{i + 1}"
                             for i in range(self.max_duration_steps)),
            SPECIALS + tuple(f"pitch{pitch}_{self.parts[part].name}"
                             for part, pitch in notes),
        )

    @functools.cached_property
    def is_drum(self) -> np.ndarray:
        """(n_parts,) bool: which parts are drums."""
        return np.array([part.is_drum for part in self.parts])

    @property
    def first_drums(self) -> int:
        """Index of the first drum part; 0 if there is none."""
        return int(self.is_drum.argmax())

    @functools.cached_property
    def is_taken(self) -> np.ndarray:
        """(V,) bool: ids of the first drum part whose hits are another part's in any file."""
        takers = [part for index, part in enumerate(self.parts) if part.takes and index != self.first_drums]
        pitches = [pitch for pitch in range(N_PITCHES) if any(part.takes_pitch(pitch) for part in takers)]
        return (self.part_of_id == self.first_drums) & np.isin(self.pitch_of_id, pitches)

    @property
    def id_type(self) -> np.dtype:
        """Smallest signed integer type that holds every id."""
        return np.min_scalar_type(-max(self.sizes))

    @functools.cached_property
    def digest(self) -> str:
        """Hash of what the ids mean.

        Programs are left out: they change which tracks are read, not the ids.
        """
        text = json.dumps(self.to_published())
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_published(self) -> dict[str, Any]:
        """The predecessor's form: `n_tokens`, and an event → id table per family."""
        published: dict[str, Any] = {"n_tokens": list(self.sizes)}
        for field, names in zip(FIELDS, self.event_names, strict=True):
            published[field] = {name: i for i, name in enumerate(names)}
        return published

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, as in `configs/vocab.json`, without words that are the default's anyway."""
        data = {"format": FORMAT, "version": VERSION, **config_to_dict(self)}
        default = load_vocabulary()
        words_of = {part.name: part.synonyms for part in default.parts}
        for name in ("other_instruments", "click_tracks"):
            if getattr(self, name) in ((), getattr(default, name)):
                del data[name]
        for part, part_data in zip(self.parts, data["parts"], strict=True):
            if part.synonyms in ((), words_of.get(part.name)):
                del part_data["synonyms"]
            if not part.takes:
                del part_data["takes"]  # that earlier versions do not know
        return data

    def difference(self, other: Vocabulary) -> str:
        """How the ids of `other` differ from this vocabulary's, in words; "" where they do not."""
        found = []
        for name in ("bars", "steps_per_bar", "max_duration_steps"):
            own = getattr(self, name)
            others = getattr(other, name)
            if others != own:
                found.append(f"{name} {others}, not {own}")
        if other.part_names != self.part_names:
            own = ", ".join(self.part_names)
            others = ", ".join(other.part_names)
            found.append(f"parts {others}, not {own}")
            return "; ".join(found)
        for part, others_part in zip(self.parts, other.parts, strict=True):
            own = f"{part.lowest_pitch}-{part.highest_pitch}"
            others = f"{others_part.lowest_pitch}-{others_part.highest_pitch}"
            if others != own:
                found.append(f"{part.name} pitches {others}, not {own}")
        return "; ".join(found)

    def check_digest(self, digest: str | None, where: str, remedy: str) -> None:
        """Raise UserError unless `digest` is this vocabulary's; None, unknown, passes."""
        if digest is not None and digest != self.digest:
            raise UserError(f"{where}: made with another vocabulary ({digest!r:.40}, not "
                            f"{self.digest}); {remedy}")


def load_vocabulary(source: str | Path | dict[str, Any] | Vocabulary | None = None) -> Vocabulary:
    """The vocabulary in a JSON file or dict, in our form or the predecessor's.

    Without `source`, the default one. Raises UserError naming what is wrong.
    """
    if isinstance(source, Vocabulary):
        return source
    if source is None:
        source = DEFAULT_VOCABULARY
    if isinstance(source, dict):
        data, where = source, "vocabulary"
    else:
        data = read_json_object(Path(source))
        where = str(source)
    if "n_tokens" in data:
        return _from_published(data, where)
    if data.get("format") != FORMAT or data.get("version") != VERSION:
        raise UserError(f"{where}: not a vocabulary: needs format {FORMAT!r} and version "
                        f"{VERSION}, or the published form with 'n_tokens'")
    fields = {key: value
              for key, value in data.items()
              if key not in ("format", "version")}
    vocabulary = config_from_dict(Vocabulary, fields, where)
    if not isinstance(source, dict):  # a file that somebody wrote; what files of ours hold is as it is
        vocabulary.check_overlap(where)
    return vocabulary


def _from_published(data: dict[str, Any], where: str) -> Vocabulary:
    """Read the predecessor's form.

    It names no programs: parts of the default vocabulary lend theirs to parts of the same name.
    """
    try:
        vocabulary = Vocabulary(
            bars=len(data["bar"]) - FIRST_ID,
            steps_per_bar=len(data["start_pos"]) - FIRST_ID,
            max_duration_steps=len(data["note_dur"]) - FIRST_ID,
            parts=_published_parts(data["pitch_instrument"]),
        )
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{where}: the published form needs n_tokens and one table of event names "
                        f"per family: {', '.join(FIELDS)}") from None
    except UserError as err:
        raise UserError(f"{where}: {err}") from None
    tables = {key: data.get(key) for key in ("n_tokens", *FIELDS)}
    if vocabulary.to_published() != tables:
        raise UserError(f"{where}: ids are not in the published order (special ids, then the "
                        f"events counted up)")
    return vocabulary


def _published_parts(event_names: Iterable[str]) -> tuple[Part, ...]:
    """The parts in names such as "pitch36_drums"."""
    pitches: dict[str, list[int]] = {}
    for event_name in event_names:
        if event_name in SPECIALS:
            continue
        match = re.fullmatch(r"pitch(\d+)_(\w+)", event_name)
        if match is None:
            raise TypeError(event_name)
        pitch, name = match.groups()
        pitches.setdefault(name, []).append(int(pitch))
    known = {part.name: part for part in load_vocabulary().parts}
    parts = []
    for name, inside in pitches.items():
        like = known.get(name, Part(name, False, 0, (), 0, 0))
        part = dataclasses.replace(like, lowest_pitch=min(inside), highest_pitch=max(inside))
        parts.append(part)
    return tuple(parts)

"""What may come next in a song: masks over the ids of one family after another, exact in any order of families.

A valid note is later than the one before, by (bar, start_pos, pitch_instrument), and keeps the song's rules. A mask
holds the ids after which some valid note is left, so that sampling never runs into a corner. Times are in steps of
the grid, counted from the beginning of bar 0.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from backline.common.errors import UserError
from backline.generation.config import RuleConfig
from backline.music.chords import HALVES_PER_BAR, chord_pitch_classes
from backline.music.theory import OCTAVE, pitch_set, scale_pitch_classes
from backline.music.vocab import BAR, EOS, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS, Vocabulary

NEVER = -1  # before all times


@dataclasses.dataclass(frozen=True)
class SoFar:
    """What of a song's notes matters for those to come; tuples hold a number per part."""

    time: int  # of the last note
    pitch: int  # its id
    struck: tuple[int, ...]  # notes that began with it, it included
    in_bar: tuple[int, ...]  # notes of its bar
    rings_until: tuple[int, ...]  # when the part's notes have all ended

    @classmethod
    def nothing(cls, vocabulary: Vocabulary) -> SoFar:
        none = (0,) * len(vocabulary.parts)
        return cls(NEVER, FIRST_ID - 1, none, none, none)

    def after(self, note: Sequence[int], vocabulary: Vocabulary) -> SoFar:
        """The same with one more note, a row of ids."""
        time, pitch, steps = onset(note, vocabulary), int(note[PITCH_INSTRUMENT]), vocabulary.steps_per_bar
        part = int(vocabulary.part_of_id[pitch])
        none = (0,) * len(self.struck)
        same_bar = self.time != NEVER and time // steps == self.time // steps
        ends = max(self.rings_until[part], time + int(note[NOTE_DUR]) - FIRST_ID + 1)
        return SoFar(time, pitch, _one_more(self.struck if time == self.time else none, part),
                     _one_more(self.in_bar if same_bar else none, part),
                     (*self.rings_until[:part], ends, *self.rings_until[part + 1:]))


def _one_more(counts: tuple[int, ...], part: int) -> tuple[int, ...]:
    return (*counts[:part], counts[part] + 1, *counts[part + 1:])


def onset(note: Sequence[int], vocabulary: Vocabulary) -> int:
    """When a note, a row of ids, begins, in steps from the beginning of bar 0."""
    return (int(note[BAR]) - FIRST_ID) * vocabulary.steps_per_bar + int(note[START_POS]) - FIRST_ID


class Stretch(NamedTuple):
    """Times [begin, end) at which the same pitches may be struck."""

    begin: int
    end: int
    pitches: np.ndarray  # (V,) bool


class Rules:
    """The rules of one song, or of the stretch of it that is made."""

    def __init__(self, vocabulary: Vocabulary, config: RuleConfig, end_bar: int, *, first_bar: int = 0,
                 parts: Sequence[str] = (), exact: bool = False, loop: bool = False, at_once: bool = False,
                 given: np.ndarray | None = None, chords: np.ndarray | None = None) -> None:
        """Notes are made in the bars from `first_bar` to before `end_bar`, counted from 0.

        Args:
            parts: those that are made; none means all.
            exact: the last bar holds a note, whoever plays it, before the song may end.
            loop: no note rings on past the end.
            at_once: the first of all notes begins with `first_bar`.
            given: (N, F) rows that sound besides; their bars are not empty, and notes of a monophonic part end
                before its given ones begin.
            chords: (2 · end_bar, 3) ids of the chord of each half bar: its notes are allowed outside the key too.
        Raises:
            UserError: the rules name what the vocabulary has not, or leave a part nothing to play.
        """
        _check_parts(vocabulary, config, parts)
        self.vocabulary, self.config, self.exact, self.at_once = vocabulary, config, exact, at_once
        steps = vocabulary.steps_per_bar
        self.first, self.end = first_bar * steps, end_bar * steps
        names = vocabulary.part_names
        self.of_part = [slice(first, first + part.n_pitches)
                        for first, part in zip(vocabulary.first_pitch_ids, vocabulary.parts, strict=True)]
        self.pitches = allowed_pitches(vocabulary, config, parts or names)
        self.half_bar = steps // HALVES_PER_BAR
        self.of_chord = None  # (2 · end_bar, V) bool: pitches besides
        if config.key and chords is not None:
            anywhere = allowed_pitches(vocabulary, dataclasses.replace(config, key=""), parts or names)
            self.of_chord = anywhere & chord_tones(chords, vocabulary)
        self.monophonic = [p for p, name in enumerate(names) if name in config.monophonic]
        given = np.zeros((0, len(vocabulary.sizes)), np.int64) if given is None else given
        self.sounding_bars = frozenset((given[:, BAR] - FIRST_ID).tolist())
        followed = config.no_empty_bars and len(given)
        self.gaps = sorted(set(range(first_bar, end_bar)) - self.sounding_bars) if followed else []
        longest = [self._longest(p, loop, given) for p in range(len(names))]
        self.apart = list(zip(self.of_part, longest, strict=True))
        self.together = [(slice(0, len(self.pitches)), longest[0])]  # whose durations nobody asks for

    def _longest(self, part: int, loop: bool, given: np.ndarray) -> np.ndarray:
        """(end,) longest duration of a part's note at each time, in steps, at least 1."""
        v, steps = self.vocabulary, self.vocabulary.steps_per_bar
        times = np.arange(self.end)
        ends = times + v.max_duration_steps
        if loop:
            ends = np.minimum(ends, self.end)
        if part in self.monophonic:
            own = given[v.part_of_id[given[:, PITCH_INSTRUMENT]] == part]
            begins = np.sort((own[:, BAR] - FIRST_ID) * steps + own[:, START_POS] - FIRST_ID)
            following = np.append(begins, ends[-1])[np.searchsorted(begins, times, side="right")]
            ends = np.minimum(ends, following)
        made = {p for p, ids in enumerate(self.of_part) if self.pitches[ids].any()}
        if made <= set(self.monophonic):  # a bar that must have a note needs a moment when none rings on
            bars = times // steps
            if self.config.no_empty_bars:
                ends = np.where((bars + 1) * steps < self.end, np.minimum(ends, (bars + 2) * steps - 1), ends)
            if self.exact:
                ends = np.where((bars + 1) * steps < self.end, np.minimum(ends, self.end - 1), ends)
        return ends - times

    # ------------------------------------------------------------ masks

    def may_end(self, so_far: SoFar) -> bool:
        """Whether the song may end here although notes could follow: given ones perhaps, after bars left empty."""
        if self.gaps and so_far.time < self.gaps[-1] * self.vocabulary.steps_per_bar:
            return False
        return not self.exact or self.last_bar_id - FIRST_ID in self.sounding_bars or self.in_last_bar(so_far)

    @property
    def last_bar_id(self) -> int:
        return self.end // self.vocabulary.steps_per_bar - 1 + FIRST_ID

    def in_last_bar(self, so_far: SoFar) -> bool:
        return so_far.time >= self.end - self.vocabulary.steps_per_bar

    def stretches(self, so_far: SoFar) -> list[Stretch]:
        """When which pitches may be struck next."""
        steps = self.vocabulary.steps_per_bar
        begin, end = max(self.first, so_far.time), self.end
        if self.config.no_empty_bars:
            bar = so_far.time // steps + 1 if so_far.time >= self.first else self.first // steps
            while bar in self.sounding_bars:
                bar += 1
            end = min(end, (bar + 1) * steps)
        if self.at_once and so_far.time == NEVER:
            end = begin + 1
        next_bar = (so_far.time // steps + 1) * steps
        ringing = [so_far.rings_until[p] for p in self.monophonic]
        cuts = {begin, end, so_far.time + 1, next_bar, *ringing}
        if self.of_chord is not None:
            cuts |= set(range(begin - begin % self.half_bar, end, self.half_bar))
        return [Stretch(first, last, self._pitches_at(first, so_far, next_bar))
                for first, last in itertools.pairwise(sorted(cut for cut in cuts if begin <= cut <= end))]

    def _pitches_at(self, time: int, so_far: SoFar, next_bar: int) -> np.ndarray:
        """(V,) pitches that may be struck at a time."""
        allowed, names = self.pitches.copy(), self.vocabulary.part_names
        if self.of_chord is not None:
            allowed |= self.of_chord[time // self.half_bar]
        if time == so_far.time:
            allowed[:so_far.pitch + 1] = False
        for p, (name, ids) in enumerate(zip(names, self.of_part, strict=True)):
            full_chord = time == so_far.time and so_far.struck[p] >= self.config.max_chord.get(name, np.inf)
            full_bar = time < next_bar and so_far.in_bar[p] >= self.config.max_per_bar.get(name, np.inf)
            if full_chord or full_bar or (p in self.monophonic and time < so_far.rings_until[p]):
                allowed[ids] = False
        return allowed

    def mask(self, family: int, chosen: dict[int, int], stretches: list[Stretch], may_end: bool) -> np.ndarray:
        """(V_f,) bool: the ids of `family` after which a valid note is left, given those `chosen` of it already.

        With nothing chosen yet EOS as well, where the song `may_end` or nothing is left.
        """
        allowed, steps = np.zeros(self.vocabulary.sizes[family], bool), self.vocabulary.steps_per_bar
        for times, ids, pitches, longest in self._options(chosen, stretches, apart=family == NOTE_DUR):
            if family == BAR:
                allowed[FIRST_ID + times // steps] = True
            elif family == START_POS:
                allowed[FIRST_ID + times % steps] = True
            elif family == NOTE_DUR:
                allowed[FIRST_ID:FIRST_ID + longest[times].max()] = True
            else:
                allowed[ids] |= pitches
        if not chosen:
            allowed[EOS] = may_end or not allowed.any()
        return allowed

    def _options(self, chosen: dict[int, int], stretches: list[Stretch], apart: bool,
                 ) -> Iterator[tuple[np.ndarray, slice, np.ndarray, np.ndarray]]:
        """What fits the ids chosen: times, the pitches that may be struck at each of them, and how long they may last.

        Yields:
            times (N,), the ids of a part (or of all, unless parts are to be told `apart`), whether each of them is
            allowed, and the longest durations by time.
        """
        steps = self.vocabulary.steps_per_bar
        bar = (chosen.get(BAR, FIRST_ID) - FIRST_ID) * steps
        bar_end = bar + steps if BAR in chosen else self.end
        for begin, end, pitches in stretches:
            times = np.arange(max(begin, bar), min(end, bar_end))
            if START_POS in chosen:
                times = times[times % steps == chosen[START_POS] - FIRST_ID]
            for ids, longest in self.apart if apart or NOTE_DUR in chosen else self.together:
                times_left = times[longest[times] > chosen[NOTE_DUR] - FIRST_ID] if NOTE_DUR in chosen else times
                fits = pitches[ids]
                if PITCH_INSTRUMENT in chosen:
                    fits = fits & (np.arange(ids.start, ids.stop) == chosen[PITCH_INSTRUMENT])
                if len(times_left) and fits.any():
                    yield times_left, ids, fits, longest


def allowed_pitches(vocabulary: Vocabulary, config: RuleConfig, parts: Sequence[str]) -> np.ndarray:
    """(V,) bool: the pitch_instrument ids that `parts` may play by the rules that hold at all times.

    Raises UserError if they leave one of them nothing.
    """
    allowed = np.zeros(vocabulary.sizes[PITCH_INSTRUMENT], bool)
    for p, part in enumerate(vocabulary.parts):
        if part.name not in parts:
            continue
        ids = vocabulary.part_of_id == p
        said = []
        if part.name in config.pitches:
            said.append(f"pitches {config.pitches[part.name]}")
            ids &= np.isin(vocabulary.pitch_of_id, list(pitch_set(config.pitches[part.name])))
        if config.key and not part.is_drum:
            said.append(f"the key {config.key} {config.scale}")
            ids &= np.isin(vocabulary.pitch_of_id % OCTAVE, list(scale_pitch_classes(config.key, config.scale)))
        if not ids.any():
            raise UserError(f"rules: {' and '.join(said)} leave {part.name} no pitch of its range, "
                            f"{part.lowest_pitch} to {part.highest_pitch}; widen them")
        allowed |= ids
    return allowed


def chord_tones(chords: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """(H, V) bool: the pitch_instrument ids of all parts but drums that belong to each of (H, 3) chords."""
    melodic = [p for p, part in enumerate(vocabulary.parts) if not part.is_drum]
    is_melodic = np.isin(vocabulary.part_of_id, melodic)
    classes = vocabulary.pitch_of_id % OCTAVE
    distinct, which = np.unique(chords, axis=0, return_inverse=True)
    tones = np.stack([np.isin(classes, list(chord_pitch_classes(chord))) & is_melodic for chord in distinct])
    return tones[which.reshape(-1)]


def _check_parts(vocabulary: Vocabulary, config: RuleConfig, parts: Sequence[str]) -> None:
    """Raise UserError if rules or `parts` name a part that the vocabulary has not."""
    for name in (*parts, *config.pitches, *config.monophonic, *config.max_chord, *config.max_per_bar):
        if name not in vocabulary.part_names:
            raise UserError(f"unknown part {name!r}; the model plays {', '.join(vocabulary.part_names)}")

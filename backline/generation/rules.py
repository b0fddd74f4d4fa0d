"""What may come next in a song: masks over the ids of one family after another.

The masks are exact in any order of families.

A valid note is later than the one before, by (bar, start_pos, pitch_instrument), and keeps the
song's rules. A mask allows an id only if a valid note can be completed from it, so sampling never
meets a dead end. Times are in steps of the grid, counted from the beginning of bar 0.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backline.common.errors import UserError
from backline.generation.config import RuleConfig
from backline.music.chords import HALVES_PER_BAR, chord_pitch_classes
from backline.music.theory import OCTAVE, pitch_set, scale_pitch_classes
from backline.music.vocab import (
    BAR,
    EOS,
    FIELDS,
    FIRST_ID,
    NOTE_DUR,
    PITCH_INSTRUMENT,
    START_POS,
    Vocabulary,
)

BEFORE_ALL = -1  # a time before all others


# ---------------------------------------------------------------- what was played


@dataclasses.dataclass(frozen=True)
class History:
    """What the rules need to know of the notes so far; tuples hold a number per part."""

    time: int  # of the last note
    pitch: int  # its id
    onsets: tuple[int, ...]  # notes that began with it, it included
    in_bar: tuple[int, ...]  # notes of its bar
    rings_until: tuple[int, ...]  # when the part's notes have all ended

    @classmethod
    def nothing(cls, vocabulary: Vocabulary) -> History:
        """That of a song without notes."""
        none = (0,) * len(vocabulary.parts)
        return cls(BEFORE_ALL, FIRST_ID - 1, none, none, none)

    def after(self, note: Sequence[int], vocabulary: Vocabulary) -> History:
        """The history with one more note, a row of ids."""
        time = onset(note, vocabulary)
        pitch = int(note[PITCH_INSTRUMENT])
        part = int(vocabulary.part_of_id[pitch])
        bar = time // vocabulary.steps_per_bar
        same_bar = self.time != BEFORE_ALL and bar == self.time // vocabulary.steps_per_bar
        none = (0,) * len(self.onsets)
        onsets = self.onsets if time == self.time else none
        in_bar = self.in_bar if same_bar else none
        duration = int(note[NOTE_DUR]) - FIRST_ID + 1
        end = max(self.rings_until[part], time + duration)
        return History(
            time=time,
            pitch=pitch,
            onsets=_replaced(onsets, part, onsets[part] + 1),
            in_bar=_replaced(in_bar, part, in_bar[part] + 1),
            rings_until=_replaced(self.rings_until, part, end),
        )


def _replaced(numbers: tuple[int, ...], part: int, number: int) -> tuple[int, ...]:
    """`numbers` with `number` in the place of a part's."""
    return (*numbers[:part], number, *numbers[part + 1:])


def onset(note: Sequence[int], vocabulary: Vocabulary) -> int:
    """When a note, a row of ids, begins, in steps from the beginning of bar 0."""
    bar = int(note[BAR]) - FIRST_ID
    step = int(note[START_POS]) - FIRST_ID
    return bar * vocabulary.steps_per_bar + step


# ---------------------------------------------------------------- what may follow


@dataclasses.dataclass(frozen=True)
class Passage:
    """What of a song is made, and what is already there.

    end_bar, first_bar: notes are made in the bars from `first_bar` to before `end_bar`, from 0.
    kept_bars: bars among these in which no note is made.
    parts: those that are made; () means all.
    exact: the last bar holds a note, whoever plays it, before the song may end.
    loop: no note rings on past the end.
    at_once: the first of all notes begins with `first_bar`.
    given: (N, F) rows that sound besides, None for none; their bars are not empty, and notes of a
        monophonic part end before its given ones begin.
    chords: (2 · end_bar, 3) ids of the chord of each half bar: its notes are allowed outside the
        key too.
    held: (H, 3) ids of pitches that kept notes ring on with, and the steps from and until which: none
        of them is struck between, nor another of a monophonic part.
    """

    end_bar: int
    first_bar: int = 0
    kept_bars: tuple[int, ...] = ()
    parts: Sequence[str] = ()
    exact: bool = False
    loop: bool = False
    at_once: bool = False
    given: np.ndarray | None = None
    chords: np.ndarray | None = None
    held: np.ndarray | None = None


class TimeSpan(NamedTuple):
    """Times [begin, end) at which a note of the same pitches may begin."""

    begin: int
    end: int
    pitches: np.ndarray  # (V,) bool
    parts: Sequence[int]  # that have such pitches


class Rules:
    """The rules of one song, or of the passage of it that is made."""

    def __init__(self,
                 vocabulary: Vocabulary,
                 config: RuleConfig,
                 passage: Passage) -> None:
        """Raises UserError: the rules name an unknown part or pitch, or leave a part no pitch."""
        _check_parts(vocabulary, config, passage.parts)
        self.vocabulary = vocabulary
        self.config = config
        self.parts = tuple(passage.parts) or vocabulary.part_names  # that are made
        self.exact = passage.exact
        self.loop = passage.loop
        self.at_once = passage.at_once
        nothing = np.zeros((0, len(FIELDS)), np.int64)
        self.given = nothing if passage.given is None else passage.given
        self.first = passage.first_bar * vocabulary.steps_per_bar
        self.end = passage.end_bar * vocabulary.steps_per_bar

        self.ids_of_part = []
        for first, part in zip(vocabulary.first_pitch_ids, vocabulary.parts, strict=True):
            ids = slice(first, first + part.n_pitches)
            self.ids_of_part.append(ids)
        self.pitches = allowed_pitches(vocabulary, config, self.parts)  # (V,) bool
        names = enumerate(vocabulary.part_names)
        self.monophonic = [p for p, name in names if name in config.monophonic]
        self.held = [] if passage.held is None else passage.held.tolist()
        self.half_bar = vocabulary.steps_per_bar // HALVES_PER_BAR  # steps
        self.max_chord = [config.max_chord.get(part, np.inf) for part in vocabulary.part_names]
        self.max_per_bar = [config.max_per_bar.get(part, np.inf) for part in vocabulary.part_names]
        self.limited_parts = [p for p, name in enumerate(vocabulary.part_names)
                              if name in {*config.max_chord, *config.max_per_bar, *config.monophonic}]
        self.chord_pitches = self._chord_pitches(passage.chords)
        self.kept_bars = frozenset(passage.kept_bars)
        self.sounding_bars = self.kept_bars.union((self.given[:, BAR] - FIRST_ID).tolist())
        self.gaps = self._gaps(range(passage.first_bar, passage.end_bar))
        # For each part, by the time at which a note begins: its longest duration in steps.
        self.longest = [self._longest(p).tolist() for p in range(len(vocabulary.parts))]
        self.parts_with_pitches = self._parts_of(self.pitches)

    def _chord_pitches(self, chords: np.ndarray | None) -> np.ndarray | None:
        """(2 · end_bar, V) bool: pitches that `chords` allow outside the key; None without either."""
        if chords is None or not self.config.key:
            return None
        without_key = dataclasses.replace(self.config, key="")
        in_any_key = allowed_pitches(self.vocabulary, without_key, self.parts)
        return in_any_key & chord_tones(chords, self.vocabulary)

    def _gaps(self, bars: range) -> list[int]:
        """Bars that new notes must fill, as given notes leave them empty."""
        if not self.config.no_empty_bars or not len(self.given):
            return []
        return sorted(set(bars) - self.sounding_bars)

    def _longest(self, part: int) -> np.ndarray:
        """(end,) longest duration of a part's note at each time, in steps, at least 1."""
        v = self.vocabulary
        times = np.arange(self.end)
        ends = times + v.max_duration_steps
        if self.loop:
            ends = np.minimum(ends, self.end)
        if part in self.monophonic:
            onsets = self._given_onsets(part)
            place = np.searchsorted(onsets, times, side="right")
            next_onset = np.append(onsets, ends[-1])[place]
            ends = np.minimum(ends, next_onset)
        made = {p
                for p, ids in enumerate(self.ids_of_part)
                if self.pitches[ids].any()}
        if made <= set(self.monophonic):
            # A bar that must have a note needs a moment in which no part still rings.
            next_bar = (times // v.steps_per_bar + 1) * v.steps_per_bar
            in_last_bar = next_bar >= self.end
            if self.config.no_empty_bars:
                end_of_next = next_bar + v.steps_per_bar - 1
                ends = np.where(in_last_bar, ends, np.minimum(ends, end_of_next))
            if self.exact:
                ends = np.where(in_last_bar, ends, np.minimum(ends, self.end - 1))
        return ends - times

    def _given_onsets(self, part: int) -> np.ndarray:
        """When a part's given notes begin, in steps, sorted."""
        v = self.vocabulary
        parts = v.part_of_id[self.given[:, PITCH_INSTRUMENT]]
        own = self.given[parts == part] - FIRST_ID
        onsets = own[:, BAR] * v.steps_per_bar + own[:, START_POS]
        return np.sort(onsets)

    # ------------------------------------------------------------ masks

    def may_end(self, history: History) -> bool:
        """Whether EOS is allowed here although more notes would be valid."""
        if self.gaps:
            last_gap = self.gaps[-1] * self.vocabulary.steps_per_bar
            if history.time < last_gap:
                return False
        last_bar_sounds = self.last_bar_id - FIRST_ID in self.sounding_bars
        return not self.exact or last_bar_sounds or self.in_last_bar(history)

    @property
    def last_bar_id(self) -> int:
        """The id of the last bar that is made."""
        n_bars = self.end // self.vocabulary.steps_per_bar
        return FIRST_ID + n_bars - 1

    def in_last_bar(self, history: History) -> bool:
        """Whether the last note begins in the last bar that is made, or later."""
        return history.time >= self.end - self.vocabulary.steps_per_bar

    def time_spans(self, history: History) -> list[TimeSpan]:
        """The time spans in which the next note may start, with the pitches allowed in each."""
        steps = self.vocabulary.steps_per_bar
        begin = max(self.first, history.time)
        end = self.end
        if self.config.no_empty_bars:
            end = min(end, self._end_of_next_silent_bar(history))
        if self.at_once and history.time == BEFORE_ALL:
            end = begin + 1
        next_bar = (history.time // steps + 1) * steps
        ringing = [history.rings_until[p] for p in self.monophonic]
        cuts = {begin, end, history.time + 1, next_bar, *ringing}
        for _, since, until in self.held:
            cuts |= {since, until}
        for bar in self.kept_bars:
            cuts |= {bar * steps, (bar + 1) * steps}
        if self.chord_pitches is not None:
            cuts |= set(range(begin - begin % self.half_bar, end, self.half_bar))
        inside = sorted(cut for cut in cuts if begin <= cut <= end)
        return [self._span(first, last, history, next_bar)
                for first, last in itertools.pairwise(inside)
                if first // steps not in self.kept_bars]

    def _span(self, begin: int, end: int, history: History, next_bar: int) -> TimeSpan:
        """The span from `begin` to before `end`; the next bar begins at `next_bar`."""
        pitches = self._pitches_at(begin, history, next_bar)
        parts = self.parts_with_pitches
        if pitches is not self.pitches:
            parts = self._parts_of(pitches)
        return TimeSpan(begin, end, pitches, parts)

    def _parts_of(self, pitches: np.ndarray) -> list[int]:
        """The parts with pitches among (V,) bool."""
        return [p for p, ids in enumerate(self.ids_of_part) if pitches[ids].any()]

    def _end_of_next_silent_bar(self, history: History) -> int:
        """The end of the next bar without given notes, after the bar of the last note."""
        steps = self.vocabulary.steps_per_bar
        bar = self.first // steps
        if history.time >= self.first:
            bar = history.time // steps + 1
        while bar in self.sounding_bars:
            bar += 1
        return (bar + 1) * steps

    def _pitches_at(self, time: int, history: History, next_bar: int) -> np.ndarray:
        """(V,) bool: pitches of notes that may begin at `time`; the next bar begins at `next_bar`."""
        silent = self._silent_parts(time, history, next_bar)
        is_same_moment = time == history.time
        held = [pitch for pitch, since, until in self.held if since <= time < until]
        if not silent and not is_same_moment and not held and self.chord_pitches is None:
            return self.pitches
        allowed = self.pitches.copy()
        if self.chord_pitches is not None:
            allowed |= self.chord_pitches[time // self.half_bar]
        allowed[held] = False
        if is_same_moment:
            allowed[:history.pitch + 1] = False
        held_parts = {int(self.vocabulary.part_of_id[pitch]) for pitch in held}
        for p in {*silent, *held_parts.intersection(self.monophonic)}:
            allowed[self.ids_of_part[p]] = False
        return allowed

    def _silent_parts(self, time: int, history: History, next_bar: int) -> list[int]:
        """Parts that may begin no note at `time`."""
        return [p for p in self.limited_parts
                if (time == history.time and history.onsets[p] >= self.max_chord[p])
                or (time < next_bar and history.in_bar[p] >= self.max_per_bar[p])
                or (p in self.monophonic and time < history.rings_until[p])]

    def allow(
        self,
        allowed: np.ndarray,
        family: int,
        chosen: dict[int, int],
        spans: list[TimeSpan],
        may_end: bool,
    ) -> None:
        """Mark the ids of `family` from which a valid note can be completed.

        Args:
            allowed: (V_f,) bool, none marked yet.
            chosen: the note's ids that are drawn already, by family; with none EOS is allowed as
                well, if the song `may_end` or nothing is left.
            spans: see `time_spans`.
        """
        for span in spans:
            times = self._times_left(span, chosen)
            parts = self._parts_left(span, chosen)
            if not times or not parts:
                continue
            if NOTE_DUR in chosen:
                self._allow_with_duration(allowed, family, chosen, times, span)
            elif family == NOTE_DUR:
                longest = max(self._longest_from(times, p) for p in parts)
                allowed[FIRST_ID:FIRST_ID + longest] = True
            elif family == PITCH_INSTRUMENT:
                allowed |= span.pitches
            else:
                self._allow_times(allowed, family, times)
        if not chosen:
            allowed[EOS] = may_end or not allowed.any()

    def _times_left(self, span: TimeSpan, chosen: dict[int, int]) -> range:
        """The times of a span that fit the bar and start_pos `chosen`."""
        steps = self.vocabulary.steps_per_bar
        begin = span.begin
        end = span.end
        if BAR in chosen:
            bar_begin = (chosen[BAR] - FIRST_ID) * steps
            begin = max(begin, bar_begin)
            end = min(end, bar_begin + steps)
        if START_POS not in chosen:
            return range(begin, end)
        step = chosen[START_POS] - FIRST_ID
        return range(begin + (step - begin) % steps, end, steps)

    def _parts_left(self, span: TimeSpan, chosen: dict[int, int]) -> Sequence[int]:
        """The parts that may begin a note in a span, with the pitch `chosen`."""
        if PITCH_INSTRUMENT not in chosen:
            return span.parts
        pitch = chosen[PITCH_INSTRUMENT]
        return [int(self.vocabulary.part_of_id[pitch])] if span.pitches[pitch] else []

    def _longest_from(self, times: range, part: int) -> int:
        """The longest duration of a part's note that begins at one of `times`, in steps."""
        return max(self.longest[part][times.start:times.stop:times.step])

    def _allow_times(self, allowed: np.ndarray, family: int, times: Sequence[int]) -> None:
        """Mark the ids of `family`, bars or steps, that `times` have, one at least."""
        steps = self.vocabulary.steps_per_bar
        first = FIRST_ID + times[0] % steps
        if family == BAR:
            first_bar = FIRST_ID + times[0] // steps
            last_bar = FIRST_ID + times[-1] // steps
            allowed[first_bar:last_bar + 1] = True
        elif times[-1] - times[0] == len(times) - 1 and first + len(times) <= len(allowed):
            allowed[first:first + len(times)] = True
        else:
            allowed[[FIRST_ID + time % steps for time in times]] = True

    def _allow_with_duration(
        self,
        allowed: np.ndarray,
        family: int,
        chosen: dict[int, int],
        times: range,
        span: TimeSpan,
    ) -> None:
        """As `allow`, for the `times` of one span, where a duration is chosen."""
        duration = chosen[NOTE_DUR] - FIRST_ID + 1
        for p in self._parts_left(span, chosen):
            longest = self.longest[p]
            fitting = [time for time in times if longest[time] >= duration]
            if not fitting:
                continue
            if family == PITCH_INSTRUMENT:
                ids = self.ids_of_part[p]
                allowed[ids] |= span.pitches[ids]
            else:
                for time in fitting:
                    self._allow_times(allowed, family, [time])


def allowed_pitches(vocabulary: Vocabulary,
                    config: RuleConfig,
                    parts: Sequence[str]) -> np.ndarray:
    """(V,) bool: pitch_instrument ids that `parts` may play, by the rules that hold at all times.

    Raises UserError if the rules leave a part no pitch.
    """
    allowed = np.zeros(vocabulary.sizes[PITCH_INSTRUMENT], bool)
    for p, part in enumerate(vocabulary.parts):
        if part.name not in parts:
            continue
        ids = (vocabulary.part_of_id == p) & ~vocabulary.is_taken
        named = []  # the rules that count for it, for the message
        if part.name in config.pitches:
            named.append(f"pitches {config.pitches[part.name]}")
            pitches = pitch_set(config.pitches[part.name])
            ids &= np.isin(vocabulary.pitch_of_id, list(pitches))
        if config.key and not part.is_drum:
            named.append(f"the key {config.key} {config.scale}")
            in_scale = scale_pitch_classes(config.key, config.scale)
            ids &= np.isin(vocabulary.pitch_of_id % OCTAVE, list(in_scale))
        if not ids.any():
            raise UserError(f"rules: {' and '.join(named)} leave {part.name} no pitch of "
                            f"its range, {part.lowest_pitch} to {part.highest_pitch}; widen them")
        allowed |= ids
    return allowed


def chord_tones(chords: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """(H, V) bool: for each of (H, 3) chords its pitch_instrument ids, those of drums left out."""
    melodic = [p for p, part in enumerate(vocabulary.parts) if not part.is_drum]
    is_melodic = np.isin(vocabulary.part_of_id, melodic)
    classes = vocabulary.pitch_of_id % OCTAVE
    distinct, which = np.unique(chords, axis=0, return_inverse=True)
    tones = []
    for chord in distinct:
        in_chord = np.isin(classes, list(chord_pitch_classes(chord)))
        tones.append(is_melodic & in_chord)
    return np.stack(tones)[which.reshape(-1)]


def _check_parts(vocabulary: Vocabulary,
                 config: RuleConfig,
                 parts: Sequence[str]) -> None:
    """Raise UserError if rules or `parts` name a part that the vocabulary does not have."""
    ruled = (*config.pitches, *config.monophonic, *config.max_chord, *config.max_per_bar)
    for name in (*parts, *ruled):
        if name not in vocabulary.part_names:
            known = ", ".join(vocabulary.part_names)
            raise UserError(f"unknown part {name!r}; the model plays {known}")

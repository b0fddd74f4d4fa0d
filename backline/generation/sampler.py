"""Sample songs note by note, many at once: what is valid, which of it is likely enough, and one draw.

A note is drawn family by family in the model's order. In each family the order of things is: masks (`rules.Rules`), the
filter `sampling_fn`, then `top_p` and `min_p` where they are set, the temperature, and the draw.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from backline.generation.config import GenConfig
from backline.generation.repetition import Copies
from backline.generation.rules import Rules, SoFar, Stretch
from backline.generation.telling import Told, nothing_told
from backline.layers.cache import KeyValueCache
from backline.layers.positions import bar_offsets
from backline.music.vocab import BAR, BOS, EOS, FIELDS, FIRST_ID, START_POS
from backline.training.given_tasks import GivenNotes
from model import PooledTransformer, TrunkOutput

NEXT_BARS = 4  # songs seldom rest for longer
Note = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Request:
    """One song to be made.

    rules: what its notes must keep to.
    seed: same seed, same song, on the same machine and versions, whatever else is in the batch; in int8, where what
        comes into a layer is rounded for the whole batch, only with the same songs beside it.
    prompt: (N, F) note ids in order that it goes on from; special rows left out.
    given: (M, F) note ids in order that sound besides, for a model that is trained for them.
    told: what to play, for a model with controls; None: all unknown.
    """

    rules: Rules
    seed: int
    prompt: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, len(FIELDS)), np.int64))
    given: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, len(FIELDS)), np.int64))
    told: Told | None = None


@dataclasses.dataclass(frozen=True)
class Sampled:
    """(N, F) int64 ids of the new notes, and (N,) nats that each surprised the model by, among the valid ones."""

    notes: np.ndarray
    nats: np.ndarray
    cut: int = 0  # the bar, an id, that it is cut before or in; 0: it has its own end

    def at_bar_line(self, most: int) -> Sampled:
        """The whole bars of it that `most` notes hold, or, where they are not enough for one bar, these notes."""
        if len(self.notes) <= most:
            return self
        bars = self.notes[:, BAR]
        n = int((bars < bars[most]).sum()) or most
        return Sampled(self.notes[:n], self.nats[:n], cut=int(bars[most]))


# ---------------------------------------------------------------- what is likely enough


def filtered(logits: np.ndarray, sampling_fn: str, threshold: float) -> np.ndarray:
    """(B, V) logits with those that the filter removes set to −inf; see `GenConfig` for what `threshold` means.

    Ids masked before (−inf) stay so; the most likely id always stays.
    """
    if sampling_fn == "top_k":
        n_ids = logits.shape[1]
        keep = max(1, math.ceil(round((1 - threshold) * n_ids, 6)))  # rounded: 1 − 0.9 is not exactly a tenth
        least = np.partition(logits, n_ids - keep, axis=1)[:, n_ids - keep, None]
        return np.where(logits < least, -np.inf, logits)
    if sampling_fn == "top_p":
        probabilities = softmax(logits)
        order = np.argsort(-probabilities, axis=1, kind="stable")
        sorted_ = np.take_along_axis(probabilities, order, 1)
        beyond = sorted_.cumsum(1) - sorted_ >= threshold  # the mass before it is enough already
        beyond[:, 0] = False
        removed = np.zeros_like(beyond)
        np.put_along_axis(removed, order, beyond, 1)
        return np.where(removed, -np.inf, logits)
    if sampling_fn == "min_p":
        probabilities = softmax(logits)
        return np.where(probabilities < threshold * probabilities.max(1, keepdims=True), -np.inf, logits)
    return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    """(B, V) probabilities of (B, V) logits, of which one per row at least is finite."""
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def draw(logits: np.ndarray, family: int, config: GenConfig, uniform: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(B,) ids of `family` drawn from masked (B, V) logits.

    Args:
        uniform: (B,) numbers from 0 to below 1.
        heat: (B,) what the temperature is multiplied by.
    """
    logits = filtered(logits, config.sampling_fn, config.threshold[family])
    for name in ("top_p", "min_p"):
        if getattr(config, name):
            logits = filtered(logits, name, getattr(config, name)[family])
    temperature = config.temperature[family] * heat[:, None]
    logits = (logits - logits.max(1, keepdims=True)) / temperature  # of all sizes, without overflow
    mass = softmax(logits).cumsum(1)
    return (mass <= uniform[:, None] * mass[:, -1:]).sum(1)


def end_beyond(logits: np.ndarray, last_bar: int) -> None:
    """Count wanting to go on from `last_bar`, an id, as wanting the end: in (V,) bar logits, in place.

    Masked without this, that wish would go to the last bar, and crowd it with notes. Only the bars right after it
    count: what a model spreads over all the far ones is noise, and would end songs early.
    """
    wishes = np.append(logits[last_bar + 1:last_bar + 1 + NEXT_BARS], logits[EOS])
    if wishes.max() > -np.inf:
        logits[EOS] = np.logaddexp.reduce(wishes)


# ---------------------------------------------------------------- one song under way


def window_start(n_rows: int, block_size: int) -> int:
    """How many of `n_rows` rows read are forgotten: when the context is full, its oldest half is dropped."""
    half = max(block_size // 2, 1)
    return half * -(-(n_rows - block_size) // half) if n_rows > block_size else 0


class Rows(NamedTuple):
    """Rows of one song that the model reads."""

    notes: list[Note]
    flags: list[bool]  # which of them are given
    sheet: np.ndarray  # (N, S) uint8 ids of the controls that come with them
    bar_offset: int  # what the model's bars are less than the song's


class Song:
    """A song under way: what is read, what is drawn, and what may come next."""

    def __init__(self, request: Request, model: PooledTransformer) -> None:
        self.rules, self.random = request.rules, np.random.default_rng(request.seed)
        self.vocabulary = v = request.rules.vocabulary
        self.given = GivenNotes(request.given, model.config.lookahead_bars)
        self.rows: list[Note] = []  # all that is read, in the order of reading, given notes where they are due
        self.flags: list[bool] = []  # which of them are given
        self.bars: list[int] = []  # for each of them, the bar of the last note made, from 0
        self.told = request.told if request.told is not None else nothing_told(v)
        self.start = 0  # rows before it are forgotten
        self.bar_offset = 0  # what the model's bars are less than the song's, if they are relative
        self.counted_from: int | None = None  # the `start` that this is of
        self.so_far, self.copies = SoFar.nothing(v), Copies()
        self.notes: list[Note] = []
        self.nats: list[float] = []
        self._read([(BOS,) * len(FIELDS)], given=False)
        self._read(self.given.due(0), given=True)
        for note in request.prompt.tolist():
            self.add(tuple(note))

    def _read(self, rows: list[Note], given: bool) -> None:
        self.rows += rows
        self.flags += [given] * len(rows)
        bar = max(self.so_far.time, 0) // self.vocabulary.steps_per_bar
        self.bars += [bar] * len(rows)

    def add(self, note: Note) -> None:
        """One more note, of the prompt or drawn."""
        self.so_far = self.so_far.after(note, self.vocabulary)
        self.copies.add(note)
        self._read([note], given=False)
        self._read(self.given.due(self.so_far.time // self.vocabulary.steps_per_bar), given=True)

    def count_bars(self) -> None:
        """Take the bars of a window that has another beginning than the last from the lowest of it.

        Where all its rows are given ones, notes are still to be made in earlier bars.
        """
        if self.counted_from != self.start:
            next_bar = max(self.so_far.time, self.rules.first) // self.vocabulary.steps_per_bar
            self.bar_offset = min(int(bar_offsets(torch.tensor([self.rows[self.start:]]))), next_bar)
            self.counted_from = self.start

    def newest(self, count: int) -> Rows:
        """The last `count` rows read."""
        return self._from(len(self.rows) - count)

    def window(self) -> Rows:
        """The rows that are not forgotten."""
        return self._from(self.start)

    def _from(self, first: int) -> Rows:
        return Rows(self.rows[first:], self.flags[first:], self.told.by_bar[self.bars[first:]], self.bar_offset)

    def chord(self, chosen: dict[int, int]) -> np.ndarray:
        """(3,) ids of the chord told for the time `chosen`."""
        return self.told.chord_at(chosen[BAR], chosen[START_POS], self.vocabulary)


# ---------------------------------------------------------------- reading


class Reader:
    """Reads what is new of each song and says what the model makes of it.

    With or without a cache of keys and values, alone or in a batch, a song's window is the same, and so is its reading.
    """

    def __init__(self, model: PooledTransformer, cached: bool = True) -> None:
        self.model, self.cached = model, cached
        self.cache: KeyValueCache | None = None
        self.device = model.in_norm.weight.device

    def read(self, songs: Sequence[Song], new: Sequence[int]) -> TrunkOutput:
        """The reading of each song's last row, given that its last `new` rows are not read yet."""
        if self.cache is None:
            self.cache = self.model.new_cache(len(songs))
        block_size = self.model.config.block_size
        starts = [window_start(len(song.rows), block_size) for song in songs]
        whole = [b for b, song in enumerate(songs)
                 if not self.cached or not self.cache.lengths[b] or starts[b] != song.start]
        states = torch.zeros((len(songs), 1, self.model.config.d_model), device=self.device,
                             dtype=self.model.in_norm.weight.dtype)
        if len(whole) < len(songs):
            counts = [0 if b in whole else count for b, count in enumerate(new)]
            newest = [song.newest(count) for song, count in zip(songs, counts, strict=True)]
            states = self._states(newest, self.cache)
        if whole:
            for b in whole:
                songs[b].start = starts[b]
            states[whole] = self._read_windows([songs[b] for b in whole], whole)
        return self.model.last_read(states, self.cache)

    def _read_windows(self, songs: Sequence[Song], places: Sequence[int]) -> Tensor:
        """Read windows from their beginnings, equal ones once; returns the last states (B, 1, D)."""
        if self.model.config.bars == "relative":
            for song in songs:
                song.count_bars()
        windows = [song.window() for song in songs]
        distinct: dict[tuple, int] = {}
        sources = [distinct.setdefault((rows.bar_offset, *rows.notes, *rows.flags, rows.sheet.tobytes()), len(distinct))
                   for rows in windows]
        firsts = [sources.index(i) for i in range(len(distinct))]
        cache = self.model.new_cache(len(firsts))
        states = self._states([windows[i] for i in firsts], cache)
        self.cache.replace(places, cache, sources)
        return states[sources]

    def _states(self, songs: Sequence[Rows], cache: KeyValueCache) -> Tensor:
        """Read rows of each song, as many as it has; returns the trunk's states of the last, (B, 1, D)."""
        counts = [len(rows.notes) for rows in songs]
        longest = max(counts)
        fill = (BOS,) * len(FIELDS)
        ids = torch.tensor([rows.notes + [fill] * (longest - len(rows.notes)) for rows in songs])
        offsets = torch.tensor([rows.bar_offset for rows in songs])[:, None]
        ids[..., BAR] -= offsets * (ids[..., BAR] >= FIRST_ID)
        given = torch.tensor([rows.flags + [False] * (longest - len(rows.flags)) for rows in songs])
        sheet = None
        if self.model.config.controls:
            padded = [np.pad(rows.sheet, ((0, longest - len(rows.sheet)), (0, 0))) for rows in songs]
            sheet = torch.from_numpy(np.stack(padded)).long().to(self.device)  # (B, T, S)
        states = self.model.read(ids.to(self.device), cache, counts, given.to(self.device), sheet).states
        last = torch.tensor(counts, device=self.device).clamp(min=1) - 1
        return states[torch.arange(len(songs), device=self.device), last][:, None]


# ---------------------------------------------------------------- many songs


@torch.inference_mode()
def sample_songs(model: PooledTransformer, requests: Sequence[Request], config: GenConfig, cached: bool = True,
                 on_note: Callable[[], object] = lambda: None) -> list[Sampled]:
    """Make songs in one batch, which those that end leave.

    Args:
        model: in evaluation mode.
        config: of its `max_steps` 0 sets no limit.
        cached: keep keys and values of the notes read; the slow way without gives the same songs.
        on_note: called after each note, for progress.
    """
    songs = [Song(request, model) for request in requests]
    reader, active, new = Reader(model, cached), list(songs), [0] * len(songs)
    for _ in range(config.max_steps) if config.max_steps else itertools.count():
        notes = _draw_notes(model, reader.read(active, new), active, config)
        going_on = [b for b, note in enumerate(notes) if note is not None]
        if not going_on:
            break
        if len(going_on) < len(active):
            reader.cache.keep(going_on)
            active = [active[b] for b in going_on]
        lengths = [len(song.rows) for song in active]
        for song, b in zip(active, going_on, strict=True):
            note, nats = notes[b]
            song.notes.append(note)
            song.nats.append(nats)
            song.add(note)
            on_note()
        new = [len(song.rows) - length for song, length in zip(active, lengths, strict=True)]
    return [Sampled(np.array(song.notes, np.int64).reshape(-1, len(FIELDS)), np.array(song.nats)) for song in songs]


def _mask(song: Song, family: int, chosen: dict[int, int], stretches: list[Stretch]) -> np.ndarray:
    """(V,) bool: what `song` may draw; all where it has ended, so that there is something to draw and throw away."""
    if EOS in chosen.values():
        return np.ones(song.vocabulary.sizes[family], bool)
    return song.rules.mask(family, chosen, stretches, may_end=bool(song.notes) and song.rules.may_end(song.so_far))


def _in_song_bars(logits: np.ndarray, offsets: Sequence[int]) -> np.ndarray:
    """(B, V) bar logits by the song's bars, of those by the model's, which are `offsets` (B,) less."""
    moved = np.full_like(logits, -np.inf)
    moved[:, :FIRST_ID] = logits[:, :FIRST_ID]
    for b, offset in enumerate(offsets):
        moved[b, FIRST_ID + offset:] = logits[b, FIRST_ID:logits.shape[1] - offset]
    return moved


def _draw_notes(model: PooledTransformer, reading: TrunkOutput, songs: Sequence[Song], config: GenConfig,
                ) -> list[tuple[Note, float] | None]:
    """The next note of each song and the nats it surprised the model by; None is the end of the song."""
    uniform = np.stack([song.random.random(len(FIELDS)) for song in songs])  # (B, F)
    heat = 1 + config.variety * np.array([song.copies.in_a_row for song in songs])
    stretches = [song.rules.stretches(song.so_far) for song in songs]
    chosen: list[dict[int, int]] = [{} for _ in songs]
    model_ids: dict[int, Tensor] = {}  # the same, in the model's bars
    nats, hidden, ended = np.zeros(len(songs)), reading.states, np.zeros(len(songs), bool)
    offsets = [song.bar_offset for song in songs]
    for k, family in enumerate(model.order):
        masks = np.stack([_mask(song, family, *told) for song, *told in zip(songs, chosen, stretches, strict=True)])
        logits = model.head(k, reading.states, hidden)[:, 0].cpu().double().numpy()
        if family == BAR:
            if k == 0:
                for song, of_song, mask in zip(songs, logits, masks, strict=True):
                    if mask[EOS] and song.rules.in_last_bar(song.so_far):
                        end_beyond(of_song, song.rules.last_bar_id - song.bar_offset)
            logits = _in_song_bars(logits, offsets)
        logits = np.where(masks, logits, -np.inf)
        drawn = draw(logits, family, config, uniform[:, family], heat)
        nats -= np.log(softmax(logits)[np.arange(len(songs)), drawn])
        if k:
            drawn[ended] = EOS
        else:
            ended = drawn == EOS
        for of_song, id_ in zip(chosen, drawn.tolist(), strict=True):
            of_song[family] = id_
        if ended.all():
            break
        if family == BAR:
            drawn = drawn - np.where(ended, 0, offsets)
        if k + 1 < len(model.order) and model.config.heads != "parallel":
            model_ids[family] = torch.from_numpy(drawn)[:, None].to(reading.states.device)
            chords = None
            if model.config.controls and k == 1:  # the time is chosen
                told = [song.chord(of_song) for song, of_song in zip(songs, chosen, strict=True)]
                chords = torch.from_numpy(np.stack(told)).long()[:, None].to(reading.states.device)
            hidden = model.advance(k, model_ids, reading, hidden, chords)
    return [None if over else (tuple(of_song[f] for f in range(len(FIELDS))), float(surprise))
            for over, of_song, surprise in zip(ended, chosen, nats, strict=True)]

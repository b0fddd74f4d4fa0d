"""Sample songs note by note, many at once: what is valid, what of it is likely enough, a draw.

A note is drawn family by family in the model's order. In each family come, in this order: masks
(`rules.Rules`), the filter `sampling_fn`, then `top_p` and `min_p` where they are set, the
temperature, and the draw (`filters.draw`).

Masks are NumPy on the CPU, and each family's logits are copied there. On a GPU these copies, one
per family of each note, and the host's masks set the speed, not the model.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from backline.generation.config import GenConfig
from backline.generation.filters import draw, end_beyond, softmax
from backline.generation.repetition import Repeats
from backline.generation.rules import History, Rules, TimeSpan
from backline.generation.telling import Told, nothing_told
from backline.layers.cache import KeyValueCache
from backline.layers.positions import bar_offsets
from backline.music.reading_order import GivenNotes
from backline.music.vocab import BAR, BOS, EOS, FIELDS, FIRST_ID, START_POS
from model import PooledTransformer, TrunkOutput

Note = tuple[int, ...]


def no_notes() -> np.ndarray:
    """(0, F) int64."""
    return np.zeros((0, len(FIELDS)), np.int64)


@dataclasses.dataclass(frozen=True)
class Request:
    """One song to be made.

    rules: what its notes must keep to.
    seed: same seed, same song, on the same machine and versions, whatever else is in the batch; in
        int8, where a layer's input is rounded for the whole batch, only with the same songs beside
        it.
    prompt: (N, F) note ids in order that it goes on from; special rows left out.
    given: (M, F) given notes, in order, that the song is played to; for a model trained for them.
    told: what to play, for a model with controls; None: all unknown.
    """

    rules: Rules
    seed: int
    prompt: np.ndarray = dataclasses.field(default_factory=no_notes)
    given: np.ndarray = dataclasses.field(default_factory=no_notes)
    told: Told | None = None


@dataclasses.dataclass(frozen=True)
class Sampled:
    """The new notes of a song.

    notes: (N, F) int64 ids.
    surprisals: (N,) surprisal of each note in nats, under the masked distribution.
    cut: the bar, an id, that the song is cut before or in; 0: it has its own end.
    """

    notes: np.ndarray
    surprisals: np.ndarray
    cut: int = 0

    def at_bar_line(self, most: int) -> Sampled:
        """The whole bars among the first `most` notes, or these notes if they fill no bar."""
        if len(self.notes) <= most:
            return self
        bars = self.notes[:, BAR]
        n = int((bars < bars[most]).sum()) or most
        return Sampled(self.notes[:n], self.surprisals[:n], cut=int(bars[most]))


# ---------------------------------------------------------------- one song under way


def window_start(n_rows: int, block_size: int) -> int:
    """How many of `n_rows` rows read are forgotten: a full context drops its oldest half."""
    half = max(block_size // 2, 1)
    return half * -(-(n_rows - block_size) // half) if n_rows > block_size else 0


class Rows(NamedTuple):
    """Rows of one song that the model reads."""

    notes: list[Note]
    flags: list[bool]  # which of them are given
    sheet: np.ndarray  # (N, S) uint8 ids of the controls that come with them
    bar_offset: int  # what to subtract from the song's bar ids to get the model's


class SongInProgress:
    """What is read of a song, what is drawn, and what may come next."""

    def __init__(self, request: Request, model: PooledTransformer) -> None:
        self.rules = request.rules
        self.random = np.random.default_rng(request.seed)
        self.vocabulary = request.rules.vocabulary
        self.given = GivenNotes(request.given, model.config.lookahead_bars)
        self.rows: list[Note] = []  # all rows read, in the order of reading, given notes where due
        self.flags: list[bool] = []  # which of them are given
        self.bars: list[int] = []  # for each of them, the bar of the last note made, from 0
        self.told = nothing_told(self.vocabulary) if request.told is None else request.told
        self.start = 0  # rows before it are forgotten
        self.bar_offset = 0  # what to subtract from the song's bar ids to get the model's
        self.counted_from: int | None = None  # the `start` that `bar_offset` belongs to
        self.history = History.nothing(self.vocabulary)
        self.repeats = Repeats()
        self.notes: list[Note] = []
        self.surprisals: list[float] = []
        self._read([(BOS,) * len(FIELDS)], given=False)
        self._read(self.given.due(0), given=True)
        for note in request.prompt.tolist():
            self.add(tuple(note))

    def _read(self, rows: list[Note], given: bool) -> None:
        self.rows += rows
        self.flags += [given] * len(rows)
        bar = max(self.history.time, 0) // self.vocabulary.steps_per_bar
        self.bars += [bar] * len(rows)

    def add(self, note: Note) -> None:
        """One more note, of the prompt or drawn."""
        self.history = self.history.after(note, self.vocabulary)
        self.repeats.add(note)
        self._read([note], given=False)
        self._read(self.given.due(self.history.time // self.vocabulary.steps_per_bar), given=True)

    def sampled(self) -> Sampled:
        """The notes drawn so far."""
        notes = np.array(self.notes, np.int64).reshape(-1, len(FIELDS))
        return Sampled(notes, np.array(self.surprisals))

    def count_bars(self) -> None:
        """When the window has moved, count its bars from its lowest one.

        Not from beyond the next bar to be made: given notes may all lie after it.
        """
        if self.counted_from != self.start:
            next_bar = max(self.history.time, self.rules.first) // self.vocabulary.steps_per_bar
            lowest_bar = int(bar_offsets(torch.tensor([self.rows[self.start:]])))
            self.bar_offset = min(lowest_bar, next_bar)
            self.counted_from = self.start

    def newest(self, count: int) -> Rows:
        """The last `count` rows read."""
        return self._from(len(self.rows) - count)

    def window(self) -> Rows:
        """The rows that are still in the context."""
        return self._from(self.start)

    def _from(self, first: int) -> Rows:
        sheet = self.told.by_bar[self.bars[first:]]
        return Rows(self.rows[first:], self.flags[first:], sheet, self.bar_offset)

    def chord(self, chosen: dict[int, int]) -> np.ndarray:
        """(3,) ids of the chord told for the time in `chosen`, ids by family."""
        return self.told.chord_at(chosen[BAR], chosen[START_POS], self.vocabulary)


# ---------------------------------------------------------------- reading


class Reader:
    """Feeds each song's new rows to the model and returns the reading.

    A song's window, and so its reading, is the same with and without a cache, alone and in a batch.
    """

    def __init__(self, model: PooledTransformer, cached: bool = True) -> None:
        self.model = model
        self.cached = cached
        self.cache: KeyValueCache | None = None
        self.device = model.in_norm.weight.device

    def read(self, songs: Sequence[SongInProgress], new: Sequence[int]) -> TrunkOutput:
        """The reading of each song's last row; `new` says how many of its last rows are unread."""
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

    def keep(self, places: list[int]) -> None:
        """Go on with the songs at these places in the batch only."""
        assert self.cache is not None
        self.cache.keep(places)

    def _read_windows(self, songs: Sequence[SongInProgress], places: Sequence[int]) -> Tensor:
        """Read whole windows, equal ones once; returns the last states (B, 1, D)."""
        if self.model.config.bars == "relative":
            for song in songs:
                song.count_bars()
        windows = [song.window() for song in songs]
        distinct: dict[tuple, int] = {}
        sources = []
        for rows in windows:
            key = (rows.bar_offset, *rows.notes, *rows.flags, rows.sheet.tobytes())
            sources.append(distinct.setdefault(key, len(distinct)))
        firsts = [sources.index(i) for i in range(len(distinct))]
        cache = self.model.new_cache(len(firsts))
        states = self._states([windows[i] for i in firsts], cache)
        assert self.cache is not None
        self.cache.replace(places, cache, sources)
        return states[sources]

    def _states(self, songs: Sequence[Rows], cache: KeyValueCache) -> Tensor:
        """Read the rows of each song; returns the trunk's states at each one's last, (B, 1, D)."""
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
def sample_songs(model: PooledTransformer, requests: Sequence[Request], config: GenConfig,
                 cached: bool = True,
                 on_note: Callable[[], object] = lambda: None) -> list[Sampled]:
    """Sample songs in one batch; finished songs drop out.

    Args:
        model: in evaluation mode.
        config: its `max_steps` of 0 sets no limit.
        cached: keep keys and values of the notes read; the slow way without gives the same songs.
        on_note: called after each note, for progress.
    """
    songs = [SongInProgress(request, model) for request in requests]
    reader = Reader(model, cached)
    active = list(songs)
    new = [0] * len(songs)
    for _ in range(config.max_steps) if config.max_steps else itertools.count():
        notes = _draw_notes(model, reader.read(active, new), active, config)
        going_on = {b: note for b, note in enumerate(notes) if note is not None}
        if not going_on:
            break
        if len(going_on) < len(active):
            reader.keep(list(going_on))
            active = [active[b] for b in going_on]
        lengths = [len(song.rows) for song in active]
        for song, (note, surprisal) in zip(active, going_on.values(), strict=True):
            song.notes.append(note)
            song.surprisals.append(surprisal)
            song.add(note)
            on_note()
        new = [len(song.rows) - length for song, length in zip(active, lengths, strict=True)]
    return [song.sampled() for song in songs]


def _mask(song: SongInProgress, family: int, chosen: dict[int, int],
          spans: list[TimeSpan]) -> np.ndarray:
    """(V,) bool: what `song` may draw; anything if it has ended, as its draws are thrown away."""
    if EOS in chosen.values():
        return np.ones(song.vocabulary.sizes[family], bool)
    may_end = bool(song.notes) and song.rules.may_end(song.history)
    return song.rules.mask(family, chosen, spans, may_end)


def _in_song_bars(logits: np.ndarray, offsets: Sequence[int]) -> np.ndarray:
    """(B, V) bar logits by the songs' bar ids, from those by the model's, `offsets` (B,) lower."""
    moved = np.full_like(logits, -np.inf)
    moved[:, :FIRST_ID] = logits[:, :FIRST_ID]
    for b, offset in enumerate(offsets):
        moved[b, FIRST_ID + offset:] = logits[b, FIRST_ID:logits.shape[1] - offset]
    return moved


def _draw_notes(model: PooledTransformer, reading: TrunkOutput, songs: Sequence[SongInProgress],
                config: GenConfig) -> list[tuple[Note, float] | None]:
    """The next note of each song and its surprisal in nats; None where the song ends."""
    uniform = np.stack([song.random.random(len(FIELDS)) for song in songs])  # (B, F)
    temperature_scale = 1 + config.variety * np.array([song.repeats.in_a_row for song in songs])
    spans = [song.rules.time_spans(song.history) for song in songs]
    chosen: list[dict[int, int]] = [{} for _ in songs]
    model_ids: dict[int, Tensor] = {}  # the same, with the model's bar ids
    surprisals = np.zeros(len(songs))
    ended = np.zeros(len(songs), bool)
    hidden = reading.states
    offsets = [song.bar_offset for song in songs]
    for k, family in enumerate(model.order):
        masks = np.stack([_mask(song, family, song_ids, song_spans)
                          for song, song_ids, song_spans in zip(songs, chosen, spans, strict=True)])
        logits = model.head(k, reading.states, hidden)[:, 0].cpu().double().numpy()
        if family == BAR:
            if k == 0:
                for song, song_logits, mask in zip(songs, logits, masks, strict=True):
                    if mask[EOS] and song.rules.in_last_bar(song.history):
                        end_beyond(song_logits, song.rules.last_bar_id - song.bar_offset)
            logits = _in_song_bars(logits, offsets)
        logits = np.where(masks, logits, -np.inf)
        drawn = draw(logits, family, config, uniform[:, family], temperature_scale)
        surprisals -= np.log(softmax(logits)[np.arange(len(songs)), drawn])
        if k:
            drawn[ended] = EOS
        else:
            ended = drawn == EOS
        for song_ids, id_ in zip(chosen, drawn.tolist(), strict=True):
            song_ids[family] = id_
        if ended.all():
            break
        if family == BAR:
            drawn = drawn - np.where(ended, 0, offsets)
        if k + 1 < len(model.order) and model.config.heads != "parallel":
            model_ids[family] = torch.from_numpy(drawn)[:, None].to(reading.states.device)
            chords = None
            if model.config.controls and k == 1:  # the time is chosen
                told = [song.chord(song_ids) for song, song_ids in zip(songs, chosen, strict=True)]
                chords = torch.from_numpy(np.stack(told)).long()[:, None].to(reading.states.device)
            hidden = model.advance(k, model_ids, reading, hidden, chords)
    return [None if over else (tuple(song_ids[f] for f in range(len(FIELDS))), float(surprisal))
            for over, song_ids, surprisal in zip(ended, chosen, surprisals, strict=True)]

"""The engine: a model that ONNX Runtime plays on a CPU, without torch.

Graphs are made of the weights when a player is made (`graphs`). Keys and values lie in NumPy arrays
that the graphs write to in place, and so do the inputs and outputs of a step (`calls`, `steps`):
nothing is handed over note by note.

Shapes: B songs, T new notes, F families, V_f ids in family f, D residual width, H heads, C width of
a head.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime

from backline.engine import graphs, positions
from backline.engine.calls import Caches
from backline.engine.player import Contexts, NewNotes
from backline.engine.steps import ChoiceCall, TrunkCall
from backline.layers.config import CONTROL_GAIN, ModelConfig
from backline.music.vocab import BAR, FIELDS, START_POS

ENGINE_DTYPES = ("fp32", "int8")
FEW_THREADS = 2  # of a small model; one song gains nothing by them, sixteen a fifth
PARAMETERS_PER_THREAD = 16_000_000  # for each further one
ERRORS_ONLY = 3  # of ONNX Runtime's levels of log lines


# ---------------------------------------------------------------- the model


class OnnxPlayer:
    """A model that ONNX Runtime plays."""

    def __init__(self,
                 config: ModelConfig,
                 weights: Mapping[str, np.ndarray],
                 dtype: str = ENGINE_DTYPES[0]) -> None:
        """A player of float32 `weights`, which `layers.shapes` lists."""
        self.config = config
        self.dtype = dtype
        self.order: Sequence[int] = graphs.family_order(config)
        self.threads = n_threads(sum(array.size for array in weights.values()))
        options = _options(self.threads)
        self.trunk = _session(graphs.trunk_graph(config, weights, dtype), options)
        self.is_parallel = config.heads == "parallel"
        n_choices = 0 if self.is_parallel else len(FIELDS) - 1
        self.choices = [_session(graphs.choice_graph(config, weights, dtype, k), options)
                        for k in range(n_choices)]
        if config.given:
            self.given_vector = weights["given"]
        if config.controls:
            self.sheet_vectors = _control_vectors(weights["sheet_vectors.vectors"])
            self.chord_vectors = _control_vectors(weights["chord_vectors.vectors"])
            self.sheet_firsts = _firsts(config.sheet_sizes)
            self.chord_firsts = _firsts(config.chord_sizes)

    @property
    def surroundings(self) -> dict[str, str]:
        """See `player.Player`."""
        return {"onnxruntime": onnxruntime.__version__,
                "device": "cpu",
                "threads": str(self.threads)}

    def contexts(self, n_songs: int) -> Contexts:
        """Contexts of songs that have read nothing."""
        return OnnxContexts(self, n_songs)

    def added(self, new: NewNotes, index: np.ndarray) -> np.ndarray:
        """(B, T, D) what is added to embedded notes; `index` (B, T) is each note's place."""
        config = self.config
        added = np.zeros((*index.shape, config.d_model), np.float32)
        if config.given:
            added[new.given] += self.given_vector
        if config.controls:
            rows = new.sheet + self.sheet_firsts             # (B, T, K)
            added += self.sheet_vectors[rows].sum(2)
        if config.positions == "sinusoidal":
            added += positions.sinusoids(index, config.d_model)
        return added

    def chord(self, ids: np.ndarray) -> np.ndarray:
        """(B, 1, D) vectors of chords (B, 3)."""
        rows = ids + self.chord_firsts
        return self.chord_vectors[rows].sum(1)[:, None]


def _control_vectors(vectors: np.ndarray) -> np.ndarray:
    return vectors * np.float32(CONTROL_GAIN)


def _firsts(sizes: Sequence[int]) -> np.ndarray:
    """(K,) the row of each control's id 0."""
    return np.cumsum((0, *sizes[:-1]))


def n_threads(n_parameters: int) -> int:
    """As many as a model of this size has work for, of those that this process may use."""
    n_cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        n_cores = len(os.sched_getaffinity(0))
    return min(n_cores, FEW_THREADS + n_parameters // PARAMETERS_PER_THREAD)


def _options(threads: int) -> onnxruntime.SessionOptions:
    onnxruntime.disable_telemetry_events()  # builds for Windows report to their maker
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # A thread that spins while it waits slows the other threads of a small machine down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return options


def _session(graph: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


# ---------------------------------------------------------------- songs


class OnnxContexts:
    """What the songs of a batch have read, and the note that is being chosen for each.

    See `player.Contexts`.
    """

    def __init__(self, player: OnnxPlayer, n_songs: int) -> None:
        self.player = player
        self._lengths = [0] * n_songs
        self.late_is_written = True
        self._use(Caches.empty(player.config, n_songs))

    @property
    def lengths(self) -> list[int]:
        """See `player.Contexts`."""
        return self._lengths

    def _use(self, caches: Caches) -> None:
        """Make ready to read a note of each song, and to choose the next, with these caches."""
        player = self.player
        self.caches = caches
        self.trunk = TrunkCall(player, caches, len(self._lengths), 1)
        self.choices: list[ChoiceCall] = []
        hidden = self.trunk.states
        for k in range(len(player.choices)):
            call = ChoiceCall(player, k, self.trunk, hidden)
            if call.looks_back:
                call.bind_late(player.config, caches, self.trunk)
            self.choices.append(call)
            hidden = call.next_hidden

    def _use_with_results(self, caches: Caches, songs: Sequence[int]) -> None:
        """The same, keeping what is known of these songs' last notes."""
        before = self.trunk.last_results()
        self._use(caches)
        for array, array_before in zip(self.trunk.last_results(), before, strict=True):
            array[:] = array_before[songs]

    def _make_room(self, n_places: int) -> None:
        """Have places for so many notes of each song."""
        capacity = self.caches.capacity
        if n_places > capacity:
            capacity = max(n_places, 2 * capacity)
            self._use_with_results(self.caches.grown(capacity), range(len(self._lengths)))

    # ------------------------------------------------------------ reading

    def read(self, new: NewNotes) -> None:
        """See `player.Contexts`."""
        self._write_late()
        if max(new.counts) == 1:
            self._read_one_each(new)
            return
        self._read_one_each(new.up_to(1))
        self._write_late()
        # Behind a cache, attention takes several notes of one song alone.
        for song, count in enumerate(new.counts):
            if count > 1:
                self._read_several(song, new.of_song(song, 1))

    def _read_one_each(self, new: NewNotes) -> None:
        """One note of each song."""
        places = np.array(self._lengths)
        self._make_room(int(places.max()) + 1)
        self.caches.reach(places)
        self.trunk.read(new, places[:, None])
        self.late_is_written = False
        self._lengths = (places + new.counts).tolist()

    def _write_late(self) -> None:
        """Have late layers see the last note of each song, if choosing a note has not done so."""
        if not self.late_is_written:
            places = self.caches.last_places
            self.trunk.write_late(self.caches, np.arange(len(places)), places)
            self.late_is_written = True

    def _read_several(self, song: int, new: NewNotes) -> None:
        """Notes of one song, behind those that it has read."""
        start = self._lengths[song]
        n_new = new.counts[0]
        end = start + n_new
        self._make_room(end)
        places = np.arange(start, end)
        caches = self.caches.of_songs(slice(song, song + 1))
        caches.reach(end - 1)
        call = TrunkCall(self.player, caches, 1, n_new)
        call.read(new, places[None])
        call.write_late(self.caches, np.full(n_new, song), places)
        results = zip(self.trunk.last_results(), call.last_results(), strict=True)
        for of_batch, of_song in results:
            of_batch[song] = of_song[0]
        self._set_length(song, end)

    def _set_length(self, song: int, length: int) -> None:
        self._lengths[song] = length
        self.caches.reach(np.maximum(self._lengths, 1) - 1)

    # ------------------------------------------------------------ songs of the batch

    def replace(self, songs: Sequence[int], windows: NewNotes, sources: Sequence[int]) -> None:
        """See `player.Contexts`."""
        self._write_late()
        for source in range(len(windows.counts)):
            readers = [song for song, its in zip(songs, sources, strict=True) if its == source]
            first = readers[0]
            self._lengths[first] = 0
            self._read_several(first, windows.of_song(source))
            for song in readers[1:]:
                self._copy(first, song)

    def _copy(self, source: int, song: int) -> None:
        """Have `song` know what `source` does."""
        self.caches.copy(source, song)
        for array in self.trunk.last_results():
            array[song] = array[source]
        self._set_length(song, self._lengths[source])

    def keep(self, songs: Sequence[int]) -> None:
        """See `player.Contexts`."""
        self._write_late()
        self._lengths = [self._lengths[song] for song in songs]
        self._use_with_results(self.caches.keep(songs), songs)

    # ------------------------------------------------------------ choosing a note

    def first_logits(self) -> np.ndarray:
        """See `player.Contexts`."""
        return self.trunk.logits[0]

    def next_logits(self, k: int, chosen: np.ndarray, chords: np.ndarray) -> np.ndarray:
        """See `player.Contexts`."""
        if self.player.is_parallel:
            return self.trunk.logits[k + 1]
        call = self.choices[k]
        config = self.player.config
        call.chosen[:] = chosen[:, self.player.order[k]]
        if call.looks_back:
            bars, start_pos = chosen[:, BAR], chosen[:, START_POS]
            times = positions.music_time(bars, start_pos, config.steps_per_bar)
            call.times[:] = times[:, None]
            if config.controls:
                call.chord[:] = self.player.chord(chords)
        call.run()
        self.late_is_written |= call.looks_back
        return call.logits

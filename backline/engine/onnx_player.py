"""The engine: a model that ONNX Runtime plays on a CPU, without torch.

Graphs are made of the weights when a player is made (`graphs`). Keys and values lie in NumPy arrays
that the graphs write to in place, and so do the inputs and outputs of a step: nothing is handed over
note by note.

Shapes: B songs, T new notes, F families, V_f ids in family f, D residual width, H heads, C width of
a head.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime

from backline.engine import graphs, positions
from backline.engine.player import Contexts, NewNotes
from backline.layers.config import CONTROL_GAIN, TIME_FIELDS, ModelConfig
from backline.music.vocab import BAR, FIELDS, START_POS

ENGINE_DTYPES = ("fp32", "int8")
FEW_THREADS = 2  # of a small model; one song gains nothing by them, sixteen a fifth
PARAMETERS_PER_THREAD = 16_000_000  # for each further one
FEW_PLACES = 128  # of a new cache: most ideas are short
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


# ---------------------------------------------------------------- calls


class Call:
    """A graph, and arrays that hold its inputs and outputs from run to run."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        self.binding = session.io_binding()
        self._arrays: list[np.ndarray] = []  # the binding holds their addresses alone

    def give(self, name: str, array: np.ndarray) -> None:
        """Have the graph read an input from `array`."""
        self.binding.bind_ortvalue_input(name, self._shared(array))

    def take(self, name: str, array: np.ndarray) -> None:
        """Have the graph write an output to `array`."""
        self.binding.bind_ortvalue_output(name, self._shared(array))

    def cache(self, name: str, array: np.ndarray) -> None:
        """Have the graph read one of its caches from `array`, and change it there."""
        shared = self._shared(array)
        self.binding.bind_ortvalue_input(name, shared)
        self.binding.bind_ortvalue_output(f"{name}_after", shared)

    def _shared(self, array: np.ndarray) -> onnxruntime.OrtValue:
        """The array itself, not a copy of it."""
        self._arrays.append(array)
        value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        assert value.data_ptr() == array.ctypes.data, "ONNX Runtime has copied an array"
        return value

    def run(self) -> None:
        """Run the graph."""
        self.session.run_with_iobinding(self.binding)


class Caches:
    """Keys and values of the notes that songs have read: (B, H, places, C) each, for each layer."""

    def __init__(self, layers: list[tuple[np.ndarray, np.ndarray]]) -> None:
        self.layers = layers
        n_songs = len(layers[0][0])
        self.last_places = np.zeros(n_songs, np.int32)  # of each song's last note
        self.n_places = np.zeros((), np.int32)  # in use

    @classmethod
    def empty(cls, config: ModelConfig, n_songs: int) -> Caches:
        """Those of songs that have read nothing, with places for their first notes."""
        shape = (n_songs, config.n_heads, FEW_PLACES, config.head_width)
        layers = [(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
                  for _ in range(config.n_layers)]
        return cls(layers)

    @property
    def capacity(self) -> int:
        """How many notes of each song there are places for."""
        return self.layers[0][0].shape[2]

    def grown(self, capacity: int) -> Caches:
        """Copies with places for as many notes."""
        grown = Caches([(_longer(keys, capacity), _longer(values, capacity))
                        for keys, values in self.layers])
        grown.reach(self.last_places)
        return grown

    def bind(self, call: Call, layers: range) -> None:
        """Have `call` use the caches of some layers."""
        for layer in layers:
            keys, values = self.layers[layer]
            call.cache(f"keys{layer}", keys)
            call.cache(f"values{layer}", values)
        call.give("last_places", self.last_places)
        call.give("n_places", self.n_places)

    def reach(self, last_places: np.ndarray | int) -> None:
        """Say where each song's last note is."""
        self.last_places[:] = last_places
        self.n_places[...] = self.last_places.max() + 1

    def of_songs(self, songs: slice) -> Caches:
        """Views of the caches of some songs."""
        return Caches([(keys[songs], values[songs]) for keys, values in self.layers])

    def write(self, layer: int, songs: np.ndarray, places: np.ndarray,
              new: tuple[np.ndarray, np.ndarray]) -> None:
        """Put new keys and values, (n, D) each, in places (n,) of songs (n,)."""
        for buffer, rows in zip(self.layers[layer], new, strict=True):
            heads = rows.reshape(len(rows), buffer.shape[1], -1)  # (n, H, C)
            buffer[songs, :, places] = heads

    def copy(self, source: int, song: int) -> None:
        """Have `song` hold what `source` does."""
        self.last_places[song] = self.last_places[source]
        length = self.last_places[source] + 1
        for buffer in (buffer for layer in self.layers for buffer in layer):
            buffer[song, :, :length] = buffer[source, :, :length]

    def keep(self, songs: Sequence[int]) -> Caches:
        """Views with these songs alone, in this order, each moved to its new place."""
        length = int(self.n_places)
        for buffer in (buffer for layer in self.layers for buffer in layer):
            buffer[:len(songs), :, :length] = buffer[songs, :, :length]
        kept = self.of_songs(slice(len(songs)))
        kept.reach(self.last_places[songs])
        return kept


def _longer(buffer: np.ndarray, capacity: int) -> np.ndarray:
    n_songs, n_heads, length, width = buffer.shape
    longer = np.zeros((n_songs, n_heads, capacity, width), np.float32)
    longer[:, :, :length] = buffer
    return longer


class TrunkCall(Call):
    """The trunk reading T new notes of each of B songs.

    At each song's last note it writes `states` (B, D) and `logits` (B, V_f), and for each late layer
    `new_keys` and `new_values` (B, T, D) of all new notes.
    """

    def __init__(self, player: OnnxPlayer, caches: Caches, n_songs: int, n_new: int) -> None:
        super().__init__(player.trunk)
        config = player.config
        shape = (n_songs, n_new)
        self.player = player
        self.ids = np.zeros((len(FIELDS), *shape), np.int64)
        self.index = np.zeros(shape, np.int64)
        self.times = np.zeros(shape, np.int64)
        for family, name in enumerate(FIELDS):
            self.give(name, self.ids[family])
        self.give("last", np.full((n_songs, 1), n_new - 1))
        self.early_layers = range(config.n_layers - config.late_layers)
        self.late_layers = range(len(self.early_layers), config.n_layers)
        caches.bind(self, self.early_layers)
        self._bind_added(config)
        self._bind_places(config)
        self._bind_outputs(config)

    def _bind_added(self, config: ModelConfig) -> None:
        if graphs.adds_vectors(config):
            self.added = np.zeros((*self.index.shape, config.d_model), np.float32)
            self.added_about = (b"", b"")
            self.give("added", self.added)

    def _bind_places(self, config: ModelConfig) -> None:
        """Where each note stands in the tables of rotations."""
        if config.late_layers:
            self.give("times", self.times)
        if config.positions == "metre":
            self.give("places", self.times)
        if config.positions == "rotary":
            self.give("places", self.index)
        if config.positions == "music_time":
            n_notes = self.index.size
            self.give("places", np.arange(n_notes).reshape(self.index.shape))
            self.cosines = np.zeros((n_notes, config.head_width // 2), np.float32)
            self.sines = np.zeros_like(self.cosines)
            self.give("cosines", self.cosines)
            self.give("sines", self.sines)

    def _bind_outputs(self, config: ModelConfig) -> None:
        n_songs, n_new = self.index.shape
        width = config.d_model
        self.states = np.zeros((n_songs, width), np.float32)
        self.take("states", self.states)
        n_first = len(FIELDS) if self.player.is_parallel else 1
        self.logits = [np.zeros((n_songs, config.n_tokens[family]), np.float32)
                       for family in self.player.order[:n_first]]
        for k, logits in enumerate(self.logits):
            self.take(f"logits{k}", logits)
        n_late = len(self.late_layers)
        self.new_keys = [np.zeros((n_songs, n_new, width), np.float32) for _ in range(n_late)]
        self.new_values = [np.zeros((n_songs, n_new, width), np.float32) for _ in range(n_late)]
        for late, layer in enumerate(self.late_layers):
            self.take(f"new_keys{layer}", self.new_keys[late])
            self.take(f"new_values{layer}", self.new_values[late])

    def read(self, new: NewNotes, index: np.ndarray) -> None:
        """Read `new`; `index` (B, T) is each note's place in its song."""
        config = self.player.config
        self.ids[:] = new.ids.transpose(2, 0, 1)             # (F, B, T)
        self.index[:] = index
        times = positions.music_time(self.ids[BAR], self.ids[START_POS], config.steps_per_bar)
        self.times[:] = times
        if graphs.adds_vectors(config):
            self._add(new, index)
        if config.positions == "music_time":
            cosines, sines = positions.table_of_notes(index.ravel(), times.ravel(), config)
            self.cosines[:] = cosines
            self.sines[:] = sines
        self.run()

    def _add(self, new: NewNotes, index: np.ndarray) -> None:
        """Fill in what is added to the embedded notes, which stays the same for most of a bar."""
        about = (new.given.tobytes(), new.sheet.tobytes())
        if about != self.added_about or self.player.config.positions == "sinusoidal":
            self.added[:] = self.player.added(new, index)
            self.added_about = about

    def write_late(self, caches: Caches, songs: np.ndarray, places: np.ndarray) -> None:
        """Put late layers' keys and values of the new notes into `caches`.

        Args:
            songs, places: (B·T,) where each goes.
        """
        for late, layer in enumerate(self.late_layers):
            new_keys = self.new_keys[late].reshape(len(songs), -1)
            new_values = self.new_values[late].reshape(len(songs), -1)
            caches.write(layer, songs, places, (new_keys, new_values))

    def last_results(self) -> list[np.ndarray]:
        """All that is weights at each song's last note: views with a row for each song."""
        late = [array[:, -1] for array in (*self.new_keys, *self.new_values)]
        return [self.states, *self.logits, *late]


class ChoiceCall(Call):
    """A step from one choice to the next: `chosen` (B,) ids in, `logits` (B, V_f) out."""

    def __init__(self, player: OnnxPlayer, k: int, trunk: TrunkCall, hidden: np.ndarray) -> None:
        """Step k, from `hidden` (B, D)."""
        super().__init__(player.choices[k])
        config = player.config
        n_songs = len(hidden)
        self.chosen = np.zeros(n_songs, np.int64)
        self.next_hidden = np.zeros_like(hidden)
        family = player.order[k + 1]
        self.logits = np.zeros((n_songs, config.n_tokens[family]), np.float32)
        self.give("chosen", self.chosen)
        self.give("hidden", hidden)
        if config.heads == "gru":
            self.give("states", trunk.states)
        self.take("next_hidden", self.next_hidden)
        self.take("logits", self.logits)
        self.looks_back = bool(config.late_layers) and k + 1 == len(TIME_FIELDS)

    def bind_late(self, config: ModelConfig, caches: Caches, trunk: TrunkCall) -> None:
        """Have late layers look back from the onset chosen."""
        n_songs = len(self.chosen)
        self.times = np.zeros((n_songs, 1), np.int64)
        self.give("times", self.times)
        if config.controls:
            self.chord = np.zeros((n_songs, 1, config.d_model), np.float32)
            self.give("chord", self.chord)
        caches.bind(self, trunk.late_layers)
        for late, layer in enumerate(trunk.late_layers):
            self.give(f"last_key{layer}", trunk.new_keys[late])
            self.give(f"last_value{layer}", trunk.new_values[late])


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

"""Arrays that ONNX Runtime's graphs work on in place: inputs, outputs, and the caches of a batch.

Shapes: B songs, H heads, C width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime

from backline.layers.config import ModelConfig

FEW_PLACES = 128  # of a new cache: most ideas are short


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

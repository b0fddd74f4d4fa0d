"""The steps of making a note: the trunk reads, then one choice follows another.

Shapes: B songs, T new notes, F families, V_f ids in family f, D residual width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backline.engine import graphs, positions
from backline.engine.calls import Caches, Call
from backline.engine.player import NewNotes
from backline.layers.config import TIME_FIELDS, ModelConfig
from backline.music.vocab import BAR, FIELDS, START_POS

if TYPE_CHECKING:
    from backline.engine.onnx_player import OnnxPlayer


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
        """All that is known at each song's last note: views with a row for each song."""
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

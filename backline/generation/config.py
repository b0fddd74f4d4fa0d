"""The settings of sampling, as --genconfig holds them in JSON. Light: no torch."""

from __future__ import annotations

import dataclasses
import math

from backline.common.errors import UserError
from backline.music.choices import BY_OCTAVE, CUT, Choices
from backline.music.song import check_tempo
from backline.music.theory import SCALES, pitch_set, scale_in_key, scale_name
from backline.music.vocab import FIELDS

SAMPLING_FNS = ("top_k", "top_p", "min_p", "none")
DTYPES = ("fp32", "bf16", "int8")
ENDINGS = ("", "yes", "no")
KEEP = "keep"  # instead of chords or a key: those of the prompt, see `keeping.py`
PLAYED, FLAT = "played", "flat"
DYNAMICS = (PLAYED, FLAT)
MOST_DRAWS = 16


@dataclasses.dataclass(frozen=True)
class RuleConfig:
    """Rules that a song keeps, besides being valid. Parts go by their names.

    key, scale: the tonic (F#, Bb) and the scale (`theory.scale_name`) of all parts but drums;
        without a key there is no such rule. A key may name its scale itself (Am, "D dorian"), which
        goes before the default. "keep" is the key of the prompt.
    pitches: what a part may play: "28-52", "E1-E3", or of a drum kit "kick, snare, 42-46".
    monophonic: parts that play one note at a time.
    max_chord, max_per_bar: the most notes that a part begins together, and in a bar.
    no_empty_bars: each bar up to the last has a note.
    """

    key: str = ""
    scale: str = "major"
    pitches: dict[str, str] = dataclasses.field(default_factory=dict)
    monophonic: tuple[str, ...] = ()
    max_chord: dict[str, int] = dataclasses.field(default_factory=dict)
    max_per_bar: dict[str, int] = dataclasses.field(default_factory=dict)
    no_empty_bars: bool = False

    def __post_init__(self) -> None:
        self._read_key()
        for text in self.pitches.values():
            pitch_set(text)
        for name in ("max_chord", "max_per_bar"):
            for part, most in getattr(self, name).items():
                if most < 1:
                    raise UserError(f"{name}: {part} {most} must be at least 1; "
                                    "to leave a part out, do not make it")

    def _read_key(self) -> None:
        """Split a key that names its scale; what is plain stays as it was typed, as in old recipes."""
        if self.scale not in SCALES:
            object.__setattr__(self, "scale", scale_name(self.scale))
        if self.key in ("", KEEP):
            return
        named = "" if self.scale == RuleConfig.scale else self.scale
        tonic, scale = scale_in_key(self.key, named)
        object.__setattr__(self, "scale", scale)
        if self.key.strip().capitalize() != tonic:
            object.__setattr__(self, "key", tonic)


@dataclasses.dataclass(frozen=True)
class ControlConfig:
    """What a model with controls is told to play. Parts go by their names.

    chords: one a bar, again and again: "Am F C G"; see `chords.parse_chords`. "keep": those of the
        prompt.
    density: how many notes a part plays: sparse, medium, busy, or 1 to 8.
    rests: in how many bars a part rests: never, sometimes, often, mostly, or 1 to 4.
    repeats: how much of a part's bar comes back four and eight bars later: hardly, partly, mostly,
        exactly, or 1 to 4.
    ending: "yes" leads to an end in the last bar, "no" goes on; "" is yes from scratch, and no if
        the song loops, continues a prompt or plays to one.
    draw: from scratch, controls not named are drawn from the songs that the model was trained on;
        false: they are unknown.
    """

    chords: str = ""
    density: dict[str, str] = dataclasses.field(default_factory=dict)
    ending: str = ""
    draw: bool = True
    rests: dict[str, str] = dataclasses.field(default_factory=dict)
    repeats: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ending not in ENDINGS:
            raise UserError(f"ending={self.ending!r} must be yes or no")

    @property
    def levels(self) -> dict[str, dict[str, str]]:
        """What is said of parts one by one: by the column's name, the level of each part."""
        return {"density": self.density, "rests": self.rests, "repeats": self.repeats}

    @property
    def told(self) -> list[str]:
        """Options that only a model with controls can follow.

        Not --ending no: without controls no model is led to an end.
        """
        options = {
            "--chords": self.chords,
            "--density": self.density,
            "--rests": self.rests,
            "--repeats": self.repeats,
            "--ending": self.ending == "yes",
        }
        return [option for option, value in options.items() if value]


@dataclasses.dataclass(frozen=True)
class GenConfig:
    """How notes are sampled.

    `temperature` and `threshold` hold one number per family, in the order of `vocab.FIELDS`. The
    defaults are what benchmarks/bench_sampling.py found best for the bundled model.

    Masks come first (`rules`), then the filter `sampling_fn`, then `top_p` and `min_p` where they
    are set, then the temperature. As in the published system, filters come before the temperature.

    threshold: for "top_k" the share of the family's whole vocabulary that is removed (0.9 keeps the
        most likely tenth, rounded up). For "top_p" the probability mass kept (Holtzman et al.
        2020). For "min_p" the least probability kept, as a share of the highest (Nguyen et al.
        2024). For "none" it has no meaning.
    top_p, min_p: further filters of these kinds, with a number per family; [] for none.
    variety: against loops: for each bar in a row that copies one shortly before it
        (`repetition.Repeats`) the temperature grows by this share of itself, until a bar is new; 0:
        never.
    loop_guard: from scratch, the `variety` where that is 0; a prompt may be a loop.
    key_pull: from scratch, pitches outside the key that the model is told are so many times less likely
        than it finds them; 1: as likely. Models stray from the key more than songs do.
    tell_made: beside given parts, the model is told to play those it makes as a real song does whose
        other parts play much like the given ones (with `controls.draw`).
    fewest_parts: from scratch, a model of more than four parts is told to play those of a real song that
        has so many or more, and the others stay silent (with `all_parts`); 0: to play all.
    draws: from scratch, a model with a critic draws each song so many times, and the critic chooses
        (`evaluation.critic`).
    rules: what the song must keep to.
    controls: what the model is told, if it has controls.
    num_bars: how many from scratch; after a prompt, the rest of its last bar and at most so many
        more.
    max_steps: most new notes; 0: as many as the bars need.
    dynamics: "played": made notes have velocities as in the table that the model's file carries
        (`music.dynamics`), "flat": all have one, as published; so they do without a table.

    What people expect without asking. Each can be switched off, for songs as the model plays them:

    start_at_once: from scratch, a note begins with bar 1; in 79 of 100 real songs one begins with
        the first bar that has notes.
    all_bars: from scratch there are no fewer than `num_bars`; false: the model may end before.
    all_parts: from scratch, a song in which a part hardly plays is rejected (`task.lacking_parts`); of a
        model of more than four parts, a part that the song is told to have.
    go_on: after a prompt, a song that soon ends is rejected (`task.ends_soon`).
    whole_bars: `max_steps` always counts, and cuts at the bar line before it; false: it cuts where
        it is reached, and does not count if --bars, --given or --fill says how many bars there are.
    """

    temperature: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    num_bars: int = 16
    max_steps: int = 0
    dynamics: str = PLAYED
    sampling_fn: str = "top_p"
    threshold: tuple[float, ...] = (0.99, 0.99, 0.99, 0.98)
    top_p: tuple[float, ...] = ()
    min_p: tuple[float, ...] = ()
    variety: float = 0.0
    loop_guard: float = 0.03
    key_pull: float = 1.5
    tell_made: bool = True
    fewest_parts: int = 4
    draws: int = 2
    rules: RuleConfig = RuleConfig()
    controls: ControlConfig = ControlConfig()
    start_at_once: bool = True
    all_bars: bool = True
    all_parts: bool = True
    go_on: bool = True
    whole_bars: bool = True

    def __post_init__(self) -> None:
        for name in ("temperature", "threshold"):
            if len(getattr(self, name)) != len(FIELDS):
                raise UserError(f"{name} must be {len(FIELDS)} numbers, one per family: "
                                f"{', '.join(FIELDS)}")
        if not all(0 < value < math.inf for value in self.temperature):
            raise UserError(f"temperature={list(self.temperature)} must be above 0")
        if self.sampling_fn not in SAMPLING_FNS:
            raise UserError(f"sampling_fn={self.sampling_fn!r} must be one of "
                            f"{', '.join(SAMPLING_FNS)}")
        empty_nucleus = self.sampling_fn == "top_p" and 0 in self.threshold  # it would hold nothing
        if empty_nucleus or not _are_shares(self.threshold):
            raise UserError(f"threshold={list(self.threshold)} must lie between 0 and 1")
        for name in ("top_p", "min_p"):
            values = getattr(self, name)
            if values and (len(values) != len(FIELDS) or not _are_shares(values)):
                raise UserError(f"{name}={list(values)} must be {len(FIELDS)} numbers from 0 to 1, "
                                "or []")
        for name in ("variety", "loop_guard"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name}={getattr(self, name)} must be at least 0")
        if self.dynamics not in DYNAMICS:
            raise UserError(f"dynamics={self.dynamics!r} must be one of {', '.join(DYNAMICS)}")
        if self.num_bars < 1:
            raise UserError(f"num_bars={self.num_bars} must be at least 1")
        if not 1 <= self.key_pull < math.inf:
            raise UserError(f"key_pull={self.key_pull} must be at least 1")
        if not 1 <= self.draws <= MOST_DRAWS:
            raise UserError(f"draws={self.draws} must be from 1 to {MOST_DRAWS}")
        if self.fewest_parts < 0:
            raise UserError(f"fewest_parts={self.fewest_parts} must be at least 0")
        if self.max_steps < 0:
            raise UserError(f"max_steps={self.max_steps} must be at least 0")


@dataclasses.dataclass(frozen=True)
class Reading(Choices):
    """How a prompt is read. The song is kept in any case: this decides what the model hears of it.

    n_bars: only so many bars of the song, and no more are kept; 0: all.
    tempo: in beats per minute, in place of the song's own; 0: its own.
    """

    ranges: str = BY_OCTAVE
    max_lost: float = 1.0
    long_songs: str = CUT
    join: bool = True
    n_bars: int = 0
    tempo: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_bars < 0:
            raise UserError(f"--prompt-bars {self.n_bars}: must be at least 1")
        if self.tempo:
            check_tempo(self.tempo, "--tempo")


def _are_shares(values: tuple[float, ...]) -> bool:
    return all(0 <= value <= 1 for value in values)

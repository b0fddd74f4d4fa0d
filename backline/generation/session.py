"""A loaded model and the songs it makes: seeds, batches, songs that are rejected, the best of many.

The songs of a batch are drawn together, and rounding may
depend on the batch; so a song's recipe names the seeds of its whole batch.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from backline.common.errors import UserError
from backline.common.files import file_hash
from backline.common.paths import BUNDLED_MODEL
from backline.common.surroundings import song_surroundings
from backline.evaluation.copy_index import CopyCheck, CopyIndex, read_index_for
from backline.evaluation.critic import critic_of
from backline.generation.config import FLAT, GenConfig, Reading
from backline.generation.given_song import Made, files_beside
from backline.generation.keeping import keep_heard
from backline.generation.loading import load_player
from backline.generation.output_files import song_bytes
from backline.generation.prompt import Prompt
from backline.generation.recipes import Recipe, recipe_text
from backline.generation.sampler import OnDrawn, Request, Sampled, nobody_watches, sample_songs
from backline.generation.task import SOON, Task, Wish, bars_in, ends_soon, lacking_parts, make_task
from backline.generation.telling import Told, describe_told, tell, told_to_play
from backline.music.dynamics import dynamics_table, given_dynamics, made_velocities
from backline.music.midi_writer import VELOCITY
from backline.music.sheet_table import sheet_table
from backline.music.vocab import PITCH_INSTRUMENT, Vocabulary
from tokenizer import MidiTokenizerPooled

BATCH = 16  # songs made at a time
TRIES = 10  # songs made at most, for each that is wanted
SEED_STEP = 1_000_000  # from the seed of a rejected song to the next


# ---------------------------------------------------------------- the model


class LoadedModel:
    """A model ready to play, with its tokenizer and what its file says besides."""

    def __init__(self,
                 path: Path,
                 device: str = "auto",
                 dtype: str | None = None) -> None:
        """Load the model at `path`. Raises UserError, as `load_player` does."""
        loaded = load_player(path, device, dtype)
        vocabulary = loaded.vocabulary
        self.path = path
        self.player = loaded.player
        self.dtype = loaded.player.dtype
        self.config = loaded.player.config
        self.facts = loaded.facts
        self.tokenizer = MidiTokenizerPooled(vocabulary)
        self.hash = file_hash(path)
        self.dynamics = dynamics_table(self.facts, vocabulary, path)
        has_controls = self.config.controls
        self.sheets = sheet_table(self.facts, vocabulary, path) if has_controls else None
        self.critic = critic_of(self.facts, vocabulary, path)

    @property
    def vocabulary(self) -> Vocabulary:
        """What the model plays: its parts, its grid, its limits."""
        return self.tokenizer.vocabulary

    def check(self, wish: Wish, config: GenConfig) -> None:
        """Raise UserError if the model was not trained for what is asked of it."""
        if config.controls.told and not self.sheets:
            raise UserError(f"{self.path}: not trained to be told what to play "
                            f"({', '.join(config.controls.told)}); train a model with "
                            '"controls": true, such as configs/model_bundled.json')
        if wish.needs_given and not self.config.given:
            raise UserError(f"{self.path}: not trained to play to given notes (--given, --fill); "
                            "the model of this repository, taken without -mp "
                            f"({BUNDLED_MODEL.name}), is; or train one with "
                            "configs/model_bundled.json and configs/training_bundled.json")

    def copy_index(self, path: Path) -> CopyIndex:
        """The index at `path`; prints a notice if it may be of other songs than the model's."""
        return read_index_for(self.path, self.facts, path, self.vocabulary)

    def make(self,
             task: Task,
             config: GenConfig,
             seeds: Sequence[int],
             on_drawn: OnDrawn = nobody_watches) -> list[Sampled]:
        """One song of `task` for each seed, sampled in one batch.

        `on_drawn` is called with the place in `seeds` and each note; what it raises stops all.
        """
        requests = []
        for seed in seeds:
            told = self.told(task, config, seed)
            requests.append(Request(task.rules, seed, task.prompt, task.given, told))
        # One note more than allowed says whether a song goes on, and in which bar.
        most = task.max_steps + config.whole_bars
        total = most * len(seeds) if config.max_steps else None  # else the bars decide
        limited = dataclasses.replace(config, max_steps=most)
        with tqdm(total=total, unit="note", leave=False, disable=None) as bar:
            songs = sample_songs(self.player, requests, limited, on_note=bar.update, on_drawn=on_drawn)
        if not config.whole_bars:
            return songs
        return [song.at_bar_line(task.max_steps) for song in songs]

    def told(self, task: Task, config: GenConfig, seed: int) -> Told | None:
        """What the song of `seed` is told to play; None for a model without controls."""
        return tell(task, config, self.sheets, seed) if self.sheets else None


# ---------------------------------------------------------------- its songs


@dataclasses.dataclass(frozen=True)
class GeneratedSong:
    """The new notes of one song and how they came about.

    notes: (N, F) int64 ids.
    surprisals: (N,) in nats, see `sampler.Sampled`.
    batch: the seeds of the songs that were made together with it.
    cut: see `sampler.Sampled`.
    is_copy: whether it shares more notes with training songs than it may.
    playing: parts that it was told to play in at least half of the bars.
    told, copied, score: for people: what it was told to play, what it shares with training songs,
        and how it compares with its rivals; "" for what does not apply.
    """

    notes: np.ndarray
    surprisals: np.ndarray
    seed: int
    batch: tuple[int, ...]
    cut: int = 0
    is_copy: bool = False
    playing: tuple[str, ...] = ()
    told: str = ""
    copied: str = ""
    score: str = ""


@dataclasses.dataclass(frozen=True)
class Session:
    """A model and one thing that it is asked for: what songs of all seeds have in common.

    task: what follows from wish, prompt and config, as `task.make_task` has it.
    reading: how the prompt was read; None from scratch.
    copy_check: says what songs share with training songs, and may reject them; None: no such check.
    """

    loaded: LoadedModel
    wish: Wish
    config: GenConfig
    prompt: Prompt
    task: Task
    reading: Reading | None = None
    copy_check: CopyCheck | None = None

    def songs(self,
              seed: int,
              n: int,
              on_drawn: OnDrawn = nobody_watches) -> Iterator[GeneratedSong]:
        """`n` songs, a batch at a time, the i-th of seed + i. `on_drawn`: see `LoadedModel.make`.

        A song that lacks a part, ends too soon or copies more than it may is rejected, and the seed
        SEED_STEP further is tried; so the songs are the same whatever `n` is. After TRIES tries the
        first that does not copy is kept. If all copy there is none, and fewer than `n` songs come.

        From scratch, a model with a critic draws each song `n_draws` times, with seeds SEED_STEP
        apart, and its critic chooses.
        """
        end = seed + n
        n_at_once = max(BATCH // self.n_draws, 1)
        for first in range(seed, end, n_at_once):
            seeds = range(first, min(first + n_at_once, end))
            yield from self._songs_of_batch(seeds, on_drawn)

    @property
    def n_draws(self) -> int:
        """How many songs are drawn for each that is wanted."""
        chooses = self.loaded.critic is not None and not len(self.task.kept)
        return self.config.draws if chooses else 1

    def songs_as_drawn(self, seed: int, n: int, on_drawn: OnDrawn) -> list[GeneratedSong]:
        """`n` songs in one batch, the i-th of seed + i, for whoever watches them grow.

        None is rejected and drawn anew: `fault` says what is wrong with it. `on_drawn`: see
        `LoadedModel.make`.
        """
        return list(self._sample(range(seed, seed + n), on_drawn))

    def _songs_of_batch(self,
                        seeds: Sequence[int],
                        on_drawn: OnDrawn) -> Iterator[GeneratedSong]:
        """A song for each of `seeds`, except those whose tries all copy."""
        good: dict[int, GeneratedSong] = {}
        second_best: dict[int, GeneratedSong] = {}
        for attempt in range(TRIES):
            wanted = [seed for seed in seeds if seed not in good]
            if not wanted:
                break
            draws = range(attempt * self.n_draws, (attempt + 1) * self.n_draws)
            songs = self._sample([seed + k * SEED_STEP for seed in wanted for k in draws], on_drawn)
            for seed in wanted:
                drawn = list(itertools.islice(songs, self.n_draws))
                faults = [song.copied if song.is_copy else self.fault(song) for song in drawn]
                faultless = [song for song, fault in zip(drawn, faults, strict=True) if not fault]
                if faultless:
                    good[seed] = self._chosen(faultless)
                    continue
                for song, fault in zip(drawn, faults, strict=True):
                    if not song.is_copy:
                        second_best.setdefault(seed, song)
                    print(f"notice: seed {song.seed} rejected: {fault}", file=sys.stderr)
        for seed, song in second_best.items():
            if seed not in good:
                print(f"notice: seed {song.seed} kept after {TRIES} tries", file=sys.stderr)
        kept = second_best | good
        for song in (kept[seed] for seed in seeds if seed in kept):
            if song.cut:
                print(f"notice: seed {song.seed} would have more than {self.task.max_steps} "
                      "new notes (max_steps); cut at the bar line, "
                      f"new bars left: {self.task.n_new_bars(song.cut)}", file=sys.stderr)
            yield song

    def _chosen(self, songs: Sequence[GeneratedSong]) -> GeneratedSong:
        """The song that sounds most like real ones to the model's critic."""
        critic = self.loaded.critic
        if len(songs) == 1 or critic is None:
            return songs[0]
        realness = [critic.realness(song.notes, self.loaded.vocabulary) if len(song.notes) else -math.inf
                    for song in songs]
        best = songs[int(np.argmax(realness))]
        return dataclasses.replace(best, score=f"chosen of {len(songs)} draws")

    def _sample(self,
                seeds: Sequence[int],
                on_drawn: OnDrawn) -> Iterator[GeneratedSong]:
        """The song of each seed, good or not, in one batch."""
        sampled = self.loaded.make(self.task, self.config, seeds, on_drawn)
        for seed, song in zip(seeds, sampled, strict=True):
            told = self.loaded.told(self.task, self.config, seed)
            generated = GeneratedSong(
                song.notes,
                song.surprisals,
                seed,
                batch=tuple(seeds),
                cut=song.cut,
                told=describe_told(told, self.task) if told else "",
                playing=told_to_play(told, self.task) if told and self.config.fewest_parts else (),
            )
            if self.copy_check:
                generated = self._with_copies(generated, self.copy_check)
            yield generated

    def _with_copies(self, song: GeneratedSong, check: CopyCheck) -> GeneratedSong:
        """The song with what it shares with training songs."""
        rows = self.task.song(song.notes)  # all of it, but what was given is nobody's copy
        is_new = ~self.task.was_there(rows)
        run = check.index.longest_run(rows, is_new)
        copied = check.index.describe(run, len(song.notes))
        return dataclasses.replace(song, copied=copied, is_copy=check.refuses(run))

    def fault(self, song: GeneratedSong) -> str:
        """In what a song is not as asked, in words; "" for one that is."""
        if silent := lacking_parts(self.wish, self.task, self.config, song.notes, song.playing):
            names = " and ".join(silent)
            return f"{names} would be silent, or nearly so"
        if not song.cut and ends_soon(self.wish, self.task, self.config, song.notes):
            return f"it would end within {SOON} bars after the prompt"
        return ""

    def check_enough(self, n_songs: int, n_made: int) -> None:
        """Raise UserError if only `n_songs` of `n_made` songs were found that do not copy."""
        if self.copy_check and n_songs < n_made:
            n_missing = n_made - n_songs
            raise UserError(f"--max-copy {self.copy_check.most}: {n_missing} of {n_made} songs "
                            f"share more in each of {TRIES} tries; allow more notes, "
                            "or a higher temperature (--genconfig)")

    def files(self, new: np.ndarray, recipe: Recipe) -> dict[str, bytes]:
        """The MIDI files of the song with (N, F) `new` notes, named as by `song_bytes`."""
        if self.prompt.given:
            made = self._made(new, recipe.seed)
            return files_beside(self.prompt.given, made, recipe_text(recipe))
        rows = self.task.song(new)
        velocities = self.velocities(rows, new, recipe.seed)
        played = np.column_stack([rows, velocities])         # (N, F + 1)
        return song_bytes(played, self.loaded.tokenizer, self.prompt.tempo, recipe, self.task.n_bars)

    def bars_of(self, new: np.ndarray) -> int:
        """Bars of the song with (N, F) `new` notes, those that the model does not hear counted too."""
        clip = self.prompt.clip
        if self.prompt.given and clip:  # its rows may go on to a hit for the next bar, which adds none
            n_bars = max(bars_in(new), clip.n_bars)
            return self.prompt.unheard + max(n_bars, self.task.n_bars)
        rows = self.task.song(new)
        return self.prompt.unheard + max(bars_in(rows), self.task.n_bars)

    def velocities(self, rows: np.ndarray, new: np.ndarray, seed: int) -> np.ndarray:
        """(N,) of the (N, F) rows of a song, of which those in (M, F) `new` are made.

        Notes of the prompt have their own velocities.
        """
        known = np.concatenate([self.prompt.rows, new]).tolist()
        velocities = [*self.prompt.velocities.tolist(), *self.made_velocities(new, seed).tolist()]
        of_row = dict(zip(map(tuple, known), velocities, strict=True))
        found = [of_row.get(tuple(row)) or VELOCITY for row in rows.tolist()]
        return np.array(found, np.int64)

    def made_velocities(self, new: np.ndarray, seed: int) -> np.ndarray:
        """(M,) velocities of (M, F) made notes, at the level of what is given."""
        table = self.loaded.dynamics
        if not table or self.config.dynamics == FLAT:
            return np.full(len(new), VELOCITY)
        vocabulary = self.loaded.vocabulary
        given = given_dynamics(self.prompt.rows, self.prompt.velocities, vocabulary, table)
        return made_velocities(new, vocabulary, table, seed, given)

    def _made(self, new: np.ndarray, seed: int) -> Made:
        """What (N, F) `new` notes are beside the given song."""
        task = self.task
        vocabulary = self.loaded.vocabulary
        part_of_note = vocabulary.part_of_id[new[:, PITCH_INSTRUMENT]]
        velocities = self.made_velocities(new, seed)
        clip = self.prompt.clip
        return Made(
            self.loaded.tokenizer.rows_to_parts(new, vocabulary.steps_per_quarter),
            [velocities[part_of_note == p] for p in range(len(vocabulary.parts))],
            task.made,
            task.first_bar * vocabulary.steps_per_bar,
            self._holes(),
            task.dropped,
            max(task.n_bars, clip.n_bars if clip else 0),
        )

    def _holes(self) -> tuple[tuple[int, int], ...]:
        """The steps at which each stretch of bars that are made anew begins and ends."""
        unheard = self.prompt.unheard
        steps = self.loaded.vocabulary.steps_per_bar
        return tuple(((first - 1 - unheard) * steps, (last - unheard) * steps)
                     for first, last in self.wish.stretches)

    def recipe(self, song: GeneratedSong) -> Recipe:
        """What it takes to make the song again."""
        loaded = self.loaded
        return Recipe(
            seed=song.seed,
            batch=song.batch,
            wish=self.wish,
            genconfig=self.config,
            model=loaded.path.name,
            model_hash=loaded.hash,
            dtype=loaded.dtype,
            prompt=self.prompt.path,
            prompt_hash=self.prompt.hash,
            prompt_rows=self.prompt.n_rows,
            surroundings=song_surroundings(loaded.player.surroundings),
            reading=self.reading,
        )


def open_session(loaded: LoadedModel,
                 wish: Wish,
                 config: GenConfig,
                 prompt: Prompt,
                 reading: Reading | None = None) -> Session:
    """Raises UserError if the model was not trained for the wish, or the prompt does not fit it."""
    loaded.check(wish, config)
    n_bars = prompt.clip.n_bars if prompt.clip else 0
    config = keep_heard(config, wish, prompt.rows, loaded.vocabulary, prompt.unheard, n_bars)
    task = make_task(wish, prompt.rows, loaded.vocabulary, config, prompt.clip)
    return Session(loaded, wish, config, prompt, task, reading)


def best_songs(songs: Sequence[GeneratedSong],
               n: int,
               session: Session) -> list[GeneratedSong]:
    """The `n` best, best first, each with its score in words; songs without a note come last."""
    from backline.generation.ranking import Judge, rank

    judge = Judge(session.loaded.vocabulary, session.config.rules, session.task.bars_to_make,
                  session.loaded.critic)
    notes = [song.notes for song in songs]
    surprisals = [song.surprisals for song in songs]
    ranked = rank(notes, surprisals, session.task.kept, judge)
    scored = [dataclasses.replace(songs[i], score=score.describe())
              for i, score in ranked]
    empty = [song for song in songs if not len(song.notes)]
    return [*scored, *empty][:n]

"""Teach a model a few songs of yours, in a minute or two.

Input    MIDI files, and folders of them: songs in which some of the model's parts play (drums, bass, piano)
Output   a .safetensors: the model that knows your songs; generate.py, studio.py and evaluate.py read it
Example  python adapt.py my_songs -o mine.safetensors
         python generate.py -mp mine.safetensors -o mine -n 3

The model learns songs of its own beside yours, so that it forgets less. It learns all of yours but one first, to see
whether that helps with the one kept back, and how many steps do it no harm; then it learns all. One song alone is
learned in few steps, as nothing tells when to stop. What you do not ask for when it plays, such as how dense a part
is, then comes from one of your songs.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_file, check_new, check_writable, file_hash
from backline.common.hub import fetched
from backline.common.paths import BUNDLED_MODEL, CONFIGS
from backline.common.settings import config_from_file
from backline.engine.model_file import ADAPTED
from backline.folders.inputs import Listing
from backline.generation.freely import FIRST_SEED, made_songs
from backline.generation.session import LoadedModel
from backline.music import choices as song_choices
from backline.music.choices import CUT, DROP, Choices, choices_of
from backline.music.midi_chunks import MIDI_SUFFIXES
from backline.music.midi_reader import read_song
from backline.music.sheet_table import sheet_table
from backline.music.vocab import Vocabulary
from backline.preparation.duplicates import cluster, signature
from backline.training.config import TrainingSettings
from tokenizer import tokenize

if TYPE_CHECKING:
    from backline.training.adapting import Teacher
    from model import PooledTransformer

SETTINGS = CONFIGS / "training_finetune.json"
CHOICES = Choices(ranges=DROP, long_songs=CUT, meters=CUT)
LEAST_NOTES = 64  # of all songs
MANY_SONGS = 20
N_REHEARSED = 32  # songs of the model's own, which it learns beside yours
SAME = 0.01  # share of a loss by which it may change and yet be the same


class OwnSong(NamedTuple):
    """A song to learn."""

    path: str
    pieces: list[np.ndarray]  # (N, F) ids of each piece that it is cut into, usually one
    lost: Counter[str]  # notes left out, by reason

    @property
    def n_notes(self) -> int:
        """Notes in all pieces."""
        return sum(map(len, self.pieces))


class Trial(NamedTuple):
    """What learning some songs does for one that was kept back."""

    path: str
    n_learned: int  # songs
    losses: dict[int, float]  # nats per note of the song kept back, by steps; 0 before

    @property
    def n_steps(self) -> int:
        """The most steps after which the song kept back is no worse; the fewest where it always is."""
        fewest, *more = sorted(self.losses)[1:]
        harmless = [steps for steps in more if self.losses[steps] <= (1 + SAME) * self.losses[0]]
        return max(harmless, default=fewest)


class Learned(NamedTuple):
    """What a model has learned; losses in nats per note of all its songs."""

    n_songs: int
    n_steps: int
    before: float
    after: float
    trial: Trial | None

    def to_facts(self) -> dict[str, Any]:
        """For the model's file."""
        facts = self._asdict() | {"trial": None}
        if self.trial:
            losses = self.trial.losses
            facts["trial"] = {"before": losses[0], "after": losses[self.n_steps]}
        return facts


# ---------------------------------------------------------------- the songs


def read_songs(paths: Sequence[str], vocabulary: Vocabulary, choices: Choices) -> list[OwnSong]:
    """The songs that can be read, those with the same notes once; of the others it is said why not.

    Raises UserError if they are too few notes to learn from.
    """
    songs: list[OwnSong] = []
    left_out: list[str] = []
    for path in tqdm(paths, desc="reading", unit="song", leave=False, disable=None):
        try:
            found = tokenize(read_song(Path(path)), vocabulary, choices, path)
            song = OwnSong(path, found.rows, +found.lost)
            same = next((other.path for other in songs if is_same(other, song)), None)
            if same:
                raise UserError(f"{path}: has the same notes as {same}")
            songs.append(song)
        except UserError as err:
            left_out.append(str(err))
    n_notes = sum(song.n_notes for song in songs)
    if n_notes < LEAST_NOTES:
        reason = f"; the first left out: {left_out[0]}" if left_out else "; give longer songs"
        raise UserError(f"{counted(len(paths), 'file')} with {n_notes} notes to learn, and {LEAST_NOTES} are the "
                        f"fewest{reason}")
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    return songs


def is_same(song: OwnSong, other: OwnSong) -> bool:
    """Whether two songs have the same notes."""
    pairs = zip(song.pieces, other.pieces, strict=False)
    return len(song.pieces) == len(other.pieces) and all(np.array_equal(*pair) for pair in pairs)


def keep_back(songs: Sequence[OwnSong], vocabulary: Vocabulary) -> tuple[OwnSong, list[OwnSong]] | None:
    """A song of middling length, and those that are not nearly the same; None if all are."""
    signatures = np.stack([signature(np.concatenate(song.pieces), vocabulary) for song in songs])
    labels = cluster(signatures)
    by_length = sorted(range(len(songs)), key=lambda number: songs[number].n_notes)
    kept = by_length[len(songs) // 2]
    others = [song for song, label in zip(songs, labels, strict=True) if label != labels[kept]]
    return (songs[kept], others) if others else None


def all_pieces(songs: Sequence[OwnSong]) -> list[np.ndarray]:
    """The pieces of all songs."""
    return [piece for song in songs for piece in song.pieces]


# ---------------------------------------------------------------- learning


def step_counts(settings: TrainingSettings) -> list[int]:
    """The numbers of steps to choose from."""
    n_steps = settings.max_train_steps
    return sorted({max(n_steps // 4, 1), max(n_steps // 2, 1), n_steps})


def try_out(teacher: Teacher, songs: Sequence[OwnSong]) -> Trial | None:
    """Learn some of the songs, and see what that does for one kept back; None if there is none."""
    split = keep_back(songs, teacher.vocabulary)
    if split is None:
        return None
    kept, others = split
    counts = step_counts(teacher.settings)
    losses = {0: teacher.nats(teacher.base, kept.pieces)}
    models = teacher.learn(all_pieces(others), counts, "learning all but one")
    for n_steps, model in zip(counts, models, strict=True):
        losses[n_steps] = teacher.nats(model, kept.pieces)
    return Trial(kept.path, len(others), losses)


def learn_all(teacher: Teacher, songs: Sequence[OwnSong]) -> tuple[PooledTransformer, Learned]:
    """The model that has learned all songs, as many steps as do one kept back no harm, or the fewest."""
    trial = try_out(teacher, songs)
    n_steps = trial.n_steps if trial else step_counts(teacher.settings)[0]
    pieces = all_pieces(songs)
    model, = teacher.learn(pieces, [n_steps], "learning")
    before = teacher.nats(teacher.base, pieces)
    after = teacher.nats(model, pieces)
    return model, Learned(len(songs), n_steps, before, after, trial)


# ---------------------------------------------------------------- what it came to


def what_was_read(songs: Sequence[OwnSong]) -> str:
    """Songs and notes to learn, and a line for each reason why notes were left out."""
    n_notes = sum(song.n_notes for song in songs)
    lines = [f"{counted(len(songs), 'song')} to learn, {n_notes:,} notes"]
    lost = sum((song.lost for song in songs), Counter[str]())
    lines += [f"{count:12,d} left out: {reason}" for reason, count in lost.most_common()]
    return "\n".join(lines)


def what_it_learned(learned: Learned) -> str:
    """The losses before and after, and what they mean."""
    yours = "your song" if learned.n_songs == 1 else f"your {learned.n_songs} songs"
    lines = ["nats per note (the fewer, the better the model knows what comes next):",
             f"  {yours}: {compared(learned.before, learned.after)} in {counted(learned.n_steps, 'step')}"]
    trial = learned.trial
    if trial is None:
        lines.append("It knows what you gave it better now. Whether that helps with another song of yours, no song was "
                     "left to tell.")
        return "\n".join(lines)
    name = Path(trial.path).name
    first, last = trial.losses[0], trial.losses[trial.n_steps]
    lines.append(f"  {name}, kept back at first: {compared(first, last)} in {counted(trial.n_steps, 'step')} on "
                 f"{counted(trial.n_learned, 'other')}")
    change = last / first - 1
    if change < -SAME:
        lines.append(f"What it learns from your songs helps with one that it has not heard ({name}).")
    elif change <= SAME:
        lines.append(f"It knows your songs better now. {name}, which it had not heard, gained nothing from the others: "
                     "what it writes will be built like your songs, but it does not know your style.")
    else:
        lines.append(f"It knows your songs better now, and does worse with {name}, which it had not heard: they may be "
                     "too few, or too unlike. The model that you began with may serve you better.")
    return "\n".join(lines)


def compared(before: float, after: float) -> str:
    """Two losses and how they differ."""
    percent = 100 * (after / before - 1)
    change = "the same" if abs(percent) < 0.05 else f"{abs(percent):.1f} % {'fewer' if percent < 0 else 'more'}"
    return f"{before:.3f} before, {after:.3f} after, {change},"


def counted(number: int, what: str) -> str:
    """"1 song", "2 songs"."""
    return f"{number} {what}{'s' if number != 1 else ''}"


# ---------------------------------------------------------------- command


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(f"{__doc__}\n{song_choices.OPTIONS}")
    parser.add_argument("inputs", type=Path, nargs="+", metavar="MIDI", help="files and folders to learn")
    parser.add_argument("-o", "--output", type=Path, default=Path("adapted.safetensors"),
                        help="file to write (default: %(default)s)")
    parser.add_argument("-mp", "--model_path", type=Path, default=BUNDLED_MODEL,
                        help="model to begin with: .safetensors, .pth or hf:owner/name (default: the bundled one)")
    parser.add_argument("--training_args", type=Path, default=SETTINGS,
                        help="JSON with training settings, of which those of rows, rates and precision count and "
                             f"max_train_steps (default: configs/{SETTINGS.name})")
    parser.add_argument("-d", "--device", default="auto", help="auto, cuda, mps or cpu (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    song_choices.add_options(parser, CHOICES)
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Adapt a model; returns the exit code."""
    args = build_parser().parse_args(argv)
    if args.output.suffix != ".safetensors":
        raise UserError(f"-o {args.output}: the name must end in .safetensors")
    settings = config_from_file(TrainingSettings, args.training_args)
    if not settings.max_train_steps or not settings.average:
        raise UserError(f"{args.training_args}: max_train_steps and average must be set")
    listing = Listing(args.inputs, MIDI_SUFFIXES, args.output, "")
    model_path = fetched(args.model_path)
    check_file(model_path)
    check_new([args.output], args.force, [model_path, args.training_args])
    check_writable(args.output.parent)

    from backline.layers.torch_io import pick_device  # brings torch: other errors come first
    from backline.training.adapting import Teacher
    from backline.training.checkpoints import load_model, release_facts, save_release

    base, vocabulary, known = load_model(model_path, pick_device(args.device))
    songs = read_songs([item.source for item in listing], vocabulary, choices_of(args, CHOICES, vocabulary))
    print(what_was_read(songs))
    if len(songs) > MANY_SONGS:
        print(f"notice: these are many songs for {settings.max_train_steps} steps; train_pool.py goes through all of "
              "them, again and again (README)", file=sys.stderr)
    table = sheet_table(known, vocabulary, model_path)
    own = made_songs(LoadedModel(model_path, args.device), N_REHEARSED, FIRST_SEED)
    rehearsal = list(tqdm(own, total=N_REHEARSED, desc="rehearsing", unit="song", disable=None))
    teacher = Teacher(base, vocabulary, settings, table.levels if table else None, rehearsal)
    model, learned = learn_all(teacher, songs)
    facts = release_facts(known) | teacher.sheets(all_pieces(songs))
    facts[ADAPTED] = {"weights_hash": file_hash(model_path), **learned.to_facts()}
    save_release(args.output, model, vocabulary, facts)
    print(what_it_learned(learned))
    print(f"{args.output}: hear it with python generate.py -mp {args.output} -n 3")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The options of generate.py: what is wrong with them, and what they ask for.

Those that set how notes are sampled are in `config_options.py`. Light: no torch.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from backline.common.errors import UserError
from backline.common.paths import BAND_MODEL, BUNDLED_MODEL, OWN_INDEX
from backline.evaluation.copy_index import WINDOW
from backline.generation.config import DTYPES, DYNAMICS, GenConfig, Reading
from backline.generation.config_options import (
    add_control_options,
    add_draws_option,
    add_rule_options,
    add_sampling_options,
)
from backline.generation.prompt import Prompt
from backline.generation.reading import Asked
from backline.generation.task import incomplete_parts
from backline.generation.wish import Wish, check_has_song, parse_bars
from backline.music import choices
from backline.music.choices import Choices, choices_of
from backline.music.roles import parse_parts, part_name
from backline.music.rows import parts_of
from backline.music.song import DEFAULT_TEMPO, check_tempo
from backline.music.vocab import Vocabulary

SEEDS = 2**32  # seeds are drawn from 0 to this, exclusive


# ---------------------------------------------------------------- options


def add_options(parser: argparse.ArgumentParser) -> None:
    """All options; their groups are the topics that `check_arguments` goes through."""
    add_prompt_options(parser.add_argument_group("prompt and model"))
    choices.add_options(
        parser.add_argument_group("what the model hears of the prompt; the song keeps all of it"),
        Reading())
    add_part_options(parser.add_argument_group("what to play"))
    add_choice_options(parser.add_argument_group("which songs"))
    add_output_options(parser.add_argument_group("what is written"))
    add_control_options(parser.add_argument_group(
        'controls, for a model trained with them (also "controls" in --genconfig)'))
    add_rule_options(parser.add_argument_group(
        'rules (also "rules" in --genconfig)'))


def add_prompt_options(group: argparse._ArgumentGroup) -> None:
    """The prompt, the model and its settings."""
    group.add_argument("-p", "--prompt",
                       type=Path,
                       help="song to continue or play to: .mid "
                       "or token .json (default: from scratch)")
    group.add_argument("-pi", "--prompt_idx",
                       type=int,
                       default=0,
                       metavar="N",
                       help="keep only the first N rows of the prompt, counting its BOS row "
                       "(default: all)")
    group.add_argument("--prompt-bars",
                       type=int,
                       metavar="N",
                       help="keep only the first N bars of the prompt (default: all)")
    group.add_argument("--tempo",
                       type=float,
                       metavar="BPM",
                       help="in place of the prompt's tempo and its changes; from scratch in place of "
                       f"{DEFAULT_TEMPO:g}")
    group.add_argument("--watch",
                       type=Path,
                       metavar="FOLDER",
                       help="until Ctrl-C, use each MIDI file dropped or changed in FOLDER as -p; "
                       "its songs go to a folder of its name inside -o")
    group.add_argument("-mp", "--model_path",
                       type=Path,
                       default=BUNDLED_MODEL,
                       metavar="MODEL",
                       help="model: .safetensors, a .pth of train_pool.py, or hf:owner/name on the "
                       f"Hugging Face hub (default: {BUNDLED_MODEL.name} in models/; {BAND_MODEL.name} "
                       "there plays seven parts)")
    group.add_argument("-d", "--device",
                       default="auto",
                       help="auto, cuda, mps or cpu; auto takes a GPU for models of 30 M parameters "
                       "or more, which the CPU plays slower (default: %(default)s)")
    group.add_argument("--dtype",
                       choices=DTYPES,
                       help="number format of the weights (default: int8 on a CPU, fp32 on a GPU)")
    add_sampling_options(group)


def add_choice_options(group: argparse._ArgumentGroup) -> None:
    """How many songs, from which seeds, and which of them to keep."""
    group.add_argument("-n", "--num_samples",
                       type=int,
                       default=1,
                       help="songs to write (default: %(default)s)")
    group.add_argument("--seed",
                       type=int,
                       help="song i uses seed + i, unless that one is rejected (default: random)")
    group.add_argument("--best-of",
                       type=int,
                       metavar="M",
                       help="make M songs and write the -n best, by a score that is printed")
    add_draws_option(group)
    group.add_argument("--check-copies", "--copies", type=Path, nargs="?", const=OWN_INDEX,
                       metavar="INDEX",
                       help="say how many new notes in a row are in training songs, using an index of "
                       "copies.py (default: that beside the model, or else the bundled model's)")
    group.add_argument("--max-copy",
                       type=int,
                       metavar="NOTES",
                       help="like --check-copies, and "
                       "replace songs with more such notes by songs of further seeds")
    group.add_argument("--reproduce",
                       type=Path,
                       metavar="FILE",
                       help="make a song again from its "
                       "recipe, or all songs of a stars.json")


def add_output_options(group: argparse._ArgumentGroup) -> None:
    """Where songs go, and what else to write."""
    group.add_argument("-o", "--output",
                       type=Path,
                       help="folder (default: generated; with --watch, FOLDER-generated)")
    group.add_argument("--force",
                       action="store_true",
                       help="number songs from 0 and replace those that have these numbers")
    group.add_argument("-sp", "--save_prompt",
                       action="store_true",
                       help="also write the prompt as NUMBER-prompt.mid")
    group.add_argument("-pe", "--print_events",
                       action="store_true",
                       help="print the new notes' events")
    group.add_argument("--quiet",
                       action="store_true",
                       help="no notices: of what was read as what, and what people may not expect")
    group.add_argument("--png",
                       action="store_true",
                       help="also draw each song as a piano roll, NUMBER.png")
    group.add_argument("--wav",
                       action="store_true",
                       help="also write each song as sound, NUMBER.wav; needs FluidSynth and a "
                       "SoundFont")
    group.add_argument("--soundfont",
                       type=Path,
                       metavar="SF2",
                       help="SoundFont for --wav (default: one in the usual system folders)")
    group.add_argument("--no-page",
                       dest="page",
                       action="store_false",
                       help="do not write index.html")


def add_part_options(group: argparse._ArgumentGroup) -> None:
    """Which parts and bars are made."""
    group.add_argument("--given",
                       metavar="PARTS",
                       help="parts of the prompt to play to: bass,piano")
    group.add_argument("--make",
                       metavar="PARTS",
                       help="parts to make (default: all that are not "
                       "given; with --fill, all of the song's)")
    group.add_argument("--missing",
                       action="store_true",
                       help="make the parts that the prompt lacks, to fit those it has")
    group.add_argument("--same-parts",
                       action="store_true",
                       help="make only the parts that the prompt has")
    group.add_argument("--fill",
                       type=parse_bars,
                       metavar="BARS",
                       help="replace these bars of the prompt, counted from 1: 5-8, or 2,5-8")
    group.add_argument("--bars",
                       type=int,
                       metavar="N",
                       help="exactly N new bars (default: "
                       f"{GenConfig.num_bars} from scratch, at most that many after a prompt)")
    group.add_argument("--loop",
                       action="store_true",
                       help="let no new note ring on past the last bar, so the file loops")
    group.add_argument("--dynamics",
                       choices=DYNAMICS,
                       help="velocities of new notes: as the model's songs are played, or all alike "
                       f"(default: {GenConfig.dynamics})")


# ---------------------------------------------------------------- checks


def check_arguments(args: argparse.Namespace) -> None:
    """Raise UserError about options that are wrong whatever the files say, before anything slow."""
    has_song = bool(args.prompt or args.watch)
    check_prompt(args, has_song)
    check_parts(args, has_song)
    check_choice(args)
    check_outputs(args, has_song)


def check_prompt(args: argparse.Namespace, has_song: bool) -> None:
    """Raise UserError about the prompt, how much of it is kept and how it is read."""
    if args.watch and args.prompt:
        raise UserError("--watch uses the files of a folder as prompts; leave out -p")
    if args.prompt_idx < 0 or (args.prompt_idx and not has_song):
        raise UserError(f"-pi {args.prompt_idx}: must be 0 or more rows of a prompt (-p)")
    if args.prompt_bars is not None and (args.prompt_bars < 1 or not has_song):
        raise UserError(f"--prompt-bars {args.prompt_bars}: must be 1 or more bars of a prompt (-p)")
    if args.prompt_bars and args.prompt_idx:
        raise UserError("--prompt-bars and -pi both cut the prompt; give one of them")
    if args.tempo is not None:
        check_tempo(args.tempo, "--tempo")
    for name in (field.name for field in dataclasses.fields(Choices)):
        if getattr(args, name) is not None and not has_song:
            option = "part" if name == "tracks" else name.replace("_", "-")
            raise UserError(f"--{option}: is about how a prompt is read; give one with -p")


def check_parts(args: argparse.Namespace, has_song: bool) -> None:
    """Raise UserError about parts and bars that cannot be made, or are named twice."""
    check_has_song(args.given is not None, args.fill is not None, has_song)
    if args.same_parts and (args.make is not None or not has_song):
        raise UserError("--same-parts uses the parts of a prompt; give -p, leave out --make")
    if args.same_parts and args.fill is not None:
        raise UserError("--same-parts: --fill already makes the song's parts; leave it out")
    other_wishes = (args.given, args.make, args.fill, args.bars)
    if args.missing and (not has_song or args.same_parts or other_wishes != (None,) * 4):
        raise UserError("--missing works out the parts from a prompt; give -p, leave out "
                        "--given, --make, --same-parts, --fill and --bars")
    if args.bars is not None and args.bars < 1:
        raise UserError(f"--bars {args.bars} must be at least 1")


def check_choice(args: argparse.Namespace) -> None:
    """Raise UserError about numbers out of range."""
    if args.num_samples < 1:
        raise UserError(f"-n {args.num_samples}: must be at least 1")
    if args.seed is not None and not 0 <= args.seed < SEEDS:
        raise UserError(f"--seed {args.seed}: must be from 0 to {SEEDS - 1}")
    if args.best_of is not None and args.best_of < args.num_samples:
        raise UserError(f"--best-of {args.best_of}: at least as many as -n {args.num_samples}")
    if args.max_copy is not None and args.max_copy < WINDOW:
        raise UserError(f"--max-copy {args.max_copy}: must be at least {WINDOW}, the "
                        f"shortest run an index finds")


def check_outputs(args: argparse.Namespace, has_song: bool) -> None:
    """Raise UserError about files that cannot be written, or would be overwritten."""
    if args.save_prompt and not has_song:
        raise UserError("-sp: there is no prompt to save; give one with -p")
    if args.force and args.prompt:
        beside = args.prompt.resolve().parent
        if beside == args.output.resolve():
            raise UserError(f"-p {args.prompt}: --force would overwrite songs beside it, "
                            "perhaps itself; give another -o")
    if args.soundfont and not args.wav:
        raise UserError(f"--soundfont {args.soundfont}: only for --wav; add it, or leave --soundfont out")


# ---------------------------------------------------------------- what they ask


def asked_of(args: argparse.Namespace, config: GenConfig, vocabulary: Vocabulary) -> Asked:
    """How the prompt is read. Raises UserError about choices that mean nothing."""
    reading = choices_of(args, Reading(), vocabulary)
    reading = dataclasses.replace(reading, n_bars=args.prompt_bars or 0, tempo=args.tempo or 0.0)
    in_place = bool(args.fill or args.given or args.missing)
    n_new = 0 if in_place else args.bars or config.num_bars
    made: tuple[str, ...] = ()
    if args.given is not None and args.make is not None:
        made = parse_parts(args.make, vocabulary)
    return Asked(reading, args.prompt_idx, args.fill or (), n_new, made)


def make_wish(args: argparse.Namespace,
              prompt: Prompt,
              vocabulary: Vocabulary) -> Wish:
    """What the options ask for; --missing and --same-parts take the parts of the prompt."""
    given: tuple[str, ...] = ()
    make: tuple[str, ...] = ()
    if args.given is not None:
        given = parse_parts(args.given, vocabulary)
    if args.make is not None:
        make = parse_parts(args.make, vocabulary)
    given = _with_taken(given, make, prompt, vocabulary)
    if args.missing and prompt.path:  # no file has come yet where a folder is watched
        given = incomplete_parts(prompt.rows, vocabulary)
    if args.same_parts and prompt.path:
        make = tuple(name
                     for name in parts_of(prompt.rows, vocabulary)
                     if name not in given)
        if not make:
            besides = " besides those given" if given else ""
            raise UserError(f"--same-parts: the prompt has no parts{besides}; "
                            "name those to be made with --make")
    return Wish(given, make, args.fill or (), args.bars or 0, args.loop)


def _with_taken(given: tuple[str, ...],
                make: tuple[str, ...],
                prompt: Prompt,
                vocabulary: Vocabulary) -> tuple[str, ...]:
    """`given`, and with the drums the parts whose hits people count as drums: tambourine, congas.

    A drummer's track often holds them too; whether they come from it or from one of their own makes
    no difference. Those to be made stay out.
    """
    if vocabulary.part_names[vocabulary.first_drums] not in given:
        return given
    taken = {part.name for part in vocabulary.parts if part.takes}
    along = taken.intersection(parts_of(prompt.rows, vocabulary)).difference(make)
    return tuple(name for name in vocabulary.part_names if name in along.union(given))


def given_notices(args: argparse.Namespace, wish: Wish, vocabulary: Vocabulary) -> list[str]:
    """A line for each part that is given though --given does not name it."""
    if args.given is None:
        return []
    named = parse_parts(args.given, vocabulary)
    drums = vocabulary.part_names[vocabulary.first_drums]
    return [f"{name} is given along with {drums}; to have it made anew, name it in --make too"
            for name in wish.given
            if name not in named]


def check_rules_matter(args: argparse.Namespace,
                       made: Sequence[str],
                       vocabulary: Vocabulary) -> None:
    """Raise UserError about a flag with a rule for a part that is not `made`: it changes nothing."""
    with_pitches = [part_name(text.partition("=")[0], vocabulary) for text in args.pitches]
    mono = parse_parts(args.mono, vocabulary) if args.mono else ()
    for name in (*with_pitches, *mono):
        if name not in made:
            raise UserError(f"a rule for {name}, which is not made; leave it out, "
                            f"or make {name} too")
    made_parts = [part for part in vocabulary.parts if part.name in made]
    if args.key and all(part.is_drum for part in made_parts):
        raise UserError(f"--key {args.key}: is for all parts but drums, and no other is made; "
                        "leave it out")

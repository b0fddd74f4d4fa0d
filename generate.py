"""Write new music as MIDI: from scratch, the rest of a song, some parts for others, or bars in the middle.

Input    a model (.safetensors or .pth; by default the one in this repository); perhaps a song, .mid or token .json
Output   in the output folder, for each song: 0.mid, its stems 0-drums.mid, 0-bass.mid, 0-piano.mid (a stem per part
         of the model's vocabulary), with -sp 0-prompt.mid, with --png 0.png, with --wav 0.wav; index.html to see
         and hear all songs of the folder in a browser; genconfigs.txt says how each was made
Example  python generate.py -o generated -n 3
         python generate.py -p prompt.mid -o generated -n 3
         python generate.py -p song.mid --given bass,piano --make drums
         python generate.py -p song.mid --fill 5-8
         python generate.py --watch drop_here --missing
         python generate.py --bars 8 --loop --key A --scale minor --best-of 16 -n 4
         python generate.py --check-copies --max-copy 40
         python generate.py --reproduce generated/0.mid
         python generate.py --reproduce stars.json

A song carries its recipe, from which --reproduce makes the same bytes again on the same machine and versions; so do the
stars that index.html exports.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import (
    BUNDLED_COPIES,
    BUNDLED_MODEL,
    check_file,
    check_writable,
    file_hash,
    make_folder,
    write_bytes,
)
from backline.common.settings import config_from_file, config_to_dict
from backline.evaluation.copy_index import WINDOW, CopyCheck
from backline.generation.config import DTYPES, ControlConfig, GenConfig
from backline.generation.making import Made, best, make_songs
from backline.generation.output_files import describe, log_run, next_number, remove_song, song_bytes, write_song
from backline.generation.prompt import Prompt, open_prompt, read_prompt
from backline.generation.recipes import Recipe, differences, surroundings
from backline.generation.session import Studio
from backline.generation.stars import Original, read_originals
from backline.generation.task import (
    Task,
    Wish,
    incomplete_parts,
    make_task,
    parse_bars,
    parse_parts,
    parts_of,
    resting_parts,
    split_names,
)
from backline.generation.telling import check_controls
from backline.generation.watch import Watcher, folder_beside, watch
from backline.listening.ideas_page import PAGE_NAME, check_page, write_page
from backline.listening.wav import find_synthesizer
from backline.music.chords import parse_chords
from backline.music.song import TICKS_PER_QUARTER, Song, parts_to_bytes
from backline.music.vocab import Vocabulary

SEEDS = 2**32  # seeds are drawn from 0 to this, exclusive
REPRODUCE_TAKES = ("reproduce", "prompt", "model_path", "output", "device", "page")


def open_studio(args: argparse.Namespace, dtype: str) -> Studio:
    check_file(args.model_path)
    studio = Studio(args.model_path, args.device, dtype)
    studio.take_few_cores()
    return studio


# ---------------------------------------------------------------- command


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("-p", "--prompt", type=Path,
                        help="song to play to or to continue: .mid or token .json (default: from scratch)")
    parser.add_argument("-pi", "--prompt_idx", type=int, default=0, metavar="N",
                        help="keep the first N rows of the prompt, its BOS row counted (default: all)")
    parser.add_argument("-mp", "--model_path", type=Path, default=BUNDLED_MODEL,
                        help="model: .safetensors or a .pth of train_pool.py (default: the one in this repository)")
    parser.add_argument("--watch", type=Path, metavar="FOLDER", help="until Ctrl-C, take each MIDI file in FOLDER, "
                        "dropped there or changed, as -p; its songs go to a folder of its name in that of -o")
    parser.add_argument("-o", "--output", type=Path,
                        help="folder (default: generated; with --watch FOLDER-generated, beside it)")
    parser.add_argument("-n", "--num_samples", type=int, default=1, help="songs to write (default: %(default)s)")
    parser.add_argument("--genconfig", type=Path,
                        help="JSON with sampling settings (default: those of configs/genconfig.json)")
    parser.add_argument("-sp", "--save_prompt", action="store_true", help="also write the prompt as NUMBER-prompt.mid")
    parser.add_argument("-pe", "--print_events", action="store_true", help="print the new notes' events")
    parser.add_argument("--png", action="store_true", help="also draw each song as a piano roll, NUMBER.png")
    parser.add_argument("--wav", action="store_true",
                        help="also write each song as sound, NUMBER.wav; needs FluidSynth and a SoundFont")
    parser.add_argument("--soundfont", type=Path, metavar="SF2",
                        help="SoundFont for --wav (default: one where systems keep them)")
    parser.add_argument("--no-page", dest="page", action="store_false", help="do not write index.html")
    parser.add_argument("-d", "--device", default="auto", help="auto, cuda, mps or cpu (default: %(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0],
                        help="of the weights: the smaller, the faster, and the less exact (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="song i uses seed + i, unless that is passed over (default: drawn)")
    parser.add_argument("--force", action="store_true", help="number songs from 0, over those that are there")
    parser.add_argument("--best-of", type=int, default=0, metavar="M",
                        help="make M songs and write the -n best of them, by a score that is printed")
    parser.add_argument("--check-copies", type=Path, nargs="?", const=BUNDLED_COPIES, metavar="INDEX",
                        help="say how many new notes in a row are in training songs, by an index of copies.py "
                             f"(default: models/{BUNDLED_COPIES.name} of this repository)")
    parser.add_argument("--max-copy", type=int, metavar="NOTES",
                        help="--check-copies, and pass over songs with more such notes, for those of further seeds")
    parser.add_argument("--reproduce", type=Path, metavar="FILE",
                        help="make a song of generate.py again from its recipe, or all those of a stars.json")
    what = parser.add_argument_group("what to play")
    what.add_argument("--given", metavar="PARTS", help="parts of the prompt that are played to: bass,piano")
    what.add_argument("--make", metavar="PARTS", help="parts to make (default: all that are not given; with --fill, "
                      "those of the song)")
    what.add_argument("--missing", action="store_true", help="make the parts that the prompt lacks, to those it has")
    what.add_argument("--same-parts", action="store_true", help="make the parts that the prompt has, and no others")
    what.add_argument("--fill", metavar="BARS", help="make these bars of the prompt anew, from 1: 5-8")
    what.add_argument("--bars", type=int, metavar="N", help="exactly N new bars (default: "
                      f"{GenConfig.num_bars} from scratch, up to as many after a prompt)")
    what.add_argument("--loop", action="store_true", help="no new note rings on past the last bar made")
    controls = parser.add_argument_group("what a model with controls is told, which --genconfig holds under "
                                         "\"controls\" too")
    controls.add_argument("--chords", metavar="CHORDS", help="one a bar, again and again: \"Am F C G\"; F:2 lasts two "
                          "bars, F:.5 half of one, Am/C has its bass, - is none")
    controls.add_argument("--density", metavar="PART=LEVEL", help="how many notes parts play: drums=busy,piano=3; "
                          "sparse, medium, busy or 1 to 8")
    controls.add_argument("--ending", choices=("yes", "no"), help="whether the song ends with its last bar (default: "
                          "yes from scratch; no with --loop, --given or a prompt)")
    rules = parser.add_argument_group("rules, which --genconfig holds under \"rules\" too")
    rules.add_argument("--key", help="tonic of all parts but drums: C, F#, Bb")
    rules.add_argument("--scale", help="major, minor, dorian, ... (default: major)")
    rules.add_argument("--pitches", action="append", default=[], metavar="PART=PITCHES",
                       help="what a part may play: bass=28-52, drums=kick,snare,42")
    rules.add_argument("--mono", metavar="PARTS", help="parts that play one note at a time")
    rules.add_argument("--no-empty-bars", action="store_true", help="each bar has a note")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    args.output = args.output or (folder_beside(args.watch, "-generated") if args.watch else Path("generated"))
    if args.reproduce:
        return reproduce(args)
    check_arguments(args)
    config = gen_config(args)
    opened = open_prompt(args.prompt) if args.prompt else None
    studio = open_studio(args, args.dtype)
    copying = None
    if args.check_copies or args.max_copy is not None:
        copying = CopyCheck(studio.copy_index(args.check_copies or BUNDLED_COPIES), args.max_copy)
    if not args.watch:
        return play(args, studio, config, opened, copying)
    studio.check(make_wish(args, read_prompt(None, Path(), 0, studio.tokenizer), studio), config)  # wrong for any file
    check_writable(args.output)
    make_folder(args.watch)

    def play_to(path: Path, output: Path) -> None:
        of_file = argparse.Namespace(**vars(args) | {"prompt": path, "output": output})
        play(of_file, studio, config, open_prompt(path), copying)

    return watch(Watcher(args.watch, args.output, play_to), again=args.force)


def play(args: argparse.Namespace, studio: Studio, config: GenConfig, opened: Song | dict[str, Any] | None,
         copying: CopyCheck | None) -> int:
    """Make the songs of one prompt, or from scratch."""
    prompt = read_prompt(opened, args.prompt, args.prompt_idx, studio.tokenizer)
    wish = make_wish(args, prompt, studio)
    studio.check(wish, config)
    task = make_task(wish, prompt.rows, studio.tokenizer.vocabulary, config)
    check_rules_matter(args, task.made, studio.tokenizer.vocabulary)
    for line in check_controls(config, task):
        print(f"notice: {line}", file=sys.stderr)
    check_output(args)
    block_size = studio.model.config.block_size
    if len(task.prompt) >= block_size:
        print(f"notice: the prompt has {len(task.prompt)} notes, more than the model sees at once ({block_size}); "
              f"it continues from the last of them", file=sys.stderr)
    if task.dropped:
        print(f"notice: left out of the prompt: {', '.join(task.dropped)}", file=sys.stderr)
    resting = resting_parts(wish, task, studio.tokenizer.vocabulary)
    if resting:
        print(f"notice: goes on with {' and '.join(wish.make)} alone, since --make says no more; to play to what is "
              f"there, say --given {','.join(resting)}" + " in place of --bars" * bool(wish.bars), file=sys.stderr)
    return write_songs(args, studio, wish, task, config, prompt, copying)


def check_arguments(args: argparse.Namespace) -> None:
    """Raise UserError about what is wrong whatever the files say."""
    has_prompt = bool(args.prompt or args.watch)
    if args.watch and args.prompt:
        raise UserError("--watch takes the files of a folder for prompts; leave out -p")
    if args.num_samples < 1:
        raise UserError(f"-n {args.num_samples}: at least one song")
    if args.prompt_idx < 0 or (args.prompt_idx and not has_prompt):
        raise UserError(f"-pi {args.prompt_idx}: a number of rows to keep of a prompt (-p)")
    if args.save_prompt and not has_prompt:
        raise UserError("-sp: there is no prompt to save; give one with -p")
    if args.seed is not None and not 0 <= args.seed < SEEDS:
        raise UserError(f"--seed {args.seed}: must be from 0 to {SEEDS - 1}")
    if args.best_of and args.best_of < args.num_samples:
        raise UserError(f"--best-of {args.best_of}: at least as many as -n {args.num_samples}")
    if args.max_copy is not None and args.max_copy < WINDOW:
        raise UserError(f"--max-copy {args.max_copy}: an index tells no fewer than {WINDOW} notes; allow as many")
    if args.same_parts and (args.make is not None or not has_prompt):
        raise UserError("--same-parts takes the parts of a prompt (-p), in place of --make")
    if args.same_parts and args.fill is not None:
        raise UserError("--same-parts: --fill makes the parts that the song has anyhow; leave it out")
    if args.missing and (not has_prompt or args.same_parts
                         or (args.given, args.make, args.fill, args.bars) != (None,) * 4):
        raise UserError("--missing takes the parts of a prompt (-p), in place of --given, --make, --same-parts, --fill "
                        "and --bars")
    if args.bars is not None and args.bars < 1:
        raise UserError(f"--bars {args.bars} must be at least 1")
    if args.fill is not None:
        parse_bars(args.fill)
    if args.force and args.prompt and args.prompt.resolve().parent == args.output.resolve():
        raise UserError(f"-p {args.prompt}: --force would overwrite songs beside it, perhaps itself; give another -o")
    for option, value in (("--given", args.given), ("--fill", args.fill)):
        if value is not None and not has_prompt:
            raise UserError(f"{option} needs a song to play to; give one with -p")
    if args.soundfont and not args.wav:
        raise UserError(f"--soundfont {args.soundfont}: is for --wav; add that, or leave it out")
    if args.wav:
        find_synthesizer(args.soundfont).try_out()


def check_output(args: argparse.Namespace) -> None:
    """Make sure, before slow work begins, that songs and page can be written."""
    check_writable(args.output)
    if args.page:
        check_page(args.output / PAGE_NAME)


def gen_config(args: argparse.Namespace) -> GenConfig:
    """The settings of --genconfig, with what the flags say of rules in their place."""
    config = config_from_file(GenConfig, args.genconfig) if args.genconfig else GenConfig()
    pitches: dict[str, str] = {}
    for text in args.pitches:
        part, equals, allowed = text.partition("=")
        if not equals:
            raise UserError(f"--pitches {text}: give a part and what it may play, such as bass=28-52")
        if part.strip() in pitches:
            raise UserError(f"--pitches {text}: {part.strip()} was named before; list all that it may play at once")
        pitches[part.strip()] = allowed
    said = {"key": args.key, "scale": args.scale, "monophonic": None if args.mono is None else split_names(args.mono),
            "no_empty_bars": args.no_empty_bars or None, "pitches": {**config.rules.pitches, **pitches}}
    rules = dataclasses.replace(config.rules, **{name: value for name, value in said.items() if value is not None})
    if args.scale and not rules.key:
        raise UserError(f"--scale {args.scale}: needs a --key")
    return dataclasses.replace(config, rules=rules, controls=control_config(args, config.controls))


def control_config(args: argparse.Namespace, config: ControlConfig) -> ControlConfig:
    """The controls of --genconfig, with what the flags say in their place."""
    said: dict[str, Any] = {}
    if args.chords is not None:
        parse_chords(args.chords)
        said["chords"] = args.chords
    if args.density is not None:
        pairs = [item.partition("=") for item in filter(None, (item.strip() for item in args.density.split(",")))]
        said["density"] = {part.strip(): level.strip() for part, _, level in pairs}
        if len(said["density"]) < max(len(pairs), 1):
            raise UserError(f"--density {args.density:.40}: give each part once, and its level: drums=busy,piano=3")
    if args.ending is not None:
        said["ending"] = args.ending
    return dataclasses.replace(config, **said)


def check_rules_matter(args: argparse.Namespace, made: Sequence[str], vocabulary: Vocabulary) -> None:
    """Raise UserError about a rule among the flags that changes nothing, since what it is about is not `made`."""
    named = [text.partition("=")[0].strip() for text in args.pitches] + list(split_names(args.mono or ""))
    for name in named:
        if name not in made:
            raise UserError(f"a rule for {name}, which is not made; leave it out, or make {name} too")
    if args.key and all(part.is_drum for part in vocabulary.parts if part.name in made):
        raise UserError(f"--key {args.key}: is for all parts but drums, and no other is made; leave it out")


def make_wish(args: argparse.Namespace, prompt: Prompt, studio: Studio) -> Wish:
    v = studio.tokenizer.vocabulary
    given, make = (() if text is None else parse_parts(text, v) for text in (args.given, args.make))
    if args.missing and args.prompt:
        given = incomplete_parts(prompt.rows, v)
    if args.same_parts and args.prompt:  # there is none yet where a folder is watched
        make = tuple(name for name in parts_of(prompt.rows, v) if name not in given)
        if not make:
            raise UserError("--same-parts: the prompt has no parts" + (" besides those given" if given else "")
                            + "; name those to be made with --make")
    return Wish(given, make, () if args.fill is None else parse_bars(args.fill), args.bars or 0, args.loop)


def write_songs(args: argparse.Namespace, studio: Studio, wish: Wish, task: Task, config: GenConfig, prompt: Prompt,
                copying: CopyCheck | None) -> int:
    seed = args.seed if args.seed is not None else secrets.randbelow(SEEDS)
    first = 0 if args.force else next_number(args.output)
    record = {"genconfig": config_to_dict(config), "wish": config_to_dict(wish), "model": str(studio.path),
              "prompt": prompt.path or None, "prompt_idx": args.prompt_idx, "prompt_notes": len(prompt.rows),
              "tempo": prompt.tempo, "seed": seed, "device": args.device, "dtype": args.dtype, "songs": []}
    songs = make_songs(studio, wish, task, config, seed, args.best_of or args.num_samples, copying)
    try:
        if args.best_of:
            songs = best(list(songs), args.num_samples, task, config, studio.tokenizer.vocabulary)
        for number, made in enumerate(songs, first):
            recipe = studio.recipe(wish, config, prompt, made.seed, made.batch)
            write_one(args, studio, task, prompt, made, recipe, number)
            record["songs"].append({"file": f"{number}.mid", "seed": made.seed, "score": made.score or None,
                                    "copied": made.copied or None})
    finally:  # also when interrupted: what is written can be made again
        if record["songs"]:
            log_run(args.output, record)
            stems = ", ".join(f"{first}-{name}.mid" for name in studio.tokenizer.vocabulary.part_names)
            print(f"seed {seed}; stems beside each song: {stems}")
            show_page(args, studio.tokenizer.vocabulary)
    return 0


def write_one(args: argparse.Namespace, studio: Studio, task: Task, prompt: Prompt, made: Made,
              recipe: Recipe, number: int) -> None:
    """Write a song and what was asked for beside it, and say so."""
    tokenizer, rows = studio.tokenizer, task.song(made.notes)
    remove_song(args.output, number)  # under --force: the one that had this number
    files = song_bytes(rows, tokenizer, prompt.tempo, recipe, task.n_bars)
    whole = write_song(args.output, number, files)
    if not len(made.notes):
        print(f"notice: {whole} is the prompt alone: nothing more fits", file=sys.stderr)
    if args.save_prompt:
        parts = tokenizer.rows_to_parts(prompt.rows, TICKS_PER_QUARTER)
        write_bytes(args.output / f"{number}-prompt.mid",
                    parts_to_bytes(parts, tokenizer.vocabulary, TICKS_PER_QUARTER, prompt.tempo))
    if args.png:
        from backline.listening.piano_roll import piano_roll  # brings matplotlib

        given = task.was_there(rows) if len(task.given) else None
        write_bytes(whole.with_suffix(".png"), piano_roll(rows, tokenizer.vocabulary, len(task.prompt),
                                                          f"{whole.name}, seed {made.seed}", given))
    if args.wav:
        write_bytes(whole.with_suffix(".wav"), find_synthesizer(args.soundfont).wav(files[""]))
    if args.print_events:
        print("\n".join(" ".join(events) for events in tokenizer.tokens_to_events(made.notes)))
    print(f"{whole}: {describe(rows, len(made.notes), tokenizer)}, {prompt.tempo:g} BPM, {made.seconds:.1f} s"
          + "".join(f"; {said}" for said in (made.told, made.score, made.copied) if said))


def show_page(args: argparse.Namespace, vocabulary: Vocabulary) -> None:
    """Write the page of the output folder, and say where it is."""
    if args.page:
        print(f"{write_page(args.output, vocabulary)}: open it in a browser to see, hear and choose")


# ---------------------------------------------------------------- making a song again


def reproduce(args: argparse.Namespace) -> int:
    """Make the songs again whose recipes a file holds; 0 if all bytes come out the same, 1 if not."""
    defaults = vars(build_parser().parse_args([]))
    ignored = [name for name, value in vars(args).items() if value != defaults[name] and name not in REPRODUCE_TAKES]
    if ignored:
        raise UserError(f"--reproduce takes all that makes the song from its recipe: leave out {', '.join(ignored)}")
    studios: dict[str, Studio] = {}
    jobs = [open_job(original, args, studios) for original in read_originals(args.reproduce)]
    check_output(args)
    takes: dict[str, list[Any]] = {}
    same = [make_again(job, args.output, takes) for job in jobs]
    show_page(args, jobs[0].studio.tokenizer.vocabulary)
    return 0 if all(same) else 1


@dataclasses.dataclass(frozen=True)
class Job:
    """A song to make again, and all that it takes."""

    original: Original
    studio: Studio
    prompt: Prompt
    task: Task


def open_job(original: Original, args: argparse.Namespace, studios: dict[str, Studio]) -> Job:
    """A song with its model, which is opened if it is not among `studios` yet, and its prompt.

    Raises UserError if either is not the one that the song was made with.
    """
    name, recipe = original.name, original.recipe
    if recipe.dtype not in studios:
        studios[recipe.dtype] = open_studio(args, recipe.dtype)
    studio = studios[recipe.dtype]
    if studio.hash != recipe.model_hash:
        raise UserError(f"{name}: made by another model, {recipe.model} ({recipe.model_hash}), not by "
                        f"{studio.path} ({studio.hash}); name it with -mp")
    path, opened = args.prompt or Path(recipe.prompt), None
    if args.prompt and not recipe.prompt:
        raise UserError(f"-p {args.prompt}: {name} was made without a prompt; leave it out")
    if recipe.prompt:
        if not path.is_file():
            raise UserError(f"{path}: no such file; say with -p where the prompt of {name} is now")
        if file_hash(path) != recipe.prompt_hash:
            raise UserError(f"{path}: not the prompt that {name} was made of; name that one with -p")
        opened = open_prompt(path)
    prompt = read_prompt(opened, path, recipe.prompt_rows, studio.tokenizer)
    task = make_task(recipe.wish, prompt.rows, studio.tokenizer.vocabulary, recipe.genconfig)
    return Job(original, studio, prompt, task)


def make_again(job: Job, folder: Path, takes: dict[str, list[Any]]) -> bool:
    """Write the song, and say whether its bytes came out the same, which is returned.

    `takes` holds the batches that were made, so that songs of one batch are made together, as they were then.
    """
    original, recipe, studio = job.original, job.original.recipe, job.studio
    batch = repr(dataclasses.replace(recipe, seed=recipe.batch[0]))
    if batch not in takes:
        takes[batch] = studio.make(job.task, recipe.genconfig, recipe.batch)
    made = takes[batch][recipe.batch.index(recipe.seed)]
    files = song_bytes(job.task.song(made.notes), studio.tokenizer, job.prompt.tempo, recipe, job.task.n_bars)
    whole = write_song(folder, next_number(folder), files)
    if original.hash in (hashlib.sha256(data).hexdigest() for data in files.values()):
        print(f"{whole}: the same bytes as {original.name}")
        return True
    changed = differences(recipe.surroundings, surroundings(studio.device.type))
    print(f"{whole}: not the same bytes as {original.name}"
          + (f": {'; '.join(changed)}" if changed else "; nothing that it depends on has changed: was it edited?"))
    return False


if __name__ == "__main__":
    sys.exit(main())

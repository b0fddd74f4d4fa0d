"""Write new music as MIDI: from scratch, after a song, parts to other parts, bars in the middle.

Input    a model (.safetensors or .pth; default: the one in this repository); optionally a song,
         .mid or token .json
Output   in the output folder, for each song: 0.mid and its stems 0-drums.mid, 0-bass.mid,
         0-piano.mid (one for each part of the model's vocabulary); 0-prompt.mid with -sp, 0.png
         with --png, 0.wav with --wav. For all songs: index.html, a page to see and hear them in a
         browser, and genconfigs.txt, which says how each was made
Example  python generate.py -o generated -n 3
         python generate.py -p prompt.mid -o generated -n 3
         python generate.py -p song.mid --given bass,piano --make drums
         python generate.py -p song.mid --fill 5-8
         python generate.py --watch drop_here --missing
         python generate.py --bars 8 --loop --key A --scale minor --best-of 16 -n 4
         python generate.py --check-copies --max-copy 40
         python generate.py --reproduce generated/0.mid
         python generate.py --reproduce stars.json

Each song carries its recipe, and so do the stars that index.html exports. From a recipe,
--reproduce makes the same bytes again, on the same machine and with the same versions.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_writable, make_folder
from backline.common.paths import BUNDLED_COPIES, BUNDLED_MODEL
from backline.common.settings import config_to_dict
from backline.evaluation.copy_index import WINDOW, CopyCheck
from backline.generation.config import DTYPES, DYNAMICS, PLAYED, GenConfig, Reading
from backline.generation.given_song import parts_on_used_channels, prompt_file
from backline.generation.keeping import harmony_of
from backline.generation.options import (
    FEELS,
    asked_of,
    check_rules_matter,
    gen_config,
    key_notices,
    make_wish,
    with_part_names,
)
from backline.generation.output_files import describe, log_run, write_song
from backline.generation.prompt import Prompt, open_prompt, read_prompt
from backline.generation.reading import Asked
from backline.generation.recipes import read_originals
from backline.generation.reproduce import make_again, open_job
from backline.generation.session import (
    GeneratedSong,
    LoadedModel,
    Session,
    best_songs,
    open_model,
    open_session,
)
from backline.generation.task import check_has_song, parse_bars, resting_parts
from backline.generation.telling import check_controls
from backline.generation.watch import Watcher, folder_beside, watch
from backline.listening.ideas_page import PAGE_NAME, check_page, write_page
from backline.listening.song_view import view_song
from backline.listening.wav import Synthesizer, find_synthesizer
from backline.music import choices as song_choices
from backline.music.choices import Choices
from backline.music.midi_writer import parts_to_bytes
from backline.music.song import DEFAULT_TEMPO, TICKS_PER_QUARTER
from backline.music.vocab import BAR, FIRST_ID, Vocabulary

SEEDS = 2**32  # seeds are drawn from 0 to this, exclusive
REPRODUCE_TAKES = ("reproduce", "prompt", "model_path", "output", "device", "page")


# ---------------------------------------------------------------- options


def build_parser() -> argparse.ArgumentParser:
    """The command line; its groups are the topics that `check_arguments` goes through."""
    parser = Parser(f"{__doc__}\n{song_choices.OPTIONS}")
    add_prompt_options(parser.add_argument_group("prompt and model"))
    song_choices.add_options(
        parser.add_argument_group("what the model hears of the prompt; the song keeps all of it"),
        Reading())
    add_part_options(parser.add_argument_group("what to play"))
    add_choice_options(parser.add_argument_group("which songs"))
    add_output_options(parser.add_argument_group("what is written"))
    add_control_options(parser.add_argument_group(
        'controls, for a model trained with them (also "controls" in --genconfig)'))
    add_rule_options(parser.add_argument_group(
        'rules (also "rules" in --genconfig)'))
    return parser


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
                       help="model: .safetensors or a .pth of train_pool.py (default: the one in "
                       "this repository)")
    group.add_argument("-d", "--device",
                       default="auto",
                       help="auto, cuda, mps or cpu; auto takes mps for models of 30 M parameters "
                       "or more, which the CPU plays slower (default: %(default)s)")
    group.add_argument("--dtype",
                       choices=DTYPES,
                       default=DTYPES[0],
                       help="type of the weights: smaller is faster and less exact "
                       "(default: %(default)s)")
    group.add_argument("--feel",
                       choices=FEELS,
                       help="play safer, with fewer surprises, or wilder, with more")
    group.add_argument("--temperature",
                       type=float,
                       metavar="T",
                       help="how far to stray from what is likely: 1.1 strays more, 0.9 less "
                       f"(default: {GenConfig.temperature[0]:g})")
    group.add_argument("--genconfig",
                       type=Path,
                       help="JSON with sampling settings (default: those "
                       "of configs/genconfig.json)")


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
                       help="replace these bars of the prompt, counted from 1: 5-8")
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
    group.add_argument("--check-copies", "--copies", type=Path, nargs="?", const=BUNDLED_COPIES,
                       metavar="INDEX",
                       help="say how many new notes in a row are in training songs, using an index of "
                       f"copies.py (default: models/{BUNDLED_COPIES.name} of this repository)")
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


def add_control_options(group: argparse._ArgumentGroup) -> None:
    """The fields of `ControlConfig`."""
    group.add_argument("--chords",
                       metavar="CHORDS",
                       help='one chord a bar, repeated: "Am F C G"; '
                       "F:2 lasts two bars, F:.5 half a bar, Am/C has C in the bass, - is none, "
                       "? leaves it open. keep: those of the prompt, of the same bars with --given "
                       "or --fill, else of its last eight again")
    group.add_argument("--density",
                       metavar="PART=LEVEL",
                       help="how many notes each part plays: "
                       "drums=busy,piano=3; sparse, medium, busy or 1 to 8")
    group.add_argument("--rests",
                       metavar="PART=LEVEL",
                       help="how often a part rests: piano=often,bass=1; never, sometimes, often, "
                       "mostly or 1 to 4")
    group.add_argument("--repeats",
                       metavar="PART=LEVEL",
                       help="how much of a bar comes back four and eight bars later: drums=exactly; "
                       "hardly, partly, mostly, exactly or 1 to 4")
    group.add_argument("--ending",
                       choices=("yes", "no"),
                       help="whether the song ends with its last bar "
                       "(default: yes from scratch; no with --loop, --given or a prompt)")


def add_rule_options(group: argparse._ArgumentGroup) -> None:
    """The common fields of `RuleConfig`."""
    group.add_argument("--key",
                       help="key of all parts but drums: C, F#m, Bb, \"D dorian\"; keep: that of the "
                       "prompt")
    group.add_argument("--scale",
                       help="major, minor, dorian, ..., or how it begins: min (default: the key's "
                       "own, or major)")
    group.add_argument("--pitches",
                       action="append",
                       default=[],
                       metavar="PART=PITCHES",
                       help="what a part may play: bass=E1-E3 or bass=28-52, drums=kick,snare,42; "
                       "C4 is 60, which some DAWs call C3")
    group.add_argument("--mono", metavar="PARTS", help="parts that play one note at a time")
    group.add_argument("--no-empty-bars", action="store_true", help="put a note in every bar")


# ---------------------------------------------------------------- checks of options


def check_arguments(args: argparse.Namespace) -> None:
    """Raise UserError about options that are wrong whatever the files say, before anything slow."""
    has_song = bool(args.prompt or args.watch)
    check_prompt(args, has_song)
    check_parts(args, has_song)
    check_choice(args)
    check_outputs(args, has_song)


def check_prompt(args: argparse.Namespace, has_song: bool) -> None:
    """Raise UserError about -p, -pi and --watch."""
    if args.watch and args.prompt:
        raise UserError("--watch uses the files of a folder as prompts; leave out -p")
    if args.prompt_idx < 0 or (args.prompt_idx and not has_song):
        raise UserError(f"-pi {args.prompt_idx}: must be 0 or more rows of a prompt (-p)")
    if args.prompt_bars is not None and (args.prompt_bars < 1 or not has_song):
        raise UserError(f"--prompt-bars {args.prompt_bars}: must be 1 or more bars of a prompt (-p)")
    if args.prompt_bars and args.prompt_idx:
        raise UserError("--prompt-bars and -pi both cut the prompt; give one of them")
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


# ---------------------------------------------------------------- what is written


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Where songs go, and what is written and printed besides them."""

    folder: Path
    png: bool = False
    wav: Synthesizer | None = None
    page: bool = True
    save_prompt: bool = False
    print_events: bool = False
    force: bool = False

    def check(self) -> None:
        """Raise UserError, before slow work begins, if songs and page cannot be written."""
        check_writable(self.folder)
        if self.page:
            check_page(self.folder / PAGE_NAME)

    def write(self, song: GeneratedSong, session: Session, index: int) -> int:
        """Write a song and what goes beside it, and print a line about it; returns its number.

        `index`: how many songs this run wrote before; the song's number under --force.
        """
        tokenizer = session.loaded.tokenizer
        rows = session.task.song(song.notes)
        files = session.files(song.notes, session.recipe(song))
        beside = {}
        if self.save_prompt:
            beside["-prompt.mid"] = prompt_bytes(session)
        if self.png:
            title = f"seed {song.seed}"
            beside[".png"] = picture(files[""], self.folder, session.loaded.vocabulary, title)
        if self.wav:
            beside[".wav"] = self.wav.wav(files[""])
        number = index if self.force else None
        whole = write_song(self.folder, number, files, beside)
        if not len(song.notes):
            print(f"notice: {whole} is the prompt alone: no more notes fit", file=sys.stderr)
        if self.print_events:
            for events in tokenizer.tokens_to_events(song.notes):
                print(" ".join(events))
        tempo = session.prompt.tempo
        n_bars = session.bars_of(rows)
        clip = session.prompt.clip
        if session.prompt.given and clip:  # a hit for the next bar is heard there, and adds none
            n_bars = max(session.bars_of(song.notes), session.prompt.unheard + clip.n_bars)
        contents = describe(files[""], len(song.notes), tokenizer.vocabulary, n_bars)
        line = f"{whole}: {contents}, {tempo:g} BPM"
        said = (line, song.told, song.score, song.copied)
        print("; ".join(filter(None, said)))
        return int(whole.stem)

    def write_page(self, vocabulary: Vocabulary) -> None:
        """Write the page of the folder, if it is to have one, and print where it is."""
        if self.page:
            page = write_page(self.folder, vocabulary)
            print(f"{page}: open it in a browser to see, hear and choose")


def outputs_of(args: argparse.Namespace) -> Outputs:
    """Raises UserError if sound is asked for and nothing can play it."""
    synthesizer = None
    if args.wav:
        synthesizer = find_synthesizer(args.soundfont)
        synthesizer.try_out()
    return Outputs(
        args.output,
        png=args.png,
        wav=synthesizer,
        page=args.page,
        save_prompt=args.save_prompt,
        print_events=args.print_events,
        force=args.force,
    )


def prompt_bytes(session: Session) -> bytes:
    """The prompt as a MIDI file."""
    tokenizer = session.loaded.tokenizer
    prompt = session.prompt
    if prompt.given and prompt.clip:
        return prompt_file(prompt.given, prompt.clip.n_bars)
    parts = tokenizer.rows_to_parts(prompt.rows, TICKS_PER_QUARTER)
    return parts_to_bytes(parts, tokenizer.vocabulary, TICKS_PER_QUARTER, prompt.tempo)


def picture(midi: bytes, folder: Path, vocabulary: Vocabulary, title: str) -> bytes:
    """The song in a MIDI file, which will be in `folder`, as a piano roll, PNG."""
    from backline.listening.piano_roll import piano_roll

    view, _ = view_song(folder / "song.mid", vocabulary, midi)
    return piano_roll(view, vocabulary, title)


# ---------------------------------------------------------------- command


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = build_parser().parse_args(argv)
    if args.output is None:
        args.output = Path("generated")
        if args.watch:
            args.output = folder_beside(args.watch, "-generated")
    if args.reproduce:
        return reproduce(args)
    check_arguments(args)
    outputs = outputs_of(args)
    config = gen_config(args)
    opened = open_prompt(args.prompt) if args.prompt else None
    loaded = open_model(args.model_path, args.device, args.dtype)
    if args.dynamics == PLAYED and not loaded.dynamics:
        raise UserError(f"--dynamics {PLAYED}: {args.model_path} has not learned how songs are played; "
                        "let it with dynamics.py, or leave the option out")
    copy_check = copy_check_of(args, loaded)
    config = with_part_names(config, loaded.vocabulary)
    setup = Setup(args, config, loaded, copy_check, asked_of(args, config, loaded.vocabulary))
    if args.watch:
        return watch_folder(setup, outputs)
    prompt = read_prompt(opened, args.prompt, setup.asked, loaded.tokenizer)
    return play(setup, prompt, outputs)


@dataclasses.dataclass(frozen=True)
class Setup:
    """The options and what they load: all that does not depend on the prompt."""

    args: argparse.Namespace
    config: GenConfig
    loaded: LoadedModel
    copy_check: CopyCheck | None
    asked: Asked


def copy_check_of(args: argparse.Namespace, loaded: LoadedModel) -> CopyCheck | None:
    """None if nobody asked for it."""
    if args.check_copies is None and args.max_copy is None:
        return None
    path = args.check_copies or BUNDLED_COPIES
    return CopyCheck(loaded.copy_index(path), args.max_copy)


def watch_folder(setup: Setup, outputs: Outputs) -> int:
    """Make the songs of each file that comes to the folder; returns the exit code."""
    args = setup.args
    loaded = setup.loaded
    nothing = read_prompt(None, Path(), setup.asked, loaded.tokenizer)
    wish = make_wish(args, nothing, loaded.vocabulary)
    loaded.check(wish, setup.config)  # holds for any file
    check_writable(outputs.folder)
    make_folder(args.watch)

    def play_to(path: Path, folder: Path) -> None:
        """Make the songs of one file."""
        opened = open_prompt(path)
        prompt = read_prompt(opened, path, setup.asked, loaded.tokenizer)
        outputs_there = dataclasses.replace(outputs, folder=folder)
        play(setup, prompt, outputs_there)

    watcher = Watcher(args.watch, outputs.folder, play_to)
    return watch(watcher, again=outputs.force)


def play(setup: Setup, prompt: Prompt, outputs: Outputs) -> int:
    """Make the songs of one prompt, or from scratch; returns the exit code."""
    args = setup.args
    vocabulary = setup.loaded.vocabulary
    wish = make_wish(args, prompt, vocabulary)
    reading = setup.asked.reading if prompt.path or args.tempo else None
    session = open_session(setup.loaded, wish, setup.config, prompt, reading)
    session = dataclasses.replace(session, copy_check=setup.copy_check)
    check_rules_matter(args, session.task.made, vocabulary)
    notices = [*key_notices(args, session.config.rules),
               *check_controls(session.config, session.task),
               *notices_about(session)]
    outputs.check()
    for notice in [] if args.quiet else notices:
        print(f"notice: {notice}", file=sys.stderr)
    return write_songs(args, session, outputs)


def notices_about(session: Session) -> list[str]:
    """What becomes of the prompt, where people may not expect it."""
    task, wish, prompt = session.task, session.wish, session.prompt
    notices = [*prompt.notices, *notices_about_bars(session)]
    if len(prompt.rows):
        n_bars = prompt.clip.n_bars if prompt.clip else 0
        harmony = harmony_of(prompt.rows, wish, session.loaded.vocabulary, prompt.unheard, n_bars)
        if heard := harmony.describe():
            notices.append(f"heard: {heard}")
    block_size = session.loaded.model.config.block_size
    if len(task.prompt) >= block_size:
        notices.append(f"the prompt has {len(task.prompt)} notes, more than the model sees at once "
                       f"({block_size}); it continues from the last of them")
    if task.dropped:
        notices.append(f"left out of the prompt: {', '.join(task.dropped)}")
    if resting := resting_parts(wish, task):
        in_place = " in place of --bars" if wish.bars else ""
        notices.append(f"continuing with {' and '.join(wish.make)} only (--make); to play along "
                       f"with the other parts use --given {','.join(resting)}{in_place}")
    return notices


def notices_about_bars(session: Session) -> list[str]:
    """Which bars are made, and on which channels, where people may not expect it."""
    task, prompt = session.task, session.prompt
    notices = []
    if session.wish.given and task.first_bar:
        notices.append(f"made from bar {task.first_bar + 1} on, where what is given begins")
    if session.wish.fill and not plays_in(prompt, session.wish.fill):
        first, last = session.wish.fill
        bars = f"bar {first}" if first == last else f"bars {first}-{last}"
        notices.append(f"no part plays in {bars}: nothing is replaced there")
    if prompt.given:
        for name in parts_on_used_channels(prompt.given, task.made):
            notices.append(f"no channel is free for the made {name}: it shares one with another "
                           f"track")
    return notices


def plays_in(prompt: Prompt, bars: Sequence[int]) -> bool:
    """Whether a part of the prompt begins a note in the bars from the first to the last, from 1."""
    first, last = bars
    bar = prompt.rows[:, BAR] - FIRST_ID + prompt.unheard + 1
    return bool(((bar >= first) & (bar <= last)).any())


def write_songs(args: argparse.Namespace,
                session: Session,
                outputs: Outputs) -> int:
    """Make and write the songs, log them, write the page; returns the exit code.

    Raises UserError, after all that, if fewer songs than wanted do not copy.
    """
    vocabulary = session.loaded.vocabulary
    seed = args.seed
    if seed is None:
        seed = secrets.randbelow(SEEDS)
    n_made = args.best_of or args.num_samples
    record = run_record(args, session, seed)
    try:
        songs = session.songs(seed, n_made)
        if args.best_of:
            songs = iter(best_songs(list(songs), args.num_samples, session))
        for i, song in enumerate(songs):
            number = outputs.write(song, session, i)
            record["songs"].append(song_record(song, number))
    finally:  # also when interrupted: what is written can be made again
        if record["songs"]:
            log_run(outputs.folder, record)
            first = Path(record["songs"][0]["file"]).stem
            names = [f"{first}-{name}.mid" for name in vocabulary.part_names]
            stems = ", ".join(names)
            print(f"seed {seed}; stems beside each song: {stems}")
            outputs.write_page(vocabulary)
    n_written = len(record["songs"])
    if n_written < args.num_samples:
        session.check_enough(n_written, n_made)
    return 0


def run_record(args: argparse.Namespace,
               session: Session,
               seed: int) -> dict[str, Any]:
    """What genconfigs.txt holds of a run, before any song is made."""
    prompt = session.prompt
    return {
        "genconfig": config_to_dict(session.config),
        "wish": config_to_dict(session.wish),
        "model": str(session.loaded.path),
        "prompt": prompt.path or None,
        "prompt_idx": prompt.n_rows,
        "prompt_notes": len(prompt.rows),
        "tempo": prompt.tempo,
        "seed": seed,
        "device": args.device,
        "dtype": args.dtype,
        "songs": [],
    }


def song_record(song: GeneratedSong, number: int) -> dict[str, Any]:
    """What genconfigs.txt holds of a song."""
    return {
        "file": f"{number}.mid",
        "seed": song.seed,
        "score": song.score or None,
        "copied": song.copied or None,
    }


# ---------------------------------------------------------------- making a song again


def reproduce(args: argparse.Namespace) -> int:
    """Make songs again from their recipes; returns 0 if all bytes come out the same, else 1."""
    check_reproduce(args)
    outputs = Outputs(args.output, page=args.page)

    @functools.cache
    def open_once(dtype: str) -> LoadedModel:
        """Songs of one file may differ in the dtype of the weights."""
        return open_model(args.model_path, args.device, dtype)

    originals = read_originals(args.reproduce)
    jobs = [open_job(original, args.prompt, open_once) for original in originals]
    outputs.check()
    batches: dict[str, Any] = {}
    same = [make_again(job, outputs.folder, batches) for job in jobs]
    outputs.write_page(jobs[0].session.loaded.vocabulary)
    return 0 if all(same) else 1


def check_reproduce(args: argparse.Namespace) -> None:
    """Raise UserError about options that --reproduce would ignore."""
    parser = build_parser()
    defaults = vars(parser.parse_args([]))
    changed = {name
               for name, value in defaults.items()
               if getattr(args, name) != value}
    ignored = changed - set(REPRODUCE_TAKES)
    options = [action.option_strings[0]
               for action in parser._actions
               if action.dest in ignored]
    if options:
        raise UserError("--reproduce takes these settings from the recipe; "
                        f"leave out {', '.join(options)}")


if __name__ == "__main__":
    sys.exit(main())

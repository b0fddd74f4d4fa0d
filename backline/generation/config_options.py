"""The options of generate.py that set how notes are sampled, and the `GenConfig` they come to.

Light: no torch.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from backline.common.errors import UserError
from backline.common.settings import config_from_file
from backline.generation.config import KEEP, ControlConfig, GenConfig, RuleConfig
from backline.generation.keeping import check_keeps
from backline.music.chords import parse_chords
from backline.music.roles import parse_parts, part_name
from backline.music.sheet import PART_CONTROLS, parse_levels
from backline.music.theory import parse_key, scale_in_key
from backline.music.vocab import FIELDS, Vocabulary

# What safer and wilder mean; benchmarks/README.md has what they do.
FEELS: dict[str, dict[str, Any]] = {
    "safer": {
        "sampling_fn": "top_p",
        "threshold": (0.97, 0.97, 0.97, 0.95),
        "temperature": (1.0,) * len(FIELDS),
    },
    "wilder": {
        "sampling_fn": "top_p",
        "threshold": GenConfig.threshold,
        "temperature": (1.1,) * len(FIELDS),
    },
}


# ---------------------------------------------------------------- options


def add_sampling_options(group: argparse._ArgumentGroup) -> None:
    """The common fields of `GenConfig`, and its file."""
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


def add_draws_option(group: argparse._ArgumentGroup) -> None:
    """How many songs are drawn for each."""
    group.add_argument("--draws",
                       type=int,
                       metavar="N",
                       help="from scratch, draw each song N times and keep the one that sounds most like "
                       f"real songs; 1: as the model plays (default: {GenConfig.draws})")


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


# ---------------------------------------------------------------- the settings they come to


def gen_config(args: argparse.Namespace) -> GenConfig:
    """The settings of --genconfig, with those of the flags in their place.

    Raises UserError about settings that say nothing. They are checked here and not in `GenConfig`,
    as recipes of earlier versions may hold them.
    """
    config = config_from_file(GenConfig, args.genconfig) if args.genconfig else GenConfig()
    config = dataclasses.replace(config, **sampling(args))
    rules = rule_config(args, config.rules)
    if args.scale and not rules.key:
        raise UserError(f"--scale {args.scale}: needs a --key")
    if rules.scale != RuleConfig.scale and not rules.key and args.key is None:
        raise UserError(f"{args.genconfig}: rules.scale {rules.scale}: needs a --key, "
                        "or a \"key\" beside it")
    if 0 in config.top_p:
        raise UserError(f"{args.genconfig}: top_p={list(config.top_p)} must be above 0; "
                        "a nucleus of mass 0 holds nothing")
    if rules.key == KEEP and (args.scale or rules.scale != RuleConfig.scale):
        raise UserError("--key keep: keeps the scale, too; leave out --scale")
    controls = control_config(args, config.controls)
    dynamics = args.dynamics or config.dynamics
    draws = config.draws if args.draws is None else args.draws
    if args.best_of is not None:
        if args.draws is not None:
            raise UserError(f"--best-of {args.best_of} chooses among all songs; leave out --draws")
        draws = 1
    config = dataclasses.replace(config, rules=rules, controls=controls, dynamics=dynamics, draws=draws)
    check_keeps(config, bool(args.prompt or args.watch))
    return config


def sampling(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that --feel and --temperature stand for."""
    if args.feel and args.temperature is not None:
        raise UserError(f"--feel {args.feel} sets the temperature itself; leave out --temperature")
    if args.feel:
        return FEELS[args.feel]
    if args.temperature is not None:
        return {"temperature": (args.temperature,) * len(FIELDS)}
    return {}


def rule_config(args: argparse.Namespace, config: RuleConfig) -> RuleConfig:
    """The rules of --genconfig, with those of the flags in their place; pitches part by part."""
    pitches: dict[str, str] = {}
    for text in args.pitches:
        name, equals, allowed = text.partition("=")
        part = name.strip()
        if not equals:
            raise UserError(f"--pitches {text}: give a part and what it may play, "
                            "such as bass=28-52")
        if part in pitches:
            raise UserError(f"--pitches {text}: {part} was named before; "
                            "list all that it may play at once")
        pitches[part] = allowed
    changed: dict[str, Any] = {"pitches": {**config.pitches, **pitches}}
    changed |= key_rule(args)
    if args.mono is not None:
        items = map(str.strip, args.mono.split(","))
        changed["monophonic"] = tuple(filter(None, items))
    if args.no_empty_bars:
        changed["no_empty_bars"] = True
    return dataclasses.replace(config, **changed)


def key_rule(args: argparse.Namespace) -> dict[str, str]:
    """Key and scale of the flags. Raises UserError about those that contradict each other."""
    scale = args.scale or ""
    if not args.key or is_keep(args.key):
        key = {} if args.key is None else {"key": args.key and KEEP}
        return key | ({"scale": scale} if scale else {})
    tonic, of_key = parse_key(args.key)
    if not of_key and not scale:
        return {"key": tonic}
    try:
        tonic, scale = scale_in_key(args.key, scale)
    except UserError as err:
        raise UserError(f"--key {args.key:.40} --scale {scale:.40}: {err}") from None
    return {"key": tonic, "scale": scale}


def is_keep(text: str) -> bool:
    """Whether what was typed for a key or chords asks for those of the prompt."""
    return text.strip().casefold() == KEEP


def control_config(args: argparse.Namespace, config: ControlConfig) -> ControlConfig:
    """The controls of --genconfig, with those of the flags in their place."""
    changed: dict[str, Any] = {}
    if args.chords is not None:
        changed["chords"] = KEEP if is_keep(args.chords) else args.chords
        if not is_keep(args.chords):
            parse_chords(args.chords)
    for control in PART_CONTROLS:
        typed = getattr(args, control)
        if typed is not None:
            changed[control] = parse_levels(control, typed)
    if args.ending is not None:
        changed["ending"] = args.ending
    return dataclasses.replace(config, **changed)


def with_part_names(config: GenConfig, vocabulary: Vocabulary) -> GenConfig:
    """The settings with the vocabulary's names for the parts that people named in their words.

    Raises UserError: no such part, or one that is named twice.
    """
    mono = config.rules.monophonic
    rules = dataclasses.replace(
        config.rules,
        pitches=_by_name(config.rules.pitches, vocabulary),
        monophonic=parse_parts(",".join(mono), vocabulary) if mono else (),
        max_chord=_by_name(config.rules.max_chord, vocabulary),
        max_per_bar=_by_name(config.rules.max_per_bar, vocabulary),
    )
    levels: dict[str, Any] = {control: _by_name(by_part, vocabulary)
                              for control, by_part in config.controls.levels.items()}
    controls = dataclasses.replace(config.controls, **levels)
    return dataclasses.replace(config, rules=rules, controls=controls)


def _by_name(by_part: dict[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """What is said of each part, by its name in the vocabulary."""
    found: dict[str, Any] = {}
    for text, value in by_part.items():
        name = part_name(text, vocabulary)
        if name in found:
            raise UserError(f"{text}: {name} is named before; name it once")
        found[name] = value
    return found


def key_notices(args: argparse.Namespace, rules: RuleConfig) -> list[str]:
    """What becomes of a key and a scale that both say which scale it is."""
    if not args.scale or not args.key or is_keep(args.key):
        return []
    _, of_key = parse_key(args.key)
    if of_key in ("", rules.scale):
        return []
    return [f"--key {args.key} --scale {args.scale}: the scale is {rules.key} {rules.scale}"]

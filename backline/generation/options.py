"""From the options of generate.py to settings and wishes. Light: no torch."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from backline.common.errors import UserError
from backline.common.settings import config_from_file
from backline.generation.config import KEEP, ControlConfig, GenConfig, Reading, RuleConfig
from backline.generation.keeping import check_keeps
from backline.generation.prompt import Prompt
from backline.generation.reading import Asked
from backline.generation.task import Wish, incomplete_parts, parse_parts, part_name, parts_of
from backline.music.choices import choices_of
from backline.music.chords import parse_chords
from backline.music.sheet import PART_CONTROLS, parse_levels
from backline.music.song import check_tempo
from backline.music.theory import parse_key, scale_in_key
from backline.music.vocab import FIELDS, Vocabulary

# What safer and wilder mean; benchmarks/README.md has what they do.
FEELS: dict[str, dict[str, Any]] = {
    "safer": {"sampling_fn": "top_p", "threshold": (0.97, 0.97, 0.97, 0.95), "temperature": (1.0,) * len(FIELDS)},
    "wilder": {"sampling_fn": "top_p", "threshold": GenConfig.threshold, "temperature": (1.1,) * len(FIELDS)},
}


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
    config = dataclasses.replace(config, rules=rules, controls=controls, dynamics=dynamics)
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


def key_notices(args: argparse.Namespace, rules: RuleConfig) -> list[str]:
    """What becomes of a key and a scale that both say which scale it is."""
    if not args.scale or not args.key or is_keep(args.key):
        return []
    _, of_key = parse_key(args.key)
    if of_key in ("", rules.scale):
        return []
    return [f"--key {args.key} --scale {args.scale}: the scale is {rules.key} {rules.scale}"]


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
    def named(by_part: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for text, value in by_part.items():
            name = part_name(text, vocabulary)
            if name in found:
                raise UserError(f"{text}: {name} is named before; name it once")
            found[name] = value
        return found

    mono = config.rules.monophonic
    rules = dataclasses.replace(
        config.rules,
        pitches=named(config.rules.pitches),
        monophonic=parse_parts(",".join(mono), vocabulary) if mono else (),
        max_chord=named(config.rules.max_chord),
        max_per_bar=named(config.rules.max_per_bar),
    )
    controls = dataclasses.replace(
        config.controls,
        density=named(config.controls.density),
        rests=named(config.controls.rests),
        repeats=named(config.controls.repeats),
    )
    return dataclasses.replace(config, rules=rules, controls=controls)


def asked_of(args: argparse.Namespace, config: GenConfig, vocabulary: Vocabulary) -> Asked:
    """How the prompt is read. Raises UserError about choices that mean nothing."""
    if args.tempo is not None:
        check_tempo(args.tempo, "--tempo")
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

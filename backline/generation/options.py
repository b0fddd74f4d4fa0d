"""From the options of generate.py to settings and wishes. Light: no torch."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from backline.common.errors import UserError
from backline.common.settings import config_from_file
from backline.generation.config import ControlConfig, GenConfig, RuleConfig
from backline.generation.prompt import Prompt
from backline.generation.task import Wish, incomplete_parts, parse_parts, parts_of, split_names
from backline.music.chords import parse_chords
from backline.music.vocab import Vocabulary


def gen_config(args: argparse.Namespace) -> GenConfig:
    """The settings of --genconfig, with those of the flags in their place.

    Raises UserError about settings that say nothing. They are checked here and not in `GenConfig`,
    as recipes of earlier versions may hold them.
    """
    config = config_from_file(GenConfig, args.genconfig) if args.genconfig else GenConfig()
    rules = rule_config(args, config.rules)
    if args.scale and not rules.key:
        raise UserError(f"--scale {args.scale}: needs a --key")
    if rules.scale != RuleConfig.scale and not rules.key and args.key is None:
        raise UserError(f"{args.genconfig}: rules.scale {rules.scale}: needs a --key, "
                        "or a \"key\" beside it")
    if 0 in config.top_p:
        raise UserError(f"{args.genconfig}: top_p={list(config.top_p)} must be above 0; "
                        "a nucleus of mass 0 holds nothing")
    controls = control_config(args, config.controls)
    dynamics = args.dynamics or config.dynamics
    return dataclasses.replace(config, rules=rules, controls=controls, dynamics=dynamics)


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
    if args.key is not None:
        changed["key"] = args.key
    if args.scale is not None:
        changed["scale"] = args.scale
    if args.mono is not None:
        changed["monophonic"] = split_names(args.mono)
    if args.no_empty_bars:
        changed["no_empty_bars"] = True
    return dataclasses.replace(config, **changed)


def control_config(args: argparse.Namespace, config: ControlConfig) -> ControlConfig:
    """The controls of --genconfig, with those of the flags in their place."""
    changed: dict[str, Any] = {}
    if args.chords is not None:
        parse_chords(args.chords)
        changed["chords"] = args.chords
    if args.density is not None:
        changed["density"] = parse_levels(args.density)
    if args.ending is not None:
        changed["ending"] = args.ending
    return dataclasses.replace(config, **changed)


def parse_levels(text: str) -> dict[str, str]:
    """The level of each part in "drums=busy,piano=3". Raises UserError."""
    items = [item.strip() for item in text.split(",")]
    pairs = [item.partition("=") for item in items if item]
    levels = {part.strip(): level.strip() for part, _, level in pairs}
    if len(levels) < max(len(pairs), 1):
        raise UserError(f"--density {text:.40}: give each part once, and its level: "
                        "drums=busy,piano=3")
    return levels


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
    names = (text.partition("=")[0] for text in args.pitches)
    with_pitches = [name.strip() for name in names]
    for name in (*with_pitches, *split_names(args.mono or "")):
        if name not in made:
            raise UserError(f"a rule for {name}, which is not made; leave it out, "
                            f"or make {name} too")
    made_parts = [part for part in vocabulary.parts if part.name in made]
    if args.key and all(part.is_drum for part in made_parts):
        raise UserError(f"--key {args.key}: is for all parts but drums, and no other is made; "
                        "leave it out")

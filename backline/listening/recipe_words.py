"""A recipe in the words of musicians: what was asked for, and how the song was drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from backline.generation.config import GenConfig, RuleConfig
from backline.generation.recipes import Recipe
from backline.generation.wish import bars_text
from backline.music.vocab import FIELDS


def asked_for(recipe: Recipe) -> str:
    """What was asked for, in a few words; "" for a song from scratch without further wishes."""
    wish = recipe.wish
    rules = recipe.genconfig.rules
    made = " and ".join(wish.make)
    if wish.given:
        text = f"{made or 'the rest'} to given {' and '.join(wish.given)}"
    elif wish.fill:
        text = f"{bars_text(wish.fill, '–')} anew" + (f" in {made}" if made else "")
    elif recipe.prompt:
        text = "continued" + (f" in {made}" if made else "")
    else:
        text = made
    wishes = [text]
    if wish.loop:
        wishes.append("loop")
    if rules.key:
        wishes.append(f"{rules.key} {rules.scale}")
    return ", ".join(filter(None, wishes))


def recipe_summary(recipe: Recipe) -> str:
    """The recipe in a line."""
    source = "from nothing"
    if recipe.prompt:
        source = f"from {PurePath(recipe.prompt).name}"
    return f"How it was made: {source}, with seed {recipe.seed}"


def recipe_rows(recipe: Recipe) -> list[tuple[str, str]]:
    """The recipe as names and values, for people; without empty ones."""
    config = recipe.genconfig
    controls = config.controls
    rows = {
        "asked for": asked_for(recipe),
        "from": recipe.prompt,
        **_rule_rows(config.rules),
        "chords": controls.chords,
        **{name: _by_part(levels) for name, levels in controls.levels.items()},
        "ends with the last bar": controls.ending,
        "seed": str(recipe.seed),
        "how boldly": _sampling(config),
        "model": f"{recipe.model}, {recipe.dtype}",
    }
    return [(name, text) for name, text in rows.items() if text]


def _rule_rows(rules: RuleConfig) -> dict[str, str]:
    return {
        "key": f"{rules.key} {rules.scale}" if rules.key else "",
        "one note at a time": ", ".join(rules.monophonic),
        "may play": _by_part(rules.pitches),
        "most notes at once": _by_part(rules.max_chord),
        "most notes in a bar": _by_part(rules.max_per_bar),
        "a note in every bar": "yes" if rules.no_empty_bars else "",
    }


def _by_part(values: Mapping[str, object]) -> str:
    return ", ".join(f"{part} {value}" for part, value in values.items())


def _sampling(config: GenConfig) -> str:
    """Temperature and filters: with one number where all families have the same."""
    texts = [f"temperature {_by_family(config.temperature)}"]
    if config.sampling_fn != "none":
        texts.append(f"{config.sampling_fn} {_by_family(config.threshold)}")
    for name in ("top_p", "min_p"):
        if values := getattr(config, name):
            texts.append(f"{name} {_by_family(values)}")
    if config.variety:
        texts.append(f"variety {config.variety:g}")
    return "; ".join(texts)


def _by_family(values: Sequence[float]) -> str:
    if len(set(values)) == 1:
        return f"{values[0]:g}"
    return ", ".join(f"{field} {value:g}" for field, value in zip(FIELDS, values, strict=True))

"""Lines about what becomes of a prompt, where people may not expect it."""

from __future__ import annotations

from collections.abc import Sequence

from backline.generation.given_song import parts_on_used_channels
from backline.generation.keeping import harmony_of
from backline.generation.prompt import Prompt
from backline.generation.session import Session
from backline.generation.task import resting_parts
from backline.generation.wish import bars_text, stretches_of
from backline.music.vocab import BAR, FIRST_ID


def notices_about(session: Session) -> list[str]:
    """Lines about what becomes of the prompt."""
    task, wish, prompt = session.task, session.wish, session.prompt
    notices = [*prompt.notices, *notices_about_bars(session)]
    if len(prompt.rows):
        n_bars = prompt.clip.n_bars if prompt.clip else 0
        harmony = harmony_of(prompt.rows, wish, session.loaded.vocabulary, prompt.unheard, n_bars)
        if heard := harmony.describe():
            notices.append(f"heard: {heard}")
    block_size = session.loaded.config.block_size
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
    """Lines about the bars that are made, and the channels."""
    task, prompt = session.task, session.prompt
    notices = []
    if session.wish.given and task.first_bar:
        notices.append(f"new notes begin with bar {task.first_bar + 1}, as the given parts do")
    if session.wish.fill and not plays_in(prompt, session.wish.fill):
        bars = bars_text(session.wish.fill)
        notices.append(f"no part plays in {bars}: nothing is replaced there")
    if prompt.given:
        for name in parts_on_used_channels(prompt.given, task.made):
            notices.append(f"no channel is free for the made {name}: it shares one with another "
                           f"track")
    return notices


def plays_in(prompt: Prompt, fill: Sequence[int]) -> bool:
    """Whether a part of the prompt begins a note in the bars of `Wish.fill`."""
    bar = prompt.rows[:, BAR] - FIRST_ID + prompt.unheard + 1
    return any(((bar >= first) & (bar <= last)).any() for first, last in stretches_of(fill))

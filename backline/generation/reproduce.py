"""Songs made again from their recipes, for `generate.py --reproduce`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from backline.common.errors import UserError
from backline.common.files import file_hash
from backline.common.surroundings import differences, song_surroundings
from backline.generation.config import Reading
from backline.generation.output_files import write_song
from backline.generation.prompt import Prompt, open_prompt, read_prompt, read_rows_alone
from backline.generation.reading import Asked
from backline.generation.recipes import Original, Recipe
from backline.generation.session import LoadedModel, Session, open_session
from tokenizer import MidiTokenizerPooled

if TYPE_CHECKING:
    from backline.generation.sampler import Sampled


@dataclasses.dataclass(frozen=True)
class Job:
    """A song to make again, and what it takes."""

    original: Original
    session: Session


def open_job(original: Original,
             prompt: Path | None,
             open_model: Callable[[str], LoadedModel]) -> Job:
    """A song with its model and its prompt.

    Args:
        original: the song, with its recipe.
        prompt: where its prompt is now; None: where the recipe says.
        open_model: loads the model with weights of a dtype, or has it already.
    Raises:
        UserError: the model or the prompt is not the one that the song was made with.
    """
    name, recipe = original.name, original.recipe
    loaded = open_model(recipe.dtype)
    if loaded.hash != recipe.model_hash:
        raise UserError(f"{name}: made by another model, {recipe.model} ({recipe.model_hash}), "
                        f"not by {loaded.path} ({loaded.hash}); name it with -mp")
    if prompt and not recipe.prompt:
        raise UserError(f"-p {prompt}: {name} was made without a prompt; leave it out")
    path = prompt or Path(recipe.prompt)
    if recipe.prompt:
        _check_prompt(path, original)
    read = _read_prompt(recipe, path, loaded.tokenizer)
    session = open_session(loaded, recipe.wish, recipe.genconfig, read, recipe.reading)
    return Job(original, session)


def _read_prompt(recipe: Recipe, path: Path, tokenizer: MidiTokenizerPooled) -> Prompt:
    """The prompt of a song, read as it was then."""
    if recipe.prompt and not recipe.reading:
        return read_rows_alone(path, recipe.prompt_rows, tokenizer)
    wish = recipe.wish
    n_new = 0 if wish.needs_given else wish.bars or recipe.genconfig.num_bars
    made = wish.make if wish.given else ()
    asked = Asked(recipe.reading or Reading(), recipe.prompt_rows, wish.fill, n_new, made)
    opened = open_prompt(path) if recipe.prompt else None
    return read_prompt(opened, path, asked, tokenizer)


def _check_prompt(path: Path, original: Original) -> None:
    """Raise UserError if a file is gone or is not the prompt that a song was made with."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; "
                        f"say with -p where the prompt of {original.name} is now")
    if file_hash(path) != original.recipe.prompt_hash:
        raise UserError(f"{path}: not the prompt that {original.name} was made of; "
                        "name that one with -p")


def make_again(job: Job, folder: Path, batches: dict[str, list[Sampled]]) -> bool:
    """Write the song into `folder` and say whether its bytes came out the same; returns that.

    `batches` holds the batches made so far, by a recipe without its own seed; this song's is added.
    Songs that were made together are made together again.
    """
    name = job.original.name
    recipe = job.original.recipe
    session = job.session
    loaded = session.loaded
    shared = repr(dataclasses.replace(recipe, seed=recipe.batch[0]))
    if shared not in batches:
        batches[shared] = loaded.make(session.task, recipe.genconfig, recipe.batch)
    song = batches[shared][recipe.batch.index(recipe.seed)]
    files = session.files(song.notes, recipe)
    whole = write_song(folder, None, files)
    hashes = [hashlib.sha256(data).hexdigest() for data in files.values()]
    if job.original.hash in hashes:
        print(f"{whole}: the same bytes as {name}")
        return True
    changed = differences(recipe.surroundings, song_surroundings(loaded.player.surroundings))
    why = "; nothing that it depends on has changed: was it edited?"
    if changed:
        why = f": {'; '.join(changed)}"
    print(f"{whole}: not the same bytes as {name}{why}")
    return False

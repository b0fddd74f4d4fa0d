"""What the studio knows and does, whoever asks: ideas, jobs, edits, what was undone, who watches."""

from __future__ import annotations

import asyncio
import io
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backline.common.errors import UserError
from backline.common.files import json_bytes
from backline.generation.output_files import write_song
from backline.generation.recipes import STARS_FORMAT, STARS_VERSION
from backline.generation.session import LoadedModel
from backline.generation.wish import Wish, bars_text
from backline.listening.ideas_page import OTHERS, common_data
from backline.listening.wav import Synthesizer, find_synthesizer
from backline.studio import edits
from backline.studio.asking import PROMPT, FormError, understand
from backline.studio.edits import Heard, Selection, edited_files, hear_song
from backline.studio.folder import Idea, IdeaGoneError, StudioFolder
from backline.studio.given import Dropped, read_dropped
from backline.studio.jobs import OVER, Job, Worker, hash_of
from backline.studio.steps import Deleted, Made, Named, Step

MOST_UNDONE = 100  # steps
Event = dict[str, Any]


class Hub:
    """Tells events to all pages that are open."""

    def __init__(self) -> None:
        self.listeners: dict[asyncio.Queue[Event | None], asyncio.AbstractEventLoop] = {}
        self.is_closed = False

    def close(self) -> None:
        """End the telling, also for pages that still come."""
        self.is_closed = True
        self.publish(None)

    def publish(self, event: Event | None) -> None:
        """Tell an event to all, from any thread; None ends the telling."""
        for waiting, loop in list(self.listeners.items()):
            loop.call_soon_threadsafe(waiting.put_nowait, event)


class Studio:
    """The state behind the page. Its methods may be called from several threads at once."""

    def __init__(self, folder: Path, loaded: LoadedModel) -> None:
        """Raises UserError, as `StudioFolder` does."""
        self.loaded = loaded
        self.vocabulary = loaded.vocabulary
        self.folder = StudioFolder(folder, self.vocabulary)
        self.lock = threading.RLock()
        self.hub = Hub()
        self.told: dict[str, dict[str, Any]] = {}  # by id, what is written on the ideas that pages know
        self.synthesizer = synthesizer_here()
        self.undoable: list[Step] = []
        self.redoable: list[Step] = []
        self.worker = Worker(self.folder, self.lock, self.hub.publish, self._wrote)

    # ---------------------------------------------------------- what pages are told

    def subscribe(self) -> tuple[asyncio.Queue[Event | None], Event]:
        """A queue of what happens from now on, and all that is so now. Call it in the event loop."""
        waiting: asyncio.Queue[Event | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        with self.lock:
            self.sync()
            self.hub.listeners[waiting] = loop
            if self.hub.is_closed:
                waiting.put_nowait(None)
            return waiting, self.state()

    def state(self) -> Event:
        """All that a page shows."""
        ideas = [self.idea_data(idea) for idea in self._shown()]
        jobs = [job.data() for job in self.worker.jobs.values()]
        return {"type": "state", "ideas": ideas, "jobs": jobs, **self._counts()}

    def page_data(self) -> dict[str, Any]:
        """What the page's script needs to begin."""
        folder = self.folder.folder
        data = common_data(folder.resolve().name, "", self.vocabulary)
        data["parts"].append({"name": OTHERS, "other": True})
        return data | {"folder": str(folder), "renders": self.synthesizer is not None}

    def sync(self) -> None:
        """Tell the pages which ideas came, went or changed, whoever wrote or deleted their files."""
        with self.lock:
            ideas = {idea.id: idea for idea in self._shown()}
            written = {id_: self.folder.kept.get(idea.hash, {}) for id_, idea in ideas.items()}
            for id_ in self.told.keys() - written.keys():
                self.hub.publish({"type": "gone", "id": id_})
            for id_, idea in ideas.items():  # an id says what is played
                if self.told.get(id_) != written[id_]:
                    self.hub.publish({"type": "idea", "idea": self.idea_data(idea)})
            self.told = written

    def idea_data(self, idea: Idea) -> dict[str, Any]:
        """What a page shows of an idea."""
        own = self.folder.kept.get(idea.hash, {})
        return {
            **idea.data,
            "id": idea.id,
            "is_given": idea.number is None,
            "name": own.get("name", ""),
            "note": own.get("note", ""),
            "star": own.get("star", False),
            "said": own.get("said") or idea.data["said"],
            "parents": idea.parents,
        }

    def _shown(self) -> list[Idea]:
        """All ideas but those of a job that is still at work, whose cards are there already."""
        at_work: set[str] = set()
        for job in self.worker.jobs.values():
            if job.state not in OVER:
                at_work.update(job.songs)
        return [idea for idea in self.folder.ideas() if idea.hash not in at_work]

    def _counts(self) -> Event:
        binned = [path.name for path in self.folder.binned()]
        return {
            "undo": self.undoable[-1].words if self.undoable else "",
            "redo": self.redoable[-1].words if self.redoable else "",
            "n_binned": len(binned),
            "unreadable": self.folder.unreadable,
        }

    def _tell_counts(self) -> None:
        self.sync()
        self.hub.publish({"type": "counts", **self._counts()})

    # ---------------------------------------------------------- asking

    def ask(self, form: dict[str, Any]) -> Event:
        """Make the songs that a form asks for; the job. Raises FormError."""
        form = dict(form)
        id_ = form.pop(PROMPT, "")
        if not isinstance(id_, str):
            raise FormError(f"{PROMPT}: must be the id of an idea", PROMPT)
        prompt = self._find(id_) if id_ else None
        asking = understand(form, prompt.path if prompt else None, self.folder.folder, self.loaded)
        name = self.folder.name_of(prompt) if prompt else ""
        title = title_of(asking.session.wish, name)
        job = self.worker.add(title, prompt.id if prompt else "", asking)
        return job.data()

    def _find(self, id_: str) -> Idea:
        with self.lock:
            return self.folder.idea(id_)

    def _wrote(self, job: Job) -> None:
        """A job is over: its songs can be undone, and pages learn of them."""
        if job.songs:
            self._did(Made(self.folder, job.title, list(job.songs)))
        self._tell_counts()

    # ---------------------------------------------------------- edits

    def edit(self, id_: str, edit: dict[str, Any]) -> Event:
        """Make a new idea of one by an edit without the model; what pages show of it.

        The same edit once more gives the idea that is there already.

        Raises UserError: bars, parts or numbers that do not fit.
        """
        idea = self._find(id_)
        heard = hear_song(idea.path, self.vocabulary)
        parents = [idea.hash]
        name = self.folder.name_of(idea)
        operation = edit.get("operation")
        if operation == "move":
            selection = selection_of(edit, heard)
            semitones = _whole(edit.get("semitones"), "semitones")
            edited = edits.with_pitches_moved(heard, selection, semitones)
            said = f"{_names(selection, heard)} of {name} moved by {semitones:+d}"
        elif operation == "tempo":
            edited = edits.at_tempo(heard, edit.get("tempo"))  # type: ignore[arg-type]  # it checks
            said = f"{name} at {edit['tempo']:g} BPM"
        elif operation == "trim":
            selection = selection_of(edit, heard)
            edited = edits.trimmed(heard, selection)
            said = f"bars {selection.first}–{selection.last} of {name}"
        elif operation == "take":
            other = self._find(str(edit.get("into", "")))
            part = str(edit.get("part", ""))
            into = hear_song(other.path, self.vocabulary)
            self._check_part(part)
            edited = edits.with_part_of(into, heard, part)
            parents = [other.hash, idea.hash]
            said = f"{self.folder.name_of(other)} with the {part} of {name}"
        else:
            raise UserError("operation: must be move, tempo, trim or take")
        about = {"operation": operation, "said": said, "parents": parents}
        files = edited_files(edited, about)
        with self.lock:
            if same := self.folder.by_hash(hash_of(files)):
                return self.idea_data(same)
            path = write_song(self.folder.folder, None, files)
            made = next(one for one in self.folder.ideas() if one.path == path)
            self._did(Made(self.folder, said, [made.hash]))
            self._tell_counts()
            return self.idea_data(made)

    def _check_part(self, part: str) -> None:
        if part not in self.vocabulary.part_names:
            raise UserError(f"part: must be one of {', '.join(self.vocabulary.part_names)}")

    def selection(self, id_: str, wanted: dict[str, Any]) -> bytes:
        """A MIDI file of exactly the bars and parts that somebody selected."""
        heard = hear_song(self._find(id_).path, self.vocabulary)
        return edits.selection_bytes(heard, selection_of(wanted, heard))

    # ---------------------------------------------------------- given songs, names, the bin

    def drop(self, dropped: Dropped) -> Event:
        """Keep what was dropped on the page as a given song; it and what was read as what."""
        read = read_dropped(dropped, self.vocabulary)
        with self.lock:
            known = {idea.hash for idea in self.folder.ideas()}
            path = self.folder.add_given(read.name, read.data, read.stems)
            made = next((one for one in self.folder.ideas() if one.path == path), None)
            if made is None:
                raise UserError(self.folder.unreadable.get(path.name, f"{path.name}: is gone"))
            if made.hash not in known:
                self._did(Made(self.folder, f"{path.name} dropped", [made.hash]))
            self._tell_counts()
            return {"idea": self.idea_data(made), "notices": read.notices, "tracks": read.tracks}

    def keep(self, id_: str, change: dict[str, Any]) -> None:
        """Write a name, a note or a star on an idea. A name can be undone."""
        with self.lock:
            idea = self._find(id_)
            before = self.folder.keep(idea.hash, change)
            if "name" in change and before["name"] != change["name"]:
                self._did(Named(self.folder, idea.hash, before["name"], change["name"]))
            self._tell_counts()

    def throw_away(self, id_: str) -> None:
        """Move an idea to the bin."""
        with self.lock:
            idea = self._find(id_)
            self.folder.throw_away(idea)
            self._did(Deleted(self.folder, self.folder.name_of(idea), [idea.hash]))
            self._tell_counts()

    def take_back_all(self) -> None:
        """Move everything in the bin back to the folder."""
        with self.lock:
            hashes = self.folder.binned_hashes()
            for hash_ in hashes:
                self.folder.take_back(hash_)
            self._did(Made(self.folder, "ideas back from the bin", hashes))
            self._tell_counts()

    def undo(self) -> None:
        """Take the last step back. Nothing is deleted: what was made goes to the bin."""
        self._step(self.undoable, self.redoable, lambda step: step.undo())

    def redo(self) -> None:
        """Take again the step that was taken back last."""
        self._step(self.redoable, self.undoable, lambda step: step.redo())

    def _step(self,
              source: list[Step],
              target: list[Step],
              take: Callable[[Step], None]) -> None:
        with self.lock:
            if not source:
                raise UserError("there is nothing to undo or redo; it counts from the last start on")
            step = source.pop()
            try:
                take(step)
                target.append(step)
            finally:
                self._tell_counts()

    def _did(self, step: Step) -> None:
        self.undoable.append(step)
        del self.undoable[:-MOST_UNDONE]
        self.redoable.clear()

    # ---------------------------------------------------------- out

    def starred_zip(self) -> bytes:
        """The starred songs with their stems, and `stars.json` for --reproduce.

        Raises UserError if nothing is starred.
        """
        with self.lock:
            starred = [idea for idea in self.folder.ideas()
                       if self.folder.kept.get(idea.hash, {}).get("star")]
            if not starred:
                raise UserError("nothing is starred; star some ideas first")
            written = io.BytesIO()
            songs = []
            with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
                for idea in starred:
                    for one in idea.data["files"]:
                        path = idea.path.parent / one["file"]
                        archive.writestr(_dated(one["file"]), path.read_bytes())
                    if idea.data["recipe"]:
                        note = self.folder.kept[idea.hash].get("note", "")
                        songs.append({"file": idea.path.name, "hash": idea.hash, "note": note,
                                      "recipe": idea.data["recipe"]})
                if songs:
                    stars = {"format": STARS_FORMAT, "version": STARS_VERSION, "songs": songs}
                    archive.writestr(_dated("stars.json"), json_bytes(stars))
            return written.getvalue()

    def file(self, id_: str, label: str) -> tuple[str, bytes]:
        """Name and bytes of one of an idea's files, by what the page calls it: "drums"."""
        idea = self._find(id_)
        for one in idea.data["files"]:
            if one["label"] == label:
                return one["file"], (idea.path.parent / one["file"]).read_bytes()
        raise IdeaGoneError("this idea has no such file")

    def sound(self, id_: str) -> bytes:
        """An idea as a WAV file. Raises UserError where FluidSynth is missing or fails."""
        if self.synthesizer is None:
            raise UserError("no sound: FluidSynth or a SoundFont is missing on this machine; "
                            "generate.py --wav says how to get them")
        return self.synthesizer.wav(self._find(id_).path.read_bytes())

    def close(self) -> None:
        """Stop what is made."""
        self.worker.close()


def synthesizer_here() -> Synthesizer | None:
    """FluidSynth with the machine's SoundFont; None where either is missing."""
    try:
        return find_synthesizer(None)
    except UserError:
        return None


def _dated(name: str) -> zipfile.ZipInfo:
    """An entry of an archive with a date that does not change, so that neither do its bytes."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


# ---------------------------------------------------------------- words and numbers


def title_of(wish: Wish, name: str) -> str:
    """A job in a few words; `name` is that of the song it is about."""
    made = " and ".join(wish.make)
    if wish.fill:
        return f"{made or 'all parts'} of {bars_text(wish.fill, '–')} again, in {name}"
    if wish.given:
        return f"new {made or 'parts'} to {name}"
    bars = f"{wish.bars} bars" if wish.bars else "bars"
    if name:
        return f"{name} goes on" + (f" by {bars}" if wish.bars else "")
    return (f"{bars} from nothing" if wish.bars else "from nothing") + (f", {made}" if made else "")


def selection_of(wanted: dict[str, Any], heard: Heard) -> Selection:
    """The bars and parts in a request; all parts that the song has where it names none at all."""
    first = _whole(wanted.get("first"), "first")
    last = _whole(wanted.get("last"), "last")
    parts = wanted.get("parts", [name for name, voices in heard.song.voices.items() if voices])
    if not isinstance(parts, list) or not all(isinstance(name, str) for name in parts):
        raise UserError("parts: must be a list of names of parts")
    if not parts:
        raise UserError("no part is selected; select one at least")
    return Selection(first, last, tuple(parts))


def _whole(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{name}: must be a whole number")
    return value


def _names(selection: Selection, heard: Heard) -> str:
    """The selected parts and bars in words."""
    parts = " and ".join(selection.parts)
    if (selection.first, selection.last) == (1, heard.n_bars):
        return parts
    return f"{parts} in bars {selection.first}–{selection.last}"

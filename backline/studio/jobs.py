"""Jobs: songs that are made while one watches. One job runs, the others wait.

A worker thread takes them in order. What happens is published as events, plain data that a page
gets as JSON; each has a `type`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import queue
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from backline.common.errors import UserError
from backline.generation.output_files import write_song
from backline.generation.run_log import RunLog
from backline.generation.sampler import Note
from backline.generation.session import GeneratedSong, Session, best_songs
from backline.listening.ideas_page import music_data
from backline.listening.song_view import view_of_rows
from backline.music.song import TICKS_PER_QUARTER
from backline.music.vocab import (
    BAR,
    FIRST_ID,
    NOTE_DUR,
    PITCH_INSTRUMENT,
    START_POS,
    Vocabulary,
)
from backline.studio.asking import Asking
from backline.studio.folder import StudioFolder

WAITING, RUNNING, DONE, STOPPED, FAILED = "waiting", "running", "done", "stopped", "failed"
OVER = (DONE, STOPPED, FAILED)
FLUSH_SECONDS = 0.05  # notes drawn meanwhile are told together
COUNT_SECONDS = 0.25
MOST_WAITING = 32
MOST_REMEMBERED = 20  # jobs that are over, and did not go well: their cards say why

Publish = Callable[[dict[str, Any]], None]


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """Somebody stopped the job."""


@dataclasses.dataclass
class Job:
    """Songs to make, and how far they are.

    title: for people, such as "drums of bars 5-8 again".
    said: lines about what became of the wish and of its songs.
    notes: of each song that grows, [lane, onset, end, pitch] in ticks.
    ground: what is there before: as `ideas_page.music_data` has it.
    songs: hashes of the songs that were written, in the order of the notes.
    """

    number: int
    title: str
    parent: str
    asking: Asking
    state: str = WAITING
    said: list[str] = dataclasses.field(default_factory=list)
    notes: list[list[list[int]]] = dataclasses.field(default_factory=list)
    ground: dict[str, Any] = dataclasses.field(default_factory=dict)
    songs: list[str] = dataclasses.field(default_factory=list)
    n_drawn: int = 0
    stop: bool = False

    @property
    def n_growing(self) -> int:
        """Songs that are shown while they grow: none if some of them may be replaced."""
        return 0 if self.asking.redraws else self.asking.n

    def data(self, notes: bool = True) -> dict[str, Any]:
        """For a page; `notes` with those drawn so far."""
        found = {
            "number": self.number,
            "title": self.title,
            "parent": self.parent,
            "state": self.state,
            "said": self.said,
            "songs": self.songs,
            "n": self.n_growing,
            "n_drawn_from": self.asking.best_of or self.asking.n,
            "n_drawn": self.n_drawn,
            "command": self.asking.command,
        }
        if notes:
            found |= {"ground": self.ground, "notes": self.notes}
        return found


class Worker:
    """Makes the songs of jobs, one job after another, in a thread of its own.

    publish: called with each event, from several threads.
    wrote: called with a job that is over, after that is published.
    """

    def __init__(self,
                 folder: StudioFolder,
                 lock: threading.RLock,
                 publish: Publish,
                 wrote: Callable[[Job], None]) -> None:
        self.folder = folder
        self.lock = lock
        self.publish = publish
        self.wrote = wrote
        self.jobs: dict[int, Job] = {}
        self.waiting: queue.Queue[Job | None] = queue.Queue()
        self.n_jobs = 0
        self.thread = threading.Thread(target=self._work, name="worker", daemon=True)
        self.thread.start()

    def add(self, title: str, parent: str, asking: Asking) -> Job:
        """Put a job at the end of the queue. Raises UserError if that is full."""
        with self.lock:
            n_waiting = sum(job.state not in OVER for job in self.jobs.values())
            if n_waiting >= MOST_WAITING:
                raise UserError(f"{n_waiting} jobs wait already; stop some, or wait for them")
            self.n_jobs += 1
            job = Job(self.n_jobs, title, parent, asking, said=list(asking.notices))
            job.ground = ground_of(asking.session)
            job.notes = [[] for _ in range(job.n_growing)]
            self.jobs[job.number] = job
            self.publish({"type": "job", "job": job.data()})
        self.waiting.put(job)
        return job

    def stop(self, number: int) -> None:
        """Stop a job, or take it out of the queue. Nothing happens to one that is over."""
        with self.lock:
            job = self.jobs.get(number)
            if job:
                job.stop = True
                if job.state == WAITING:
                    self._end(job, STOPPED)

    def dismiss(self, number: int) -> None:
        """Forget a job that is over."""
        with self.lock:
            job = self.jobs.get(number)
            if job and job.state in OVER:
                del self.jobs[number]
                self.publish({"type": "dismissed", "job": number})

    def close(self) -> None:
        """Stop what runs, and end the thread."""
        with self.lock:
            for job in self.jobs.values():
                job.stop = True
        self.waiting.put(None)
        self.thread.join(timeout=5)

    # ---------------------------------------------------------- in the thread

    def _work(self) -> None:
        while (job := self.waiting.get()) is not None:
            with self.lock:
                if job.state != WAITING:
                    continue
                job.state = RUNNING
                self.publish({"type": "job", "job": job.data(notes=False)})
            self._run(job)

    def _run(self, job: Job) -> None:
        """Make the songs of a job; whatever goes wrong is said on its card."""
        try:
            songs = self._chosen(job) if job.asking.redraws else self._drawn(job)
            self._write(job, songs)
        except Stopped:
            self._over(job, STOPPED)
        except (UserError, OSError) as err:
            job.said.append(message_of(err))
            self._over(job, FAILED)
        except Exception as err:
            traceback.print_exc()  # a bug of ours: the next job is made all the same
            job.said.append(f"a fault of this program: {type(err).__name__}: {err}; "
                            "its window says where")
            self._over(job, FAILED)
        else:
            self._over(job, DONE)

    def _drawn(self, job: Job) -> list[GeneratedSong]:
        """Songs whose notes are told as they are drawn; none is drawn anew."""
        told = _Telling(self, job)
        asking = job.asking
        session = asking.session
        songs = session.songs_as_drawn(asking.seed, asking.n, told.note)
        told.flush()
        for song in songs:
            if fault := session.fault(song):
                job.said.append(f"seed {song.seed}: {fault}; generate.py would draw another one")
        return songs

    def _chosen(self, job: Job) -> list[GeneratedSong]:
        """Songs as generate.py chooses them: drawn anew where one has a fault, the best of several."""
        asking = job.asking
        told = _Telling(self, job)
        n_drawn = asking.best_of or asking.n
        songs = list(asking.session.songs(asking.seed, n_drawn, told.count))
        if not asking.best_of:
            return songs
        return best_songs(songs, asking.n, asking.session)

    def _write(self, job: Job, songs: list[GeneratedSong]) -> None:
        """Write the songs as generate.py does, and log them."""
        session = job.asking.session
        log = RunLog(session, job.asking.seed, "auto")
        try:
            for song in songs:
                files = session.files(song.notes, session.recipe(song))
                with self.lock:  # so that no list of the folder shows the song before the job does
                    whole = write_song(self.folder.folder, None, files)
                    log.add(song, int(whole.stem))
                    hash_ = hash_of(files)
                    job.songs.append(hash_)
                    said = [f"told: {song.told}" if song.told else "", song.score, song.copied]
                    self.folder.remember(hash_, [*filter(None, said), *job.said])
        finally:
            if log.songs:
                log.write(self.folder.folder)
        session.check_enough(len(songs), job.asking.n)

    def _over(self, job: Job, state: str) -> None:
        with self.lock:
            self._end(job, state)

    def _end(self, job: Job, state: str) -> None:
        """A job is over; what did not go well stays on the page until it is dismissed."""
        job.state = state
        self.publish({"type": "job", "job": job.data(notes=False)})
        self.wrote(job)
        if state == DONE:
            del self.jobs[job.number]
        over = [number for number, one in self.jobs.items() if one.state in OVER]
        for number in over[:-MOST_REMEMBERED]:
            del self.jobs[number]


class _Telling:
    """Tells the notes of a job as they are drawn, several at a time; stops if somebody wants it."""

    def __init__(self, worker: Worker, job: Job) -> None:
        self.worker = worker
        self.job = job
        self.vocabulary = job.asking.session.loaded.vocabulary
        self.fresh: list[list[int]] = []  # [song, lane, onset, end, pitch]
        self.told_at = 0.0

    def note(self, place: int, note: Note) -> None:
        """One more note of the song at this place. Raises Stopped."""
        if self.job.stop:
            self.flush()
            raise Stopped
        self.fresh.append([place, *note_row(note, self.vocabulary)])
        if time.monotonic() - self.told_at > FLUSH_SECONDS:
            self.flush()

    def count(self, _place: int, _note: Note) -> None:
        """One more note of a song that may not be chosen: nobody sees it. Raises Stopped."""
        if self.job.stop:
            raise Stopped
        self.job.n_drawn += 1
        if time.monotonic() - self.told_at > COUNT_SECONDS:
            self.worker.publish({"type": "drawn", "job": self.job.number, "n": self.job.n_drawn})
            self.told_at = time.monotonic()

    def flush(self) -> None:
        """Tell the notes that were not told yet."""
        with self.worker.lock:  # a page that comes now gets each note once
            for place, *row in self.fresh:
                self.job.notes[place].append(row)
            self.job.n_drawn += len(self.fresh)
            if self.fresh:
                event = {"type": "notes", "job": self.job.number, "notes": self.fresh}
                self.worker.publish(event)
        self.fresh = []
        self.told_at = time.monotonic()


# ---------------------------------------------------------------- what a page shows of it


def note_row(note: Note, vocabulary: Vocabulary) -> list[int]:
    """[lane, onset, end, pitch] of the ids of a note, in ticks of songs made from tokens."""
    ticks = TICKS_PER_QUARTER // vocabulary.steps_per_quarter
    onset = (note[BAR] - FIRST_ID) * vocabulary.steps_per_bar + note[START_POS] - FIRST_ID
    end = onset + note[NOTE_DUR] - FIRST_ID + 1
    sound = note[PITCH_INSTRUMENT]
    return [int(vocabulary.part_of_id[sound]), onset * ticks, end * ticks,
            int(vocabulary.pitch_of_id[sound])]


def ground_of(session: Session) -> dict[str, Any]:
    """What a song of the session holds before a note is drawn, and where new ones will be."""
    task = session.task
    vocabulary = session.loaded.vocabulary
    kept = task.kept
    view = view_of_rows(kept, vocabulary, np.ones(len(kept), bool))
    end_bar = task.rules.last_bar_id - FIRST_ID + 1
    n_bars = max(view.n_bars if len(kept) else 0, task.n_bars, end_bar)
    fresh: tuple[tuple[int, int], ...] = ()
    if session.wish.fill:
        unheard = session.prompt.unheard
        fresh = tuple(((first - 1 - unheard) * view.bar_ticks, (last - unheard) * view.bar_ticks)
                      for first, last in session.wish.stretches)
    elif len(kept) and not session.wish.given:
        fresh = ((task.first_bar * view.bar_ticks, end_bar * view.bar_ticks),)
    tempo = session.prompt.tempo
    view = dataclasses.replace(view, n_bars=n_bars, tempo=tempo, tempos=((0, tempo),), fresh=fresh)
    return {**music_data(view, len(vocabulary.parts)), "first_bar": task.first_bar}


def message_of(err: Exception) -> str:
    """An error as commands say it."""
    if isinstance(err, OSError):
        where = f"{err.filename}: " if err.filename else ""
        return f"{where}{err.strerror or err}"
    return str(err)


def hash_of(files: dict[str, bytes]) -> str:
    """The hash of the whole song, as `file_hash` has it."""
    return hashlib.sha256(files[""]).hexdigest()

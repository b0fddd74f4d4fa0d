"""Where songs go: MIDI, and a picture, sound and a page where they are asked for."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from backline.common.files import check_writable
from backline.generation.given_song import prompt_file
from backline.generation.output_files import describe, write_song
from backline.generation.session import GeneratedSong, Session
from backline.listening.ideas_page import PAGE_NAME, check_page, write_page
from backline.listening.song_view import view_song
from backline.listening.wav import Synthesizer
from backline.music.midi_writer import parts_to_bytes
from backline.music.song import TICKS_PER_QUARTER
from backline.music.vocab import Vocabulary


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
        n_bars = session.bars_of(song.notes)
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

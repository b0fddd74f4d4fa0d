"""Sound of MIDI songs, by the FluidSynth program and a SoundFont found on the machine.

A program and not a Python package, because symusic 0.6.0's synthesizer fails for every song (it
cannot hand its result to Python), building tinysoundfont needs PortAudio, and pyfluidsynth needs
FluidSynth all the same.
"""

from __future__ import annotations

import dataclasses
import io
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import mido
import numpy as np

from backline.common.errors import UserError
from backline.music.bars import clip_length, pickup_ticks
from backline.music.midi_tracks import read_tracks, song_of_tracks
from backline.music.vocab import QUARTERS_PER_BAR

FLUIDSYNTH = "fluidsynth"
SAMPLE_RATE = 44100  # Hz
PEAK = 10 ** (-1 / 20)  # the loudest sample: 1 dB below what a file can hold
SILENCE = 1e-2  # anything quieter is the reverb's own noise and not made louder
FADE_SECONDS = 0.005  # at the end, against a click where a sound is cut
FONT_SUFFIXES = (".sf2", ".sf3")
# Where systems and people keep SoundFonts; the first place that holds any is taken.
FONT_PLACES = (
    "~/.local/share/soundfonts",
    "~/.local/share/sounds/sf2",
    "~/Library/Audio/Sounds/Banks",
    "/usr/share/sounds/sf2",
    "/usr/share/sounds/sf3",
    "/usr/share/soundfonts",
    "/usr/local/share/soundfonts",
    "/Library/Audio/Sounds/Banks",
    "/opt/homebrew/share/soundfonts",
    "/opt/homebrew/share/fluid-synth/sf2",
    "/usr/local/share/fluid-synth/sf2",
    r"C:\soundfonts",
    r"C:\ProgramData\soundfonts",
)
ANYWAY = "or leave --wav out: index.html plays without"


@dataclasses.dataclass(frozen=True)
class Synthesizer:
    """FluidSynth with a SoundFont."""

    program: str
    font: Path

    def wav(self, midi: bytes) -> bytes:
        """A song as a WAV file, stereo, 16 bits, up to its last end of track: whole bars stay whole.

        Silence at its end that `clip_length` does not count is left out. It is as loud as it can be,
        whatever the velocities. The same song gives the same bytes with the same FluidSynth.

        Raises UserError if FluidSynth cannot read the SoundFont.
        """
        seconds = seconds_of(midi)
        sound = np.zeros((round(seconds * SAMPLE_RATE), 2), np.float32)  # (samples, channels)
        played = self._play(midi)[:len(sound)]
        sound[:len(played)] = played
        n_fade = min(round(FADE_SECONDS * SAMPLE_RATE), len(sound))
        fade = np.linspace(1, 0, n_fade, dtype=np.float32)
        sound[len(sound) - n_fade:] *= fade[:, None]
        loudest = max(-sound.min(initial=0), sound.max(initial=0))
        sound *= PEAK * np.iinfo(np.int16).max / max(loudest, SILENCE)
        return _wav_file(sound.round(out=sound).astype("<i2"))

    def try_out(self) -> None:
        """Raise UserError if it does not work; call this before slow work."""
        silence = io.BytesIO()
        mido.MidiFile(tracks=[mido.MidiTrack()]).save(file=silence)
        self.wav(silence.getvalue())

    def _play(self, midi: bytes) -> np.ndarray:
        """(samples, 2) float32, including what rings on after the song's end."""
        with tempfile.TemporaryDirectory() as folder:
            song = Path(folder, "song.mid")
            raw = Path(folder, "song.raw")
            config = Path(folder, "config")
            song.write_bytes(midi)
            config.write_bytes(b"")  # instead of the user's own, which may load fonts and set levels
            # Floats, since at a gain of 1 full chords go beyond what integers hold.
            command: list[str | Path] = [
                self.program, "-ni", "-q", "-f", config, "-g", "1", "-r", str(SAMPLE_RATE),
                "-T", "raw", "-O", "float", "-E", "little", "-F", raw, self.font.resolve(), song]
            run = subprocess.run(command, stdin=subprocess.DEVNULL,  # noqa: S603 no shell
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            lines = run.stdout.decode(errors="replace").split("\n")
            # With a damaged font or a full disk FluidSynth prints an error but reports success.
            errors = [line.strip()
                      for line in lines
                      if line.startswith("fluidsynth: error")]
            if errors or run.returncode or not raw.is_file():
                reason = errors[0] if errors else f"exit {run.returncode}"
                raise UserError(f"--wav: FluidSynth cannot play with {self.font}: {reason}; give "
                                f"another SoundFont with --soundfont, {ANYWAY}")
            return np.fromfile(raw, "<f4").reshape(-1, 2)


def seconds_of(midi: bytes) -> float:
    """How long a song lasts, up to its last end of track, or to the end of its bars before silence."""
    song, _ = song_of_tracks(read_tracks("the song", midi), "the song")
    end = max(song.end_tick, song.last_end_of_track)
    pickup = pickup_ticks(song)
    bar_ticks = QUARTERS_PER_BAR * song.ticks_per_quarter
    origin = pickup - bar_ticks if pickup else 0
    n_bars, n_silent = clip_length(song, origin)
    if n_silent:
        end = origin + n_bars * bar_ticks
    return song.seconds_until(end)


def _wav_file(samples: np.ndarray) -> bytes:
    """(samples, 2) little-endian int16 as a WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def find_synthesizer(font: Path | None) -> Synthesizer:
    """FluidSynth with the SoundFont `font`, or with one that is found.

    Raises UserError if either is missing, saying how to get it.
    """
    font = find_font() if font is None else font
    check_font(font)
    program = shutil.which(FLUIDSYNTH)
    if program is None:
        raise UserError(f"--wav: needs the FluidSynth program. Debian, Ubuntu: apt install "
                        f"fluidsynth. macOS: brew install fluid-synth. Windows: choco install "
                        f"fluidsynth. Get it, {ANYWAY}")
    return Synthesizer(program, font)


def find_font() -> Path:
    """A SoundFont where systems keep them: the one called default, else the largest.

    Raises UserError if there is none.
    """
    for place in FONT_PLACES:
        folder = Path(place).expanduser()
        fonts = [path
                 for path in folder.glob("*")
                 if path.suffix.lower() in FONT_SUFFIXES and path.is_file()]
        if fonts:
            return min(fonts, key=_rank)
    raise UserError(f"--wav: no SoundFont found. Debian, Ubuntu: apt install timgm6mb-soundfont, or "
                    f"the larger fluid-soundfont-gm. macOS, Windows: download one, such as "
                    f"GeneralUser GS (schristiancollins.com/generaluser.php). Name it with "
                    f"--soundfont FILE.sf2, {ANYWAY}")


def _rank(font: Path) -> tuple[bool, int, str]:
    """Lowest for the SoundFont called default, then for the largest."""
    return not font.name.startswith("default"), -font.stat().st_size, font.name


def check_font(font: Path) -> None:
    """Raise UserError if a file is missing or no SoundFont."""
    try:
        with open(font, "rb") as file:
            head = file.read(12)
    except OSError as err:
        raise UserError(f"--soundfont {font}: {err.strerror}; give a SoundFont, .sf2 or .sf3") from err
    if head[:4] != b"RIFF" or head[8:] != b"sfbk":
        raise UserError(f"--soundfont {font}: not a SoundFont; give a .sf2 or .sf3")

"""Sound of MIDI songs, by the FluidSynth program and a SoundFont that are on the machine. No command of its own.

Why a program and not a Python package: symusic 0.6.0's synthesizer fails for every song (it cannot hand its result to
Python), tinysoundfont needs PortAudio to be built, and pyfluidsynth needs FluidSynth all the same.
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

FLUIDSYNTH = "fluidsynth"
SAMPLE_RATE = 44100  # Hz
PEAK = 10 ** (-1 / 20)  # the loudest sample: 1 dB below what a file can hold
SILENCE = 1e-2  # what is quieter is not made louder: the reverb's own noise
FADE_SECONDS = 0.005  # at the end, against a click where a sound is cut
FONT_SUFFIXES = (".sf2", ".sf3")
FONT_PLACES = (  # where systems and people keep SoundFonts; the first place that holds any is taken
    "~/.local/share/soundfonts", "~/.local/share/sounds/sf2", "~/Library/Audio/Sounds/Banks",
    "/usr/share/sounds/sf2", "/usr/share/sounds/sf3", "/usr/share/soundfonts", "/usr/local/share/soundfonts",
    "/Library/Audio/Sounds/Banks", "/opt/homebrew/share/soundfonts", "/opt/homebrew/share/fluid-synth/sf2",
    "/usr/local/share/fluid-synth/sf2", r"C:\soundfonts", r"C:\ProgramData\soundfonts")
ANYWAY = "or leave --wav out: index.html plays without"


@dataclasses.dataclass(frozen=True)
class Synthesizer:
    """FluidSynth with a SoundFont."""

    program: str
    font: Path

    def wav(self, midi: bytes) -> bytes:
        """A song as a WAV file, stereo, 16 bits, as long as the song's last end of track: whole bars stay whole bars.

        Made as loud as it can be, since all notes of a song are struck alike. Same song, same bytes, with the same
        FluidSynth. Raises UserError if FluidSynth cannot read the SoundFont.
        """
        seconds = mido.MidiFile(file=io.BytesIO(midi)).length
        sound = np.zeros((round(seconds * SAMPLE_RATE), 2), np.float32)
        played = self._play(midi)[:len(sound)]
        sound[:len(played)] = played
        n_fade = min(round(FADE_SECONDS * SAMPLE_RATE), len(sound))
        sound[len(sound) - n_fade:] *= np.linspace(1, 0, n_fade, dtype=np.float32)[:, None]
        loudest = max(-sound.min(initial=0), sound.max(initial=0))
        sound *= PEAK * np.iinfo(np.int16).max / max(loudest, SILENCE)
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(sound.round(out=sound).astype("<i2").tobytes())
        return buffer.getvalue()

    def try_out(self) -> None:
        """Raise UserError if it does not work, before slow work is done for it."""
        silence = io.BytesIO()
        mido.MidiFile(tracks=[mido.MidiTrack()]).save(file=silence)
        self.wav(silence.getvalue())

    def _play(self, midi: bytes) -> np.ndarray:
        """(samples, 2) float32, with what rings on after the song's end."""
        with tempfile.TemporaryDirectory() as folder:
            song, raw, config = (Path(folder, name) for name in ("song.mid", "song.raw", "config"))
            song.write_bytes(midi)
            config.write_bytes(b"")  # instead of the user's own, which may load fonts and set levels
            # Floats, since at a gain of 1 full chords reach beyond what integers hold.
            command = [self.program, "-ni", "-q", "-f", config, "-g", "1", "-r", str(SAMPLE_RATE),
                       "-T", "raw", "-O", "float", "-E", "little", "-F", raw, self.font.resolve(), song]
            run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,  # noqa: S603 no shell
                                 stderr=subprocess.STDOUT, check=False)
            said = run.stdout.decode(errors="replace").split("\n")
            # Where the font is damaged or the disk is full it says so, and yet reports success.
            wrong = next((line.strip() for line in said if line.startswith("fluidsynth: error")), "")
            if wrong or run.returncode or not raw.is_file():
                raise UserError(f"--wav: FluidSynth cannot play with {self.font}: {wrong or f'exit {run.returncode}'}; "
                                f"give another SoundFont with --soundfont, {ANYWAY}")
            return np.fromfile(raw, "<f4").reshape(-1, 2)


def find_synthesizer(font: Path | None) -> Synthesizer:
    """FluidSynth with the SoundFont named, or one that is found.

    Raises UserError, which says how to get it, if either is not there.
    """
    font = find_font() if font is None else font
    check_font(font)
    program = shutil.which(FLUIDSYNTH)
    if program is None:
        raise UserError(f"--wav: needs the FluidSynth program. Debian, Ubuntu: apt install fluidsynth. macOS: brew "
                        f"install fluid-synth. Windows: choco install fluidsynth. Get it, {ANYWAY}")
    return Synthesizer(program, font)


def find_font() -> Path:
    """A SoundFont where systems keep them: the one called default, else the largest. Raises UserError without one."""
    for place in FONT_PLACES:
        folder = Path(place).expanduser()
        fonts = [path for path in folder.glob("*") if path.suffix.lower() in FONT_SUFFIXES and path.is_file()]
        if fonts:
            return min(fonts, key=lambda path: (not path.name.startswith("default"), -path.stat().st_size, path.name))
    raise UserError(f"--wav: no SoundFont found. Debian, Ubuntu: apt install timgm6mb-soundfont, or the larger "
                    f"fluid-soundfont-gm. macOS, Windows: download one, such as GeneralUser GS "
                    f"(schristiancollins.com/generaluser.php). Name it with --soundfont FILE.sf2, {ANYWAY}")


def check_font(font: Path) -> None:
    """Raise UserError if a file is not there or no SoundFont."""
    try:
        with open(font, "rb") as file:
            head = file.read(12)
    except OSError as err:
        raise UserError(f"--soundfont {font}: {err.strerror}; give a SoundFont, .sf2 or .sf3") from err
    if head[:4] != b"RIFF" or head[8:] != b"sfbk":
        raise UserError(f"--soundfont {font}: not a SoundFont; give a .sf2 or .sf3")

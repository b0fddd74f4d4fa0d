"""Sound, and generate.py --wav: what is heard when, and what is said where something lacks.

Tests that play need FluidSynth and a SoundFont, and are skipped without.
"""

from __future__ import annotations

import io
import shutil
import wave
from pathlib import Path

import mido
import numpy as np
import pytest
from commands import fails
from pages import page_data

import generate
from backline.common.errors import UserError
from backline.listening import wav as sounding

TEMPO = 100  # quarters a minute
BEAT = 60 / TEMPO  # seconds
A4 = 69  # 440 Hz


@pytest.fixture
def synthesizer() -> sounding.Synthesizer:
    try:
        return sounding.find_synthesizer(None)
    except UserError as err:
        pytest.skip(str(err))


def midi(*notes: tuple[int, int, int], quarters: int, channel: int = 0) -> bytes:
    """A song of notes, (onset, end, pitch), times in quarters."""
    events = [(time, mido.Message(kind, channel=channel, note=pitch, velocity=100))
              for onset, end, pitch in notes for kind, time in (("note_on", onset), ("note_off", end))]
    track, now = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(TEMPO))]), 0
    for time, message in [*sorted(events, key=lambda event: event[0]), (quarters, mido.MetaMessage("end_of_track"))]:
        track.append(message.copy(time=480 * (time - now)))
        now = time
    buffer = io.BytesIO()
    mido.MidiFile(tracks=[track]).save(file=buffer)
    return buffer.getvalue()


def samples(data: bytes) -> np.ndarray:
    """(samples, 2), from −1 to 1."""
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, sounding.SAMPLE_RATE)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2) / np.iinfo(np.int16).max


def loudness(sound: np.ndarray, begin: float, end: float) -> float:
    """Of the seconds from `begin` to `end`."""
    first, last = (round(seconds * sounding.SAMPLE_RATE) for seconds in (begin, end))
    return float(np.sqrt(np.mean(sound[first:last] ** 2)))


def test_notes_are_heard_when_and_as_high_as_written(synthesizer):
    sound = samples(synthesizer.wav(midi((2, 4, A4), quarters=8)))
    assert len(sound) == round(8 * BEAT * sounding.SAMPLE_RATE)
    assert loudness(sound, 0, 1.95 * BEAT) < 1e-3 < 1e-2 < loudness(sound, 2 * BEAT, 2.5 * BEAT)
    spectrum = abs(np.fft.rfft(sound[round(2 * BEAT * sounding.SAMPLE_RATE):, 0]))
    highest = np.argmax(spectrum) * sounding.SAMPLE_RATE / (len(sound) - round(2 * BEAT * sounding.SAMPLE_RATE))
    assert min(abs(highest / 440 - harmonic) for harmonic in (1, 2, 3)) < 0.02
    assert abs(sound).max() == pytest.approx(sounding.PEAK, abs=1e-3)


def test_as_long_as_the_song_whatever_rings_on(synthesizer):
    sound = samples(synthesizer.wav(midi((0, 4, A4), (0, 4, A4 + 4), quarters=4)))
    assert len(sound) == round(4 * BEAT * sounding.SAMPLE_RATE)
    assert abs(sound[-1]).max() == 0  # no click at the cut
    assert loudness(sound, 3.5 * BEAT, 3.9 * BEAT) > 1e-3  # but not before


def test_a_long_silence_at_the_end_does_not_count(synthesizer):
    assert sounding.seconds_of(midi((0, 4, A4), quarters=400)) == pytest.approx(4 * BEAT)
    assert sounding.seconds_of(midi((0, 4, A4), quarters=16)) == pytest.approx(16 * BEAT)
    assert len(samples(synthesizer.wav(midi((0, 4, A4), quarters=400)))) == round(4 * BEAT * sounding.SAMPLE_RATE)


def test_as_long_as_its_tempos_make_it():
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(60)),
                            mido.Message("note_on", note=A4, velocity=9),
                            mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(120), time=4 * 480),
                            mido.Message("note_off", note=A4, time=4 * 480)])
    buffer = io.BytesIO()
    mido.MidiFile(tracks=[track]).save(file=buffer)
    assert sounding.seconds_of(buffer.getvalue()) == pytest.approx(4 + 2)


def test_a_song_without_notes_is_silence(synthesizer):
    sound = samples(synthesizer.wav(midi(quarters=4)))
    assert len(sound) == round(4 * BEAT * sounding.SAMPLE_RATE) and abs(sound).max() < 1e-4


def test_same_song_same_bytes(synthesizer):
    song = midi((0, 1, 36), (1, 2, 38), quarters=4, channel=9)
    assert synthesizer.wav(song) == synthesizer.wav(song)


def test_generate_writes_the_sound_of_the_whole_song(synthesizer, run, tmp_path):
    assert run("-o", "out", "-n", 2, "--seed", 0, "--wav", "--soundfont", synthesizer.font) == 0
    for number in range(2):
        sound = samples((tmp_path / f"out/{number}.wav").read_bytes())
        seconds = mido.MidiFile(tmp_path / f"out/{number}.mid").length
        assert len(sound) == round(seconds * sounding.SAMPLE_RATE) and sound.any()
    links = [link["file"] for link in page_data(tmp_path / "out/index.html")["ideas"][1]["files"]]
    assert "1.wav" in links
    run("-o", "out", "--force")
    assert not (tmp_path / "out/0.wav").exists() and (tmp_path / "out/1.wav").exists()


def test_a_damaged_soundfont_is_found_before_songs_are_made(synthesizer, run, tmp_path, capsys):
    (tmp_path / "torn.sf2").write_bytes(synthesizer.font.read_bytes()[:100_000])
    assert run("-o", "out", "--wav", "--soundfont", "torn.sf2") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "torn.sf2" in said and "give another SoundFont" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), (b"MThd", "not a SoundFont"), (b"", "not a")])
def test_no_soundfont(content, said, tmp_path, capsys):
    font = tmp_path / "font.sf2"
    if content is not None:
        font.write_bytes(content)
    assert said in fails(generate.main, ["--wav", "--soundfont", font], capsys)


def test_soundfont_without_wav_is_refused(tmp_path, capsys):
    assert "--wav" in fails(generate.main, ["--soundfont", tmp_path / "font.sf2"], capsys)


def test_without_a_soundfont_it_says_how_to_get_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sounding, "FONT_PLACES", (str(tmp_path),))
    said = fails(generate.main, ["--wav"], capsys)
    assert all(word in said for word in ("Debian", "macOS", "Windows", "--soundfont", "index.html"))


def test_without_fluidsynth_it_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "font.sf2").write_bytes(b"RIFF\0\0\0\0sfbk")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    said = fails(generate.main, ["--wav", "--soundfont", tmp_path / "font.sf2"], capsys)
    assert all(word in said for word in ("FluidSynth", "Debian", "macOS", "Windows"))


def test_the_default_soundfont_is_taken_else_the_largest(tmp_path, monkeypatch):
    monkeypatch.setattr(sounding, "FONT_PLACES", (str(tmp_path / "none"), str(tmp_path)))

    def font(name: str, size: int) -> Path:
        (tmp_path / name).write_bytes(bytes(size))
        return tmp_path / name

    small, large = font("a.sf2", 10), font("b.SF3", 20)
    font("c.txt", 30)
    assert sounding.find_font() == large
    large.unlink()
    assert sounding.find_font() == small
    default = font("default-GM.sf2", 5)
    assert sounding.find_font() == default

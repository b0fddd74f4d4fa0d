"""Files as people's programs leave them: what is heard of each, what is kept, and what is said."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from found_files import BAR, BASS, FOUND, N_BARS, QUARTER, mpe
from midi_bytes import DRUM_CHANNEL, END_OF_TRACK, chunk, header, meta, midi_file, name, note, program, track

from backline.common.errors import UserError
from backline.generation.config import Reading
from backline.generation.given_song import Made, made_places, made_tracks, parts_on_used_channels
from backline.generation.reading import Asked, Heard, hear
from backline.music.choices import BY_OCTAVE, DROP, Choices
from backline.music.midi_edits import Place, with_releases
from backline.music.midi_reader import read_song
from backline.music.midi_tracks import MidiTracks, read_tracks, song_of_tracks
from backline.music.names import decoded_name
from backline.music.parts import OUT_OF_RANGE, arrange
from backline.music.song import Song
from backline.music.vocab import load_vocabulary
from tokenizer import MidiTokenizerPooled

VOCABULARY = load_vocabulary()
PIANO = VOCABULARY.part_names.index("piano")


def heard(which: str, asked: Asked | None = None) -> Heard:
    """What the model hears of a found file."""
    path = Path(f"{which}.mid")
    asked = asked or Asked()
    return hear(read_tracks(path, FOUND[which]()), path, asked, VOCABULARY)


def told(which: str) -> list[str]:
    return [line.removeprefix(f"{which}.mid: ") for line in heard(which).notices]


def events_of(midi: MidiTracks) -> Counter:
    """Every event and its place, in quarters."""
    return Counter((event.tick / midi.ticks_per_quarter, event.message)
                   for events in midi.tracks
                   for event in events)


@pytest.mark.parametrize("which", FOUND)
def test_every_given_event_is_kept(which):
    given = events_of(read_tracks(which, FOUND[which]()))
    assert given.total() > 50
    assert not given - events_of(heard(which).given.midi)


@pytest.mark.parametrize("which", FOUND)
def test_folders_are_read_as_given_songs_are(which):
    """Their reader is another, a hundred times as fast."""
    data = FOUND[which]()
    exact, _ = song_of_tracks(with_releases(read_tracks(which, data)).midi, which)
    assert seen(read_song(which, data)) == seen(exact)
    assert set(read_tracks(which, data).notices) <= set(read_song(which, data).notices)


def seen(song: Song) -> list[tuple]:
    return [(track.name, track.channel, track.is_drum, track.has_program, track.program, track.spread,
             sorted(track.notes.tolist())) for track in song.tracks]


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(("data", "text"), [
    (b"Drums", "Drums"),
    ("Gitarre für Übung".encode(), "Gitarre für Übung"),
    ("Flûte à bec, Pédale".encode("latin-1"), "Flûte à bec, Pédale"),
    ("ドラム 1".encode("shift-jis"), "ドラム 1"),
    ("Bass".encode("utf-16"), "Bass"),
    (b"Pad\0\0\0", "Pad"),
    (b"\x1b]0;title\x07\x1b[2J", "]0;title [2J"),
    (b"Bass\r\nerror: all is lost", "Bass error: all is lost"),
    (b"\x9b2J", "2J"),
    (b"", ""),
])
def test_names_in_any_encoding_are_one_printable_line(data, text):
    assert decoded_name(data) == text


def test_no_name_writes_to_the_terminal_what_it_likes():
    assert all(line.isprintable() for line in heard("unsafe_names").notices)
    assert any("Bass/\\:*? error: all is lost" in line for line in told("unsafe_names"))
    song = read_song("unsafe_names.mid", FOUND["unsafe_names"]())
    assert all(track.name.isprintable() for track in song.tracks)


def test_japanese_names_can_be_read():
    assert "drums: ドラム; bass: ベース; piano: ピアノ" in told("japanese_names")


# ---------------------------------------------------------------- what no track holds


@pytest.mark.parametrize(("which", "line"), [
    ("yamaha_xf", "left out, as it is no track: XFKM"),
    ("riff_wrapped", "left out, as it is no track: LIST"),
    ("end_of_track_twice", "13 bytes left out that a track holds after its end"),
])
def test_what_is_left_out_is_said(which, line):
    assert line in told(which)


def test_an_end_of_track_that_is_there_twice_leaves_nothing_out():
    body = track([name("Piano"), *note(0, BAR, 60)])[8:]
    for rest, is_said in ((b"\0" + END_OF_TRACK, False), (bytes(9), False), (b"\0\x90\x3c\x40", True)):
        data = header(1, QUARTER) + chunk(body + rest)
        for notices in (read_tracks("a.mid", data).notices, read_song("a.mid", data).notices):
            assert any("after its end" in line for line in notices) == is_said


def test_a_line_break_behind_the_tracks_is_nothing_left_out():
    assert not any("left out" in line for line in told("crlf_behind"))


# ---------------------------------------------------------------- notes never switched off


def ends_of(which: str, pitch: int) -> list[float]:
    """Where the notes of a pitch are switched off, in quarters."""
    return sorted(event.tick / QUARTER
                  for events in heard(which).given.midi.tracks
                  for event in events
                  if event.is_release and event.message[1] == pitch)


def test_keys_that_are_down_when_the_recorder_stops_go_up_there():
    assert "4 notes never switched off: note-offs added where their tracks end" in told("never_released")
    assert ends_of("never_released", 72) == [4 * N_BARS - 1 - 10 / QUARTER] * 2


def test_a_controller_that_silences_a_channel_ends_its_notes():
    assert "12 notes switched off by a controller alone: note-offs added there" in told("all_notes_off")
    assert ends_of("all_notes_off", 60) == [3, 7]
    piano = heard("all_notes_off").given.notes[PIANO]
    assert set(piano[:, 1] - piano[:, 0]) == {3 * QUARTER}


def test_folders_hear_the_same_of_notes_that_a_controller_ends():
    notices = read_song("a.mid", FOUND["all_notes_off"]()).notices
    assert notices == ("12 notes switched off by a controller alone",)
    assert read_song("a.mid", FOUND["never_released"]()).notices == ("4 notes never switched off",)


def test_a_note_with_a_note_off_of_its_own_keeps_it():
    """Many programs silence every channel where they stop, and write the note-offs behind that."""
    events = [name("Piano"), *note(0, BAR, 60), (BAR // 2, b"\xb0\x7b\x00"), *note(0, BAR, 64)]
    midi = read_tracks("a.mid", midi_file(events, division=QUARTER))
    assert with_releases(midi) == (midi, 0, 0)


# ---------------------------------------------------------------- ticks


def test_ticks_too_few_for_made_notes_get_finer():
    given = heard("one_tick_a_quarter").given
    assert given.midi.ticks_per_quarter == 96
    assert len(set(given.ticks(np.arange(8)))) == 8
    assert "its 1 tick a quarter are too few for made notes: written with 96; nothing moves" in (
        told("one_tick_a_quarter"))


@pytest.mark.parametrize(("which", "ticks"), [("odd_resolution", 70), ("fine_resolution", 15360)])
def test_other_ticks_stay(which, ticks):
    assert heard(which).given.midi.ticks_per_quarter == ticks


# ---------------------------------------------------------------- channels


def made(which: str, *parts: str) -> dict[str, Place]:
    """Where the made tracks of a found file go."""
    return made_places(heard(which).given, parts)


def test_made_parts_go_to_free_channels_of_their_parts_port():
    assert made("two_ports", "drums", "bass", "piano") == {
        "drums": (1, DRUM_CHANNEL), "bass": (1, 2), "piano": (1, 3)}
    given = heard("two_ports").given
    notes = [np.array([[0, 8, 40]]) for _ in VOCABULARY.parts]
    tracks = made_tracks(given, Made(notes, [np.array([100])] * len(notes), ("bass",)))
    messages = [event.message for event in tracks["bass"]]
    assert meta(0x21, b"\1") in messages
    assert bytes([0xC2, BASS]) in messages
    assert not parts_on_used_channels(given, VOCABULARY.part_names)


def test_a_song_of_one_port_says_none():
    given = heard("karaoke").given
    assert made("karaoke", "drums", "piano") == {"drums": (0, DRUM_CHANNEL), "piano": (0, 2)}
    notes = [np.array([[0, 8, 60]]) for _ in VOCABULARY.parts]
    tracks = made_tracks(given, Made(notes, [np.array([100])] * len(notes), ("piano",)))
    assert not any(event.meta == 0x21 for event in tracks["piano"])


# ---------------------------------------------------------------- one instrument on many channels


def test_the_name_of_an_mpe_keyboard_tells_its_part():
    """It plays on the channel of drums too, and is no drums there."""
    line, = [line for line in told("mpe") if "Seaboard" in line]
    assert line == "piano: Seaboard Piano (15 channels)"
    assert len(heard("mpe").given.notes[PIANO]) == 48


def test_made_parts_beside_an_mpe_keyboard_go_where_it_is_not():
    given = heard("mpe").given
    assert made("mpe", "bass", "piano") == {"bass": (0, 0), "piano": (0, 1)}
    assert parts_on_used_channels(given, ("bass", "piano")) == ["piano"]


def test_an_mpe_keyboard_without_a_telling_name_is_one_question():
    data = mpe("Take 4")
    path = Path("a.mid")
    with pytest.raises(UserError, match=r"piano is not clear: #1 Take 4 \(15 channels, no program, 48 notes\); say"):
        hear(read_tracks(path, data), path, Asked(), VOCABULARY)
    answer = Asked(Reading(tracks=(("piano", "#1"),)))
    assert len(hear(read_tracks(path, data), path, answer, VOCABULARY).rows) == 48


# ---------------------------------------------------------------- metronomes


def test_a_metronome_is_kept_and_not_heard():
    """On the channel of drums, by its name."""
    song = heard("click_track")
    assert "bass: Bass; piano: Keys; kept, but not heard by the model: Click" in told("click_track")
    assert not len(song.given.notes[VOCABULARY.part_names.index("drums")])


# ---------------------------------------------------------------- key switches


def test_key_switches_are_kept_and_not_heard():
    song = heard("keyswitches")
    assert "4 of 20 bass notes are below E0, as key switches are: kept, but not heard" in song.notices[-1]
    plain = heard("crlf_behind")
    assert song.rows.tolist() == plain.rows.tolist()


def test_a_part_of_low_notes_alone_is_heard():
    low = midi_file([name("Drums"), *note(0, QUARTER, 38, DRUM_CHANNEL)],
                    [name("Bass"), program(BASS), *note(0, QUARTER, 14)], division=QUARTER)
    rows = hear(read_tracks("low.mid", low), Path("low.mid"), Asked(), VOCABULARY).rows
    assert len(rows) == 2


@pytest.mark.parametrize("ranges", [DROP, BY_OCTAVE])
def test_folders_do_not_hear_key_switches_either(ranges):
    song = read_song("a.mid", FOUND["keyswitches"]())
    arranged = arrange(song, VOCABULARY, Choices(ranges=ranges), "a.mid")
    bass_notes = arranged.pieces[0].parts[VOCABULARY.part_names.index("bass")]
    assert len(bass_notes) == 16 and arranged.lost[OUT_OF_RANGE] == 4


def test_folders_say_what_to_do_about_key_switches():
    with pytest.raises(UserError, match=r"bass pitch 12 is outside 21 to 108 \(4 of 20 notes\).*--ranges drop"):
        MidiTokenizerPooled().song_rows(read_song("a.mid", FOUND["keyswitches"]()), "a.mid")


def test_more_key_switches_than_notes_leave_a_song_in():
    """As people change how a sampler plays with each note."""
    switches = [event for i in range(40) for event in note(i * 20, i * 20 + 10, 12 + i % 3)]
    data = midi_file([name("Bass"), program(BASS), *note(BAR, 2 * BAR, 40), *switches], division=QUARTER)
    arranged = arrange(read_song("a.mid", data), VOCABULARY, Choices(ranges=DROP), "a.mid")
    assert arranged.pieces[0].n_notes == 1 and arranged.lost[OUT_OF_RANGE] == 40

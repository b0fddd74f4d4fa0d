"""Who plays what, in files as people's DAWs write them."""

from __future__ import annotations

import argparse

import pytest
from midi_bytes import Event, chunk, header, midi_file, name, note, program, time_signature, track

from backline.common.errors import UserError
from backline.music.casting import Assignment, assign_parts, check_clear, track_texts
from backline.music.choices import Choices, add_options, choices_of
from backline.music.midi_reader import read_song
from backline.music.midi_tracks import read_tracks, song_of_tracks
from backline.music.song import Song
from backline.music.vocab import load_vocabulary

VOCABULARY = load_vocabulary()
Q = 96
XG_DRUMS_ON_3 = bytes([0xF0, 8, 0x43, 0x10, 0x4C, 8, 2, 7, 1, 0xF7])
GS_DRUMS_ON_3 = bytes([0xF0, 10, 0x41, 0x10, 0x42, 0x12, 0x40, 0x13, 0x15, 1, 0x17, 0xF7])
GS_RESET = bytes([0xF0, 10, 0x41, 0x10, 0x42, 0x12, 0x40, 0, 0x7F, 0, 0x41, 0xF7])


def played(rows: list[tuple[int, int, int]], channel: int = 0) -> list[Event]:
    events = [event for onset, length, pitch in rows for event in note(onset, onset + length, pitch, channel)]
    return sorted(events, key=lambda event: event[0])


def beat(channel: int = 0, pitches: tuple[int, ...] = (36, 42, 38, 42)) -> list[Event]:
    together = [(Q * i, Q // 4, 46) for i in range(0, 32, 4)]
    return played([(Q * i, Q // 4, pitches[i % 4]) for i in range(32)] + together, channel)


def bass_line(channel: int = 0) -> list[Event]:
    return played([(Q * i, Q - 5, (33, 33, 38, 40)[i // 4 % 4]) for i in range(32)], channel)


def chords(channel: int = 0) -> list[Event]:
    return played([(2 * Q * i, 2 * Q - 5, pitch) for i in range(16) for pitch in (57, 60, 64)], channel)


def both_readers(data: bytes) -> list[Song]:
    exact, _ = song_of_tracks(read_tracks("song.mid", data), "song.mid")
    return [read_song("song.mid", data), exact]


def cast(data: bytes, **options) -> Assignment:
    """Who plays what; both readers must tell the same."""
    fast, exact = (assign_parts(song, VOCABULARY, **options) for song in both_readers(data))
    assert fast.tracks == exact.tracks and fast.why == exact.why and fast.questions == exact.questions
    return exact


def bank(number: int, channel: int) -> Event:
    return 0, bytes([0xB0 | channel, 0, number])


TRIO = {"drums": [0], "bass": [1], "piano": [2]}


@pytest.mark.parametrize("names", [("EZdrummer", "Bass Gtr", "Keys"), ("Drums", "Bass", "Piano")])
@pytest.mark.parametrize("programs", [[program(0)], []], ids=["program 0", "no program"])
def test_b1_b2_names_count_on_one_channel(names, programs):
    parts = zip(names, (beat(), bass_line(), chords()), strict=True)
    assert cast(midi_file(*([name(each), *programs, *events] for each, events in parts))).tracks == TRIO


def test_b3_b8_the_file_name_or_the_playing_tells_of_a_clip():
    unnamed = midi_file(beat())
    assert cast(unnamed).why == {"drums": "as played"}
    assert cast(midi_file(chords()), file_name="my Drums 2.mid").tracks["drums"] == [0]
    assert cast(midi_file(beat(9, (36, 36, 36, 36))), file_name="Bass Drum.mid").tracks["drums"] == [0]
    assert cast(midi_file([name("Bass"), program(0), *chords()]), file_name="drums.mid").tracks["bass"] == [0]  # B4


def test_b5_guitars_and_percussion_are_no_piano_by_no_program():
    data = midi_file([name("Lead Guitar"), *chords(0)], [name("Bass"), program(34, 4), *bass_line(4)],
                     [name("Drums"), *beat(9)], [name("Percussion"), program(0, 10), *played([(0, 9, 70)], 10)])
    found = cast(data)
    assert found.tracks == {"drums": [2], "bass": [1], "piano": []} and not found.questions
    assert found.left_out(both_readers(data)[0]) == [0, 3]


def test_b6_a_kit_on_channel_11():
    data = midi_file([name("Kit"), program(0, 10), *beat(10)], [name("Bass"), program(33, 1), *bass_line(1)],
                     [name("Keys"), program(4), *chords()])
    assert cast(data).tracks == TRIO


def test_b7_a_name_of_several_channels_names_none():
    events = sorted([*beat(9), *bass_line(1), *chords(0)], key=lambda event: event[0])
    found = cast(midi_file([name("bass"), program(33, 1), *events], midi_format=0))
    assert (found.tracks["drums"], found.tracks["bass"], found.tracks["piano"]) == ([2], [1], [])
    assert found.questions == {"piano": [0]}


@pytest.mark.parametrize(("text", "is_asked"), [("bass", False), ("Bass", True), ("BASSES", True)])
def test_a_title_on_all_tracks_names_no_part(text, is_asked):
    data = midi_file(*([name(text), program(48, c), *chords(c)] for c in range(3)))
    assert bool(cast(data).tracks["bass"]) is not is_asked  # but for the exact name, as published


def test_c3_a_program_change_counts_before_the_notes_of_its_tick():
    line = bass_line(1)
    several = [program(5, 1), line[0], program(4, 1), program(33, 1), *line[1:]]
    for late in ([line[0], program(33, 1), *line[1:]], several):
        for song in both_readers(midi_file([name("B"), *late])):
            only, = song.tracks
            assert (only.program, only.has_program, only.channel, len(only.notes)) == (33, True, 1, 32)


def test_c4_all_drum_tracks_and_c1_two_hands():
    data = midi_file([name("drums"), *beat(9)], [name("Percussion"), *beat(9)],
                     [name("Piano"), program(0), *chords()], [name("Piano"), program(0), *chords(), *chords()[:2]])
    assert cast(data).tracks == {"drums": [0, 1], "bass": [], "piano": [3]}
    assert cast(data, join=True).tracks["piano"] == [2, 3]


def test_a_pair_of_guitars_is_joined_and_another_family_is_not():
    data = midi_file(*([program(number, c), *chords(c)] for c, number in enumerate((24, 30, 16, 31))))
    assert cast(data, join=True).tracks["piano"] == [2]  # as many notes, the lowest program
    longer = midi_file([program(24), *chords(), *chords()], [program(30, 1), *chords(1)], [program(16, 2), *chords(2)])
    assert cast(longer, join=True).tracks["piano"] == [0, 1]


@pytest.mark.parametrize(("first", "is_drum"), [
    ([(0, XG_DRUMS_ON_3)], True), ([(0, GS_DRUMS_ON_3)], True), ([bank(127, 2)], True), ([bank(120, 2)], True),
    ([(0, GS_RESET), bank(127, 2)], False), ([bank(121, 2)], False), ([], False)])
def test_drum_set_ups_of_gs_xg_and_gm2(first, is_drum):
    for song in both_readers(midi_file([*first, program(1, 2), *beat(2)])):
        assert [each.is_drum for each in song.tracks] == [is_drum]


def test_gs_numbers_channels_from_1_but_for_the_tenth():
    for block, channel in ((0x10, 9), (0x11, 0), (0x19, 8), (0x1A, 10), (0x1F, 15)):
        message = bytes([0xF0, 10, 0x41, 0x10, 0x42, 0x12, 0x40, block, 0x15, 2, 0, 0xF7])
        for song in both_readers(midi_file([(0, message), program(1, channel), *beat(channel)])):
            assert [each.is_drum for each in song.tracks] == [True]
    off = bytes([0xF0, 10, 0x41, 0x10, 0x42, 0x12, 0x40, 0x10, 0x15, 0, 0, 0xF7])
    for song in both_readers(midi_file([(0, off), program(0, 9), *chords(9)])):
        assert [each.is_drum for each in song.tracks] == [False]


def test_a_program_in_another_track_counts_for_the_channel():
    for song in both_readers(midi_file([program(33, 1), program(48, 1, 50 * Q)], bass_line(1), chords(2))):
        assert [(each.program, each.has_program) for each in song.tracks] == [(33, True), (0, False)]
    for song in both_readers(midi_file([program(48), *chords()], chords())):  # two DAW tracks on channel 1
        assert [(each.program, each.has_program) for each in song.tracks] == [(48, True), (0, False)]


def test_a_track_that_may_fill_a_missing_part_is_a_question():
    data = midi_file([name("Track 1"), *chords()], [name("Inst 3"), *chords(1)], beat(9))
    found = cast(data)
    assert found.questions == {"bass": [0, 1], "piano": [0, 1]}
    song = both_readers(data)[0]
    check_clear(song, found, ["drums"], "x.mid")
    with pytest.raises(UserError) as caught:
        check_clear(song, found, ["piano"], "x.mid")
    assert str(caught.value) == ("x.mid: which track plays the piano is not clear: "
                                 "#1 Track 1 (no program, 48 notes), #2 Inst 3 (no program, 48 notes); "
                                 "say so with --part 'piano=#1', or --part piano=none")
    settled = cast(data, wanted={"piano": "#1", "bass": "none"})
    assert settled.tracks["piano"] == [0] and not settled.questions


def test_a_question_is_short_whatever_the_tracks_are_called():
    titles = [f"{i} " + "Trio (Nell, Puck & Jelf) from the Princess of Kensington" for i in range(9)]
    data = midi_file(*([name(title), *chords(i)] for i, title in enumerate(titles)))
    song = both_readers(data)[0]
    with pytest.raises(UserError) as caught:
        check_clear(song, cast(data), ["piano"], "x.mid")
    message = str(caught.value)
    assert "#2 1 Trio (Nell, Puck & Jelf) from the Pri… (" in message and "and 3 more" in message
    assert len(message) < 600
    assert [*track_texts(song).values()][1].startswith(f"#2 {titles[1]} (")


def test_a_person_names_tracks_by_name_number_or_channel():
    data = midi_file([name("[A] Track 3"), *chords(3)], [name("x"), *chords(4)])
    for which in ("[a] track 3", "#1", "ch4", "CH 4", "channel 4", "*track*"):
        assert cast(data, wanted={"bass": which}).tracks["bass"] == [0]
    parser = argparse.ArgumentParser()
    add_options(parser, Choices())
    given = parser.parse_args(["--part", "Keys=ch2", "--join"])
    assert choices_of(given, Choices(), VOCABULARY) == Choices(tracks=(("piano", "ch2"),), join=True)
    with pytest.raises(UserError, match="channels go from 1 to 16"):
        choices_of(parser.parse_args(["--part", "bass=ch17"]), Choices(), VOCABULARY)


@pytest.mark.parametrize(("numerator", "power", "meaning"), [
    (2, 33, "bars of four quarters"), (4, 34, "bars of four quarters"), (0, 8, "bars of four quarters"), (3, 8, "3/0")])
def test_i1_i2_i3_meters_beyond_belief_are_told(numerator, power, meaning):
    data = midi_file([time_signature(0, numerator, power), *chords()])
    fast, exact = both_readers(data)
    assert fast.time_signatures == exact.time_signatures
    line = f"a time signature of {numerator}/2^{power}, read as {meaning}"
    assert fast.notices == exact.notices == (line,)
    assert not both_readers(midi_file([time_signature(0, 7, 3), *chords()]))[0].notices


def test_events_that_make_no_sense_name_no_channel():
    body = track(chords())[8:]
    assert read_song("x.mid", header(1) + chunk(body)).tracks[0].channel == 0


# ---------------------------------------------------------------- metronomes


def click(channel: int = 9) -> list[Event]:
    return played([(Q * i, Q // 8, 77 - (i % 4 == 0)) for i in range(32)], channel)


@pytest.mark.parametrize("text", ["Click", "CLICK TRACK", "metronome", "Count in"])
@pytest.mark.parametrize("channel", [9, 3])
def test_a_metronome_plays_no_part(text, channel):
    metronome = [name(text), program(0, channel), *click(channel)]
    band = [[name("Bass"), program(33), *bass_line()], [name("Piano"), program(0, 1), *chords(1)]]
    found = cast(midi_file(metronome, *band), join=True)
    assert found.tracks == {"drums": [], "bass": [1], "piano": [2]}
    assert not found.questions
    with_kit = cast(midi_file(metronome, [name("Kit"), *beat(9)], *band))
    assert with_kit.tracks["drums"] == [1]
    with_all = cast(midi_file(metronome, [name("Kit"), *beat(9)], *band), wanted={"drums": "all"})
    assert with_all.tracks["drums"] == [1]


def test_a_metronome_is_no_question():
    found = cast(midi_file([name("Click"), *click(3)], [name("Piano"), *chords(1)]))
    assert found.tracks == {"drums": [], "bass": [], "piano": [1]} and not found.questions


def test_a_person_may_still_say_that_a_click_is_the_drums():
    data = midi_file([name("Click"), *click()], [name("Piano"), *chords(1)])
    assert cast(data, wanted={"drums": "click"}).tracks["drums"] == [0]
    assert cast(data, wanted={"drums": "ch10"}).tracks["drums"] == [0]


def test_a_song_called_click_has_drums():
    """Its title stands on every track; and who plays a kit is no metronome."""
    titled = midi_file([name("Click"), *beat(9)], [name("Click"), program(33), *bass_line()],
                       [name("Click"), program(0, 1), *chords(1)])
    assert cast(titled).tracks == TRIO
    assert cast(midi_file([name("Click"), *beat(9)])).tracks["drums"] == [0]
    assert cast(midi_file([name("Click"), *beat(9), *bass_line()])).tracks["drums"] != []


# ---------------------------------------------------------------- one instrument on many channels


def spread(channels: range, pitch: int = 60, bends: int = 1) -> list[Event]:
    """Each note on the next channel, as MPE keyboards play, and its bends before it."""
    events: list[Event] = []
    for i in range(48):
        channel = channels[i % len(channels)]
        events += [(Q * i, bytes([0xE0 | channel, 0, 60 + k])) for k in range(bends)]
        events += note(Q * i, Q * i + 90, pitch + i % 5, channel)
    return sorted(events, key=lambda event: event[0])


@pytest.mark.parametrize("join", [False, True])
def test_an_instrument_that_is_spread_over_channels_is_one(join):
    data = midi_file([name("Rhodes MPE"), *spread(range(1, 16))], [name("Keys 2"), *chords()[:12]])
    found = cast(data, join=join)
    assert found.tracks["piano"] == list(range(15 + join))
    assert not found.tracks["drums"] and not found.questions


def test_channels_without_bends_of_their_own_are_several_instruments():
    data = midi_file([name("Rhodes"), *spread(range(1, 6), bends=0)])
    assert not cast(data).tracks["piano"]
    programs = [program(each, each) for each in range(1, 6)]
    assert cast(midi_file([name("Strings"), *programs, *spread(range(1, 6))])).tracks["piano"] != [0, 1, 2, 3, 4]


def test_an_instrument_that_is_spread_is_asked_for_as_one():
    data = midi_file([name("Take"), *spread(range(1, 16))], [name("Solo"), *chords()])
    found = cast(data)
    assert found.questions == {"bass": [15], "piano": [0, 15]}
    for which in ("#1", "take", "ch3"):
        assert cast(data, wanted={"piano": which}).tracks["piano"] == list(range(15))
    assert cast(data, wanted={"piano": "#2"}).tracks["piano"] == [15]


def test_how_an_instrument_that_is_spread_is_played_counts_as_a_whole():
    low = [(tick, bytes([message[0], 30 + message[1] % 7, *message[2:]]) if message[0] < 0xE0 else message)
           for tick, message in spread(range(1, 13))]
    assert cast(midi_file([name("Take"), *low])).why == {"bass": "as played"}

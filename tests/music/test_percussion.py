"""Hand percussion taken out of drum tracks: the band's vocabulary, in songs and in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from midi_bytes import meta, midi_file, name, note, notes_of, program

from backline.common.paths import ROOT
from backline.generation.reading import Asked, hear
from backline.listening.song_view import view_song
from backline.music.casting import assign_parts
from backline.music.channels import DRUM_CHANNEL
from backline.music.choices import Choices
from backline.music.midi_reader import read_song
from backline.music.midi_tracks import read_tracks, tracks_to_bytes
from backline.music.parts import arrange
from backline.music.percussion import split_song, split_tracks
from backline.music.players import Voice, players_text
from backline.music.vocab import load_vocabulary

BAND = load_vocabulary(ROOT / "configs" / "vocab_band.json")
KIT, HANDS = (36, 38, 42, 57), (54, 56, 64, 69)  # 57, the second crash, lies among the percussion
Q = 96


def hits(pitches, channel=DRUM_CHANNEL):
    return [event for i, pitch in enumerate(pitches) for event in note(Q * i, Q * i + 24, pitch, channel)]


def song_bytes(*drum_tracks):
    bass = [name("bass"), program(33, 1), *hits((40, 43, 45, 47), 1)]
    return midi_file(*drum_tracks, bass)


MIXED = song_bytes([name("Drums"), program(24, DRUM_CHANNEL), *hits(KIT + HANDS)])


def cast(data: bytes):
    song = split_song(read_song("song.mid", data), BAND)
    assignment = assign_parts(song, BAND)
    return {part: sorted(notes[:, 2].tolist())
            for part, notes in zip(BAND.part_names, assignment.notes, strict=True)
            if len(notes)}


@pytest.mark.parametrize("title", ["Drums", "", "Track 10", "EZdrummer"])
def test_hand_percussion_is_taken_out_of_a_kits_track(title):
    assert cast(song_bytes([name(title), *hits(KIT + HANDS)])) \
        == {"drums": [*KIT], "percussion": [*HANDS], "bass": [40, 43, 45, 47]}


@pytest.mark.parametrize("title", ["Percussion", "Shakers", "conga 1"])
def test_a_track_that_is_named_so_is_percussion_whatever_it_strikes(title):
    assert cast(song_bytes([name("Kit"), *hits(KIT)], [name(title), *hits((42, 60, 76))])) \
        == {"drums": [*KIT], "percussion": [42, 60, 76], "bass": [40, 43, 45, 47]}


def test_a_track_of_hand_percussion_alone_leaves_the_song_without_drums():
    assert cast(song_bytes([name("Track 3"), *hits(HANDS)])) == {"percussion": [*HANDS], "bass": [40, 43, 45, 47]}


def test_the_band_loses_no_hit_and_the_trio_is_cast_as_before():
    song = read_song("song.mid", MIXED)
    assert split_song(song, load_vocabulary()) is song
    band = arrange(song, BAND, Choices(), "song.mid")
    assert [len(notes) for notes in band.pieces[0].parts] == [4, 4, 4, 0, 0, 0, 0]
    assert band.about_song["parts"]["percussion"] == ["#3 percussion (drums, 4 notes)"]
    trio = arrange(song, load_vocabulary(), Choices(), "song.mid")
    assert [len(notes) for notes in trio.pieces[0].parts] == [8, 4, 0]


def test_a_file_is_split_event_by_event():
    midi = read_tracks("song.mid", MIXED)
    split = split_tracks(midi, BAND, "song.mid")
    assert split_tracks(midi, load_vocabulary(), "song.mid") is midi
    assert len(split.tracks) == 3
    for kind in ("is_onset", "is_release"):
        before, after = ([event for events in each.tracks for event in events if getattr(event, kind)]
                         for each in (midi, split))
        assert sorted(before) == sorted(after)
    kit, percussion = split.tracks[0], split.tracks[2]
    assert [event.message for event in percussion if event.kind == 0xC0] \
        == [event.message for event in kit if event.kind == 0xC0] == [bytes([0xC9, 24])]
    read = read_song("song.mid", tracks_to_bytes(split))
    assert notes_of(read) == notes_of(read_song("song.mid", MIXED))
    assert split_song(read, BAND) is not read and cast(tracks_to_bytes(split)) == cast(MIXED)


def test_a_song_that_says_who_plays_stays_as_it_is():
    said = players_text({"drums": [Voice(0, DRUM_CHANNEL)], "bass": [Voice(1, 1)]}, 2)
    data = song_bytes([(0, meta(1, said)), name("Drums"), *hits(KIT + HANDS)])
    midi = read_tracks("song.mid", data)
    assert split_tracks(midi, BAND, "song.mid") == midi


def test_a_prompt_is_heard_and_shown_in_seven_parts(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(MIXED)
    heard = hear(read_tracks(path), Path("song.mid"), Asked(), BAND)
    parts = BAND.part_of_id[heard.rows[:, -1]]
    assert np.bincount(parts, minlength=7).tolist() == [4, 4, 4, 0, 0, 0, 0]
    assert heard.given.voices["percussion"] == (Voice(2, DRUM_CHANNEL),)
    view, _ = view_song(path, BAND)
    assert [(lane.name, len(lane.notes)) for lane in view.lanes][:3] == [("drums", 4), ("percussion", 4), ("bass", 4)]

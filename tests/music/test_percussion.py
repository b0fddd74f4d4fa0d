"""Hand percussion taken out of drum tracks: the band's vocabulary, in songs and in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import succeeds
from midi_bytes import meta, midi_file, name, note, notes_of, program
from playing import save_given_model

import generate
from backline.common.paths import ROOT
from backline.generation.config import RuleConfig
from backline.generation.reading import Asked, hear
from backline.generation.recipes import read_recipe
from backline.generation.rules import allowed_pitches
from backline.listening.song_view import view_song
from backline.music.casting import assign_parts
from backline.music.channels import DRUM_CHANNEL
from backline.music.choices import Choices
from backline.music.midi_edits import ports
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
    assert split_song(read, BAND) is read and cast(tracks_to_bytes(split)) == cast(MIXED)


def said(**players):
    return players_text(players, 2)


def test_a_song_that_says_who_plays_percussion_stays_as_it_is():
    text = said(drums=[Voice(0, DRUM_CHANNEL)], percussion=[], bass=[Voice(1, 1)])
    midi = read_tracks("song.mid", song_bytes([(0, meta(1, text)), name("Drums"), *hits(KIT + HANDS)]))
    assert split_tracks(midi, BAND, "song.mid") is midi


def test_what_a_song_of_three_parts_says_stays_true_once_it_is_split():
    text = said(drums=[Voice(0, DRUM_CHANNEL)], bass=[Voice(1, 1)], piano=[])
    data = song_bytes([(0, meta(1, text)), name("Anything"), *hits(KIT + HANDS)])
    split = read_song("song.mid", tracks_to_bytes(split_tracks(read_tracks("song.mid", data), BAND, "song.mid")))
    assert split.players == {"drums": (0,), "bass": (1,), "piano": (), "percussion": (2,)}
    assert [len(notes) for notes in assign_parts(split, BAND).notes] == [4, 4, 4, 0, 0, 0, 0]
    assert cast(data) == {"drums": [*KIT], "percussion": [*HANDS], "bass": [40, 43, 45, 47]}


@pytest.mark.parametrize("title", ["Drums & Perc", "808", "Bass", "Piano", "Lead Anthem"])
def test_a_title_that_casting_takes_for_drums_is_split_too(title):
    found = cast(song_bytes([name(title), *hits(KIT + HANDS)]))
    assert (found["drums"], found["percussion"]) == ([*KIT], [*HANDS])


def test_a_split_track_keeps_its_port_and_makes_no_clip_longer():
    port = (0, meta(0x21, bytes([1])))
    early = note(4 * 4 * Q - 4, 4 * 4 * Q + 20, 49, DRUM_CHANNEL)  # for bar 5, a moment early
    data = midi_file([name("Drums"), port, *hits(KIT + HANDS), *early])
    midi = read_tracks("song.mid", data)
    split = split_tracks(midi, BAND, "song.mid")
    assert ports(split) == [1, 1]
    lasts = [read_song("song.mid", tracks_to_bytes(each)).last_end_of_track for each in (midi, split)]
    assert lasts == [0, 0]


def test_no_hit_is_taken_twice():
    data = BAND.to_dict()
    data["parts"][0]["takes"] = [[54, 54]]
    song = split_song(read_song("song.mid", MIXED), load_vocabulary(data))
    assert song.n_notes == read_song("song.mid", MIXED).n_notes


def test_a_prompt_is_heard_and_shown_in_seven_parts(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(MIXED)
    heard = hear(read_tracks(path), Path("song.mid"), Asked(), BAND)
    parts = BAND.part_of_id[heard.rows[:, -1]]
    assert np.bincount(parts, minlength=7).tolist() == [4, 4, 4, 0, 0, 0, 0]
    assert heard.given.voices["percussion"] == (Voice(2, DRUM_CHANNEL),)
    view, _ = view_song(path, BAND)
    assert [(lane.name, len(lane.notes)) for lane in view.lanes][:3] == [("drums", 4), ("percussion", 4), ("bass", 4)]


@pytest.mark.parametrize(("make", "kept", "notice"), [
    ([], "drums, percussion", "percussion is given along with drums; to have it made anew, name it in --make too"),
    (["--make", "piano"], "drums, percussion", "percussion is given along with drums"),
    (["--make", "percussion,piano"], "drums", "left out of the prompt: percussion, bass")])
def test_with_the_drums_of_a_track_its_hand_percussion_is_given_unless_it_is_made(tmp_path, make, kept, notice, capsys):
    prompt = tmp_path / "song.mid"
    prompt.write_bytes(MIXED)
    model = tmp_path / "band.safetensors"
    save_given_model(model, BAND)
    succeeds(generate.main, ["-mp", model, "-p", prompt, "--given", "drums", *make, "--seed", 1, "-d", "cpu",
                             "-o", tmp_path / "out", "--no-page"])
    assert notice in capsys.readouterr().err
    given = read_recipe(tmp_path / "out/0.mid").wish.given
    assert ", ".join(given) == kept
    song = read_song("0.mid", (tmp_path / "out/0.mid").read_bytes())
    quarter = song.ticks_per_quarter
    struck = {(on / quarter, pitch) for track in song.tracks if track.is_drum for on, _, pitch in track.notes[:, :3]}
    assert struck.issuperset(enumerate(KIT))
    assert struck.issuperset(enumerate(HANDS, len(KIT))) == ("percussion" in given)


def test_what_percussion_takes_is_never_made_as_drums():
    allowed = allowed_pitches(BAND, RuleConfig(), BAND.part_names)
    drums, percussion = BAND.first_pitch_ids[:2]
    for pitch in range(35, 60):
        assert allowed[drums + pitch - 35] == (pitch not in (54, 56, 58))
        assert allowed[percussion + pitch - 35]
    assert not load_vocabulary().is_taken.any()

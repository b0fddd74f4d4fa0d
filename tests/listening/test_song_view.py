"""What pages and pictures show of a song: every note of its file, as loud and as long as it is."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import mido
import numpy as np
from pages import RECIPE, V

from backline.generation.config import Reading
from backline.generation.given_song import MADE_MARK, GivenSong, Made, files_beside
from backline.generation.recipes import recipe_text
from backline.generation.wish import Wish
from backline.listening.ideas_page import music_data
from backline.listening.song_view import SongView, view_song
from backline.music.midi_tracks import read_tracks, song_of_tracks
from backline.music.players import Voice, players_text

TPQ = 100
BAR = 4 * TPQ
DRUMS, BASS, PIANO = map(V.part_names.index, ("drums", "bass", "piano"))


def track(name: str, channel: int, *events: tuple[int, str, tuple[int, ...]], program: int = -1) -> mido.MidiTrack:
    """Events (tick, kind, values): note on and off, control changes."""
    messages = [(0, mido.MetaMessage("track_name", name=name))]
    if program >= 0:
        messages.append((0, mido.Message("program_change", channel=channel, program=program)))
    for tick, kind, values in events:
        names = ("control", "value") if kind == "control_change" else ("note", "velocity")
        messages.append((tick, mido.Message(kind, channel=channel, **dict(zip(names, values, strict=True)))))
    made, now = mido.MidiTrack(), 0
    for tick, message in sorted(messages, key=lambda pair: pair[0]):
        made.append(message.copy(time=tick - now))
        now = tick
    return made


def note(onset: int, end: int, pitch: int, velocity: int) -> list[tuple[int, str, tuple[int, ...]]]:
    return [(onset, "note_on", (pitch, velocity)), (end, "note_off", (pitch, 0))]


def pedal(*changes: tuple[int, int]) -> list[tuple[int, str, tuple[int, ...]]]:
    return [(tick, "control_change", (64, value)) for tick, value in changes]


def midi(*tracks: mido.MidiTrack, before: tuple = ()) -> bytes:
    buffer = io.BytesIO()
    conductor = mido.MidiTrack(list(before))
    mido.MidiFile(tracks=[conductor, *tracks], ticks_per_beat=TPQ).save(file=buffer)
    return buffer.getvalue()


def seen(data: bytes, path: Path = Path("0.mid")) -> SongView:
    return view_song(path, V, data)[0]


def band(before: tuple = ()) -> bytes:
    return midi(track("Kit", 9, *note(3, 50, 36, 111), *note(403, 450, 38, 70)),
                track("bass", 0, *note(0, 90, 40, 90), *note(400, 480, 43, 33), program=33),
                track("Strings", 1, *note(7, 799, 60, 55), program=48), before=before)


def test_notes_are_as_loud_and_lie_where_the_file_has_them():
    view = seen(band())
    drums, bass, piano, strings = view.lanes
    assert drums.notes.tolist() == [[3, 50, 36], [403, 450, 38]] and drums.velocities.tolist() == [111, 70]
    assert bass.notes.tolist() == [[0, 90, 40], [400, 480, 43]] and bass.velocities.tolist() == [90, 33]
    assert (strings.name, strings.program, strings.is_drum, strings.notes.tolist()) == (
        "Strings", 48, False, [[7, 799, 60]])
    assert not len(piano.notes) and view.n_bars == 2 and view.fresh == ()
    rows = music_data(view, len(V.parts))["notes"]
    assert rows[DRUMS] == [[3, 50, 36, 0, 111], [403, 450, 38, 0, 70]] and rows[3] == [[7, 799, 60, 0, 55]]


def test_what_says_nothing_takes_no_room_on_the_page():
    data = music_data(seen(midi(track("bass", 0, *note(0, 90, 40, 100), *note(100, 190, 40, 99)))), len(V.parts))
    assert data["notes"][BASS] == [[0, 90, 40, 0], [100, 190, 40, 0, 99]]


def test_velocities_stay_with_their_notes_whatever_their_order():
    generator = np.random.default_rng(3)
    events, wanted = [], {}
    for onset in generator.permutation(40) * 10:
        pitch, velocity = int(generator.integers(30, 60)), int(generator.integers(1, 128))
        events += note(int(onset), int(onset) + 9, pitch, velocity)
        wanted[int(onset), pitch] = velocity
    lane = seen(midi(track("bass", 0, *events))).lanes[BASS]
    places = map(tuple, lane.notes[:, [0, 2]].tolist())
    assert dict(zip(places, lane.velocities.tolist(), strict=True)) == wanted


def test_a_pedal_holds_notes_until_it_comes_up_or_they_are_struck_again():
    events = [*note(0, 50, 60, 100), *note(0, 50, 64, 100), *note(100, 150, 60, 100), *note(300, 390, 67, 100)]
    lane = seen(midi(track("piano", 0, *events, *pedal((10, 127), (200, 0))))).lanes[PIANO]
    fades = {(onset, pitch): fade for (onset, _, pitch), fade in zip(lane.notes.tolist(), lane.fades, strict=True)}
    assert fades == {(0, 60): 100, (0, 64): 200, (100, 60): 200, (300, 67): 390}
    assert lane.notes[lane.notes[:, 2] == 64].tolist() == [[0, 50, 64]]  # the picture shows the key alone


def test_a_pedal_that_never_comes_up_holds_no_note_beyond_the_last():
    lane = seen(midi(track("piano", 0, *note(0, 50, 60, 100), *note(300, 390, 67, 100), *pedal((10, 64))))).lanes[PIANO]
    assert lane.fades.tolist() == [390, 390]


def test_every_tempo_is_there_and_a_pickup_ends_bar_1():
    changes = (mido.MetaMessage("time_signature", numerator=1, denominator=4),
               mido.MetaMessage("set_tempo", tempo=500_000),
               mido.MetaMessage("time_signature", numerator=4, denominator=4, time=TPQ),
               mido.MetaMessage("set_tempo", tempo=1_000_000, time=BAR))
    view = seen(band(changes))
    assert view.tempos == ((0, 120), (3 * TPQ + TPQ + BAR, 60))
    assert view.lanes[BASS].notes[0].tolist() == [300, 390, 40]
    assert view.n_bars == 3


def test_tracks_on_one_part_are_joined_as_the_song_says():
    voices = {"piano": [Voice(1, 0), Voice(2, 1)]}
    text = mido.MetaMessage("text", text=players_text(voices, n_tracks=3).decode())
    data = midi(track("Left", 0, *note(0, 90, 40, 80), program=33),
                track("Right", 1, *note(0, 90, 70, 70), program=33), before=(text,))
    view = seen(data)
    assert sorted(view.lanes[PIANO].notes[:, 2].tolist()) == [40, 70]
    assert len(view.lanes) == len(V.parts)


def test_who_plays_what_is_guessed_where_the_song_says_nothing_or_nonsense():
    elsewhere = players_text({"bass": [Voice(1, 3)]}, n_tracks=9).decode()  # as after another program took some away
    for text in (elsewhere, *(f'{{"format":"backline-players"{rest}' for rest in (
            "", ',"players":[]}', ',"tracks":2,"players":{"bass":[[1]]}}'))):
        data = midi(track("bass", 0, *note(0, 90, 40, 80)), before=(mido.MetaMessage("text", text=text),))
        assert len(seen(data).lanes[BASS].notes) == 1


def test_what_a_song_said_before_its_tracks_changed_places_does_not_count():
    """Another program kept the text, and wrote as many tracks in another order."""
    text = players_text({"bass": [Voice(1, 0)], "piano": [Voice(2, 1)], "drums": []}, n_tracks=3).decode()
    said = mido.MetaMessage("text", text=text)
    tracks = [track("bass", 0, *note(0, 90, 40, 80)), track("piano", 1, *note(0, 90, 70, 80), *note(0, 90, 71, 80))]
    for order in (tracks, tracks[::-1]):
        view = seen(midi(*order, before=(said,)))
        assert [len(lane.notes) for lane in view.lanes] == [0, 1, 2]
    beyond = players_text({"bass": [Voice(7, 0)]}, n_tracks=2).decode()
    view = seen(midi(tracks[0], before=(mido.MetaMessage("text", text=beyond),)))
    assert [len(lane.notes) for lane in view.lanes] == [0, 1, 0]


def test_a_part_of_which_all_notes_were_made_anew_still_has_its_track():
    text = players_text({"bass": [Voice(1, 0), Voice(2, 1)]}, n_tracks=3).decode()
    data = midi(track("Moog", 0), track("bass (new)", 1, *note(0, 90, 40, 80)),
                before=(mido.MetaMessage("text", text=text),))
    assert len(seen(data).lanes[BASS].notes) == 1


def written(dropped: tuple[str, ...] = (), tracks: tuple = (), **wish: tuple) -> bytes:
    """A song with a made piano beside it."""
    given_midi = read_tracks("x", band())
    song, voices = song_of_tracks(given_midi, "x")
    notes = [track.notes for track in song.tracks[:2]]
    players = {"drums": voices[:1], "bass": voices[1:2], "piano": ()}
    given = GivenSong(given_midi, players, (*notes, notes[0][:0]), 0, V)
    nothing = np.zeros((0, 3), np.int64)
    steps = V.steps_per_quarter
    made = Made([nothing, nothing, np.array([[steps, 2 * steps, 60]])], [np.zeros(0), np.zeros(0), np.array([77])],
                ("piano",), dropped=dropped, n_bars=2)
    recipe = dataclasses.replace(RECIPE, wish=Wish(**wish), reading=Reading(tracks=tracks))
    return files_beside(given, made, recipe_text(recipe))[""]


def test_made_tracks_are_new_and_all_others_old():
    view = seen(written(given=("bass",)))
    assert [lane.is_old.tolist() for lane in view.lanes] == [[True, True], [True, True], [False], [True]]
    assert view.lanes[PIANO].notes.tolist() == [[TPQ, 2 * TPQ, 60]] and view.lanes[PIANO].velocities.tolist() == [77]
    assert view.fresh == ()


def test_what_a_person_said_of_the_prompt_is_not_asked_of_the_song():
    """A drums track is dropped, and #2 of the prompt is #1 of the song; the made piano is no "Rhodes"."""
    data = written(dropped=("drums",), tracks=(("bass", "#2"), ("piano", "Rhodes")))
    texts = [message for events in read_tracks("x", data).tracks for _, message in events]
    assert sum(MADE_MARK in text for text in texts) == 1
    view = seen(data)
    assert [lane.name for lane in view.lanes if len(lane.notes)] == ["bass", "piano", "Strings"]


def test_a_part_that_nobody_plays_is_not_guessed_again():
    silent = {"bass": [Voice(1, 0)], "piano": [], "drums": []}
    text = mido.MetaMessage("text", text=players_text(silent, n_tracks=3).decode())
    data = midi(track("bass", 0, *note(0, 90, 40, 80)), track("piano", 1, *note(0, 90, 70, 80)), before=(text,))
    assert [len(lane.notes) for lane in seen(data).lanes] == [0, 1, 0, 1]


def test_a_song_that_goes_on_is_new_from_its_first_made_note():
    view = seen(written())
    assert view.fresh == ((TPQ, 2 * BAR),)
    assert seen(written(fill=(2, 2))).fresh == ((BAR, 2 * BAR),)

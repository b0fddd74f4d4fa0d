"""Given songs: what the model hears of them, what is kept, and how made notes come beside it."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import mido
import numpy as np
import pytest
from mido import Message, MetaMessage

from backline.common.errors import UserError
from backline.generation.config import GenConfig, Reading, RuleConfig
from backline.generation.given_song import MADE_MARK, Made, files_beside
from backline.generation.reading import Asked, Heard, hear
from backline.generation.recipes import BEGINNING
from backline.generation.rules import History
from backline.generation.task import make_task
from backline.generation.wish import Wish
from backline.music.midi_reader import read_song
from backline.music.midi_tracks import meta_value, read_tracks
from backline.music.vocab import BAR, FIRST_ID, load_vocabulary
from tokenizer import MidiTokenizerPooled

V = load_vocabulary()
Q = 480
BAR_TICKS = 4 * Q
DRUMS, BASS, PIANO = range(3)
RECIPE = BEGINNING.encode() + b"}"


def file_of(*tracks: list, ticks_per_quarter: int = Q) -> bytes:
    """A MIDI file of tracks of (tick, message)."""
    file = mido.MidiFile(type=1, ticks_per_beat=ticks_per_quarter)
    for events in tracks:
        track = mido.MidiTrack()
        now = 0
        for tick, message in sorted(events, key=lambda event: event[0]):
            track.append(message.copy(time=tick - now))
            now = tick
        file.tracks.append(track)
    written = io.BytesIO()
    file.save(file=written)
    return written.getvalue()


def notes(rows: list, channel: int) -> list:
    events = []
    for onset, duration, pitch, velocity in rows:
        events.append((onset, Message("note_on", note=pitch, velocity=velocity, channel=channel)))
        events.append((onset + duration, Message("note_off", note=pitch, channel=channel)))
    return events


def track(name: str, program: int, channel: int, rows: list, *more: tuple) -> list:
    return [(0, MetaMessage("track_name", name=name)),
            (0, Message("program_change", program=program, channel=channel)),
            *more, *notes(rows, channel)]


def beat(n_bars: int) -> list:
    return [(bar * BAR_TICKS + i * Q + (7 * i) % 20, 60, 36 + 6 * (i % 2), 40 + 13 * i % 80)
            for bar in range(n_bars) for i in range(4)]


def line(n_bars: int, first_bar: int = 0) -> list:
    return [(bar * BAR_TICKS + i * Q + (5 * i) % 13, Q - 31, 33 + bar % 5, 50 + 11 * i)
            for bar in range(first_bar, n_bars) for i in range(4)]


def chords(n_bars: int, first_bar: int = 0) -> list:
    return [(bar * BAR_TICKS + 3 * i, BAR_TICKS - 100, pitch, 30 + pitch)
            for bar in range(first_bar, n_bars) for i, pitch in enumerate((57, 60, 64))]


HEAD = [(0, MetaMessage("set_tempo", tempo=600_000)), (4 * BAR_TICKS, MetaMessage("set_tempo", tempo=500_000)),
        (0, MetaMessage("time_signature", numerator=4, denominator=4)), (0, MetaMessage("key_signature", key="Am")),
        (960, MetaMessage("marker", text="verse")), (970, MetaMessage("lyrics", text="la"))]


def played(n_bars: int = 8) -> bytes:
    """A song as people play it, with a track that plays no part."""
    pedal = [(bar * BAR_TICKS + at, Message("control_change", control=64, value=value))
             for bar in range(n_bars) for at, value in ((100, 127), (BAR_TICKS + 50, 0))]
    bend = [(bar * BAR_TICKS, Message("pitchwheel", pitch=100 * bar, channel=1)) for bar in range(n_bars)]
    return file_of(HEAD, track("Kit", 16, 9, beat(n_bars)), track("Fretless", 35, 1, line(n_bars), *bend),
                   track("Rhodes", 4, 0, chords(n_bars), *pedal), track("Strings", 48, 2, chords(n_bars)))


def heard_of(data: bytes, **asked) -> Heard:
    return hear(read_tracks("song.mid", data), Path("song.mid"), Asked(**asked), V)


def events_of(data: bytes) -> Counter:
    """Every event that a file holds, with its tick; texts of ours left out."""
    found: Counter = Counter()
    for events in read_tracks("song.mid", data).tracks:
        for event in events:
            is_ours = event.meta == 1 and meta_value(event.message).startswith((b"{", MADE_MARK))
            if not is_ours:
                found[event.tick, event.message] += 1
    return found


def written(data: bytes, wish: Wish, made: dict[int, list], **asked) -> dict[str, bytes]:
    """The files of a song to which notes, (onset, end, pitch) in steps, are made by the part's index."""
    heard = heard_of(data, fill=wish.fill, **asked)
    task = make_task(wish, heard.rows, V, GenConfig(), heard.clip)
    rows = [np.array(made.get(p, []), np.int64).reshape(-1, 3) for p in range(len(V.parts))]
    velocities = [np.full(len(own), 90) for own in rows]
    holes = tuple(((first - 1) * V.steps_per_bar, last * V.steps_per_bar) for first, last in wish.stretches)
    return files_beside(heard.given, Made(rows, velocities, task.made, task.first_bar * V.steps_per_bar, holes,
                                          task.dropped, max(task.n_bars, heard.clip.n_bars)), RECIPE)


# ---------------------------------------------------------------- what is kept


def test_every_event_is_there_when_bars_are_added():
    files = written(played(), Wish(bars=2), {DRUMS: [(8 * 32, 8 * 32 + 2, 36)], PIANO: [(8 * 32, 9 * 32, 60)]})
    before = events_of(played())
    assert not before - events_of(files[""])
    assert {track.name for track in mido.MidiFile(file=io.BytesIO(files[""])).tracks} == {
        "", "Kit", "Fretless", "Rhodes", "Strings", "drums (new)", "bass (new)", "piano (new)"}
    ends = {sum(message.time for message in track) for track in mido.MidiFile(file=io.BytesIO(files[""])).tracks}
    assert ends == {10 * BAR_TICKS}


def test_given_parts_and_others_stay_and_what_is_replaced_goes():
    files = written(played(), Wish(given=("bass", "piano"), make=("drums",)), {DRUMS: [(0, 2, 36)]})
    gone = events_of(played()) - events_of(files[""])
    assert {message[0] & 15 for _, message in gone if message[0] < 0xF0} == {9}
    assert gone.total() == 2 + 2 * len(beat(8))  # the notes, the name and the program
    song = read_song("song.mid", files[""])
    assert MidiTokenizerPooled().song_rows(song, "song.mid").shape[0] == 1 + len(line(8)) + len(chords(8))


def test_of_bars_made_anew_notes_pedals_and_bends_go_and_come_back_behind():
    files = written(played(), Wish(fill=(3, 4)), {BASS: [(2 * 32, 2 * 32 + 8, 40)]})
    gone = events_of(played()) - events_of(files[""])
    first, last = 2 * BAR_TICKS, 4 * BAR_TICKS
    onsets = [tick for tick, message in gone if message[0] & 0xF0 == 0x90]
    assert min(onsets) >= first - 30 and max(onsets) < last - 30
    kinds = {message[0] & 0xF0 for _, message in gone}
    assert kinds == {0x80, 0x90, 0xB0, 0xE0}
    assert 2 not in {message[0] & 15 for _, message in gone}  # strings stay
    midi = read_tracks("song.mid", files[""])
    pedal = [(event.tick, event.message[2]) for events in midi.tracks for event in events
             if event.kind == 0xB0 and event.message[1] == 64 and event.channel == 0]
    assert (first, 0) in pedal and (last, 127) in pedal  # as it was between the hole's edges
    bends = [event.tick for events in midi.tracks for event in events if event.kind == 0xE0 and event.channel == 1]
    assert not [tick for tick in bends if first < tick < last] and last in bends


@pytest.mark.parametrize("bars", [(3, 3), (4, 4)])
def test_bars_made_anew_do_not_make_a_song_longer(bars):
    """A made note of theirs may last to its end, and not beyond."""
    onset = 32 * (bars[0] - 1)
    clip = file_of(HEAD, track("Piano", 0, 0, chords(4)))
    files = written(clip, Wish(fill=bars), {PIANO: [(onset, onset + 128, 61)]})
    for data in files.values():
        tracks = mido.MidiFile(file=io.BytesIO(data)).tracks
        assert {sum(message.time for message in each) for each in tracks} == {4 * BAR_TICKS}
    ends = [tick for tick, message in events_of(files[""]) if message[1] == 61 and message[0] & 0xF0 == 0x80]
    assert ends == [4 * BAR_TICKS]


def test_stems_of_given_parts_are_the_given_parts():
    files = written(played(), Wish(given=("bass", "piano"), make=("drums",)), {DRUMS: [(0, 2, 36)]})
    bass = events_of(files["-bass"])
    assert not {key: n for key, n in bass.items() if events_of(played())[key] < n}
    assert sum(message[0] & 0xF0 == 0x90 for _, message in bass.elements()) == len(line(8))
    assert {track.name for track in mido.MidiFile(file=io.BytesIO(files["-drums"])).tracks} == {"", "drums"}


def test_made_notes_have_a_free_channel_and_the_sound_of_their_part():
    files = written(played(), Wish(bars=1), {BASS: [(8 * 32, 8 * 32 + 4, 40)]})
    made = next(track for track in mido.MidiFile(file=io.BytesIO(files[""])).tracks if track.name == "bass (new)")
    channels = {message.channel for message in made if hasattr(message, "channel")}
    assert len(channels) == 1 and not channels & {0, 1, 2, 9}
    assert [message.program for message in made if message.type == "program_change"] == [35]


def test_where_no_channel_is_free_the_part_keeps_its_own():
    others = [track(f"Extra {channel}", 50, channel, chords(1)) for channel in range(2, 16) if channel != 9]
    data = file_of(HEAD, track("Bass", 33, 1, line(8)), track("Piano", 0, 0, chords(8)), *others)
    files = written(data, Wish(bars=1), {BASS: [(8 * 32, 8 * 32 + 4, 40)]})
    made = next(track for track in mido.MidiFile(file=io.BytesIO(files[""])).tracks if track.name == "bass (new)")
    assert {message.channel for message in made if hasattr(message, "channel")} == {1}


def test_a_song_made_of_such_a_song_keeps_all_of_it_and_one_recipe():
    once = written(played(), Wish(bars=1), {PIANO: [(8 * 32, 9 * 32, 60)]})[""]
    twice = written(once, Wish(bars=1), {PIANO: [(9 * 32, 10 * 32, 62)]})[""]
    assert not events_of(once) - events_of(twice)
    assert twice.count(RECIPE) == 1
    heard = heard_of(twice)
    assert {62, 60} <= set(V.pitch_of_id[heard.rows[heard.rows[:, BAR] >= FIRST_ID + 8, 3]].tolist())


@pytest.mark.parametrize("n_events", [20_000])
def test_a_flood_of_controllers_and_a_long_sysex_come_back(n_events):
    flood = [(i // 3, Message("control_change", control=1, value=i % 128, channel=1)) for i in range(n_events)]
    tempos = [(i, MetaMessage("set_tempo", tempo=500_000 + i)) for i in range(5000)]
    long = [(5, Message("sysex", data=tuple(i % 128 for i in range(60_000))))]
    data = file_of([*HEAD, *tempos, *long], track("Bass", 33, 1, line(4), *flood), track("Piano", 0, 0, chords(4)))
    assert not events_of(data) - events_of(written(data, Wish(bars=1), {})[""])


# ---------------------------------------------------------------- how long a clip is


def with_ends(data: bytes, end: int) -> bytes:
    file = mido.MidiFile(file=io.BytesIO(data))
    for events in file.tracks:
        length = sum(message.time for message in events)
        events.append(MetaMessage("end_of_track", time=max(end - length, 0)))
    out = io.BytesIO()
    file.save(file=out)
    return out.getvalue()


def ahead(n_bars: int) -> list:
    """A note a bar, each but the first a moment before the bar line."""
    return [(max(bar * BAR_TICKS - 20, 0), BAR_TICKS, 40, 80) for bar in range(n_bars)]


@pytest.mark.parametrize(("data", "n_bars"), [
    (with_ends(played(7), 8 * BAR_TICKS), 8),                       # a silent last bar
    (with_ends(played(8), 8 * BAR_TICKS + 1), 8),                   # an end one tick late
    (file_of(HEAD, track("Bass", 33, 1, [*line(4), (4 * BAR_TICKS - 3, 57, 36, 99)])), 4),  # for the next bar
    (file_of(HEAD, track("Bass", 33, 1, [*line(4), (4 * BAR_TICKS - 3, Q, 50, 99)])), 4),  # of any length
    (file_of(HEAD, track("Bass", 33, 1, [*line(4), (4 * BAR_TICKS - 59, Q, 50, 99)])), 4),  # almost a 32nd early
    (file_of(HEAD, track("Bass", 33, 1, [*line(4), (4 * BAR_TICKS - 61, Q, 50, 99)])), 5),  # more than a 32nd early
    (with_ends(file_of(HEAD, track("Bass", 33, 1, [*line(4), (4 * BAR_TICKS - 3, Q, 50, 99)])), 5 * BAR_TICKS), 5),
    (file_of(HEAD, track("Bass", 33, 1, ahead(4))), 4),              # each bar begun a moment early
    (file_of(HEAD, track("Piano", 0, 0, [(0, 8 * BAR_TICKS, 48, 80)])), 8),   # a pad of eight bars
    (with_ends(played(4), 40 * BAR_TICKS), 4),                      # silence that nobody means
])
def test_a_clip_lasts_whole_bars(data, n_bars):
    heard = heard_of(data)
    assert heard.clip.n_bars == n_bars
    task = make_task(Wish(bars=2), heard.rows, V, GenConfig(), heard.clip)
    assert (task.rules.first, task.rules.end) == (n_bars * V.steps_per_bar, (n_bars + 2) * V.steps_per_bar)


def test_given_parts_last_as_long_as_the_clip():
    data = file_of(HEAD, track("Bass", 33, 1, line(7)), track("Piano", 0, 0, chords(8)))
    heard = heard_of(data)
    task = make_task(Wish(given=("bass",), make=("drums",)), heard.rows, V, GenConfig(), heard.clip)
    assert task.rules.end == 8 * V.steps_per_bar and task.n_bars == 8


def test_parts_are_made_from_the_first_given_bar_on():
    data = file_of(HEAD, track("Bass", 33, 1, line(8, 4)), track("Piano", 0, 0, chords(8, 4)))
    heard = heard_of(data)
    task = make_task(Wish(given=("bass", "piano")), heard.rows, V, GenConfig(), heard.clip)
    assert task.first_bar == 4


def test_a_held_pitch_is_not_struck_again():
    pad = [(BAR_TICKS, 2 * BAR_TICKS, pitch, 80) for pitch in range(48, 72)]
    data = file_of(HEAD, track("Piano", 0, 0, [*chords(1), *pad, (3 * BAR_TICKS, Q, 60, 80)]))
    heard = heard_of(data)
    task = make_task(Wish(fill=(3, 3)), heard.rows, V, GenConfig(), heard.clip)
    held = {int(V.pitch_of_id[pitch]) for pitch, _, _ in task.rules.held}
    assert held == set(range(48, 72))
    assert {until for _, _, until in task.rules.held} == {3 * V.steps_per_bar}


def test_a_note_of_a_kept_bar_that_rings_into_a_later_stretch_is_held():
    bass = [(2 * BAR_TICKS + Q, 3 * BAR_TICKS, 43, 80)]  # from bar 3 into bars 4 to 6
    data = file_of(HEAD, track("Piano", 0, 0, chords(6)), track("Bass", 33, 1, [*line(2), *bass]))
    heard = heard_of(data)
    config = GenConfig(rules=RuleConfig(monophonic=("bass",)))
    task = make_task(Wish(fill=(2, 2, 4, 4), make=("bass",)), heard.rows, V, config, heard.clip)
    (pitch, since, until), = task.rules.held
    assert (V.pitch_of_id[pitch], since) == (43, 3 * V.steps_per_bar) and until > 4 * V.steps_per_bar
    spans = task.rules.time_spans(History.nothing(V))
    assert all(span.end <= 2 * V.steps_per_bar for span in spans if span.parts), "the one voice is busy in bar 4"


def test_a_pickup_is_bar_one_and_the_alignment_stays():
    rows = [(Q + onset, length, pitch, velocity) for onset, length, pitch, velocity in chords(4)]
    head = [(0, MetaMessage("time_signature", numerator=1, denominator=4)),
            (Q, MetaMessage("time_signature", numerator=4, denominator=4))]
    data = file_of(head, track("Piano", 0, 0, [(0, Q, 60, 80), *rows]))
    heard = heard_of(data)
    assert heard.given.origin == Q - BAR_TICKS and heard.clip.n_bars == 5
    assert heard.rows[0, :2].tolist() == [FIRST_ID, FIRST_ID + 24]
    files = written(data, Wish(given=("piano",), make=("bass",)), {BASS: [(32, 36, 40)]})
    made = [tick for tick, message in events_of(files[""]).elements() if message[0] == 0x91]
    assert made == [Q]  # where bar 2 begins in the file


# ---------------------------------------------------------------- cutting, tempo, long songs


def test_prompt_bars_cut_everything_behind_them():
    heard = heard_of(played(), reading=Reading(n_bars=3))
    assert heard.clip.n_bars == 3 and heard.rows[-1, BAR] == FIRST_ID + 2
    last = max(event.tick for events in heard.given.midi.tracks for event in events)
    assert last <= 3 * BAR_TICKS
    assert any("after bar 3" in text for text in heard.notices)
    with pytest.raises(UserError, match="the song has 8 bars"):
        heard_of(played(), reading=Reading(n_bars=9))


@pytest.mark.parametrize("n_rows", [1, 2, 30, 10_000])
def test_the_first_rows_are_kept_and_no_other_notes(n_rows):
    whole = heard_of(played())
    heard = heard_of(played(), n_rows=n_rows)
    assert heard.rows.tolist() == whole.rows[:n_rows - 1].tolist()
    n_parts = sum(len(own) for own in heard.given.notes)
    assert n_parts == len(heard.rows)


def test_a_tempo_takes_the_place_of_the_map():
    heard = heard_of(played(), reading=Reading(tempo=96.0))
    tempos = [(event.tick, meta_value(event.message)) for events in heard.given.midi.tracks for event in events
              if event.meta == 0x51]
    assert tempos == [(0, (625_000).to_bytes(3, "big"))] and heard.tempo == 96


def test_a_file_without_a_tempo_says_so():
    data = file_of([], track("Bass", 33, 1, line(4)), track("Piano", 0, 0, chords(4)))
    assert any("names no tempo: plays at 120 BPM" in text for text in heard_of(data).notices)
    assert not any("names no tempo" in text for text in heard_of(played()).notices)


@pytest.mark.parametrize("fill", [(2, 2, 290, 290), (1, 300), (1, 1, 257, 257)])
def test_bars_too_far_apart_for_the_model_are_one_line(fill):
    data = file_of(HEAD, track("Bass", 33, 1, line(300)), track("Piano", 0, 0, chords(300)))
    with pytest.raises(UserError, match=r"--fill .*: the model holds 256 bars at once") as error:
        heard_of(data, fill=fill)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("asked", "first_bar"), [({"n_new": 4}, 48), ({"fill": (200, 201)}, 44), ({}, 0),
                                                  ({"fill": (45, 300)}, 44), ({"fill": (2, 2, 257, 257)}, 1)])
def test_of_a_song_of_300_bars_what_matters_is_heard(asked, first_bar):
    data = file_of(HEAD, track("Bass", 33, 1, line(300)), track("Piano", 0, 0, chords(300)))
    heard = heard_of(data, **asked)
    assert heard.clip.first_bar == first_bar
    assert heard.rows[0, BAR] == FIRST_ID and heard.rows[-1, BAR] < FIRST_ID + V.bars
    assert any(f"it hears bars {first_bar + 1} to" in text for text in heard.notices)
    with pytest.raises(UserError, match="give --long-songs cut"):
        heard_of(data, reading=Reading(long_songs="skip"), **asked)


def test_other_meters_are_cut_out_where_that_is_asked_for():
    head = [(0, MetaMessage("time_signature", numerator=3, denominator=4)),
            (12 * Q, MetaMessage("time_signature", numerator=4, denominator=4))]
    data = file_of(head, track("Piano", 0, 0, [(12 * Q + on, n, p, v) for on, n, p, v in chords(8)] + [(0, Q, 50, 9)]))
    with pytest.raises(UserError, match="--meters cut"):
        heard_of(data)
    heard = heard_of(data, reading=Reading(meters="cut"))
    assert heard.clip.n_bars == 8 and len(heard.rows) == len(chords(8))
    assert any("24 of 25 notes" in text for text in heard.notices)


def test_notes_out_of_range_are_kept_and_said():
    low = [(3 * Q, Q, 20, 80)]
    odd = [(i * Q, 60, 24, 90) for i in range(4)]
    data = file_of(HEAD, track("Kit", 0, 9, [*beat(4), *odd]), track("Bass", 33, 1, [*line(4), *low]))
    heard = heard_of(data)
    said = "\n".join(heard.notices)
    assert "4 of 20 drums notes are out of the model's range: kept, but not heard" in said
    assert "1 of 17 bass notes are out of the model's range: kept, but heard an octave" in said
    assert not events_of(data) - events_of(written(data, Wish(bars=1), {})[""])


def test_a_song_whose_notes_are_all_out_of_range_has_none_off_the_grid():
    heard = heard_of(file_of(HEAD, track("Kit", 0, 9, [(i * Q + 7, 60, 24, 90) for i in range(4)])))
    assert not len(heard.rows)
    assert any("4 of 4 drums notes are out of the model's range" in text for text in heard.notices)
    assert not any("grid" in text for text in heard.notices)


def test_what_is_read_as_what_is_said():
    line_of_casting = heard_of(played()).notices[0]
    assert line_of_casting == ("song.mid: drums: Kit; bass: Fretless; piano: Rhodes; kept, but not heard by the model: "
                               "Strings")


def test_tracks_that_are_not_there_are_one_line():
    with pytest.raises(UserError, match=r"--part bass=violin: no such track.*#2 Fretless"):
        heard_of(played(), reading=Reading(tracks=(("bass", "violin"),)))
    assert not len(heard_of(played(), reading=Reading(tracks=(("bass", "none"),))).given.notes[BASS])


def test_a_part_that_the_song_says_nobody_plays_is_not_guessed():
    guitar = track("Guitar", 25, 2, chords(8))
    data = file_of(HEAD, track("Bass", 33, 1, line(8)), track("Piano", 0, 0, chords(8)), guitar)
    once = written(data, Wish(given=("bass",), make=("drums",)), {DRUMS: [(0, 2, 36)]},
                   reading=Reading(tracks=(("piano", "Piano"),)))[""]
    heard = heard_of(once)
    assert not len(heard.given.notes[PIANO])
    assert "not heard by the model: Guitar" in heard.notices[0]


# ---------------------------------------------------------------- how people play


def test_a_program_that_changes_within_a_track_leaves_it_one_part():
    change = (4 * BAR_TICKS, Message("program_change", program=36, channel=1))
    data = file_of(HEAD, track("Fingered", 33, 1, line(8), change), track("EP", 4, 0, chords(8)))
    heard = heard_of(data)
    assert [len(own) for own in heard.given.notes] == [0, len(line(8)), len(chords(8))]
    assert not events_of(data) - events_of(written(data, Wish(bars=1), {})[""])


@pytest.mark.parametrize("onsets", [
    [i * Q // 4 + 20 * (i % 2) for i in range(64)],  # swing
    [i * Q // 3 for i in range(48)],                 # triplets
])
def test_what_is_played_off_the_grid_is_kept_there_and_said(onsets):
    data = file_of(HEAD, track("Piano", 0, 0, [(onset, 60, 60 + i % 5, 80) for i, onset in enumerate(onsets)]))
    files = written(data, Wish(fill=(2, 2)), {PIANO: [(32, 36, 70)]})
    gone = [tick for tick, message in events_of(data) - events_of(files[""]) if message[0] & 0xF0 == 0x90]
    assert gone == [onset for onset in onsets if BAR_TICKS <= onset < 2 * BAR_TICKS]
    assert any("of its notes are off the model's grid (8 steps a quarter): kept as they are" in text
               for text in heard_of(data).notices)
    assert not any("off the model's grid" in text for text in heard_of(played()).notices)


def test_strokes_closer_than_the_grid_come_back_and_are_said():
    rolls = [(i * Q // 12, Q // 12, 42, 80) for i in range(4 * 48)]
    data = file_of(HEAD, track("Kit", 0, 9, rolls))
    assert not events_of(data) - events_of(written(data, Wish(bars=1), {DRUMS: [(4 * 32, 4 * 32 + 2, 36)]})[""])
    heard = heard_of(data)
    assert f"{192 - len(heard.rows)} of 192 notes are struck twice within a step" in "".join(heard.notices)
    assert len(heard.rows) < 192


def test_a_part_that_is_made_is_no_question():
    """Nor are its notes, out of any range, in the way."""
    odd = [(i * Q, 60, (2, 36, 120)[i % 3], 90) for i in range(12)]
    data = file_of(HEAD, track("Bass", 33, 1, line(4)), notes(odd, 5))
    with pytest.raises(UserError, match="which track plays the drums is not clear"):
        heard_of(data)
    heard = heard_of(data, made=("drums", "piano"))
    assert [len(own) for own in heard.given.notes] == [0, len(line(4)), 0]

"""Stems joined event by event: what stays, on which channels, under which names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mido
import pytest

import merge_midi
from backline.common.errors import EXIT_USER_ERROR
from backline.music.midi_reader import read_song
from backline.music.parts import assign_parts
from backline.music.vocab import load_vocabulary

VOCABULARY = load_vocabulary()
BAR = 4 * 480
Timed = list[tuple[int, mido.Message | mido.MetaMessage]]
GM_ON = mido.Message("sysex", data=(0x7E, 0x7F, 9, 1))


def write(path: Path, *tracks: Timed, end: int = 2 * BAR) -> Path:
    """A file of these messages at their ticks, written by mido."""
    midi = mido.MidiFile(ticks_per_beat=480)
    for messages in tracks:
        track = midi.add_track()
        now = 0
        for tick, message in messages:
            track.append(message.copy(time=tick - now))
            now = tick
        track.append(mido.MetaMessage("end_of_track", time=max(end - now, 0)))
    midi.save(path)
    return path


def note(tick: int, pitch: int, velocity: int = 64, channel: int = 0, length: int = 100) -> Timed:
    on = mido.Message("note_on", note=pitch, velocity=velocity, channel=channel)
    off = mido.Message("note_off", note=pitch, velocity=33, channel=channel)
    return [(tick, on), (tick + length, off)]


def meta(tick: int, kind: str, **values) -> Timed:
    return [(tick, mido.MetaMessage(kind, **values))]


def control(tick: int, number: int, value: int, channel: int = 0) -> Timed:
    return [(tick, mido.Message("control_change", control=number, value=value, channel=channel))]


def events(path: Path) -> Counter[tuple[int, bytes]]:
    """How often each message is in a file, without its channel."""
    found: Counter[tuple[int, bytes]] = Counter()
    for track in mido.MidiFile(path).tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type != "end_of_track":
                octets = bytes(message.bytes())
                head = octets[0] if octets[0] >= 0xF0 else octets[0] & 0xF0
                found[now, bytes([head]) + octets[1:]] += 1
    return found


def channels_of(path: Path) -> dict[str, set[int]]:
    """Channels of each track with notes, by its name."""
    return {track.name: {message.channel for message in track if not message.is_meta and message.type != "sysex"}
            for track in mido.MidiFile(path).tracks
            if any(message.type == "note_on" for message in track)}


def merged(folder: Path, *stems: Path, options: Sequence[str] = ()) -> Path:
    assert merge_midi.main([str(folder / "out"), *map(str, stems), "--force", *options]) == 0
    return folder / "out" / "merged.mid"


def ends(path: Path) -> set[int]:
    return {sum(message.time for message in track) for track in mido.MidiFile(path).tracks}


HEAD = [*meta(0, "set_tempo", tempo=600_000), *meta(0, "time_signature", numerator=4, denominator=4),
        *meta(0, "key_signature", key="Em"), *meta(0, "marker", text="verse \xe4\xff"),
        *meta(BAR, "set_tempo", tempo=500_000), *meta(BAR, "marker", text="chorus")]


def played(tmp_path: Path) -> list[Path]:
    """Three humanised stems, all on channel 1, each with the song's tempo map."""
    kit = [*meta(0, "track_name", name="Kit"), *control(0, 7, 90)]
    bass = [*meta(0, "track_name", name="Fretless"), (0, mido.Message("program_change", program=35))]
    keys = [*meta(0, "track_name", name="Rhodes"), *control(0, 0, 1), (0, mido.Message("program_change", program=4))]
    for i in range(8):
        tick = i * 480 + i % 3
        kit += note(tick, 36, 40 + i)
        bass += [(tick, mido.Message("pitchwheel", pitch=i * 100)), *note(tick, 40, 90 - i)]
        keys += [*control(tick, 64, 127 * (i % 2)), *note(tick, 60 + i, 50 + i),
                 (tick + 100, mido.Message("aftertouch", value=i)), *meta(tick + 101, "lyrics", text=f"la{i}")]
    return [write(tmp_path / f"{name}.mid", HEAD, track)
            for name, track in (("kit", kit), ("Fretless Bass", bass), ("Rhodes keys", keys))]


# ---------------------------------------------------------------- what stays


def test_every_event_of_the_stems_stays(tmp_path):
    stems = played(tmp_path)
    path = merged(tmp_path, *stems)
    found = events(path)
    head = Counter((tick, bytes(message.bytes())) for tick, message in HEAD)
    wanted = sum((events(stem) - head for stem in stems), head)
    wanted[0, bytes([0xC0, VOCABULARY.parts[0].program])] += 1  # the kit names no program
    assert sum(found.values()) == 94
    assert found == wanted
    assert ends(path) == {2 * BAR}
    assert channels_of(path) == {"Kit": {9}, "Fretless": {0}, "Rhodes": {1}}


def test_what_a_file_can_hold_comes_back(tmp_path):
    sysex = mido.Message("sysex", data=[i % 128 for i in range(60_000)])
    keys = [(0, sysex), *meta(0, "text", text="".join(map(chr, range(256))))]
    for i in range(20_000):
        keys += control(i // 10, 1 + i % 5, i % 128)
    keys += note(2100, 60)
    tempos = [(i, mido.MetaMessage("set_tempo", tempo=400_000 + i)) for i in range(5_000)]
    piano = write(tmp_path / "piano.mid", tempos, keys, end=3 * BAR)
    bass = write(tmp_path / "bass.mid", tempos, note(0, 40), end=3 * BAR)
    path = merged(tmp_path, piano, bass)
    assert not events(piano) - events(path)
    assert not events(bass) - events(path)
    assert sum(message.type == "set_tempo" for track in mido.MidiFile(path).tracks for message in track) == 5_000


def test_maps_of_the_first_stem_that_has_one(tmp_path, capsys):
    bass = write(tmp_path / "bass.mid", note(0, 40))
    other = [*meta(0, "set_tempo", tempo=1_000_000), *meta(0, "time_signature", numerator=2, denominator=2),
             *meta(0, "key_signature", key="D"), *meta(0, "marker", text="mine")]
    piano = write(tmp_path / "piano.mid", other, note(0, 60))
    drums = write(tmp_path / "drums.mid", HEAD, note(0, 36))
    found = events(merged(tmp_path, bass, drums, piano))
    lines = capsys.readouterr().err
    assert not Counter((tick, bytes(message.bytes())) for tick, message in HEAD) - found
    assert f"{piano}: its tempo 60 is left out, the song's is 100, then 120\n" in lines
    assert f"{piano}: its meter 2/2 is left out, the song's is 4/4\n" in lines
    assert f"{piano}: its key D major is left out, the song's is E minor\n" in lines
    assert found[0, bytes(other[3][1].bytes())] == 1  # markers are no map: those of all stems stay


def test_tempo_in_place_of_all_maps(tmp_path, capsys):
    song = read_song(merged(tmp_path, *played(tmp_path), options=["--tempo", "90"]))
    assert song.tempos == ((0, 90.0),)
    lines = capsys.readouterr().err
    assert "left out" not in lines
    assert "no tempo" not in lines


def test_no_tempo_is_said(tmp_path, capsys):
    merged(tmp_path, write(tmp_path / "bass.mid", note(0, 40)))
    assert "merged.mid: names no tempo: plays at 120 BPM; --tempo sets another\n" in capsys.readouterr().err


def test_a_reset_is_written_once_before_all_programs(tmp_path):
    program = (0, mido.Message("program_change", program=7))
    stems = [write(tmp_path / f"{name}.mid", [(0, GM_ON)], [program, *note(0, 60)])
             for name in ("drums", "bass", "keys")]
    first, *others = mido.MidiFile(merged(tmp_path, *stems)).tracks
    assert [message.type for message in first].count("sysex") == 1
    assert not any(message.type == "sysex" for track in others for message in track)


# ---------------------------------------------------------------- channels


def test_no_stem_gets_a_channel_that_is_set_up_for_drums(tmp_path):
    checked = (0x41, 0x10, 0x42, 0x12, 0x40, 0x11, 0x15, 1, 0x19)  # GS: the first channel plays drums
    kit = write(tmp_path / "kit.mid", [(0, mido.Message("sysex", data=checked))], note(0, 36))
    path = merged(tmp_path, kit, write(tmp_path / "bass.mid", note(0, 40)))
    assert channels_of(path) == {"drums": {9}, "bass": {1}}


def test_melodic_stems_leave_the_channel_of_drums(tmp_path):
    stems = [write(tmp_path / f"{name}.mid", note(0, 60, channel=9)) for name in ("bass", "piano")]
    assert channels_of(merged(tmp_path, *stems)) == {"bass": {0}, "piano": {1}}


def test_the_channels_of_a_track_become_tracks(tmp_path):
    hands = [*meta(0, "track_name", name="Two hands"), *note(0, 40, channel=0), *note(200, 60, channel=1)]
    path = merged(tmp_path, write(tmp_path / "piano.mid", hands))
    plays = [track for track in read_song(path).tracks if len(track.notes)]
    assert [(track.name, track.shares_name) for track in plays] == [("piano", False)] * 2


def test_more_voices_than_channels_share(tmp_path, capsys):
    stems = [write(tmp_path / f"piano {i}.mid", note(0, 40 + i)) for i in range(17)]
    path = merged(tmp_path, *stems)
    assert read_song(path).n_notes == 17
    assert f"{stems[15]}: no channel is left for its channel 1: it shares channel 1" in capsys.readouterr().err


def test_controllers_of_silent_channels_disturb_no_player(tmp_path):
    resets = [message for channel in range(16) for message in control(0, 7, channel, channel)]
    bass = write(tmp_path / "bass.mid", resets, note(0, 40))
    piano = write(tmp_path / "piano.mid", note(0, 60))
    path = merged(tmp_path, bass, piano)
    assert channels_of(path) == {"bass": {0}, "piano": {1}}
    volumes = [message for track in mido.MidiFile(path).tracks for message in track if message.type == "control_change"]
    assert len(volumes) == 16
    assert [message.value for message in volumes if message.channel == 0] == [0]
    assert not any(message.channel == 1 for message in volumes)


def test_drums_that_change_each_others_sound_are_told(tmp_path, capsys):
    kick = write(tmp_path / "kick.mid", [*control(0, 7, 50), *note(0, 36)])
    snare = write(tmp_path / "snare.mid", [*control(0, 7, 90), *note(0, 38)])
    merged(tmp_path, kick, snare)
    assert f"{kick} and {snare}: all drums play on channel 10" in capsys.readouterr().err


# ---------------------------------------------------------------- names


def test_names_that_do_not_tell_the_part_become_instruments(tmp_path):
    strings = [*meta(0, "track_name", name="Strings"), (0, mido.Message("program_change", program=48)), *note(0, 60)]
    bass = [*meta(0, "track_name", name="piano"), *note(0, 40)]
    path = merged(tmp_path, write(tmp_path / "keys.mid", strings), write(tmp_path / "bass.mid", bass))
    song = read_song(path)
    casting = assign_parts(song, VOCABULARY)
    assert {name: [song.tracks[i].notes[0, 2] for i in found] for name, found in casting.tracks.items()} == {
        "drums": [], "bass": [40], "piano": [60]}
    tracks = mido.MidiFile(path).tracks
    assert [message.name for track in tracks for message in track if message.type == "instrument_name"] == [
        "piano", "Strings"]


@pytest.mark.parametrize(("file", "options", "track"), [
    ("Bass Drum", [], "drums"), ("RHODES", [], "piano"), ("mybass", [], "bass"),
    ("808", ["--part", "Kit=808.mid"], "drums"), ("lead", ["--part", "keys=*LEAD*"], "piano"),
    ("bass", ["--part", "piano=bass"], "piano")])
def test_part_of_a_stem(tmp_path, file, options, track):
    path = merged(tmp_path, write(tmp_path / f"{file}.mid", note(0, 40)), options=options)
    assert set(channels_of(path)) == {track}


@pytest.mark.parametrize(("file", "options", "message"), [
    ("808", [], "holds drums and bass; choose with --part PART=808.mid"),
    ("my bassoon", [], 'no part\'s name; choose with --part PART="my bassoon.mid"'),
    ("bass", ["--part", "flute=bass"], "PART one of drums, bass, piano"),
    ("bass", ["--part", "keys"], "must be PART=STEM"),
    ("bass", ["--part", "keys=lead"], "no stem has this name; they are bass.mid"),
    ("bass", ["--part", "keys=bass", "--part", "kit=bass"], "has another part already"),
    ("bass", ["--tempo", "0"], "--tempo: tempo must be a number")])
def test_part_that_is_not_clear_is_refused(tmp_path, capsys, file, options, message):
    stem = write(tmp_path / f"{file}.mid", note(0, 40))
    assert merge_midi.main([str(tmp_path / "out"), str(stem), *options]) == EXIT_USER_ERROR
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_quiet_says_nothing(tmp_path, capsys):
    merged(tmp_path, *played(tmp_path), options=["--quiet"])
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------- how long


@pytest.mark.parametrize(("last", "end", "bars"), [
    (0, 4 * BAR, 4), (0, 4 * BAR + 1, 4), (2 * BAR - 50, 2 * BAR, 2), (2 * BAR, 2 * BAR, 3), (2 * BAR + 1, 0, 3)],
    ids=["silent bars", "a tick late", "just before the end", "on the line", "ends early"])
def test_a_song_is_whole_bars(tmp_path, last, end, bars):
    length = 100 if last >= 2 * BAR else 40
    drums = write(tmp_path / "drums.mid", [*note(0, 36), *note(max(last, 200), 36, length=length)], end=end)
    bass = write(tmp_path / "bass.mid", note(0, 40), end=BAR // 2)
    assert ends(merged(tmp_path, drums, bass)) == {bars * BAR}


PICKUP = [*meta(0, "time_signature", numerator=1, denominator=4),
          *meta(480, "time_signature", numerator=4, denominator=4)]


def test_a_pickup_stays(tmp_path, capsys):
    piano = write(tmp_path / "piano.mid", PICKUP, [*note(0, 60), *note(480, 62)], end=480 + BAR)
    bass = write(tmp_path / "bass.mid", note(480, 40), end=480 + BAR + 1)  # names no meter
    assert ends(merged(tmp_path, piano, bass)) == {480 + BAR}
    assert "pickups" not in capsys.readouterr().err
    whole = meta(0, "time_signature", numerator=4, denominator=4)
    drums = write(tmp_path / "drums.mid", whole, note(0, 36), end=BAR)
    merged(tmp_path, piano, drums)
    lines = capsys.readouterr().err
    assert f"{drums}: its meter 4/4 is left out, the song's is 1/4, then 4/4\n" in lines
    assert f"the stems' pickups differ, in quarters ({piano}: 1; {drums}: 0)" in lines


def test_other_meters_beside_four_quarters_stay(tmp_path, capsys):
    head = [*meta(0, "time_signature", numerator=4, denominator=4),
            *meta(2 * BAR, "time_signature", numerator=3, denominator=4)]
    stem = write(tmp_path / "piano.mid", head, [*note(0, 60), *note(2 * BAR, 62)], end=2 * BAR + 1440)
    path = merged(tmp_path, stem)
    assert ends(path) == {2 * BAR + 1440}
    assert not events(stem) - events(path)
    assert "has bars in 3/4, which are kept, but not heard by the model" in capsys.readouterr().err

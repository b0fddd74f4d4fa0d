"""The page in Chromium and Firefox: it loads, plays what the MIDI says, and keeps what one marks.

Each test runs in both: in Chromium with `make test`, in Firefox with `make slow`, as they wait for music to play. Where
one is not installed, its tests are skipped. A machine without a sound card is no
obstacle to Chromium. Firefox then lets no audio clock run, so it gets one that runs on the computer's.
"""

from __future__ import annotations

import itertools
import json
import shutil

import mido
import numpy as np
import pytest
from browsers import Browser, browser
from commands import succeeds
from pages import V, notes_by_pretty_midi, notes_of_rows, write_idea
from random_songs import random_song

import page
from backline.generation.recipes import read_originals
from backline.generation.wish import Wish
from backline.listening.notebook_player import player
from backline.listening.votes import read_votes
from backline.music.song import TICKS_PER_QUARTER
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, START_POS

# Instead of a download, which would end up in somebody's folder: the file's name and text in `window.saved`.
CATCH_FILES = """(URL.createObjectURL = (blob) => { window.blob = blob; return "#"; }, window.saved = 0,
  HTMLAnchorElement.prototype.click = function () { saved = blob.text().then((text) => [this.download, text]); }, 0)"""
PEAK_OF_ALL = """(async () => (await render(page.player, page.ideas[0], 6))
  .reduce((most, x) => Math.max(most, Math.abs(x)), 0))()"""
FAST = 240  # beats per minute
STEPS = V.steps_per_quarter


@pytest.fixture(scope="module", params=["chromium", pytest.param("firefox", marks=pytest.mark.slow)])
def tab(request, tmp_path_factory):
    """A browser that stays open for all tests of this module."""
    with browser(request.param, tmp_path_factory.mktemp(request.param)) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three songs and their page."""
    made = tmp_path_factory.mktemp("songs")
    for number in range(3):
        write_idea(made, number, within_bars(random_song(number, 60, 4), 4))
    succeeds(page.main, [made])
    return made


def within_bars(rows: np.ndarray, n_bars: int) -> np.ndarray:
    """The rows without a note that rings on past these bars: so many the song lasts."""
    onset = (rows[:, BAR] - FIRST_ID) * V.steps_per_bar + rows[:, START_POS] - FIRST_ID
    most = n_bars * V.steps_per_bar - onset
    rows[:, NOTE_DUR] = np.minimum(rows[:, NOTE_DUR], FIRST_ID + most - 1)
    return rows


@pytest.fixture
def shown(tab, folder) -> Browser:
    return opened(tab, folder / "index.html")


def opened(tab: Browser, path) -> Browser:
    tab.errors.clear()
    tab.open(path)
    tab.stand_in_clock()
    tab.js("localStorage.clear()")
    tab.resize(1280, 900)
    return tab


def struck(path, until: float, start: float = 0.0) -> list[tuple[int, float, int]]:
    """(part, onset, pitch) of the notes in a file, onsets in beats."""
    notes = notes_by_pretty_midi(path)
    return sorted((part, onset, pitch) for part, onset, _, pitch in notes if start <= onset < until)


# ---------------------------------------------------------------- loading


@pytest.mark.parametrize("n", [1, 3, 50])
def test_it_loads_without_errors_and_draws_what_is_in_sight(tab, tmp_path, n):
    song = write_idea(tmp_path, 0, random_song(0, 400, 16))
    for number in range(1, n):
        shutil.copy(song, tmp_path / f"{number}.mid")
    succeeds(page.main, [tmp_path])
    opened(tab, tmp_path / "index.html")
    assert tab.js("[...document.querySelectorAll('h2')].map(e => e.textContent)") == [f"Idea {i + 1}" for i in range(n)]
    sheets = "page.cards.map(c => c.roll).filter(r => r.visible && r.canvas.width === r.sheet.clientWidth)"
    tab.wait(f"{sheets}.length >= {min(n, 2)}")
    assert tab.js(f"{sheets}.length") <= min(n, 9)
    assert tab.js("performance.getEntriesByType('navigation')[0].domComplete") < 5000  # milliseconds
    assert tab.errors == []


def test_the_longest_song_is_drawn_scrolled_and_played(tab, tmp_path):
    path = write_idea(tmp_path, 0, random_song(0, 20_000, 256))
    succeeds(page.main, [tmp_path])
    opened(tab, tmp_path / "index.html")
    tab.wait("page.cards[0].roll.canvas.width > 10_000")
    tab.js("page.player.setTempo(240)")
    tab.js("page.player.seek(1000)")  # near the end: 256 bars are 1024 beats
    tab.press("space")
    tab.wait("page.player.position() > 1004")
    until, notes = tab.js("[page.player.until, page.player.scheduled.filter(n => n.onset >= 1000)]")
    there = {(part, round(STEPS * onset), pitch) for part, onset, pitch in struck(path, until + 1, 1000)}
    assert {(n["part"], STEPS * n["onset"], n["pitch"]) for n in notes} == {n for n in there if n[1] < STEPS * until}
    assert tab.js("page.cards[0].roll.sheet.parentElement.scrollLeft") > 1000  # the cursor stays in sight
    tab.press("space")
    assert tab.errors == []


def test_notes_are_painted_where_they_sound(shown):
    """The canvas has a part's color in the middle of each of its notes."""
    misses = shown.js("""(() => {
      const { roll, idea } = page.cards[0], pen = roll.canvas.getContext("2d"), missed = [];
      const ground = getComputedStyle(document.documentElement).getPropertyValue("--lane");
      for (const { part, onset, pitch } of idea.notes) {
        const lane = roll.lanes.find((one) => one.part === part);
        const y = lane.top + lane.height - (lane.rows.get(pitch) + 0.5) * lane.rowHeight
          - (lane.height - lane.rows.size * lane.rowHeight) / 2;
        const pixel = [...pen.getImageData(onset * roll.beatWidth + 1.5, y, 1, 1).data].slice(0, 3);
        if (Math.max(...pixel) - Math.min(...pixel) < 40) missed.push([part, onset, pitch, ...pixel]);
      }
      return missed; })()""")
    assert misses == []


def test_play_begins_a_bar_before_what_is_new(tab, tmp_path):
    write_idea(tmp_path, 0, within_bars(random_song(0, 60, 4), 4))
    write_idea(tmp_path, 1, within_bars(random_song(1, 60, 4), 4), wish=Wish(fill=(3, 4)), prompt="gone.mid")
    succeeds(page.main, [tmp_path])
    opened(tab, tmp_path / "index.html")
    tab.js("(page.cards[1].toggle(), 0)")
    tab.wait("page.player.scheduled.length")
    assert tab.js("page.player.idea.fresh") == [[8, 16]]
    assert tab.js("page.player.position()") >= 4
    tab.js("page.player.stop()")


def test_the_mouse_reads_notes_by_name(shown):
    """At the middle of a note stands its pitch, of drums the piece, and how loud it is."""
    said = shown.js("""(() => {
      const { roll, idea } = page.cards[0];
      return idea.notes.filter((note) => note.drum || note.end - note.onset > 0.2).map((note) => {
        const lane = roll.lanes.find((one) => one.index === note.lane);
        const y = lane.top + lane.height - (lane.rows.get(note.pitch) + 0.5) * lane.rowHeight
          - (lane.height - lane.rows.size * lane.rowHeight) / 2;
        const found = roll.noteAt(note.onset + 0.01, y);
        return [note.pitch, found && found.pitch, pitchName(note), note.drum]; }); })()""")
    assert said and all(pitch == found for pitch, found, *_ in said)
    names = {(pitch, drum): name for pitch, _, name, drum in said}
    for (pitch, drum), name in names.items():
        if not drum:
            assert name[-1] == str(pitch // 12 - 1) and (name[0] in "CDEFGAB")
    assert shown.js("[pitchName({pitch: 60}), pitchName({pitch: 36, drum: true})]") == ["C4", "kick"]


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_it_fits_the_screen_and_fingers(shown, width):
    shown.resize(width, 844)
    shown.wait(f"page.cards[0].roll.root.clientWidth < {width}")
    assert shown.js("document.documentElement.scrollWidth <= innerWidth")
    small = "[...document.querySelectorAll('.icon, .part button')].filter(e => e.offsetParent && e.offsetHeight < 40)"
    assert shown.js(f"{small}.length") == 0
    if width == 390:  # a phone: what is seldom touched is behind a button
        assert shown.js("document.getElementById('dock').offsetHeight") <= 844 / 8
        assert not shown.js("document.querySelector('.level').offsetParent")
        shown.click(".mixer")
        assert shown.js("document.documentElement.scrollWidth <= innerWidth")
    controls = "[...document.querySelectorAll('#dock input, #dock button')]"
    assert shown.js(f"{controls}.every(e => e.matches('.mixer') || e.offsetParent)")


def test_everything_that_can_be_operated_has_a_name(shown):
    nameless = """[...document.querySelectorAll("button, a, input, [role=slider]")].filter((e) => !(
      e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.[0]?.textContent)).map((e) => e.className)"""
    assert shown.js(nameless) == []


# ---------------------------------------------------------------- playing


def test_playing_moves_the_cursor_and_schedules_the_notes_of_the_midi(shown, folder):
    shown.js("page.player.setTempo(240)")
    shown.press("space")
    shown.wait("page.player.position() > 6")
    until, notes = shown.js("[page.player.until, page.player.scheduled]")
    assert sorted((n["part"], round(n["onset"], 4), n["pitch"]) for n in notes) == struck(folder / "0.mid", until)
    starts = {round(n["time"] - n["onset"] * 60 / FAST, 6) for n in notes}
    assert len(starts) == 1  # all on one grid, to the microsecond
    long = {(p, onset, pitch): end - onset for p, onset, end, pitch in notes_by_pretty_midi(folder / "0.mid")}
    for n in notes:
        assert n["seconds"] * FAST / 60 == pytest.approx(long[n["part"], round(n["onset"], 4), n["pitch"]], abs=1e-3)
    moved = "new DOMMatrix(getComputedStyle(page.cards[0].roll.cursor).transform).e / page.cards[0].roll.beatWidth"
    assert shown.js(moved) > 5
    shown.press("space")
    place = shown.js("page.player.position()")
    assert not shown.js("page.player.playing") and shown.js("page.player.position()") == place > 6
    assert shown.errors == []


def test_it_stops_at_the_end_and_goes_back(shown):
    shown.js("page.player.setTempo(240)")
    n_beats = 4 * shown.js("page.player.idea.bars")
    shown.js(f"page.player.seek({n_beats - 2})")
    shown.press("space")
    shown.wait("!page.player.playing")
    assert shown.js("[page.player.position(), page.player.until]") == [0, n_beats]


def test_a_loop_goes_on_without_a_gap(tab, tmp_path):
    path = write_idea(tmp_path, 0, within_bars(random_song(1, 20, 1), 1))
    succeeds(page.main, [tmp_path])
    opened(tab, tmp_path / "index.html")
    tab.js("page.player.setTempo(240)")
    tab.click("[aria-label=Loop]")
    tab.press("space")
    one_pass = len(struck(path, 4))
    tab.wait(f"page.player.scheduled.length >= {3 * one_pass}")
    notes = tab.js("page.player.scheduled")
    for first, second in zip(notes, notes[one_pass:2 * one_pass], strict=False):
        assert (first["part"], first["pitch"], first["onset"]) == (second["part"], second["pitch"], second["onset"])
        assert second["time"] - first["time"] == pytest.approx(4 * 60 / FAST, abs=1e-6)
    tab.press("space")


def test_bars_that_are_dragged_over_are_heard_again_and_again(shown):
    x, y, bar = shown.js("""(() => { const { roll } = page.cards[1], box = roll.sheet.getBoundingClientRect();
      return [box.x, box.y + roll.top + 5, 4 * roll.beatWidth]; })()""")
    shown.drag((x + 1.3 * bar, y), (x + 2.6 * bar, y + 20))
    assert shown.js("[page.player.idea.title, page.player.region, page.player.loop]") == ["Idea 2", [4, 12], True]
    assert shown.js("page.player.position()") == 4
    lanes = shown.js("page.cards[1].roll.lanes.length")
    assert shown.js("document.querySelectorAll('.selection div').length") == lanes
    shown.js("(page.cards[0].choose(0), page.cards[1].choose(0), 0)")
    assert shown.js("page.player.region") == [4, 12], "the bars of an idea are still chosen when one comes back"
    shown.press("escape")
    assert shown.js("page.player.region") is None and not shown.js("document.querySelectorAll('.selection div').length")
    shown.js("page.player.seek(9)")
    shown.press("i", "o")
    assert shown.js("page.player.region") == [8, 12]
    assert shown.errors == []


def test_the_tempo_may_change_while_it_plays(shown, folder):
    shown.press("space")
    shown.wait("page.player.position() > 0.5")
    for tempo in (200, 90, 240):
        shown.js(f"page.player.setTempo({tempo})")
    shown.wait("page.player.position() > 6")
    until, notes = shown.js("[page.player.until, page.player.scheduled]")
    assert sorted((n["part"], round(n["onset"], 4), n["pitch"]) for n in notes) == struck(folder / "0.mid", until)
    assert [n["time"] for n in notes] == sorted(n["time"] for n in notes)
    late = [n for n in notes if n["onset"] > 3]
    assert (late[-1]["time"] - late[0]["time"]) * FAST / 60 == pytest.approx(late[-1]["onset"] - late[0]["onset"])
    shown.press("space")


def test_seeking_by_click_and_keys(shown, folder):
    shown.click(".sheet")  # its middle
    middle = 2 * shown.js("page.player.idea.bars")
    assert shown.js("page.player.position()") == pytest.approx(middle, abs=0.05)
    for key, beat in (("right", middle + 4), ("left", middle), ("left", middle - 4), ("home", 0), ("left", 0)):
        shown.press(key)
        assert shown.js("page.player.position()") == beat
    shown.press("right")
    shown.js("page.player.setTempo(240)")
    shown.press("space")
    shown.wait("page.player.position() > 6")
    until, notes = shown.js("[page.player.until, page.player.scheduled]")
    heard = sorted((n["part"], round(n["onset"], 4), n["pitch"]) for n in notes if n["onset"] >= 4)
    assert heard == struck(folder / "0.mid", until, start=4)
    assert shown.js("document.querySelector('.sheet').getAttribute('aria-valuetext')").startswith("bar 2, beat ")
    shown.press("down")  # the next idea plays on
    assert shown.js("[page.player.idea.title, page.player.playing]") == ["Idea 2", True]
    shown.press("space", "up")
    assert shown.js("[page.player.idea.title, page.player.playing]") == ["Idea 1", False]


# ---------------------------------------------------------------- in a notebook

# As strict as editors that show notebooks may be: nothing is loaded from anywhere.
STRICT = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline';
  style-src 'unsafe-inline'; img-src data:">"""


@pytest.mark.parametrize("policy", ["", STRICT])
def test_a_player_inside_another_page_plays_and_reaches_nothing_around_it(tab, tmp_path, monkeypatch, policy):
    rows = random_song(5, 60, 4)
    cell = player({"One": rows, "Two": random_song(6, 60, 4)}, V)._repr_html_()
    (tmp_path / "cell.html").write_text(f"<!doctype html>{policy}<h1>A notebook</h1>{cell}", encoding="utf-8")
    opened(tab, tmp_path / "cell.html")
    (frame,) = tab.send("browsingContext.getTree", root=tab.context)["contexts"][0]["children"]
    monkeypatch.setattr(tab, "context", frame["context"])
    tab.stand_in_clock()
    tab.wait("page.cards[0].roll.canvas.width === page.cards[0].roll.sheet.clientWidth")
    assert tab.js("[...document.querySelectorAll('h2')].map(e => e.textContent)") == ["One", "Two"]
    assert tab.js("document.querySelectorAll('.star, .file, .note, .recipe, .actions button').length") == 0
    tab.click(".dock .play")
    tab.wait("page.player.position() > 2")
    until, notes = tab.js("[page.player.until, page.player.scheduled]")
    expected = [(part, onset / TICKS_PER_QUARTER, pitch) for part, onset, _, pitch in notes_of_rows(rows)]
    assert sorted((n["part"], n["onset"], n["pitch"]) for n in notes) == sorted(n for n in expected if n[1] < until)
    for beyond in ("parent.document", "localStorage"):
        assert tab.js(f"(() => {{ try {{ return !{beyond}; }} catch (error) {{ return error.name; }} }})()") == \
            "SecurityError"
    assert tab.errors == []


# ---------------------------------------------------------------- sound

PEAK = "render(page.player, page.ideas[0], 4).then((samples) => samples.reduce((a, b) => Math.max(a, Math.abs(b)), 0))"


def test_mutes_silence_and_solos_win(shown):
    everything = shown.js(PEAK)
    assert 0.1 < everything < 1.2
    shown.press("1", "2")
    assert shown.js("page.player.gains()") == [0, 0, 1]
    assert 0 < shown.js(PEAK) < everything
    shown.press("3")
    assert shown.js(PEAK) == 0
    shown.click("[aria-label='Solo bass']")
    assert shown.js("page.player.gains()") == [0, 1, 0] and shown.js(PEAK) > 0.01
    shown.click("[aria-label='Solo bass']")
    shown.press("1", "2", "3")
    assert shown.js(PEAK) == pytest.approx(everything)
    assert shown.js("[...document.querySelectorAll('.mute')].map(e => e.getAttribute('aria-pressed'))") == ["false"] * 3


def test_each_part_has_a_volume(shown):
    shown.press("1", "3")
    alone = shown.js(PEAK)
    shown.js("""(() => { const level = document.querySelector("[aria-label='Volume of bass']");
      level.value = 0.25; level.dispatchEvent(new Event("input")); })()""")
    assert shown.js("page.player.gains()") == [0, 0.25, 0]
    assert 0 < shown.js(PEAK) < 0.6 * alone
    shown.press("2", "2")
    assert shown.js("page.player.gains()") == [0, 0.25, 0], "a mute keeps the volume"
    shown.js("page.player.setLevel(1, 0)")
    assert shown.js(PEAK) == 0
    shown.js("page.player.setLevel(1, 1)")
    shown.press("1", "3")


def test_a_mute_is_heard_while_it_plays(shown):
    shown.press("space")
    shown.wait("page.player.position() > 0.2")
    shown.press("1")
    assert shown.js("page.player.gains()") == [0, 1, 1]
    if shown.name == "chromium":  # whose audio really runs
        shown.wait("page.player.desk.faders[0].gain.value < 0.001")
        assert shown.js("page.player.desk.faders[1].gain.value") == 1
    shown.press("space", "1")


@pytest.mark.parametrize(("drum", "low", "high"), [(36, 30, 200), (38, 150, 8000), (42, 5000, 11000)])
def test_drums_sound_like_what_they_are(shown, drum, low, high):
    """The middle of the spectrum of a kick, a snare and a hat, in hertz."""
    middle = shown.js(f"""(async () => {{
      const player = {{ gains: () => [1, 0, 0], speed: () => 1, volume: 1 }};
      const note = {{ part: 0, instrument: drums, velocity: 100, pitch: {drum}, onset: 0, fade: 0.1 }};
      const idea = {{ time: new TimeLine([[0, 120]]), notes: [note] }};
      const samples = (await render(player, idea, 0.2)).slice(0, 2048), power = [];
      for (let k = 1; k < 1024; k++) {{
        const turn = 2 * Math.PI * k / 2048;
        let re = 0, im = 0;
        samples.forEach((x, i) => {{ re += x * Math.cos(turn * i); im += x * Math.sin(turn * i); }});
        power.push(re * re + im * im);
      }}
      const total = power.reduce((a, b) => a + b);
      let sum = 0, k = 0;
      while (sum < total / 2) sum += power[k++];
      return k * 22050 / 2048; }})()""")
    assert low < middle < high


# ---------------------------------------------------------------- songs of others


@pytest.fixture
def theirs(tab, tmp_path) -> Browser:
    """A song at 60, from bar 2 on at 120 beats per minute, with strings that play no part and a pedal."""
    conductor = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=1_000_000),
                                mido.MetaMessage("set_tempo", tempo=500_000, time=400)])
    tracks = [conductor]
    for channel, (name, program, velocity) in enumerate([("piano", 0, 50), ("Strings", 48, 100)]):
        tracks.append(mido.MidiTrack([
            mido.MetaMessage("track_name", name=name),
            mido.Message("program_change", channel=channel, program=program),
            mido.Message("control_change", channel=channel, control=64, value=0 if channel else 127),
            *(mido.Message(kind, channel=channel, note=60, velocity=velocity, time=time)
              for kind, time in (("note_on", 200), ("note_off", 100), ("note_on", 300), ("note_off", 100)))]))
    tracks.append(mido.MidiTrack([mido.MetaMessage("end_of_track", time=800)]))
    mido.MidiFile(tracks=tracks, ticks_per_beat=100).save(tmp_path / "0.mid")
    succeeds(page.main, [tmp_path])
    return opened(tab, tmp_path / "index.html")


def test_tempos_are_followed_and_stretched_together(theirs):
    assert "60–120\u00a0BPM" in theirs.js("page.cards[0].root.querySelector('.names p').textContent")
    theirs.js("page.player.setTempo(4 * page.ideas[0].tempo)")
    theirs.press("space")
    theirs.wait("page.player.position() > 6.5")
    piano = V.part_names.index("piano")
    notes = theirs.js(f"page.player.scheduled.filter((note) => note.part === {piano})")
    onsets = [note["onset"] for note in notes]
    assert onsets == [2, 6]
    own = (4 - 2) * 60 / 60 + 2 * 60 / 120  # seconds from the one to the other
    assert notes[1]["time"] - notes[0]["time"] == pytest.approx(own / 4)
    assert notes[0]["seconds"] == pytest.approx(own / 4)  # the pedal holds it until it is struck again
    theirs.press("space")
    assert theirs.errors == []


@pytest.mark.parametrize("beat", [0, 1.5, 4, 5, 8])
def test_beats_are_seconds_and_back(theirs, beat):
    seconds = theirs.js(f"page.ideas[0].time.seconds({beat})")
    assert seconds == pytest.approx(min(beat, 4) + max(beat - 4, 0) / 2)
    assert theirs.js(f"page.ideas[0].time.beat({seconds})") == pytest.approx(beat)


def test_a_loop_keeps_the_tempos(theirs):
    theirs.js("page.player.setTempo(16 * page.ideas[0].tempo)")
    theirs.click("[aria-label=Loop]")
    theirs.press("space")
    theirs.wait("page.player.scheduled.length >= 12")
    times = theirs.js("page.player.scheduled.filter((note) => note.onset === 2).map((note) => note.time)")
    one_pass = (4 + 2) / 16
    gaps = {round(after - before, 6) for before, after in itertools.pairwise(sorted(set(times)))}
    assert gaps == {one_pass}
    theirs.press("space")
    theirs.click("[aria-label=Loop]")


def test_tracks_that_play_no_part_are_shown_heard_and_muted(theirs):
    assert theirs.js("page.cards[0].roll.lanes.map((lane) => lane.name)") == ["piano", "Strings"]
    everything = theirs.js(PEAK_OF_ALL)
    theirs.click("[aria-label='Solo other']")
    strings = theirs.js(PEAK_OF_ALL)
    theirs.click("[aria-label='Solo other']")
    theirs.click("[aria-label='Mute other']")
    piano = theirs.js(PEAK_OF_ALL)
    assert 0 < piano < everything and 0.01 < strings < everything
    theirs.click("[aria-label='Mute other']")


def test_soft_notes_are_soft(theirs):
    def peak(velocity: int) -> float:
        """The loudest sample of one note through the page's own instruments, below the limiter."""
        return theirs.js(f"""(async () => {{
          const note = {{ part: 0, instrument: keys, velocity: {velocity}, pitch: 60, onset: 0, fade: 1 }};
          const idea = {{ time: new TimeLine([[0, 60]]), notes: [note] }};
          const samples = await render({{ gains: () => [1], speed: () => 1, volume: 0.3 }}, idea, 0.5);
          return samples.reduce((most, x) => Math.max(most, Math.abs(x)), 0); }})()""")
    assert peak(50) / peak(100) == pytest.approx(0.25, rel=0.1)


# ---------------------------------------------------------------- choosing


def test_stars_and_notes_are_kept_and_exported(shown, folder, tmp_path):
    assert shown.js("[...document.querySelectorAll('.actions button')].map(e => e.disabled)") == [True, True]
    shown.click(".card:nth-child(2) .star")
    shown.click(".card:nth-child(2) .note")
    shown.press(*"the 3 bridge")
    assert shown.js("page.player.muted.size") == 0  # typing is no shortcut
    shown.open(folder / "index.html")
    assert shown.js("document.querySelector('.card:nth-child(2) .note').value") == "the 3 bridge"
    stars = shown.js("page.stars()")
    assert [(song["file"], song["note"]) for song in stars["songs"]] == [("1.mid", "the 3 bridge")]
    shown.js(CATCH_FILES)
    shown.click(".actions button:last-child")
    name, text = shown.js("window.saved")
    assert name == "stars.json" and json.loads(text) == stars
    assert "--reproduce stars.json" in shown.js("document.getElementById('message').textContent")
    (tmp_path / name).write_text(text)
    (star,), (song,) = read_originals(tmp_path / "stars.json"), read_originals(folder / "1.mid")
    assert (star.recipe, star.hash) == (song.recipe, song.hash)
    shown.click(".actions button:first-child")  # starred ones alone
    assert shown.js("page.cards.map(card => card.root.hidden)") == [True, False, True]
    shown.click(".card:nth-child(2) .star")
    assert shown.js("page.stars().songs.length") == 0
    assert shown.js("page.cards.map(card => card.root.hidden)") == [False] * 3  # rather than an empty page


def test_links_lead_to_the_files(shown, folder):
    files = "[...document.querySelectorAll('.card:first-child .file')]"
    links = shown.js(f"{files}.map(e => [e.getAttribute('href'), e.download])")
    assert links and all(href == download and (folder / href).is_file() for href, download in links)


def test_blind_pairs_ask_and_export_votes(tab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        for number in range(2):
            write_idea(tmp_path / name, number, random_song(number + 7 * (name == "b"), 60, 4))
    succeeds(page.main, ["--blind", "a", "b", "--ask", "real"])
    opened(tab, tmp_path / "blind.html")
    seen = tab.js("document.body.innerText")
    assert "Which is the real one?" in seen and ".mid" not in seen
    tab.click(".pair:nth-child(1) [value=second]")
    tab.click(".pair:nth-child(2) [value=neither]")
    assert "2 votes of 2" in tab.js("document.body.innerText")
    tab.js(CATCH_FILES)
    tab.click(".actions button")
    name, text = tab.js("window.saved")
    assert name == "votes.csv" and text == tab.js("page.votes()")
    (tmp_path / name).write_text(text)
    votes = read_votes(tmp_path / "votes.csv")
    assert [(vote.question, vote.answer, set(vote.folders)) for vote in votes] == [
        ("real", "second", {"a", "b"}), ("real", "neither", {"a", "b"})]
    assert [(vote.first, vote.second) for vote in votes] == [
        tuple(pair) for pair in tab.js("[0, 2].map(i => [page.ideas[i].file, page.ideas[i + 1].file])")]
    tab.press("space")
    tab.wait("page.player.position() > 0.2")
    assert tab.errors == []


# ---------------------------------------------------------------- clocks that stand still, and too many voices

# A context whose clock can be stopped, as Safari's is after a switch of tabs, while it says that it runs.
STOPPABLE = """(window.made = [], window.AudioContext = class extends AudioContext {
  constructor(options) { super(options); made.push(this); }
  get currentTime() { return this.stopped ?? super.currentTime; }
}, 0)"""


def test_a_clock_that_stands_still_is_replaced_and_the_song_goes_on(shown):
    if shown.name != "chromium":
        pytest.skip("its clock is one of this test file")
    shown.js(STOPPABLE)
    shown.js("page.player.setTempo(60)")
    shown.press("space")
    shown.wait("page.player.position() > 0.3")
    beat = shown.js("(made[0].stopped = made[0].currentTime, page.player.position())")
    shown.wait("made.length === 2 && page.player.position() > 1")
    assert shown.js("[page.player.playing, page.player.audio === made[1], made[0].state]") == [True, True, "closed"]
    assert shown.js("page.player.marks[0].beat") == pytest.approx(beat, abs=0.5)
    shown.press("space")
    assert shown.errors == []


def test_where_no_clock_runs_it_stops_and_says_so(shown):
    if shown.name != "chromium":
        pytest.skip("its clock is one of this test file")
    shown.js(STOPPABLE)
    shown.js("(window.silent = 0, page.player.onSilence = () => { silent += 1; }, 0)")
    shown.press("space")
    shown.wait("page.player.position() > 0.1")
    shown.js("(made[0].stopped = made[0].currentTime, 0)")
    shown.js("(setInterval(() => made.forEach((a) => { a.stopped ??= 0; }), 5), 0)")
    shown.wait("silent === 1 && !page.player.playing")
    assert shown.js("made.length") == 2
    assert shown.errors == []


def test_the_oldest_of_too_many_voices_makes_room(shown):
    shown.press("space")
    shown.wait("page.player.desk !== null && page.player.marks.length > 0")
    found = shown.js("""(() => {
      const player = page.player, now = player.audio.currentTime;
      player.voices = [];
      const given = [...Array(100)].map((_, i) => player.voice({ part: 0, velocity: 100 }, now + 0.001 * i, 9));
      const kept = player.voices.map((voice) => voice.gain);
      player.voice({ part: 0, velocity: 100 }, now + 20, 1);  // all others have ended
      return [kept.length, kept[0] === given[36], kept[63] === given[99], player.voices.length];
    })()""")
    assert found == [64, True, True, 1]
    shown.press("space")
    assert shown.errors == []


# ---------------------------------------------------------------- into a MIDI port

# Browsers without a window have no ports: one that remembers what it is sent stands in.
PORT = """(window.sent = [], navigator.requestMIDIAccess = async () => ({ outputs: new Map([["a", {
  id: "a", name: "A synth", send: (message, at = performance.now()) => sent.push([...message, at]) }]]) }), 0)"""
CHOOSE = """((value) => { const port = document.querySelector(".port"); port.value = value;
  port.dispatchEvent(new Event("change")); })"""
NOTE_ON, NOTE_OFF, PROGRAM = 0x90, 0x80, 0xC0


def test_a_midi_port_gets_the_notes_in_time_and_no_note_hangs(shown, folder):
    shown.js("""("requestMIDIAccess" in navigator)""") or pytest.skip("this browser has no Web MIDI")
    shown.js(PORT)
    shown.js("page.player.setTempo(240)")
    shown.js(f"{CHOOSE}('ask')")
    shown.wait("page.player.port !== null")
    assert shown.js("document.querySelector('.port').selectedOptions[0].textContent") == "A synth"
    shown.press("space")
    shown.wait("page.player.position() > 6")
    until, notes = shown.js("[page.player.until, page.player.scheduled]")
    shown.press("space")
    sent = shown.js("sent")
    programs = [message[:2] for message in sent if message[0] & 0xF0 == PROGRAM]
    messages = [message for message in sent if message[0] & 0xF0 != PROGRAM]
    assert programs == [[PROGRAM, V.parts[1].program], [PROGRAM | 1, 0]]
    on = [message for message in messages if message[0] & 0xF0 == NOTE_ON]
    channels = {9: 0, 0: 1, 1: 2}  # of the channel, its part
    found = sorted((channels[status & 15], pitch) for status, pitch, _, _ in on)
    assert found == sorted((part, pitch) for part, _, pitch in struck(folder / "0.mid", until))
    leads = [at / 1000 - note["time"] for (_, _, _, at), note in zip(on, notes, strict=True)]
    half = len(leads) // 2  # by then it is known how the clocks lie
    assert max(leads[half:]) - min(leads[half:]) < 0.02, "notes are as far apart as on the page"
    stopped = max(at for *_, at in on)
    for status, pitch, _, at in on:  # each ends, and soon after the stop where it was sent ahead
        ends = [end for off, same, _, end in messages if off == NOTE_OFF | status & 15 and same == pitch and end > at]
        assert min(ends) <= stopped + 300
    by_sound: dict[tuple[int, int], list[tuple[float, bool]]] = {}
    for status, pitch, _, at in messages:
        by_sound.setdefault((status & 15, pitch), []).append((at, status & 0xF0 == NOTE_ON))
    for sound, events in by_sound.items():
        kinds = [is_on for _, is_on in sorted(events)]
        assert kinds == [True, False] * (len(kinds) // 2), f"{sound}: no note ends the next of its pitch"
    shown.js(f"{CHOOSE}('')")
    assert shown.js("page.player.port") is None
    assert shown.errors == []


def test_where_no_midi_port_is_the_page_says_what_to_do(shown):
    shown.js("""("requestMIDIAccess" in navigator)""") or pytest.skip("this browser has no Web MIDI")
    shown.js("(navigator.requestMIDIAccess = async () => { throw new Error('no'); }, 0)")
    shown.js(f"{CHOOSE}('ask')")
    shown.wait("document.getElementById('message').textContent.startsWith('No MIDI port')")
    assert shown.js("page.player.port") is None

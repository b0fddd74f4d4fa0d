"""The studio over HTTP: songs are asked for, watched, edited, undone, stopped and lost by nobody."""

from __future__ import annotations

import base64
import errno
import io
import json
import random
import threading
import zipfile

import mido
import pytest
from pages import notes_of_idea
from playing import song_file
from studios import serving

import generate
from backline.common.files import file_hash
from backline.generation.recipes import read_recipe
from backline.generation.session import LoadedModel
from backline.studio import jobs


@pytest.fixture(scope="module")
def loaded(given_path):
    return LoadedModel(given_path)


@pytest.fixture
def served(loaded, tmp_path):
    with serving(tmp_path / "ideas", loaded) as opened:
        opened.enter()
        yield opened


@pytest.fixture
def song(served, tmp_path):
    """The id of a song in the folder."""
    song_file(served.studio.folder.folder / "0.mid")
    return served.ideas()[0]["id"]


def drop(served, *files, players=None):
    data = [{"name": name, "data": base64.b64encode(content).decode(), **more} for name, content, more in files]
    return served.post("/api/given", {"files": data, "players": players or {}})


def test_notes_are_told_as_they_come_and_are_those_of_the_song(served):
    told = {}
    with served.events() as events:
        answer = served.post("/api/ask", {"bars": 4, "n": 3, "seed": 1}).json()
        assert "--seed 1" in answer["command"]
        for event in events:
            if event["type"] == "notes":
                for place, *row in event["notes"]:
                    told.setdefault(place, []).append(tuple(row))
            if event["type"] == "job" and event["job"]["state"] == "done":
                hashes = event["job"]["songs"]
                break
    ideas = {idea["hash"]: idea for idea in served.ideas()}
    assert len(hashes) == 3
    for place, hash_ in enumerate(hashes):
        assert sorted(told[place]) == notes_of_idea(ideas[hash_])
    folder = served.studio.folder.folder
    assert [read_recipe(folder / f"{number}.mid").seed for number in range(3)] == [1, 2, 3]
    assert (folder / "genconfigs.txt").exists()


def test_songs_are_those_of_generate_and_are_made_again(served, given_path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    job = served.ask(bars=2, seed=5)
    assert generate.main(["--reproduce", "ideas/0.mid", "-o", "again", "-mp", str(given_path)]) == 0
    assert "the same bytes" in capsys.readouterr().out
    assert file_hash(tmp_path / "again/0.mid") == job["songs"][0]


def test_choose_for_me_draws_several_and_says_why(served):
    job = served.ask(bars=2, best_of=4, n=1, seed=3)
    assert job["state"] == "done" and len(job["songs"]) == 1 and job["n_drawn"] > 4
    idea = served.ideas()[0]
    assert any("score" in line for line in idea["said"]), idea["said"]


def test_bars_again_keep_the_rest_and_know_their_parent(served, song):
    served.ask(prompt=song, fill="2-3", make="drums", seed=1)
    old, new = served.ideas()
    assert new["parents"] == [old["hash"]]
    bar = 4 * old["ticks_per_quarter"]
    before, after = (notes_of_idea(idea) for idea in (old, new))
    assert [note for note in before if note[0] or not bar <= note[1] < 3 * bar] \
        == [note for note in after if note[0] or not bar <= note[1] < 3 * bar]
    assert before != after


def test_edits_make_ideas_that_can_be_undone(served, song):
    edits = [{"operation": "move", "first": 1, "last": 2, "parts": ["bass"], "semitones": 12},
             {"operation": "tempo", "tempo": 90}, {"operation": "trim", "first": 2, "last": 3}]
    for edit in edits:
        answer = served.post(f"/api/ideas/{song}/edit", edit)
        assert answer.status_code == 201, answer.text
        assert answer.json()["parents"] == [served.ideas()[0]["hash"]]
    answer = served.post(f"/api/ideas/{song}/edit", {"operation": "take", "part": "piano", "into": answer.json()["id"]})
    assert len(answer.json()["parents"]) == 2
    made = [idea["id"] for idea in served.ideas()]
    assert len(made) == 5
    assert served.post(f"/api/ideas/{song}/edit", edits[0]).json()["id"] in made, "the same again is there already"
    assert len(served.ideas()) == 5
    for left in (4, 3, 2, 1):
        assert served.post("/api/undo").status_code == 200
        assert len(served.ideas()) == left
    assert served.post("/api/undo").status_code == 422
    for _ in range(4):
        served.post("/api/redo")
    assert [idea["id"] for idea in served.ideas()] == made


@pytest.mark.parametrize("edit", [
    {}, {"operation": "erase"}, {"operation": "move", "first": 1, "last": 9, "semitones": 1}, {"operation": "tempo"},
    {"operation": "move", "first": 1, "last": 2, "semitones": 0}, {"operation": "trim", "first": "1", "last": 2},
    {"operation": "trim", "first": 1, "last": True}, {"operation": "tempo", "tempo": "1e999"},
    {"operation": "take", "part": "drums", "into": "../0"}, {"operation": "take", "part": "../drums", "into": "SELF"},
    {"operation": "trim", "first": 1, "last": 2, "parts": ["kazoo"]},
    {"operation": "trim", "first": 1, "last": 2, "parts": 1},
    {"operation": "trim", "first": 1, "last": 2, "parts": []},
])
def test_edits_that_cannot_be_are_one_line_and_write_nothing(served, song, edit):
    edit = {name: song if value == "SELF" else value for name, value in edit.items()}
    answer = served.post(f"/api/ideas/{song}/edit", edit)
    assert answer.status_code in (404, 422) and "\n" not in answer.json()["error"]
    assert len(served.ideas()) == 1


def test_names_deleting_and_the_bin(served, song):
    served.post(f"/api/ideas/{song}/keep", {"name": "<script>alert(1)</script>", "star": True, "note": "n"})
    assert served.ideas()[0]["name"] == "<script>alert(1)</script>"
    served.post(f"/api/ideas/{song}/bin")
    assert not served.ideas() and served.state()["n_binned"] == 1
    assert served.post(f"/api/ideas/{song}/bin").status_code == 404
    served.post("/api/unbin")
    assert served.ideas()[0]["star"], "what was written on it comes back with it"
    served.post("/api/undo")
    served.post("/api/undo")
    served.post("/api/undo")
    assert served.ideas()[0]["name"] == ""


def test_files_and_selections_come_out(served, song):
    path = served.studio.folder.folder / "0.mid"
    assert served.client.get(f"/api/ideas/{song}/file", params={"label": "all parts"}).content == path.read_bytes()
    answer = served.post(f"/api/ideas/{song}/selection", {"first": 2, "last": 3, "parts": ["drums"]})
    assert answer.content[:4] == b"MThd"
    assert served.client.get("/api/starred.zip").status_code == 422
    job = served.ask(bars=2, seed=1)
    made = next(idea for idea in served.ideas() if idea["hash"] == job["songs"][0])
    served.post(f"/api/ideas/{made['id']}/keep", {"star": True, "note": "good"})
    with zipfile.ZipFile(io.BytesIO(served.client.get("/api/starred.zip").content)) as archive:
        assert archive.namelist() == ["1.mid", "1-drums.mid", "1-bass.mid", "1-piano.mid", "stars.json"]
        stars = json.loads(archive.read("stars.json"))
        assert stars["songs"][0]["note"] == "good"


# ---------------------------------------------------------------- stopping, waiting, failing


def test_one_job_runs_others_wait_and_can_be_stopped(served, monkeypatch):
    go_on = threading.Event()
    note = jobs._Telling.note

    def wait(self, place, drawn):
        assert go_on.wait(20)
        note(self, place, drawn)

    monkeypatch.setattr(jobs._Telling, "note", wait)
    numbers = [served.post("/api/ask", {"bars": 2, "seed": seed}).json()["number"] for seed in range(3)]
    served.post(f"/api/jobs/{numbers[1]}/stop")
    served.post(f"/api/jobs/{numbers[0]}/stop")
    states = {job["number"]: job["state"] for job in served.state()["jobs"]}
    assert states[numbers[1]] == "stopped" and states[numbers[2]] == "waiting"
    with served.events() as events:
        go_on.set()
        for event in events:
            if event["type"] == "job" and (event["job"]["number"], event["job"]["state"]) == (numbers[2], "done"):
                break
    assert {job["number"]: job["state"] for job in served.state()["jobs"]} == {1: "stopped", 2: "stopped"}
    assert [idea["number"] for idea in served.ideas() if "number" in idea] == [] and len(served.ideas()) == 1
    for number in numbers:
        served.post(f"/api/jobs/{number}/dismiss")
    assert not served.state()["jobs"]


def test_a_full_disk_is_said_on_the_card_and_loses_nothing(served, song, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "1.mid")

    monkeypatch.setattr(jobs, "write_song", full)
    job = served.ask(bars=2)
    assert (job["state"], job["said"][-1]) == ("failed", "1.mid: No space left on device")
    monkeypatch.undo()
    assert served.ask(bars=2)["state"] == "done"
    assert len(served.ideas()) == 2


def test_too_many_jobs_are_one_line(served, monkeypatch):
    monkeypatch.setattr(jobs, "MOST_WAITING", 0)
    answer = served.post("/api/ask", {"bars": 2})
    assert answer.status_code == 422 and "jobs wait already" in answer.json()["error"]


def test_a_parent_that_is_deleted_on_the_disk(served, song):
    (served.studio.folder.folder / "0.mid").unlink()
    for path, data in (("/api/ask", {"prompt": song, "fill": "2"}),
                       (f"/api/ideas/{song}/edit", {"operation": "tempo"})):
        answer = served.post(path, data)
        assert answer.status_code == 404 and "no longer in the folder" in answer.json()["error"]


def test_two_edits_of_one_idea_at_once_are_two_ideas(served, song):
    tempos = [61, 62, 63, 64]
    answers = []

    def edit(tempo):
        answers.append(served.post(f"/api/ideas/{song}/edit", {"operation": "tempo", "tempo": tempo}))

    threads = [threading.Thread(target=edit, args=[tempo]) for tempo in tempos]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [201] * 4
    assert sorted(idea["tempo"] for idea in served.ideas())[:4] == tempos


def test_two_tabs_are_told_the_same(served):
    with served.events() as one, served.events() as other:
        assert next(one) == next(other)
        served.post("/api/ask", {"bars": 2, "n": 2, "seed": 4})
        told = []
        for events in (one, other):
            told.append([])
            for event in events:
                told[-1].append(event)
                if event["type"] == "counts" and event["undo"]:
                    break
    assert told[0] == told[1] and {"job", "notes", "idea", "counts"} == {event["type"] for event in told[0]}


def test_a_song_of_300_bars_is_shown_and_goes_on(served, tmp_path):
    song_file(tmp_path / "x.mid")
    midi = mido.MidiFile(tmp_path / "x.mid")
    for track in midi.tracks:
        if any(message.type == "note_on" for message in track):
            late = 296 * 4 * midi.ticks_per_beat
            channel = next(message.channel for message in track if message.type == "note_on")
            track[-1:] = [mido.Message("note_on", channel=channel, note=36, velocity=64, time=late),
                          mido.Message("note_off", channel=channel, note=36, time=10), track[-1]]
    midi.save(tmp_path / "long.mid")
    answer = drop(served, ("long.mid", (tmp_path / "long.mid").read_bytes(), {}))
    assert answer.status_code == 201, answer.text
    idea = answer.json()["idea"]
    assert idea["bars"] >= 300
    job = served.ask(prompt=idea["id"], bars=2)
    assert job["state"] == "done", job["said"]
    trimmed = served.post(f"/api/ideas/{idea['id']}/edit", {"operation": "trim", "first": 296, "last": 300})
    assert trimmed.status_code == 201 and trimmed.json()["bars"] == 5


def test_a_new_start_shows_the_same(loaded, tmp_path):
    with serving(tmp_path, loaded) as first:
        first.enter()
        job = first.ask(bars=2)
        first.post(f"/api/ideas/{first.ideas()[0]['id']}/keep", {"name": "Verse"})
        before = first.ideas()
    with serving(tmp_path, loaded) as second:
        second.enter()
        assert second.ideas() == before and before[0]["hash"] == job["songs"][0]


def test_songs_of_other_programs_come_to_the_page(served):
    with served.events() as events:
        next(events)
        song_file(served.studio.folder.folder / "7.mid")
        event = next(event for event in events if event["type"] == "idea")
        assert event["idea"]["file"] == "7.mid"
        (served.studio.folder.folder / "7.mid").unlink()
        assert next(event for event in events if event["type"] == "gone")["id"] == event["idea"]["id"]


# ---------------------------------------------------------------- dropping


def test_a_dropped_song_is_kept_read_and_played_to(served, tmp_path):
    data = song_file(tmp_path / "x.mid").read_bytes()
    answer = drop(served, ("my <b>loop</b>.mid", data, {}))
    assert answer.status_code == 201, answer.text
    dropped = answer.json()
    assert {track["part"] for track in dropped["tracks"]} == {"drums", "bass", "piano"}
    assert any("drums: drums" in line for line in dropped["notices"])
    assert (served.studio.folder.folder / "given/b.mid").read_bytes() == data
    assert drop(served, ("my <b>loop</b>.mid", data, {})).json()["idea"]["id"] == dropped["idea"]["id"]
    assert served.ask(prompt=dropped["idea"]["id"], given="bass", make="drums")["state"] == "done"
    assert served.ideas()[-1]["parents"] == [dropped["idea"]["hash"]]


def test_what_was_read_as_what_can_be_corrected(served, tmp_path):
    data = song_file(tmp_path / "x.mid").read_bytes()
    corrected = drop(served, ("loop.mid", data, {}), players={"0": "drums", "1": "piano", "2": "none"}).json()
    assert [track["part"] for track in corrected["tracks"]] == ["drums", "piano", ""]
    plain = drop(served, ("loop.mid", data, {})).json()
    assert len(corrected["idea"]["notes"][2]) == len(plain["idea"]["notes"][1])
    assert drop(served, ("loop.mid", data, {}), players={"9": "drums"}).status_code == 422


def test_stems_are_joined_and_kept(served, tmp_path):
    stems = [(f"{part}.mid", song_file(tmp_path / "x.mid", (part,)).read_bytes(), {}) for part in ("drums", "bass")]
    answer = drop(served, *stems).json()
    assert [track["part"] for track in answer["tracks"]] == ["drums", "bass"]
    assert sorted(path.name for path in (served.studio.folder.folder / "given/drums + bass").iterdir()) \
        == ["bass.mid", "drums.mid"]


def test_stems_whose_names_tell_nothing_are_asked_about(served, tmp_path):
    data = song_file(tmp_path / "x.mid", ("bass",)).read_bytes()
    answer = drop(served, ("a.mid", data, {}), ("drums.mid", data, {}))
    assert answer.status_code == 422 and "a.mid" in answer.json()["error"]
    assert answer.json()["files"] == [{"name": "a.mid", "part": ""}, {"name": "drums.mid", "part": "drums"}]
    assert not (served.studio.folder.folder / "given").exists()
    assert drop(served, ("a.mid", data, {"part": "bass"}), ("drums.mid", data, {})).status_code == 201


@pytest.mark.parametrize(("files", "words"), [
    ([("a.mid", b"no MIDI", {})], "a.mid"),
    ([("a.exe", b"MThd", {})], "is no MIDI file by its name"),
    ([("a.mid", b"", {})], "a.mid"),
    ([(f"{number}.mid", b"MThd", {}) for number in range(50)], "50 files at once; drop at most 16"),
    ([("a.mid", b"x" * (5 << 20), {})], "more than 4 MB"),
])
def test_what_is_no_song_is_one_line_and_leaves_nothing(served, files, words):
    answer = drop(served, *files)
    assert answer.status_code == 422 and words in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert not (served.studio.folder.folder / "given").exists()


# ---------------------------------------------------------------- requests at random


def test_random_requests_get_an_answer_of_one_line(served, song):
    """As `describing.openapi` describes them, with values that fit and values that do not."""
    chance = random.Random(0)
    paths = served.client.get("/api/openapi.json").json()["paths"]
    values = [None, True, -1, 0, 2, 3.5, 1e308, "", "drums", "5-8", song, "../x", "é\0", [], ["bass"], {}, [[]],
              "move", "trim"]
    codes = set()
    for _ in range(120):
        path, methods = chance.choice(sorted(paths.items()))
        method, about = next(iter(methods.items()))
        if path == "/api/events":
            continue
        names = list(about.get("requestBody", {}).get("content", {}).get("application/json", {})
                     .get("schema", {}).get("properties", {}))
        body = {name: chance.choice(values) for name in names if chance.random() < 0.4}
        address = path.replace("{id}", chance.choice([song, "x"])).replace("{number}", str(chance.choice([0, 1, 99])))
        params = {"label": chance.choice(["drums", "all parts", "x"])} if address.endswith("/file") else None
        answer = served.client.request(method.upper(), address, params=params, json=body if method == "post" else None)
        codes.add(answer.status_code)
        assert answer.status_code < 500, (address, body, answer.text)
        if answer.status_code >= 400:
            assert "\n" not in answer.json()["error"]
    assert {200, 404, 422} <= codes

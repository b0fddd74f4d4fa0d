"""Nobody else gets into the studio: a real server, and requests that try each way."""

from __future__ import annotations

import socket

import httpx
import pytest
from playing import song_file
from studios import Serving, serving

from backline.generation.session import LoadedModel
from backline.studio.guard import MOST_BYTES
from backline.studio.server import SCRIPTS

PATHS = ["/", "/web/studio.js", "/api/events", "/api/openapi.json", "/api/starred.zip"]


@pytest.fixture(scope="module")
def served(given_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    song_file(folder / "0.mid")
    (folder.parent / "secret.mid").write_bytes((folder / "0.mid").read_bytes())
    with serving(folder, LoadedModel(given_path)) as opened:
        opened.enter()
        yield opened


class Asker:
    """Somebody with certain headers."""

    def __init__(self, served: Serving, headers: dict[str, str], cookies: httpx.Cookies | None = None) -> None:
        self.settings = {"base_url": served.origin, "headers": headers, "cookies": cookies, "trust_env": False}

    def request(self, method: str, path: str, **about) -> httpx.Response:
        with httpx.Client(**self.settings) as client:
            return client.request(method, path, **about)

    def get(self, path: str, **about) -> httpx.Response:
        return self.request("GET", path, **about)

    def post(self, path: str, **about) -> httpx.Response:
        return self.request("POST", path, **about)


def stranger(served: Serving, **headers: str) -> Asker:
    return Asker(served, headers)


def friend(served: Serving, **headers: str) -> Asker:
    return Asker(served, headers, served.client.cookies)


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_shown(served, path):
    answer = stranger(served).get(path)
    assert answer.status_code == 403
    assert "open the one that studio.py printed last" in answer.text


@pytest.mark.parametrize("token", ["", "x", "None", "é"])
def test_another_token_opens_nothing(served, token):
    answer = stranger(served).get("/", params={"token": token})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(served):
    answer = stranger(served).get("/", params={"token": served.token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=Strict"} <= set(answer.headers["set-cookie"].split("; "))


@pytest.mark.parametrize("cookie", ["x", "", '"', "a=b; c"])
def test_another_cookie_opens_nothing(served, cookie):
    name = next(iter(served.client.cookies))
    assert stranger(served, Cookie=f"{name}={cookie}").get("/").status_code == 403
    assert stranger(served, Cookie=f"{name}-other={served.token}").get("/").status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:80", ""])
def test_other_names_for_this_machine_are_not_served(served, host):
    """A page of evil.example whose name now leads here sends its own name: DNS rebinding."""
    for path in PATHS:
        assert friend(served, Host=host).get(path).status_code in (400, 421)
    assert friend(served, Host=host, Origin=f"http://{host}").post("/api/undo").status_code in (400, 421)


def test_two_hosts_are_none(served):
    host = served.origin.removeprefix("http://")
    with socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2]))) as line:
        line.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nHost: evil.example\r\n\r\n".encode())
        assert line.recv(100).split()[1] in (b"400", b"421")


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_other_pages_can_change_nothing(served, origin):
    headers = {} if origin is None else {"Origin": origin}
    for path in ("/api/ask", "/api/given", "/api/undo", "/api/unbin", "/api/jobs/1/stop"):
        assert friend(served, **headers).post(path, json={}).status_code == 403
    if origin:
        assert friend(served, **headers).get("/api/events").status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_pages_can_include_nothing(served, site):
    for path in PATHS[1:]:
        assert friend(served, **{"Sec-Fetch-Site": site}).get(path).status_code == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_do_nothing(served, method):
    for path in ("/", "/api/ask", "/api/events"):
        assert friend(served).request(method, path).status_code in (403, 405)
        assert friend(served, Origin=served.origin).request(method, path).status_code == 405


@pytest.mark.parametrize("name", ["../secret.mid", "..%2Fsecret.mid", "%2e%2e/secret.mid", "/etc/passwd", "0.mid",
                                  "0-", "0", "given-../0", "..", "C:\\0.mid", "0-000000000000", "%00"])
def test_no_text_of_a_request_is_a_path(served, name):
    host = served.origin.removeprefix("http://")
    cookie = "; ".join(f"{key}={value}" for key, value in served.client.cookies.items())
    for path in (f"/web/{name}", f"/api/ideas/{name}/file?label=all%20parts", f"/{name}"):
        # As it is written: a client would tidy it up.
        with socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2]))) as line:
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n"
                         "Connection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda line=line: line.recv(4096), b""))
        assert answer.split()[1] in (b"400", b"404"), answer
        assert b"MThd" not in answer and b"root:" not in answer
    idea = served.ideas()[0]["id"]
    assert served.client.get(f"/api/ideas/{idea}/file", params={"label": name}).status_code == 404
    assert served.client.get(f"/api/ideas/{idea}/file", params={"label": "all parts"}).content[:4] == b"MThd"


def test_every_answer_forbids_what_is_remote(served):
    answers = [served.client.get(path) for path in PATHS if path != "/api/events"]
    answers += [stranger(served).get("/"), served.client.get("/none"), served.post("/api/ask", {"bars": "x"})]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
    for name in ("studio.html", *SCRIPTS):
        text = served.client.get(f"/web/{name}").text
        assert "://" not in text.replace("http://www.w3.org/2000/svg", "")  # a name, which nothing is loaded from


def test_bodies_are_bounded(served):
    def endless():
        for _ in range(MOST_BYTES // 65536 + 2):
            yield b" " * 65536

    host = served.origin.removeprefix("http://")
    with socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2]))) as line:
        line.sendall(f"POST /api/given HTTP/1.1\r\nHost: {host}\r\nOrigin: {served.origin}\r\n"
                     f"Content-Length: {MOST_BYTES + 1}\r\n\r\n".encode())
        assert line.recv(100).split()[1] == b"413"
    with pytest.raises(httpx.HTTPError):  # the answer may come, or the line may be closed
        served.client.post("/api/given", content=endless()).raise_for_status()
    assert served.client.get("/").status_code == 200


@pytest.mark.parametrize("body", ["", "[]", "null", "{", "[" * 100_000, '"x"', '{"bars": NaN}', '{"prompt": {}}',
                                  '{"x": 1}'])
def test_bodies_that_are_no_form_are_one_line(served, body):
    for path in ("/api/ask", "/api/given", "/api/ideas/x/edit", "/api/ideas/x/keep"):
        answer = served.client.post(path, content=body)
        assert answer.status_code in (404, 422), answer.text
        assert "\n" not in answer.json()["error"]


def test_each_start_has_an_address_of_its_own(served, given_path, tmp_path):
    with serving(tmp_path, LoadedModel(given_path)) as other:
        assert other.token != served.token
        other.client.cookies = served.client.cookies
        assert other.client.get("/").status_code == 403

"""The studio's server: a page, and requests in JSON that the page makes. `guard.py` decides who may.

Requests name ideas by their ids. No text of a request is ever used as a path.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from backline.common.errors import UserError
from backline.common.files import json_bytes
from backline.common.paths import STUDIO_WEB, WEB
from backline.listening.ideas_page import SHARED_SCRIPTS
from backline.studio.asking import FormError
from backline.studio.describing import openapi
from backline.studio.folder import IdeaGoneError
from backline.studio.given import UnclearStemsError, dropped_of
from backline.studio.guard import Guard
from backline.studio.jobs import message_of
from backline.studio.studio import Studio

SCRIPTS = (*SHARED_SCRIPTS, "ask.js", "work.js", "grow.js", "studio.js")
STYLES = ("page.css", "studio.css")
WATCH_SECONDS = 1.0  # between looks for songs that other programs write into the folder
PING_SECONDS = 15.0  # so that a page learns of a server that is gone
CLOSE_SECONDS = 1  # that open pages get when the server ends
MIDI = "audio/midi"

Answer = Callable[[Request], Awaitable[Response]]


def say_errors(answer: Answer) -> Answer:
    """Answer what people can correct with one line of JSON: `error`, and the `field` of a form."""

    async def wrapper(request: Request) -> Response:
        try:
            return await answer(request)
        except FormError as err:
            return JSONResponse({"error": str(err), "field": err.field}, 422)
        except UnclearStemsError as err:
            return JSONResponse({"error": str(err), "files": err.files}, 422)
        except IdeaGoneError as err:
            return JSONResponse({"error": str(err)}, 404)
        except UserError as err:
            return JSONResponse({"error": str(err)}, 422)
        except OSError as err:
            return JSONResponse({"error": message_of(err)}, 507)

    return wrapper


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object in a request. Raises UserError."""
    try:
        data = json.loads(await request.body())
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise UserError("the request must be a JSON object")
    return data


def made_app(studio: Studio) -> Starlette:
    """The application behind the guard."""
    files = web_files(studio)

    async def web(request: Request) -> Response:
        name = request.path_params.get("name", "studio.html")
        if name not in files:
            return JSONResponse({"error": "no such file"}, 404)
        kind, data = files[name]
        return Response(data, media_type=kind)

    async def events(_request: Request) -> Response:
        return StreamingResponse(told(studio), media_type="text/event-stream")

    async def describe(_request: Request) -> Response:
        return JSONResponse(openapi())

    @say_errors
    async def ask(request: Request) -> Response:
        form = await body_of(request)
        return JSONResponse(await run_in_threadpool(studio.ask, form), 202)

    @say_errors
    async def drop(request: Request) -> Response:
        dropped = dropped_of(await body_of(request))
        return JSONResponse(await run_in_threadpool(studio.drop, dropped), 201)

    @say_errors
    async def edit(request: Request) -> Response:
        wanted = await body_of(request)
        made = await run_in_threadpool(studio.edit, request.path_params["id"], wanted)
        return JSONResponse(made, 201)

    @say_errors
    async def keep(request: Request) -> Response:
        change = await body_of(request)
        await run_in_threadpool(studio.keep, request.path_params["id"], change)
        return JSONResponse({})

    @say_errors
    async def throw_away(request: Request) -> Response:
        await run_in_threadpool(studio.throw_away, request.path_params["id"])
        return JSONResponse({})

    @say_errors
    async def file(request: Request) -> Response:
        label = request.query_params.get("label", "")
        name, data = await run_in_threadpool(studio.file, request.path_params["id"], label)
        kind = "audio/wav" if name.endswith(".wav") else MIDI
        quoted = urllib.parse.quote(name)
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quoted}"}
        return Response(data, media_type=kind, headers=headers)

    @say_errors
    async def sound(request: Request) -> Response:
        data = await run_in_threadpool(studio.sound, request.path_params["id"])
        return Response(data, media_type="audio/wav")

    @say_errors
    async def select(request: Request) -> Response:
        wanted = await body_of(request)
        data = await run_in_threadpool(studio.selection, request.path_params["id"], wanted)
        return Response(data, media_type=MIDI)

    @say_errors
    async def starred(_request: Request) -> Response:
        return Response(await run_in_threadpool(studio.starred_zip), media_type="application/zip")

    def step(take: Callable[[], None]) -> Answer:
        @say_errors
        async def answer(_request: Request) -> Response:
            await run_in_threadpool(take)
            return JSONResponse({})

        return answer

    def job(act: Callable[[int], None]) -> Answer:
        @say_errors
        async def answer(request: Request) -> Response:
            await run_in_threadpool(act, request.path_params["number"])
            return JSONResponse({})

        return answer

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        watcher = asyncio.create_task(watch(studio))
        yield
        watcher.cancel()
        await run_in_threadpool(studio.close)

    post = ["POST"]
    return Starlette(lifespan=lifespan, routes=[
        Route("/", web),
        Route("/web/{name}", web),
        Route("/api/openapi.json", describe),
        Route("/api/events", events),
        Route("/api/ask", ask, methods=post),
        Route("/api/given", drop, methods=post),
        Route("/api/ideas/{id}/edit", edit, methods=post),
        Route("/api/ideas/{id}/keep", keep, methods=post),
        Route("/api/ideas/{id}/bin", throw_away, methods=post),
        Route("/api/ideas/{id}/selection", select, methods=post),
        Route("/api/ideas/{id}/file", file),
        Route("/api/ideas/{id}/sound", sound),
        Route("/api/starred.zip", starred),
        Route("/api/undo", step(studio.undo), methods=post),
        Route("/api/redo", step(studio.redo), methods=post),
        Route("/api/unbin", step(studio.take_back_all), methods=post),
        Route("/api/jobs/{number:int}/stop", job(studio.worker.stop), methods=post),
        Route("/api/jobs/{number:int}/dismiss", job(studio.worker.dismiss), methods=post),
    ])


def web_files(studio: Studio) -> dict[str, tuple[str, bytes]]:
    """Kind and bytes of each file of the page, by name."""
    places = {path.name: path for folder in (WEB, STUDIO_WEB) for path in folder.iterdir()}
    files = {name: ("text/javascript", places[name].read_bytes()) for name in SCRIPTS}
    files |= {name: ("text/css", places[name].read_bytes()) for name in STYLES}
    tags = [f'<script defer src="/web/{name}"></script>' for name in SCRIPTS]
    links = [f'<link rel="stylesheet" href="/web/{name}">' for name in STYLES]
    page = places["studio.html"].read_text(encoding="utf-8")
    # JSON may write "<" like this, so that no text, such as a folder's name, ends the script.
    data = json_bytes(studio.page_data()).decode().replace("<", r"\u003c")
    values = {"scripts": "\n".join(tags), "styles": "\n".join(links), "data": data}
    for name, value in values.items():
        page = page.replace("{{" + name + "}}", value)
    files["studio.html"] = ("text/html", page.encode())
    return files


async def told(studio: Studio) -> AsyncIterator[bytes]:
    """All that is so, then what happens, as server-sent events."""
    waiting, state = await subscribed(studio)
    try:
        yield event_bytes(state)
        while True:
            try:
                event = await asyncio.wait_for(waiting.get(), PING_SECONDS)
            except TimeoutError:
                yield b": here\n\n"
                continue
            if event is None:
                return
            yield event_bytes(event)
    finally:
        studio.hub.listeners.pop(waiting, None)


async def subscribed(studio: Studio) -> tuple[asyncio.Queue[dict[str, Any] | None], dict[str, Any]]:
    """A queue of events, and the state. The folder is read in a thread, as that may take a while."""
    await run_in_threadpool(studio.sync)
    return studio.subscribe()


def event_bytes(event: dict[str, Any]) -> bytes:
    """An event as the page reads it."""
    return b"data: " + json_bytes(event) + b"\n\n"


async def watch(studio: Studio) -> None:
    """Look for songs that other programs wrote or deleted."""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if studio.hub.listeners:
            with contextlib.suppress(OSError):
                await run_in_threadpool(studio.sync)


# ---------------------------------------------------------------- serving


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 takes a free one. Raises UserError if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen()
    except OSError as err:
        made.close()
        raise UserError(f"--host {host} --port {port}: {err.strerror or err}; another studio may be "
                        "running there: close it, or give --port 0 for a free one") from None
    return made


def served_hosts(host: str, port: int) -> list[str]:
    """The Host headers that are served: the address that was asked for, and loopback's names."""
    names = ["127.0.0.1", "localhost", "[::1]"]
    own = f"[{host}]" if ":" in host else host.lower()
    if own in ("0.0.0.0", "[::]"):  # noqa: S104 (compared, not bound to)
        found = [socket.gethostname().lower(), outward_address()]
        names += [name for name in found if name and name not in names]
    elif own not in names:
        names.insert(0, own)
    return [f"{name}:{port}" for name in names]


class Server(uvicorn.Server):
    """A server that ends the telling before it waits for pages that are open."""

    def __init__(self, config: uvicorn.Config, studio: Studio) -> None:
        super().__init__(config)
        self.studio = studio

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the events, then all else."""
        self.studio.hub.close()
        await super().shutdown(sockets)


def outward_address() -> str:
    """The address by which other machines of the network reach this one; "" without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # an address kept for documentation: nothing is sent
        return str(probe.getsockname()[0])
    return ""


def made_server(studio: Studio, hosts: list[str], token: str) -> Server:
    """A server of the page, behind the guard; its `run` serves until Ctrl-C."""
    app = Guard(made_app(studio), hosts, token)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False,
                            timeout_graceful_shutdown=CLOSE_SECONDS)
    return Server(config, studio)

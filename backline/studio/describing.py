"""The requests that the studio answers, described as OpenAPI for those who would build on it."""

from __future__ import annotations

from typing import Any

from backline.studio.asking import LISTS, PROMPT, SWITCHES, TEXTS

OPENAPI_VERSION = "3.1.0"
ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"},
      "description": "of an idea, as the events name it; never a path"}
NUMBER = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer"}}
LABEL = {"name": "label", "in": "query", "required": True, "schema": {"type": "string"},
         "description": "of one of the idea's files: all parts, drums, …"}
SELECTION = {
    "first": {"type": "integer", "minimum": 1, "description": "first bar"},
    "last": {"type": "integer", "minimum": 1, "description": "last bar"},
    "parts": {"type": "array", "items": {"type": "string"}, "description": "default: all"},
}


def openapi() -> dict[str, Any]:
    """The description, as JSON data."""
    fields: dict[str, Any] = {PROMPT: {"type": "string", "description": "id of the idea it is about"}}
    fields |= {name: {"type": ["string", "number"], "description": f"generate.py {option}"}
               for name, option in TEXTS.items()}
    fields |= {name: {"type": "array", "items": {"type": "string"},
                      "description": f"generate.py {option}, once for each"}
               for name, option in LISTS.items()}
    fields |= {name: {"type": "boolean", "description": f"generate.py {option}"}
               for name, option in SWITCHES.items()}
    file = {"type": "object", "required": ["name", "data"], "properties": {
        "name": {"type": "string"},
        "data": {"type": "string", "contentEncoding": "base64"},
        "part": {"type": "string", "description": "of a stem; default: as its name says"},
    }}
    edit = {
        "operation": {"enum": ["move", "tempo", "trim", "take"]},
        **SELECTION,
        "semitones": {"type": "integer"},
        "tempo": {"type": "number"},
        "part": {"type": "string", "description": "to take"},
        "into": {"type": "string", "description": "id of the idea that gets it"},
    }
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "Backline's studio",
            "version": "1",
            "description": "Every request needs the cookie that the address with the token sets; "
                           "a POST also needs the Origin of the studio. Errors are JSON with "
                           "`error`, one line, and perhaps `field`.",
        },
        "paths": {
            "/api/events": {"get": _operation("All that is so (`state`), then what happens, as "
                                              "server-sent events: idea, gone, job, notes, drawn, "
                                              "dismissed, counts")},
            "/api/ask": {"post": _operation("Make songs; answers with the job", body=fields)},
            "/api/given": {"post": _operation("Keep a dropped song, or stems joined into one", body={
                "files": {"type": "array", "items": file},
                "players": {"type": "object",
                            "description": "of a single song: track, from 0, to part or none"},
            })},
            "/api/ideas/{id}/edit": {"post": _operation("Make an idea of this one", [ID], edit)},
            "/api/ideas/{id}/keep": {"post": _operation("Write on it", [ID], {
                "name": {"type": "string"},
                "note": {"type": "string"},
                "star": {"type": "boolean"},
            })},
            "/api/ideas/{id}/bin": {"post": _operation("Move it to the bin", [ID], {})},
            "/api/ideas/{id}/selection": {"post": _operation("These bars as MIDI", [ID], SELECTION)},
            "/api/ideas/{id}/file": {"get": _operation("One of its files", [ID, LABEL])},
            "/api/ideas/{id}/sound": {"get": _operation("It as WAV, where FluidSynth is installed", [ID])},
            "/api/starred.zip": {"get": _operation("The starred ideas with stems and stars.json")},
            "/api/undo": {"post": _operation("Undo the last step", body={})},
            "/api/redo": {"post": _operation("Redo it", body={})},
            "/api/unbin": {"post": _operation("Take everything back from the bin", body={})},
            "/api/jobs/{number}/stop": {"post": _operation("Stop a job", [NUMBER], {})},
            "/api/jobs/{number}/dismiss": {"post": _operation("Forget one that is over", [NUMBER], {})},
        },
    }


def _operation(summary: str,
               parameters: list[dict[str, Any]] | None = None,
               body: dict[str, Any] | None = None) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary, "parameters": parameters or [],
                                 "responses": {"2XX": {"description": "done"},
                                               "4XX": {"description": "what is wrong, in a line"}}}
    if body is not None:
        schema = {"type": "object", "properties": body, "additionalProperties": False}
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation

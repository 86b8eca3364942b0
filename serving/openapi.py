"""The OpenAPI document, from the request structs and the tables of formats. Knows nothing of handlers.

Litestar could write one, but not what an answer in seven media types looks like; a test compares the paths with the
routes, so that neither can drift.
"""

from typing import Any

import msgspec

from models.version import code_version
from serving.formats import MEDIA_TYPES, OFFERED
from serving.requests import ImageQuery, InterpolateRequest, SampleRequest

REF = "#/components/schemas/{name}"
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
HEADERS = {
    "X-Request-Id": "the client's, or a new one",
    "X-Model": "name@version that answered",
    "X-Model-Digest": "sha256 of its ONNX file",
    "X-Numerics": "what this machine's arithmetic makes of it: equal (digest, numerics) mean equal pixels",
    "X-Seed": "seed of the first sample; absent for z",
    "X-Cache": "hit, partial, miss or bypass",
    "Server-Timing": "queue, inference and encode, in milliseconds",
}
PROBLEMS = {
    "400": "a field is wrong; errors[] names it",
    "404": "no such model or version",
    "406": "nothing that is accepted can be answered",
    "408": "the body did not arrive in time",
    "413": "the body is too large",
    "415": "the body is not application/json",
    "429": "the queue is full, or too long for the deadline; Retry-After says when to come back",
    "503": "not ready, loading or overloaded; Retry-After says when to come back",
    "504": "the deadline of X-Request-Timeout has passed",
}
DRAWING = ("400", "404", "406", "408", "413", "415", "429", "503", "504")


def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    _, components = msgspec.json.schema_components([SampleRequest, InterpolateRequest], ref_template=REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Genserve",
            "version": code_version(),
            "description": "Serves trained generators. Image i of a request with seed s is the image of seed s + i.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {**_drawing(), **_models(), **_operations(), **_pages()},
        "components": {"schemas": {**components, "Problem": PROBLEM}},
    }


PROBLEM: dict[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


def _drawing() -> dict[str, Any]:
    timeout = {
        "name": "X-Request-Timeout",
        "in": "header",
        "required": False,
        "schema": {"type": "number", "exclusiveMinimum": 0},
        "description": "Seconds, for the whole request; what has not begun by then is not run.",
    }
    return {
        "/sample": {
            "post": {
                "summary": "Draw samples",
                "operationId": "sample",
                "tags": ["drawing"],
                "parameters": [timeout],
                "requestBody": _body("SampleRequest", {"num_images": 16, "seed": 7}),
                "responses": {"200": _answer("sample"), **_problems(DRAWING)},
            }
        },
        "/interpolate": {
            "post": {
                "summary": "Walk between latents",
                "operationId": "interpolate",
                "tags": ["drawing"],
                "parameters": [timeout],
                "requestBody": _body("InterpolateRequest", {"keyframes": [{"seed": 7}, {"seed": 9}], "frames": 24}),
                "responses": {"200": _answer("walk"), **_problems(DRAWING)},
            }
        },
        "/models/{name}/versions/{version}/images/{file}": {
            "get": {
                "summary": "One image, for <img> and CDNs",
                "operationId": "image",
                "tags": ["drawing"],
                "parameters": [
                    *_version_parameters(),
                    _path("file", "{seed}.png or {seed}.webp", pattern=r"^[0-9]{1,10}\.(png|webp)$"),
                    *_query(),
                    timeout,
                ],
                "responses": {
                    "200": _content("The image; it never changes.", ["image/png", "image/webp"]),
                    "304": {"description": "The client has it already."},
                    **_problems(("400", "404", "429", "503", "504")),
                },
            }
        },
    }


def _models() -> dict[str, Any]:
    def described(summary: str, name: str, parameters: list[Any], *errors: str) -> dict[str, Any]:
        answer = _content(summary, ["application/json"])
        return {
            "get": {
                "summary": summary,
                "operationId": name,
                "tags": ["models"],
                "parameters": parameters,
                "responses": {"200": answer, **_problems(errors)},
            }
        }

    def page(summary: str, operation: str, media_type: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
        found = described(summary, operation, parameters, "404")
        found["get"]["responses"]["200"] = _content(summary, [media_type])
        return found

    name = _path("name", "name of a model")
    samples = page("The sample grid", "samples", "image/png", _version_parameters())
    return {
        "/models": described("What is served", "models", []),
        "/models/{name}": described("One model, with its history", "model", [name], "404"),
        "/models/{name}/versions/{version}": described(
            "One version: manifest, verdicts, numerics, provider", "version", _version_parameters(), "404"
        ),
        "/models/{name}/versions/{version}/samples.png": samples,
        "/models/{name}/card": page("The champion's model card", "championCard", "text/html", [name]),
        "/models/{name}/versions/{version}/card": page(
            "A version's model card", "card", "text/html", _version_parameters()
        ),
        "/models/{name}/versions/{version}/card.md": page(
            "A version's model card as Markdown", "cardText", "text/markdown", _version_parameters()
        ),
    }


def _operations() -> dict[str, Any]:
    def probe(summary: str, name: str, media_type: str, *errors: str) -> dict[str, Any]:
        return {
            "get": {
                "summary": summary,
                "operationId": name,
                "tags": ["operating"],
                "responses": {"200": _content(summary, [media_type]), **_problems(errors)},
            }
        }

    return {
        "/health/live": probe("Whether the event loop turns", "live", "application/json"),
        "/health/ready": probe("Whether requests should be sent here", "ready", "application/json", "503"),
        "/metrics": probe("Prometheus; absent where it has a port of its own", "metrics", "text/plain"),
    }


def _pages() -> dict[str, Any]:
    def page(summary: str, name: str, media_type: str) -> dict[str, Any]:
        return {
            "get": {
                "summary": summary,
                "operationId": name,
                "tags": ["pages"],
                "responses": {"200": _content(summary, [media_type])},
            }
        }

    return {
        "/": page("The playground", "playground", "text/html"),
        "/docs": page("This document, to read", "docs", "text/html"),
        "/openapi.json": page("This document", "openapi", "application/json"),
    }


def _body(name: str, example: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": REF.format(name=name)}, "example": example}}
    return {"required": name != "SampleRequest", "content": content}  # everything in a SampleRequest has a default


def _answer(operation: str) -> dict[str, Any]:
    formats = [name for (op, _), names in OFFERED.items() if op == operation for name in names]
    content = {MEDIA_TYPES[name]: ({} if name == "json" else BINARY) for name in formats}
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()}
    return {"description": "The samples.", "headers": headers, "content": content}


def _content(description: str, media_types: list[str]) -> dict[str, Any]:
    return {"description": description, "content": {m: BINARY if m.startswith("image/") else {} for m in media_types}}


def _problems(statuses: tuple[str, ...]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": REF.format(name="Problem")}}}
    return {status: {"description": PROBLEMS[status], "content": content} for status in statuses}


def _path(name: str, description: str, **schema: Any) -> dict[str, Any]:  # noqa: ANN401 JSON Schema's keywords
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", **schema},
    }


def _version_parameters() -> list[dict[str, Any]]:
    return [_path("name", "name of a model"), _path("version", "number of a version", pattern="^[1-9][0-9]{0,8}$")]


def _query() -> list[dict[str, Any]]:
    properties: dict[str, Any] = msgspec.json.schema(ImageQuery)["$defs"]["ImageQuery"]["properties"]
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in properties.items()]

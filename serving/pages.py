"""The routes that describe: the models, the playground, the OpenAPI page. All files are read once, at start."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from models.card import Card, build_card
from models.card_text import STYLE_HASH, to_html, to_markdown
from models.errors import NotFound
from models.repository import Repository, Version
from serving import catalogue
from serving.openapi import document
from serving.routes import IMMUTABLE, reference
from serving.service import Service

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {  # of text without its charset: Litestar adds that
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
STRICT = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
# Swagger UI writes style attributes.
DOCS = {
    **STRICT,
    "content-security-policy": STRICT["content-security-policy"].replace(
        "style-src 'self'", "style-src 'self' 'unsafe-inline'"
    ),
}


CARD = {
    "content-security-policy": f"default-src 'none'; style-src '{STYLE_HASH}'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # judging and promoting change it
}


class Asset(NamedTuple):
    """A static file."""

    body: bytes
    media_type: str
    etag: str


def model_routes(service: Service) -> list[HTTPRouteHandler]:
    """GET /models and what lies below it, but for the image route."""
    repository, live = service.repository, service.live

    @get("/models")
    async def models() -> Response[bytes]:
        limits = {"max_images": service.settings.max_images}
        return _json({**await asyncio.to_thread(catalogue.describe_all, repository, live), "limits": limits})

    @get("/models/{name:str}")
    async def model(name: FromPath[str]) -> Response[bytes]:
        return _json(await asyncio.to_thread(catalogue.describe_name, repository, live, name))

    @get("/models/{name:str}/versions/{version:str}")
    async def version(name: FromPath[str], version: FromPath[str]) -> Response[bytes]:
        found = await asyncio.to_thread(repository.resolve, reference(name, version))
        return _json(await asyncio.to_thread(catalogue.describe_version, repository, live, found))

    @get("/models/{name:str}/versions/{version:str}/samples.png")
    async def samples(name: FromPath[str], version: FromPath[str]) -> Response[bytes]:
        found = await asyncio.to_thread(repository.resolve, reference(name, version))
        body = await asyncio.to_thread(_samples_of, repository, found)
        return Response(body, media_type="image/png", headers={"cache-control": IMMUTABLE})

    @get("/models/{name:str}/versions/{version:str}/card")
    async def card(name: FromPath[str], version: FromPath[str]) -> Response[bytes]:
        return _card(await asyncio.to_thread(_page_of, repository, reference(name, version)))

    @get("/models/{name:str}/card")
    async def champion_card(name: FromPath[str]) -> Response[bytes]:
        return _card(await asyncio.to_thread(_page_of, repository, name))

    @get("/models/{name:str}/versions/{version:str}/card.md")
    async def card_text(name: FromPath[str], version: FromPath[str]) -> Response[bytes]:
        body = await asyncio.to_thread(_text_of, repository, reference(name, version))
        return Response(body, media_type="text/markdown", headers=CARD)

    return [models, model, version, samples, card, champion_card, card_text]


def _page_of(repository: Repository, asked: str) -> bytes:
    return to_html(_built(repository, asked)).encode()


def _card(page: bytes) -> Response[bytes]:
    return Response(page, media_type="text/html", headers=CARD)


def _text_of(repository: Repository, asked: str) -> bytes:
    """Pictures are where the service has them; those that it has not are left to the page."""
    return to_markdown(_built(repository, asked), lambda picture: picture.name).encode()


def _built(repository: Repository, asked: str) -> Card:
    version = repository.resolve(asked)
    _check_trust(repository, version)
    return build_card(repository, version, public=True)


def _samples_of(repository: Repository, version: Version) -> bytes:
    _check_trust(repository, version)
    try:
        return version.samples_path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"{version} has no sample grid") from error


def _check_trust(repository: Repository, version: Version) -> None:
    """Where keys are trusted, nothing is shown that they do not vouch for, as nothing else is served."""
    if why := repository.distrusted(version):
        raise NotFound(f"{version} is not served: {why}", field="model")


def page_routes() -> list[HTTPRouteHandler]:
    """GET /, /docs, /openapi.json and /static."""
    assets = {path.name: _asset(path) for path in sorted(STATIC.rglob("*")) if path.suffix in MEDIA_TYPES}
    openapi = msgspec.json.format(msgspec.json.encode(document()), indent=1)

    @get("/")
    async def playground(request: Request[Any, Any, Any]) -> Response[bytes]:
        return _page(request, assets["index.html"], STRICT)

    @get("/docs")
    async def docs(request: Request[Any, Any, Any]) -> Response[bytes]:
        return _page(request, assets["docs.html"], DOCS)

    @get("/openapi.json")
    async def openapi_json() -> Response[bytes]:
        return Response(openapi, media_type="application/json")

    @get("/favicon.ico")
    async def favicon(request: Request[Any, Any, Any]) -> Response[bytes]:
        return _page(request, assets["favicon.svg"], STRICT)

    @get("/static/{file:str}")
    async def static(request: Request[Any, Any, Any], file: FromPath[str]) -> Response[bytes]:
        if file not in assets:
            raise NotFound("there is no such file")
        return _page(request, assets[file], STRICT)

    return [playground, docs, openapi_json, favicon, static]


def _page(request: Request[Any, Any, Any], asset: Asset, policy: dict[str, str]) -> Response[bytes]:
    headers = {"etag": asset.etag, "cache-control": "no-cache", **policy}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(b"", status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)


def _asset(path: Path) -> Asset:
    body = path.read_bytes()
    return Asset(body, MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:24]}"')


def _json(content: dict[str, Any]) -> Response[bytes]:
    return Response(msgspec.json.encode(content), media_type="application/json", headers={"cache-control": "no-cache"})

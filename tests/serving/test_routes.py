"""The other routes: the image route, the catalogue, probes, pages; and what every answer has in common."""

import io
import json
import re

import msgspec
import numpy as np
import pytest
from PIL import Image

from models.promotion import promote
from models.repository import Repository, whoami
from models.testkit import add_tiny_variant, promote_tiny, promoted_repository, publish_tiny
from serving.app import create_app
from serving.pages import STATIC
from serving.settings import Settings
from tests.serving.kit import field_of, running

IMAGE = "/models/tiny/versions/2/images/7.png"


# The image route.


async def test_an_image_has_an_address_that_never_changes(client):
    """The pixels of POST /sample, immutable, with a strong validator, and in WebP too."""
    answer = await client.get(IMAGE)
    sampled = await client.post("/sample", json={"seed": 7})
    assert answer.content == sampled.content
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert re.fullmatch('"[0-9a-f]{32}"', answer.headers["etag"])
    webp = await client.get("/models/tiny/versions/2/images/7.webp")
    assert webp.headers["content-type"] == "image/webp"
    pixels = np.asarray(Image.open(io.BytesIO(webp.content)))[:, :, 0]
    assert (pixels == np.asarray(Image.open(io.BytesIO(answer.content)))).all()


async def test_who_has_it_gets_304_and_nothing_runs(client):
    """Also among several validators, weakened by a proxy, or *; another validator gets the image."""
    etag = (await client.get(IMAGE)).headers["etag"]
    before = (await client.get("/metrics")).text
    for header in (etag, f'"x", W/{etag}', "*"):
        answer = await client.get(IMAGE, headers={"if-none-match": header})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
        assert "immutable" in answer.headers["cache-control"]
    row = next(line for line in before.splitlines() if line.startswith("genserve_images_generated_total"))
    assert row in (await client.get("/metrics")).text
    assert (await client.get(IMAGE, headers={"if-none-match": '"x"'})).status_code == 200


async def test_everything_that_changes_the_image_changes_its_validator(client):
    """Seed, class, truncation, version, format."""
    base = "/models/classes/versions/1/images"
    paths = [
        f"{base}/7.png",
        f"{base}/8.png",
        f"{base}/7.webp",
        f"{base}/7.png?class_idx=0",
        f"{base}/7.png?class_idx=1",
        f"{base}/7.png?truncation=0.5",
        f"{base}/7.png?truncation=0.6",
        IMAGE,
        "/models/tiny/versions/1/images/7.png",
    ]
    etags = [(await client.get(path)).headers["etag"] for path in paths]
    assert len(set(etags)) == len(paths)


async def test_another_encoder_has_another_validator(client, monkeypatch):
    """A release of Pillow may compress the same pixels to other bytes."""
    before = (await client.get(IMAGE)).headers["etag"]
    monkeypatch.setattr("serving.routes.ENCODER_VERSIONS", ("pillow 999",))
    assert (await client.get(IMAGE)).headers["etag"] != before


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("tiny/versions/2/images/4294967296.png", 400, "seed"),
        ("tiny/versions/2/images/-1.png", 404, "seed"),
        ("tiny/versions/2/images/07.png", 404, "seed"),
        ("tiny/versions/2/images/7.gif", 404, "seed"),
        ("tiny/versions/2/images/7.png?truncation=x", 400, "truncation"),
        ("tiny/versions/2/images/7.png?truncation=0", 400, "truncation"),
        ("tiny/versions/2/images/7.png?class_idx=1", 400, "class_idx"),
        ("classes/versions/1/images/7.png?class_idx=4", 400, "class_idx"),
        ("classes/versions/1/images/7.png?class_idx=1&class_idx=2", 400, "class_idx"),
        ("tiny/versions/2/images/7.png?seed=9", 400, "seed"),
        ("vector/versions/1/images/7.png", 400, "format"),
        ("tiny/versions/9/images/7.png", 404, "model"),
        ("tiny/versions/champion/images/7.png", 404, "version"),
        ("tiny/versions/02/images/7.png", 404, "version"),
        ("nope/versions/1/images/7.png", 404, "model"),
        ("..%2Ftiny/versions/2/images/7.png", 404, None),
        ("tiny%00/versions/2/images/7.png", 404, "model"),
    ],
)
async def test_what_is_wrong_with_an_address(client, path, status, field):
    """404 for what does not exist, 400 for a wrong value, with the field."""
    answer = await client.get(f"/models/{path}")
    assert answer.status_code == status
    assert field_of(answer) == field


# The catalogue.


async def test_models_says_what_is_served(client, zoo):
    """Every name with its aliases, versions, and the loaded version's facts."""
    models = {model["name"]: model for model in (await client.get("/models")).json()["models"]}
    assert list(models) == ["classes", "tiny", "uniform", "vector"]
    tiny = models["tiny"]
    assert (tiny["champion"], tiny["candidate"], tiny["versions"]) == (2, None, [1, 2])
    assert tiny["serving"]["digest"] == zoo.resolve("tiny").manifest().digest
    assert tiny["serving"]["provider"] == tiny["serving"]["asked_provider"] == "CPUExecutionProvider"
    assert tiny["serving"]["unjudged"] is False
    assert models["classes"]["serving"]["classes"] == ["0", "1", "2", "3"]


async def test_a_variant_answers_under_its_own_digest(tmp_path):
    """/models tells which; header and ETag are of the file that ran; where it cannot run, the metric says so."""
    repository = promoted_repository(tmp_path)
    version = repository.resolve("tiny")
    async with running(create_app(Settings(threads=1), repository)) as client:
        plain = await client.get("/models/tiny/versions/1/images/7.png")
    variant = add_tiny_variant(repository, version)
    promote(repository, version)
    async with running(create_app(Settings(threads=1), repository)) as client:
        fast = await client.get("/models/tiny/versions/1/images/7.png")
        told = (await client.get("/models/tiny/versions/1")).json()
    assert fast.headers["x-model-digest"] == variant.manifest().digest != plain.headers["x-model-digest"]
    assert fast.headers["etag"] != plain.headers["etag"]
    assert told["manifest"]["digest"] == plain.headers["x-model-digest"]
    assert told["serving"]["variant"] == told["variants"][0]["name"] == "fast"
    variant.model_path.unlink()
    async with running(create_app(Settings(threads=1), repository)) as client:
        again = await client.get("/models/tiny/versions/1/images/7.png")
        told = (await client.get("/models/tiny")).json()["serving"]
        assert 'genserve_variant_fallback{model="tiny"} 1.0' in (await client.get("/metrics")).text
    assert again.content == plain.content
    assert "cannot read" in told["variant_passed_over"]


async def test_a_damaged_name_does_not_hide_the_others(tmp_path):
    """It is listed with what is wrong, and with what still serves."""
    repository = Repository(tmp_path)
    promote_tiny(repository)
    promote_tiny(repository, "other")
    async with running(create_app(Settings(threads=1), repository)) as client:
        (tmp_path / "tiny" / "aliases.json").write_text("{")
        models = {model["name"]: model for model in (await client.get("/models")).json()["models"]}
    assert "damaged" in models["tiny"]["error"]
    assert models["tiny"]["serving"]["version"] == models["other"]["serving"]["version"] == 1


async def test_a_version_shows_manifest_and_verdicts(client):
    """And numerics and provider where it is loaded."""
    version = (await client.get("/models/tiny/versions/2")).json()
    assert version["manifest"]["version"] == 2
    assert version["verdicts"][0]["decision"] == "pass"
    assert re.fullmatch("[0-9a-f]{12}", version["serving"]["numerics"])
    assert (await client.get("/models/tiny/versions/1")).json()["serving"] is None
    assert (version["variants"], version["serving"]["variant"]) == ([], None)
    history = (await client.get("/models/tiny")).json()["history"]
    assert [event["event"] for event in history][:3] == ["published", "judged", "promoted"]


async def test_the_catalogue_names_no_person_and_no_path(tmp_path):
    """Who did something and where a data set lay stay in the repository; a data set's name is told."""
    repository = Repository(tmp_path)
    version = promote_tiny(repository)
    manifest = version.manifest()
    async with running(create_app(Settings(threads=1), repository)) as client:
        for data in ("/home/jane/pictures", "C:\\pictures", "../x.npz", "fashion-mnist"):
            provenance = msgspec.structs.replace(
                manifest.provenance, data=data, configuration={"data": data, "loss": "hinge"}
            )
            path = version.path / "manifest.json"
            path.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, provenance=provenance)))
            document = (await client.get("/models/tiny/versions/1")).json()["manifest"]["provenance"]
            told = {"data": data} if data == "fashion-mnist" else {}
            assert document["configuration"] == {"loss": "hinge", **told}
            assert document.get("data") == told.get("data")
        history = (await client.get("/models/tiny")).json()["history"]
        assert repository.history("tiny")[0].by
        assert len(history) == 3
        assert not [event for event in history if "by" in event]


async def test_the_sample_grid(client):
    """The PNG that was published; a vector model has none."""
    answer = await client.get("/models/tiny/versions/2/samples.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")
    assert (await client.get("/models/vector/versions/1/samples.png")).status_code == 404


async def test_model_cards(client):
    """The champion's by its name and by its number, as a page that may load nothing, and as Markdown."""
    page = await client.get("/models/tiny/card")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<h1>tiny@2</h1>" in page.text
    assert whoami() not in page.text
    assert (await client.get("/models/tiny/versions/2/card")).text == page.text
    text = await client.get("/models/tiny/versions/1/card.md")
    assert text.headers["content-type"] == "text/markdown; charset=utf-8"
    assert text.text.startswith("# tiny@1")
    for path in ("nope/card", "tiny/versions/9/card", "tiny/versions/x/card.md"):
        assert (await client.get(f"/models/{path}")).status_code == 404


@pytest.mark.parametrize(
    "path", ["nope", "%2e%2e", "tiny/versions/9", "tiny/versions/x", "tiny/versions/9/samples.png"]
)
async def test_the_catalogue_knows_no_others(client, path):
    """404."""
    answer = await client.get(f"/models/{path}")
    assert answer.status_code == 404
    field_of(answer)


async def test_an_unjudged_model_is_served_only_when_allowed_and_loudly(tmp_path):
    """Refused without the setting; with it, a log line, a metric and /models say so."""
    repository = Repository(tmp_path)
    version = publish_tiny(repository)
    async with running(create_app(Settings(threads=1), repository)) as client:
        answer = await client.post("/sample", json={"model": "tiny@1"})
        assert answer.status_code == 404
        assert "no passing verdict" in answer.json()["detail"]
    (version.path.parent / "aliases.json").write_text('{"champion": 1}')
    async with running(create_app(Settings(threads=1, allow_unjudged=True), repository)) as client:
        assert (await client.post("/sample", json={})).status_code == 200
        assert (await client.get("/models")).json()["models"][0]["serving"]["unjudged"] is True
        assert 'genserve_model_unjudged{model="tiny"} 1.0' in (await client.get("/metrics")).text


# Probes.


async def test_probes(client, app):
    """live always; ready until it drains; requests are answered all the same, and connections given up."""
    assert (await client.get("/health/live")).status_code == 200
    assert (await client.get("/health/ready")).status_code == 200
    app.drain()
    ready = await client.get("/health/ready")
    assert ready.status_code == 503
    assert int(ready.headers["retry-after"]) >= 1
    answer = await client.post("/sample", json={})
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert (await client.get("/health/live")).status_code == 200


async def test_nothing_to_serve_is_not_ready(tmp_path):
    """An empty repository: live, not ready, and requests say when to come back."""
    async with running(create_app(Settings(threads=1), Repository(tmp_path))) as client:
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 503
        answer = await client.post("/sample", json={})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1


# Deadlines.


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "inf", "1,2"])
async def test_a_deadline_is_a_positive_number(client, value):
    """400 otherwise."""
    answer = await client.post("/sample", json={}, headers={"x-request-timeout": value})
    assert answer.status_code == 400
    assert field_of(answer) == "x-request-timeout"


# Common to all.


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-1.2_X", "abc-1.2_X"),
        ("a" * 100, "a" * 64),
        ("a b\tc<d>", "abcd"),
        ("é\x7f", None),
        ("", None),
        (None, None),
    ],
)
async def test_every_answer_has_a_request_id(client, given, kept):
    """The client's, bounded to 64 safe characters, or a new one; errors have one too."""
    headers = {} if given is None else {"x-request-id": given.encode("latin-1")}
    for path in ("/health/live", "/nope"):
        answer = await client.get(path, headers=headers)
        found = answer.headers["x-request-id"]
        assert found == kept if kept else re.fullmatch("[0-9a-f]{16}", found)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/sample", 405),
        ("DELETE", "/models", 405),
        ("POST", "/", 405),
        ("BREW", "/sample", 405),
        ("GET", "/v3", 404),
        ("GET", "/static/../app.py", 404),
        ("GET", "/static/%2e%2e%2fapp.py", 404),
        ("GET", "/" + "a/" * 500, 404),
        ("GET", "/static/nope.js", 404),
        ("PUT", "/nope", 404),
    ],
)
async def test_what_no_route_answers(client, method, path, status):
    """problem+json; 405 says what is allowed."""
    answer = await client.request(method, path)
    assert answer.status_code == status
    field_of(answer)
    assert ("allow" in answer.headers) == (status == 405)
    allowed = answer.headers.get("allow", "").split(", ")
    assert ("HEAD" in allowed) == ("GET" in allowed)


@pytest.mark.parametrize("path", ["/", "/docs", "/metrics", "/static/playground.js", "/static/playground.css"])
async def test_texts_name_their_charset_once(client, path):
    """A second one makes the header invalid."""
    content_type = (await client.get(path)).headers["content-type"]
    assert content_type.count("charset=") == 1
    assert content_type.endswith("; charset=utf-8")


async def test_the_limit_of_images_can_be_asked_for(client, settings):
    """GET /models says it: the playground never asks for more."""
    assert (await client.get("/models")).json()["limits"] == {"max_images": settings.max_images}


async def test_head_and_options(client):
    """HEAD is GET without the body; OPTIONS says what is allowed."""
    head, get = await client.head(IMAGE), await client.get(IMAGE)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == get.headers["etag"]
    assert head.headers["content-length"] == str(len(get.content))
    options = await client.options("/sample")
    assert (options.status_code, "POST" in options.headers["allow"]) == (204, True)


# Pages.


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_load_nothing_from_elsewhere(client, path):
    """Every reference is to this server, which has it; the policy forbids the rest; no script stands in the page."""
    page = await client.get(path)
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    references = re.findall(r'(?:src|href)="([^"#]*)"', page.text)
    assert not [r for r in references if "//" in r]
    assert "<script>" not in page.text
    for reference in references:
        answer = await client.get(f"/{reference}")
        assert answer.status_code == 200, reference
    assert (await client.get(path, headers={"if-none-match": page.headers["etag"]})).status_code == 304


def test_our_own_scripts_and_styles_name_no_other_server():
    """Playground and documentation page."""
    for name in ("playground.js", "playground.css", "docs.js", "index.html", "docs.html"):
        text = (STATIC / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//cdn|@import", text), name


async def test_the_document_describes_every_route(client, app):
    """Path by path and method by method; it is OpenAPI 3.1, and its references lead somewhere."""
    document = (await client.get("/openapi.json")).json()
    routes = {
        (route.path_format, method.lower())
        for route in app.routes.routes
        for method in (route.methods or {"POST"}) - {"OPTIONS"}  # plain ASGI routes are POST's
        if not route.path_format.startswith(("/static", "/favicon"))
    }
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    assert described == routes
    assert document["openapi"] == "3.1.0"
    for name in set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document))):
        assert name in document["components"]["schemas"]


# Metrics.

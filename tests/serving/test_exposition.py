"""What /metrics says: by route template, method and status, and nothing that a client could invent."""

import re

import msgspec

from models.promotion import promote
from models.repository import Repository
from models.testkit import fake_verdict, promote_tiny, publish_tiny
from serving.app import create_app
from serving.metrics import Metrics
from serving.settings import Settings
from tests.serving.kit import running

IMAGE = "/models/tiny/versions/2/images/7.png"


async def test_metrics_count_by_template_method_and_status(client):
    """No label that a client can invent."""
    await client.post("/sample", json={"seed": 7, "num_images": 3})
    await client.post("/sample", json={"seed": 8, "num_images": 3})
    await client.post("/sample", json={"seed": "x"})
    for i in range(20):
        await client.get(f"/nope/{i}")
        await client.request(f"M{i}", "/sample")
        await client.get(f"/models/m{i}/versions/1/images/1.png")
    text = (await client.get("/metrics")).text
    for line in (
        'genserve_requests_total{method="POST",route="/sample",status="200"} 2.0',
        'genserve_requests_total{method="POST",route="/sample",status="400"} 1.0',
        'genserve_requests_total{method="GET",route="unmatched",status="404"} 20.0',
        'genserve_requests_total{method="other",route="/sample",status="405"} 20.0',
        'genserve_request_duration_seconds_count{method="POST",route="/sample",status="200"} 2.0',
        "genserve_requests_in_progress 1.0",
        'genserve_images_generated_total{model="tiny"} 4.0',
        'genserve_images_served_total{model="tiny"} 6.0',
        'genserve_cache_requests_total{result="hit",tier="local"} 2.0',
        'genserve_cache_requests_total{result="miss",tier="local"} 4.0',
        'genserve_stage_duration_seconds_count{stage="encode"} 2.0',
        "genserve_queue_images 0.0",
        "genserve_queue_limit_images 128.0",
        "genserve_queue_wait_seconds 0.0",
        'genserve_model_fd{extractor="fake@0000",model="tiny",version="2"} 0.5',
        "genserve_ready 1.0",
        "genserve_draining 0.0",
        "genserve_provider_fallback 0.0",
        'genserve_variant_fallback{model="tiny"} 0.0',
    ):
        assert line in text.splitlines(), line
    assert re.search(r'genserve_model_info\{digest="[0-9a-f]{64}",model="tiny",.*provider="CPUExecution', text)
    assert len([line for line in text.splitlines() if line.startswith("genserve_requests_total")]) < 10


async def test_a_cache_error_is_an_increase(tmp_path):
    """The series of every tier begin at 0, Redis's where there is one."""
    for redis_url in (None, "redis://127.0.0.1:1"):
        app = create_app(Settings(threads=1, redis_url=redis_url), Repository(tmp_path))
        lines = app.service.metrics.exposition().decode().splitlines()
        assert 'genserve_cache_requests_total{result="error",tier="local"} 0.0' in lines
        assert ('genserve_cache_requests_total{result="error",tier="redis"} 0.0' in lines) == (redis_url is not None)


async def test_an_unjudged_version_on_demand_raises_the_metric(tmp_path):
    """While a champion with a verdict answers for the name; a verdict lowers it again and shows its FD."""
    repository = Repository(tmp_path)
    promote_tiny(repository, seed=1)
    version = publish_tiny(repository, seed=2)
    app = create_app(Settings(threads=1, allow_unjudged=True), repository)
    async with running(app) as client:
        assert 'genserve_model_unjudged{model="tiny"} 0.0' in (await client.get("/metrics")).text
        assert (await client.post("/sample", json={"model": "tiny@2"})).status_code == 200
        assert 'genserve_model_unjudged{model="tiny"} 1.0' in (await client.get("/metrics")).text
        repository.add_verdict(version, fake_verdict(version, version.manifest(), champion=1))
        promote(repository, version, why="test")
        await app.service.live.refresh()
        text = (await client.get("/metrics")).text
    assert 'genserve_model_unjudged{model="tiny"} 0.0' in text
    assert re.search(r'genserve_model_fd\{extractor="[^"]+",model="tiny",version="2"\}', text)


def test_a_replaced_version_leaves_no_series_behind():
    """After a promotion only the new version's information and FD are there."""
    metrics = Metrics()
    for version, fd in ((1, ("a@1", 3.0)), (2, None)):
        metrics.model_live("tiny", version=version, digest="d", provider="p", numerics="n", when=0.0, fd=fd)
    text = metrics.exposition().decode()
    assert 'version="1"' not in text
    assert 'genserve_model_info{digest="d",model="tiny",numerics="n",provider="p",version="2"} 1.0' in text
    assert "genserve_model_fd{" not in text


async def test_metrics_may_have_a_port_of_their_own(zoo, settings):
    """Then they are not here."""
    async with running(create_app(msgspec.structs.replace(settings, metrics_port=0), zoo)) as client:
        assert (await client.get("/metrics")).status_code == 404

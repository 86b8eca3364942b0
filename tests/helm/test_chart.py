"""What the chart renders: valid for Kubernetes, secure by default, and in the service's own words."""

import json
import re
import tomllib
from typing import Any

import kubernetes_validate
import pytest

from serving.settings import NAMES, PREFIX, load_settings
from tests.helm.chart import (
    CHART,
    RENDERINGS,
    ROOT,
    TRUSTED,
    Document,
    environment,
    of_kind,
    pod,
    render,
    rendering,
    run_helm,
)

KUBERNETES = "1.37"
CUSTOM = {"ServiceMonitor"}  # of the Prometheus operator: no schema of Kubernetes' own
OWNED = {"host", "port", "models", "metrics_port", "redis_url"}  # set by other values of the chart
NOT_OFFERED = {
    "api_keys_file",
    "signing_key",
    "data",
}  # this version refuses them, or servers do not use them

each_rendering = pytest.mark.parametrize("name", RENDERINGS)


def test_the_chart_lints_strictly() -> None:
    """`helm lint --strict` finds nothing to warn of."""
    done = run_helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


def test_the_chart_packages(tmp_path: Any) -> None:
    """`helm package` makes an archive, and its app version is the version of the service."""
    done = run_helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf'^appVersion: "{re.escape(version)}"$', (CHART / "Chart.yaml").read_text(), re.MULTILINE)
    assert [path.name for path in tmp_path.iterdir()] == [f"genserve-{version}.tgz"]


@each_rendering
def test_every_rendering_is_valid_for_kubernetes(name: str) -> None:
    """Each document satisfies Kubernetes' own schema, unknown fields refused."""
    for document in rendering(name):
        if document["kind"] not in CUSTOM:
            assert kubernetes_validate.validate(document, KUBERNETES, strict=True) == KUBERNETES


@each_rendering
def test_every_pod_is_confined(name: str) -> None:
    """No root, no writable root file system, no capability, no token, no service links; init containers included."""
    spec = pod(rendering(name))
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, container["name"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, container["name"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, container["name"]


@each_rendering
def test_every_service_account_keeps_its_token(name: str) -> None:
    """An account of the chart's mounts no token by itself."""
    for document in rendering(name):
        if document["kind"] == "ServiceAccount":
            assert document["automountServiceAccountToken"] is False


@each_rendering
def test_probes_ask_what_they_should(name: str) -> None:
    """Startup and readiness ask for readiness; liveness asks for the event loop alone."""
    (container,) = pod(rendering(name))["containers"]
    asked = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert asked == {
        "startupProbe": {"path": "/health/ready", "port": "http"},
        "readinessProbe": {"path": "/health/ready", "port": "http"},
        "livenessProbe": {"path": "/health/live", "port": "http"},
    }


@each_rendering
def test_the_grace_time_covers_a_stop(name: str) -> None:
    """Kubernetes kills no pod before its preStop, its drain and its longest request have ended."""
    spec = pod(rendering(name))
    settings = load_settings(None, environment(rendering(name)) | {"GENSERVE_REDIS_URL": ""})
    stop = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    longest = stop + settings.drain_seconds + settings.request_timeout_seconds + 1  # the service closes within a second
    assert spec["terminationGracePeriodSeconds"] > longest


@each_rendering
def test_the_service_accepts_its_environment(name: str) -> None:
    """Every variable that the chart sets is a setting of the service, with a value that it takes."""
    variables = environment(rendering(name))
    load_settings(None, variables | {"GENSERVE_REDIS_URL": "redis://redis:6379/0"})
    assert {key for key in variables if key.startswith(PREFIX)} <= {PREFIX + known.upper() for known in NAMES}


def test_the_chart_offers_every_setting() -> None:
    """A setting that is new in the service must be offered by the chart, or left out on purpose."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    offered = {
        re.sub("[A-Z]", lambda m: "_" + m[0].lower(), key) for key in schema["properties"]["config"]["properties"]
    }
    assert offered.isdisjoint(OWNED | NOT_OFFERED)
    assert offered | OWNED | NOT_OFFERED == set(NAMES)


def test_settings_arrive_as_they_were_given() -> None:
    """Large whole numbers lose no digit and gain no exponent; fractions, lists and booleans arrive too."""
    settings = load_settings(None, environment(rendering("settings")))
    given = RENDERINGS["settings"]["config"]
    assert settings.cache_bytes == given["cacheBytes"]
    assert settings.max_queue_images == given["maxQueueImages"]
    assert settings.poll_seconds == given["pollSeconds"]
    assert settings.drain_seconds == given["drainSeconds"]
    assert settings.allow_unjudged is True
    assert settings.providers == ("OpenVINOExecutionProvider", "CPUExecutionProvider")
    assert settings.default_model == given["defaultModel"]
    assert load_settings(None, environment(rendering("trust"))).trusted_keys == tuple(TRUSTED)


def test_changed_settings_restart_the_pods() -> None:
    """The pods' checksum follows the settings, and nothing else."""
    plain, changed = render({}), render({"config": {"maxBatchSize": 8}})
    replicas = render({"replicaCount": 3})
    assert _checksum(plain) != _checksum(changed)
    assert _checksum(plain) == _checksum(replicas)


def test_a_gpu_is_asked_for() -> None:
    """Requests and limits name the GPUs, the other amounts stay, and CUDA is preferred."""
    spec = pod(rendering("gpu"))
    resources = spec["containers"][0]["resources"]
    plain = pod(rendering("cpu"))["containers"][0]["resources"]
    assert resources["limits"] == plain["limits"] | {"nvidia.com/gpu": 2}
    assert resources["requests"] == plain["requests"] | {"nvidia.com/gpu": 2}
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["containers"][0]["image"].endswith("-gpu")
    settings = load_settings(None, environment(rendering("gpu")))
    assert settings.providers == ("CUDAExecutionProvider", "CPUExecutionProvider")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("redis", "rediss://:secret:redis/redis-password@redis.cache.svc:6379/0"),
        ("redis-url", "secret:redis/url"),
        ("redis-open", "redis://redis:6379/3"),
    ],
)
def test_redis_is_reached_without_a_password_in_the_chart(name: str, url: str) -> None:
    """The password stays in its secret: the kubelet puts it into the URL."""
    assert environment(rendering(name))["GENSERVE_REDIS_URL"] == url
    assert "GENSERVE_REDIS_URL" not in of_kind(rendering(name), "ConfigMap")["data"]


@pytest.mark.parametrize("name", ["pvc", "host-path", "init-container", "everything"])
def test_the_service_cannot_write_to_its_models(name: str) -> None:
    """The repository is mounted read-only, where GENSERVE_MODELS says."""
    (container,) = pod(rendering(name))["containers"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "models"]
    assert mount["readOnly"] is True
    assert mount["mountPath"] == environment(rendering(name))["GENSERVE_MODELS"]


def test_a_claim_is_mounted() -> None:
    """The claim and the folder inside it are the ones that were named, and the volume itself is read-only."""
    spec = pod(rendering("pvc"))
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": "generators", "readOnly": True}
    mounts = {mount["name"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    assert mounts["models"]["subPath"] == "production"


def test_an_init_container_fills_the_models_first() -> None:
    """It may write to the volume that the service reads."""
    spec = pod(rendering("init-container"))
    (fill,) = spec["initContainers"]
    assert {"name": "models", "mountPath": "/models"} in fill["volumeMounts"]
    assert fill["image"] == "registry.example.com/models:7"


@each_rendering
def test_selectors_find_the_pods(name: str) -> None:
    """Service, budget, deployment and monitor select what the chart makes."""
    documents = rendering(name)
    deployment = of_kind(documents, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    service = of_kind(documents, "Service")
    assert service["spec"]["selector"].items() <= labels
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    for document in documents:
        if document["kind"] == "PodDisruptionBudget":
            assert document["spec"]["selector"]["matchLabels"].items() <= labels
        if document["kind"] == "ServiceMonitor":
            assert document["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    for constraint in pod(documents).get("topologySpreadConstraints", []):
        assert constraint["labelSelector"]["matchLabels"].items() <= labels


def test_metrics_may_have_a_port_of_their_own() -> None:
    """Container, service, setting and monitor agree about it."""
    documents = rendering("seen")
    (container,) = pod(documents)["containers"]
    assert {"name": "metrics", "containerPort": 9090, "protocol": "TCP"} in container["ports"]
    assert environment(documents)["GENSERVE_METRICS_PORT"] == "9090"
    (endpoint,) = of_kind(documents, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in of_kind(documents, "Service")["spec"]["ports"]}
    assert (endpoint["port"], endpoint["path"]) == ("metrics", "/metrics")


def test_the_dashboard_is_found_by_grafana() -> None:
    """The config map carries the sidecar's label and the dashboard as it is, its braces untouched."""
    (board,) = [
        d for d in rendering("seen") if d["kind"] == "ConfigMap" and d["metadata"]["name"].endswith("dashboards")
    ]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(board["data"]["genserve.json"]) == json.loads(
        (CHART / "dashboards" / "genserve.json").read_text()
    )


def test_long_release_names_stay_valid() -> None:
    """No name is longer than the 63 characters that a label may have."""
    release = "r" * 53  # helm's own limit
    for document in render(RENDERINGS["everything"], release=release):
        assert len(document["metadata"]["name"]) <= 63


def test_notes_render() -> None:
    """What helm prints after an installation names the release's own service and its grace time."""
    done = run_helm("install", "live", str(CHART), "--namespace", "prod", "--dry-run=client")
    assert done.returncode == 0, done.stderr
    assert "port-forward service/live-genserve 8000:80" in done.stdout
    assert "at most 46 s of its 60 s" in done.stdout


def _checksum(documents: list[Document]) -> str:
    annotations: dict[str, str] = of_kind(documents, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    return annotations["checksum/config"]

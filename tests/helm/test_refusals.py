"""Values that are wrong are refused, and the refusal names them."""

import json
from typing import Any

import pytest
import yaml

from tests.helm.chart import CHART, Values, run_helm, template

REFUSED: dict[str, tuple[Values, str]] = {
    "unknown": ({"replicas": 3}, "'replicas' not allowed"),
    "unknown inside": ({"image": {"tagg": "1"}}, "'/image': additional properties 'tagg' not allowed"),
    "unknown setting": ({"config": {"maxBatch": 3}}, "'/config': additional properties 'maxBatch' not allowed"),
    "word for a number": ({"replicaCount": "two"}, "/replicaCount"),
    "number out of range": ({"config": {"maxBatchSize": 0}}, "/config/maxBatchSize"),
    "log level": ({"config": {"logLevel": "loud"}}, "/config/logLevel"),
    "provider": ({"config": {"providers": ["rocm"]}}, "/config/providers/0"),
    "no time-out": ({"config": {"requestTimeoutSeconds": None}}, "requestTimeoutSeconds"),
    "source": ({"models": {"source": "s3"}}, "/models/source"),
    "claim missing": ({"models": {"source": "pvc"}}, "/models/pvc/claimName"),
    "path missing": ({"models": {"source": "hostPath"}}, "/models/hostPath/path"),
    "path relative": ({"models": {"source": "hostPath", "hostPath": {"path": "srv"}}}, "/models/hostPath/path"),
    "image missing": ({"models": {"source": "initContainer"}}, "/models/initContainer/image"),
    "secret missing": ({"externalRedis": {"secretKeys": {"url": "url"}}}, "/externalRedis/existingSecret"),
    "host with a port": ({"externalRedis": {"host": "redis:6379"}}, "/externalRedis/host"),
    "hosts missing": ({"ingress": {"enabled": True}}, "/ingress/hosts"),
    "digest": ({"image": {"digest": "latest"}}, "/image/digest"),
    "same port": ({"metrics": {"port": 8000}}, "/metrics/port"),
    "probe's path": ({"livenessProbe": {"httpGet": {"path": "/"}}}, "'/livenessProbe'"),
    "hook": ({"lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}}}, "'/lifecycle/preStop'"),
    "amount": ({"resources": {"limits": {"memory": "lots"}}}, "/resources/limits/memory"),
    "label": ({"grafana": {"dashboards": {"labels": {"grafana_dashboard": 1}}}}, "grafana_dashboard"),
    "grace": ({"terminationGracePeriodSeconds": 46}, "terminationGracePeriodSeconds is 46 and must be more than 46"),
    "drain": ({"config": {"drainSeconds": 23.5}}, "terminationGracePeriodSeconds is 60 and must be more than 60"),
    "set twice": ({"extraEnv": [{"name": "GENSERVE_HOST", "value": "::"}]}, "extraEnv: GENSERVE_HOST is set"),
    "secret set twice": (
        {"externalRedis": {"host": "redis"}, "extraEnv": [{"name": "GENSERVE_REDIS_URL", "value": "redis://x"}]},
        "extraEnv: GENSERVE_REDIS_URL is set",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_values_are_refused_by_name(case: str) -> None:
    """helm renders nothing, and says which value it was."""
    values, said = REFUSED[case]
    done = template(values)
    assert done.returncode != 0
    assert done.stdout == ""
    assert said in done.stderr


def test_old_clusters_are_refused() -> None:
    """The chart needs what Kubernetes has since 1.30."""
    done = run_helm("template", "live", str(CHART), "--kube-version", "1.29.0")
    assert done.returncode != 0
    assert "1.30" in done.stderr


def test_the_schema_knows_every_default() -> None:
    """Each value has a rule, and each rule a default: nothing is offered that values.yaml does not show."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    _compare(schema, defaults, "")


OPTIONAL = {  # timings that Kubernetes has defaults for, and what only lists and other kinds hold
    "/startupProbe/initialDelaySeconds", "/readinessProbe/initialDelaySeconds", "/livenessProbe/initialDelaySeconds",
    "/readinessProbe/successThreshold", "/resources/claims",
}  # fmt: skip


def _compare(schema: dict[str, Any], defaults: dict[str, Any], path: str) -> None:
    if "properties" not in schema:
        return  # free-form: Kubernetes' own
    assert schema["additionalProperties"] is False, path
    missing = {key for key in schema["properties"].keys() - defaults.keys() if f"{path}/{key}" not in OPTIONAL}
    assert not missing, f"{path}: no default for {missing}"
    assert defaults.keys() <= schema["properties"].keys(), path
    for key, value in defaults.items():
        if isinstance(value, dict):
            _compare(schema["properties"][key], value, f"{path}/{key}")

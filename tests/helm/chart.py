"""Runs the real helm over the chart, and names the renderings. Knows nothing of what they must hold."""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "genserve"
Document = dict[str, Any]
Values = dict[str, Any]

GPU: Values = {
    "gpu": {"enabled": True, "count": 2},
    "runtimeClassName": "nvidia",
    "nodeSelector": {"nvidia.com/gpu.present": "true"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "updateStrategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
}
REDIS: Values = {"externalRedis": {"host": "redis.cache.svc", "existingSecret": "redis", "tls": True}}
PVC: Values = {"models": {"source": "pvc", "pvc": {"claimName": "generators", "subPath": "production"}}}
INIT: Values = {
    "models": {
        "source": "initContainer",
        "initContainer": {
            "image": "registry.example.com/models:7",
            "command": ["cp", "-r", "/zoo/.", "/models/"],
            "env": [{"name": "BUCKET", "value": "generators"}],
        },
    }
}
SEEN: Values = {
    "metrics": {"port": 9090, "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "grafana": {"dashboards": {"enabled": True}},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "hosts": [{"host": "genserve.example.com", "paths": [{"path": "/", "pathType": "Prefix"}]}],
        "tls": [{"secretName": "genserve-tls", "hosts": ["genserve.example.com"]}],
    },
}
PODS: Values = {
    "image": {"repository": "registry.example.com/genserve", "digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccount": {"annotations": {"example.com/role": "genserve"}},
    "priorityClassName": "high",
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}
    ]}}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "podAnnotations": {"example.com/owner": "images"},
    "podLabels": {"team": "images"},
    "extraEnv": [{"name": "TZ", "value": "UTC"}, {"name": "GENSERVE_MAX_BATCH_SIZE", "value": "8"}],
    "extraVolumes": [{"name": "cache", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    "initContainers": [{"name": "wait", "image": "busybox:1.37", "command": ["true"], "securityContext": {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}}],
    "service": {"type": "LoadBalancer", "port": 8080, "annotations": {"example.com/lb": "internal"}},
}  # fmt: skip
SETTINGS: Values = {
    "config": {
        "defaultModel": "fashion-mnist@3",
        "providers": ["openvino", "cpu"],
        "threads": 4,
        "maxBatchSize": 32,
        "maxImages": 64,
        "maxQueueImages": 1_000_000,
        "maxLoadedVersions": 3,
        "pollSeconds": 0.5,
        "requestTimeoutSeconds": 2.5,
        "drainSeconds": 0,
        "cacheBytes": 17_179_869_184,
        "cacheTtlSeconds": 31_536_000,
        "stockImages": 500,
        "monitor": 0.05,
        "shadowShare": 0.25,
        "shadowModels": ["fashion-mnist", "shoes"],
        "redisTimeoutSeconds": 0.015,
        "allowUnjudged": True,
        "logFormat": "console",
        "logLevel": "debug",
    }
}
TRUSTED = [
    "/VHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=",
    "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
]  # of RFC 8032
RENDERINGS: dict[str, Values] = {
    "cpu": {},
    "gpu": GPU,
    "redis": REDIS,
    "redis-url": {"externalRedis": {"existingSecret": "redis", "secretKeys": {"url": "url"}}},
    "redis-open": {"externalRedis": {"host": "redis", "username": "genserve", "db": 3}},
    "pvc": PVC,
    "host-path": {"models": {"source": "hostPath", "hostPath": {"path": "/srv/generators"}}},
    "init-container": INIT,
    "seen": SEEN,
    "pods": PODS,
    "settings": SETTINGS,
    "trust": {"config": {"trustedKeys": TRUSTED}},
    "recreate": {
        "updateStrategy": {"type": "Recreate"},
        "pdb": {"enabled": False},
        "serviceAccount": {"create": False},
    },
    "everything": GPU | REDIS | PVC | SEEN,
}


def helm() -> str:
    """The path of the helm binary; skips the test, with the reason, where it cannot be had."""
    done = _get_helm()
    if done.returncode:
        pytest.skip(done.stderr.strip())
    return done.stdout.strip()


@functools.cache  # a failure too: without a network it takes long to fail
def _get_helm() -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "helm/get_helm.py"], cwd=ROOT, capture_output=True, text=True, check=False)


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """helm with these arguments, in a home of its own: nothing of this machine's configuration counts."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"PATH": os.environ["PATH"], "HOME": home, "HELM_NO_PLUGINS": "1"}
        return subprocess.run([helm(), *arguments], capture_output=True, text=True, env=environment, check=False)


def template(values: Values, *, release: str = "live") -> subprocess.CompletedProcess[str]:
    """`helm template` with these values, in the namespace `prod`."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        return run_helm("template", release, str(CHART), "--namespace", "prod", "--values", file.name)


def render(values: Values, *, release: str = "live") -> list[Document]:
    """The documents that these values make."""
    done = template(values, release=release)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@functools.cache
def rendering(name: str) -> tuple[Document, ...]:
    """One of RENDERINGS, made once."""
    return tuple(render(RENDERINGS[name]))


def of_kind(documents: tuple[Document, ...] | list[Document], kind: str) -> Document:
    """The only document of a kind."""
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def pod(documents: tuple[Document, ...] | list[Document]) -> Document:
    """The pod template's spec."""
    spec: Document = of_kind(documents, "Deployment")["spec"]["template"]["spec"]
    return spec


def environment(documents: tuple[Document, ...] | list[Document]) -> dict[str, str]:
    """What the service finds in its environment; a secret's value is `secret:NAME/KEY`, references are expanded."""
    (container,) = pod(documents)["containers"]
    (source,) = container["envFrom"]
    maps = {d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"}
    values: dict[str, str] = dict(maps[source["configMapRef"]["name"]])
    for entry in container.get("env", []):
        secret = entry.get("valueFrom", {}).get("secretKeyRef")
        text = f"secret:{secret['name']}/{secret['key']}" if secret else entry["value"]
        for known, value in values.items():  # as the kubelet does, from the variables before
            text = text.replace(f"$({known})", value)
        values[entry["name"]] = text
    return values

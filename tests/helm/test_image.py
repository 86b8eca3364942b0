"""Dockerfile and compose.yaml as files. No container engine is at hand here: nothing of them is built or run."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from serving.settings import load_settings
from tests.helm.chart import ROOT, of_kind, rendering
from tests.helm.processes import program

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE_TEXT = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "compose.yaml").read_text())  # as compose does, unset
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def _instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, arguments), continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


INSTRUCTIONS = _instructions(DOCKERFILE)
FINAL = INSTRUCTIONS[max(index for index, (word, _) in enumerate(INSTRUCTIONS) if word == "FROM") :]


def _last(word: str) -> str:
    return [rest for found, rest in FINAL if found == word][-1]


def test_the_dockerfile_lints() -> None:
    """hadolint has nothing to say."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_runs_confined() -> None:
    """The user is numeric and not root, the same that the chart asks for; the entry point needs no shell."""
    user, group = _last("USER").split(":")
    security = of_kind(rendering("cpu"), "Deployment")["spec"]["template"]["spec"]["securityContext"]
    assert (int(user), int(group)) == (security["runAsUser"], security["runAsGroup"])
    assert json.loads(_last("ENTRYPOINT")) + json.loads(_last("CMD")) == ["genserve", "serve"]
    assert _last("HEALTHCHECK").partition(" CMD ")[2].startswith('["python"')


def test_no_build_tool_is_in_the_final_image() -> None:
    """The final stage takes the finished environment and runs no package manager."""
    assert [rest for word, rest in FINAL if word == "COPY"] == ["--from=build /opt/genserve /opt/genserve"]
    runs = " ".join(rest for word, rest in FINAL if word == "RUN")
    assert not re.search(r"\b(pip|apt-get|apt|gcc|make)\b", runs)


def test_the_base_image_is_pinned() -> None:
    """A Python down to its patch release, of the series that the project supports."""
    (default,) = re.findall(r"^ARG PYTHON=(.*)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"3\.\d+\.\d+-slim-\w+", default)
    assert all(rest.startswith("python:${PYTHON}") for word, rest in INSTRUCTIONS if word == "FROM")


def test_the_image_carries_the_version() -> None:
    """Its label, its chart and the project agree."""
    assert f"ARG VERSION={PROJECT['project']['version']}\n" in DOCKERFILE
    assert SERVICES["genserve"]["image"] == f"genserve:{PROJECT['project']['version']}"


def test_the_builder_gets_what_it_copies() -> None:
    """Every package of the project is copied, exists, and is let through by .dockerignore; nothing else is."""
    copied = {
        source
        for word, rest in INSTRUCTIONS
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == let_through
    assert all((ROOT / source).exists() for source in copied)
    packages = {name.partition(".")[0] for name in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert packages <= copied


def test_the_extras_exist() -> None:
    """What EXTRA may be is what the project offers."""
    assert {"cpu", "gpu"} <= PROJECT["project"]["optional-dependencies"].keys()
    assert "ARG EXTRA=cpu\n" in DOCKERFILE


def test_the_service_accepts_the_image_s_settings() -> None:
    """Every GENSERVE_ variable of the image is a setting, with a value that the service takes."""
    variables = dict(re.findall(r"(GENSERVE_\w+)=(\S+)", _last("ENV")))
    assert load_settings(None, variables).host == "0.0.0.0"


def test_compose_is_valid() -> None:
    """The file satisfies the Compose specification; a misspelt key would not."""
    assert compose_spec.PyCompose.from_yaml(COMPOSE_TEXT).service_names() == ["genserve", "redis", "prometheus"]
    with pytest.raises(ValueError, match="cap_drp"):
        compose_spec.PyCompose.from_yaml(COMPOSE_TEXT.replace("cap_drop", "cap_drp"))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_of_compose_is_confined(name: str) -> None:
    """A read-only root, no capability, no new privileges, a health check, a pinned image, loopback ports alone."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"]
    assert re.search(r":v?\d+\.\d+\.\d+", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_compose_gives_the_service_time_to_stop() -> None:
    """Its settings are ones that the service takes, and the grace time covers its drain and its longest request."""
    settings = load_settings(None, SERVICES["genserve"]["environment"])
    grace = compose_spec.parse_duration(SERVICES["genserve"]["stop_grace_period"])
    assert grace > settings.drain_seconds + settings.request_timeout_seconds


def test_compose_s_prometheus_is_configured(tmp_path: Path) -> None:
    """promtool accepts the configuration, and it scrapes the service by its name in the network."""
    path = tmp_path / "genserve.yml"
    path.write_text(COMPOSE["configs"]["prometheus"]["content"])
    done = subprocess.run([program("promtool"), "check", "config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (scrape,) = yaml.safe_load(path.read_text())["scrape_configs"]
    assert scrape["static_configs"][0]["targets"] == ["genserve:8000"]

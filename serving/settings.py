"""The settings of a server: command line over environment over TOML file, strict. Knows nothing of what they steer."""

import argparse
import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from models.errors import Invalid
from models.keys import public_keys
from models.runtime import PROVIDERS
from serving.errors import SettingsError

PREFIX = "GENSERVE_"
SETTINGS_FILE = "genserve.toml"
PROVEN_BATCH = 64  # images: loading proves that samples do not depend on their neighbours up to this many, no further

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=86_400)]

# What Kubernetes injects into every pod of a namespace that has a Service called genserve (or genserve-something).
INJECTED_NAME = re.compile(r"GENSERVE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
INJECTED_VALUE = re.compile(r"(tcp|udp|sctp)://\S+")
INJECTED_PORT = re.compile(r"GENSERVE_(\w+_)?PORT")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a person may set; field `max_images` is GENSERVE_MAX_IMAGES and `max_images` in the TOML file.

    Args:
        models: model repository; None for ./repository where it exists, else the shipped zoo.
        default_model: the model of requests that name none.
        host: address to listen on.
        port: port to listen on; 0 for any free one.
        metrics_port: port for /metrics alone; None serves it beside everything else.
        workers: HTTP processes; 1 does everything in one process, more share one process with the engines.
        providers: ONNX Runtime providers by preference: cpu, cuda, tensorrt, openvino, or their full names; none for
            the GPU first where this ONNX Runtime is built for one, and the processor.
        threads: inference threads, one image batch each; 0 for as many as there are usable cores, or one where the
            provider in use is a GPU's.
        max_batch_size: images in one call of the network; at most 64, up to which loading proves them independent; None
            for 8 where the provider in use computes on the processor (cpu, openvino) and 64 elsewhere.
        max_images: images in one request; at most max_queue_images.
        max_queue_images: images that may wait for an engine, over all requests.
        max_loaded_versions: versions kept loaded on demand, beside the champions.
        request_timeout_seconds: default and upper limit of a request's time.
        drain_seconds: how long requests are still answered after SIGTERM while ready says 503.
        poll_seconds: how often the repository is looked at for a new champion.
        redis_url: shared cache; None for none.
        redis_timeout_seconds: the most that Redis may cost a request.
        cache_bytes: bound of the in-process cache; 0 for no cache at all, Redis included.
        cache_ttl_seconds: how long a cached sample is kept.
        stock_images: fresh images kept ready, over all models and in at most 16 MB, for requests of one image without a
            seed; 0 for none.
        monitor: share of one core that, in idle time alone, fresh samples are drawn and held against the promotion's
            real ones with, more while a model looks wrong; 0 for no monitor.
        shadow_share: share of the load that candidates run too, without answering; 0 for none.
        shadow_models: names whose candidates do; none for all.
        allow_unjudged: serve versions without a passing verdict, loudly.
        api_keys_file: file of API keys; None for an open server.
        trusted_keys: public keys, or files of them; verdicts and promotions count only where one of them signed.
        signing_key: file of the private key that commands sign with; unused by servers.
        data: where data sets are kept (training's; accepted and unused here).
        log_format: "console" for people, "json" for machines.
        log_level: the least severe level that is written.
    """

    models: str | None = None
    default_model: str | None = None
    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    port: Port = 8000
    metrics_port: Port | None = None
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    providers: tuple[str, ...] = ()
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    max_batch_size: Annotated[int, Meta(ge=1, le=PROVEN_BATCH)] | None = None
    max_images: Count = 256
    max_queue_images: Count = 1024
    max_loaded_versions: Annotated[int, Meta(ge=1, le=1000)] = 2
    request_timeout_seconds: PositiveSeconds = 30.0
    drain_seconds: Seconds = 5.0
    poll_seconds: PositiveSeconds = 2.0
    redis_url: str | None = None
    redis_timeout_seconds: PositiveSeconds = 0.02
    cache_bytes: Annotated[int, Meta(ge=0)] = 128 * 1024 * 1024
    cache_ttl_seconds: Annotated[int, Meta(ge=1, le=31_536_000)] = 86_400
    stock_images: Annotated[int, Meta(ge=0, le=1_000_000)] = 64
    monitor: Share = 0.2
    shadow_share: Share = 0.0
    shadow_models: tuple[str, ...] = ()
    allow_unjudged: bool = False
    api_keys_file: str | None = None
    trusted_keys: tuple[str, ...] = ()
    signing_key: str | None = None
    data: str | None = None
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


NAMES = tuple(Settings.__struct_fields__)


def load_settings(arguments: argparse.Namespace | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process.

    Args:
        arguments: of serving.arguments; None for none. What is None in it was not given.
        environment: names beginning with GENSERVE_ are ours, but for those that Kubernetes injects.

    Raises:
        SettingsError: an unknown name, a bad value, or values that contradict each other; it names the setting.
    """
    given = {name: value for name, value in vars(arguments or argparse.Namespace()).items() if value is not None}
    values: dict[str, tuple[str, Any, bool]] = {}  # name -> (what a person calls it, value, whether it has a type)
    for name, value in _from_file(given.get("config")).items():
        values[name] = (f"{name} (settings file)", value, True)
    for name, value in _from_environment(environment).items():
        values[name] = (PREFIX + name.upper(), value, False)
    for name in ("host", "port", "models"):
        if name in given:
            values[name] = (f"--{name}", given[name], False)
    settings = Settings(**{name: _convert(name, *given) for name, given in values.items()})
    if "max_images" not in values:  # only what a person asked for may contradict the queue's bound
        settings = msgspec.structs.replace(settings, max_images=min(settings.max_images, settings.max_queue_images))
    _check(settings)
    return settings


def _from_file(path: str | None) -> dict[str, Any]:
    """The TOML file's values; {} where no file was named and ./genserve.toml is missing."""
    file = Path(path) if path is not None else Path(SETTINGS_FILE)
    if path is None and not file.exists():
        return {}
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"cannot be read: {error}", field=str(file)) from error
    for name in values:
        if name not in NAMES:
            raise SettingsError(f"{_unknown(name, NAMES)} (in {file})", field=name)
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Our variables by field name; those that Kubernetes injects are left out, empty ones count as not set."""
    values = {}
    for variable, value in environment.items():
        if not variable.startswith(PREFIX) or _injected(variable, value):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in NAMES or variable != variable.upper():
            raise SettingsError(_unknown(variable, [PREFIX + known.upper() for known in NAMES]), field=variable)
        if value.strip():
            values[name] = value.strip()
    return values


def _unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"unknown setting; did you mean {close[0]}?" if close else f"unknown setting; known: {', '.join(known)}"


def _injected(variable: str, value: str) -> bool:
    if INJECTED_NAME.fullmatch(variable):
        return True
    return bool(INJECTED_PORT.fullmatch(variable) and INJECTED_VALUE.fullmatch(value))


def _convert(name: str, label: str, value: Any, typed: bool) -> Any:  # noqa: ANN401 it takes anything
    """One value as its field's type; where its source has types of its own (TOML), text is no number."""
    if name == "providers":
        return _providers(label, value)
    if name == "trusted_keys":
        return _trusted_keys(label, value)
    if name == "shadow_models":
        return _listed(label, value, "models")
    hint = _HINTS[name]
    try:
        return msgspec.convert(value, hint, strict=typed or not isinstance(value, str))
    except msgspec.ValidationError as error:
        raise SettingsError(f"{value!r} is not valid: {error}", field=label) from error


def _listed(label: str, value: Any, what: str) -> tuple[str, ...]:  # noqa: ANN401 see _convert
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) and part.strip() for part in parts):
        raise SettingsError(f"{value!r} is not a comma-separated list of {what}", field=label)
    return tuple(part.strip() for part in parts)


def _providers(label: str, value: Any) -> tuple[str, ...]:  # noqa: ANN401 see _convert
    parts = _listed(label, value, "providers")
    known = {**PROVIDERS, **{full.lower(): full for full in PROVIDERS.values()}}
    for part in parts:
        if part.strip().lower() not in known:
            raise SettingsError(f"unknown provider {part.strip()!r}; known: {', '.join(PROVIDERS)}", field=label)
    return tuple(dict.fromkeys(known[part.strip().lower()] for part in parts))


def _trusted_keys(label: str, value: Any) -> tuple[str, ...]:  # noqa: ANN401 see _convert
    """Public keys themselves: what the files held at start is what counts until the next."""
    try:
        return public_keys(_listed(label, value, "public keys or files of them"))
    except Invalid as error:
        raise SettingsError(error.detail, field=label) from error


def _check(settings: Settings) -> None:
    """Refuse values that contradict each other, and features that this version does not have yet."""
    if settings.max_images > settings.max_queue_images:
        raise SettingsError(
            f"{settings.max_images} is above GENSERVE_MAX_QUEUE_IMAGES ({settings.max_queue_images}): "
            "a request of that size could never be queued",
            field="GENSERVE_MAX_IMAGES",
        )
    if settings.trusted_keys and settings.allow_unjudged:
        raise SettingsError(
            "it would serve what no key in GENSERVE_TRUSTED_KEYS vouches for: leave one of them unset",
            field="GENSERVE_ALLOW_UNJUDGED",
        )
    if settings.api_keys_file is not None:
        raise SettingsError("this version has no API keys; leave it unset", field="GENSERVE_API_KEYS_FILE")


_HINTS = {field.name: field.type for field in msgspec.structs.fields(Settings)}

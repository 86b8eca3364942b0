"""Settings: every name of the contract, strict about everything else."""

import argparse

import pytest

from models.golden import MIXED_BATCHES
from models.keys import make_key
from serving.arguments import add_serve_arguments
from serving.errors import SettingsError
from serving.settings import PROVEN_BATCH, Settings, load_settings


def load(**environment):
    return load_settings(None, {f"GENSERVE_{name}": value for name, value in environment.items()})


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_nothing_set_gives_the_defaults():
    """A server needs no settings."""
    assert load() == Settings()


def test_environment_beats_file_and_arguments_beat_both(tmp_path):
    """genserve.toml in the working directory < environment < command line."""
    (tmp_path / "genserve.toml").write_text('port = 1\nhost = "a"\nmax_images = 3\n')
    parser = argparse.ArgumentParser()
    add_serve_arguments(parser)
    settings = load_settings(parser.parse_args(["--port", "3"]), {"GENSERVE_PORT": "2", "GENSERVE_HOST": "b"})
    assert (settings.port, settings.host, settings.max_images) == (3, "b", 3)


def test_config_names_another_file(tmp_path):
    """--config FILE is read instead of ./genserve.toml, and must exist."""
    (tmp_path / "other.toml").write_text("drain_seconds = 1.5\nproviders = ['cuda', 'cpu']\nallow_unjudged = true\n")
    settings = load_settings(argparse.Namespace(config=str(tmp_path / "other.toml")), {})
    assert settings.drain_seconds == 1.5
    assert settings.providers == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert settings.allow_unjudged
    with pytest.raises(SettingsError, match=r"missing\.toml"):
        load_settings(argparse.Namespace(config="missing.toml"), {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("MAX_IMAGES", "0"),
        ("MAX_IMAGES", "1.5"),
        ("CACHE_BYTES", "-1"),
        ("DRAIN_SECONDS", "nan"),
        ("DRAIN_SECONDS", "inf"),
        ("POLL_SECONDS", "0"),
        ("REQUEST_TIMEOUT_SECONDS", "-3"),
        ("ALLOW_UNJUDGED", "perhaps"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
        ("PROVIDERS", "tpu"),
        ("PROVIDERS", ","),
        ("MAX_LOADED_VERSIONS", "0"),
        ("MAX_BATCH_SIZE", "0"),
        ("MAX_BATCH_SIZE", "65"),
        ("THREADS", "-1"),
        ("CACHE_TTL_SECONDS", "0"),
        ("REDIS_TIMEOUT_SECONDS", "0"),
        ("WORKERS", "0"),
        ("WORKERS", "257"),
        ("MAX_QUEUE_IMAGES", "x"),
        ("METRICS_PORT", "x"),
        ("STOCK_IMAGES", "-1"),
    ],
)
def test_a_bad_value_is_an_error_that_names_it(name, value):
    """The error names the variable."""
    with pytest.raises(SettingsError) as error:
        load(**{name: value})
    assert error.value.field == f"GENSERVE_{name}"
    assert error.value.exit_status == 2


def test_batches_are_no_larger_than_what_loading_proves():
    """Independence of neighbours is checked up to the largest mixed batch, and promised no further."""
    assert max(MIXED_BATCHES) == PROVEN_BATCH
    assert load(MAX_BATCH_SIZE=str(PROVEN_BATCH)).max_batch_size == PROVEN_BATCH


def test_an_unknown_name_is_an_error_that_offers_the_nearest():
    """A typo does not go unnoticed, in the environment or in the file."""
    with pytest.raises(SettingsError, match=r"GENSERVE_MAX_IMAGE.*GENSERVE_MAX_IMAGES"):
        load(MAX_IMAGE="3")
    with pytest.raises(SettingsError, match="GENSERVE_port"):
        load(port="3")


@pytest.mark.parametrize(
    ("text", "field"), [("prot = 1", "prot"), ("port = '1x'", "port"), ("port = '80'", "port"), ("port = ", "genserve")]
)
def test_a_bad_file_is_an_error(tmp_path, text, field):
    """Unknown names, bad values and broken TOML in the file."""
    (tmp_path / "genserve.toml").write_text(text)
    with pytest.raises(SettingsError) as error:
        load()
    assert error.value.field.startswith(field)


def test_what_kubernetes_injects_is_ignored():
    """Names of service links are recognised, for services called genserve and genserve-something."""
    injected = {
        "PORT": "tcp://10.0.0.1:8000",
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "8000",
        "SERVICE_PORT_HTTP": "8000",
        "PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "PORT_8000_TCP_ADDR": "10.0.0.1",
        "PORT_8000_TCP_PORT": "8000",
        "PORT_8000_TCP_PROTO": "tcp",
        "REDIS_SERVICE_HOST": "10.0.0.2",
        "REDIS_PORT": "tcp://10.0.0.2:6379",
    }
    assert load(**injected) == Settings()


def test_what_is_not_supported_yet_is_refused():
    """A setting that would change nothing is not accepted in silence."""
    with pytest.raises(SettingsError, match="this version"):
        load(API_KEYS_FILE="keys")


def test_trusted_keys_are_pasted_or_in_files(tmp_path):
    """A list in the environment or in TOML; the settings hold the keys themselves."""
    first, second = make_key().public, make_key().public
    (tmp_path / "release.pub").write_text(f"{second} release\n")
    assert load(TRUSTED_KEYS=f"{first}, release.pub").trusted_keys == (first, second)
    (tmp_path / "genserve.toml").write_text(f'trusted_keys = ["{first}"]')
    assert load().trusted_keys == (first,)


@pytest.mark.parametrize("value", ["k.pub", "AAAA", ","])
def test_a_trusted_key_that_is_none_stops_the_start(value):
    """Else a server would trust nobody, or everybody."""
    with pytest.raises(SettingsError) as error:
        load(TRUSTED_KEYS=value)
    assert error.value.field == "GENSERVE_TRUSTED_KEYS"


def test_trusting_keys_and_serving_the_unjudged_contradict_each_other():
    """One of them must be left unset."""
    with pytest.raises(SettingsError, match="GENSERVE_TRUSTED_KEYS") as error:
        load(TRUSTED_KEYS=make_key().public, ALLOW_UNJUDGED="1")
    assert error.value.field == "GENSERVE_ALLOW_UNJUDGED"


def test_a_request_larger_than_the_queue_is_refused_at_start():
    """The limit of images is at most the queue's bound; where only the bound is set, the limit follows it."""
    with pytest.raises(SettingsError) as error:
        load(MAX_IMAGES="65", MAX_QUEUE_IMAGES="64")
    assert error.value.field == "GENSERVE_MAX_IMAGES"
    assert load(MAX_QUEUE_IMAGES="64").max_images == 64


def test_shares_and_names_of_monitor_and_shadow():
    """Shares lie within 0 and 1; names come as a list."""
    settings = load(MONITOR="0", SHADOW_SHARE="0.05", SHADOW_MODELS="shoes, hats")
    assert (settings.monitor, settings.shadow_share, settings.shadow_models) == (0.0, 0.05, ("shoes", "hats"))
    for name, value in (("MONITOR", "1.5"), ("SHADOW_SHARE", "-0.1"), ("SHADOW_MODELS", "shoes,,hats")):
        with pytest.raises(SettingsError) as refused:
            load(**{name: value})
        assert refused.value.field == f"GENSERVE_{name}"

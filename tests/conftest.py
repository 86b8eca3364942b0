"""Of all tests: an example may take its time; a busy machine is no counterexample."""

from hypothesis import HealthCheck, settings

settings.register_profile("genserve", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("genserve")

"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# Tests assert no times: on a busy machine, any example may take long.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

"""Settings of all tests."""

import gc
import signal

from hypothesis import HealthCheck, settings

# Tests assert no times, because any example may be slow on a busy machine.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A script that runs the tests in the background makes them and their processes ignore Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep what was imported and collected from being searched for garbage again and again while tests run."""
    gc.collect()
    gc.freeze()

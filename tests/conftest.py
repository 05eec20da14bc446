"""Settings of all tests."""

import gc
import os
import signal

from hypothesis import HealthCheck, settings

# Tests assert no times, because any example may be slow on a busy machine.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Tests load the same networks at every run. They expect the ordinary way, and must not fill the user's cache.
os.environ.setdefault("DCFORMAT_CACHE", "kernels")

# A script that runs the tests in the background makes them and their processes ignore Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Everything that is imported or collected lasts until the end, so searching it for garbage only takes time.
gc.disable()


def pytest_collection_finish() -> None:
    """Search for garbage while tests run, but not among the objects that were imported or collected."""
    gc.collect()
    gc.freeze()
    gc.enable()

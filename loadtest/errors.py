"""Why a load test or a benchmark cannot be trusted, or cannot be run."""

from cacheproxy.errors import CacheproxyError


class LoadTestError(CacheproxyError):
    """The load test or benchmark cannot be run; the message says why."""


class NotAnswered(LoadTestError):
    """A request was not answered with 2xx, so that no figure of the run means anything."""

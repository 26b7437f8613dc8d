"""cacheproxy: a semantic caching proxy in front of inference."""

__version__ = "0.1.0"

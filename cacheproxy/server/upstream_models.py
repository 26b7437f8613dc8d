"""Which embedding models upstreams serve, and how they relate to the local models."""

from collections.abc import Iterator, Sequence

from cacheproxy.inference.engine import Engine, LocalEngine
from cacheproxy.routes.exchange import ModelInfo
from cacheproxy.server.fingerprints import (
    local_fingerprint,
    name_upstream,
    upstream_fingerprint,
)
from cacheproxy.server.local_models import LocalModel
from cacheproxy.upstreams.embedding import UpstreamEngine
from cacheproxy.upstreams.fallback import Upstreams
from cacheproxy.upstreams.standin import StandIn


def upstream_models(upstreams: Upstreams, models: Sequence[LocalModel]) -> Iterator[ModelInfo]:
    """Yield the models that only upstreams serve.

    A fingerprint names the first upstream that serves the model; the others are its fallbacks.
    """
    local = {name for model in models for name in model.names}
    for name, first in upstreams.embeddings().items():
        if name not in local:
            dimensions = first.embeddings[name]
            yield ModelInfo(
                name, (), upstream_fingerprint(first.base_url, name, dimensions), dimensions
            )


def make_local_engine(model: LocalModel, upstreams: Upstreams) -> tuple[Engine, str]:
    """Return a local model's engine, and the fingerprint of its results.

    If an upstream serves the same model, one of the two is the fallback of the other; entries come
    from the one that is tried first.

    Raises:
        ConfigError: the upstream's model has other dimensions.
    """
    installed = model.installed
    local = LocalEngine(model.batcher, model.tokenizer)
    fingerprint = local_fingerprint(installed, upstreams)
    name = name_upstream(installed, upstreams)
    if name is None:
        return local, fingerprint
    theirs = UpstreamEngine(upstreams, name, installed.dimensions, model.tokenizer)
    if not upstreams.embeddings()[name].before_local:
        return StandIn(local, theirs, keyed_by=local), fingerprint
    return StandIn(theirs, local, keyed_by=local), fingerprint

"""A store's figures as gauges, read at each scrape."""

from cacheproxy.stores.protocol import IndexStats, Store
from cacheproxy.telemetry.metrics import Metrics


def show_store(store: Store, metrics: Metrics) -> None:
    """Make the gauges read what the store holds and what it has heard of purges."""

    def index() -> IndexStats:
        return store.stats().index

    metrics.store_entries.set_function(lambda: store.stats().entries)
    metrics.store_bytes.set_function(lambda: store.stats().live_bytes)
    metrics.undecryptable.set_function(lambda: store.stats().undecryptable)
    metrics.store_nodes_unanswered.set_function(lambda: store.stats().unanswered)
    metrics.purge_generation.set_function(lambda: store.purges.generation)
    metrics.purges_heard.set_function(lambda: store.purges.is_listening)
    metrics.semantic_index_up.set_function(lambda: index().is_up)
    metrics.semantic_index_documents.set_function(lambda: index().documents)
    metrics.semantic_index_failures.set_function(lambda: index().failures)
    metrics.semantic_index_bytes.set_function(lambda: index().size_bytes)
    metrics.semantic_index_indexed_ratio.set_function(lambda: index().indexed_ratio)
    metrics.semantic_index_rebuilds.set_function(lambda: index().rebuilds)

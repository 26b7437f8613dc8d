"""What the engine of an upstream's embedding model says about the probe of its texts."""

from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.settings.sections import UpstreamSettings
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.upstreams.embedding import UpstreamEngine
from cacheproxy.upstreams.fallback import Upstreams


def test_a_text_that_the_local_tokenizer_cuts_has_no_probe(installed):
    tokenizer = Tokenizer(installed.tokenizer_json, 16)
    settings = {"u": UpstreamSettings(base_url="http://127.0.0.1/v1", embeddings={"big": 8})}
    engine = UpstreamEngine(Upstreams(settings, Metrics()), "big", 8, tokenizer)
    short, long = tokenizer.encode(["a short text", "the same header " * 20 + "and another end"])

    assert engine.probe_sees_all(short)
    assert not engine.probe_sees_all(long)
    assert not engine.probe_sees_all(())  # token ids of the upstream's own vocabulary

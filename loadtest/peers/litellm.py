"""LiteLLM's proxy with its cache in memory, in front of a cacheproxy that has the model.

Only hits are compared, because LiteLLM passes unseen texts on to its upstream.
"""

import json

from .peer import Peer, Place

_MODEL = "all-MiniLM-L6-v2"


def _command(place: Place) -> list[str]:
    config = {
        "model_list": [
            {
                "model_name": _MODEL,
                "litellm_params": {
                    "model": f"openai/{_MODEL}",
                    "api_base": f"{place.upstream}/v1",
                    "api_key": "unused",
                },
            }
        ],
        "litellm_settings": {
            "cache": True,
            "cache_params": {"type": "local", "supported_call_types": ["embedding", "aembedding"]},
        },
    }
    path = place.folder / "config.yaml"
    path.write_text(json.dumps(config))  # YAML can be written as JSON
    command = [str(place.python.parent / "litellm"), "--config", str(path), "--telemetry", "False"]
    return [*command, "--host", "127.0.0.1", "--port", str(place.port)]


LITELLM = Peer(
    name="LiteLLM, cache in memory",
    packages=(("litellm[proxy]",),),
    command=_command,
    ready_path="/health/liveliness",
    model=_MODEL,
    phases=("hits",),
    environment={
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    },
)

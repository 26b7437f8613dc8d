"""Writes the dashboard: `python deploy/grafana/dashboard.py > deploy/grafana/cacheproxy.json`.

Everything that all panels share is said once, here, so that nobody edits the JSON by hand.
"""

import json
import sys
from typing import Any

from panels import ROWS, Panel

_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH = 24


def _defaults(panel: Panel) -> dict[str, Any]:
    steps = [{"value": value, "color": colour} for value, colour in panel.steps]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": None if panel.title == "Threshold by namespace" else 0,
        "max": panel.most,
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 60 if panel.is_stacked else 8,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.is_stacked else "none"},
        }
    if panel.names:
        options = {
            value: {"text": text, "color": colour} for value, (text, colour) in panel.names.items()
        }
        defaults["mappings"] = [{"type": "value", "options": options}]
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {"graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}}
    if panel.kind == "heatmap":
        return {"calculate": False, "yAxis": {"unit": "short"}, "color": {"scheme": "Purples"}}
    return {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list", "placement": "bottom"}}


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    form = "heatmap" if panel.kind == "heatmap" else "time_series"
    return {
        "id": number,
        "title": panel.title,
        "description": panel.text,
        "type": panel.kind,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": expression,
                "legendFormat": legend,
                "format": form,
            }
            for index, (expression, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {
            "defaults": _defaults(panel),
            "overrides": [
                {
                    "matcher": {"id": "byName", "options": legend},
                    "properties": [
                        {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}
                    ],
                }
                for legend, colour in panel.colours.items()
            ],
        },
        "options": _options(panel),
    }


def _panels() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    y = 0
    for title, panels in ROWS.items():
        place = {"x": 0, "y": y, "w": _WIDTH, "h": 1}
        made.append({"id": len(made) + 1, "type": "row", "title": title, "gridPos": place})
        x, y = 0, y + 1
        height = 4 if panels[0].kind == "stat" else 8
        for panel in panels:
            if x + panel.width > _WIDTH:
                x, y = 0, y + height
            place = {"x": x, "y": y, "w": panel.width, "h": height}
            made.append(_panel(panel, len(made) + 1, place))
            x += panel.width
        y += height
    return made


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    job = {
        "name": "job",
        "type": "query",
        "label": "Job",
        "datasource": _DATASOURCE,
        "query": "label_values(cacheproxy_build_info, job)",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }
    source = {"name": "datasource", "type": "datasource", "label": "Source", "query": "prometheus"}
    return {
        "uid": "cacheproxy",
        "title": "cacheproxy",
        "tags": ["cacheproxy"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [source, job]},
        "panels": _panels(),
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1)
    sys.stdout.write("\n")

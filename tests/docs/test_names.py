"""Settings and metrics that the pages name exist under that name."""

import re

import pytest
from pages import PAGES, ROOT, code_spans, name_of

from cacheproxy.settings.settings import Settings, setting_fields
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.supervisor_metrics import SupervisorMetrics

SETTING = re.compile(r"([a-z]+)\.([a-z][a-z_]*)(?: = .*)?")
SERIES = re.compile(r"(cacheproxy_[a-z_]+)(?:\{.*\})?")

CURRENT = [page for page in PAGES if page != ROOT / "CHANGELOG.md"]
"""What tells of today; the changelog tells of the past."""


def series() -> set[str]:
    families = [
        family
        for metrics in (Metrics(), SupervisorMetrics())
        for family in metrics.registry.collect()
    ]
    ends = ("", "_total", "_info", "_bucket", "_sum", "_count")
    return {family.name + end for family in families for end in ends}


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_every_setting_of_a_section_that_a_page_names_exists(page):
    known = {path for path, _ in setting_fields()}
    sections = {path[0] for path in known if len(path) == 2} & Settings.model_fields.keys()

    named = [found.groups() for span in code_spans(page) if (found := SETTING.fullmatch(span))]
    assert [name for name in named if name[0] in sections and name not in known] == []


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_every_metric_that_a_page_names_exists(page):
    named = [found[1] for span in code_spans(page) if (found := SERIES.fullmatch(span))]

    assert [name for name in named if name not in series()] == []

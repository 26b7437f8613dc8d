"""The generated reference pages say what the code says."""

import subprocess
import sys

from pages import ROOT

SCRIPT = "docs/reference/generate.py"


def check() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_the_reference_pages_are_up_to_date():
    checked = check()

    assert checked.returncode == 0, checked.stderr


def test_the_settings_reference_has_every_setting():
    from cacheproxy.settings.settings import is_secret, setting_fields

    page = (ROOT / "docs" / "reference" / "settings.md").read_text()

    fields = list(setting_fields())
    variables = ["`CACHEPROXY_" + "_".join(path).upper() + "`" for path, _ in fields]
    assert [variable for variable in variables if variable not in page] == []
    flags = {"`--" + "-".join(path).replace("_", "-") + "`": is_secret(it) for path, it in fields}
    assert [flag for flag, hidden in flags.items() if (flag in page) == hidden] == []


def test_the_metrics_reference_has_every_series():
    from cacheproxy.telemetry.metrics import Metrics

    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()

    names = [family.name for family in Metrics().registry.collect()]
    ours = [name for name in names if name.startswith("cacheproxy_")]
    assert [name for name in ours if f"`{name}" not in page] == []


def test_the_overview_of_the_api_names_every_path_and_header():
    import cacheproxy.api
    from cacheproxy.api.openapi import PUBLIC, declared, document

    overview = (ROOT / "docs" / "api.md").read_text()
    paths = document(PUBLIC, declared(cacheproxy.api))["paths"]
    operations = [operation for path in paths.values() for operation in path.values()]
    headers = {
        parameter["name"]
        for operation in operations
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "header"
    }
    assert [name for name in (*paths, *headers) if name not in overview] == []

"""The example for Hugging Face Spaces."""

import re
import runpy
from pathlib import Path

import pytest
import yaml

SPACE = Path(__file__).parents[2] / "examples" / "space"
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def test_the_space_is_configured_for_the_gradio_that_is_tested():
    text = (SPACE / "README.md").read_text(encoding="utf-8")
    about = yaml.safe_load(text.split("---\n")[1])
    assert about["sdk"] == "gradio"
    assert (SPACE / about["app_file"]).is_file()
    assert f"gradio=={about['sdk_version']}\n" in CONSTRAINTS.read_text()
    assert len(about["short_description"]) <= 60  # the hub's limit
    assert re.match(r"prsr\[web\] @ ", (SPACE / "requirements.txt").read_text().splitlines()[1])


def test_the_space_serves_on_every_address(monkeypatch):
    served = []
    monkeypatch.setattr(
        "prsr.web.server.serve",
        lambda app, host, port, _: served.append(
            (host, port, [route.path for route in app.routes if hasattr(route, "path")])
        ),
    )
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SPACE / "app.py"), run_name="__main__")
    assert not ended.value.code
    ((host, port, paths),) = served
    assert (host, port) == ("0.0.0.0", 7860)
    assert "/sample" in paths

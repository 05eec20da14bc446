"""A browser shows the page of a report without complaints, in both themes and on a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from dcformat_cli.main import cli

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MODEL = Path(__file__).parents[2] / "models" / "lenet-5.dcf"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")]

#: A page that shows the report in a frame as wide as a phone or a screen, and then writes its measurements.
FRAME = """<!DOCTYPE html><body style="margin:0">
<iframe id="frame" src="page.html" width="{width}" height="800"></iframe>
<pre id="found"></pre><script>
window.onload = () => {{
  const page = document.getElementById("frame").contentDocument, root = page.documentElement;
  const shown = (name) => getComputedStyle(page.querySelector(name)).display != "none";
  const labels = [...page.querySelectorAll(".label")].filter((label) => label.offsetParent);
  document.getElementById("found").textContent = JSON.stringify([
    root.scrollWidth <= {width}, shown(".wide"), shown(".narrow"), getComputedStyle(page.body).backgroundColor,
    labels.some((label) => label.offsetHeight > label.parentElement.offsetHeight),
    [...page.images].every((image) => image.naturalWidth > 0),
  ]);
}};
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "page.html"
    assert CliRunner().invoke(cli, ["report", str(MODEL), "-o", str(path)]).exit_code == 0
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("width", "dark", "expected"),
    [
        (360, False, '[true,false,true,"rgb(247, 247, 244)",false,true]'),
        (1200, True, '[true,true,false,"rgb(18, 20, 24)",false,true]'),
    ],
)
def test_the_page_fits_its_window_in_both_themes(
    page: str, tmp_path: Path, width: int, dark: bool, expected: str
) -> None:
    assert BROWSER is not None
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width))
    arguments = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom",
        "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", (tmp_path / "frame.html").as_uri(),
    ]  # fmt: skip
    found = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in found.stderr
    match = re.search(r'<pre id="found">(.*?)</pre>', found.stdout)
    assert match is not None
    assert match[1] == expected

"""The cells for exploring by hand in JupyterLab, in a real Chromium: a key on a slider changes the
picture beside it, and keys that lead nowhere else leave it as it was."""

import shutil
import sys
from pathlib import Path

import pytest
from scipy.ndimage import gaussian_filter
from small_workspace import environment

from spacenet5_nb import raster

sys.path.insert(0, str(Path(__file__).parent))
from test_browser import browser  # noqa: E402, F401  (fixtures)
from test_jupyterlab import close_notebook, lab, page, run_all, see  # noqa: E402, F401

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
PICTURE = f"{PANEL} .widget-image, {PANEL} .jupyter-widgets img"


@pytest.fixture(scope="module")
def place(world):
    """The small workspace with a run whose probabilities are the truth's masks, blurred:
    a threshold moves their edges. (folder, environment)"""
    made = world.home / "sliders/demo"
    shutil.copytree(world.home / "outputs/demo", made)
    for path in made.glob("probs/*.tif"):
        _, grid, names = raster.read_named(path)
        mask = raster.read(made / "masks" / path.name)
        raster.write(path, gaussian_filter(mask, (0, 2, 2)), grid=grid, descriptions=names)
    own = {"SPACENET5_PROGRESS": "0"} | {
        key: str(world.home / folder)
        for key, folder in (
            ("JUPYTER_CONFIG_DIR", ".jupyter"),
            ("JUPYTER_DATA_DIR", ".data"),
            ("JUPYTER_RUNTIME_DIR", ".run"),
            ("IPYTHONDIR", ".ipython"),
        )
    }
    return world.home, environment(world.home, "sliders") | own


def picture_bytes(page):  # noqa: F811
    "The PNG that the reader sees."
    read = """async e => Array.from(new Uint8Array(await (await fetch(e.src)).arrayBuffer()))"""
    return bytes(page.locator(PICTURE).last.evaluate(read))


def press(page, control, key):  # noqa: F811
    "Press a key on a slider's handle; what the reader sees when the picture has been drawn again."
    image = page.locator(PICTURE).last
    before = image.get_attribute("src")
    row = page.locator(f"{PANEL} .widget-slider", has_text=control).last
    row.locator(".noUi-handle").first.press(key)
    page.wait_for_function(
        "([where, before]) => [...document.querySelectorAll(where)].pop().src !== before",
        arg=[PICTURE, before],
    )
    return picture_bytes(page)


def test_a_key_on_a_slider_draws_another_picture(page):  # noqa: F811
    cells = run_all(page, "06_vectorize.ipynb")
    see(page, cells[-1:])
    first = picture_bytes(page)
    assert first.startswith(b"\x89PNG")
    surer = press(page, "threshold", "PageUp")
    assert surer.startswith(b"\x89PNG") and surer != first
    assert press(page, "threshold", "PageDown") == first, "the same threshold, the same picture"
    assert press(page, "spur, m", "End") != first
    close_notebook(page)

"""The notebooks in JupyterLab, in a real Chromium: each opens; the tour 01, 06, 07, 08 runs by Run
All on the demo's data, and what it shows can be seen."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from small_workspace import environment

from spacenet5_nb.workflow.notebook_runner import notebooks

sys.path.insert(0, str(Path(__file__).parent))
from test_browser import Watched, browser  # noqa: E402, F401  (a fixture)

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = [p.relative_to(ROOT / "nbs").as_posix() for p in notebooks()]
EVERY = os.environ.get("SPACENET5_RUN_EVERY_NOTEBOOK")  # also run those that nbdev-test runs anyway
TOUR = ("01_explore", "02_masks", "06_vectorize", "07_apls", "08_maps")
PATIENCE_MS = 300_000  # a limit for a machine that hangs, not a measure
PROGRESS = """() => { const cells = jupyterapp.shell.currentWidget.content.model.cells, out = [];
    for (let i = 0; i < cells.length; i++) {
        const c = cells.get(i);
        if (c.type !== 'code' || !c.sharedModel.source.trim()) continue;
        const outputs = c.outputs.toJSON(), errors = outputs.filter(o => o.output_type === 'error');
        out.push({i, done: c.executionCount !== null && c.executionState !== 'running',
                  kinds: outputs.map(o => o.output_type),
                  error: errors.map(o => o.ename + ': ' + o.evalue).join()}); }
    return out; }"""
ENDED = (
    f"() => {{ const cells = ({PROGRESS})(); return cells.length && (cells.every(c => "
    f"c.done) || cells.some(c => c.error)); }}"
)


@pytest.fixture(scope="module")
def place(world) -> tuple[Path, dict[str, str]]:
    """The small workspace with a run of its own, in which the truth's masks stand for an ensemble's
    probabilities: its roads are many and clear. (folder, environment)"""
    made = world.home / "lab/demo"
    shutil.copytree(world.home / "outputs/demo", made)
    shutil.copytree(made / "masks", made / "probs", dirs_exist_ok=True)
    own = {
        "SPACENET5_PROGRESS": 0,
        "JUPYTER_CONFIG_DIR": world.home / ".jupyter",
        "JUPYTER_DATA_DIR": world.home / ".data",
        "JUPYTER_RUNTIME_DIR": world.home / ".run",
        "IPYTHONDIR": world.home / ".ipython",
    }
    return world.home, environment(world.home, "lab") | {k: str(v) for k, v in own.items()}


@pytest.fixture(scope="module")
def lab(place):
    "A JupyterLab on a loopback port in that workspace; (address, token)."
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed (extra [lab])")
    folder, settings = place
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    token = secrets.token_hex(16)
    options = [
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--allow-root",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.expose_app_in_browser=True",
    ]
    with open(folder / "lab.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            cwd=folder,
            env=settings | {"JUPYTER_TOKEN": token},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for(
                f"http://127.0.0.1:{port}/api/status?token={token}", process, folder / "lab.log"
            )
            yield f"http://127.0.0.1:{port}", token
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(url, process, log, seconds=60):
    for _ in range(seconds * 4):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.status
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"JupyterLab did not start: {log.read_text()[-2000:]}")


@pytest.fixture
def page(browser, lab):  # noqa: F811
    """JupyterLab in a fresh browser context; afterwards: nothing was asked of another address and
    no dialog or error appeared."""
    address, token = lab
    w = Watched(browser, offline=False)
    w.page.goto(f"{address}/lab?token={token}&reset")
    w.page.wait_for_function("window.jupyterapp && jupyterapp.restored")
    w.page.evaluate("jupyterapp.restored")
    yield w.page
    outside = [u for u in w.requests if not u.startswith((address, address.replace("http", "ws")))]
    dialogs = w.dialogs
    w.context.close()
    assert outside == [] and dialogs == []


def open_notebook(page, name, *, kernel=True):
    script = """async ([path, kernel]) => {
        const started = {name: 'python3', shouldStart: true, autoStartDefault: true};
        const kernelPreference = kernel ? started : {shouldStart: false, canStart: false};
        const w = await jupyterapp.commands.execute(
            'docmanager:open', {path, factory: 'Notebook', kernelPreference});
        await w.context.ready; await w.revealed; if (kernel) await w.sessionContext.ready; }"""
    page.evaluate(script, [f"nbs/{name}", kernel])


def close_notebook(page):
    "Close it without saving, and end its kernel."
    page.evaluate(
        """async () => { const w = jupyterapp.shell.currentWidget;
            await w.sessionContext.shutdown(); w.dispose(); }"""
    )


def test_every_notebook_opens(page):
    """Rendered title, every cell, no dialog: a notebook of a newer format, a broken one, or one
    whose cells lack ids would say so here."""
    for name in NOTEBOOKS:
        open_notebook(page, name, kernel=False)
        cells = nbformat.read(ROOT / "nbs" / name, as_version=4).cells
        title = re.match(r"# (.+)", cells[0].source)[1].strip()
        page.locator(
            ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-RenderedMarkdown h1"
        ).first.wait_for(state="visible")
        assert (
            title.replace("`", "")
            in page.locator(
                ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-RenderedMarkdown h1"
            ).first.inner_text()
        ), name
        assert page.evaluate("jupyterapp.shell.currentWidget.content.model.cells.length") == len(
            cells
        ), name
        assert page.locator(".jp-Dialog").count() == 0, (
            name,
            page.locator(".jp-Dialog").all_inner_texts(),
        )
        page.evaluate("jupyterapp.shell.currentWidget.dispose()")


def run_all(page, name):
    "Run All from the menu, as a person would; the state of each code cell at the end."
    open_notebook(page, name)
    page.click("li.lm-MenuBar-item:has-text('Run')")
    page.click("li[data-command='runmenu:run-all']")
    page.wait_for_function(ENDED, timeout=PATIENCE_MS)
    cells = page.evaluate(PROGRESS)
    assert not [c for c in cells if c["error"]], [c for c in cells if c["error"]]
    return cells


def see(page, cells):
    """Scroll to each output as a reader would; its kinds and whether it has a place on the screen;
    pictures must have loaded."""
    seen = []
    for c in cells:
        if not c["kinds"]:
            continue
        page.evaluate(
            "i => { const n = jupyterapp.shell.currentWidget.content; "
            "n.activeCellIndex = i; return n.scrollToItem(i, 'start'); }",
            c["i"],
        )
        output = page.locator(
            ".jp-NotebookPanel:not(.lm-mod-hidden) "
            f".jp-Cell[data-windowed-list-index='{c['i']}'] .jp-OutputArea-output"
        ).first
        output.wait_for(state="visible")
        output.scroll_into_view_if_needed()
        box = output.bounding_box()
        assert box["width"] > 10 and box["height"] > 5, c
        seen.append(
            c
            | {
                "pictures": output.evaluate(
                    "e => [...e.querySelectorAll('img')].map(i => i.naturalWidth)"
                )
            }
        )
    return seen


@pytest.mark.parametrize("name", TOUR)
def test_the_tour_runs_from_first_to_last_cell(page, place, name, tmp_path):
    cells = run_all(page, f"{name}.ipynb")
    shown = see(page, cells)
    assert len(shown) >= 5 and any(w > 100 for c in shown for w in c["pictures"]), (
        "a tour has something to look at"
    )
    page.screenshot(path=tmp_path / "lab.png")
    if name == "08_maps":
        frame = page.locator(
            ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-OutputArea-output iframe"
        ).last
        frame.scroll_into_view_if_needed()
        legend = frame.content_frame.locator(".s5-legend").inner_text(timeout=20_000)
        assert (
            legend.startswith("Predicted speed") and int(re.search(r"(\d+) roads", legend)[1]) > 10
        )
        page.screenshot(path=tmp_path / "map.png")
        made = place[0] / "lab/demo"
        assert (made / "map.html").stat().st_size > 200_000 and (
            made / "map.png"
        ).stat().st_size > 20_000
    close_notebook(page)


@pytest.mark.skipif(
    not EVERY,
    reason="nbdev-test runs these already; set SPACENET5_RUN_EVERY_NOTEBOOK=1 for the browser too",
)
@pytest.mark.parametrize(
    "name", [n for n in NOTEBOOKS if n.split(".")[0] not in TOUR and n != "10_ablations.ipynb"]
)  # it trains for 20 minutes
def test_every_other_notebook_runs_too(page, name):
    run_all(page, name)
    close_notebook(page)


def test_a_cell_that_fails_is_noticed(page, place):
    "The test's own test: an error in a cell is no success."
    nb = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("1 + 1"),
            nbformat.v4.new_code_cell("raise ValueError('on purpose')"),
            nbformat.v4.new_code_cell("2"),
        ]
    )
    nbformat.write(nb, place[0] / "nbs" / "_fails.ipynb")
    with pytest.raises(AssertionError, match="on purpose"):
        run_all(page, "_fails.ipynb")
    close_notebook(page)

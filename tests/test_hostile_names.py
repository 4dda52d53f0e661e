"""Names, tags and ids from data that are scripts, formulas or paths: in files that are written, in
pictures, in executed notebooks and in JupyterLab."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat
import pandas as pd
import pytest
import rasterio
from nbconvert import HTMLExporter
from small_workspace import command, copy_workspace, environment

from spacenet5_nb.chips.tiny_chips import tiny_chip, tiny_label
from spacenet5_nb.core import load_preset, write_text
from spacenet5_nb.model import build, save

sys.path.insert(0, str(Path(__file__).parent))
from test_browser import Watched, browser  # noqa: E402, F401  (fixtures)
from test_jupyterlab import close_notebook, lab, page, run_all, see  # noqa: E402, F401

IDS = [
    "..",
    ".",
    "...",
    "../../b",
    "a\\..\\c",
    "con",
    "NUL.csv",
    ".hidden",
    "dots...",
    "\x00d",
]


def rows(name: str, end: int) -> pd.DataFrame:
    "Two streets of a chip, in pixels."
    lines = [f"LINESTRING (0 0, {end} 0)", f"LINESTRING ({end} 0, {end} 90)"]
    return pd.DataFrame({"ImageId": name, "WKT_Pix": lines})


def test_an_image_id_is_no_path(program, tmp_path):
    "`score --explain` writes into a folder of each id: below --out, whatever the id says."
    for name, end in (("truth", 100), ("found", 80)):
        table = pd.concat([rows(i, end + 5 * k) for k, i in enumerate(IDS)])
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    out = tmp_path / "a/b/c"
    before = set(tmp_path.rglob("*"))
    code, said, err = program(
        "score", "--truth", tmp_path / "truth.csv", "--proposal", tmp_path / "found.csv",
        "--pixel-m", 1, "--out", out, "--explain", len(IDS),
    )  # fmt: skip
    assert code == 0, err
    made = [p for p in tmp_path.rglob("*") if p not in before and not p.is_dir()]
    folders = {p.parent.name for p in made if p.name == "explained.png"}
    assert len(folders) == len(IDS) and all(p.is_relative_to(out) for p in made)
    assert {p.parent for p in made} == {out, *(out / name for name in folders)}
    for name in folders:
        assert name.isprintable() and name.strip(". ") == name and "\\" not in name
        assert name.lower().split(".")[0] not in ("con", "nul")
    code, said, err = program(
        "score", "--truth", tmp_path / "truth.csv", "--proposal", tmp_path / "truth.csv",
        "--pixel-m", 1, "--out", out, "--explain", 1,
    )  # fmt: skip
    assert code == 0 and len([p for p in out.iterdir() if p.is_dir()]) == 1, "others are forgotten"
    outside = {p for p in tmp_path.rglob("*") if out not in (p, *p.parents)}
    assert outside == {*before, out.parent, out.parents[1]}, "nothing above it came or went"


# --- notebooks -----------------------------------------------------------------------------------

RUNS = "top.__pwned = 1"
EVIL = f'<img src=x onerror="{RUNS}">'  # may be the name of a file
WORSE = f"</script><script>{RUNS}</script>{EVIL}<svg onload='{RUNS}'>{{{{ 7*7 }}}}$\\frac$"
FOLDER = f"$\\frac$ _{EVIL}"
PRESET = f"""
base: demo
name: "{EVIL.replace('"', chr(92) + '"')}"
data: {{source: folder, test_fraction: 0.3, test_min: 1, chip_m: 0}}
folds:
  - {{encoder: mobilenetv3_small_050, bands: 3, pretrained: false}}
  - {{encoder: mobilenetv3_small_050, bands: 3, pretrained: false}}
ensemble: {{tta: none}}
"""


def hostile_world(root: Path) -> Path:
    "Chips whose folder, files, tags, kinds of geometry and bands are called like scripts."
    folder = root / FOLDER
    for k in range(6):
        place = divmod(k, 3)
        image = tiny_chip(folder / f"{EVIL} {k}.tif", place, seed=k)
        label = tiny_label(image.with_suffix(".geojson"), place)
        data = json.loads(label.read_text())
        road = data["features"][0]
        road["properties"] = {"highway": "primary", "name": WORSE, "surface": WORSE, WORSE: WORSE}
        shape = road["geometry"]
        data["features"] += [
            road | {"properties": {"highway": WORSE, "maxspeed": WORSE, "lanes": WORSE}},
            road | {"geometry": shape | {"type": WORSE}},
            road | {"geometry": {"type": "Point", "coordinates": shape["coordinates"][0]}},
        ]
        label.write_text(json.dumps(data))
    with rasterio.open(folder / f"{EVIL} 0.tif", "r+") as image:
        image.descriptions = [WORSE] * image.count
        image.update_tags(**{"TIFFTAG_SOFTWARE": WORSE})
    (folder / f"{EVIL} broken.tif").write_bytes(b"II*\0" + bytes(50))
    tiny_chip(folder / f"{EVIL} far.tif", (9, 9))
    named = {"type": "FeatureCollection", "features": [], "crs": {"properties": {"name": WORSE}}}
    (folder / f"{EVIL} far.geojson").write_text(json.dumps(named))
    return folder


def hostile_members(preset: Path, folder: Path) -> None:
    "Members whose headers say the same wherever they may say something."
    for fold in (0, 1):
        net = build(load_preset(preset), fold)
        net.info |= {"preset": WORSE, "network": WORSE, "source": WORSE, "licence": WORSE}
        net.info |= {"attribution": WORSE, "sources": [WORSE], "versions": {WORSE: WORSE}}
        net.info |= {"metrics": {WORSE: 0.5}, "epoch": 1, "stage": 0}
        for name in ("last", "best_dice", "best_apls"):
            save(net, folder / f"{fold}/{name}.safetensors")


class Hostile(NamedTuple):
    "A workspace whose stages ran on such a folder."

    home: Path
    data: Path
    run: Path  # outputs/hostile
    arguments: tuple[str, ...]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Hostile:
    "All stages but 03 and 04; truth's masks stand for what fresh members make of it."
    home = tmp_path_factory.mktemp("hostile")
    copy_workspace(home)
    data, preset = hostile_world(home / "data"), home / f"{EVIL}.yaml"
    preset.write_text(PRESET)
    arguments = ("-p", "run", "hostile", "-p", "preset", str(preset), "-p", "data_root", str(data))
    made = home / "outputs/hostile"
    hostile_members(preset, made / "folds")
    for stage in ("01_explore", "02_masks", "05_ensemble", "06_vectorize", "07_apls", "08_maps"):
        if stage == "06_vectorize":
            shutil.rmtree(made / "probs")
            shutil.copytree(made / "masks", made / "probs")
        more = ("-p", "on_problem", "skip") if stage == "01_explore" else ()
        call = command("run", stage, *arguments, *more)
        options = dict(cwd=home, env=environment(home), capture_output=True, text=True)
        done = subprocess.run(call, **options)
        assert done.returncode == (3 if more else 0), done.stdout[-3000:] + done.stderr[-3000:]
    return Hostile(home, data, made, arguments)


def pwned(shown) -> bool:
    "Whether a script from data ran in a page."
    shown.wait_for_load_state("load")
    return shown.evaluate("() => '__pwned' in window")


@pytest.mark.slow
@pytest.mark.browser
def test_no_script_from_data_runs_in_executed_notebooks(hostile, browser, tmp_path):  # noqa: F811
    "As pages of their own, which trust what a notebook shows; and the pages that a run writes."
    pages = [hostile.run / "integrity.html", hostile.run / "map.html"]
    for notebook in sorted((hostile.run / "runs").glob("*.ipynb")):
        html, _ = HTMLExporter(template_name="classic").from_filename(str(notebook))
        pages.append(write_text(tmp_path / f"{notebook.stem}.html", html))
    assert len(pages) == 8
    said = ""
    for path in pages:
        w = Watched(browser)
        w.page.goto(path.as_uri())
        assert not pwned(w.page) and w.dialogs == [], path.name
        assert not w.page.locator("img[src=x], svg[onload]").count(), path.name
        said += w.page.inner_text("body")
        w.context.close()
    assert said.count(RUNS) > 5, "it is there, as text"
    w = Watched(browser)
    w.page.goto(write_text(tmp_path / "evil.html", f"<!doctype html>{EVIL}").as_uri())
    w.page.wait_for_function("'__pwned' in window")  # the test's own test: this would be noticed
    w.context.close()


@pytest.fixture(scope="module")
def place(hostile):
    "That workspace for JupyterLab, its notebooks' parameters set to the run. (folder, environment)"
    values = dict(zip(hostile.arguments[1::3], hostile.arguments[2::3], strict=True))
    values |= {"on_problem": "skip"}
    for stage in ("01_explore", "05_ensemble", "08_maps"):
        path = hostile.home / "nbs" / f"{stage}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
        for name, value in values.items():
            cell.source = re.sub(
                rf"^({name}: str = ).*$", lambda m, v=value: m[1] + repr(v), cell.source, flags=re.M
            )
        nbformat.write(notebook, path)
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    own = {name: str(hostile.home / f".{name.lower()}") for name in folders}
    return hostile.home, environment(hostile.home) | own | {"SPACENET5_PROGRESS": "0"}


OUTPUTS = """() => { const cells = jupyterapp.shell.currentWidget.content.model.cells;
    return JSON.stringify([...cells].map(c => c.type === 'code' ? c.outputs.toJSON() : [])); }"""


@pytest.mark.slow
@pytest.mark.browser
def test_no_script_from_data_runs_in_jupyterlab(page, hostile):  # noqa: F811
    "Run All, then every output looked at: a cell that a person runs is trusted with HTML."
    said = ""
    for name in ("01_explore.ipynb", "05_ensemble.ipynb", "08_maps.ipynb"):
        see(page, run_all(page, name))
        assert not pwned(page), name
        said += page.evaluate(OUTPUTS)
        close_notebook(page)
    assert not pwned(page) and RUNS in said, "it is there, as text"
    table = f"import pandas as pd\npd.DataFrame({{'name': [{EVIL!r}]}}).style"
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(table)])
    nbformat.write(nb, hostile.home / "nbs/_styler.ipynb")
    see(page, run_all(page, "_styler.ipynb"))
    page.wait_for_function("'__pwned' in window")  # the test's own test: this would be noticed
    close_notebook(page)

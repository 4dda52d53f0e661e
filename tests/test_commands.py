"""Every command of `spacenet5`, found in the program itself: its help is whole, what is wrong is
one line and an exit code, `--dry-run` writes nothing, Ctrl-C leaves nothing half-written."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
import typer
from affine import Affine
from pictures_with_masks import draw_pictures
from reference_cases import label_files

from spacenet5_nb import core, extract, graph, model, pipeline, raster
from spacenet5_nb.base.console import EXITS, LineLog
from spacenet5_nb.workflow import stage_scheduler

ROOT = Path(__file__).parents[1]
PROGRAM = typer.main.get_command(pipeline.app)
COMMANDS = sorted(PROGRAM.commands)
PRESET = """
base: small
channels: selim_sef
name: tiny
decoder: [8, 8, 8, 8]
data: {gsd_m: 1.0, chip_m: 100.0}
folds:
  - {encoder: test_resnet, pretrained: false, bands: 3}
  - {encoder: test_resnet, pretrained: false, bands: 3}
train: {stages: [{crop_px: 64, batch: 2, epochs: 1, steps_per_epoch: 1, lr: [[0, 1.0e-3]]}]}
ensemble: {tta: none}
"""
WRONG = {  # a call of every command that cannot work, and what its one line must name
    "pipeline": (["--preset", "tiny.yaml", "--data-root", "nowhere"], "nowhere"),
    "prepare": (["--preset", "nowhere.yaml"], "nowhere.yaml"),
    "run": (["04_train", "-p", "fold", "nine"], "nine"),
    "train": (["--fold", "0", "--preset", "tiny.yaml", "--run", "nothing"], "01_explore"),
    "extract": (["nowhere.tif", "--members", "members", "-o", "roads.gpkg"], "nowhere.tif"),
    "train-own": (
        ["town.tif", "--labels", "nowhere.geojson", "--preset", "tiny.yaml"],
        "nowhere.geojson",
    ),
    "vectorize": (["broken.tif", "-o", "roads.gpkg"], "broken.tif"),
    "stitch": (["--run", "nothing"], "nothing"),
    "conflate": (["nowhere.gpkg", "--osm", "town.osm", "-o", "c.gpkg"], "nowhere.gpkg"),
    "submit": (["nowhere", "--members", "members"], "nowhere"),
    "export": (["--members", "nowhere", "-o", "roads.onnx"], "nowhere"),
    "check": (["nowhere.csv"], "nowhere.csv"),
    "score": (["--truth", "nowhere", "--proposal", "streets.geojson"], "nowhere"),
    "download": (["--aoi", "7"], "s3://spacenet-dataset"),
    "labels": (["--osm", "nowhere.osm", "--image", "town.tif"], "nowhere.osm"),
    "from-masks": (["nowhere", "-o", "mine"], "nowhere"),
    "node": (["broken.geojson", "-o", "noded.geojson"], "broken.geojson"),
    "bins": (["--labels", "broken.geojson"], "broken.geojson"),
    "leaderboard": (["nowhere", "streets"], "nowhere"),
    "stages": (
        ["--no-such-option"],
        "--no-such-option",
    ),  # takes nothing, so nothing else can be wrong
}
UNWRITABLE = {  # a result whose folder is a file, where a command writes a result
    "extract": ["town.tif", "--members", "members", "-o", "file/roads.gpkg"],
    "train-own": [
        "town.tif",
        "--labels",
        "streets.geojson",
        "--preset",
        "tiny.yaml",
        "-o",
        "file/roads.gpkg",
    ],
    "vectorize": ["probabilities.tif", "-o", "file/roads.gpkg"],
    "conflate": ["streets.geojson", "--osm", "town.osm", "-o", "file/c.gpkg"],
    "submit": ["chips", "--members", "members", "-o", "file/solution.csv"],
    "export": ["--members", "members", "-o", "file/roads.onnx", "--preset", "tiny.yaml"],
    "score": ["--truth", "chips", "--proposal", "streets", "--out", "file/scores"],
    "labels": ["--osm", "town.osm", "--image", "town.tif", "--out", "file/labels.geojson"],
    "from-masks": ["pictures", "-o", "file/mine", "--gsd", "0.5"],
    "node": ["streets.geojson", "-o", "file/noded.geojson"],
    "bins": ["--labels", "streets.geojson", "--out", "file/bins.csv"],
}
DRY = {  # the same commands as they would work, and what they must say
    "pipeline": (
        ["--preset", "tiny.yaml", "--data-root", "chips"],
        r"2 chips.*01_explore: would run.*08_maps: would run",
    ),
    "prepare": (["--preset", "tiny.yaml", "--data-root", "chips"], r"02_masks: would run"),
    "run": (
        ["01_explore", "-p", "preset", "tiny.yaml", "-p", "data_root", "chips"],
        r"would run .*01_explore.ipynb",
    ),
    "train": (
        ["--fold", "0", "--preset", "tiny.yaml", "--run", "made"],
        r"fold 0: test_resnet.*0 of 1 epochs.*last.safetensors",
    ),
    "extract": (
        ["town.tif", "--members", "members", "-o", "deep/roads.gpkg", "--preset", "tiny.yaml"],
        r"200 x 200 px.*2 different members.*deep/roads.gpkg, "
        r"deep/roads_probs.tif.*deep/roads.html",
    ),
    "train-own": (
        ["town.tif", "--labels", "streets.geojson", "--preset", "tiny.yaml"],
        r"6 lines.*warning: .*9 places.*2 folds on about 4 windows",
    ),
    "vectorize": (
        ["probabilities.tif", "-o", "roads.gpkg"],
        r"12 bands, 200 x 200 px.*would make roads.gpkg",
    ),
    "stitch": (["--run", "made", "--preset", "tiny.yaml"], r"would stitch 1 chips into .*gpkg"),
    "conflate": (
        ["streets.geojson", "--osm", "town.osm", "-o", "c.gpkg"],
        r"would compare 6 predicted lines with \d+ of town.osm.*would make c.gpkg, c_new.osm",
    ),
    "submit": (
        ["chips", "--members", "members", "--preset", "tiny.yaml"],
        r"2 chips.*would make solution.csv",
    ),
    "export": (
        ["--members", "members", "--preset", "tiny.yaml", "-o", "roads.onnx"],
        r"would average 2 members.*tiles of 512 px.*would make roads.onnx",
    ),
    "labels": (["--osm", "town.osm", "--image", "town.tif"], r"would make .*town.geojson"),
    "from-masks": (
        ["pictures", "-o", "mine", "--gsd", "0.5"],
        r"2 images with masks, pixels 0.5 x 0.5 m; road is 255.*would make 2 chips in mine",
    ),
    "node": (["streets.geojson", "-o", "noded.geojson"], r"9 places"),
    "download": (["--aoi", "7"], r"Nothing was fetched"),
}
WRITES_LITTLE = {"check", "score", "bins", "leaderboard", "stages"}  # nothing, or small tables


def draw(path: Path, side: int = 200, bands: int = 3, east_m: int = 0) -> raster.Grid:
    grid = raster.Grid(
        (side, side), Affine(1, 0, 500_000 + east_m, 0, -1, 4_000_000), raster.CRS.from_epsg(32611)
    )
    raster.write(
        path,
        np.random.default_rng(east_m).integers(1, 255, (bands, side, side)).astype(np.uint8),
        grid=grid,
    )
    return grid


def streets(path: Path, grid: raster.Grid) -> None:
    "Three streets by three, each one line: they cross without a vertex."
    from spacenet5_nb.base.labels import move_lines

    at, side = (40, 100, 160), grid.shape[0]
    lines = [[(0, y), (side, y)] for y in at] + [[(x, 0), (x, side)] for x in at]
    moved = move_lines(
        np.array(
            [shapely.LineString([grid.transform * p for p in line]) for line in lines], object
        ),
        grid.crs,
        "EPSG:4326",
    )
    features = [
        {
            "type": "Feature",
            "properties": {"highway": "residential"},
            "geometry": shapely.geometry.mapping(line),
        }
        for line in moved
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    "A folder with one of everything that a command takes, right or broken."
    import pandas as pd

    from spacenet5_nb import explore
    from spacenet5_nb.roads import formats

    home = tmp_path_factory.mktemp("work")
    (home / "tiny.yaml").write_text(PRESET)
    p = core.load_preset(home / "tiny.yaml")
    for k in (0, 1):
        torch.manual_seed(k)
        model.save(
            model.build(p, k),
            home / f"members/{k}/last.safetensors",
            preset=str(home / "tiny.yaml"),
        )
    grid = draw(home / "town.tif")
    draw(home / "probabilities.tif", bands=12)
    streets(home / "streets.geojson", grid)
    streets(home / "streets/a.geojson", grid)
    for k, name in enumerate("ab"):
        streets(home / f"chips/{name}.geojson", draw(home / f"chips/{name}.tif", east_m=1000 * k))
    formats.save(graph.from_labels(home / "streets.geojson"), home / "town.osm")
    draw_pictures(home / "pictures")
    (home / "broken.tif").write_bytes((home / "town.tif").read_bytes()[:500])
    (home / "broken.geojson").write_text('{"type": ')
    (home / "file").write_text("a file where a folder is wanted")
    run = home / "outputs/made"
    chips = explore.scan_chips(explore.find_chips(home / "chips"), bands_wanted=[3]).assign(
        split="train"
    )
    (run / "masks").mkdir(parents=True)
    chips.drop(columns="heard").to_parquet(run / "chips.parquet")  # as write_tables leaves it out
    pd.DataFrame({"chip": chips["chip"], "fold": [0, 1]}).to_csv(run / "folds.csv", index=False)
    for chip in chips["chip"]:
        (run / f"masks/{chip}.tif").touch()
    graph.write(graph.from_labels(home / "streets.geojson"), run / "graphs/a.gpkg")
    return home


@pytest.fixture
def spacenet5(made, monkeypatch, program):
    "The program in this process, in that folder."
    monkeypatch.chdir(made)
    for name, value in {
        "OUTPUTS": made / "outputs",
        "DATA": made / "chips",
        "THREADS": 1,
        "S3_ENDPOINT": "http://127.0.0.1:9",
        "ROOT": ROOT,
        "CHILD": 1,
    }.items():
        monkeypatch.setenv(f"SPACENET5_{name}", str(value))
    return program


def listing(folder: Path) -> dict[str, tuple]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.is_file() and p.stat().st_size)
        for p in sorted(folder.rglob("*"))
    }


def is_one_line(text: str) -> bool:
    return text.startswith("error: ") and text.count("\n") == 1 and "Traceback" not in text


# --- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_whole(name):
    command = PROGRAM.commands[name]
    assert command.help and re.match(r"[A-Z].{5,}\.", command.help), "a sentence"
    options = {o for p in command.params for o in p.opts}
    assert "--debug" in options and all(getattr(p, "help", "") for p in command.params), [
        p.name for p in command.params if not getattr(p, "help", "")
    ]
    assert all(f"{code} {text}" in command.epilog for code, text in EXITS.items())


def test_the_list_of_commands_is_not_cut_off(spacenet5):
    for arguments in ((), ("--help",)):
        code, out, err = spacenet5(*arguments)
        assert (
            code == 0
            and not err
            and "..." not in out.split("Commands:")[1]
            and "--debug" in out
            and "130" in out
        )
        assert all(f"  {name} " in out for name in COMMANDS)


def test_defaults_in_brackets_are_shown(spacenet5):
    assert "[default: the preset's name]" in " ".join(spacenet5("pipeline", "--help")[1].split())


# --- errors --------------------------------------------------------------------------------------


def test_no_command_is_left_out_of_the_tables():
    assert set(WRONG) == set(COMMANDS)
    dry = {
        name for name, c in PROGRAM.commands.items() if any("--dry-run" in p.opts for p in c.params)
    }
    assert dry == set(DRY) and dry == set(COMMANDS) - WRITES_LITTLE


@pytest.mark.parametrize("name", COMMANDS)
def test_an_error_is_one_line_that_names_what_is_wrong(name, spacenet5, made):
    arguments, word = WRONG[name]
    before = listing(made)
    code, _, err = spacenet5(name, *arguments)
    assert code == (2 if name == "stages" else 1) and is_one_line(err) and word in err, err
    after = listing(made)
    assert {k for k in after if k not in before and not k.startswith("outputs")} == set(), (
        "nothing was made"
    )


@pytest.mark.parametrize("name", [n for n in COMMANDS if n != "stages"])
@pytest.mark.parametrize("first", [True, False])
def test_debug_shows_where(name, first, spacenet5, monkeypatch):
    "Before the command's name and after it."
    if name in ("download", "pipeline") and not first:
        pytest.skip("slow, and the same code")
    with pytest.raises(core.WorkspaceError):
        monkeypatch.setattr(
            sys,
            "argv",
            ["spacenet5", *["--debug"] * first, name, *WRONG[name][0], *["--debug"] * (not first)],
        )
        pipeline.main()


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_said_in_one_line(name, spacenet5):
    code, out, err = spacenet5(name, "--no-such-option")
    assert (
        code == 2
        and not out
        and is_one_line(err)
        and "--no-such-option" in err
        and f"See spacenet5 {name} --help." in err
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nothing"], "No such command"),
        (["check"], "Missing argument"),
        (["train", "--fold", "two"], "--fold"),
        (["train", "--fold", "-1"], "--fold"),
    ],
)
def test_what_cannot_be_understood(arguments, words, spacenet5):
    code, _, err = spacenet5(*arguments)
    assert code == 2 and is_one_line(err) and words in err and "--help" in err


@pytest.mark.parametrize("name", UNWRITABLE)
def test_a_place_that_cannot_be_written_is_said_before_the_work(name, spacenet5, made, monkeypatch):
    monkeypatch.setattr(
        "spacenet5_nb.inference.tiled_inference.predict_raster",
        lambda *a, **k: pytest.fail("began"),
    )
    monkeypatch.setattr(
        "spacenet5_nb.roads.windowed_tracing.vectorize_windows",
        lambda *a, **k: pytest.fail("began"),
    )
    code, _, err = spacenet5(name, *UNWRITABLE[name])
    assert code == 1 and is_one_line(err) and "file" in err and "could not be written" in err, err
    assert (made / "file").is_file()


def test_what_is_a_fault_of_the_program_says_so(spacenet5, monkeypatch):
    def broken(*a, **k):
        raise KeyError("lost")

    monkeypatch.setattr("spacenet5_nb.roads.formats.solution_problems", broken)
    code, _, err = spacenet5("check", "streets.geojson")
    assert code == 1 and is_one_line(err) and "KeyError" in err and "--debug" in err


@pytest.mark.parametrize(
    "member, words",
    [
        (b"", "members/9/last.safetensors"),
        (b"\x08\0\0\0\0\0\0\0{}      ", "members/9/last.safetensors"),
    ],
)
def test_a_broken_member(member, words, spacenet5, made):
    path = made / "members/9/last.safetensors"
    path.parent.mkdir()
    path.write_bytes(member)
    try:
        for arguments in (
            ["extract", "town.tif", "--members", "members", "-o", "roads.gpkg"],
            ["submit", "chips", "--members", "members"],
        ):
            for dry in ([], ["--dry-run"]):
                code, _, err = spacenet5(*arguments, *dry)
                assert code == 1 and is_one_line(err) and words in err, err
    finally:
        path.unlink()
        path.parent.rmdir()
    assert not (made / "roads.gpkg").exists() and not (made / "solution.csv").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["node", "streets.geojson", "-o", "there"],
        ["bins", "--labels", "streets.geojson", "--out", "there"],
        ["labels", "--osm", "town.osm", "--image", "town.tif", "--out", "there.geojson"],
    ],
)
def test_what_is_there_is_not_replaced_without_a_word(arguments, spacenet5, made):
    path = made / arguments[-1]
    path.write_text("mine")
    code, _, err = spacenet5(*arguments)
    assert (
        code == 1
        and is_one_line(err)
        and "there" in err
        and "--overwrite" in err
        and path.read_text() == "mine"
    )
    path.unlink()


def test_a_full_disk(spacenet5, made, monkeypatch):
    real = os.replace

    def full(a, b):
        if str(b).endswith("roads.gpkg"):
            raise OSError(28, "No space left on device")
        return real(a, b)

    monkeypatch.setattr(os, "replace", full)
    code, _, err = spacenet5(
        "vectorize", "probabilities.tif", "-o", "roads.gpkg", "--preset", "tiny.yaml"
    )
    assert (
        code == 1
        and is_one_line(err.split("\n", 1)[-1] if err.startswith("windows") else err)
        and "The disk is full" in err
    )
    assert not list(made.glob("*roads.gpkg"))


# --- dry runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(DRY))
def test_a_dry_run_says_what_it_would_do_and_writes_nothing(name, spacenet5, made, monkeypatch):
    arguments, words = DRY[name]
    if name == "download":
        from spacenet5_nb.acquire import download

        monkeypatch.setattr(
            download,
            "download",
            lambda *a, ask, **k: print("Nothing was fetched." if not ask() else "fetched"),
        )
    before = listing(made)
    code, out, err = spacenet5(name, *arguments, "--dry-run")
    assert code == 0 and re.search(words, out, re.DOTALL), out + err
    assert listing(made) == before


# --- progress, interrupts ------------------------------------------------------------------------


def test_a_pipe_gets_no_remains_of_bars(spacenet5, made, monkeypatch):
    code, out, err = spacenet5(
        "vectorize",
        "probabilities.tif",
        "-o",
        "roads.gpkg",
        "--preset",
        "tiny.yaml",
        "--window-px",
        "256",
    )
    assert (
        code == 0
        and "roads.gpkg" in out
        and re.search(r"windows: 100% 1/1", err)
        and not set("\r|\x1b") & set(out + err)
    )
    monkeypatch.setenv("SPACENET5_PROGRESS", "0")
    assert (
        spacenet5("vectorize", "probabilities.tif", "-o", "roads.gpkg", "--preset", "tiny.yaml")[2]
        == ""
    )
    (made / "roads.gpkg").unlink()


def test_a_terminal_keeps_its_bar(capsys):
    log = LineLog(sys.stderr)
    assert not sys.stderr.isatty() and not log.isatty(), (
        "main puts a LineLog only where there is no terminal; it does not pretend to be one"
    )


@pytest.mark.parametrize(
    "name, where, resumes",
    [
        ("vectorize", "spacenet5_nb.roads.windowed_tracing.vectorize_windows", False),
        ("extract", "spacenet5_nb.extract.extract", True),
    ],
)
def test_ctrl_c(name, where, resumes, spacenet5, made, monkeypatch):
    def stopped(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, stopped)
    arguments = (
        ["probabilities.tif"] if name == "vectorize" else ["town.tif", "--members", "members"]
    )
    before = listing(made)
    code, _, err = spacenet5(name, *arguments, "-o", "roads.gpkg")
    assert (
        code == 130
        and err.startswith("stopped; ")
        and ("goes on" in err) == resumes
        and err.count("\n") == 1
    )
    assert listing(made) == before


def test_ctrl_c_at_several_processes_is_one_line(made):
    "The signal reaches the whole group; workers leave the word to the program."
    draw(made / "large.tif", 1200, 12)
    environment = os.environ | {"SPACENET5_OUTPUTS": str(made / "outputs")}
    command = [
        str(Path(sys.executable).parent / "spacenet5"),
        "vectorize",
        "large.tif",
        "-o",
        "large.gpkg",
        "--preset",
        "tiny.yaml",
        "--window-px",
        "256",
        "--workers",
        "2",
    ]
    process = subprocess.Popen(
        command,
        cwd=made,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not ignoring(process.pid):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (
        process.returncode == 130
        and err.splitlines()[-1].startswith("stopped; ")
        and "Traceback" not in err
        and not (made / "large.gpkg").exists()
    ), err


def ignoring(parent: int) -> bool:
    "Whether a process has two workers that ignore SIGINT."
    psutil = pytest.importorskip("psutil")
    try:
        workers = [
            c.pid
            for c in psutil.Process(parent).children()
            if "--multiprocessing-fork" in c.cmdline()
        ]
    except psutil.Error:
        return False
    masks = [re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{c}/status").read_text()) for c in workers]
    return sum(int(m[1], 16) >> (signal.SIGINT - 1) & 1 for m in masks) >= 2


# --- street maps that are not noded --------------------------------------------------------------


def test_node_makes_junctions_of_lines_that_cross(spacenet5, made):
    before = graph.from_labels(made / "streets.geojson")
    code, out, _ = spacenet5("node", "streets.geojson", "-o", "noded.geojson")
    after = graph.from_labels(made / "noded.geojson")
    assert (
        code == 0
        and "9 places" in out
        and before.number_of_edges() == 6
        and after.number_of_edges() == 24
    )
    assert sum(d == 4 for _, d in after.degree()) == 9
    assert (
        abs(
            sum(d["length"] for *_, d in after.edges(data=True))
            - sum(d["length"] for *_, d in before.edges(data=True))
        )
        < 1e-3
    )
    (made / "noded.geojson").unlink()


@pytest.mark.parametrize("kind", ["geojson", "gpkg"])
@pytest.mark.parametrize("node", [True, False])
def test_train_own_nodes_only_when_it_is_told_to(
    kind, node, spacenet5, made, monkeypatch, tmp_path
):
    import geopandas as gpd

    given = tmp_path / f"map.{kind}"
    gpd.read_file(made / "streets.geojson").to_file(
        given, driver={"geojson": "GeoJSON", "gpkg": "GPKG"}[kind]
    )
    text, took = given.read_bytes(), []
    monkeypatch.setattr(extract, "train_own", lambda image, labels, **k: took.append(Path(labels)))
    code, *_ = spacenet5(
        "train-own",
        "town.tif",
        "--labels",
        str(given),
        "--preset",
        "tiny.yaml",
        *["--node-crossings"] * node,
    )
    assert (
        code == 0
        and given.read_bytes() == text
        and graph.from_labels(took[0]).number_of_edges() == (24 if node else 6)
    )
    assert (took[0] == given) == (kind in ("geojson", "gpkg") and not node)


def test_real_labels_are_no_map_of_bridges(reference):
    "SpaceNet's own labels keep their crossings, and nobody is warned of them."
    from spacenet5_nb.acquire.street_topology import junctions, not_noded, unshared
    from spacenet5_nb.base.labels import read_rows

    rows = [read_rows(path) for path in label_files(reference).values()]
    assert (
        len(rows) >= 9
        and not any(map(not_noded, rows))
        and sum(map(junctions, rows)) > 50 * sum(len(unshared(r)) for r in rows)
    )


def test_stage_one_warns_of_a_map_that_is_not_noded(made, monkeypatch, capsys):
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(made / "outputs"))
    stage_scheduler._look_at_streets(
        core.open_run("made", str(made / "tiny.yaml"), str(made / "chips"))
    )
    said = capsys.readouterr().out
    assert (
        said.startswith("2 label files: speeds: 12 of 12 by class\nwarning: 2 label files")
        and "at 18 places" in said
        and "--node-crossings" in said
        and "spacenet5 node" in said
    )

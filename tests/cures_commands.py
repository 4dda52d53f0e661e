"Cures of commands, stages' files, sets of papers, masks as labels, notebooks."

import json
import re
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
from cures import row
from cures_acquire import LINKS, mask
from cures_graphs import NAME, street
from cures_readers import GRID, LINE, UTM, N, geojson, picture
from shapely.geometry import mapping

from spacenet5_nb import apls, graph, pipeline, raster
from spacenet5_nb.acquire import pickled_graphs
from spacenet5_nb.core import Channels, load_preset, open_run, write_text
from spacenet5_nb.judge import leaderboard
from spacenet5_nb.mapping import image_overlays, road_table
from spacenet5_nb.roads import run_files, stitch
from spacenet5_nb.targets import mask_comparison, mask_files, mask_surface
from spacenet5_nb.workflow import (
    command_options,
    dry_runs,
    file_commands,
    mask_labels,
    notebook_runner,
    stage_scheduler,
    stage_table,
    submission,
)

GRID_OF = raster.Grid((N, N), GRID, raster.CRS.from_string(UTM))


def bands(path: Path, names: tuple[str, ...], value: int = 255, size: int = N) -> Path:
    "A raster of named bands."
    image = np.full((len(names), size, size), value, "uint8")
    grid = GRID_OF._replace(shape=(size, size))
    return raster.write(path, image, grid=grid, descriptions=names)


@row("workflow/file_commands", "is unknown", "cannot be explained", "holds the scores of")
@row("workflow/file_commands", "is of no kind that is known", "has no graph{}", "no such file")
@row("workflow/file_commands", "exists already", "holds no labelled road", "holds no {}")
@row("workflow/file_commands", "is the label of", "is one file for", "is there already")
def _(folder, fails, monkeypatch):
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(folder / "outputs"))
    monkeypatch.chdir(folder)
    c, g = file_commands, street()
    truth, out = folder / "a.gpkg", str(folder / "s")
    graph.write(g, truth)
    score = dict(truth=str(truth), proposal=str(truth), workers=1)
    words = re.findall(r"(\w+)(?: or |\.)", fails(lambda: c._score_command(**score, protocol="x")))
    for protocol in words:
        c._score_command(**score, protocol=protocol, out=out)
    assert "Leave out --explain" in fails(
        lambda: c._score_command(**score, protocol="cosmiq", explain=1, out=out)
    )
    c._score_command(**score)
    other = folder / "sub/a.gpkg"
    other.parent.mkdir()
    graph.write(g, other)
    assert "--out" in fails(lambda: c._score_command(truth=str(truth), proposal=str(other)))
    probs = bands(folder / "p.tif", Channels.selim_sef().names, 0)
    endings = fails(lambda: c._vectorize_command(str(probs), "r.kml"))
    for ending in re.findall(r"\.\w+", endings.removesuffix("."))[:2]:
        c._vectorize_command(str(probs), f"r{ending}", workers=1)
    assert "path" in fails(lambda: c._check_command("no.csv"))
    (folder / "chips").mkdir()
    image = picture(folder / "chips" / "c.tif")
    label = geojson(folder / "chips" / "c.geojson")
    assert "label file" in fails(lambda: c._bins_command("chips", 1))
    geojson(label, mapping(LINE))
    c._bins_command(str(label), 1)
    assert "--overwrite" in fails(lambda: c._bins_command(str(label), 1))
    c._bins_command(str(label), 1, overwrite=True)
    c._bins_command(str(label), 1, out="others.csv")
    (folder / "empty").mkdir()
    assert "folder of such" in fails(lambda: c._node_command("empty", "n"))
    c._node_command("chips", "n")
    assert "--overwrite" in fails(lambda: c._node_command("chips", "n"))
    c._node_command("chips", "n", overwrite=True)
    picture(folder / "chips" / "d.tif")
    assert "another folder" in fails(lambda: c._label_targets("chips", "", False))
    assert "folder as --out" in fails(lambda: c._label_targets("chips", "a.geojson", False))
    assert len(c._label_targets("chips", "labels", False)) == 2
    assert len(c._label_targets("chips", "", True)) == 2
    assert len(c._label_targets(str(image), "a.geojson", False)) == 1
    from cures_acquire import extract

    lon, lat = raster.lonlat_bounds(raster.grid_of(image))[:2]
    source = str(extract(folder / "a.osm", lon, lat))
    assert "another --out" in fails(lambda: c._plan_labels(source, {str(image): label}, False))
    c._plan_labels(source, {str(image): label}, True)
    c._plan_labels(source, {str(image): folder / "new.geojson"}, False)


@row("workflow/dry_runs", "is a folder", "is no folder", "is not a set of views")
@row("workflow/command_options", "needs a name and a value")
@row("pipeline", "leaves no stage to run", "is for a street map given as --labels")
@row("workflow/member_commands", "is not a set of views")
def _(folder, fails):
    (folder / "a.gpkg").mkdir()
    write_text(folder / "file", "x")
    assert "Name a file" in fails(lambda: dry_runs.check_place(str(folder / "a.gpkg")))
    assert "another place" in fails(lambda: dry_runs.check_place(str(folder / "file/b")))
    dry_runs.check_place(str(folder / "a.gpkg/b.gpkg"))
    from spacenet5_nb.ensemble import VIEWS
    from spacenet5_nb.workflow.member_commands import check_result

    for check in (lambda: dry_runs.measure([], "d9"), lambda: check_result("a.gpkg", "d9")):
        known = fails(check).removeprefix("Known: ").rstrip(".").split(", ")
        assert known == list(VIEWS)
    cure = fails(lambda: command_options.split_pairs(["fold"]))
    joined = command_options.join_pairs(re.search("-p fold 2", cure)[0].split())
    assert command_options.split_pairs(joined[1:]) == {"fold": "2"}
    order = fails(lambda: pipeline._chosen("04", "02")).removeprefix("The order is: ").rstrip(".")
    first, *_, last = order.split(", ")
    assert pipeline._chosen(first, last)[0].name == first
    own = pipeline._train_own_command
    assert "leave it out" in fails(lambda: own("a.tif", osm="a.osm.pbf", node_crossings=True))


@row("workflow/notebook_runner", "is not a notebook in", "is not a readable notebook")
@row("workflow/notebook_runner", "cells tagged 'parameters'", "unknown parameter", "must be {}")
@row("workflow/notebook_runner", "has too long a name", "is not an .ipynb under")
@row("workflow/stage_table", "is not a stage", "has folds 0 to")
@row("workflow/stage_scheduler", "has no folds", "is not a folder of chips", "is not a device of")
@row("workflow/stage_scheduler", "another pipeline", "another process is training", slow=True)
def _(folder, fails, monkeypatch):
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(folder / "outputs"))
    monkeypatch.setenv("SPACENET5_CHILD", "1")  # whether all is exported, others test
    run = notebook_runner
    stages = fails(lambda: run.find_notebook("04_trian")).removeprefix("Stages: ").rstrip(".")
    assert all(run.find_notebook(name).is_file() for name in stages.split(", "))
    path = folder / "a.ipynb"
    path.write_text("{")
    assert "git" in fails(lambda: run.read_parameters(path))
    cell = {"cell_type": "code", "metadata": {}, "source": "x: int = 1", "outputs": []}
    book = {"cells": [cell | {"execution_count": None}], "metadata": {}, "nbformat": 4}
    path.write_text(json.dumps(book | {"nbformat_minor": 4}))
    assert "Tag the cell" in fails(lambda: run.read_parameters(path))
    book["cells"][0]["metadata"] = {"tags": ["parameters"]}
    path.write_text(json.dumps(book | {"nbformat_minor": 4}))
    assert list(run.read_parameters(path)) == ["x"]
    assert "It takes: x." in fails(lambda: run.check_parameters(path, {"y": 1}))
    assert "-p x 1" in fails(lambda: run.check_parameters(path, {"x": "one"}))
    assert run.check_parameters(path, {"x": "1"}) == {"x": 1}
    assert "TMPDIR" in fails(lambda: run.kernel_place(folder / ("x" * 120)))
    assert run.kernel_place(Path("/tmp/k"))
    assert "outputs_root" in fails(lambda: run.check_out(folder / "a.ipynb"))
    assert run.check_out(folder / "outputs/a.ipynb")
    names = fails(lambda: stage_table.find_stage("4")).removeprefix("Stages: ").rstrip(".")
    assert all(stage_table.find_stage(name) for name in names.split(", "))
    r, none = open_run("r", "small", str(folder)), load_preset("small")
    train = stage_table.find_stage("04")
    for file in {p for p, _ in train.reads(r)}:
        write_text(file, "x")
    assert fails(lambda: stage_table.check_reads(r, train, {"fold": 99}))
    stage_table.check_reads(r, train, {"fold": 0})
    ready = [stage_table.find_stage("01")]
    bare = replace(r, preset=replace(none, folds=()))
    assert "`folds:`" in fails(lambda: stage_scheduler.check_ready(bare, ready, "small"))
    lost = replace(r, data_root=folder / "no")
    assert "--data-root" in fails(lambda: stage_scheduler.check_ready(lost, ready, "small"))
    stage_scheduler.check_ready(r, ready, "small")
    assert "or cpu" in fails(lambda: stage_scheduler.find_devices("99"))
    assert stage_scheduler.find_devices("cpu,cpu") == ["cpu", "cpu"]
    with stage_scheduler.only_one(r):
        assert "another --run" in fails(lambda: stage_scheduler.only_one(r).__enter__())
        with stage_scheduler.only_one(replace(r, folder=folder / "outputs/s")):
            pass
    with stage_scheduler.only_one_of(r, 0):
        assert "Wait for it" in fails(lambda: stage_scheduler.only_one_of(r, 0, 0).__enter__())
    with stage_scheduler.only_one_of(r, 0):
        pass


@row("workflow/mask_labels", "pixels, its image", "<f'is a picture", "colours only")
@row(
    "workflow/mask_labels",
    "lies in {}, which is read",
    "holds no image with a mask",
    "has lines beside it",
)
@row("workflow/mask_labels", "<first.problem><more>")
def _(folder, fails):
    root, out = folder / "set", folder / "out"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    noise = np.random.default_rng(0).integers(60, 200, (3, N, N), "uint8")

    def photo(path: Path) -> Path:
        return picture(path, noise, driver="PNG", crs=None, transform=None)

    def plan(to: Path = out, **more):
        return mask_labels.plan_chips(root, to, gsd="1", workers=1, **more)[0]

    photo(root / "images/a.png")
    assert "Name them alike" in fails(plan)
    assert "another folder" in fails(lambda: plan(root / "out"))
    paths = [root / "images/a.png", root / "masks/a.png"]
    for made in (lambda: mask(paths[1], 0, 255, size=32), lambda: photo(paths[1])):
        made()
        assert fails(plan)
    mask(paths[0], 0, 9)
    mask(paths[1], 0, 255)
    assert "belongs to the mask" in fails(plan)
    photo(paths[0])
    assert len(plan()) == 1
    photo(root / "images/b.png")
    photo(root / "masks/b.png")
    assert "--skip-problems" in fails(plan) and len(plan(skip_problems=True)) == 1
    mask(root / "masks/b.png", 0, 255)
    assert len(plan()) == 2
    geojson(root / "images/b.geojson", mapping(LINE))
    assert "folder of their own" in fails(plan)
    lines = folder / "lines"
    lines.mkdir()
    for file in (root / "images/b.png", root / "images/b.geojson", root / "masks/b.png"):
        file.rename(lines / file.name)
    assert len(plan()) == 1


@row("targets/mask_surface", "that cannot be read", "keeps no surface", "pixels, its image")
@row("targets/mask_files", "bands are {}, not", "holds values other than", "of {} chips failed")
@row("targets/mask_comparison", "pixels, its mask", "has no band named 'road'")
@row("roads/run_files", "there are none for the chips", "has bands {}")
@row("mapping/image_overlays", "has no band named")
@row("mapping/road_table", "is not readable as roads")
def _(folder, fails, monkeypatch):
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(folder))
    r, names = open_run("r", "small"), Channels.selim_sef().names
    image, label = picture(folder / "c.tif"), folder / "c.geojson"
    assert "from-masks" in fails(lambda: mask_surface.unpack_surface({}))
    geojson(label, road_value="255")
    assert "masks.surface" in fails(lambda: mask_surface.read_surface(label, image, GRID_OF))
    geojson(label)
    assert mask_surface.read_surface(label, image, GRID_OF) is None, "labels without a surface"
    path = bands(folder / "m.tif", ("a", "b"))
    check = lambda: mask_files.check_mask(path, Channels.selim_sef(), GRID_OF)  # noqa: E731
    assert "02_masks again" in fails(check)
    bands(path, names, 7)
    assert "Delete the file" in fails(check)
    bands(path, names)
    check()
    failed = {"file": "c.tif", "problem": "is broken", "cure": "Copy it.", "chip": "c"}
    assert fails(lambda: mask_files.stop_on_failures(r, [failed], 2)) == "Copy it."
    mask_files.stop_on_failures(r, [], 2)
    small = bands(folder / "s.tif", names, size=16)
    assert "05_ensemble" in fails(lambda: mask_comparison.road_dice(small, path))
    assert "02_masks or 05_ensemble" in fails(lambda: mask_comparison.road_dice(image, path))
    assert mask_comparison.road_dice(path, path) == 1
    assert "05_ensemble" in fails(lambda: image_overlays.probability_overlay(image))
    assert image_overlays.probability_overlay(path)
    r.chips.parent.mkdir(parents=True)
    pd.DataFrame({"chip": ["c"], "city": [""], "image": ["c.tif"]}).to_parquet(r.chips)
    assert "Run 05_ensemble" in fails(lambda: run_files.find_work(r))
    bands(r.prob("c"), names)
    assert len(run_files.find_work(r)) == 1
    assert "this preset" in fails(lambda: run_files.read_probs(r.prob("c"), Channels.cresi()))
    assert len(run_files.read_probs(r.prob("c"), Channels.selim_sef())[0]) == 12
    roads = folder / "roads.geojson"
    roads.write_text("{")
    assert "06_vectorize" in fails(lambda: road_table.road_frame(roads))
    geojson(roads, mapping(LINE))
    assert len(road_table.road_frame(roads)) == 1


@row("judge/leaderboard", "no such folder", "is of tile", "none of the sets' files", "in common")
@row("judge/worst_chips", "cannot be explained")
@row("judge/cosmiq", "node ids that are not integers")
@row("roads/stitch", "are none")
@row("workflow/submission", "is chip {}, as is {}")
@row("model", "has folds 0 to")
@row("training/resume", "folds.csv has folds", "leaves no chip to train on")
def _(folder, fails):
    find = leaderboard.find_graphs
    assert "folder of the graphs" in fails(lambda: find(folder / "no", "city-scale"))
    g = pickled_graphs.from_adjacency(LINKS)
    for name in ("8.p", "8.json"):
        pickled_graphs.write_pixel_graph(g, folder / name)
    assert "Remove one" in fails(lambda: find(folder, "city-scale"))
    (folder / "8.json").unlink()
    assert list(find(folder, "city-scale")) == ["8"]
    mine = {"8": folder / "8.p"}
    sets = re.findall(r"[a-z]+-\w+", fails(lambda: leaderboard.make_jobs(mine, mine))[10:])
    assert all(leaderboard.make_jobs(mine, mine, kind) for kind in sets)
    assert "by their tile" in fails(lambda: leaderboard.make_jobs(mine, {"9": g}, sets[0]))
    from spacenet5_nb.judge.worst_chips import to_explain

    scores = {p: apls.score_folder({NAME: street()}, {NAME: street()}, protocol=p, workers=1)
              for p in ("spacenet", "cosmiq")}  # fmt: skip
    assert "protocol='spacenet'" in fails(lambda: to_explain(scores["cosmiq"], 1, folder))
    assert len(to_explain(scores["spacenet"], 1, folder)) == 1
    named = nx.relabel_nodes(street(), {0: "a", 1: "b"})
    judge = lambda g: apls.apls(g, g, protocol="cosmiq").score  # noqa: E731
    assert "convert_node_labels_to_integers" in fails(lambda: judge(named))
    assert judge(nx.convert_node_labels_to_integers(named)) == 1
    assert "one graph" in fails(lambda: stitch.stitch([]))
    assert stitch.stitch([(street(), GRID_OF)]).number_of_edges() >= 1
    for sub in ("x", "y"):
        (folder / sub).mkdir()
        picture(folder / sub / "c.tif")
    assert "folder once" in fails(lambda: submission.chips_of([folder / "x", folder / "y"], 3))
    assert list(submission.chips_of([folder / "x"], 3)) == ["c"]
    from spacenet5_nb.model import fold_config
    from spacenet5_nb.training.resume import split

    small = load_preset("small")
    assert "-p fold 0" in fails(lambda: fold_config(small, 99)) and fold_config(small, 0)
    chips = pd.DataFrame({"chip": ["a", "b"], "fold": [0, 1]})
    assert "01_explore" in fails(lambda: split(small, 2, chips))
    assert "more chips" in fails(lambda: split(small, 0, chips.iloc[:1]))
    assert len(split(small, 0, chips)[0]) == 1


@row("workflow/member_commands", "is unknown", "is no ONNX file")
def _(folder, fails):
    from spacenet5_nb.workflow.member_commands import _export_command

    def plan(name: str = "a.onnx", channels: str = "road") -> None:
        _export_command(out=str(folder / name), channels=channels, dry_run=True)

    for word in re.fullmatch("Use (.*) or (.*)\\.", fails(lambda: plan(channels="x"))).groups():
        plan(channels=word)
    ending = re.search(r"\.\w+", fails(lambda: plan("a.pt")))[0]
    plan(f"a{ending}")

"The members that come with the workspace, and the program that makes them."

import argparse
import hashlib
import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely

from spacenet5_nb import core, extract, graph, model

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def world():
    "benchmarks/world.py as a module."
    spec = importlib.util.spec_from_file_location("world", ROOT / "benchmarks/world.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def header_of(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])


def test_members_come_with_the_package():
    members = extract.find_members("world")
    assert sum(p.stat().st_size for p in members) < 25e6
    for path in members:
        info, tensors = model.read_info(path), header_of(path)
        assert info["preset"] == "world" and info["licence"] == "CC BY-SA 4.0"
        assert {"gsd_m", "bands", "dtypes"} <= set(info["trained_on"])
        kinds = {t["dtype"] for k, t in tensors.items() if k != "__metadata__"}
        assert kinds == {"F16", "I64"}, "half precision; counters are whole numbers"
    p = core.load_preset("world")
    model.load(members[0], channels=p.channels, encoder=p.folds[0].encoder, bands=3)


def test_training_of_ones_own_goes_on_from_them(tmp_path):
    said = []
    extract.begun_preset("small", "world", tmp_path, said.append)
    assert len(said) == 4 and all("begins with" in s and "none of" not in s for s in said)


def test_both_folds_of_fine_tuning_begin_with_it(tmp_path):
    assert extract.own_preset() == "small" and extract.own_preset("world") == "finetune"
    made = extract.begun_preset("finetune", "world", tmp_path, print)
    begun, (member,) = core.load_preset(str(made)), extract.find_members("world")
    assert [f.pretrained for f in begun.folds] == [str(member.resolve())] * 2
    world, own = core.load_preset("world"), core.load_preset("finetune")
    same = ("scale_gsd_m", "colour", "rotate_deg", "weight_decay")
    assert all(getattr(own.train, k) == getattr(world.train, k) for k in same)
    assert own.data.gsd_m == world.data.gsd_m, "another grid makes the members worse"
    assert own.train.stages[-1].lr[0][1] < world.train.stages[-1].lr[0][1]


def test_shipping_replaces_all_members(world, tmp_path, monkeypatch):
    "Two members are there, one is shipped: one is left, as its list of checksums says."
    source, box = extract.find_members("world")[0], tmp_path / "world"
    box.mkdir()
    for k in range(2):
        (box / f"{k}.safetensors").write_bytes(b"before")
    monkeypatch.setattr(world, "world_folder", lambda: box)
    monkeypatch.setattr(world, "open_tiles", lambda data, out: pd.DataFrame())
    monkeypatch.setattr(world, "looks_in", lambda images: {})
    a = argparse.Namespace(members=source, data=tmp_path)
    world.ship(a, tmp_path, core.load_preset("world"))
    (made,) = box.glob("*.safetensors")
    sums = (box / world.SUMS).read_text().split()
    assert sums == [hashlib.sha256(made.read_bytes()).hexdigest(), "0.safetensors"]
    assert model.read_info(made)["trained_on"]["gsd_m"] == [0.2, 0.7, 1.4]


def test_a_folder_called_world_is_named_with_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "world").mkdir()
    assert extract.find_members("world")[0].parent == extract.world_folder()
    with pytest.raises(core.CheckpointError, match="holds no member"):
        extract.find_members(tmp_path / "world")


def test_tiles_of_a_group_share_a_fold_and_small_sources_have_none(world):
    tiles = pd.DataFrame({"dataset": ["a"] * 12 + ["b"] * 2, "group": [*"aabbccddeeff", "g", "h"]})
    parts = world.folds_of(tiles)
    assert (parts.groupby(tiles.group).nunique() == 1).all()
    assert set(parts[:12]) == set(range(5)) and set(parts[12:]) == {-1}
    assert parts.equals(world.folds_of(tiles)), "always the same"


def test_centre_lines_are_compared_within_five_metres(world):
    def roads(*lines):
        return graph.from_lines(
            [shapely.LineString(x) for x in lines], [40.0] * len(lines), crs=32611
        )

    truth = roads([(0, 0), (100, 0)], [(0, 50), (100, 50)])
    found = roads([(0, 4), (100, 4)], [(0, 80), (50, 80)])
    f1, precision, recall = world.f1_of(pd.DataFrame([world.lengths(truth, found)]))
    assert precision == pytest.approx(100 / 150) and recall == pytest.approx(0.5, abs=0.02)
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))
    nothing = world.f1_of(pd.DataFrame([world.lengths(truth, roads())]))
    assert nothing == (0, 0, 0)


def test_a_mask_is_traced_and_cut_to_its_data(world):
    grid = world.raster.Grid((100, 100), world.Affine(0.5, 0, 500_000, 0, -1.0, 4e6), world.CRS)
    mask = np.zeros((100, 100), bool)
    mask[48:52] = True
    g = world.trace_mask(mask, grid)
    assert sum(d["length"] for *_, d in g.edges(data=True)) == pytest.approx(50, abs=3)
    valid = np.ones((100, 100), bool)
    valid[:, :50] = False
    half = world.cut(g, grid, valid)
    assert sum(d["length"] for *_, d in half.edges(data=True)) == pytest.approx(25, abs=3)

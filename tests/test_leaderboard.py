"""`spacenet5 leaderboard` and the papers' layouts, on generated folders; what must not change a
score by the papers' protocol."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_sets import draw_city_scale, draw_spacenet_400, shifted

from spacenet5_nb import graph
from spacenet5_nb.acquire.pickled_graphs import read_pixel_graph, write_pixel_graph
from spacenet5_nb.apls import apls_sat2graph
from spacenet5_nb.base.pixel_graphs import PixelGraph
from spacenet5_nb.core import DataError
from spacenet5_nb.explore import find_chips, find_layout, scan_chips
from spacenet5_nb.judge.leaderboard import leaderboard
from spacenet5_nb.judge.sat2graph_apls import densify
from spacenet5_nb.topo import topo_sat2graph
from spacenet5_nb.workflow.graph_chips import make_chips


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return draw_city_scale(tmp_path_factory.mktemp("set") / "20cities")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return draw_spacenet_400(tmp_path_factory.mktemp("set"))


def results_of(root, folder, tiles):
    "A proposal: the truth itself."
    folder.mkdir()
    return results(folder, find_layout(root), tiles, 0.0)


def results(root, layout, tiles, pixels=2.0):
    "A proposal: the truth, moved."
    for name in tiles:
        graph = read_pixel_graph(layout.tiles[name].truth)
        write_pixel_graph(shifted(graph, pixels), root / f"{name}.p")
    return root


def test_city_scale_as_downloaded(city, tmp_path):
    "The test split alone; what is missing is 0 and listed; what is not of the split is said."
    mine = results(tmp_path / "mine", find_layout(city), ["8", "1"])
    board = leaderboard(city, mine, draws=50, workers=1)
    assert board.kind == "city-scale" and board.table.image.tolist() == ["8", "9"]
    assert board.missing == ("9",) and board.extra == ("1",)
    assert board.table.apls[0] > 0.9 and board.table.f1[0] > 0.9
    assert board.means["apls"] == board.table.apls.sum() / 2
    everything = leaderboard(city, mine, split="all", draws=50, workers=1)
    assert len(everything.table) == 5 and len(everything.missing) == 3


def test_spacenet_s_rows_count_from_the_lower_edge(small, tmp_path):
    "Scores in the files' own coordinates; the graph is turned to be compared with the mask."
    layout = find_layout(small)
    board = leaderboard(small, results(tmp_path, layout, ["AOI_2_Vegas_7"]), draws=50, workers=1)
    assert board.kind == "spacenet-400" and board.means["apls"] > 0.9
    graph = read_pixel_graph(layout.tiles["AOI_2_Vegas_7"].truth)
    turned = PixelGraph(graph.nodes[:, ::-1] * (1, 0.9), graph.edges)
    write_pixel_graph(turned, tmp_path / "AOI_2_Vegas_7.p")
    with pytest.raises(DataError, match=r"AOI_2_Vegas_7\.p: lies beside its road mask"):
        leaderboard(small, tmp_path, draws=50, workers=1)


def test_a_graph_that_is_not_the_image_s_is_named(city, tmp_path):
    truth = read_pixel_graph(city / "region_8_graph_gt.pickle")
    write_pixel_graph(PixelGraph(truth.nodes * 3, truth.edges), tmp_path / "8.p")
    with pytest.raises(DataError, match="480 rows") as e:
        leaderboard(city, tmp_path, draws=50, workers=1)
    assert "8.p" in str(e.value)


def test_hostile_and_broken_results_are_named_and_nothing_runs(city, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/witness",)

    for data in (pickle.dumps({(0, 0): [Evil()]}), pickle.dumps({(0, 0): []})[:-3]):
        (tmp_path / "8.p").write_bytes(data)
        with pytest.raises(DataError, match=r"8\.p"):
            leaderboard(city, tmp_path, draws=50, workers=1)
    assert not (tmp_path / "witness").exists()


def test_a_set_becomes_chips_that_stage_01_takes(city, small, tmp_path):
    for root, tests in ((city, 2), (small, 1)):
        make_chips(find_layout(root), tmp_path / root.name, say=lambda _: None, workers=1)
        chips = scan_chips(find_chips(tmp_path / root.name))
        assert chips.fatal.eq("").all() and chips.split.eq("test").sum() == tests
        assert np.allclose(chips.gsd_m, 1, atol=1e-3) and (chips.road_km > 1).all()
        assert (chips.known_channels == "road,junction,orientation").all()


def test_road_graphs_of_the_tiles_are_scored(city, small, tmp_path):
    "What stage 06 and extract write of a set's tiles; of two formats of one graph one counts."
    for root, tiles in ((city, ("8", "9")), (small, ("AOI_2_Vegas_7",))):
        plans = make_chips(find_layout(root), tmp_path / root.name, say=lambda _: None, workers=1)
        graphs = tmp_path / f"{root.name}-graphs"
        for plan in (p for p in plans if p.tile.name in tiles):
            for ending in ("gpkg", "graphml"):
                g = graph.without_speeds(graph.from_labels(plan.label))
                graph.write(g, graphs / f"{plan.chip}.{ending}", speeds=False)
        board = leaderboard(root, graphs, draws=50, workers=1)
        pixels = leaderboard(root, results_of(root, tmp_path / f"{root.name}-p", tiles), draws=50)
        assert board.table.image.tolist() == list(tiles) and not board.missing
        assert board.table.apls.to_numpy() == pytest.approx(pixels.table.apls.to_numpy(), abs=0.02)
        assert (board.table.f1 > 0.99).all(), board.table
        g.graph["crs"] = "EPSG:32611"
        graph.write(g, graphs / f"{plan.chip}.gpkg", speeds=False)
        with pytest.raises(DataError, match=r"nobody knows which pixels.*extract"):
            leaderboard(root, graphs, draws=50, workers=1)


TINY = """
base: small
name: tiny
folds:
  - {encoder: mobilenetv3_small_050, bands: 3, pretrained: false}
  - {encoder: mobilenetv3_small_050, bands: 3, pretrained: false}
train:
  validation_chips: 1
  stages:
    - {crop_px: 96, batch: 4, epochs: 1, steps_per_epoch: 3, lr: [[0, 0.002]], validate_every: 1}
ensemble: {tta: none}
"""


@pytest.mark.slow
def test_a_set_as_it_was_downloaded_goes_from_pipeline_to_leaderboard(tmp_path):
    city, out = draw_city_scale(tmp_path / "20cities", range(10)), tmp_path / "outputs"
    (tmp_path / "tiny.yaml").write_text(TINY)
    env = os.environ | {"SPACENET5_OUTPUTS": str(out), "SPACENET5_WORKERS": "1"}
    program = Path(sys.executable).with_name("spacenet5")
    for line in (
        ["pipeline", "--preset", tmp_path / "tiny.yaml", "--data-root", city, "--run", "m"],
        ["leaderboard", city, out / "m/graphs", "--out", tmp_path / "board"],
    ):
        done = subprocess.run([program, *line], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    chips = pd.read_parquet(out / "m/chips.parquet").set_index("chip")
    assert chips.split[["region_8", "region_9"]].eq("test").all() and len(chips) == 10
    assert len(list((out / "m/masks").glob("*.tif"))) == 10
    assert json.loads((out / "m/scores.json").read_text())
    assert pd.read_csv(tmp_path / "board/images.csv").image.tolist() == [8, 9]


# --- what must not change a score, and what the protocol's quirks do change


def blocks(seed: int) -> PixelGraph:
    "A town of 25 crossings, a bit out of line, most of its streets there."
    rng = np.random.default_rng(seed)
    nodes = np.array([(200 + 120.0 * r, 200 + 120.0 * c) for r in range(5) for c in range(5)])
    edges = [(5 * r + c, 5 * r + c + 1) for r in range(5) for c in range(4)]
    edges += [(5 * r + c, 5 * r + c + 5) for r in range(4) for c in range(5)]
    keep = rng.random(len(edges)) < 0.9
    return PixelGraph(nodes + rng.integers(-9, 10, nodes.shape), np.array(edges)[keep])


def halved(graph: PixelGraph, places: list[int]) -> PixelGraph:
    "Edges split at the pixel in their middle, where there is one on the line."
    nodes, edges = graph.nodes.tolist(), []
    for i, (a, b) in enumerate(graph.edges.tolist()):
        middle = (graph.nodes[a] + graph.nodes[b]) / 2
        if i in places and (middle == middle.round()).all():
            edges += [(a, len(nodes)), (len(nodes), b)]
            nodes.append(middle.tolist())
        else:
            edges.append((a, b))
    return PixelGraph(np.array(nodes), np.array(edges))


seeds = st.integers(0, 10_000)
quick = settings(max_examples=25, deadline=None)


@quick
@given(seeds)
def test_names_of_nodes_mean_nothing_while_roads_keep_their_order(seed):
    "Relabelling: the order of the list of nodes changes nothing, for ids follow the edges."
    truth, guess = blocks(seed), blocks(seed + 1)
    order = np.random.default_rng(seed).permutation(len(guess.nodes))
    other = PixelGraph(guess.nodes[order], np.argsort(order)[guess.edges])
    assert apls_sat2graph(truth, other) == apls_sat2graph(truth, guess)


@quick
@given(seeds)
def test_unused_nodes_change_nothing(seed):
    truth, guess = blocks(seed), blocks(seed + 1)
    more = PixelGraph(np.vstack([guess.nodes, [(700.0, 700.0)]]), guess.edges)
    assert apls_sat2graph(truth, more) == apls_sat2graph(truth, guess)
    assert topo_sat2graph(truth, more, radius=0.0015).f1 == topo_sat2graph(truth, guess).f1


@quick
@given(seeds)
def test_another_order_of_roads_changes_no_more_than_covering(seed):
    """Quirk: covering goes by the other graph's numbers, so which control points stay depends on
    the order; hops, their places and their lengths do not."""
    graph, rng = blocks(seed), np.random.default_rng(seed)
    other = PixelGraph(graph.nodes, graph.edges[rng.permutation(len(graph.edges))])
    a, b = densify(graph), densify(other)
    assert sorted(map(tuple, a.places)) == sorted(map(tuple, b.places))
    assert sorted(a.cm) == sorted(b.cm) and sorted(np.diff(a.start)) == sorted(np.diff(b.start))
    assert 0.5 < apls_sat2graph(graph, other).score <= 1
    assert topo_sat2graph(graph, other).f1 > 0.97


@quick
@given(seeds, st.lists(st.integers(0, 39), max_size=12))
def test_splitting_roads_at_pixels_on_them_changes_no_more_than_the_cutting_of_hops(seed, places):
    "Quirk: each piece is cut into hops of its own, so control points move by a hop or two."
    truth, guess = blocks(seed), blocks(seed + 1)
    split = halved(guess, places)
    a, b = apls_sat2graph(truth, guess), apls_sat2graph(truth, split)
    assert split.length == pytest.approx(guess.length)
    assert abs(a.score - b.score) < 0.15
    assert abs(topo_sat2graph(truth, guess).f1 - topo_sat2graph(truth, split).f1) < 0.06


@quick
@given(seeds)
def test_both_sides_are_scored_alike(seed):
    a, b = blocks(seed), blocks(seed + 1)
    there, back = apls_sat2graph(a, b), apls_sat2graph(b, a)
    assert there.truth_to_proposal == back.proposal_to_truth and there.score == back.score


@quick
@given(seeds)
def test_files_keep_graphs(seed):
    "Nodes in their order, roads where they are first seen; a second time nothing changes."
    graph = blocks(seed)
    with tempfile.TemporaryDirectory() as d:
        for kind in ("p", "json"):
            once = read_pixel_graph(write_pixel_graph(graph, Path(d, f"once.{kind}")))
            twice = read_pixel_graph(write_pixel_graph(once, Path(d, f"twice.{kind}")))
            assert (once.nodes == graph.nodes).all()
            roads = [{tuple(sorted(e)) for e in g.edges.tolist()} for g in (graph, once)]
            assert roads[0] == roads[1] and (once.edges == twice.edges).all()

"""Learned connections: windows give the same edges, every edge has a confidence, models that are
none are refused; and lines are simple, whatever the mask."""

import numpy as np
import pytest
import scipy.ndimage as ndi
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from spacenet5_nb import graph, raster
from spacenet5_nb.core import Channels, DataError, VectorizeConfig, load_preset
from spacenet5_nb.roads import learned_crossings
from spacenet5_nb.roads.connection_evidence import EVIDENCE
from spacenet5_nb.roads.learned_joins import ConnectionModel, read_model
from spacenet5_nb.roads.overpass_score import crossing_places
from spacenet5_nb.roads.published_settings import NAMED
from spacenet5_nb.roads.stitch import stitch
from spacenet5_nb.roads.windowed_tracing import vectorize_windows
from spacenet5_nb.vectorize import vectorize

# isort: split
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize

BEST = Channels.best()
PLACE = dict(transform=Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000), crs="EPSG:32611")
LEARNED = VectorizeConfig(joins="learned")
FILLED = VectorizeConfig(fill_wide=True)
TOWN = [
    [(0, 120), (240, 124), (256, 126)],
    [(285, 128), (600, 130)],
    [(130, 0), (120, 600)],
    [(400, 0), (404, 430)],
    [(0, 450), (250, 440)],
    [(275, 438), (600, 425)],
    [(480, 600), (476, 445)],
]


def stack_of(lines, shape=(600, 600), half_px=5, noise=0.0, seed=0):
    "Probabilities of roads along lines of pixels (x, y), with noise along them; 25 mph."
    rng = np.random.default_rng(seed)
    road = rasterize([shapely.LineString(line).buffer(half_px) for line in lines], shape)
    road = ndi.gaussian_filter(road.astype(float), 1.5) * 230
    if noise:
        road += ndi.gaussian_filter(rng.normal(0, noise, shape), 2)
    stack = np.zeros((len(BEST), *shape), np.uint8)
    stack[BEST.road] = stack[BEST.bin_of(25)] = np.clip(road, 0, 255)
    return stack


def lines_of(g):
    "Rounded lines of all edges, in no order and no direction."
    both = (np.round(d["geometry"].coords, 3) for *_, d in g.edges(data=True))
    return sorted(min(xy.tolist(), xy[::-1].tolist()) for xy in both)


def roads(stack, config=LEARNED):
    return graph.validate(vectorize(stack, **PLACE, config=config, channels=BEST), speeds=False)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_windows_equal_the_whole(tmp_path, seed):
    stack = stack_of(TOWN, noise=120, seed=seed)
    grid = raster.Grid(stack.shape[1:], PLACE["transform"], CRS.from_user_input(PLACE["crs"]))
    path = raster.write(tmp_path / "p.tif", stack, grid=grid, descriptions=BEST.names)
    options = dict(config=LEARNED, speed=None, channels=BEST, window_px=300)
    whole, parts = roads(stack), vectorize_windows(path, **options)
    a, b = (
        shapely.union_all([d["geometry"] for *_, d in g.edges(data=True)]) for g in (whole, parts)
    )
    assert whole.number_of_edges() == parts.number_of_edges()
    assert shapely.hausdorff_distance(a, b) < 0.6 and abs(a.length - b.length) < 2
    assert all(0 <= d["connection_confidence"] <= 1 for *_, d in parts.edges(data=True))


def test_the_same_twice_and_no_confidence_by_rules():
    stack = stack_of(TOWN, noise=120)
    assert lines_of(roads(stack)) == lines_of(roads(stack))
    sure = [d["connection_confidence"] for *_, d in roads(stack).edges(data=True)]
    assert sure and 0 <= min(sure) <= max(sure) <= 1
    ruled = roads(stack, VectorizeConfig())
    assert not any("connection_confidence" in d for *_, d in ruled.edges(data=True))


def test_confidence_is_in_files_and_is_the_lesser_across_a_seam(tmp_path):
    left, right = (graph.empty("EPSG:32611") for _ in range(2))
    for g, x, sure in ((left, 0.0, 0.9), (right, 50.0, 0.4)):
        g.add_node(0, x=500_000 + x, y=4_000_000.0)
        g.add_node(1, x=500_050 + x, y=4_000_000.0)
        line = shapely.LineString([(500_000 + x, 4_000_000), (500_050 + x, 4_000_000)])
        rest = dict(speed_kph=36.0, travel_time=5.0, level=0, connection_confidence=sure)
        g.add_edge(0, 1, geometry=line, length=50.0, **rest)
        graph.write(g, tmp_path / f"{x}.gpkg")
    read = graph.read(tmp_path / "0.0.gpkg")
    assert [d["connection_confidence"] for *_, d in read.edges(data=True)] == [0.9]
    grids = [
        raster.Grid(
            (100, 100), Affine(0.5, 0, 500_000 + x, 0, -0.5, 4_000_025), CRS.from_epsg(32611)
        )
        for x in (0, 50)
    ]
    city = stitch(list(zip([left, right], grids, strict=True)))
    assert [d["connection_confidence"] for *_, d in city.edges(data=True)] == [0.4]


def passing_roads(half_turn, seen="crossing"):
    "Two roads that cross in the middle of 300 m, so many pixels off a level line at both ends."
    lines = [[(0, 300 + s * half_turn), (600, 300 - s * half_turn)] for s in (-1, 1)]
    stack = stack_of(lines, half_px=6)
    middle = rasterize([shapely.Point(300, 300).buffer(18)], stack.shape[1:])
    stack[getattr(BEST, seen)] = 255 * middle
    return stack


def by(who):
    "Only crossings are decided otherwise."
    return VectorizeConfig(crossings=who)


@pytest.mark.parametrize("half_turn", [60, 200])
def test_a_model_that_believes_the_rules_passes_what_they_pass(half_turn, monkeypatch):
    n = len(EVIDENCE)
    weights = np.where(np.arange(n)[:, None] == EVIDENCE.index("ruled"), 12.0, 0.0)
    believer = ConnectionModel(np.zeros(n), np.ones(n), ((weights, np.array([-6.0])),))
    monkeypatch.setattr(learned_crossings, "shipped_crossings", lambda: believer)
    for seen in ("crossing", "junction"):
        stack = passing_roads(half_turn, seen)
        assert lines_of(roads(stack, by("learned"))) == lines_of(roads(stack, by("rules")))


def test_learned_crossings_pass_and_meet_as_the_channels_say():
    assert len(crossing_places(roads(passing_roads(200), by("learned")))) == 1
    met = roads(passing_roads(200, "junction"), by("learned"))
    assert not len(crossing_places(met)) and max(dict(met.degree()).values()) == 4


def test_a_pickle_and_a_text_are_no_models(tmp_path):
    np.savez(tmp_path / "pickle.npz", evidence=np.array([object()]), mean=0.0, spread=1.0)
    (tmp_path / "text.npz").write_text("hello")
    for name in ("pickle.npz", "text.npz", "missing.npz"):
        with pytest.raises(DataError, match=name):
            read_model(tmp_path / name)


def test_presets_of_others_stay_with_rules():
    for name in ("best", "world", "faithful", "demo"):
        assert load_preset(name).vectorize.joins == "rules"
    assert all("joins" not in settings for settings in NAMED.values())


def test_nothing_and_everything():
    for value in (0, 255):
        stack = np.full((13, 80, 90), value, np.uint8)
        roads(stack)


@pytest.mark.parametrize("joins", ["rules", "learned"])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), half_px=st.sampled_from([4, 9, 16]))
def test_lines_are_simple(joins, seed, half_px):
    "No line crosses itself, or turns back on itself within two metres, whatever the mask."
    rng = np.random.default_rng(seed)
    lines = [rng.uniform(0, 260, (3, 2)).tolist() for _ in range(4)]
    stack = stack_of(lines, (260, 260), half_px, noise=200, seed=seed)
    config = VectorizeConfig(joins=joins, fill_wide=joins == "learned" or half_px == 16)
    for *_, d in roads(stack, config).edges(data=True):
        line = d["geometry"]
        assert line.is_simple or line.is_ring, line.wkt
        xy = np.array(line.coords)
        step = np.diff(xy, axis=0)
        turn = (step[1:] * step[:-1]).sum(1) / np.hypot(*step[1:].T) / np.hypot(*step[:-1].T)
        assert turn.min(initial=1) > -0.98, line.wkt


def avenue(width_m, blotches, median_m=0.0, seed=0):
    "Probabilities of a wide road of about 300 m, and of two streets that cross and meet it."
    rng, shape = np.random.default_rng(seed), (400, 600)
    line = shapely.LineString([(0, 200), (300, 190), (599, 230)])
    flat = dict(cap_style="flat")
    road = rasterize([line.buffer(width_m, **flat)], shape).astype(float)
    if median_m:
        road -= rasterize([line.buffer(median_m, **flat)], shape)
    streets = [[(150, 0), (150, 400)], [(420, 210), (430, 400)]]
    street = rasterize([shapely.LineString(s).buffer(6) for s in streets], shape)
    road = ndi.gaussian_filter(0.9 * np.maximum(road, street), 2)
    dark = ndi.gaussian_filter(rng.standard_normal(shape), 6)
    dark = blotches * np.clip(dark / dark.std(), 0, 2)
    stack = np.zeros((len(BEST), *shape), np.uint8)
    stack[BEST.road] = stack[BEST.bin_of(25)] = 255 * np.clip(road * (1 - dark), 0, 1)
    return stack


@pytest.mark.parametrize("width_m", [10, 16, pytest.param(24, marks=pytest.mark.slow), 32])
def test_a_blotched_avenue_is_one_line_that_its_streets_reach(width_m):
    "Three pieces of avenue and three of streets; where it is widest a bite may leave one more."
    ladder = roads(avenue(width_m, 0.3), VectorizeConfig())
    g = roads(avenue(width_m, 0.3), FILLED)
    metres = sum(d["length"] for *_, d in g.edges(data=True))
    assert 580 < metres < 640 and g.number_of_edges() <= 8
    assert g.number_of_edges() <= ladder.number_of_edges()
    line = shapely.LineString([(0, 200), (300, 190), (599, 230)])
    inner = [
        shapely.Point((d["x"] - 500_000) / 0.5, (4_000_000 - d["y"]) / 0.5)
        for n, d in g.nodes(data=True)
        if g.degree(n) >= 3
    ]
    assert len(inner) >= 2 and all(line.distance(p) < 6 for p in inner), "on the centre line"
    for x in (150, 425):
        assert min(abs(p.x - x) for p in inner) < 24, "where the street comes in"


def test_a_median_stays_and_a_thin_road_is_left_alone():
    two = roads(avenue(32, 0.2, 8.0, seed=1), FILLED)
    metres = sum(d["length"] for *_, d in two.edges(data=True))
    assert 850 < metres < 930, "both carriageways"
    thin = stack_of(TOWN, noise=120)
    on, off = (roads(thin, VectorizeConfig(fill_wide=fill)) for fill in (True, False))
    assert lines_of(on) == lines_of(off)

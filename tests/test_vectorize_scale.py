"""Compiled loops equal the libraries', windows equal the whole, stitched chips are one city; and
masks that break others."""

import networkx as nx
import numpy as np
import pytest
import rasterio
import scipy.ndimage as ndi
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.morphology import skeletonize

from spacenet5_nb import graph, raster
from spacenet5_nb.base import kernels
from spacenet5_nb.core import Channels, DataError, SpeedConfig, VectorizeConfig
from spacenet5_nb.roads import skeleton
from spacenet5_nb.roads.skeleton import thin, trace
from spacenet5_nb.roads.stitch import cells, stitch
from spacenet5_nb.roads.windowed_tracing import DiskStack, vectorize_windows
from spacenet5_nb.speed import add_speeds
from spacenet5_nb.vectorize import vectorize

# isort: split
from affine import Affine
from rasterio.features import rasterize

SELIM, BEST = Channels.selim_sef(), Channels.best()
PLACE = dict(transform=Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000), crs="EPSG:32611")


def stack_of(lines, shape, channels=SELIM, half_px=4, noise=0.0, seed=0):
    "Probabilities of roads along lines of pixels (x, y); 25 mph in the left half, 45 in the right."
    rng = np.random.default_rng(seed)
    road = rasterize([shapely.LineString(line).buffer(half_px) for line in lines], shape).astype(
        float
    )
    road = ndi.gaussian_filter(road, 1.5) * 255
    if noise:
        road += ndi.gaussian_filter(rng.normal(0, noise, shape), 1.5)
    stack = np.zeros((len(channels), *shape), np.uint8)
    stack[channels.road] = np.clip(road, 0, 255)
    left = np.arange(shape[1]) < shape[1] / 2
    stack[channels.bin_of(25)], stack[channels.bin_of(45)] = (
        stack[channels.road] * left,
        stack[channels.road] * ~left,
    )
    return stack


def metres(g):
    return sum(d["length"] for *_, d in g.edges(data=True))


def roads(g):
    return shapely.union_all([d["geometry"] for *_, d in g.edges(data=True)])


def beyond(a, b, far_m):
    return roads(a).difference(roads(b).buffer(far_m)).length


def assert_same(a, b, far_m=0.05):
    "The same edges, to some centimetres, with the same speeds."
    assert a.number_of_edges() == b.number_of_edges() and len(a) == len(b)
    lines, kph = (
        [d["geometry"] for *_, d in b.edges(data=True)],
        [d.get("speed_kph") for *_, d in b.edges(data=True)],
    )
    tree = shapely.STRtree(lines)
    for *_, d in a.edges(data=True):
        twins = [
            k
            for k in tree.query(d["geometry"], predicate="dwithin", distance=far_m)
            if shapely.hausdorff_distance(d["geometry"], lines[k]) < far_m
        ]
        assert len(twins) == 1, d["geometry"]
        if "speed_kph" in d:
            assert d["speed_kph"] == pytest.approx(kph[twins[0]], rel=1e-3)


# --- compiled loops

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


@given(MASKS)
def test_thinning_equals_scikit_images(mask):
    assert (kernels.thin_pixels(mask) == skeletonize(mask)).all()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.7, 0.9, 0.99, 1])
@pytest.mark.parametrize("smooth", [0, 1, 3])
def test_thinning_equals_scikit_images_on_large_noise(share, smooth):
    noise = np.random.default_rng(round(100 * share) + smooth).random((240, 310))
    noise = ndi.gaussian_filter(noise, smooth) if smooth else noise
    mask = noise <= np.quantile(noise, share)
    assert (kernels.thin_pixels(mask) == skeletonize(mask)).all()


@given(MASKS, st.integers(1, 30), st.integers(0, 1))
def test_dropping_small_components_equals_labelling(mask, least, value):
    ours = mask.astype(np.uint8)
    kernels.flip_small(ours, value, least)
    labels, _ = ndi.label(mask == bool(value))
    small = (labels > 0) & (np.bincount(labels.ravel())[labels] < least)
    assert (ours.view(bool) == (mask ^ small)).all()


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)),
    st.integers(0, 5),
)
def test_hysteresis_equals_labelling(band, near):
    labels, _ = ndi.label(band > 0.2 * 255)
    weak = np.isin(labels, np.unique(labels[band > 0.4 * 255])) & (labels > 0)
    if near:
        weak &= band > ndi.maximum_filter(band, 2 * near + 1) / 3
    assert (skeleton.threshold_mask(band, 0.4, 0.2, near) == ((band > 0.4 * 255) | weak)).all()


@given(MASKS)
def test_tracing_uses_every_line_pixel_once(mask):
    lines = skeletonize(mask)
    nodes, ends, parts = kernels.trace_pixels(lines)
    near = ndi.convolve(lines.astype(int), np.ones((3, 3), int), mode="constant") - 1
    groups, n = ndi.label(lines, np.ones((3, 3)))
    rings = sum(not (near[groups == k] != 2).any() for k in range(1, n + 1))
    on_line = int((lines & (near == 2)).sum())
    assert sum(len(p) - 2 for p in parts) == on_line - rings, "a ring's node is one of its pixels"
    inner = [tuple(p) for part in parts for p in part[1:-1].tolist()]
    assert len(inner) == len(set(inner)) and all(lines[int(r), int(c)] for r, c in inner)
    for (u, v), part in zip(ends, parts, strict=True):
        assert (part[0] == nodes[u]).all() and (part[-1] == nodes[v]).all()


# --- sizes and odd masks


def test_coordinates_beyond_16_bits():
    stack = np.zeros((12, 60, 40_000), np.uint8)
    stack[SELIM.road, 28:34] = 255
    stack[SELIM.road, :, 36_000:36_006] = 255
    stack[SELIM.bin_of(25)] = stack[SELIM.road]
    g = add_speeds(
        vectorize(stack, **PLACE, config=VectorizeConfig()), stack, **PLACE, config=SpeedConfig()
    )
    x = sorted(d["x"] for _, d in g.nodes(data=True))
    assert (
        g.number_of_edges() == 4
        and x[0] == pytest.approx(500_000, abs=0.5)
        and x[-1] == pytest.approx(520_000, abs=0.5)
    )
    (centre,) = [d for n, d in g.nodes(data=True) if g.degree(n) == 4]
    assert (centre["x"], centre["y"]) == pytest.approx((518_001.5, 3_999_984.5), abs=0.6)
    assert {round(d["speed_kph"] / graph.MPH_TO_KPH) for *_, d in g.edges(data=True)} == {25}


def test_tall_rasters_trace_where_they_are():
    mask = np.zeros((40_000, 40), bool)
    mask[:, 18:23] = True
    mask[35_000:35_005] = True
    found = trace(thin(mask, 12, 4))
    assert len(found.lines) == 4
    assert any(np.allclose(n, (35_002 + 4, 20 + 4), atol=1) for n in found.nodes)


@pytest.mark.parametrize("angle", [0, 17, 33, 45])
@pytest.mark.parametrize("shape", ["ring", "twins"])
def test_rings_stay_rings_and_twins_stay_two_at_any_angle(shape, angle):
    t = np.radians(angle)
    turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    if shape == "ring":
        lines = [[(80 * np.cos(a), 55 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 90)]]
    else:
        lines = [
            [(-250, y), (250, y)] for y in (-10, 10)
        ]  # through the chip: ends beside each other might be joined
    g = vectorize(
        stack_of([np.array(s) @ turn.T + 150 for s in lines], (300, 300)),
        **PLACE,
        config=VectorizeConfig(),
    )
    if shape == "ring":
        assert g.number_of_edges() == 1 == nx.number_of_selfloops(g)
    else:
        assert g.number_of_edges() == 2 == nx.number_connected_components(g) and metres(g) > 2 * 150


TOWN = [
    [(0, 130), (600, 170)],
    [(0, 303), (600, 303)],
    [(0, 470), (600, 430)],
    [(140, 0), (150, 600)],
    [(310, 0), (290, 600)],
    [(470, 0), (450, 600)],
    [(150 + 70 * np.cos(a), 300 + 70 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 60)],
]
TURNS = {
    "upside down": lambda a: a[:, ::-1],
    "mirrored": lambda a: a[:, :, ::-1],
    "rotated": lambda a: np.rot90(a, 1, (1, 2)),
    "transposed": lambda a: a.swapaxes(1, 2),
    "half turn": lambda a: np.rot90(a, 2, (1, 2)),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("seed", range(3))
def test_turning_noise_keeps_the_length(turn, seed):
    stack = stack_of(TOWN, (600, 600), noise=90, seed=seed)
    a, b = (
        vectorize(np.ascontiguousarray(s), **PLACE, config=VectorizeConfig())
        for s in (stack, TURNS[turn](stack))
    )
    assert metres(b) == pytest.approx(metres(a), rel=0.01)


# --- windows


def written(folder, stack, names=SELIM.names, **place):
    place = PLACE | place
    return raster.write(
        folder / "p.tif",
        stack,
        grid=raster.Grid(
            stack.shape[1:], place["transform"], rasterio.crs.CRS.from_user_input(place["crs"])
        ),
        descriptions=names,
    )


def both(folder, stack, channels=SELIM, window_px=300, margin_m=100.0, **place):
    "The graph of a stack in memory, and in windows of its file."
    place = PLACE | place
    whole = add_speeds(
        vectorize(stack, **place, channels=channels, config=VectorizeConfig()),
        stack,
        **place,
        channels=channels,
        config=SpeedConfig(),
    )
    path = written(folder, stack, channels.names, **place)
    return whole, graph.validate(
        vectorize_windows(
            path,
            config=VectorizeConfig(),
            speed=SpeedConfig(),
            channels=channels,
            window_px=window_px,
            margin_m=margin_m,
        )
    )


@pytest.mark.parametrize("seed", range(4))
def test_windows_equal_the_whole(tmp_path, seed):
    stack = stack_of(TOWN, (600, 600), noise=120, seed=seed)
    assert_same(*both(tmp_path, stack))


def test_windows_equal_the_whole_in_degrees(tmp_path):
    assert_same(
        *both(
            tmp_path,
            stack_of(TOWN, (600, 600), noise=60),
            transform=Affine(5e-6, 0, 37.6, 0, -5e-6, 55.7),
            crs="EPSG:4326",
        )
    )


def test_a_small_raster_is_one_window(tmp_path):
    assert_same(*both(tmp_path, stack_of(TOWN[:3], (600, 600)), window_px=4096))


def test_whole_roads_and_rings_cross_seams(tmp_path):
    "Twelve seams, one edge; a ring over four windows; carriageways beside and across a seam."
    ring = [(450 + 120 * np.cos(a), 300 + 120 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 90)]
    lines = [
        [(0, 60), (900, 90)],
        ring,
        [(0, 590), (900, 590)],
        [(0, 610), (900, 610)],
        [(600, 700), (600, 900)],
    ]
    whole, parts = both(tmp_path, stack_of(lines, (900, 900)), window_px=300)
    assert_same(whole, parts)
    assert (
        parts.number_of_edges() == 5
        and nx.number_of_selfloops(parts) == 1
        and nx.number_connected_components(parts) == 5
    )


@pytest.mark.parametrize("gap", [(290, 306), (300, 316), (284, 300)])
def test_a_gap_at_a_seam_is_closed_once(tmp_path, gap):
    stack = stack_of([[(0, 150), (600, 150)], [(450, 0), (450, 600)]], (600, 600))
    stack[:, :, slice(*gap)] = 0
    whole, parts = both(tmp_path, stack)
    assert_same(whole, parts)
    assert nx.number_connected_components(parts) == 1 and metres(parts) == pytest.approx(
        600, rel=0.01
    )


def test_an_overpass_at_a_seam_stays_apart(tmp_path):
    stack = stack_of([[(0, 280), (600, 320)], [(280, 0), (320, 600)]], (600, 600), BEST)
    stack[BEST.crossing] = (np.hypot(*(np.mgrid[:600, :600] - 300)) < 12) * 230
    whole, parts = both(tmp_path, stack, BEST)
    assert_same(whole, parts)
    assert parts.number_of_edges() == 2 and sorted(
        d["level"] for *_, d in parts.edges(data=True)
    ) == [0, 1]


def test_short_pieces_are_judged_whole(tmp_path):
    "50 m of road across a seam stay, 25 m of road go, wherever they lie."
    whole, parts = both(
        tmp_path,
        stack_of(
            [[(252, 100), (348, 100)], [(275, 500), (317, 500)], [(120, 500), (162, 500)]],
            (600, 600),
        ),
    )
    assert_same(whole, parts)
    assert parts.number_of_edges() == 1


@pytest.mark.slow
def test_two_processes_make_the_same(tmp_path):
    path = written(tmp_path, stack_of(TOWN, (600, 600), noise=60))
    one, two = (
        vectorize_windows(
            path, config=VectorizeConfig(), speed=SpeedConfig(), window_px=300, workers=n
        )
        for n in (1, 2)
    )
    assert list(one.edges(keys=True)) == list(two.edges(keys=True)) and metres(one) == metres(two)


def test_bad_rasters_are_named(tmp_path):
    stack = stack_of(TOWN[:2], (600, 600))
    with pytest.raises(DataError, match="8 bands"):
        vectorize_windows(written(tmp_path, stack), channels=Channels.cresi())
    floats = (stack / 255).astype(np.float32)
    floats[SELIM.road, 400, 500] = np.nan
    with pytest.raises(DataError, match="NaN"):
        vectorize_windows(written(tmp_path, floats), window_px=300)
    path = written(tmp_path, stack)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="p.tif"):
        vectorize_windows(path, window_px=300)
    with pytest.raises(DataError, match="no such file"):
        vectorize_windows(tmp_path / "none.tif")


@pytest.mark.parametrize(
    "road",
    [
        np.zeros((64, 90)),
        np.ones((64, 90)),
        np.indices((64, 90)).sum(0) % 2,
        np.ones((1, 90)),
        np.ones((1, 1)),
    ],
    ids=["empty", "all road", "checkerboard", "one row", "one by one"],
)
def test_odd_rasters_in_windows(tmp_path, road):
    stack = np.zeros((12, *road.shape), np.uint8)
    stack[SELIM.road] = road * 255
    vectorize_windows(
        written(tmp_path, stack),
        config=VectorizeConfig(),
        speed=SpeedConfig(),
        window_px=32,
        margin_m=5,
    )


def test_a_stack_on_disk_reads_like_an_array(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (12, 70, 90)).astype(np.uint8)
    stack = DiskStack(written(tmp_path, array))
    r, c = (
        np.random.default_rng(1).integers(0, 70, (40, 3, 1)),
        np.random.default_rng(2).integers(0, 90, (40, 1, 3)),
    )
    assert (
        (stack[SELIM.speed][:, r, c] == array[SELIM.speed][:, r, c]).all()
        and (stack[3] == array[3]).all()
        and stack.dtype == array.dtype
    )


# --- stitching


def chips_of(stack, half, overlap, shift=1.0, channels=SELIM, seed=0, speeds=True):
    """A stack as chips of which each is vectorized alone, from its own, slightly displaced,
    noisier prediction."""
    rng, out = np.random.default_rng(seed), []
    for r in range(0, stack.shape[1] - half + 1, half - overlap):
        for c in range(0, stack.shape[2] - half + 1, half - overlap):
            part, (dr, dc) = (
                stack[:, r : r + half, c : c + half].astype(float),
                rng.uniform(-shift, shift, 2),
            )
            part = ndi.shift(part, (0, dr, dc), order=1, mode="nearest")
            part[channels.road] += rng.normal(0, 15, part.shape[1:])
            part, place = (
                np.clip(part, 0, 255).astype(np.uint8),
                PLACE | dict(transform=PLACE["transform"] * Affine.translation(c, r)),
            )
            g = vectorize(part, **place, channels=channels, config=VectorizeConfig())
            out.append(
                (
                    add_speeds(g, part, **place, channels=channels, config=SpeedConfig())
                    if speeds
                    else g,
                    ((half, half), *place.values()),
                )
            )
    return out


STREETS = [
    [(0, 130), (600, 170)],
    [(0, 470), (600, 430)],
    [(140, 0), (150, 600)],
    [(470, 0), (450, 600)],
    [(40, 160), (240, 440)],
]


@pytest.mark.parametrize("half, overlap", [(300, 0), (320, 40), (200, 0), (240, 60)])
@pytest.mark.parametrize("seed", range(3))
def test_chips_become_one_city(half, overlap, seed):
    stack = stack_of(STREETS, (600, 600))
    whole = vectorize(stack, **PLACE, config=VectorizeConfig())
    city = graph.validate(stitch(chips_of(stack, half, overlap, seed=seed)))
    assert beyond(whole, city, 4) < 4 and beyond(city, whole, 4) < 25, (
        "nothing missing; at most one gap closed that is open in the whole"
    )
    assert metres(city) == pytest.approx(metres(whole), rel=0.02), "nothing twice"
    assert nx.is_connected(city) and not [n for n in city if city.degree(n) == 2]


@pytest.mark.parametrize("y", [288, 294, 300, 306, 312])
@pytest.mark.parametrize("overlap", [0, 40])
def test_a_road_along_a_seam_is_there_once(y, overlap):
    stack = stack_of(
        [[(0, y), (600, y)], [(150, 0), (150, 600)], [(460, 0), (460, 600)]], (600, 600)
    )
    city = stitch(chips_of(stack, 300 + overlap // 2, overlap, shift=0.5))
    assert nx.is_connected(city) and metres(city) == pytest.approx(900, rel=0.03)


@pytest.mark.parametrize("x", [282, 292, 300])
@pytest.mark.parametrize("overlap", [0, 60])
def test_carriageways_along_a_seam_are_not_linked(x, overlap):
    "8 m apart, nearer than an end is led to another, but beside it, not ahead."
    stack = stack_of(
        [[(x, 0), (x, 600)], [(x + 16, 0), (x + 16, 600)], [(0, 150), (x, 150)]],
        (600, 600),
        half_px=3,
    )
    city = stitch(chips_of(stack, 300 + overlap // 2, overlap, shift=0.3))
    assert (
        nx.number_connected_components(city) == 2
        and city.number_of_edges() == 4
        and metres(city) == pytest.approx(600 + x / 2, rel=0.02)
    )


def test_times_add_up():
    stack = stack_of(STREETS, (600, 600))
    city = stitch(chips_of(stack, 300, 0))
    whole = add_speeds(
        vectorize(stack, **PLACE, config=VectorizeConfig()), stack, **PLACE, config=SpeedConfig()
    )
    total = [sum(d["travel_time"] for *_, d in g.edges(data=True)) for g in (city, whole)]
    assert total[0] == pytest.approx(total[1], rel=0.05)
    assert all(0 <= d["speed_confidence"] <= 1 for *_, d in city.edges(data=True))


def test_an_overpass_across_a_seam_stays_apart():
    stack = stack_of([[(0, 290), (600, 310)], [(200, 0), (210, 600)]], (600, 600), BEST)
    stack[BEST.crossing] = (
        np.hypot(np.mgrid[:600, :600][0] - 297, np.mgrid[:600, :600][1] - 205) < 12
    ) * 230
    city = stitch(chips_of(stack, 320, 40, shift=0.0, channels=BEST))
    assert nx.number_connected_components(city) == 2 and city.number_of_edges() == 2
    (_, _, a), (_, _, b) = city.edges(data=True)
    assert a["geometry"].crosses(b["geometry"]) and {a["level"], b["level"]} == {0, 1}


def test_files_and_other_zones_are_taken(tmp_path):
    chips = chips_of(stack_of(STREETS, (600, 600)), 300, 0)
    paths = [graph.write(g, tmp_path / f"{i}.gpkg") for i, (g, _) in enumerate(chips)]
    plain, filed = (
        stitch(chips),
        stitch([(p, grid) for p, (_, grid) in zip(paths, chips, strict=True)]),
    )
    assert (
        metres(filed) == pytest.approx(metres(plain))
        and filed.number_of_edges() == plain.number_of_edges()
    )
    moved = stitch([(graph.project(chips[0][0], "EPSG:32612"), chips[0][1]), *chips[1:]])
    assert moved.graph["crs"] == "EPSG:32611" and moved.number_of_edges() == plain.number_of_edges()
    with pytest.raises(DataError, match="none"):
        stitch([])


@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=1, max_size=6, unique=True
    )
)
def test_every_place_has_one_owner(corners):
    areas = [shapely.box(x, y, x + 100, y + 80) for x, y in corners]
    own = cells(areas)
    assert sum(c.area for c in own) == pytest.approx(shapely.union_all(areas).area, abs=1e-3)
    assert all(a.buffer(1e-6).covers(c) for a, c in zip(areas, own, strict=True))

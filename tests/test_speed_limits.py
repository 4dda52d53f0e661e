"Speeds from labels: junk of every kind, the law's defaults, bins that survive their CSV."

import math
import warnings

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from shapely.geometry import LineString

from spacenet5_nb import speed_limits as sl
from spacenet5_nb.core import Channels, DataError
from spacenet5_nb.speed_limits import MPH_TO_KPH, add_speeds, equal_frequency_edges, speed_of

NAMES = [
    "highway",
    "road_type",
    "lanes",
    "lane_numbe",
    "lane_number",
    "paved",
    "surface",
    "bridge",
    "bridge_typ",
    "bridge_type",
    "layer",
    "tunnel",
    "maxspeed",
    "maxspeed:forward",
    "maxspeed:backward",
    "maxspeed:type",
    "source:maxspeed",
    "zone:traffic",
    "motorroad",
    "inferred_speed_mph",
    "inferred_speed_mps",
    "inferred_s",
    "speed_mph",
    "speed_m/s",
    "name",
]
WORDS = [
    "None",
    "null",
    "nan",
    "NaN",
    "",
    " ",
    "none",
    "walk",
    "signals",
    "RU:urban",
    "DE:motorway",
    "GB:nsl_single",
    "XX:",
    ":",
    "30;50",
    "['2', '3']",
    "[",
    "[]",
    "50 mph",
    "1e400",
    "-1",
    "0",
    "13",
    "two",
    "2;3",
    "3",
    "999",
    "yes",
    "no",
    "motorway",
    "motorway_link",
    "_link",
    "residential",
    "living_street",
    "service",
    "yak path",
    "1_0",
    "٣",
    "\x00",
    "0x10",
]
SCALARS = st.one_of(
    st.none(),
    st.sampled_from(WORDS),
    st.text(max_size=12),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.binary(max_size=4),
    st.just(pd.NA),
    st.just(pd.NaT),
    st.just(np.float32(2)),
    st.just(np.int64(5)),
    st.decimals(allow_nan=True),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=2),
        st.lists(st.floats(), max_size=3).map(np.array),
    ),
    max_leaves=5,
)
TAGS = st.dictionaries(st.sampled_from(NAMES), JUNK, max_size=8)


@given(
    TAGS,
    st.booleans(),
    st.sampled_from(["", "RU", "US", "DE", "US-NV", "GB"]),
    st.sampled_from(["urban", "rural"]),
)
@example({"maxspeed": [["a"], ["b", "c"]]}, True, "", "urban")
@example({"speed_mph": 1e-300, "inferred_speed_mph": math.inf}, True, "RU", "rural")
@example({"layer": 1e300}, True, "", "urban")
def test_any_junk_gives_a_positive_speed_with_a_rule(tags, keep, country, zone):
    found = speed_of(tags, keep_existing=keep, country=country, zone=zone)
    assert (
        math.isfinite(found.mph)
        and 0 < found.mph <= sl.MAX_MPH
        and found.rule
        and isinstance(found.problem, str)
    )
    assert (
        abs(sl.level_of(tags)) <= 10
        and sl.road_class(tags) in (*sl.ROAD_TYPES.values(), "unknown")
        and sl.is_bridge(tags) in (True, False)
    )


@given(st.lists(TAGS, min_size=1, max_size=4))
def test_a_table_of_junk_keeps_every_row(rows):
    frame = gpd.GeoDataFrame(
        pd.DataFrame(
            {
                name: pd.Series([row.get(name) for row in rows], dtype=object)
                for name in sorted({n for row in rows for n in row})
            },
            index=range(len(rows)),
        ),
        geometry=[LineString([(0, 0), (1, i)]) for i in range(len(rows))],
        crs=4326,
    )
    out = add_speeds(frame)
    assert (
        len(out) == len(rows)
        and np.isfinite(out["inferred_speed_mph"]).all()
        and (out["inferred_speed_mps"] > 0).all()
        and (out["speed_rule"] != "").all()
    )


@given(st.text(max_size=20))
def test_any_text_is_a_limit_or_a_problem(text):
    limit = sl.read_limit(text)
    assert (limit.mph > 0) or (math.isnan(limit.mph) and limit.problem)


def roads(**columns):
    n = len(next(iter(columns.values())))
    return gpd.GeoDataFrame(
        columns, geometry=[LineString([(i, 0), (i, 1)]) for i in range(n)], crs=4326
    )


def test_what_cannot_be_used_is_counted():
    out = add_speeds(
        roads(
            highway=["primary", "primary", "primary", "primary", "escape", "footway", "primary"],
            lanes=["0", "13", "-1", "two", "2", "2", 2.0],
            surface=["asphalt", "3", "cheese", "null", None, "1", "1"],
            maxspeed=["signals", None, "999", math.nan, "", "None", ["30", "50"]],
        )
    )
    text = "\n".join(out.attrs["problems"])
    for part in (
        "0 lanes is out of range",
        "13 lanes is out of range",
        "-1 lanes is out of range",
        "'two' is no number",
        "surface '3' is unknown",
        "surface 'cheese' is unknown",
        "highway 'escape' is unknown",
        "highway 'footway' is not a road for cars",
        "maxspeed 'signals' says no number",
        "maxspeed '999' is out of range",
    ):
        assert part in text, part
    assert out["inferred_speed_mph"].round(3).tolist() == [45, 55, 45, 45, 20, 20, 18.641]
    assert out["speed_rule"].iloc[6] == "label: maxspeed, lowest of 30, 50"


def test_spacenet_3_reads_the_cut_name_first():
    assert speed_of({"road_type": "2", "lane_numbe": "4", "lane_number": "2"}).mph == 55
    assert speed_of({"road_type": "2", "lane_numbe": "null", "lane_number": "4"}).mph == 55


@pytest.mark.parametrize("written", ["inferred_speed_mph", "speed_mph", "inferred_s"])
def test_a_written_speed_wins_unless_told_otherwise(written):
    tags = {written: "18.75", "maxspeed": "90", "highway": "motorway"}
    assert speed_of(tags, country="RU").mph == 18.75
    assert speed_of(tags, keep_existing=False).mph == 55 and math.isclose(
        speed_of(tags, keep_existing=False, country="RU").mph, 110 / MPH_TO_KPH
    )


def test_speeds_in_metres_per_second_stay_in_their_bin():
    channels = Channels.selim_sef()
    for mph in channels.edges_mph:
        assert channels.bin_of(
            speed_of({"inferred_speed_mps": mph * sl.MPH_TO_MPS}).mph
        ) == channels.bin_of(mph), mph


def test_no_country_means_the_reference_table():
    assert (
        speed_of({"highway": "residential"}).mph == 25
        and "law" not in speed_of({"highway": "residential"}).rule
    )
    with pytest.raises(DataError, match="NARNIA"):
        add_speeds(roads(highway=["primary"]), country="Narnia")
    us = add_speeds(roads(highway=["primary"]), country="US")
    assert (
        us["inferred_speed_mph"].item() == 45
        and "US: urban has no known default in law" in us.attrs["problems"][0]
    )


@pytest.mark.shared
def test_the_file_of_legal_defaults_wins(shared):
    path = shared / "data/osm/legal_default_speeds.json"
    table = roads(highway=["residential", "motorway", "primary", "living_street", "service"])
    kph = lambda country, **more: (
        (
            add_speeds(table, country=country, legal_speeds=path, **more)["inferred_speed_mph"]
            * MPH_TO_KPH
        )
        .round(1)
        .tolist()
    )
    assert kph("RU") == [60, 110, 60, 20, 32.2] and kph("FR", zone="rural") == [
        50,
        130,
        80,
        20,
        32.2,
    ]
    assert kph("US-MD") == [48.3, 88.5, 48.3, 48.3, 32.2], (
        "Maryland names no limit for motorways: the reference table"
    )
    assert kph("US-NV") == [40.2, 88.5, 72.4, 40.2, 32.2], (
        "Nevada's 80 mph are not meant for its towns"
    )
    assert kph("GB")[:3] == [48.3, 112.7, 48.3] and kph("DE")[1] == 130
    limits = sl.legal_limits(path)
    assert len(limits) > 240
    for code in limits:
        assert (
            add_speeds(table, country=code, legal_speeds=limits)["inferred_speed_mph"].between(
                3, 90
            )
        ).all(), code
    for code in ("RU", "FR", "CN", "DE", "GB", "IN", "ZA", "PR"):
        assert {**limits[code], **sl.LEGAL_SPEEDS[code]} == limits[code], (
            "the small table agrees with the community's"
        )


def test_equal_frequency():
    lengths = [1000, 1000, 2000, 500, 1500]
    frame = gpd.GeoDataFrame(
        {"inferred_speed_mph": [20.0, 25, 30, 35, 45]},
        geometry=[LineString([(0, i), (m, i)]) for i, m in enumerate(lengths)],
        crs="EPSG:32637",
    )
    assert equal_frequency_edges(frame, 3) == (25, 30, 45)
    with pytest.warns(UserWarning, match="5 distinct speeds make 5 bins, not 10"):
        assert equal_frequency_edges(frame, 10) == (20, 25, 30, 35, 45)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edges = equal_frequency_edges(frame, 5)
    assert Channels.bins(edges).n_bins == 5


@given(
    st.lists(st.tuples(st.floats(1, 90), st.floats(0, 1e4)), min_size=1, max_size=60),
    st.integers(1, 12),
)
def test_equal_frequency_never_splits_a_speed(pairs, n):
    mph, weights = zip(*pairs, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        edges = equal_frequency_edges(mph, n, weights=weights)
    assert (
        len(edges) == min(n, len(set(mph)))
        and set(edges) <= set(mph)
        and edges[-1] == max(mph)
        and list(edges) == sorted(set(edges))
    )


@given(st.lists(st.integers(1, 120), min_size=1, max_size=20, unique=True).map(sorted))
def test_bins_survive_their_csv(tmp_path_factory, edges):
    path = tmp_path_factory.getbasetemp() / "bins.csv"
    back, before = (
        Channels.bins(sl.read_bin_csv(sl.write_bin_csv(path, edges))),
        Channels.bins(edges),
    )
    assert back.n_bins == len(edges) and all(
        back.bin_of(v) == before.bin_of(v) for v in range(1, 140)
    )
    assert pd.read_csv(path)["burn_val"].max() == 255 // len(edges) * len(edges)

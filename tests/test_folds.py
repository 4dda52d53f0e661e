"""What must hold of folds whatever the chips: whole, filled, blind to the files' order, never the
same ground twice; even on the generated cities."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spacenet5_nb.chips import folds
from spacenet5_nb.core import DataError

MPH = (15.0, 20.0, 25.0, 35.0, 65.0)


@st.composite
def layouts(draw):
    """Chips of one to three cities on lattices with holes, some shifted onto a neighbour, some
    given again under another city's name."""
    rng, rows = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), []
    for city in draw(st.sampled_from([["Moscow"], ["Moscow", "Mumbai"], ["A", "B", "C"]])):
        side, hole, shift = (
            draw(st.integers(1, 6)),
            draw(st.sampled_from([0, 0.4])),
            draw(st.sampled_from([0, 0.3])),
        )
        for k in range(side * side):
            if rng.random() < hole:
                continue
            x, y = (
                30
                + 10 * len(city)
                + ord(city[-1])
                + 4e-3 * (k % side + 0.5 * (rng.random() < shift)),
                4e-3 * (k // side),
            )
            speeds = {mph: float(rng.gamma(0.6)) for mph in MPH if rng.random() < 0.6}
            split = "test" if rng.random() < 0.1 else "train"
            rows.append(
                {
                    "chip": f"{city}_chip{k}",
                    "city": city,
                    "split": split,
                    "label": "x",
                    "speeds": speeds,
                    "road_km": sum(speeds.values()),
                    "minx": x,
                    "miny": y,
                    "maxx": x + 4e-3,
                    "maxy": y + 4e-3,
                }
            )
    again = [dict(r, chip=f"AOI_9_{r['chip']}", city="AOI_9") for r in rows if rng.random() < 0.05]
    assume(rows)
    return pd.DataFrame(rows + again)


@settings(max_examples=25, deadline=None)
@given(layouts(), st.integers(1, 5), st.integers(0, 9))
def test_folds_of_any_layout(chips, n, seed):
    train = chips[chips["split"] == "train"]
    n_blocks = len(folds.blocks(train)) if len(train) else 0
    if n_blocks < n:
        with pytest.raises(DataError, match="cannot fill"):
            folds.make_folds(chips, n, seed=seed)
        return
    made = folds.make_folds(chips, n, seed=seed)
    assert sorted(made["chip"]) == sorted(train["chip"]), "every train chip in just one fold"
    assert set(made["fold"]) == set(range(n)), "none empty"
    assert folds.make_folds(chips.sample(frac=1, random_state=seed), n, seed=seed).equals(made), (
        "the order of files is nothing"
    )
    of = made.set_index("chip")["fold"]
    for a, b in folds.overlapping_pairs(train):
        assert of[train["chip"].iloc[a]] == of[train["chip"].iloc[b]], "the same ground"
    folds.check_leaks(train.assign(fold=train["chip"].map(of)))


@settings(max_examples=25, deadline=None)
@given(layouts(), st.integers(0, 9))
def test_every_leak_is_refused(chips, seed):
    train = chips.assign(split="train")
    pairs = folds.overlapping_pairs(train)
    assume(len(pairs) and len(folds.blocks(train)) >= 2)
    made = folds.make_folds(train, 2, seed=seed)
    a, b = train["chip"].iloc[pairs[seed % len(pairs)]]
    made.loc[made["chip"] == a, "fold"] = 1 - made.loc[made["chip"] == b, "fold"].iloc[0]
    assume(made["fold"].nunique() == 2)
    with pytest.raises(DataError, match="same ground"):
        folds.check_folds(made, train, 2)


def lattice(rows, columns, km, city="Moscow"):
    "Chips side by side with km(row, column) per speed."
    at = [(r, c) for r in range(rows) for c in range(columns)]
    speeds = [km(r, c) for r, c in at]
    return pd.DataFrame(
        {
            "chip": [f"{city}_chip{k}" for k in range(len(at))],
            "city": city,
            "split": "train",
            "label": "x",
            "speeds": speeds,
            "road_km": [sum(s.values()) for s in speeds],
            "minx": [4e-3 * c for _, c in at],
            "miny": [4e-3 * r for r, _ in at],
            "maxx": [4e-3 * (c + 1) for _, c in at],
            "maxy": [4e-3 * (r + 1) for r, _ in at],
        }
    )


def test_seeds_differ_and_repeat():
    chips = lattice(12, 12, lambda r, c: {25: 1 + (r * 7 + c * 3) % 5 / 5, 65: float(r == 5)})
    made = {s: folds.make_folds(chips, 4, seed=s) for s in range(4)}
    assert len({tuple(f["fold"]) for f in made.values()}) > 1
    assert all(folds.make_folds(chips, 4, seed=s).equals(f) for s, f in made.items())


@pytest.mark.parametrize("seed", range(3))
def test_a_motorway_at_one_side_is_shared(seed):
    """A motorway along one side of a city of 400 chips, slow lanes in a corner: each fold has some
    of both, and stays in few pieces."""
    chips = lattice(
        20,
        20,
        lambda r, c: (
            {25: 1.0} | ({65: 1.0} if r == 1 else {}) | ({15: 1.0} if r > 14 and c > 14 else {})
        ),
    )
    made = chips.merge(folds.make_folds(chips, 4, seed=seed), on="chip")
    found = folds.imbalance(made)
    assert found["km"] < 0.04 and found[65] <= 0.41 and found[15] <= 0.45, found
    assert folds.neighbours_apart(made) < 0.25
    blind = folds.make_folds(chips.drop(columns="speeds"), 4, seed=seed)
    assert (
        folds.imbalance(chips.merge(blind, on="chip"))[[15, 65]].max() > 2 * found[[15, 65]].max()
    )


@pytest.mark.slow
def test_the_generated_cities_are_more_even_than_by_length(tmp_path):
    from spacenet5_nb.base.labels import read_labels
    from spacenet5_nb.chips.integrity import scan_image
    from spacenet5_nb.demo import make_demo
    from spacenet5_nb.explore import find_chips

    make_demo(
        tmp_path / "demo",
        seed=7,
        chip_m=200,
        gsd_m=2,
        grid=(5, 5),
        cities=["Mirage", "Delta"],
        workers=1,
    )
    chips, rows = find_chips(tmp_path / "demo"), []
    for c in chips.itertuples():
        roads, facts = read_labels(c.label), scan_image(c.image, (3,))[0]
        km = (
            roads.to_crs(roads.estimate_utm_crs()).length / 1000
            if len(roads)
            else pd.Series(dtype=float)
        )
        speeds = (
            km.groupby(roads["inferred_speed_mph"].astype(float)).sum().to_dict()
            if len(roads)
            else {}
        )
        rows.append(
            {k: facts[k] for k in ("minx", "miny", "maxx", "maxy")}
            | {"speeds": speeds, "road_km": sum(speeds.values())}
        )
    chips = pd.concat([chips, pd.DataFrame(rows)], axis=1)

    def off(table):
        "Mean over the km of how far a road's speed is from its even share."
        found, km = [], folds.speed_km(chips).sum()
        for seed in range(3):
            found.append(
                (
                    folds.imbalance(chips.merge(folds.make_folds(table, 4, seed=seed), on="chip"))[
                        km.index
                    ]
                    * km
                ).sum()
                / km.sum()
            )
        return np.mean(found)

    assert off(chips) < 0.75 * off(chips.drop(columns="speeds"))

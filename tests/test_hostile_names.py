"""Names, tags and ids from data that are scripts, formulas or paths: in files that are written, in
pictures, in executed notebooks and in JupyterLab."""

import pandas as pd

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

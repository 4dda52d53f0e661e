"""Files from strangers: refused in one line that names them; nothing of them is run or believed.

What `make fuzz` finds becomes a case here, too."""

import json
import os
import pickle
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fuzz import readers
from hypothesis import given, settings
from hypothesis import strategies as st

from spacenet5_nb import core, extract, model, raster  # isort: skip
from spacenet5_nb.base.console import explain
from spacenet5_nb.base.errors import WorkspaceError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "An image and a member that fits it."
    folder = tmp_path_factory.mktemp("files")
    readers.make_tiff(folder / "city.tif")
    readers.make_member(folder / "member.safetensors")
    return folder


def refused(program, name: str, *arguments: object) -> str:
    "The one line in which a command refuses a file of this name."
    code, _, said = program(*arguments)
    last = said.strip().splitlines()[-1]
    assert code == 1 and "fault of the program" not in said and name in last, said
    assert len(last) < 3000 and core.shown(last, len(last) + 1) == last
    return last


def with_header(source: Path, to: Path, change) -> Path:
    "A member whose header says something else."
    data = source.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    info = json.loads(header["__metadata__"]["info"])
    change(info, header)
    header["__metadata__"]["info"] = json.dumps(info)
    text = json.dumps(header).encode()
    to.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    return to


LIES = {
    "hub": lambda i, h: i["spec"].update(encoder="hf-hub:timm/resnet18"),
    "hub_": lambda i, h: i["spec"].update(encoder="hf_hub:timm/resnet18"),
    "local": lambda i, h: i["spec"].update(encoder="local-dir:../../etc"),
    "upper": lambda i, h: i["spec"].update(encoder="TEST_RESNET"),
    "slash": lambda i, h: i["spec"].update(encoder="timm/test_resnet"),
    "vision": lambda i, h: i["spec"].update(encoder="torchvision:resnet18"),
    "none of features": lambda i, h: i["spec"].update(encoder="vit_tiny_patch16_224"),
    "another": lambda i, h: i["spec"].update(encoder="resnet18"),
    "gsd": lambda i, h: i.update(gsd_m=1e-6),
    "nan": lambda i, h: i.update(gsd_m=float("nan")),
    "true": lambda i, h: i.update(gsd_m=True),
    "text": lambda i, h: i.update(gsd_m="0.5"),
    "channels": lambda i, h: i["spec"].update(out_channels=10**8),
    "table": lambda i, h: i["channels"].update(edges_mph=[1.0]),
    "names": lambda i, h: i["channels"].update(names=["road"] * 12),
    "std": lambda i, h: i.update(std=[0.0] * 3),
    "mean": lambda i, h: i.update(mean=[float("nan")] * 3),
    "bidi": lambda i, h: i.update(attribution="a\u202eb"),
    "escape": lambda i, h: i.update(source="\x1b]0;x\x07"),
    "missing": lambda i, h: h.pop("head.weight"),
    "too many": lambda i, h: h.update({"x\x1b[2J": {**h["head.bias"]}}),
    "kind": lambda i, h: h["head.bias"].update(dtype="I64"),
    "eighths": lambda i, h: h["head.bias"].update(dtype="F8_E4M3"),
    "overlap": lambda i, h: h["head.bias"].update(data_offsets=[0, 48]),
    "beyond": lambda i, h: h["head.bias"].update(data_offsets=[10**12, 10**12 + 48]),
    "shape": lambda i, h: h["head.bias"].update(shape=[2**62, 4]),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_member_that_lies_is_named(files, tmp_path, program, lie):
    member = with_header(files / "member.safetensors", tmp_path / "lies.safetensors", LIES[lie])
    out = tmp_path / "roads.gpkg"
    refused(program, "lies.safetensors", "extract", files / "city.tif", "-o", out,
            "--members", member)  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["lies.safetensors"]


def test_a_header_does_not_choose_a_preset_file(files, tmp_path, monkeypatch):
    "Its preset is a name: a path that it gives is not opened."
    (tmp_path / "mine.yaml").write_text("a: &a [*a]")
    info = {**model.read_info(files / "member.safetensors"), "preset": str(tmp_path / "mine.yaml")}
    said = []
    assert extract.preset_of(info, "", said.append).name == "best" and len(said) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_weights_that_give_no_roads_for_certain_are_refused(files, tmp_path, program, value):
    "NaN, infinite, or so large that the network's sums are no numbers: not `0 km` and exit 0."
    import torch

    net = model.load(files / "member.safetensors")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)
    model.save(net, tmp_path / "off.safetensors")
    refused(program, "off.safetensors", "extract", files / "city.tif", "-o",
            tmp_path / "roads.gpkg", "--members", tmp_path / "off.safetensors", "--no-map",
            "--tta", "none")  # fmt: skip


def test_shipped_members_are_held_against_their_checksums(tmp_path, monkeypatch):
    from spacenet5_nb.networks import member_header

    shipped = extract.find_members("world")[0]
    there = tmp_path / "assets/world"
    there.mkdir(parents=True)
    monkeypatch.setattr(member_header, "WORLD_FOLDER", there)
    data = bytearray(shipped.read_bytes())
    (there / shipped.name).write_bytes(data)
    with pytest.raises(core.CheckpointError, match="SHA256SUMS"):
        model.read_info(there / shipped.name)  # a list that is lost is no leave
    (there / "SHA256SUMS").write_bytes((shipped.parent / "SHA256SUMS").read_bytes())
    assert model.read_info(there / shipped.name)["preset"] == "world"
    data[-1] ^= 1
    (there / shipped.name).write_bytes(data)
    with pytest.raises(core.CheckpointError, match=f"{shipped.name}.*git checkout"):
        model.read_info(there / shipped.name)


# --- presets and settings -------------------------------------------------------------------------


def test_a_preset_that_is_a_bomb_is_named(tmp_path, program):
    lines = ["a: &a [x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in ("ab", "bc", "cd", "de", "ef")]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in ("fg", "gh", "hi", "ij")]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    refused(program, "bomb.yaml", "pipeline", "--preset", tmp_path / "bomb.yaml")


# --- XML ------------------------------------------------------------------------------------------

TYPE = '<!DOCTYPE x [<!ENTITY a "{}">]>'
XML = {"vrt": readers.read_vrt, "osm": readers.read_osm, "graphml": readers.read_graph}


@pytest.mark.parametrize("kind", XML)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "latin-1"])
def test_a_document_type_is_refused_in_any_encoding(tmp_path, monkeypatch, kind, encoding):
    "None of the readers of a kind reads on; what is wrong is said, with the file's name."
    path = tmp_path / f"AOI_7_Moscow_chip1.{kind}"
    readers.KINDS[kind].make(path)
    plain = path.read_text()
    body = plain.partition("?>")[2] if plain.startswith("<?xml") else plain
    name = {"utf-8-sig": "utf-8", "utf-16-be": "utf-16"}.get(encoding, encoding)
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    text = f'<?xml version="1.0" encoding="{name}"?>{TYPE.format("ha" * 9)}{body}'
    path.write_bytes(mark + text.encode(encoding))
    heard = []

    def hear(reader, path):
        with pytest.raises(core.WorkspaceError, match="document type") as e:
            reader(path)
        heard.append(str(e.value))

    monkeypatch.setattr(readers, "within", hear)
    hear(XML[kind], path) if kind != "graphml" else XML[kind](path)
    assert heard and all(path.name in text for text in heard)


VRT_LIES = {  # found by the fuzzer
    "band": ("<SourceBand>1<", "<SourceBand>x<"),
    "size": ('rasterXSize="24"', 'rasterXSize="-24"'),
    "huge": ('xOff="0"', 'xOff="1e400"'),
    "flat": ("0.5, 0.0,", "0.0, 0.0,"),
    "no number": ("0.5, 0.0,", "nan, 0.0,"),
    "nodata": ("<ColorInterp>", "<NoDataValue>none</NoDataValue><ColorInterp>"),
    "letters": ("<VRTDataset", '<?xml version="1.0" encoding="x-none"?><VRTDataset'),
}


@pytest.mark.parametrize("lie", VRT_LIES)
def test_a_list_of_tiles_that_lies_is_named(tmp_path, lie):
    readers.make_vrt(tmp_path / "city.vrt")
    readers.read_vrt(tmp_path / "city.vrt")
    text = (tmp_path / "city.vrt").read_text()
    assert VRT_LIES[lie][0] in text
    (tmp_path / "city.vrt").write_text(text.replace(*VRT_LIES[lie]))
    with pytest.raises(core.DataError, match="city.vrt"):
        readers.read_vrt(tmp_path / "city.vrt")


def test_what_lies_beside_an_image_is_not_read(tmp_path):
    "GDAL's .aux.xml could give it other statistics, a no-data value or a place."
    readers.make_tiff(tmp_path / "a.tif")
    before = raster.read_named(tmp_path / "a.tif")
    said = f'{TYPE.format("ha")}<PAMDataset><SRS>EPSG:4326</SRS><Metadata><MDI key="a">&a;</MDI>'
    said += '</Metadata><PAMRasterBand band="1"><NoDataValue>1</NoDataValue></PAMRasterBand>'
    (tmp_path / "a.tif.aux.xml").write_text(said + "</PAMDataset>")
    with raster.open_raster(tmp_path / "a.tif") as source:
        assert source.nodata is None and "a" not in source.tags()
    after = raster.read_named(tmp_path / "a.tif")
    assert np.array_equal(before[0], after[0]) and before[1] == after[1]


def test_a_pickled_graph_is_not_opened(tmp_path, program):
    "CRESI keeps graphs as pickles; one of a stranger would run what it likes."

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for name in ("AOI_7_Moscow_chip1.gpickle", "AOI_7_Moscow_chip1.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Payload()))
        refused(program, name, "score", "--truth", tmp_path / name, "--proposal", tmp_path / name)
    assert not (tmp_path / "ran").exists()


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["n" * 246, "n" * 240, "é" * 121])
def test_a_name_that_will_be_too_long_fails_before_the_hours(files, tmp_path, program, stem):
    "The roads' name would do; that of the parts of their probabilities would not."
    out = tmp_path / f"{stem}.gpkg"
    said = refused(program, "", "extract", files / "city.tif", "-o", out,
                   "--members", files / "member.safetensors")  # fmt: skip
    assert "shorter name" in said and not list(tmp_path.iterdir())


def test_a_chip_has_a_name_that_every_suffix_fits(tmp_path):
    long = core.parse_chip(f"SN5_roads_train_AOI_7_{'Moscow' * 30}_PS-RGB_chip12.tif")
    assert len(long.id) <= 150 and long.number == 12
    assert core.parse_chip(f"{'n' * 250}.tif").id != core.parse_chip(f"{'n' * 249}m.tif").id


# --- messages -------------------------------------------------------------------------------------


@given(st.text(), st.integers(1, 200_000), st.sampled_from(["", "\x1b[2J", "\u202e", "\n", "\0"]))
def test_any_text_becomes_one_line_of_a_persons_size(text, times, mark):
    temporary = "/data/.tmp-0a1b2c3d-12-3456-0a1b2c3d.tif"
    long = f"{text}{mark}" * times if len(text) * times < 10**6 else text
    for error in (WorkspaceError(long, long, long), ValueError(long), OSError(5, "no", long)):
        said = explain(error)
        assert len(said) < 3100 and "\n" not in said
        assert core.shown(said, len(said) + 1) == said
    assert ".tmp-" not in explain(ValueError(f"{text[:99]}{temporary}: full"))


@pytest.mark.parametrize("kind", ["preset", "settings", "member", "geojson", "graphml"])
def test_a_few_of_the_fuzzers_files(tmp_path, kind):
    "As `make fuzz` does at length: the program itself works, and finds nothing in a few."
    import subprocess

    command = [sys.executable, "-m", "tests.fuzz", kind, "--examples", "15"]
    subprocess.run(command, cwd=Path(__file__).parents[1], check=True, timeout=600)


# --- links ----------------------------------------------------------------------------------------

FOLDERS = ("a", "a/b", "a/b/c", "d", "d/e")


@given(st.lists(st.tuples(st.sampled_from(FOLDERS), st.sampled_from((*FOLDERS, ".", "..", "out"))),
                max_size=6))  # fmt: skip
@settings(max_examples=40)
def test_links_in_any_shape_show_each_folder_once(links):
    "Loops, chains, links to oneself, to a parent, to a folder elsewhere, to nothing."
    with tempfile.TemporaryDirectory() as box:
        root, out = Path(box, "root"), Path(box, "out")
        for folder in (*(root / f for f in FOLDERS), out, out / "deep"):
            folder.mkdir(parents=True)
            (folder / "chip.tif").touch()
        (root / "self").symlink_to(root / "self")
        (root / "dead").symlink_to(box + "/nothing")
        (out / "back").symlink_to(root / "a")
        for k, (at, to) in enumerate(links):
            (root / at / f"link{k}").symlink_to(out if to == "out" else root / to)
        places = [os.path.realpath(folder) for folder, _ in core.walk(root)]
        assert len(places) == len(set(places)), "none twice"
        wanted = {str(root / f) for f in FOLDERS} | {str(root)}
        if any(to in ("out", "..") for _, to in links):
            wanted |= {str(out), str(out / "deep")}
        assert wanted <= set(map(os.path.realpath, places)) and "dead" not in str(places)

"Cures of the stages: folds, tables of chips, members, an image of one's own, options."

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from cures import row
from cures_readers import LINE, N, geojson, picture, roads
from shapely.geometry import mapping

from spacenet5_nb import ablations, demo, explore, masks, raster
from spacenet5_nb.chips import chip_tables, folds, survey
from spacenet5_nb.core import Channels, load_preset, open_run


def chips_at(*places: float, **more) -> pd.DataFrame:
    "Chips of 400 m side by side, as stage 01 has them."
    boxes = [shapely.box(x, 0, x + 0.0036, 0.0036).bounds for x in places]
    table = pd.DataFrame(boxes, columns=["minx", "miny", "maxx", "maxy"])
    table["chip"] = [f"c{k}" for k in range(len(places))]
    table = table.assign(label="x", split="train", city="", road_km=1.0, outline="", fatal="")
    return table.assign(null_fraction=0.0, image="a.tif", **more)


@row("chips/folds", "labelled chips cannot give", "cannot fill", "shows the same ground")
@row("chips/folds", "has the columns", "is out of range", "twice", "{} {}", "lacks the train chip")
@row("chips/folds", "has no chip")
def _(folder, fails):
    few, many = chips_at(0, 0.1), chips_at(*(k / 10 for k in range(12)))
    cure = fails(lambda: folds.split_test(few, fraction=0.2, minimum=2, seed=0))
    assert "Add chips, or lower data.test_min" in cure
    for chips, minimum in ((many, 2), (few, 1)):
        split = folds.split_test(chips, fraction=0.2, minimum=minimum, seed=0)["split"]
        assert (split == "test").sum() >= minimum
    assert "fewer folds" in fails(lambda: folds.make_folds(few, 3, seed=0))
    for chips, n in ((many, 3), (few, 2)):
        assert folds.make_folds(chips, n, seed=0)["fold"].nunique() == n

    def check(text: str, chips: pd.DataFrame = few) -> pd.DataFrame:
        rows = [line.split(",") for line in text.split()]
        return folds.check_folds(pd.DataFrame(rows[1:], columns=rows[0]), chips, 2)

    good = "chip,fold\nc0,0\nc1,1\n"
    for text in ("name,fold\nc0,0\n", good.replace("1,1", "1,7"), good + "c0,0\n", good + "c9,0\n",
                 good[:-5], good.replace("1,1", "1,0")):  # fmt: skip
        assert fails(lambda text=text: check(text))
    assert check(good)["fold"].tolist() == [0, 1]
    twins = chips_at(0, 0.001)
    assert "one fold in folds.csv" in fails(lambda: check(good, twins))
    three = chips_at(0, 0.001, 0.1)
    assert check("chip,fold\nc0,0\nc1,0\nc2,1\n", three)["fold"].tolist() == [0, 0, 1]
    tested = twins.assign(split=["train", "test"])
    assert "Remove one of the two" in fails(lambda: folds.check_leaks(tested.assign(fold=[0, -1])))
    folds.check_leaks(tested.assign(fold=[0, -1]).iloc[:1])


@row("chips/chip_tables", "is not a CSV", "cannot be read")
@row("chips/survey", "have no CRS")
def _(folder, fails, monkeypatch):
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(folder))
    r = open_run("r", "small")
    r.folds.parent.mkdir(parents=True)
    r.folds.write_bytes(b"chip,fold\n\xff\xfe\n")
    assert "run 01_explore again" in fails(lambda: chip_tables.read_folds(r))
    r.folds.write_text("chip,fold\nc0,0\n")
    assert len(chip_tables.read_folds(r)) == 1
    r.chips.write_text("x")
    assert "01_explore" in fails(lambda: chip_tables.load_chips(r))
    import geopandas as gpd

    table = gpd.GeoDataFrame({"highway": ["primary"]}, geometry=[LINE])
    assert "set_crs" in fails(lambda: survey.road_km(table))
    assert survey.road_km(table.set_crs(4326)) is not None


@row("explore", "is unknown", "<problem.rstrip('.')><more>", "none can be used", "has no data in")
def _(folder, fails):
    good, bad = chips_at(0), chips_at(0, 0.1)
    bad.loc[1, "fatal"] = "b.tif: is broken."
    cure = fails(lambda: explore.usable(good, on_problem="stopp"))
    for word in re.fullmatch("Use (.*) or (.*)\\.", cure).groups():
        assert len(explore.usable(good, on_problem=word)) == 1
    cure = fails(lambda: explore.usable(bad))
    assert len(explore.usable(bad, on_problem=cure.split()[-1])) == 1
    none = bad.assign(fatal="b.tif: is broken.")
    assert "b.tif: is broken" in fails(lambda: explore.usable(none, on_problem="skip"))
    assert fails(lambda: explore.usable(good.assign(null_fraction=1.0)))
    assert len(explore.usable(good)) == 1


@row("extract", "holds no member", "has {} bands", "has pixels of", "is no kind of road file")
@row("extract", "no such file", "would overwrite the image", "needs one street map")
@row("extract", "is a list of tiles", "so no street map lies on it", "belongs to")
@row("extract", "holds no member like a fold")
def _(folder, fails, monkeypatch):
    from spacenet5_nb import extract

    monkeypatch.setenv("SPACENET5_OUTPUTS", str(folder / "outputs"))
    assert "`world`" in fails(lambda: extract.find_members(folder))
    world = extract.find_members("world")
    assert "red, green and blue" in fails(lambda: extract.fitting(world, 1))
    assert extract.fitting(world, 3)[0] == world
    fails(lambda: extract.fitting(world, 3, most=2))
    info = {"gsd_m": 0.5}
    most = float(re.search(r"at most (\S+) m", fails(lambda: extract.check_scale(9, info, "a")))[1])
    extract.check_scale(most, info, "a")
    image, out = picture(folder / "a.tif"), folder / "roads.gpkg"
    endings = re.findall(r"\.\w+", fails(lambda: extract.check_names(folder / "a.kml", str(image))))
    assert ".gpkg" in endings
    assert "path" in fails(lambda: extract.check_names(out, str(folder / "no.tif")))
    probs = picture(folder / "roads_probs.tif")
    assert "another name" in fails(lambda: extract.check_names(out, str(probs)))
    extract.check_names(folder / "others.gpkg", str(probs))
    extract.check_names(out, str(image))

    def own(image, **more):
        return extract.train_own(image, train=lambda *_, **__: 1 / 0, **more)

    words = re.findall(r"--(\w+) (\S+?)[,.](?: |$)", fails(lambda: own(image)))
    assert dict(words) == {"osm": "extract.osm.pbf", "labels": "roads.geojson"}
    label = geojson(folder / "roads.geojson", mapping(LINE))
    with pytest.raises(ZeroDivisionError):  # training begins
        own(image, labels=label)
    assert "rio convert" in fails(lambda: own(folder / "a.vrt", labels=label))
    bare = picture(folder / "b.tif", crs=None, transform=None)
    assert "rio edit-info" in fails(lambda: own(bare, labels=label))
    assert "path" in fails(lambda: own(image, labels=folder / "no.geojson"))
    (folder / "sub").mkdir()
    other = picture(folder / "sub" / "a.tif")
    name = re.search(r"--run (\S+);", fails(lambda: own(other, labels=label)))[1]
    with pytest.raises(ZeroDivisionError):
        own(other, labels=label, run=name)
    begun = dict(labels=label, begin_with="world")
    assert "same encoder" in fails(lambda: own(image, preset="faithful", **begun))
    with pytest.raises(ZeroDivisionError):
        own(image, preset="small", **begun)


@row("ablations", "is unknown")
@row("masks", "'{}' is unknown")
def _(folder, fails):
    for find in (ablations.cases_of, lambda size: ablations.sized(load_preset("small"), size)):
        cure = fails(lambda find=find: find("huge")).removeprefix("Use ").rstrip(".")
        assert all(find(word) for word in cure.split(" or "))
    path, image = geojson(folder / "a.geojson"), picture(folder / "a.tif")
    cure = fails(lambda: masks.make_masks(path, image, style="spacenet3"))
    for word in re.findall("'(.*?)'", cure):
        assert masks.make_masks(path, image, style=word).shape == (12, N, N)


@row("demo", "is not a city", "<what>", "must be at least 1 by 1", "must not be negative")
@row("demo", "holds files that are no generated world", "with other parameters")
def _(folder, fails):
    small = dict(seed=0, grid=(1, 1), test_grid=(1, 1), chip_m=40, gsd_m=1, workers=1)

    def make(where: str = "w", **more) -> Path:
        return demo.make_demo(folder / where, **(small | {"cities": [demo.CITIES[0].name]} | more))

    cities = fails(lambda: make(cities=["Atlantis"])).removeprefix("Cities: ").rstrip(".")
    assert [c.name for c in demo.CITIES] == cities.split(", ")
    assert "chip_m=400, gsd_m=1" in fails(lambda: make(chip_m=1))
    assert "grid=(4, 4)" in fails(lambda: make(grid=(0, 1)))
    assert "0 or more" in fails(lambda: make(seed=-1))
    assert make().is_dir()
    assert "overwrite=True" in fails(lambda: make(seed=1))
    assert make(seed=1, overwrite=True).is_dir()
    (folder / "mine").mkdir()
    (folder / "mine/a.txt").write_text("x")
    assert "another folder" in fails(lambda: make("mine"))
    assert make("other").is_dir()


@row("ensemble", "is not a set of views", "is unknown", "chooses no chip")
@row("inference/members", "there is none", "weights for {} members", "are no weights")
@row("inference/members", "is not uint8")
@row("inference/sliding_windows", "leaves no room beside")
@row("networks/devices", "is not a device", "is not here")
@row("training/lightning_stage", "needs a GPU")
@row("training/finite_loss", "the loss is not a number")
@row("training/sampling", "has no weight of 0")
def _(folder, fails):
    import torch

    from spacenet5_nb import ensemble
    from spacenet5_nb.extract import find_members
    from spacenet5_nb.inference import members, sliding_windows
    from spacenet5_nb.networks.devices import find_device
    from spacenet5_nb.training import finite_loss, lightning_stage, sampling

    assert "04_train -p fold 0" in fails(lambda: members.open_members([], device="cpu"))
    (one,) = members.open_members(find_members("world")[:1], device="cpu")
    for wrong in ([1], [1, -1]):
        assert fails(lambda wrong=wrong: members.checked_weights(wrong, 2))
    assert len(members.checked_weights([1, 0], 2)) == 2
    path = picture(folder / "a.tif", np.full((3, N, N), 7, "uint16"))
    assert "read_chip" in fails(lambda: members.read_image(raster.read(path), [one]))
    image = members.read_image(raster.read_chip(path, 3, stretch="chip")[0], [one])[0]
    for option, right in (("tta", "none"), ("combine", "mean")):
        use = {"tta": "none", "combine": "mean"} | {option: "all"}
        cure = fails(lambda use=use: ensemble.mean_of_members([one], image, **use))
        assert right in cure
    assert ensemble.mean_of_members([one], image, tta="none", combine="mean").shape[1:] == (N, N)
    table = pd.DataFrame({"chip": ["c0"], "split": ["train"]})
    assert "train, all" in fails(lambda: ensemble.chosen_chips(table, "some"))
    assert all(len(ensemble.chosen_chips(table, w)) for w in ("train", "all", "c0"))
    room = dict(margin=64, blend=32)
    cure = fails(lambda: sliding_windows.spans(4000, window=64, **room))
    most = int(re.search(r"at least (\d+)", cure)[1])
    assert sliding_windows.spans(4000, window=most, **room)
    for name in ("gpu", f"cuda:{torch.cuda.device_count()}"):
        assert "cpu" in fails(lambda name=name: find_device(name))
    assert find_device("auto") and find_device("cpu").type == "cpu"
    cpu = torch.device("cpu")
    words = fails(lambda: lightning_stage.precision("16", cpu)).removeprefix("Use ").rstrip(".")
    assert all(lightning_stage.precision(w, cpu) for w in words.split(", or "))
    loss = torch.tensor(float("nan"))
    assert "stages.lr" in fails(lambda: finite_loss.check_loss((loss,), epoch=1, out=None))
    finite_loss.check_loss((torch.tensor(1.0),), epoch=1, out=None)
    assert "of a, b a weight" in fails(lambda: sampling.check_weights(["a", "b"], {"a": 1}))
    sampling.check_weights(["a", "b"], {"a": 1, "b": 0})


@row("training/distributed", "of LOCAL_WORLD_SIZE", "of SLURM_NNODES", "is not a number of proc")
@row("training/distributed", "not a positive number", "cannot be shared evenly")
def _(folder, fails):
    from spacenet5_nb.training import distributed

    torchrun = {"WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    assert "--nproc-per-node" in fails(lambda: distributed.find_world(env=torchrun))
    assert distributed.find_world(env=torchrun | {"WORLD_SIZE": "4"}).nodes == 2
    slurm = {"SLURM_PROCID": "0", "SLURM_NTASKS": "3", "SLURM_NNODES": "2"}
    assert "--ntasks-per-node" in fails(lambda: distributed.find_world(env=slurm))
    assert distributed.find_world(env=slurm | {"SLURM_NTASKS": "4"}).per_node == 2
    assert "1 or more" in fails(lambda: distributed.find_world(0, {}))
    assert distributed.find_world(1, {}).size == 1
    odd = torchrun | {"WORLD_SIZE": "some"}
    assert "unset it" in fails(lambda: distributed.find_world(env=odd))
    del odd["WORLD_SIZE"]
    assert distributed.find_world(1, odd).size == 1
    stage = load_preset("small").train.stages[0]
    two = distributed.World(2, 1)
    from dataclasses import replace

    assert "`batch`" in fails(lambda: distributed.share_of(replace(stage, batch=3), two))
    assert distributed.share_of(replace(stage, batch=4), two) == 2


@row("training/resume", "cannot be read", "unpacks to more", "is no resume file")
@row("networks/encoder", "is not known", "must name three", "cannot give it as a list")
@row("networks/encoder", "no such file or folder of pretrained", "holds {} for encoder")
@row("networks/encoder", "cannot be read as weights", "does not hold the weights", "do not halve")
@row("networks/member_header", "no such checkpoint", "<problem>", "<what>", "contradicts itself")
def _(folder, fails):
    import torch
    from safetensors.torch import save_file

    from spacenet5_nb.networks import encoder, member_header
    from spacenet5_nb.training import resume

    path = folder / "resume.ckpt"
    path.write_bytes(b"x")
    assert "Delete it" in fails(lambda: resume.read_resume(path, ""))
    path.unlink()
    assert resume.read_resume(path, "") is None, "the fold starts anew"
    weights = torch.zeros(4, 3, 3, 3)
    words = fails(lambda: encoder.stem_weights(weights, 8, extra="random", rgb_at=(4, 2, 1)))
    for word in re.findall(r"\b(he|mean|zero|torch)\b", words):
        assert encoder.stem_weights(weights, 8, extra=word, rgb_at=(4, 2, 1)).shape[1] == 8
    assert "(4, 2, 1)" in fails(lambda: encoder.check_rgb_at((1, 1, 2)))
    encoder.check_rgb_at((4, 2, 1))
    close = fails(lambda: encoder.make_encoder("resnet18x", 3)).removeprefix("Names like it: ")
    name = "resnet18" if "resnet18" in close else close.split(", ")[0]
    net = encoder.make_encoder(name, 3)
    source = folder / "w.safetensors"
    assert "`pretrained:`" in fails(lambda: encoder.find_weights(source, name))
    cure = fails(lambda: encoder.find_weights(folder, name))
    named = folder / re.search(r"put (\S+) there", cure)[1]
    named.write_bytes(b"x")
    assert encoder.find_weights(folder, name) == named
    assert "Save it as safetensors" in fails(lambda: encoder.file_weights(named))
    save_file({"a": weights}, named)
    assert "trained for" in fails(lambda: encoder.load_pretrained(net, name, 3, str(named)))
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, named)
    encoder.load_pretrained(net, name, 3, str(folder))
    member = folder / "m.safetensors"
    assert "04_train" in fails(lambda: member_header.read_header(member))
    member.write_bytes(b"x" * 99)
    assert "get the file again" in fails(lambda: member_header.read_header(member))
    from spacenet5_nb import extract

    whole = extract.find_members("world")[0]
    member.write_bytes(whole.read_bytes())
    assert member_header.read_header(member)[1]
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  {member.name}\n")
    assert "Get both again" in fails(lambda: member_header.read_header(member))
    total = member_header.file_sum(member)
    (folder / "SHA256SUMS").write_text(f"{total}  {member.name}\n")
    assert member_header.read_header(member)[1]
    assert mapping and roads and Channels

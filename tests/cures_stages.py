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
@row("inference/sliding_windows", "leaves no room beside", "has no data in any pixel")
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
    empty = picture(folder / "empty.tif", np.zeros((3, N, N), "uint16"))
    assert "Check the file" in fails(lambda: sliding_windows.open_scene(empty, 3))
    assert sliding_windows.open_scene(path, 3)
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


@row("training/dataset", "have directions", "has bands {}", "have no pixel size", "no such file")
@row("training/dataset", "there is none to train on", "differ in size")
@row("inference/run_members", "lacks {}", "has other channels", "<problem>")
@row("inference/members", "has another {} than")
@row("networks/checkpoints", "has {} {}, not {}")
@row("networks/selim_sef_weights", "is none of the original's")
@row("model", "has {}", slow=True)
def _(folder, fails, monkeypatch):
    from dataclasses import replace
    from shutil import copyfile

    from cures_commands import bands

    from spacenet5_nb import model
    from spacenet5_nb.extract import find_members
    from spacenet5_nb.inference import members, run_members
    from spacenet5_nb.networks import checkpoints
    from spacenet5_nb.training import dataset

    monkeypatch.setenv("SPACENET5_OUTPUTS", str(folder / "outputs"))
    names, cache = Channels.selim_sef().names, folder / "cache"
    image, target = picture(folder / "c.tif"), folder / "m.tif"
    table = pd.DataFrame({"chip": ["c"], "image": [str(image)], "mask": [str(target)], "city": ""})

    def data(chips=table, wanted=names):
        return dataset.RoadDataset(chips, 3, wanted, crop=32, cache=cache)

    assert "02_masks" in fails(lambda: dataset.stamp([target]))
    bands(target, Channels.cresi().names)
    assert "this preset" in fails(data)
    bands(target, names, size=32)
    assert "again" in fails(data)
    bands(target, names)
    assert len(data().masks) == 1
    assert "folds.csv" in fails(lambda: data(table.iloc[:0]))
    turned = (*names, "orientation_0")
    assert "without orientations" in fails(lambda: dataset.cached_mask(target, turned, cache=cache))
    by_size = replace(load_preset("small").train, scale_gsd_m=(0.3, 0.6))
    assert "data.gsd_m" in fails(lambda: dataset.scales_of(table, by_size, None))
    assert dataset.scales_of(table, by_size, 0.5) == dataset.scales_of(
        table.assign(gsd_m=0.5), by_size, None
    )
    small, one = load_preset("small"), find_members("world")[0]
    info = model.read_info(one)
    fit = next(k for k, f in enumerate(small.folds) if f.encoder == info["spec"]["encoder"])
    r = open_run("r", "small")
    cure = fails(lambda: run_members.member_paths(r))
    assert "spacenet5 run 04_train -p fold 0 -p run r -p preset small" in cure
    path = r.fold(fit) / "best_apls.safetensors"
    path.parent.mkdir(parents=True)
    copyfile(one, path)
    check = run_members.check_fold
    for wrong in (replace(small, channels=Channels.cresi()), replace(small, decoder=(8, 8, 8, 8))):
        assert "folds that it was trained with" in fails(
            lambda wrong=wrong: check(path, wrong, fit)
        )
    own = replace(
        small,
        channels=checkpoints.info_channels(info),
        decoder=tuple(info["spec"]["decoder"]),
        data=replace(small.data, gsd_m=info.get("gsd_m"), stretch=info.get("stretch", "chip")),
    )
    check(path, own, fit)
    assert "trained with" in fails(lambda: model.load(one, bands=8)) and model.load(one, bands=3)
    net = model.load(one)
    other = model.RoadUNet(**(net.spec | {"decoder": [8] * len(net.spec["decoder"])}))
    use = lambda n: model.begin_with(n, one, checkpoints.info_channels(info))  # noqa: E731
    assert "this preset's decoder" in fails(lambda: use(other))
    use(model.RoadUNet(**net.spec))
    foreign = model.load(one)
    foreign.info = net.info | {"gsd_m": 9.0}
    assert "one preset" in fails(lambda: members.open_members([net, foreign], device="cpu"))
    assert members.open_members([net, model.load(one)], device="cpu")
    known = fails(lambda: model.from_selim_sef({}, "unet")).removeprefix("Known: ").rstrip(".")
    assert set(known.split(", ")) == set(model.SELIM_SEF)


@row("chips/folds", "a footprint is not WKT")
@row("chips/paper_layouts", "has no tiles here", "is no list of tiles", "is tile {}'s {}")
@row("judge/leaderboard", "has no graph of {}")
@row("judge/pixel_roads", "lies in {}, so nobody knows")
@row("judge/control_points", "has no length")
@row("workflow/graph_chips", "has graphs here and no images", "no graph to train with")
@row("workflow/graph_chips", "is one of the papers' sets")
@row("workflow/leaderboard_command", "is no set that is known")
@row("workflow/from_masks", "--gsd and --road-value are for such")
@row("workflow/mask_labels", "lies elsewhere than its image")
@row("workflow/dry_runs", "needs one street map", "has folds 0 to")
@row("acquire/download", "is unknown", "is missing", "does not exist")
@row("acquire/s3_transfer", "is not an address")
def _(folder, fails, monkeypatch):
    from cures_acquire import LINKS, mask
    from cures_graphs import street

    from spacenet5_nb import apls, graph
    from spacenet5_nb.acquire import download, mask_pairs, pickled_graphs, s3_transfer
    from spacenet5_nb.chips import paper_layouts
    from spacenet5_nb.judge import leaderboard, pixel_roads
    from spacenet5_nb.workflow import dry_runs, from_masks, graph_chips, mask_labels
    from spacenet5_nb.workflow.leaderboard_command import _leaderboard_command

    monkeypatch.setenv("SPACENET5_OUTPUTS", str(folder / "outputs"))
    odd = chips_at(0).assign(footprint="POLYGON (")
    assert "01_explore" in fails(lambda: folds.footprints(odd))
    assert len(folds.footprints(odd.assign(footprint=""))) == 1

    root = folder / "set"
    root.mkdir()
    tile = mask(root / "region_8_sat.png", 0, 90)
    layout = lambda: paper_layouts.find_layout(root)  # noqa: E731
    cure = fails(lambda: layout().of("valid" if layout().tiles["8"].split != "valid" else "train"))
    assert "or all" in cure and len(layout().of("all")) == 1
    assert "graphs beside" in fails(lambda: graph_chips.plan_chips(layout(), folder / "o"))
    jobs = lambda g: leaderboard.make_jobs(root, {"8": g}, split="all")  # noqa: E731
    assert "Put the set's graphs" in fails(lambda: jobs(LINKS))
    g = pickled_graphs.from_adjacency(LINKS)
    pickled_graphs.write_pixel_graph(g, root / "region_8_refine_gt_graph.p")
    assert jobs(g)
    tile.rename(folder / tile.name)
    assert "Put the images" in fails(lambda: graph_chips.plan_chips(layout(), folder / "o"))
    (folder / tile.name).rename(tile)
    (root / "sub").mkdir()
    twin = mask(root / "sub/region_8_sat.png", 0, 90)
    assert "Remove one" in fails(layout)
    twin.unlink()
    assert layout()
    assert "Leave out" in fails(lambda: graph_chips.check_options(root, "1", ""))
    graph_chips.check_options(root, "", "")
    away = folder / "g.gpkg"
    graph.write(street(), away)
    assert "--gsd 1" in fails(lambda: pixel_roads.read_tile_roads(away, "city-scale"))
    sets = fails(lambda: _leaderboard_command(str(root), str(root), kind="city"))
    assert sets.removeprefix("Use ").rstrip(".").split(", ") == list(paper_layouts.SETS)
    tiles = folder / "tiles"
    tiles.mkdir()
    mask(tiles / "AOI_2_Vegas_505__rgb.png", 0, 90)
    lists = tiles / "dataset.json"
    lists.write_text("[7]")
    holds = fails(lambda: paper_layouts.find_layout(tiles))
    lists.write_text(re.search(r"\{.*\}", holds)[0].replace("...", '"AOI_2_Vegas_505"'))
    assert paper_layouts.find_layout(tiles).kind == "spacenet-400"

    images = folder / "images"
    images.mkdir()
    picture(images / "a.tif")
    r = open_run("m", "small", str(images))
    assert "Leave them out" in fails(lambda: from_masks.with_chips(r, gsd="1", say=print))
    assert from_masks.with_chips(r, say=print) == r
    away_mask = picture(images / "a_mask.tif", np.zeros((1, N, N), "uint8"), crs="EPSG:32637")
    pair = mask_pairs.Pair("", "a", images / "a.tif", away_mask)
    assert "its own grid" in fails(lambda: mask_labels.check_pair((pair, None)))
    picture(away_mask, np.zeros((1, N, N), "uint8"))
    assert mask_labels.check_pair((pair, None)).shape == (N, N)

    def own(osm: str = "", labels: str = "") -> None:
        dry_runs.plan_own(str(images / "a.tif"), osm, labels, False, r, "", print)

    assert "--labels roads.geojson" in fails(own)
    own(labels=str(geojson(folder / "roads.geojson", mapping(LINE))))
    assert "one of them" in fails(lambda: dry_runs.plan_train(r, 99, print))

    known = download.CATALOGUE
    words = fails(lambda: download.choose(known, ["7"], "test")).removeprefix("Use ").rstrip(".")
    assert set(re.split(", | or ", words)) == {"train", "test_public", "all"}
    for aois in ([], ["Atlantis"]):
        assert "Moscow" in fails(lambda aois=aois: download.choose(known, aois))
    assert download.choose(known, ["Moscow"])
    address = re.search(r"http\S+", fails(lambda: s3_transfer.s3_client("my mirror")))[0]
    assert s3_transfer.s3_client(address)
    bare = street(length=None)
    assert apls.apls(street(), street(), protocol="cosmiq").score == 1
    assert fails(lambda: apls.apls(bare, bare, protocol="cosmiq"))


@row("inference/cpu_engines", "computes on a CPU", "does not know {}", "is not installed")
def _(folder, fails):
    import importlib.util
    from dataclasses import replace
    from unittest.mock import patch

    import torch

    from spacenet5_nb.core import EnsembleConfig
    from spacenet5_nb.inference.cpu_engines import choose_engine

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    named = EnsembleConfig(engine="openvino")
    with patch.object(importlib.util, "find_spec", lambda name: object()):
        assert "-p device cpu" in fails(lambda: choose_engine(named, gpu, 1))
        assert choose_engine(replace(named, engine="auto"), gpu, 1) == "torch"
        assert choose_engine(named, cpu, 1) == "openvino"
        halved = replace(named, precision="bfloat16")
        assert "engine: torch" in fails(lambda: choose_engine(halved, cpu, 1))
        assert choose_engine(replace(halved, engine="torch"), cpu, 1) == "torch"
    with patch.object(importlib.util, "find_spec", lambda name: None):
        assert "[openvino]" in fails(lambda: choose_engine(named, cpu, 1))

"""The walk of docs/mapping.md with QGIS itself: roads of the sample image, mended through QGIS'
editing, found again as corrections, and held against a street map."""

import shutil
from pathlib import Path

import geopandas as gpd
import pytest
import shapely
from test_attributes import has_qgis, in_qgis
from test_browser import FLAGS, chromium

from spacenet5_nb import extract, graph
from spacenet5_nb.base.labels import read_rows
from spacenet5_nb.core import GraphError
from spacenet5_nb.mapping.conflation_files import conflate_files, outputs_of
from spacenet5_nb.mapping.corrections import find_edits, mended_labels
from spacenet5_nb.roads import formats
from spacenet5_nb.targets.label_weights import read_weights

pytestmark = pytest.mark.slow

MEND = """
edges = QgsVectorLayer(sys.argv[1] + "|layername=edges", "edges", "ogr")
image = QgsRasterLayer(sys.argv[2], "image")
assert edges.isValid() and image.isValid()
roads = sorted(edges.getFeatures(), key=lambda f: -f.geometry().length())
assert edges.startEditing()
assert edges.deleteFeature(roads[1].id())
assert edges.changeAttributeValue(roads[0].id(), edges.fields().indexOf("speed_kph"), 88.0)
moved = QgsGeometry(roads[2].geometry())
moved.translate(6, 6)
assert edges.changeGeometry(roads[2].id(), moved)
line = roads[3].geometry().asPolyline()
drawn = QgsFeature(edges.fields())
places = [QgsPointXY(line[0].x() + d, line[0].y() - 25 - d) for d in (0, 30, 60)]
drawn.setGeometry(QgsGeometry.fromPolylineXY(places))
drawn.setAttribute("speed_kph", 30.0)
assert edges.addFeature(drawn)
assert edges.commitChanges(), edges.commitErrors()
render([edges, image], edges, 15, QSize(800, 900), sys.argv[3])
metres = [round(roads[k].geometry().length(), 3) for k in range(3)]
print(edges.featureCount(), *metres, flush=True)
del roads, drawn, edges, image
app.exitQgis()
"""


@pytest.fixture(scope="module")
def mended(tmp_path_factory):
    "The sample's roads, their copy that QGIS mended, and the lengths of the three longest."
    if not has_qgis():
        pytest.skip("needs QGIS with its Python: apt-get install python3-qgis")
    folder = tmp_path_factory.mktemp("walk")
    sample = extract.world_folder().parent / "sample/las_vegas.tif"
    image = Path(shutil.copy(sample, folder / "las_vegas.tif"))
    extract.extract(image, "world", folder / "roads.gpkg", tta="none", say=lambda text: None)
    copy = Path(shutil.copy(folder / "roads.gpkg", folder / "mended.gpkg"))
    count, *metres = map(float, in_qgis(MEND, folder, copy, image, folder / "mended.png"))
    return folder, count, metres


def test_edits_of_qgis_are_found_again(mended):
    folder, count, (retyped, deleted, moved) = mended
    before, after = (read_rows(folder / f"{name}.gpkg") for name in ("roads", "mended"))
    assert count == len(before.lines) == len(after.lines), "one deleted, one drawn"
    edits = find_edits(after, before)
    km = {k: 1000 * v for k, v in edits.km().items()}
    drawn = 60 * 2**0.5
    assert km["another speed"] == pytest.approx(retyped, abs=12)
    assert km["deleted"] == pytest.approx(deleted + moved, rel=0.25)
    assert km["added"] == pytest.approx(drawn + moved, rel=0.25)


def test_they_are_labels_that_count_where_they_were_made(mended):
    folder, *_ = mended
    said = []
    label = mended_labels(
        folder / "mended.gpkg", folder / "las_vegas.tif", folder / "l.geojson", say=said.append
    )
    assert any("mended beside" in text and "roads.gpkg" in text for text in said)
    weights = read_weights(label)
    assert weights.rest == 0.25 and [w for _, w in weights.areas] == [1.0]
    assert weights.areas[0][0].area > 0


def test_the_mended_file_is_conflated_and_read_as_a_graph(mended):
    "QGIS leaves nodes and times behind: the file's roads are what counts."
    folder, *_ = mended
    with pytest.raises(GraphError, match=r"mended\.gpkg.*rebuild=True"):
        graph.read(folder / "mended.gpkg")
    g = graph.read(folder / "mended.gpkg", rebuild=True, speeds=False)
    assert g.number_of_edges() >= 5
    formats.save(graph.read(folder / "roads.gpkg"), folder / "map.osm")
    found = conflate_files(
        [folder / "mended.gpkg"],
        folder / "map.osm",
        folder / "c.gpkg",
        looked_at=looked_at_area(folder),
        search_m=0,
        say=lambda text: None,
    )
    assert all(p.is_file() for p in outputs_of(folder / "c.gpkg"))
    km = found.km()
    assert km["new"] > 0.05 and km["missing"] > 0.02 and km["matched"] > 0.2


def looked_at_area(folder: Path) -> Path:
    "All of the image as a polygon in a file."
    roads = gpd.read_file(folder / "roads.gpkg", layer="edges").to_crs(4326)
    box = shapely.box(*roads.total_bounds).buffer(0.0003)
    path = folder / "area.gpkg"
    gpd.GeoDataFrame(geometry=[box], crs=4326).to_file(path, driver="GPKG")
    return path


def test_every_kind_of_the_page_can_be_switched(mended):
    "In Chromium: four kinds are seen at first, each goes and comes, and nothing fails."
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not (path := chromium()):
        pytest.skip("no Chromium: set $CHROMIUM or put chromium on PATH")
    folder, errors = mended[0], []
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1000, "height": 700})
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto((folder / "c.html").as_uri())
        boxes = page.locator(".leaflet-control-layers-overlays label")
        kinds = [box for box in boxes.all() if box.locator(".s5-sw").count()]
        seen = {box.inner_text().split(":")[0].strip(): box.locator("input") for box in kinds}
        shown = [name for name, box in seen.items() if box.is_checked()]
        assert [name.split(" ")[0] for name in shown] == ["New", "Doubtful", "Missing", "Out"]
        before = page.screenshot()
        for name in shown:
            seen[name].uncheck()
        assert page.screenshot() != before
        for name in shown:
            seen[name].check()
            assert seen[name].is_checked()
        browser.close()
    assert not errors

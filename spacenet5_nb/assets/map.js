/* The speed map's behaviour: layers, hover, legend, places, route. Text from data enters the page through textContent alone. */
(function () {
"use strict";

const {Roads, RoadCanvas, Graph, nearest, lineOf, opacityOf, STEPS} = window.spacenet5;
const HIT_PX = 10, ROUTE_PX = 60;
const KPH_PER_MPH = 1.609344;

function el(tag, cls, text) {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
}
function escaped(text) { const e = el("i", "", text); return e.innerHTML; }   // Leaflet's layer control takes HTML
function fixed(value, digits) { return value === null || value === undefined ? "–" : value.toFixed(digits); }

function duration(seconds) {
  if (seconds === null || !isFinite(seconds)) return "–";
  const s = Math.round(seconds);
  return s < 60 ? (seconds < 9.95 ? seconds.toFixed(1) : s) + " s" : Math.floor(s / 60) + " min " + String(s % 60).padStart(2, "0") + " s";
}

const renderers = {};
function rendererOf(pane) { return renderers[pane] || (renderers[pane] = L.canvas({pane, padding: 0.4})); }

function makePane(map, name, z) {
  const pane = map.createPane(name);
  pane.style.zIndex = z;
  pane.style.pointerEvents = "none";
}

/* ---- tooltip and popup ---- */

function speedIn(unit, kph, digits = 0) { return fixed(kph === null ? null : unit === "mph" ? kph / KPH_PER_MPH : kph, digits) + " " + unit; }

function facts(data, layer, i) {
  const s = layer.spec, kph = s.speed[i], units = data.unit === "mph" ? ["mph", "km/h"] : ["km/h", "mph"];
  const rows = [["Length", fixed(s.length[i], 0) + " m"], ["Travel time", duration(s.time[i])]];
  if (s.confidence[i] !== null) rows.push(["Confidence", Math.round(s.confidence[i] * 100) + " %"]);
  if (s.connection[i] !== null) rows.push(["Connection", "one road, " + Math.round(s.connection[i] * 100) + " %"]);
  const kind = layer.text("kind", i), sure = s.kind_confidence[i];   // a label's is known, a predicted road's an estimate
  if (kind) rows.push(["Class", sure === null ? kind : kind + ", estimate (" + Math.round(sure * 100) + " %)"]);
  else if (kph !== null) rows.push(["Speed class", data.units[data.unit].labels[layer.cls[i]] + " " + data.unit]);
  if (s.width[i] !== null) rows.push(["Width", s.width[i].toFixed(1) + " m"]);
  if (s.lanes[i] !== null) rows.push(["Lanes", String(s.lanes[i])]);
  if (s.level[i] > 0) rows.push(["Level", s.level[i] + ", overpass"]);
  else if (layer.text("bridge", i) === "yes") rows.push(["Bridge", "yes"]);
  const speed = kph === null ? ["speed unknown", ""] : units.map(u => speedIn(u, kph));
  const seen = layer.text("source", i);
  return {speed, name: layer.text("name", i), seen, chip: layer.text("chip", i), city: layer.text("city", i), rows};
}

function card(data, layer, i, full) {
  const f = facts(data, layer, i), box = el("div", "s5-card");
  const head = el("div", "s5-speed");
  const swatch = el("span", "s5-swatch"); swatch.style.background = layer.cls[i] < 0 ? data.unknown : data.colors[layer.cls[i]];
  head.append(swatch, el("b", "", f.speed[0]));
  if (full) head.append(el("span", "s5-dim", f.speed[1]));
  box.append(head);
  if (f.name) box.append(el("div", "", f.name));
  const table = el("table");
  const rows = full ? f.rows.concat([["Source", f.seen], ["City", f.city], ["Chip", f.chip]].filter(r => r[1])) : f.rows;
  for (const [key, value] of rows) { const tr = el("tr"); tr.append(el("th", "", key), el("td", "", value)); table.append(tr); }
  box.append(table, el("div", "s5-dim", layer.spec.name_of_layer));
  return box;
}

function hover(map, data, layers, routing) {
  const mark = L.polyline([], {pane: "s5-mark", renderer: rendererOf("s5-mark"), color: "#fff", weight: 3, interactive: false}).addTo(map);
  const tip = L.tooltip({direction: "top", offset: [0, -8], opacity: 1, className: "s5-tip"});
  let last = null, pending = null, told = null;
  const clear = () => { last = null; mark.setLatLngs([]); map.closeTooltip(tip); map.getContainer().style.cursor = ""; };
  const look = e => {
    pending = null;
    const hit = nearest(map, layers.filter(l => l.visible), e.latlng, HIT_PX);
    if (!hit) { clear(); return; }
    if (told && told.layer === hit.layer && told.i === hit.i) { clear(); return; }   // its popup is open
    tip.setLatLng(hit.at);
    if (last && last.layer === hit.layer && last.i === hit.i) return;
    last = hit;
    mark.setLatLngs(hit.layer.line(hit.i));
    tip.setContent(card(data, hit.layer, hit.i, false));
    map.openTooltip(tip);
    map.getContainer().style.cursor = "pointer";
  };
  map.on("mousemove", e => {
    if (e.originalEvent.target.closest && e.originalEvent.target.closest(".leaflet-control, .leaflet-popup")) { clear(); return; }
    if (pending === null) requestAnimationFrame(() => look(pending));
    pending = e;
  });
  map.on("mouseout overlayremove zoomstart", clear);
  map.on("click", e => {
    if (routing.on) return;
    const hit = nearest(map, layers.filter(l => l.visible), e.latlng, HIT_PX);
    if (!hit) return;
    clear();
    L.popup({className: "s5-popup"}).setLatLng(hit.at).setContent(card(data, hit.layer, hit.i, true)).openOn(map);
    told = hit;
  });
  map.on("popupclose", () => { told = null; });
  map.on("s5-unit", () => { clear(); map.closePopup(); });
}

/* ---- legend ---- */

function legend(map, data, layers, setUnit) {
  const control = L.control({position: "bottomright"});
  control.onAdd = () => {
    const box = el("div", "s5-panel s5-legend"), scale = el("div", "s5-scale");
    box.append(el("div", "s5-title", data.title));
    if (layers[0]) box.append(el("div", "s5-dim", count(layers[0])));
    box.append(unitSwitch(map, data, setUnit), scale);
    const fill = () => scale.replaceChildren(...data.colors.map((color, i) => classCell(color, data.units[data.unit].labels[i], i)));
    map.on("s5-unit", fill); fill();
    if (data.has_confidence) box.append(sureness(data));
    if (layers.some(l => l.spec.level.some(v => v > 0))) box.append(key("s5-over", "overpass, drawn above"));
    if (layers.some(l => l.cls.includes(-1))) box.append(key("s5-unknown", "speed unknown"));
    L.DomEvent.disableClickPropagation(box);
    return box;
  };
  control.addTo(map);
}

function unitSwitch(map, data, setUnit) {
  const row = el("div", "s5-units"), buttons = Object.keys(data.units).map(unit => {
    const b = el("button", "", unit); b.type = "button";
    b.addEventListener("click", () => setUnit(unit));
    return b;
  });
  const press = () => buttons.forEach(b => b.setAttribute("aria-pressed", b.textContent === data.unit));
  row.append(el("span", "s5-head", "Speed"), ...buttons);
  map.on("s5-unit", press); press();
  return row;
}

function classCell(color, label, i) {
  const cell = el("div"), hold = el("div", "s5-hold"), bar = el("span", "s5-bar");
  bar.style.background = color; bar.style.height = (4 + 1.1 * i) + "px";
  hold.append(bar); cell.append(hold, el("small", "", label));
  return cell;
}

function sureness(data) {
  const box = el("div"), row = el("div", "s5-sure");
  box.append(el("div", "s5-head", "How sure the speed is"));
  for (let i = 0; i <= STEPS; i++) {
    const bar = el("span"); bar.style.background = data.colors[data.colors.length - 3];
    bar.style.opacity = opacityOf(i); row.append(bar);
  }
  const ends = el("div", "s5-ends"); ends.append(el("small", "", "unsure"), el("small", "", "sure"));
  box.append(row, ends);
  return box;
}

function key(cls, text) { const row = el("div", "s5-key"); row.append(el("span", cls), el("small", "", text)); return row; }

function count(roads) {
  const metres = roads.spec.length.reduce((sum, v) => sum + (v || 0), 0);
  const km = metres / 1000;
  return roads.n.toLocaleString("en") + (roads.n === 1 ? " road, " : " roads, ") + km.toFixed(km < 10 ? 1 : 0) + " km";
}

/* ---- places ---- */

function places(map, data) {
  const buttons = [];
  const go = i => {
    const wide = map.getSize().x > 700;   // room for the panels, where there is any
    map.fitBounds(data.places[i].bounds, {paddingTopLeft: [wide && data.places.length > 1 ? 245 : 20, 20], paddingBottomRight: [20, 20], animate: false});
    buttons.forEach((b, j) => b.setAttribute("aria-pressed", j === i));
  };
  if (data.places.length > 1) {
    const control = L.control({position: "topleft"});
    control.onAdd = () => {
      const box = el("div", "s5-panel s5-places");
      box.append(el("div", "s5-head", "Places"));
      data.places.forEach((p, i) => {
        const b = el("button"); b.type = "button";
        b.append(el("span", "", p.name), el("small", "s5-dim", p.note));
        b.addEventListener("click", () => go(i));
        buttons.push(b); box.append(b);
      });
      L.DomEvent.disableClickPropagation(box); L.DomEvent.disableScrollPropagation(box);
      return box;
    };
    control.addTo(map);
  }
  const far = L.layerGroup(data.places.map((p, i) => {
    const at = L.latLngBounds(p.bounds).getCenter(), label = el("button", "", p.name);
    label.type = "button";
    return L.marker(at, {icon: L.divIcon({html: label, className: "s5-placename", iconSize: null}), keyboard: false}).on("click", () => go(i));
  }));
  map.on("zoomend", () => { if (map.getZoom() < 11) far.addTo(map); else far.remove(); });
  if (data.places.length) go(data.start); else map.setView([0, 0], 2);
}

/* ---- scores per chip ---- */

function scoreLayer(data) {
  const group = L.layerGroup();
  for (const s of data.scores) {
    group.addLayer(L.rectangle(s.bounds, {pane: "s5-chips", renderer: rendererOf("s5-chips"), interactive: false, color: "#fff", weight: 1.2, opacity: 0.75, fill: false, dashArray: "5 4"}));
    const box = el("div", "s5-score");
    box.append(el("div", "s5-dim", s.chip));
    const row = el("div", "s5-row");
    for (const [name, value] of s.values) row.append(el("b", "", fixed(value, 2)), el("span", "s5-dim", name));
    box.append(row);
    const icon = L.divIcon({html: box, className: "s5-scoreicon", iconSize: null, iconAnchor: [0, 0]});
    group.addLayer(L.marker([s.bounds[1][0], s.bounds[0][1]], {icon, interactive: false, keyboard: false, pane: "s5-labels"}));
  }
  return group;
}

function hideSmallLabels(map, data) {
  const look = () => {
    const b = data.scores[0].bounds;
    const w = map.latLngToContainerPoint([b[0][0], b[1][1]]).x - map.latLngToContainerPoint(b[0]).x;
    map.getContainer().classList.toggle("s5-far", w < 150);
  };
  map.on("zoomend", look); look();
}

/* ---- route: two clicks ---- */

function routeControl(map, data, layer, routing) {
  let graph = null, from = null, last = null, button, say;
  const drawn = L.layerGroup().addTo(map);
  const dot = (at, color) => L.circleMarker(at, {pane: "s5-route", renderer: rendererOf("s5-route"), radius: 7, color: "#fff", weight: 2, fillColor: color, fillOpacity: 1, interactive: false}).addTo(drawn);
  const reset = text => { drawn.clearLayers(); from = last = null; say.textContent = text; };
  const report = found => {
    const far = data.unit === "mph" ? (found.metres / 1000 / KPH_PER_MPH).toFixed(2) + " mi" : found.metres < 1000 ? found.metres.toFixed(0) + " m" : (found.metres / 1000).toFixed(2) + " km";
    say.textContent = duration(found.seconds) + ", " + far + ", " + speedIn(data.unit, found.seconds ? found.metres / found.seconds * 3.6 : 0) + " on average. Click for another.";
  };
  map.on("s5-unit", () => { if (last) report(last); });
  const toggle = on => {
    routing.on = on;
    button.setAttribute("aria-pressed", on);
    map.getContainer().classList.toggle("s5-routing", on);
    say.hidden = !on;
    reset("Click where the trip starts.");
  };
  const control = L.control({position: "topleft"});
  control.onAdd = () => {
    const box = el("div", "s5-panel s5-route");
    button = el("button", "", "Quickest route"); button.type = "button";
    say = el("div", "s5-say"); say.setAttribute("role", "status");
    button.addEventListener("click", () => toggle(!routing.on));
    box.append(button, say);
    L.DomEvent.disableClickPropagation(box);
    return box;
  };
  control.addTo(map);
  toggle(false);
  map.on("click", e => {
    if (!routing.on) return;
    const hit = nearest(map, [layer], e.latlng, ROUTE_PX);
    if (!hit) { say.textContent = "No road there. Click nearer to one."; return; }
    if (!from) { reset(""); from = hit; dot(hit.at, "#009e73"); say.textContent = "Now click where it ends."; return; }
    graph = graph || new Graph(layer);
    const found = graph.route(from, hit), start = from;
    dot(hit.at, "#d55e00");
    from = null;
    if (!found) { say.textContent = start.layer.text("chip", start.i) === hit.layer.text("chip", hit.i)
      ? "The graph has no connection between these two points." : "These two points lie in different chips, with no connection between them."; return; }
    for (const [color, weight] of [["#000", 9], ["#fff", 6.5], ["#0072b2", 4]])
      L.polyline(found.points, {pane: "s5-route", renderer: rendererOf("s5-route"), color, weight, interactive: false}).addTo(drawn);
    drawn.eachLayer(l => { if (l instanceof L.CircleMarker) l.bringToFront(); });
    report(last = found);
  });
  document.addEventListener("keydown", e => { if (e.key === "Escape" && routing.on) toggle(false); });
}

/* ---- the whole ---- */

function defaultIcons() {   // markers that a user adds find their picture in the style sheet instead of beside the file
  const probe = el("div", "leaflet-default-icon-path");
  document.body.append(probe);
  const url = getComputedStyle(probe).backgroundImage.replace(/^url\(["']?/, "").replace(/["']?\)$/, "");
  probe.remove();
  delete L.Icon.Default.prototype._getIconUrl;
  L.Icon.Default.mergeOptions({iconUrl: url, iconRetinaUrl: url, shadowUrl: null});
}

const PANES = [["s5-image", 250], ["s5-probability", 260], ["s5-chips", 380], ["truth", 400], ["missed", 405], ["extra", 406], ["predicted", 410],
  ["s5-mark", 430], ["s5-route", 440], ["s5-labels", 450]];

function differenceLayer(d) {
  return L.polyline(d.line.map(lineOf), {pane: d.key, renderer: rendererOf(d.key), color: d.color || (d.key === "missed" ? "#00d5ff" : "#ff6ad5"), weight: 9, opacity: 0.75, dashArray: d.dash || (d.key === "extra" ? "12 7" : null),
    lineCap: "butt", interactive: false});
}

function pictureLayer(spec) {
  return L.layerGroup(spec.pictures.map(p => L.imageOverlay(p.url, p.bounds, {pane: spec.pane, opacity: spec.opacity, alt: p.chip})));
}

function scaleBar(map, data) {
  let bar = null;
  const show = () => { if (bar) bar.remove(); bar = L.control.scale({imperial: data.unit === "mph", metric: data.unit !== "mph"}).addTo(map); };
  map.on("s5-unit", show); show();
}

window.spacenet5Map = function (map, data) {
  defaultIcons();
  map.options.maxZoom = 22; map.options.minZoom = 2;   // the setters would start an animation that outlives the first view
  PANES.forEach(([name, z]) => makePane(map, name, z));
  const overlays = {}, layers = data.roads.map(spec => new Roads(spec));
  const canvases = layers.map(l => new RoadCanvas(l, data, {pane: l.spec.key, padding: 0.4}));
  const offer = (layer, name, shown, mark, color) => {
    if (shown) layer.addTo(map);
    const style = /^#[0-9a-f]{6}$/.test(color || "") ? ` style="background:${color}"` : "";
    overlays[escaped(name) + (mark ? `<span class="s5-sw s5-sw-${mark}"${style}></span>` : "")] = layer;
  };
  const classify = () => layers.forEach(l => l.classify(data.units[data.unit]));
  const setUnit = unit => { data.unit = unit; classify(); canvases.forEach(c => c.redraw()); map.fire("s5-unit"); };
  classify();
  places(map, data);
  canvases.forEach(c => offer(c, c.roads.spec.name_of_layer, c.roads.spec.show));
  const halos = data.differences.map(differenceLayer);
  data.differences.forEach((d, i) => offer(halos[i], d.name, Boolean(d.show), d.key === "missed" ? "missed" : "extra", d.color));
  const widen = () => halos.forEach(h => h.setStyle({weight: 9 * Math.max(1, Math.min(2, Math.pow(2, (map.getZoom() - 17) / 2)))}));   // beyond the road that grows
  map.on("zoomend", widen); widen();
  for (const spec of data.images) offer(pictureLayer(spec), spec.name, spec.show, spec.pane === "s5-probability" ? "probability" : "");
  if (data.scores.length) { offer(scoreLayer(data), "Score per chip", true); hideSmallLabels(map, data); }
  L.control.layers({}, overlays, {collapsed: map.getSize().x < 600}).addTo(map);
  scaleBar(map, data);
  if (data.attribution) L.control.attribution({prefix: false}).addAttribution(escaped(data.attribution)).addTo(map);
  legend(map, data, layers, setUnit);
  const routing = {on: false};
  hover(map, data, layers, routing);
  if (layers.length && layers[0].spec.time.some(t => t !== null)) routeControl(map, data, layers[0], routing);
  map.spacenet5 = {layers, nearest: (latlng, px) => nearest(map, layers, latlng, px), Graph, map, setUnit};
};
})();

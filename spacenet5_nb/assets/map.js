/* The speed map's behaviour: drawing, hover, legend, places, route. Text from data enters the page through textContent alone. */
(function () {
"use strict";

const MICRO = 1e-6;              // coordinates are whole micro-degrees, each line's first point absolute and the others relative to the last
const METRES_PER_DEGREE = 111320;
const MIN_OPACITY = 0.5;         // a road nobody is sure of is still seen
const CASING = "#0b0f14";
const HIT_PX = 10, ROUTE_PX = 60;

function el(tag, cls, text) {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
}
function escaped(text) { const e = el("i", "", text); return e.innerHTML; }   // Leaflet's layer control takes HTML
function fixed(value, digits) { return value === null || value === undefined ? "–" : value.toFixed(digits); }

function decode(line) {
  const points = [];
  let lat = 0, lon = 0;
  for (let i = 0; i < line.length; i += 2) { lat += line[i]; lon += line[i + 1]; points.push([lat * MICRO, lon * MICRO]); }
  return points;
}

function boundsOf(points) {
  let s = 90, w = 180, n = -90, e = -180;
  for (const [lat, lon] of points) { s = Math.min(s, lat); n = Math.max(n, lat); w = Math.min(w, lon); e = Math.max(e, lon); }
  return [s, w, n, e];
}

function distance(a, b) {
  const k = Math.cos((a[0] + b[0]) / 2 * Math.PI / 180);
  return METRES_PER_DEGREE * Math.hypot(a[0] - b[0], (a[1] - b[1]) * k);
}

function duration(seconds) {
  if (seconds === null || !isFinite(seconds)) return "–";
  const s = Math.round(seconds);
  return s < 60 ? (seconds < 10 ? seconds.toFixed(1) : s) + " s" : Math.floor(s / 60) + " min " + String(s % 60).padStart(2, "0") + " s";
}

/* ---- roads: one path per class, level and step of confidence, not one per road: 60,000 roads are some seventy paths ---- */

function Roads(spec, data) {
  this.spec = spec;
  this.n = spec.line.length;
  this.points = spec.line.map(decode);
  this.bounds = this.points.map(boundsOf);
  this.visible = false;
  this.group = L.layerGroup();
  this.group.on("add", () => { this.visible = true; }).on("remove", () => { this.visible = false; });
  this.paths = [];
  this.draw(data);
}

Roads.prototype.steps = function (i) {
  const c = this.spec.confidence[i];
  return c === null ? 4 : Math.max(0, Math.min(4, Math.round(c * 4)));
};

Roads.prototype.draw = function (data) {
  const groups = new Map();
  const put = (order, pane, width, style, i) => {
    const key = order + "|" + JSON.stringify(style);
    if (!groups.has(key)) groups.set(key, {order, pane, width, style, lines: []});
    groups.get(key).lines.push(this.points[i]);
  };
  for (let i = 0; i < this.n; i++) {
    const cls = this.spec.cls[i], over = this.spec.level[i] > 0, pane = this.spec.key + (over ? "-over" : "");
    const width = 3.6 + 0.45 * cls, opacity = MIN_OPACITY + (1 - MIN_OPACITY) * this.steps(i) / 4;
    const base = over ? 1000 + 10 * cls : 0;
    put(base, pane, width, {color: this.spec.casing || CASING, opacity: over ? 1 : 0.6, casing: over ? 5 : 2,
                            lineCap: over ? "butt" : "round", cls}, i);
    put(base + 1 + (over ? 0 : cls), pane, width, {color: data.classes[cls].color, opacity, casing: 0,
                            lineCap: "round", dashArray: this.spec.dashed ? "1 7" : null}, i);
  }
  for (const g of [...groups.values()].sort((a, b) => a.order - b.order)) {
    const path = L.polyline(g.lines, {...g.style, pane: g.pane, renderer: rendererOf(g.pane), interactive: false, smoothFactor: 0.6, weight: g.width});
    this.paths.push({path, width: g.width, casing: g.style.casing});
    this.group.addLayer(path);
  }
};

Roads.prototype.zoomed = function (zoom) {
  const f = Math.max(0.45, Math.min(1.9, Math.pow(2, (zoom - 17) / 2)));
  for (const p of this.paths) p.path.setStyle({weight: p.width * f + p.casing * Math.min(1, f)});
};

const renderers = {};
function rendererOf(pane) { return renderers[pane] || (renderers[pane] = L.canvas({pane, padding: 0.4})); }

function makePane(map, name, z) {
  const pane = map.createPane(name);
  pane.style.zIndex = z;
  pane.style.pointerEvents = "none";
}

/* ---- what is under the pointer: a scan over bounding boxes, then over segments ---- */

function nearest(map, layers, latlng, px) {
  const k = Math.cos(latlng.lat * Math.PI / 180);
  const degrees = px * 360 / (256 * Math.pow(2, map.getZoom())) * k;   // of latitude
  const wide = degrees / k;
  let best = null;
  for (const layer of layers) for (let i = 0; i < layer.n; i++) {
    const b = layer.bounds[i];
    if (latlng.lat < b[0] - degrees || latlng.lat > b[2] + degrees || latlng.lng < b[1] - wide || latlng.lng > b[3] + wide) continue;
    const hit = nearestOnLine(layer.points[i], latlng, k);
    const d = hit.d - (layer.spec.level[i] > 0 ? degrees * 0.05 : 0);    // at a crossing the upper road answers
    if (hit.d <= degrees && (!best || d < best.d - 1e-12)) best = {layer, i, d, part: hit.part, t: hit.t, at: hit.at};
  }
  return best;
}

function nearestOnLine(points, latlng, k) {
  let best = {d: Infinity};
  for (let j = 0; j + 1 < points.length; j++) {
    const [ay, ax] = points[j], by = points[j + 1][0] - ay, bx = (points[j + 1][1] - ax) * k;
    const py = latlng.lat - ay, px = (latlng.lng - ax) * k, n = by * by + bx * bx;
    const t = n ? Math.max(0, Math.min(1, (py * by + px * bx) / n)) : 0;
    const d = Math.hypot(py - t * by, px - t * bx);
    if (d < best.d) best = {d, part: j, t, at: [ay + t * by, ax + t * bx / k]};
  }
  return best;
}

/* ---- tooltip and popup ---- */

function facts(data, layer, i) {
  const s = layer.spec, kph = s.speed[i], mph = kph === null ? null : kph / 1.609344;
  const shown = data.unit === "mph" ? [fixed(mph, 0) + " mph", fixed(kph, 0) + " km/h"] : [fixed(kph, 0) + " km/h", fixed(mph, 0) + " mph"];
  const rows = [["Length", fixed(s.length[i], 0) + " m"], ["Travel time", duration(s.time[i])]];
  if (s.confidence[i] !== null) rows.push(["Confidence", Math.round(s.confidence[i] * 100) + " %"]);
  if (s.kind[i]) rows.push(["Class", s.kind[i]]);
  if (s.level[i] > 0) rows.push(["Level", "overpass"]);
  return {speed: shown, name: s.name[i], chip: s.chip[i], city: s.city[i], rows};
}

function card(data, layer, i, full) {
  const f = facts(data, layer, i), box = el("div", "s5-card");
  const head = el("div", "s5-speed");
  const swatch = el("span", "s5-swatch"); swatch.style.background = data.classes[layer.spec.cls[i]].color;
  head.append(swatch, el("b", "", f.speed[0]));
  if (full) head.append(el("span", "s5-dim", f.speed[1]));
  box.append(head);
  if (f.name) box.append(el("div", "", f.name));
  const table = el("table");
  const rows = full ? f.rows.concat([["City", f.city], ["Chip", f.chip]].filter(r => r[1])) : f.rows;
  for (const [key, value] of rows) { const tr = el("tr"); tr.append(el("th", "", key), el("td", "", value)); table.append(tr); }
  box.append(table, el("div", "s5-dim", layer.spec.name_of_layer));
  return box;
}

function hover(map, data, layers, routing) {
  const mark = L.polyline([], {pane: "s5-mark", renderer: rendererOf("s5-mark"), color: "#fff", weight: 3, interactive: false}).addTo(map);
  const tip = L.tooltip({direction: "top", offset: [0, -8], opacity: 1, className: "s5-tip"});
  let last = null, pending = null;
  const clear = () => { last = null; mark.setLatLngs([]); map.closeTooltip(tip); map.getContainer().style.cursor = ""; };
  const look = e => {
    pending = null;
    const hit = nearest(map, layers.filter(l => l.visible), e.latlng, HIT_PX);
    if (!hit) { clear(); return; }
    tip.setLatLng(hit.at);
    if (last && last.layer === hit.layer && last.i === hit.i) return;
    last = hit;
    mark.setLatLngs(hit.layer.points[hit.i]);
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
  });
}

/* ---- legend ---- */

function legend(map, data, layers) {
  const control = L.control({position: "bottomright"});
  control.onAdd = () => {
    const box = el("div", "s5-panel s5-legend");
    box.append(el("div", "s5-title", data.title));
    const predicted = layers[0];
    if (predicted) box.append(el("div", "s5-dim", count(predicted)));
    box.append(el("div", "s5-head", "Speed, " + data.unit));
    const scale = el("div", "s5-scale");
    data.classes.forEach((c, i) => {
      const cell = el("div"), bar = el("span", "s5-bar");
      bar.style.background = c.color; bar.style.height = (4 + 1.1 * i) + "px";
      const hold = el("div", "s5-hold"); hold.append(bar);
      cell.append(hold, el("small", "", c.label)); scale.append(cell);
    });
    box.append(scale);
    if (data.has_confidence) box.append(sureness(data));
    if (layers.some(l => l.spec.level.some(v => v > 0))) box.append(key("s5-over", "overpass, drawn above"));
    L.DomEvent.disableClickPropagation(box);
    return box;
  };
  control.addTo(map);
}

function sureness(data) {
  const box = el("div"), row = el("div", "s5-sure");
  box.append(el("div", "s5-head", "How sure the speed is"));
  for (let i = 0; i < 5; i++) {
    const bar = el("span"); bar.style.background = data.classes[data.classes.length - 3].color;
    bar.style.opacity = MIN_OPACITY + (1 - MIN_OPACITY) * i / 4; row.append(bar);
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
    const wide = map.getSize().x > 900;   // room for the panels, where there is any
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

/* ---- route: the quickest way between two clicks, on the graph as it is ---- */

function Graph(layer) {
  this.layer = layer;
  this.out = new Map();
  const s = layer.spec;
  for (let i = 0; i < layer.n; i++) {
    if (s.time[i] === null) continue;
    for (const [a, b] of [[s.u[i], s.v[i]], [s.v[i], s.u[i]]]) {
      if (!this.out.has(a)) this.out.set(a, []);
      this.out.get(a).push([b, s.time[i], i, a === s.u[i]]);
    }
  }
}

function fraction(points, part, at) {
  let all = 0, before = 0;
  for (let j = 0; j + 1 < points.length; j++) {
    const d = distance(points[j], points[j + 1]);
    if (j < part) before += d;
    if (j === part) before += distance(points[j], at);
    all += d;
  }
  return all ? before / all : 0;
}

function cut(points, f0, f1) {   // the stretch between two fractions of a line, in that direction
  if (f0 > f1) return cut(points, f1, f0).reverse();
  const lengths = []; let all = 0;
  for (let j = 0; j + 1 < points.length; j++) { const d = distance(points[j], points[j + 1]); lengths.push(d); all += d; }
  const at = f => {
    let left = f * all;
    for (let j = 0; j < lengths.length; j++) {
      if (left <= lengths[j] || j === lengths.length - 1) {
        const t = lengths[j] ? Math.min(1, left / lengths[j]) : 0, a = points[j], b = points[j + 1];
        return [j, [a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])]];
      }
      left -= lengths[j];
    }
  };
  const [j0, p0] = at(f0), [j1, p1] = at(f1);
  return [p0, ...points.slice(j0 + 1, j1 + 1), p1];
}

Graph.prototype.route = function (from, to) {
  const {layer} = this, s = layer.spec, T = i => s.time[i];
  const f0 = fraction(layer.points[from.i], from.part, from.at), f1 = fraction(layer.points[to.i], to.part, to.at);
  if (T(from.i) === null || T(to.i) === null) return null;
  const best = new Map(), back = new Map(), heap = new Heap();
  const push = (node, cost, via) => { if (!best.has(node) || cost < best.get(node)) { best.set(node, cost); back.set(node, via); heap.push([cost, node]); } };
  push(s.u[from.i], f0 * T(from.i), {end: 0});
  push(s.v[from.i], (1 - f0) * T(from.i), {end: 1});
  let answer = from.i === to.i ? {cost: Math.abs(f1 - f0) * T(from.i), direct: true} : {cost: Infinity};
  while (heap.size()) {
    const [cost, node] = heap.pop();
    if (cost >= answer.cost) break;
    if (cost > best.get(node)) continue;
    if (node === s.u[to.i] && cost + f1 * T(to.i) < answer.cost) answer = {cost: cost + f1 * T(to.i), node, end: 0};
    if (node === s.v[to.i] && cost + (1 - f1) * T(to.i) < answer.cost) answer = {cost: cost + (1 - f1) * T(to.i), node, end: 1};
    for (const [next, time, i, forward] of this.out.get(node) || []) push(next, cost + time, {node, i, forward});
  }
  if (!isFinite(answer.cost)) return null;
  if (answer.direct) return this.found(answer.cost, [cut(layer.points[from.i], f0, f1)], Math.abs(f1 - f0) * s.length[from.i]);
  const parts = [cut(layer.points[to.i], answer.end, f1)];
  let metres = Math.abs(answer.end - f1) * s.length[to.i], via = back.get(answer.node);
  for (; via.end === undefined; via = back.get(via.node)) {
    parts.push(via.forward ? layer.points[via.i] : [...layer.points[via.i]].reverse());
    metres += s.length[via.i];
  }
  parts.push(cut(layer.points[from.i], f0, via.end));
  metres += Math.abs(f0 - via.end) * s.length[from.i];
  return this.found(answer.cost, parts.reverse(), metres);
};
Graph.prototype.found = function (seconds, parts, metres) { return {seconds, metres, points: parts.flat()}; };

function Heap() { this.a = []; }
Heap.prototype.size = function () { return this.a.length; };
Heap.prototype.push = function (x) {
  const a = this.a; let i = a.push(x) - 1;
  while (i && a[(i - 1) >> 1][0] > a[i][0]) { const p = (i - 1) >> 1; [a[p], a[i]] = [a[i], a[p]]; i = p; }
};
Heap.prototype.pop = function () {
  const a = this.a, top = a[0], x = a.pop();
  if (a.length) {
    a[0] = x;
    for (let i = 0; ;) {
      let c = 2 * i + 1;
      if (c >= a.length) break;
      if (c + 1 < a.length && a[c + 1][0] < a[c][0]) c++;
      if (a[i][0] <= a[c][0]) break;
      [a[i], a[c]] = [a[c], a[i]]; i = c;
    }
  }
  return top;
};

function routeControl(map, data, layer, routing) {
  let graph = null, from = null, button, say;
  const drawn = L.layerGroup().addTo(map);
  const dot = (at, color) => L.circleMarker(at, {pane: "s5-route", renderer: rendererOf("s5-route"), radius: 7, color: "#fff", weight: 2, fillColor: color, fillOpacity: 1, interactive: false}).addTo(drawn);
  const reset = text => { drawn.clearLayers(); from = null; say.textContent = text; };
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
    if (!from) { drawn.clearLayers(); from = hit; dot(hit.at, "#009e73"); say.textContent = "Now click where it ends."; return; }
    graph = graph || new Graph(layer);
    const found = graph.route(from, hit), start = from;
    dot(hit.at, "#d55e00");
    from = null;
    if (!found) { say.textContent = start.layer.spec.chip[start.i] === hit.layer.spec.chip[hit.i]
      ? "The graph has no connection between these two points." : "These two chips are separate graphs: no connection."; return; }
    for (const [color, weight] of [["#000", 9], ["#fff", 6.5], ["#0072b2", 4]])
      L.polyline(found.points, {pane: "s5-route", renderer: rendererOf("s5-route"), color, weight, interactive: false}).addTo(drawn);
    const kph = found.seconds ? found.metres / found.seconds * 3.6 : 0;
    say.textContent = duration(found.seconds) + ", " + (found.metres < 1000 ? found.metres.toFixed(0) + " m" : (found.metres / 1000).toFixed(2) + " km")
      + ", " + (data.unit === "mph" ? (kph / 1.609344).toFixed(0) + " mph" : kph.toFixed(0) + " km/h") + " on average. Click for another.";
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

window.spacenet5Map = function (map, data) {
  defaultIcons();
  map.options.maxZoom = 22; map.options.minZoom = 2;   // the setters would start an animation that outlives the first view
  [["s5-image", 250], ["s5-chips", 380], ["truth", 400], ["truth-over", 402], ["missed", 405], ["extra", 406], ["predicted", 410],
   ["predicted-over", 420], ["s5-mark", 430], ["s5-route", 440], ["s5-labels", 450]].forEach(([name, z]) => makePane(map, name, z));
  const overlays = {}, layers = data.roads.map(spec => new Roads(spec, data));
  const offer = (layer, name, shown, mark) => {
    if (shown) layer.addTo(map);
    overlays[escaped(name) + (mark ? `<span class="s5-sw s5-sw-${mark}"></span>` : "")] = layer;
  };
  places(map, data);
  for (const layer of layers) offer(layer.group, layer.spec.name_of_layer, layer.spec.show);
  for (const d of data.differences) {
    const style = {pane: d.key, renderer: rendererOf(d.key), color: d.key === "missed" ? "#00d5ff" : "#ff6ad5", weight: 9, opacity: 0.75, lineCap: "butt", interactive: false};
    offer(L.polyline(d.line.map(decode), style), d.name, false, d.key === "missed" ? "missed" : "extra");
  }
  if (data.images.length) {
    const group = L.layerGroup(data.images.map(i => L.imageOverlay(i.url, i.bounds, {pane: "s5-image", opacity: 0.9, alt: i.chip})));
    offer(group, "Imagery", true);
  }
  if (data.scores.length) { offer(scoreLayer(data), "Score per chip", true); hideSmallLabels(map, data); }
  const zoomed = () => layers.forEach(l => l.zoomed(map.getZoom()));
  map.on("zoomend", zoomed); zoomed();
  L.control.layers({}, overlays, {collapsed: false}).addTo(map);
  L.control.scale({imperial: data.unit === "mph"}).addTo(map);
  if (data.attribution) L.control.attribution({prefix: false}).addAttribution(escaped(data.attribution)).addTo(map);
  legend(map, data, layers);
  const routing = {on: false};
  hover(map, data, layers, routing);
  if (layers.length && layers[0].n) routeControl(map, data, layers[0], routing);
  map.spacenet5 = {layers, nearest: (latlng, px) => nearest(map, layers, latlng, px), Graph, map};
};
})();

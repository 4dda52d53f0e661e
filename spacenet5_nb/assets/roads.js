/* Roads of a layer: decoded once, drawn on one canvas, found under the pointer. No text from data enters here. */
(function () {
"use strict";

const MICRO = 1e-6;              // coordinates are whole micro-degrees, each line's first point absolute and the others relative to the last
const TENTH = 0.05;              // speeds in a page are rounded to a tenth of a km/h: 24.14 (15 mph) must stay in the class that opens at 15 mph
const MIN_OPACITY = 0.5;         // a road nobody is sure of is still seen
const STEPS = 4;                 // of confidence
const CASING = "#0b0f14";
const PIECE = 600;               // segments in one stroke: a rasterizer's work on one path grows faster than the path
const CROWDED = 12000;           // roads in view from which on the ground's dark outline is left out; it would be thinner than a pixel

const opacityOf = step => MIN_OPACITY + (1 - MIN_OPACITY) * step / STEPS;

function Roads(spec) {
  this.spec = spec;
  this.n = spec.line.length;
  this.visible = false;
  this.read(spec.line);
  this.step = Uint8Array.from({length: this.n}, (_, i) => spec.confidence[i] === null ? STEPS : Math.max(0, Math.min(STEPS, Math.round(spec.confidence[i] * STEPS))));
  this.cls = new Int8Array(this.n);
}

Roads.prototype.read = function (lines) {
  const total = lines.reduce((sum, l) => sum + l.length / 2, 0);
  this.start = new Int32Array(this.n + 1);
  for (const key of ["lat", "lon", "x", "y"]) this[key] = new Float64Array(total);
  this.box = new Float64Array(4 * this.n);   // south, west, north, east
  for (let i = 0, k = 0; i < this.n; i++) {
    let lat = 0, lon = 0, s = 90, w = 180, n = -90, e = -180;
    for (let j = 0; j < lines[i].length; j += 2, k++) {
      this.lat[k] = (lat += lines[i][j]) * MICRO; this.lon[k] = (lon += lines[i][j + 1]) * MICRO;
      const sin = Math.sin(this.lat[k] * Math.PI / 180);
      this.x[k] = this.lon[k] / 360 + 0.5; this.y[k] = 0.5 - Math.log((1 + sin) / (1 - sin)) / (4 * Math.PI);   // Mercator, the world is 1 wide
      s = Math.min(s, this.lat[k]); n = Math.max(n, this.lat[k]); w = Math.min(w, this.lon[k]); e = Math.max(e, this.lon[k]);
    }
    this.start[i + 1] = k;
    this.box.set([s, w, n, e], 4 * i);
  }
};

Roads.prototype.line = function (i) {
  const points = [];
  for (let k = this.start[i]; k < this.start[i + 1]; k++) points.push([this.lat[k], this.lon[k]]);
  return points;
};

Roads.prototype.text = function (key, i) { const t = this.spec[key]; return t.values[t.index[i]]; };

/* Class of each road in a scale, and the roads of each look in the order of drawing; an unknown speed has class -1. */
Roads.prototype.classify = function (scale) {
  const looks = new Map();
  for (let i = 0; i < this.n; i++) {
    const kph = this.spec.speed[i];
    this.cls[i] = kph === null ? -1 : scale.breaks_kph.filter(b => kph + TENTH >= b).length;
    const over = this.spec.level[i] > 0 ? 1 : 0, key = (over * 100 + this.cls[i] + 1) * 10 + this.step[i];
    if (!looks.has(key)) looks.set(key, {over, cls: this.cls[i], step: this.step[i], roads: []});
    looks.get(key).roads.push(i);
  }
  this.looks = [...looks.entries()].sort((a, b) => a[0] - b[0]).map(e => e[1]);
};

Roads.prototype.misses = function (i, view, dLat, dLon) {   // does a road's box miss a view, widened?
  const b = this.box, k = 4 * i;
  return b[k] > view[2] + dLat || b[k + 2] < view[0] - dLat || b[k + 1] > view[3] + dLon || b[k + 3] < view[1] - dLon;
};

/* ---- drawing: a Leaflet renderer, so that it pans and zooms with the map, but with one canvas for all roads of a layer ---- */

const RoadCanvas = L.Renderer.extend({
  initialize: function (roads, data, options) { this.roads = roads; this.data = data; L.Renderer.prototype.initialize.call(this, options); },
  onAdd: function () { this.roads.visible = true; L.Renderer.prototype.onAdd.call(this); },
  onRemove: function () { this.roads.visible = false; L.Renderer.prototype.onRemove.call(this); },
  _initContainer: function () { this._container = document.createElement("canvas"); },
  _destroyContainer: function () { this._container.remove(); this._container = null; },
  redraw: function () { if (this._map) this._update(); },
  _update: function () {
    if (this._map._animatingZoom && this._bounds) return;
    L.Renderer.prototype._update.call(this);
    const b = this._bounds, size = b.getSize(), fine = L.Browser.retina ? 2 : 1, c = this._container;
    L.DomUtil.setPosition(c, b.min);
    c.width = fine * size.x; c.height = fine * size.y;
    c.style.width = size.x + "px"; c.style.height = size.y + "px";
    const ctx = c.getContext("2d");
    ctx.setTransform(fine, 0, 0, fine, -fine * b.min.x, -fine * b.min.y);
    ctx.lineJoin = "round";
    this._paint(ctx, b);
  },
  _paint: function (ctx, bounds) {
    const map = this._map, zoom = map.getZoom(), roads = this.roads, {casing} = roads.spec;
    const at = {scale: 256 * Math.pow(2, zoom), origin: map.getPixelOrigin()};
    const [sw, ne] = [map.layerPointToLatLng(bounds.getBottomLeft()), map.layerPointToLatLng(bounds.getTopRight())];
    const view = [sw.lat, sw.lng, ne.lat, ne.lng];
    const looks = roads.looks.map(l => ({...l, roads: l.roads.filter(i => !roads.misses(i, view, 0, 0))}));
    const seen = looks.reduce((sum, l) => sum + l.roads.length, 0);
    const f = Math.max(0.45, Math.min(1.9, Math.pow(2, (zoom - 17) / 2)));
    const width = l => (3.6 + 0.45 * l.cls) * f;
    for (const over of [0, 1]) {
      const here = looks.filter(l => l.over === over);
      if (over || seen < CROWDED) for (const l of here) this._stroke(ctx, at, l.roads, casing || CASING, over ? 1 : 0.6, width(l) + (over ? 5 : 2) * Math.min(1, f), over ? "butt" : "round");
      for (const l of here) this._stroke(ctx, at, l.roads, l.cls < 0 ? this.data.unknown : this.data.colors[l.cls], opacityOf(l.step), width(l), seen < CROWDED ? "round" : "butt");
    }
  },
  _stroke: function (ctx, at, chosen, color, opacity, width, cap) {
    const {start, x, y} = this.roads, {scale, origin} = at;
    ctx.strokeStyle = color; ctx.globalAlpha = opacity; ctx.lineWidth = width; ctx.lineCap = cap;
    let left = PIECE;
    ctx.beginPath();
    for (const i of chosen) {
      const end = start[i + 1] - 1;
      let px = x[start[i]] * scale - origin.x, py = y[start[i]] * scale - origin.y;
      ctx.moveTo(px, py);
      for (let k = start[i] + 1; k <= end; k++) {
        const qx = x[k] * scale - origin.x, qy = y[k] * scale - origin.y;
        if (k < end && Math.abs(qx - px) + Math.abs(qy - py) < 2) continue;
        ctx.lineTo(qx, qy); px = qx; py = qy; left--;
      }
      if (left <= 0) { ctx.stroke(); ctx.beginPath(); left = PIECE; }
    }
    ctx.stroke();
  },
});

/* ---- what is under the pointer: a scan over bounding boxes, then over segments ---- */

function nearest(map, layers, latlng, px) {
  const k = Math.cos(latlng.lat * Math.PI / 180);
  const degrees = px * 360 / (256 * Math.pow(2, map.getZoom())) * k;   // of latitude
  const here = [latlng.lat, latlng.lng, latlng.lat, latlng.lng];
  let best = null;
  for (const layer of layers) for (let i = 0; i < layer.n; i++) {
    if (layer.misses(i, here, degrees, degrees / k)) continue;
    const hit = nearestOnLine(layer.line(i), latlng, k);
    const d = hit.d - (layer.spec.level[i] > 0 ? degrees * 0.05 : 0);    // at a crossing the upper road answers
    if (hit.d <= degrees && (!best || d < best.d - 1e-12)) best = {layer, i, d, part: hit.part, at: hit.at};
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
    if (d < best.d) best = {d, part: j, at: [ay + t * by, ax + t * bx / k]};
  }
  return best;
}

function lineOf(numbers) {   // a line that stands alone, as [lat, lon] pairs
  let lat = 0, lon = 0;
  const points = [];
  for (let i = 0; i < numbers.length; i += 2) points.push([(lat += numbers[i]) * MICRO, (lon += numbers[i + 1]) * MICRO]);
  return points;
}

window.spacenet5 = {Roads, RoadCanvas, nearest, lineOf, opacityOf, STEPS};
})();

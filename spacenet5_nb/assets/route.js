/* The quickest way between two places on a layer's roads: Dijkstra on travel times, both ways of every road. */
(function () {
"use strict";

const METRES_PER_DEGREE = 111320;

function distance(a, b) {
  const k = Math.cos((a[0] + b[0]) / 2 * Math.PI / 180);
  return METRES_PER_DEGREE * Math.hypot(a[0] - b[0], (a[1] - b[1]) * k);
}

function Graph(layer) {
  this.layer = layer;
  this.out = new Map();
  const s = layer.spec;
  for (const [a, b] of s.joins) { this.link(a, [b, 0, -1]); this.link(b, [a, 0, -1]); }   // no road: two chips' ends at one place
  for (let i = 0; i < layer.n; i++) {
    if (s.time[i] === null) continue;
    this.link(s.u[i], [s.v[i], s.time[i], i, true]);
    this.link(s.v[i], [s.u[i], s.time[i], i, false]);
  }
}
Graph.prototype.link = function (node, link) { if (this.out.has(node)) this.out.get(node).push(link); else this.out.set(node, [link]); };

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
  const f0 = fraction(layer.line(from.i), from.part, from.at), f1 = fraction(layer.line(to.i), to.part, to.at);
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
  if (answer.direct) return this.found(answer.cost, [cut(layer.line(from.i), f0, f1)], Math.abs(f1 - f0) * s.length[from.i]);
  const parts = [cut(layer.line(to.i), answer.end, f1)];
  let metres = Math.abs(answer.end - f1) * s.length[to.i], via = back.get(answer.node);
  for (; via.end === undefined; via = back.get(via.node)) {
    if (via.i < 0) continue;
    parts.push(via.forward ? layer.line(via.i) : layer.line(via.i).reverse());
    metres += s.length[via.i];
  }
  parts.push(cut(layer.line(from.i), f0, via.end));
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

window.spacenet5.Graph = Graph;
})();

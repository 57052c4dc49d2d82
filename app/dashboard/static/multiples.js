// Small multiples: a line for each metric, one pointer for all of them.

import { number, READS } from "./format.js";

const WIDTH = 300;
const HEIGHT = 72;
const MARGIN = 4;

export class Multiples {
  constructor(box, cursor) {
    this.box = box;
    this.cursor = cursor;
    this.hint = cursor.textContent;
    this.charts = new Map();
    for (const element of box.querySelectorAll(".multiple")) this.charts.set(element.dataset.metric, { element, points: [] });
    box.addEventListener("pointermove", (event) => this.point(event));
    box.addEventListener("pointerleave", () => this.rest());
  }

  // The last step that is drawn.
  get last() {
    return Math.max(0, ...[...this.charts.values()].map(({ points }) => points.at(-1)?.step ?? 0));
  }

  get most() {
    return Math.max(0, ...[...this.charts.values()].map(({ points }) => points.length));
  }

  replace(series) {
    for (const chart of this.charts.values()) chart.points = [];
    return this.append(series);
  }

  // Add points past those that are there. Gives the names of metrics that this page did not expect.
  append(series) {
    const unexpected = [];
    for (const [name, points] of Object.entries(series)) {
      const chart = this.charts.get(name);
      if (!chart) continue;
      if (!chart.element.querySelector("svg")) {
        unexpected.push(name);
        continue;
      }
      const last = chart.points.at(-1)?.step ?? -1;
      chart.points.push(...points.filter((point) => point.step > last));
    }
    this.draw();
    return unexpected;
  }

  draw() {
    const shown = [...this.charts.values()].filter(({ points }) => points.length);
    if (!shown.length) return;
    this.first = Math.min(...shown.map(({ points }) => points[0].step));
    this.end = Math.max(...shown.map(({ points }) => points.at(-1).step));
    const width = this.end - this.first || 1;
    for (const chart of shown) {
      let low = Infinity;
      let high = -Infinity;
      for (const { value } of chart.points) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
      const span = high - low || 1;
      const x = (step) => ((step - this.first) / width) * WIDTH;
      const y = (value) => (high === low ? HEIGHT / 2 : HEIGHT - MARGIN - ((value - low) / span) * (HEIGHT - 2 * MARGIN));
      const line = chart.points.map(({ step, value }) => `${x(step).toFixed(1)} ${y(value).toFixed(1)}`);
      // A single point would be no line at all.
      if (line.length === 1) line.push(`${(x(chart.points[0].step) + 2).toFixed(1)} ${y(chart.points[0].value).toFixed(1)}`);
      chart.element.querySelector(".line").setAttribute("d", `M${line.join("L")}`);
      chart.text = READS[chart.element.dataset.reads];
      chart.element.querySelector(".multiple-range").textContent =
        high === low ? "unchanging" : `${chart.text(low)} to ${chart.text(high)}`;
    }
    this.rest();
  }

  point(event) {
    const svg = event.target.closest(".multiple")?.querySelector("svg");
    if (!svg || this.end === undefined) return;
    const { left, width } = svg.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - left) / width));
    const step = Math.round(this.first + share * (this.end - this.first));
    this.cursor.textContent = `At step ${number(step)} of ${number(this.end)}`;
    this.box.classList.add("pointed");
    for (const chart of this.charts.values()) {
      const point = nearest(chart.points, step);
      if (!point) continue;
      const cross = chart.element.querySelector(".cross");
      const x = ((point.step - this.first) / (this.end - this.first || 1)) * WIDTH;
      cross.setAttribute("x1", x);
      cross.setAttribute("x2", x);
      chart.element.querySelector(".multiple-value").textContent = chart.text(point.value);
    }
  }

  rest() {
    this.box.classList.remove("pointed");
    this.cursor.textContent = this.hint;
    for (const { element, points, text } of this.charts.values()) {
      if (points.length) element.querySelector(".multiple-value").textContent = text(points.at(-1).value);
    }
  }
}

function nearest(points, step) {
  let low = 0;
  let high = points.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].step < step) low = middle + 1;
    else high = middle;
  }
  const before = points[low - 1];
  return before && step - before.step < points[low].step - step ? before : points[low];
}

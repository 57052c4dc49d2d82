// One chart of a metric for some runs, drawn by the chart library that the server's own package carries.

import { number, tellDrawn } from "./format.js";

const POINTS = 1000;
const DASHES = ["solid", "10px,3px", "3px,2px", "9px,3px,2px,3px", "16px,4px", "6px,2px", "2px,2px", "12px,3px,3px,3px"];

const asked = JSON.parse(document.getElementById("chart-data").textContent);
const box = document.getElementById("chart");
const note = document.getElementById("chart-note");

// Colours stand in the style sheet as pairs; only an element has the one of the present theme.
function colour(token, kind = "") {
  const probe = document.createElement("span");
  if (kind) probe.className = kind;
  probe.style.color = `var(${token})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

async function points(job) {
  const answer = await fetch(`/jobs/${job}/metrics?names=${asked.metric}&max_points=${POINTS}`, {
    headers: { Accept: "application/json" },
  });
  return (answer.ok ? await answer.json() : {})[asked.metric] ?? [];
}

function layout() {
  const ink = colour("--ink-soft");
  const line = colour("--line");
  const axis = { gridcolor: line, linecolor: line, zeroline: false, tickfont: { size: 12 }, automargin: true };
  return {
    autosize: true,
    margin: { l: 56, r: 12, t: 12, b: 44 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: ink },
    showlegend: false,
    hovermode: "x unified",
    hoverlabel: { bgcolor: colour("--surface"), bordercolor: colour("--line-strong"), font: { color: colour("--ink") } },
    xaxis: { ...axis, title: { text: "step", font: { size: 13 } }, hoverformat: ",d" },
    yaxis: { ...axis, title: { text: asked.title, font: { size: 13 } }, hoverformat: ".4~g" },
  };
}

function traces(series) {
  return series.map((points, index) => ({
    type: "scatter",
    mode: points.length > 1 ? "lines" : "markers",
    name: asked.names[index],
    x: points.map((point) => point.step),
    y: points.map((point) => point.value),
    line: { color: colour("--series", `series-${index}`), width: 1.75, dash: DASHES[index] },
    hovertemplate: "%{y:.4~g}",
  }));
}

// The points come while the library, which is large, is still on its way.
function library() {
  const script = document.getElementById("library");
  return window.Plotly
    ? null
    : new Promise((resolve, reject) => {
        script.addEventListener("load", resolve);
        script.addEventListener("error", reject);
      });
}

const [series] = await Promise.all([Promise.all(asked.jobs.map(points)), library()]).catch((error) => {
  note.textContent = "The chart could not be drawn. Load the page again.";
  throw error;
});

async function draw() {
  await window.Plotly.react(box, traces(series), layout(), { responsive: true, displayModeBar: false });
  tellDrawn();
}

await draw();
const drawn = series.reduce((sum, points) => sum + points.length, 0);
note.textContent = `${number(drawn)} points drawn, at most ${number(POINTS)} a run. Drag to zoom, double click to see all again.`;
document.addEventListener("theme", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

// A job's page: its curves, and while it runs everything that changes, by server-sent events.

import { duration, number, tellDrawn } from "./format.js";
import { Multiples } from "./multiples.js";

const POINTS = 400;
const MOST = 2000;
const BETWEEN = 700;
const ENDED = new Set(["succeeded", "failed", "cancelled"]);

const run = document.getElementById("run");
const job = run.dataset.job;
const multiples = new Multiples(document.getElementById("multiples"), document.getElementById("cursor"));

async function points(since) {
  const answer = await fetch(`/jobs/${job}/metrics?${since ? `since_step=${since}&` : ""}max_points=${POINTS}`, {
    credentials: "include",
    headers: { Accept: "*/*" },
  });
  return answer.ok ? answer.json() : {};
}

async function whole() {
  multiples.replace(await points(0));
  tellDrawn();
}

let due = null;
let busy = false;

async function more() {
  due = null;
  busy = true;
  try {
    const unexpected = multiples.most > MOST ? (await whole(), []) : multiples.append(await points(multiples.last + 1));
    // A metric that came to be, or the first of all: the server draws its place.
    if (unexpected?.length) location.reload();
    await log();
  } finally {
    busy = false;
  }
}

// At most one request at a time, however fast the steps come.
function soon() {
  if (due === null && !busy) due = setTimeout(more, BETWEEN);
}

async function log() {
  const text = document.getElementById("log-text");
  if (!text) return;
  const answer = await fetch(`/jobs/${job}/logs`, { headers: { Accept: "text/plain" } });
  if (!answer.ok) return;
  const atEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 8;
  text.textContent = await answer.text();
  if (atEnd) text.scrollTop = text.scrollHeight;
}

function progress(told) {
  const total = told.total_steps;
  document.getElementById("phase").textContent = (told.phase ?? told.state).replaceAll("_", " ");
  if (total) document.getElementById("steps").textContent = `${number(told.step)} of ${number(total)} steps`;
  document.getElementById("left").textContent =
    told.eta_seconds === null ? "" : `about ${duration(told.eta_seconds)} left`;
  document.getElementById("progress").value = told.fraction ?? 0;
}

function follow() {
  const pulse = document.getElementById("pulse");
  const stream = new EventSource(`/jobs/${job}/events?after=${run.dataset.events}`);
  stream.addEventListener("open", () => (pulse.textContent = "live"));
  stream.addEventListener("error", () => (pulse.textContent = "reconnecting…"));
  stream.addEventListener("progress", (event) => {
    const told = JSON.parse(event.data);
    progress(told);
    if (Object.keys(told.latest).length) soon();
  });
  stream.addEventListener("state_changed", (event) => {
    // Buttons, files and the receipt follow the state: the server draws them.
    if (ENDED.has(JSON.parse(event.data).data.state)) stream.close();
    location.reload();
  });
  addEventListener("pagehide", () => stream.close());
}

const text = document.getElementById("log-text");
if (text) text.scrollTop = text.scrollHeight;
if (document.querySelector(".multiple svg")) await whole();
if ("live" in run.dataset) follow();

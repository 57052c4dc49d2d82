// The job builder: after every change the server checks the form by a dry run, and what it says is put in its places.
// The form works without this; nothing here knows a field.

const form = document.getElementById("builder");
const panel = document.getElementById("panel");
const told = document.getElementById("told");
// Not form.dataset: the form has a field of that name.
const address = form.getAttribute("data-check");
const PAUSE = 220;

const idOf = (name) => `f-${name.replaceAll(".", "-")}`;
let waiting, running;

document.getElementById("check-now").hidden = true;
form.classList.add("live");

function line(fault) {
  const shown = document.createElement("p");
  shown.className = "field-fault";
  const detail = document.createElement("span");
  detail.textContent = fault.detail;
  shown.append(detail);
  if (fault.remedy) {
    const remedy = document.createElement("span"), word = document.createElement("b");
    remedy.className = "field-remedy";
    word.textContent = "Remedy:";
    remedy.append(word, ` ${fault.remedy}`);
    shown.append(" ", remedy);
  }
  return shown;
}

function putFaults(faults) {
  for (const place of form.querySelectorAll(".field-faults")) {
    if (place.childElementCount) place.replaceChildren();
  }
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
  for (const [name, list] of Object.entries(faults)) {
    document.getElementById(`${idOf(name)}-faults`)?.replaceChildren(...list.map(line));
    document.getElementById(idOf(name))?.setAttribute("aria-invalid", "true");
  }
}

// Parts that are the same stay as they are, so that what is open, scrolled or focused there stays so too.
function putPanel(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  for (const id of ["verdict", "plan-shown", "curl", "command", "json"]) {
    const old = document.getElementById(id), next = fresh.getElementById(id);
    if (old.innerHTML !== next.innerHTML) old.innerHTML = next.innerHTML;
  }
}

function putTask(task) {
  for (const choice of form.querySelectorAll("[data-tasks]")) {
    choice.querySelector(".unfit").hidden = !task || choice.dataset.tasks.split(" ").includes(task);
  }
}

function say(text, tone = "") {
  told.textContent = text;
  told.className = tone;
}

async function check() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  try {
    const answer = await fetch(address, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      headers: { Accept: "application/json" },
      signal,
    });
    const found = await answer.json();
    if (!answer.ok) {
      say(answer.status === 401 ? "Signed out: sign in again in another tab" : (found.errors?.[0]?.detail ?? found.title), "bad");
      return;
    }
    putPanel(found.panel);
    panel.classList.remove("stale");
    putFaults(found.faults);
    putTask(found.task);
    const number = Object.values(found.faults).flat().length;
    say(number ? `${number} to mend` : "Ready", number ? "bad" : "good");
  } catch (error) {
    if (error.name !== "AbortError") say("The server did not answer; submitting checks again", "bad");
  }
}

function count() {
  const boxes = form.querySelectorAll('[name="instructions"]:checked').length;
  const shown = document.getElementById("count");
  if (shown) shown.textContent = boxes;
}

function changed() {
  count();
  clearTimeout(waiting);
  // Until the server has answered, what stands there is not what the form asks for.
  panel.classList.add("stale");
  say("Checking");
  waiting = setTimeout(check, PAUSE);
}

form.addEventListener("input", changed);
form.addEventListener("submit", () => {
  // A second click is stopped; coming back to this page frees the button again.
  const button = document.getElementById("submit");
  setTimeout(() => (button.disabled = true));
});
addEventListener("pageshow", () => {
  document.getElementById("submit").disabled = false;
  if (form.querySelector('[name="dataset"], [name="model"]')?.value) changed();
});

// What mends a fault of an instruction at once.
panel.addEventListener("click", (event) => {
  const box = document.getElementById(event.target.closest("[data-toggle]")?.dataset.toggle);
  if (!box) return;
  box.click();
  told.focus();
});

// A link to a field opens what hides it.
document.addEventListener("click", (event) => {
  const link = event.target.closest('#verdict a[href^="#"]');
  if (!link) return;
  const target = document.getElementById(link.hash.slice(1));
  if (!target) return;
  event.preventDefault();
  for (let hider = target.closest("details"); hider; hider = hider.parentElement.closest("details")) hider.open = true;
  target.focus();
  target.scrollIntoView({ block: "center" });
});

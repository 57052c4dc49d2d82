// The form of an experiment: treatments that come and go, instructions put into their changes, faults beside the fields.

const AFTER = 600;

const form = document.getElementById("experiment-form");
const box = document.getElementById("treatments");
const template = document.getElementById("treatment-template");
const add = document.getElementById("add-treatment");
const said = document.getElementById("checked");
const most = Number(box.dataset.slots);

// Numbers and ids by place: the server names the fields of faults by the place of a treatment.
function renumber() {
  [...box.children].forEach((one, place) => {
    one.querySelector(".treatment-number").textContent = place + 1;
    for (const element of one.querySelectorAll("[id], [for], [aria-describedby], [data-field]")) {
      for (const name of ["id", "for", "aria-describedby", "data-field"]) {
        const value = element.getAttribute(name);
        if (value) element.setAttribute(name, value.replaceAll(/treatment-(\d+|SLOT)-/g, `treatment-${place}-`));
      }
    }
    one.querySelector(".treatment-tools").hidden = false;
    one.querySelector(".remove-treatment").hidden = box.children.length === 1;
  });
  add.hidden = box.children.length >= most;
}

add.addEventListener("click", () => {
  box.append(template.content.cloneNode(true));
  renumber();
  box.lastElementChild.querySelector("input").focus();
  soon();
});

box.addEventListener("click", (event) => {
  const one = event.target.closest(".remove-treatment")?.closest(".treatment");
  if (!one) return;
  one.remove();
  renumber();
  add.focus();
  soon();
});

const read = (text) => {
  try {
    const value = JSON.parse(text || "{}");
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
};

// A list takes the place of the baseline's, so an instruction is added to what the baseline has.
box.addEventListener("change", (event) => {
  const select = event.target.closest(".add-instruction");
  if (!select?.value) return;
  const text = select.closest(".treatment").querySelector("textarea");
  const changes = read(text.value);
  if (changes) {
    const own = Array.isArray(changes.instructions) && changes.instructions.length ? changes.instructions : null;
    const list = own ?? read(form.elements.baseline.value)?.instructions ?? [];
    changes.instructions = [...list, { name: select.value }];
    text.value = JSON.stringify(changes, null, 2);
    soon();
  }
  select.value = "";
});

let due = null;
let asked = 0;
let touched = false;

function soon() {
  touched = true;
  clearTimeout(due);
  due = setTimeout(check, AFTER);
}

async function check() {
  if (!form.elements.baseline.value.trim()) return;
  const mine = (asked += 1);
  const answer = await fetch("/experiments/check", {
    method: "POST",
    headers: { Accept: "application/json" },
    body: new URLSearchParams(new FormData(form)),
  });
  if (mine !== asked) return;
  if (!answer.ok) {
    said.textContent = "It could not be checked just now; it will be when you send it.";
    return;
  }
  show(await answer.json());
}

function show({ faults: all, jobs }) {
  // What nobody has begun to write is no fault yet.
  const faults = touched ? all : { baseline: all.baseline ?? [] };
  let count = faults[""]?.length ?? 0;
  for (const list of form.querySelectorAll(".field-faults")) {
    const found = faults[list.dataset.field] ?? [];
    count += found.length;
    list.replaceChildren(...found.map(line));
    form.querySelector(`[aria-describedby~="${list.id}"]`)?.toggleAttribute("aria-invalid", found.length > 0);
    if (found.length) form.querySelector(`[aria-describedby~="${list.id}"]`)?.setAttribute("aria-invalid", "true");
  }
  said.textContent = count
    ? `${count} ${count === 1 ? "fault" : "faults"} so far${faults[""] ? `: ${faults[""][0].detail}` : ""}.`
    : touched ? `Sound: ${jobs} jobs.` : "Next: name a treatment, and write what it changes.";
}

function line(fault) {
  const item = document.createElement("li");
  if (fault.pointer) item.append(element("code", "", fault.pointer.slice(1)), " ");
  item.append(element("span", "field-fault", fault.detail));
  if (fault.remedy) item.append(" ", element("span", "field-remedy", fault.remedy));
  return item;
}

function element(name, kind, text) {
  const made = document.createElement(name);
  made.className = kind;
  made.textContent = text;
  return made;
}

form.addEventListener("input", soon);
renumber();
if (form.elements.baseline.value.trim() && !form.querySelector(".field-faults li")) check();

// An experiment's page: its runs while they run, what people say while they judge, and a rater's link to copy.

const BETWEEN = { runs: 2000, arms: 8000 };

const { experiment, state, judged } = document.getElementById("experiment").dataset;

async function renew(part) {
  const answer = await fetch(`/experiments/${experiment}/parts/${part}`, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const box = document.getElementById(part);
  const text = await answer.text();
  if (box.dataset.last !== text) box.innerHTML = text;
  box.dataset.last = text;
  // Verdicts, the front and the buttons follow the state: the server draws them.
  if (answer.headers.get("X-Experiment-State") !== state) location.reload();
}

function follow(part) {
  setTimeout(async () => {
    if (!document.hidden) await renew(part).catch(() => {});
    follow(part);
  }, BETWEEN[part]);
}

if (state === "running") follow("runs");
else if (judged !== undefined) follow("arms");

for (const button of document.querySelectorAll("[data-copy-link]")) {
  const link = document.getElementById(button.dataset.copyLink);
  link.addEventListener("focus", () => link.select());
  button.hidden = false;
  button.addEventListener("click", async () => {
    link.focus();
    try {
      await navigator.clipboard.writeText(link.value);
    } catch {
      // Without TLS a browser has no such clipboard; the old way still works on what is selected.
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}

// The rater's page: the key comes out of the link's fragment, and one key on the keyboard casts a ballot.

const KEYS = { 1: "left", 2: "right", 3: "both", 4: "neither", ArrowLeft: "left", ArrowRight: "right" };
// A tap that was meant for the ballot before does not cast this one.
const SETTLING = 350;

const arrive = document.getElementById("arrive");
const choices = document.getElementById("choices");
const key = location.hash.slice(1);

// Also where somebody else has judged in this browser before: whoever opens a link judges by its name.
if (key) {
  history.replaceState(null, "", location.pathname);
  const words = document.getElementById("arrival");
  if (words) words.textContent = "Opening your ballots…";
  arrive.elements.key.value = key;
  arrive.submit();
}
addEventListener("hashchange", () => location.reload());

if (choices && !key) {
  const shown = performance.now();
  let sent = false;
  choices.addEventListener("click", (event) => {
    // A button that is pressed by the keyboard counts no clicks.
    if (event.detail && performance.now() - shown < SETTLING) event.preventDefault();
  });
  choices.addEventListener("submit", (event) => {
    if (sent) {
      event.preventDefault();
      return;
    }
    sent = true;
    choices.classList.add("sent");
  });
  // A page out of the browser's memory was sent already: the server says what is next.
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  document.addEventListener("keydown", (event) => {
    const choice = KEYS[event.key];
    if (!choice || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    choices.requestSubmit(choices.querySelector(`[value="${choice}"]`));
  });
}

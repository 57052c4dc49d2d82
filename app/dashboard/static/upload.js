// An upload with its progress. Without this the browser sends the form by itself, and answers with the same page.

const form = document.getElementById("upload-form");
const state = document.getElementById("upload-state");
const said = document.getElementById("upload-said");
const progress = document.getElementById("upload-progress");

function ended(request) {
  state.hidden = true;
  form.querySelector('[type="submit"]').disabled = false;
  if (new URL(request.responseURL).pathname !== "/datasets") {
    location = request.responseURL;
    return;
  }
  const page = new DOMParser().parseFromString(request.responseText, "text/html");
  const told = page.getElementById("faults") ?? page.querySelector(".problem");
  const place = document.getElementById("faults");
  place.replaceChildren(...told.childNodes);
  place.scrollIntoView({ block: "center" });
}

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  const request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "text/html");
  request.upload.addEventListener("progress", (sent) => {
    if (!sent.lengthComputable) return;
    progress.value = sent.loaded / sent.total;
    const share = Math.floor((100 * sent.loaded) / sent.total);
    said.textContent = share < 100 ? `${share} % is sent` : "All is sent; the rows are being checked";
  });
  request.upload.addEventListener("load", () => progress.removeAttribute("value"));
  request.addEventListener("load", () => ended(request));
  request.addEventListener("error", () => {
    said.textContent = "The connection broke off: upload the file again";
    form.querySelector('[type="submit"]').disabled = false;
  });
  state.hidden = false;
  said.textContent = "Sending";
  progress.value = 0;
  form.querySelector('[type="submit"]').disabled = true;
  request.send(new FormData(form));
});

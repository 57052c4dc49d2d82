// The list of jobs: comparing needs two or more, and says how many are ticked.

const compare = document.getElementById("compare");
const boxes = [...document.querySelectorAll('input[name="job"]')];

function count() {
  const ticked = boxes.filter((box) => box.checked).length;
  compare.disabled = ticked < 2;
  compare.textContent = ticked ? `Compare ${ticked}` : "Compare";
}

for (const box of boxes) box.addEventListener("change", count);
count();

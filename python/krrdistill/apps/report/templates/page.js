"use strict";
for (const tool of document.querySelectorAll(".scripted")) tool.hidden = false;

for (const button of document.querySelectorAll("button[data-copies]")) {
  button.addEventListener("click", async () => {
    const code = document.getElementById(button.dataset.copies);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "selected, copy it with the keyboard";
    }
  });
}

const filter = document.getElementById("filter");
if (filter) {
  filter.addEventListener("input", () => {
    const words = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const card of document.querySelectorAll(".pictures > li")) {
      card.hidden = !card.dataset.name.toLowerCase().includes(words);
      shown += !card.hidden;
    }
    const more = document.querySelector("details.more");
    if (more && words) more.open = true;
    document.getElementById("filtered").textContent = words ? `${shown} of the classes shown` : "";
  });
}

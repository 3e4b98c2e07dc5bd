"use strict";
// Times in the zone of the reader; the time in UTC stays in the title.
function localTimes(root) {
  for (const one of root.querySelectorAll("time[data-local]")) {
    const at = new Date(one.dateTime);
    if (!isNaN(at)) one.textContent = at.toLocaleString();
  }
}
let isPaused = false;
const pause = document.querySelector("[data-pause]");
if (pause) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "small";
  button.textContent = "Pause updates";
  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.textContent = isPaused ? "Go on with updates" : "Pause updates";
  });
  pause.append(button);
}
// Browsers give the clipboard only to https and localhost.
function addCopies(root) {
  for (const one of navigator.clipboard ? root.querySelectorAll("[data-copy]") : []) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "small";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(one.textContent);
      button.textContent = "Copied";
    });
    one.after(button);
  }
}
// A part with data-live is read again while it is visible.
async function refresh() {
  const live = document.querySelector("[data-live]");
  if (!live || isPaused || document.hidden || live.contains(document.activeElement)) return;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok || answer.redirected) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = page.querySelector("[data-live]") || page.querySelector("[data-part]");
    if (next) { localTimes(next); addCopies(next); live.replaceWith(next); }
    if (pause && !document.querySelector("[data-live]")) pause.remove();
  } catch { /* the next turn tries again */ }
}
localTimes(document);
addCopies(document);
setInterval(refresh, 2000);

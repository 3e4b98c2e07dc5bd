"use strict";
// Times in the zone of the reader; the time in UTC stays in the title.
function localTimes(root) {
  for (const one of root.querySelectorAll("time[data-local]")) {
    const at = new Date(one.dateTime);
    if (!isNaN(at)) one.textContent = at.toLocaleString();
  }
}
// A part with data-live is read again while it is visible.
async function refresh() {
  const live = document.querySelector("[data-live]");
  if (!live || document.hidden || live.contains(document.activeElement)) return;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok || answer.redirected) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = page.querySelector("[data-live]") || page.querySelector("[data-part]");
    if (next) { localTimes(next); live.replaceWith(next); }
  } catch { /* the next turn tries again */ }
}
localTimes(document);
setInterval(refresh, 2000);

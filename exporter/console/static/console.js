"use strict";
// Times in the zone of the reader; the time in UTC stays in the title.
const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
function localTimes(root) {
  for (const one of root.querySelectorAll("time[data-local]")) {
    const at = new Date(one.dateTime);
    if (!isNaN(at)) one.textContent = clock.format(at);
  }
}
function button(text, act) {
  const one = document.createElement("button");
  one.type = "button";
  one.className = "small";
  one.textContent = text;
  one.addEventListener("click", () => act(one));
  return one;
}
// Browsers give the clipboard only to https and localhost.
function addCopies(root) {
  for (const one of navigator.clipboard ? root.querySelectorAll("[data-copy]") : []) {
    one.after(button("Copy", async (it) => {
      await navigator.clipboard.writeText(one.textContent);
      it.textContent = "Copied";
    }));
  }
}

// The parts of a page with data-live are read again while the tab is visible: when a stream says that
// something has changed; every so many seconds if there is no stream.
const STREAMED_SECONDS = 15, CALM_MILLIS = 700;
let stream, isTold = false, isPaused = false, readAt = Date.now(), isReading = false;
const live = () => document.querySelector("[data-live]");
const pause = document.querySelector("[data-pause]");
if (pause && live()) {
  pause.append(button("Pause updates", (it) => {
    isPaused = !isPaused;
    it.textContent = isPaused ? "Go on with updates" : "Pause updates";
  }));
}
function place(root) {
  const all = [...root.querySelectorAll("a, button, input, summary, pre")];
  return { all, at: all.indexOf(document.activeElement) };
}
function put(next, old) {
  const ticked = new Set([...old.querySelectorAll("input:checked")].map((one) => one.value));
  const open = new Set([...old.querySelectorAll("details[open] > summary")].map((one) => one.textContent));
  const row = old.querySelector("tr.here a.name"), focus = place(old);
  localTimes(next);
  addCopies(next);
  for (const one of next.querySelectorAll("input[name=id]")) one.checked = ticked.has(one.value);
  for (const one of next.querySelectorAll("details > summary")) if (open.has(one.textContent)) one.parentElement.open = true;
  const here = row && [...next.querySelectorAll("a.name")].find((one) => one.href === row.href);
  if (here) here.closest("tr").classList.add("here");
  old.replaceWith(next);
  if (focus.at >= 0) {
    const was = focus.all[focus.at], now = place(next).all;
    const same = now.find((one) => one.outerHTML === was.outerHTML) || now[focus.at];
    if (same) same.focus({ preventScroll: true });
  }
}
async function refresh() {
  const part = live(), marked = getSelection();
  if (!part || isPaused || isReading || document.hidden) return;
  if (marked && !marked.isCollapsed && part.contains(marked.anchorNode)) return;
  isReading = true;
  isTold = false;
  readAt = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.redirected) return location.reload(); // the session has ended
    show(!answer.ok);
    if (!answer.ok || isPaused) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const old of document.querySelectorAll("[data-part]")) {
      const next = page.querySelector(`[data-part=${old.dataset.part}]`);
      if (next) put(next, old);
    }
    countTicks();
    if (pause && !live()) pause.remove();
  } catch { show(true); } finally { isReading = false; }
}
const lost = document.createElement("span");
lost.className = "badge warm";
lost.textContent = "no connection";
function show(isLost) {
  if (isLost) pause?.prepend(lost, " ");
  else lost.remove();
}
// The first rows come from the bucket, so the page does not wait for them.
const rows = document.querySelector("[data-load]");
let rowsAt = 0, hasAllRows = !rows;
async function loadRows() {
  if (hasAllRows || document.hidden || isPaused || Date.now() - rowsAt < 3000) return;
  rowsAt = Date.now();
  try {
    const answer = await fetch(rows.dataset.load);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const found = page.querySelector("[data-rows]");
    hasAllRows = !live();
    if (found) rows.replaceChildren(...found.childNodes);
    else if (hasAllRows) rows.remove();
  } catch { /* the next turn tries again */ }
}
function listen() {
  const from = live()?.dataset.stream;
  if (!from || isPaused || document.hidden) {
    stream?.close();
    stream = undefined;
  } else if (!stream) {
    stream = new EventSource(from);
    for (const name of ["open", "changed"]) stream.addEventListener(name, () => { isTold = true; });
    stream.addEventListener("error", (event) => {
      if (event.target.readyState === EventSource.CLOSED) isTold = true; // perhaps the session has ended
    });
  }
}
setInterval(() => {
  loadRows();
  listen();
  const part = live(), age = Date.now() - readAt;
  const isStreamed = stream && stream.readyState === EventSource.OPEN;
  const seconds = isStreamed ? Math.max(STREAMED_SECONDS, part?.dataset.live) : part?.dataset.live;
  if (part && (age >= 1000 * seconds || (isTold && age >= CALM_MILLIS))) refresh();
}, 200);
// A page that comes back by Back may be old.
addEventListener("pageshow", (event) => { if (event.persisted) refresh(); });
addEventListener("pagehide", () => { stream?.close(); stream = undefined; });

// Rows of a list are ticked one by one or all at once; then what can be done with them appears.
const bulk = document.querySelector("[data-bulk]");
const ticks = () => [...document.querySelectorAll("input[name=id][form=bulk]")];
function countTicks() {
  const head = document.querySelector("[data-all]");
  if (!bulk) return;
  const all = ticks(), on = all.filter((one) => one.checked).length;
  if (head) { head.hidden = false; head.checked = on > 0 && on === all.length; }
  if (!on) bulk.elements.all.checked = false;
  bulk.hidden = !on;
  bulk.querySelector("[data-ticked]").textContent = bulk.elements.all.checked ? "All" : `${on} ticked`;
}
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-all]")) for (const one of ticks()) one.checked = event.target.checked;
  countTicks();
});

// The form of a new export shows the equal command while it is filled.
document.querySelector("select[data-auto]")?.addEventListener("change", (event) => event.target.form.requestSubmit());
const form = document.querySelector("form[data-command]"), command = document.querySelector("#command");
let later;
form?.addEventListener("input", () => {
  clearTimeout(later);
  later = setTimeout(async () => {
    const body = new URLSearchParams(new FormData(form));
    body.set("do", "command");
    try {
      const answer = await fetch(form.action, { method: "POST", body });
      if (answer.ok && !answer.redirected) command.textContent = await answer.text();
    } catch { /* the next change tries again */ }
  }, 250);
});

function move(step) {
  const rows = [...document.querySelectorAll("tr[data-row]")];
  if (!rows.length) return;
  const at = rows.findIndex((one) => one.classList.contains("here"));
  const next = rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + step))];
  if (at >= 0) rows[at].classList.remove("here");
  next.classList.add("here");
  next.querySelector("a.name").focus();
  next.scrollIntoView({ block: "nearest" });
}
const keys = {
  "/": () => document.querySelector("#search")?.focus(),
  "?": () => document.querySelector("#shortcuts").showModal(),
  j: () => move(1),
  k: () => move(-1),
  n: () => document.querySelector("a[href='/exports/new']")?.click(),
  x: () => document.querySelector("tr.here input[name=id]")?.click(),
};
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});

localTimes(document);
addCopies(document);
countTicks();

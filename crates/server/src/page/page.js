// Keeps an open page at the current state. Every event contains states: the current regions and
// rows, and the order of the rows. The service wrote and escaped all HTML in it. Without this
// script the page shows the state at the time of loading.
"use strict";

const live = document.getElementById("live");
const rows = document.getElementById("rows");
const asOf = live.innerHTML;
// The service's time of the shown state, and how far its clock is ahead.
let shownAt = Number(document.body.dataset.now);
let ahead = shownAt - Date.now();

function age(then) {
  const seconds = Math.floor(Math.max(0, Date.now() + ahead - then) / 1000);
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

function updateAges(within) {
  for (const time of within.querySelectorAll("time[data-at]")) {
    const text = age(Number(time.dataset.at));
    if (time.textContent !== text) time.textContent = text;
  }
}

function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  updateAges(template.content);
  return template.content;
}

// Replaces single cells, so that a link keeps its focus and a selection remains.
function replaceCells(row, fresh) {
  [...fresh.children].forEach((cell, nth) => {
    if (row.children[nth].innerHTML !== cell.innerHTML) row.children[nth].replaceChildren(...cell.childNodes);
  });
}

function show({ now, regions, order, rows: changed }) {
  ahead = now - Date.now();
  for (const [id, html] of Object.entries(regions)) document.getElementById(id)?.replaceChildren(parse(html));
  const known = new Map([...rows.children].map((row) => [Number(row.dataset.key), row]));
  for (const [key, html] of changed) {
    const fresh = parse(html).firstElementChild;
    if (known.has(key)) replaceCells(known.get(key), fresh);
    else known.set(key, fresh);
  }
  const wanted = new Set(order);
  for (const row of [...rows.children]) if (!wanted.has(Number(row.dataset.key))) row.remove();
  order.forEach((key, nth) => {
    if (rows.children[nth] !== known.get(key)) rows.insertBefore(known.get(key), rows.children[nth] ?? null);
  });
}

function showLive() {
  if (live.dataset.state === "live") return;
  live.dataset.state = "live";
  live.textContent = "Live";
}

function showLost() {
  if (live.dataset.state === "lost") return;
  if (live.dataset.state === "live") shownAt = Date.now() + ahead;
  live.dataset.state = "lost";
  live.innerHTML = `Not live, trying again. ${asOf}`;
  live.querySelector("time").textContent = new Date(shownAt).toISOString().slice(0, 23).replace("T", " ") + " UTC";
}

// Connects only while the page is visible: a browser allows few connections to one host, and an
// open stream uses one.
let events;
function follow() {
  events?.close();
  if (document.hidden) return;
  events = new EventSource(document.body.dataset.live);
  events.addEventListener("state", (event) => {
    show(JSON.parse(event.data));
    showLive();
  });
  events.addEventListener("error", ({ target }) => {
    showLost();
    // The connection was refused instead of broken off. In this case browsers don't retry.
    if (target.readyState === EventSource.CLOSED) setTimeout(follow, 5000);
  });
}

setInterval(() => updateAges(document), 1000);
document.addEventListener("visibilitychange", follow);
follow();

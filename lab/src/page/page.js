// Keeps an open page at the state of the moment. Every event tells states: regions and rows as they are now, and the order of the rows.
// All HTML in it was written and escaped by the service. Without this script the page shows the moment at which it was loaded.
"use strict";

const live = document.getElementById("live");
const rows = document.getElementById("rows");
const asOf = live.innerHTML;
// The service's time at which what is shown was so, and how far its clock is ahead.
let shownAt = Number(document.body.dataset.now);
let ahead = shownAt - Date.now();

function age(then) {
  const seconds = Math.floor(Math.max(0, Date.now() + ahead - then) / 1000);
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

function tellAges(within) {
  for (const time of within.querySelectorAll("time[data-at]")) {
    const text = age(Number(time.dataset.at));
    if (time.textContent !== text) time.textContent = text;
  }
}

function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  tellAges(template.content);
  return template.content;
}

// Cell by cell, so that a link keeps its focus and a selection stays.
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

function sayLive() {
  if (live.dataset.state === "live") return;
  live.dataset.state = "live";
  live.textContent = "Live";
}

function sayLost() {
  if (live.dataset.state === "lost") return;
  if (live.dataset.state === "live") shownAt = Date.now() + ahead;
  live.dataset.state = "lost";
  live.innerHTML = `Not live, trying again. ${asOf}`;
  live.querySelector("time").textContent = new Date(shownAt).toISOString().slice(0, 19).replace("T", " ") + " UTC";
}

// Only while somebody can see it: a browser has few connections to one host, and an open stream takes one.
let events;
function follow() {
  events?.close();
  if (document.hidden) return;
  events = new EventSource(document.body.dataset.live);
  events.addEventListener("state", (event) => {
    show(JSON.parse(event.data));
    sayLive();
  });
  events.addEventListener("error", ({ target }) => {
    sayLost();
    // Refused, rather than broken off: browsers give up then.
    if (target.readyState === EventSource.CLOSED) setTimeout(follow, 5000);
  });
}

setInterval(() => tellAges(document), 1000);
document.addEventListener("visibilitychange", follow);
follow();

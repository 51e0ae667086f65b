"use strict";
// Tables: a click on a column's head sorts its rows; empty cells stay last.
document.addEventListener("click", (event) => {
  const head = event.target.closest("table.sortable th button")?.closest("th");
  if (!head) return;
  const body = head.closest("table").tBodies[0];
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.closest("thead").querySelectorAll("th")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const column = Number(head.dataset.column);
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const order = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const difference = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return up ? difference : -difference;
  };
  body.append(...[...body.rows].sort(order));
});
// What is not shown at first stands in a noscript: text where scripts run, so that a page of hundreds of tables and
// pictures opens at once; where none do, it is read as it stands.
const unfold = (part) => {
  for (const kept of part.querySelectorAll(":scope > noscript")) kept.outerHTML = kept.textContent;
};
document.addEventListener("click", (event) => {
  const details = event.target.closest("summary")?.parentElement;
  if (details) unfold(details);
});
// Pickers: of a group of elements with data attributes, the chosen ones are shown. Without a script all are.
for (const bar of document.querySelectorAll("[data-picks]")) {
  const selects = [...bar.querySelectorAll("select")];
  const parts = [...document.querySelectorAll(bar.dataset.picks)];
  const fill = () => {
    for (const select of selects.filter((one) => one.dataset.within)) {
      const within = selects.find((one) => one.name === select.dataset.within).value;
      for (const option of select.options) option.hidden = option.disabled = option.dataset.of !== within;
      if (select.selectedOptions[0]?.disabled) select.value = [...select.options].find((one) => !one.disabled)?.value;
    }
    for (const part of parts) {
      part.hidden = selects.some((one) => part.dataset[one.name] !== one.value);
      if (!part.hidden) unfold(part);
    }
  };
  bar.hidden = false;
  for (const select of selects) select.addEventListener("change", fill);
  fill();
}
for (const kept of document.querySelectorAll("noscript")) {
  if (!kept.closest("[hidden], details, .chart")) unfold(kept.parentElement);
}
// Charts come one after another once the rest is there, or at once for a print.
const charts = [...document.querySelectorAll(".chart")];
const next = () => {
  if (!charts.length) return;
  unfold(charts.shift());
  setTimeout(next);
};
addEventListener("load", next);
addEventListener("beforeprint", () => charts.splice(0).forEach(unfold));

// Maps over the image: a copy of it lies under each map of the panels that are shown.
const lay = (section) => {
  for (const copy of section.querySelectorAll(".under")) copy.remove();
  if (!section.querySelector("[data-over]").checked) return;
  for (const panel of section.querySelectorAll(".panel:not([hidden])")) {
    const image = panel.querySelector(".first img");
    for (const look of panel.querySelectorAll("figure:not(.first) .look")) {
      const copy = image.cloneNode();
      copy.className = "under";
      copy.alt = "";
      look.prepend(copy);
    }
  }
};
for (const box of document.querySelectorAll("[data-over]")) {
  const section = document.querySelector(box.dataset.over);
  box.closest(".bar").addEventListener("change", () => lay(section));
}
// A click enlarges a picture, beside the image that it is of; arrows go on to the next one.
const dialog = document.querySelector("#enlarged");
let at;
const enlarge = (look) => {
  at = look;
  const first = look.closest(".panel").querySelector(".first .look");
  const pair = new Set([first, look]);
  dialog.querySelector(".pair").replaceChildren(...[...pair].map((one) => {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const inner = document.createElement("div");
    const image = one.querySelector("img:not(.under)");
    inner.className = "look";
    figure.style.setProperty("--ratio", image.getAttribute("width") / image.getAttribute("height"));
    inner.append(...[...one.children].map((child) => child.cloneNode()));
    caption.textContent = image.alt;
    figure.className = one.closest("figure, td").className;
    if (one.closest(".fine")) figure.classList.add("fine");
    figure.append(inner, caption);
    return figure;
  }));
  if (!dialog.open) dialog.showModal();
};
const go = (step) => {
  const all = [...at.closest(".panel").querySelectorAll(".look")];
  enlarge(all[(all.indexOf(at) + step + all.length) % all.length]);
};
document.addEventListener("click", (event) => {
  const look = event.target.closest("button.look");
  if (look) enlarge(look);
  if (event.target === dialog) dialog.close();
});
dialog.addEventListener("click", (event) => {
  if (event.target.dataset.step) go(Number(event.target.dataset.step));
});
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) go(step);
});

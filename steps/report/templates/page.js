// Tables that sort and filter. Without this script they are plain tables, whole and in order.
"use strict";
const FEW_ROWS = 6;

function compare(a, b) {
  const [x, y] = [a.dataset.sort, b.dataset.sort];
  if (x !== undefined && y !== undefined) return Number(x) - Number(y);
  return a.textContent.trim().localeCompare(b.textContent.trim(), "en", { numeric: true });
}

// On a phone a row is a card, whose lines are named by the heads of their columns.
function stackable(table) {
  const titles = [...table.tHead.rows[0].cells].map((head) => head.textContent);
  for (const row of table.tBodies[0].rows)
    [...row.cells].forEach((cell, column) => { cell.dataset.label = titles[column]; });
  table.classList.add("stacked");
}

function sortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.title = "Sort by this column";
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      // Cells without a number stay last in both directions.
      const missing = (row) => head.classList.contains("n") && row.cells[column].dataset.sort === undefined;
      const rows = [...body.rows].sort((a, b) => missing(a) - missing(b) ||
        (down ? -1 : 1) * compare(a.cells[column], b.cells[column]));
      body.append(...rows);
    });
  });
}

function labelled(text, control) {
  const label = document.createElement("label");
  label.append(text, control);
  return label;
}

function filterable(box, table) {
  const rows = [...table.tBodies[0].rows];
  const tools = document.createElement("div");
  tools.className = "tools";
  const search = document.createElement("input");
  search.type = "search";
  tools.append(labelled("Filter", search));
  const menus = [];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!("choices" in head.dataset)) return;
    const values = [...new Set(rows.map((row) => row.cells[column].textContent.trim()))].sort();
    if (values.length < 2) return;
    const menu = document.createElement("select");
    menu.append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
    menus.push([column, menu]);
    tools.append(labelled(head.textContent, menu));
  });
  const count = document.createElement("output");
  tools.append(count);
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word)) || !menus.every(([column, menu]) =>
        !menu.value || row.cells[column].textContent.trim() === menu.value);
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = `${shown} of ${rows.length} rows`;
  };
  tools.addEventListener("input", apply);
  apply();
  box.prepend(tools);
}

for (const box of document.querySelectorAll(".table")) {
  const table = box.querySelector("table");
  stackable(table);
  if (table.tBodies[0].rows.length > FEW_ROWS) filterable(box, table);
  if (table.tBodies[0].rows.length > 1) sortable(table);
}

// A link into folded details opens them; on paper everything is open.
function reveal() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const folded = target && target.closest("details");
  if (folded) { folded.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", reveal);
reveal();
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach((details) => { details.open = true; });
});
addEventListener("afterprint", () => closed.forEach((details) => { details.open = false; }));

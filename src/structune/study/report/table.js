// Tables sort at a click on a heading, numbers as numbers and dashes last; one with a form before it filters its rows.
"use strict";

for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];

  const key = (row, column) => {
    const cell = row.cells[column];
    const value = cell.dataset.value;
    return value === undefined ? cell.textContent.trim() : Number(value);
  };

  const compare = (one, other, down) => {
    const missing = [one, other].map((value) => value === "\u2013");
    if (missing[0] || missing[1]) return missing[0] - missing[1];
    if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1; // words after numbers, both ways
    const order = typeof one === "number" ? one - other : one.localeCompare(other, undefined, { numeric: true });
    return down ? -order : order;
  };

  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      rows.sort((one, other) => compare(one[0], other[0], down));
      body.append(...rows.map((pair) => pair[1]));
    });
  });

  const form = document.querySelector(`form[data-table="${table.id}"]`);
  if (!form) continue;
  form.hidden = false;
  const count = form.querySelector(".count");
  const filter = () => {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const { task, kind } = form.elements;
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden =
        !words.every((word) => text.includes(word)) ||
        (task.value !== "" && task.value !== row.dataset.task) ||
        (kind.value !== "" && kind.value !== row.dataset.kind);
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${body.rows.length} rows`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
}

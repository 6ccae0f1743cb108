
// Sorting of tables, by mouse and keyboard: a button in every heading. Without this script they are plain tables.
const collator = new Intl.Collator("en", { numeric: true });

function compare(a, b) {
  const [x, y] = [a.dataset.order, b.dataset.order];
  if (x !== undefined && y !== undefined) return x - y;
  if (x !== undefined || y !== undefined) return x !== undefined ? -1 : 1; // numbers before names
  return collator.compare(a.textContent.trim(), b.textContent.trim());
}

function sort(heading) {
  const body = heading.closest("table").tBodies[0];
  const sign = heading.ariaSort === "ascending" ? -1 : 1;
  const rows = [...body.rows].sort((a, b) => sign * compare(a.cells[heading.cellIndex], b.cells[heading.cellIndex]));
  for (const other of heading.parentElement.cells) other.ariaSort = "none";
  heading.ariaSort = sign === 1 ? "ascending" : "descending";
  body.append(...rows);
}

for (const heading of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  button.addEventListener("click", () => sort(heading));
  heading.append(button);
  heading.ariaSort = "none";
}

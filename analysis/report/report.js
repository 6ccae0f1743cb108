
// Sorting of tables, by mouse and keyboard: a button in every heading. Without this script they are plain tables.
// What is wider than the page can be reached by keyboard, and on a phone the contents are folded.
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

const regions = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const isWide = target.scrollWidth > target.clientWidth;
    const wanted = { role: "region", tabindex: "0", "aria-label": target.querySelector("caption").textContent };
    for (const [name, value] of Object.entries(wanted)) {
      if (isWide) target.setAttribute(name, value);
      else target.removeAttribute(name);
    }
  }
});
for (const region of document.querySelectorAll(".scroll")) regions.observe(region);

const phone = matchMedia("(max-width: 38rem)");
const fold = () => (document.querySelector("nav details").open = !phone.matches);
phone.addEventListener("change", fold);
fold();

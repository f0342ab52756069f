"use strict";
(() => {
  const errors = [];
  window.addEventListener("error", (event) => errors.push(String(event.message)));
  const runs = JSON.parse(document.getElementById("data").textContent);
  const box = document.getElementById("runs");
  let pinned = null;

  // A cell of text is called what it says, or what it says without its marks.
  const name = (cell) => cell.dataset.n || cell.textContent;
  for (const cell of document.querySelectorAll("td[data-r]")) {
    cell.tabIndex = 0;
    cell.title = `${runs[Number(cell.dataset.r)][1].length} runs: click for their distribution`;
  }

  // Sorting: within each section, empty keys last, a second click turns the order round.
  const key = (row, column) => {
    const cell = row.cells[column], raw = cell.dataset.s;
    if (raw === undefined) return cell.classList.contains("t") ? name(cell).toLowerCase() : null;
    const number = Number(raw);
    return Number.isNaN(number) ? raw : number;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b));
  };
  const sort = (header) => {
    const table = header.closest("table");
    const column = Number(header.dataset.column);
    const up = header.getAttribute("aria-sort") !== "ascending";
    table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("section"));
      rows.sort((one, two) => {
        const a = key(one, column), b = key(two, column);
        if (a === null || b === null) return (a === null) - (b === null);
        return up ? compare(a, b) : compare(b, a);
      });
      rows.forEach((row) => body.append(row));
    }
  };

  // Distribution of the runs behind a cell.
  const round = (x) => (x === 0 ? "0" : Number(x.toPrecision(3)).toString());
  const quantile = (sorted, p) => {
    const at = (sorted.length - 1) * p, low = Math.floor(at), high = Math.ceil(at);
    return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
  };
  const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  const strip = (values) => {
    const sorted = [...values].sort((a, b) => a - b);
    const low = sorted[0], high = sorted[sorted.length - 1], span = high - low || 1;
    const x = (value) => (high === low ? 150 : 10 + (280 * (value - low)) / span);
    // A fixed spread instead of a random one: the same cell looks the same every time.
    const dots = values.map((value, i) =>
      `<circle cx="${x(value).toFixed(1)}" cy="${(12 + ((i * 7) % 5) * 5).toFixed(1)}" r="3"/>`);
    const [q1, q2, q3] = [0.25, 0.5, 0.75].map((p) => x(quantile(sorted, p)));
    return `<svg viewBox="0 0 300 58" role="img" aria-label="distribution of runs">` +
      `<rect x="${q1}" y="6" width="${Math.max(q3 - q1, 1)}" height="32" fill="currentColor" opacity=".12"/>` +
      `<line x1="${q2}" x2="${q2}" y1="4" y2="40" stroke="currentColor" stroke-width="2"/>` +
      `<g fill="#D55E00" fill-opacity=".75">${dots.join("")}</g>` +
      `<g fill="currentColor" font-size="11"><text x="10" y="54">${round(low)}</text>` +
      `<text x="290" y="54" text-anchor="end">${round(high)}</text></g></svg>`;
  };
  const show = (cell) => {
    const [unit, values] = runs[Number(cell.dataset.r)];
    const n = values.length, mean = values.reduce((a, b) => a + b, 0) / n;
    const std = n > 1 ? Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / (n - 1)) : NaN;
    const sorted = [...values].sort((a, b) => a - b);
    const table = cell.closest("table");
    const header = [...table.tHead.querySelectorAll("th[data-column]")][cell.cellIndex];
    const names = [...cell.parentElement.cells].filter((c) => c.classList.contains("t"));
    const title = [...names.map(name), header ? header.dataset.title : ""];
    box.innerHTML = `<button class="close" aria-label="close">×</button>` +
      `<strong>${escape(title.filter(Boolean).join(", "))}</strong>${strip(values)}` +
      `n = ${n}; mean ${round(mean)}${n > 1 ? ` ± ${round(std)}` : ""}; median ` +
      `${round(quantile(sorted, 0.5))} ${escape(unit)}; middle half ` +
      `${round(quantile(sorted, 0.25))} to ${round(quantile(sorted, 0.75))}`;
    box.hidden = false;
    const at = cell.getBoundingClientRect(), size = box.getBoundingClientRect();
    const left = Math.min(Math.max(at.left, 8), window.innerWidth - size.width - 8);
    const below = at.bottom + 6 + size.height < window.innerHeight;
    box.style.left = `${Math.max(left, 8)}px`;
    box.style.top = `${Math.max(below ? at.bottom + 6 : at.top - size.height - 6, 8)}px`;
  };
  const hide = () => { box.hidden = true; pinned = null; };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("thead button");
    if (button) { sort(button.closest("th")); return; }
    const cell = event.target.closest("td[data-r]");
    if (cell) { if (pinned === cell) hide(); else { show(cell); pinned = cell; } return; }
    if (!event.target.closest("#runs") || event.target.closest(".close")) hide();
  });
  document.addEventListener("mouseover", (event) => {
    if (pinned) return;
    const cell = event.target.closest("td[data-r]");
    if (cell) show(cell); else box.hidden = true;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const cell = document.activeElement && document.activeElement.closest("td[data-r]");
    if (cell && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      show(cell);
      pinned = cell;
    }
  });
  window.addEventListener("scroll", () => { if (!pinned) box.hidden = true; }, { passive: true });
  // Whatever is folded on the screen belongs on paper.
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((details) => { details.open = true; });
  });

  window.page = { runs, box, key, compare, hide, errors };
})();

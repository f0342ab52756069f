"use strict";
(() => {
  const errors = [];
  window.addEventListener("error", (event) => errors.push(String(event.message)));
  const runs = JSON.parse(document.getElementById("data").textContent);
  const box = document.getElementById("runs");
  let pinned = null;

  // Sorting: within each section, empty keys last, a second click turns the order round.
  const key = (row, column) => {
    const raw = row.cells[column] ? row.cells[column].dataset.s : undefined;
    if (raw === undefined || raw === "") return null;
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
    const title = [...names.map((c) => c.dataset.n || c.textContent), header ? header.dataset.title : ""];
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

  // ?selftest clicks through the page and writes what happened, for the tests of the suite.
  if (location.search === "?selftest") {
    const result = { tables: 0, sorted: 0, wrong: [], popovers: 0, errors };
    document.querySelectorAll("details").forEach((details) => { details.open = true; });
    for (const table of document.querySelectorAll("table.sortable")) {
      result.tables += 1;
      for (const header of table.querySelectorAll("th[data-column]")) {
        for (const up of [true, false]) {
          header.querySelector("button").click();
          for (const body of table.tBodies) {
            const keys = [...body.rows].filter((row) => !row.classList.contains("section"))
              .map((row) => key(row, Number(header.dataset.column)));
            const filled = keys.filter((k) => k !== null);
            const inOrder = filled.every((k, i) => i === 0 ||
              (up ? compare(filled[i - 1], k) <= 0 : compare(filled[i - 1], k) >= 0));
            const emptyLast = keys.slice(0, filled.length).every((k) => k !== null);
            if (inOrder && emptyLast) result.sorted += 1;
            else result.wrong.push(`${table.id} column ${header.dataset.column}`);
          }
        }
      }
    }
    for (const cell of document.querySelectorAll("td[data-r]")) {
      cell.click();
      if (!box.hidden && box.querySelectorAll("circle").length ===
          runs[Number(cell.dataset.r)][1].length) result.popovers += 1;
      hide();
    }
    result.withRuns = document.querySelectorAll("td[data-r]").length;
    result.images = [...document.images].every((image) => image.naturalWidth > 0 || !image.complete);
    result.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    const finish = () => {
      const out = document.createElement("pre");
      out.id = "selftest";
      out.textContent = JSON.stringify(result);
      document.body.append(out);
    };
    const choice = window.choice;
    if (!choice) { finish(); return; }
    // Every choice is made once: the answer must name the fastest layer that is right, first.
    result.choices = 0;
    result.misranked = [];
    for (const family of [...choice.field("family").options].map((option) => option.value)) {
      choice.field("family").value = family;
      choice.field("family").dispatchEvent(new Event("change", { bubbles: true }));
      for (const tolerance of choice.field("tolerance").options) {
        choice.field("tolerance").value = tolerance.value;
        choice.field("tolerance").dispatchEvent(new Event("change", { bubbles: true }));
        const here = choice.data.cells.filter((cell) => ["family", "size", "batch", "dtype", "device"]
          .every((name) => String(cell[name]) === choice.field(name).value));
        const best = here.filter(choice.right).sort((a, b) => a.total - b.total)[0];
        const first = document.querySelector("#ranking li .who"), said = document.getElementById("answer").textContent;
        const label = best ? choice.data.methods[best.method].label : "";
        result.choices += 1;
        if (best ? first.textContent !== label || !said.includes(label) : first || !said.startsWith("No "))
          result.misranked.push(`${family} ${tolerance.value}`);
      }
    }
    window.addEventListener("load", async () => {
      const drawn = (await choice.draw()).filter((one) => one && one.view);
      result.charts = document.querySelectorAll(".chart svg").length;
      // A click on a method in a legend leaves it alone, a second one brings the others back.
      result.legends = [];
      for (const { view } of drawn) {
        const chart = view.container();
        const seen = () => new Set([...chart.querySelectorAll(".role-mark.mark-symbol path")]
          .filter((mark) => Number(mark.getAttribute("opacity") ?? 1) > 0.5).map((mark) => mark.__data__.datum.label));
        const entry = [...chart.querySelectorAll(".role-legend-symbol path")].find((one) => seen().has(one.__data__.datum.value));
        const before = seen(), steps = [];
        for (let click = 0; click < 2; click += 1) {
          entry.dispatchEvent(new MouseEvent("click", { bubbles: true, view: window }));
          await view.runAsync();
          steps.push([...seen()]);
        }
        result.legends.push({ all: [...before].sort(), picked: entry.__data__.datum.value, alone: steps[0], again: steps[1].sort() });
      }
      result.errors.push(...choice.errors);
      result.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
      finish();
    });
  }
})();

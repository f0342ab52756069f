"use strict";
// Clicks through a page as a reader would, and writes what happened to the end of it.
window.addEventListener("load", async () => {
  const { runs, box, key, compare, hide, errors } = window.page, choice = window.choice;
  const result = { tables: 0, sorted: 0, wrong: [], popovers: 0, choices: 0, misranked: [], unsettled: [], legends: [], errors };
  // When the answer was painted, and when the parser had read everything.
  result.painted = await new Promise((resolve) => {
    new PerformanceObserver((list) => resolve(list.getEntries()[0].renderTime)).observe({ type: "element", buffered: true });
    setTimeout(() => resolve(null), 10000);
  });
  result.read = performance.getEntriesByType("navigation")[0].domInteractive;

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
    if (!box.hidden && box.querySelectorAll("circle").length === runs[Number(cell.dataset.r)][1].length) result.popovers += 1;
    hide();
  }
  result.withRuns = document.querySelectorAll("td[data-r]").length;
  result.images = await Promise.all([...document.images].map((image) => image.decode())).then(() => true, String);

  const choose = (name, value) => {
    choice.field(name).value = value;
    choice.field(name).dispatchEvent(new Event("change", { bubbles: true }));
  };
  const options = (name) => [...choice.field(name).options].map((option) => option.value);
  const names = ["family", "size", "batch", "dtype", "device"];
  // Every choice is made once: the answer must name the fastest layer that is right, first.
  for (const family of options("family")) {
    choose("family", family);
    for (const tolerance of options("tolerance")) {
      choose("tolerance", tolerance);
      const here = choice.data.cells.filter((cell) => names.every((name) => String(cell[name]) === choice.field(name).value));
      const best = here.filter(choice.right).sort((a, b) => a.total - b.total)[0];
      const first = document.querySelector("#ranking li .who"), said = document.getElementById("answer").textContent;
      const label = best ? choice.data.methods[best.method].label : "";
      result.choices += 1;
      if (best ? first.textContent !== label || !said.includes(label) : first || !said.startsWith("No "))
        result.misranked.push(`${family} ${tolerance}`);
    }
    // What is chosen last stays, with whatever was measured nearest to the other choices.
    for (const name of names) {
      for (const value of options(name)) {
        choose(name, value);
        const shown = document.querySelectorAll("#ranking li, #wrong li").length;
        if (choice.field(name).value !== value || !shown) result.unsettled.push(`${family}: ${name} ${value}`);
      }
    }
  }
  choose("family", options("family")[0]);
  const drawn = (await choice.draw()).filter((one) => one && one.view);
  result.charts = document.querySelectorAll(".chart svg").length;
  // A click on a method in a legend leaves it alone, a second one brings the others back.
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
  const out = document.createElement("pre");
  out.id = "selftest";
  out.textContent = JSON.stringify(result);
  document.body.append(out);
});

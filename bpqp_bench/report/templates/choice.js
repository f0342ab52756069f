"use strict";
// The first screen: choose a problem, see the layers ranked; and the charts under it.
(() => {
  const data = JSON.parse(document.getElementById("choices").textContent);
  const root = document.getElementById("choice");
  if (!data.cells.length) return;
  const field = (name) => root.querySelector(`[name=${name}]`);
  const names = ["family", "size", "batch", "dtype", "device"];
  const digits = (x) => (x >= 100 ? x.toFixed(0) : Number(x.toPrecision(3)).toString());
  const time = (ms) => (ms < 1 ? `${digits(ms * 1e3)} µs` : ms < 1e3 ? `${digits(ms)} ms` : `${digits(ms / 1e3)} s`);
  const memory = (mib) => (mib < 1000 ? `${digits(mib)} MiB` : `${digits(mib / 1024)} GiB`);
  const made = (tag, text, cls) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (cls) node.className = cls;
    return node;
  };
  const order = {
    family: Object.keys(data.families),
    size: [...new Set(data.cells.map((c) => c.size))].sort((a, b) => {
      const [n, m] = a.split("x").map(Number), [k, l] = b.split("x").map(Number);
      return n - k || m - l;
    }),
    batch: [...new Set(data.cells.map((c) => c.batch))].sort((a, b) => a - b),
    dtype: [...new Set(data.cells.map((c) => c.dtype))].sort().reverse(),
    device: [...new Set(data.cells.map((c) => c.device))].sort(),
  };
  const shown = (name, value) => (name === "family" ? data.families[value] : name === "size" ? value.replace("x", " × ") : String(value));
  const chosen = () => Object.fromEntries(names.map((name) => [name, field(name).value]));
  const matches = (cell, want, besides = []) =>
    names.every((name) => besides.includes(name) || String(cell[name]) === want[name]);
  const grouped = (options) => {
    const classes = Object.fromEntries(data.cells.map((cell) => [cell.family, cell.class.toUpperCase() || "other"]));
    const groups = new Map();
    for (const option of options) {
      const name = classes[option.value];
      if (!groups.has(name)) groups.set(name, Object.assign(made("optgroup"), { label: name }));
      groups.get(name).append(option);
    }
    return groups.values();
  };
  const fill = () => {
    // Each list holds what was measured with the choices before it.
    const want = {};
    for (const name of names) {
      const select = field(name), before = select.value;
      const there = new Set(data.cells.filter((c) => Object.keys(want).every((k) => String(c[k]) === want[k])).map((c) => String(c[name])));
      const options = order[name].map(String).filter((v) => there.has(v)).map((v) => {
        const option = made("option", shown(name, v));
        option.value = v;
        return option;
      });
      select.replaceChildren(...(name === "family" ? grouped(options) : options));
      if (there.has(before)) select.value = before;
      select.disabled = select.options.length < 2;
      want[name] = select.value;
    }
  };
  // Besides 1 − cos the relative error counts; a right gradient has 1e-6 and 1e-3.
  const tolerance = () => field("tolerance").value.split(",").map(Number);
  const right = (cell) => {
    const [cosine, error] = tolerance();
    return cell.total !== undefined && !cell.late && cell.cosine !== null && cell.cosine <= cosine && cell.error <= error;
  };
  // Of every method its fastest configuration; a configuration's key is the method's with options.
  const base = (cell) => cell.method.split("[")[0];
  const best = (sorted) => sorted.filter((cell, at) => sorted.findIndex((other) => base(other) === base(cell)) === at);
  const reason = (cell) => {
    if (cell.total === undefined) return cell.why || cell.state;
    if (cell.mark === "degenerate") return "no gradient exists here (degenerate): not judged";
    if (cell.mark === "zero") return "the gradient is zero: not judged";
    if (cell.mark === "unknown") return "no reference: not judged";
    if (cell.late) return `${cell.late} calls hit the time limit`;
    return `wrong: 1 − cos ${cell.cosine.toExponential(1)}, relative error ${cell.error.toExponential(1)}`;
  };
  const bar = (cell, widest, good) => {
    const item = made("li", undefined, good ? "" : "wrong"), method = data.methods[cell.method];
    item.append(made("span", method.label, "who"));
    const track = made("span", undefined, "track");
    if (cell.total !== undefined) {
      for (const side of ["forward", "backward"]) {
        const part = made("span", undefined, `part ${side}`);
        part.style.width = `${Math.max((100 * cell[side]) / widest, 0.3)}%`;
        track.append(part);
      }
    }
    item.append(track);
    const words = [];
    if (cell.total !== undefined) words.push(`${time(cell.total)} (forward ${time(cell.forward)}, backward ${time(cell.backward)})`);
    if (good) words.push(`1 − cos ${cell.cosine === 0 ? "0" : cell.cosine.toExponential(1)}`);
    else words.push(reason(cell));
    if (cell.build !== undefined && cell.build !== null) words.push(`build ${time(cell.build * 1e3)}`);
    if (cell.memory) words.push(memory(cell.memory));
    item.append(made("span", words.join(" · "), "what"));
    return item;
  };
  const rank = () => {
    const want = chosen(), there = data.cells.filter((cell) => matches(cell, want));
    const good = there.filter(right).sort((a, b) => a.total - b.total);
    const timed = there.filter((cell) => !right(cell) && cell.total !== undefined).sort((a, b) => a.total - b.total);
    const failed = there.filter((cell) => cell.total === undefined);
    const answer = document.getElementById("answer");
    if (good.length) {
      const [first, next] = best(good);
      answer.replaceChildren("Fastest right layer here: ", made("strong", data.methods[first.method].label), `, ${time(first.total)} an instance`,
        next ? `, ${digits(next.total / first.total)} times as fast as the next method (${data.methods[next.method].label}).` : "; no other method is right.");
    } else {
      const judged = there.some((cell) => cell.mark === "right" || cell.mark === "wrong");
      answer.textContent = judged ? "No layer has a right gradient here." : "No gradient can be judged here: the instances are degenerate, or their gradient is zero.";
    }
    const all = field("all").checked, few = all ? good : best(good);
    const widest = Math.max(...few.map((cell) => cell.total), ...(good.length ? [] : timed.map((c) => c.total)), 1e-9);
    document.getElementById("ranking").replaceChildren(...few.map((cell) => bar(cell, widest, true)));
    const rest = [...timed, ...failed];
    document.getElementById("wrong").replaceChildren(...rest.map((cell) => bar(cell, Math.max(widest, ...timed.map((c) => c.total)), false)));
    document.getElementById("wrong-count").textContent = `${rest.length} without a right gradient here`;
    document.getElementById("wrong-part").hidden = !rest.length;
    field("all").parentElement.hidden = best(good).length === good.length;
  };

  // Charts.
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const scales = (cells) => {
    const keys = Object.keys(data.methods).filter((key) => cells.some((cell) => cell.method === key));
    const labels = keys.map((key) => data.methods[key].label);
    const colours = keys.map((key) => (dark.matches && data.methods[key].colour === "#000000" ? "#E6E9EC" : data.methods[key].colour));
    const legend = { title: null, symbolLimit: 0, labelLimit: 260, orient: window.innerWidth < 700 ? "bottom" : "right", columns: window.innerWidth < 700 ? 1 : undefined };
    return {
      color: { field: "label", type: "nominal", scale: { domain: labels, range: colours }, legend },
      shape: { field: "label", type: "nominal", scale: { domain: labels, range: keys.map((key) => data.methods[key].shape) }, legend },
    };
  };
  const config = () => {
    const ink = getComputedStyle(document.body).color, line = getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
    return {
      background: "transparent", font: "system-ui, sans-serif", view: { stroke: line },
      axis: { labelColor: ink, titleColor: ink, gridColor: line, gridOpacity: 0.6, domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" },
      legend: { labelColor: ink, titleColor: ink, labelFontSize: 12 },
    };
  };
  const rows = (cells, x) => cells.filter((cell) => cell.total > 0).map((cell) => ({
    ...cell, label: data.methods[cell.method].label, x: x(cell),
    right: cell.mark === "right" ? "right" : cell.mark === "wrong" ? "not right" : "not judged",
    one_minus_cos: cell.cosine === null ? null : Math.max(cell.cosine, 1e-17),
  }));
  const pick = { name: "pick", select: { type: "point", fields: ["label"], toggle: "true" }, bind: "legend" };
  const faded = { condition: { param: "pick", value: 1 }, value: 0.08 };
  const tooltip = [
    { field: "label", title: "method" }, { field: "size", title: "size" }, { field: "batch", title: "batch" },
    ...["total", "forward", "backward"].map((side) => ({ field: side, title: `${side} (ms)`, format: ".3~g" })),
    { field: "cosine", title: "worst 1 − cos", format: ".1e" }, { field: "error", title: "worst relative error", format: ".1e" },
    { field: "right", title: "gradient" }, { field: "count", title: "instances" },
  ];
  const log = (extra = {}) => ({ scale: { type: "log", ...extra } });
  // Filled where the gradient is right, hollow elsewhere.
  const points = (encoding) => [true, false].map((filled) => ({
    transform: [{ filter: `datum.right ${filled ? "===" : "!=="} 'right'` }],
    mark: { type: "point", size: 70, strokeWidth: 1.6, filled, opacity: 1 },
    encoding: { ...encoding, opacity: faded, tooltip },
  }));
  const lines = (cells, x, title, side) => {
    const { color, shape } = scales(cells), values = rows(cells, x);
    const ticks = [...new Set(values.map((row) => row.x))];
    const where = { x: { field: "x", type: "quantitative", title, ...log({ nice: false, padding: 12 }), axis: { values: ticks, format: "d", labelOverlap: true } }, y: { field: side, type: "quantitative", title: `${side}, ms an instance`, ...log() }, color };
    return { data: { values }, layer: [
      { params: [pick], mark: { type: "line", strokeWidth: 1.4 }, encoding: { ...where, opacity: faded } },
      ...points({ ...where, shape }),
    ] };
  };
  const scatter = (cells) => {
    const { color, shape } = scales(cells), values = rows(cells, (cell) => cell.n).filter((row) => row.one_minus_cos !== null);
    const where = { x: { field: "one_minus_cos", type: "quantitative", title: "worst 1 − cos to the reference gradient", ...log({ domainMin: 1e-17 }), axis: { format: ".0e", tickCount: 6, labelOverlap: "greedy", labelSeparation: 6 } }, y: { field: "total", type: "quantitative", title: "total, ms an instance", ...log() }, color };
    return { data: { values }, layer: [
      { data: { values: [{ at: tolerance()[0] }] }, mark: { type: "rule", strokeDash: [4, 4], color: "#888" }, encoding: { x: { field: "at", type: "quantitative", ...log({ domainMin: 1e-17 }) } } },
      ...points({ ...where, shape }).map((layer, at) => (at ? layer : { params: [pick], ...layer })),
    ] };
  };
  const errors = [];
  const draw = (id, spec, text) => {
    const node = document.getElementById(id), empty = !spec || !spec.data.values.length;
    node.closest("figure").hidden = empty;
    if (empty || !window.vegaEmbed) return Promise.resolve();
    const full = { width: "container", height: 320, description: text, config: config(), autosize: { type: "fit-x", contains: "padding" }, ...spec };
    return window.vegaEmbed(node, full, { actions: false, renderer: "svg", ast: true, logLevel: 1, tooltip: { theme: dark.matches ? "dark" : "light" } })
      .catch((error) => errors.push(String(error)));
  };
  const chart = () => {
    const want = chosen(), side = field("pass").value, family = data.families[want.family];
    const cells = field("all").checked ? data.cells : data.cells.filter((cell) => data.methods[cell.method].main);
    const here = cells.filter((cell) => matches(cell, want));
    const sizes = cells.filter((cell) => matches(cell, want, ["size"]));
    const batches = cells.filter((cell) => matches(cell, want, ["batch"]));
    return Promise.all([
      draw("chart-accuracy", scatter(here), `Time against gradient error, ${family}, ${want.size}`),
      draw("chart-size", lines(sizes, (cell) => cell.n, "n, variables", side), `Time against size, ${family}`),
      draw("chart-batch", new Set(batches.map((cell) => cell.batch)).size > 1 ? lines(batches, (cell) => cell.batch, "instances in a batch", side) : null, `Time against batch, ${family}, ${want.size}`),
    ]);
  };
  const update = () => { fill(); rank(); return chart(); };
  root.addEventListener("change", update);
  dark.addEventListener("change", chart);
  fill();
  // The size that most people ask about, where it was measured.
  if ([...field("size").options].some((option) => option.value === "100x20")) field("size").value = "100x20";
  fill();
  rank();
  // The answer is on the screen before the library of the charts is read.
  window.addEventListener("load", chart);
  window.choice = { data, field, update, right, errors, draw: chart };
})();

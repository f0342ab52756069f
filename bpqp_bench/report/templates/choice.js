"use strict";
// The first screen: choose a problem, see the layers ranked; and the charts under it.
(() => {
  const data = JSON.parse(document.getElementById("choices").textContent);
  const root = document.getElementById("choice");
  // Cells come as columns, a column of few values as those and their places.
  const columns = Object.entries(data.cells).map(([name, column]) => [name, column.of ? column.at.map((at) => column.of[at]) : column]);
  data.cells = (columns[0] || ["", []])[1].map((_, at) => Object.fromEntries(columns.map(([name, column]) => [name, column[at]])));
  if (!data.cells.length) return;
  const field = (name) => root.querySelector(`[name=${name}]`);
  const names = ["family", "size", "batch", "dtype", "device"];
  const digits = (x) => (x >= 100 ? x.toFixed(0) : Number(x.toPrecision(3)).toString());
  const time = (ms) => (ms < 1 ? `${digits(ms * 1e3)} µs` : ms < 1e3 ? `${digits(ms)} ms` : `${digits(ms / 1e3)} s`);
  const memory = (mib) => (mib < 1000 ? `${digits(mib)} MiB` : `${digits(mib / 1024)} GiB`);
  const small = (x) => (x === 0 ? "0" : x.toExponential(1).replace("-", "−"));
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
    // Every problem, its sizes, and every batch, device and dtype that problems of its class have.
    const family = field("family").value || order.family[0], here = data.cells.filter((cell) => cell.family === family);
    const alike = data.cells.filter((cell) => cell.class === here[0].class);
    for (const name of names) {
      const select = field(name), before = select.value;
      const pool = name === "family" ? data.cells : name === "size" ? here : alike;
      const there = new Set(pool.map((cell) => String(cell[name])));
      const options = order[name].map(String).filter((value) => there.has(value))
        .map((value) => Object.assign(made("option", shown(name, value)), { value }));
      select.replaceChildren(...(name === "family" ? grouped(options) : options));
      if (there.has(before)) select.value = before;
      select.disabled = select.options.length < 2;
    }
  };
  // The choice made last counts; the others go to what was measured with it and is nearest to them.
  const settle = (last, want = chosen()) => {
    const named = data.cells.find((cell) => cell.family === want.family).class, n = Number(want.size.split("x")[0]);
    const near = (cell) => (cell.class === named ? 32 : 0) + (cell.family === want.family ? 8 : 0) + (cell.size === want.size ? 16 : 0) +
      (String(cell.batch) === want.batch ? 4 : 0) + (cell.device === want.device ? 2 : 0) + (cell.dtype === want.dtype ? 1 : 0) -
      Math.abs(Math.log(cell.n / n)) / 100;
    const there = data.cells.filter((cell) => String(cell[last]) === want[last]);
    const nearest = there.reduce((one, other) => (near(other) > near(one) ? other : one));
    field("family").value = nearest.family;
    fill();
    for (const name of names) field(name).value = String(nearest[name]);
    const moved = names.filter((name) => name !== last && String(nearest[name]) !== want[name]);
    document.getElementById("moved").textContent = moved.length
      ? `Not measured with ${last === "family" ? "" : `${last} `}${shown(last, want[last])}; nearest that was: ${moved.map((name) => `${name === "family" ? "problem" : name} ${shown(name, String(nearest[name]))}`).join(", ")}.` : "";
  };
  // Besides 1 − cos the relative error counts; a right gradient has 1e-6 and 1e-3.
  const tolerance = () => field("tolerance").value.split(",").map(Number);
  const right = (cell) => {
    const [cosine, error] = tolerance();
    return cell.total !== null && !cell.late && cell.cosine !== null && cell.cosine <= cosine && cell.error <= error;
  };
  // Of every method its fastest configuration; a configuration's key is the method's with options.
  const base = (cell) => cell.method.split("[")[0];
  const best = (sorted) => sorted.filter((cell, at) => sorted.findIndex((other) => base(other) === base(cell)) === at);
  const reason = (cell) => {
    if (cell.total === null) return cell.why.replaceAll(`${data.methods[cell.method].label}: `, "");
    if (cell.mark === "degenerate") return "no gradient exists here (degenerate): not judged";
    if (cell.mark === "zero") return "the gradient is zero: not judged";
    if (cell.mark === "unknown") return "no reference: not judged";
    if (cell.late) return `${cell.late} calls hit the time limit`;
    return `wrong: 1 − cos ${small(cell.cosine)}, relative error ${small(cell.error)}`;
  };
  const bar = (cell, widest, good) => {
    const item = made("li", undefined, good ? "" : "wrong"), method = data.methods[cell.method];
    item.append(made("span", method.label, "who"));
    const track = made("span", undefined, "track");
    if (cell.total !== null) {
      for (const side of ["forward", "backward"]) {
        const part = made("span", undefined, `part ${side}`);
        part.style.width = `${Math.max((100 * cell[side]) / widest, 0.3)}%`;
        track.append(part);
      }
    }
    item.append(track);
    const words = [];
    if (cell.total !== null) words.push(`${time(cell.total)} (${time(cell.forward)} + ${time(cell.backward)})`);
    if (good) words.push(`1 − cos ${small(cell.cosine)}`);
    else words.push(reason(cell));
    if (cell.build !== null) words.push(`build ${time(cell.build * 1e3)}`);
    if (cell.memory) words.push(`memory ${memory(cell.memory)}`);
    const what = made("span", undefined, "what");
    words.forEach((word) => what.append(made("span", word), " "));
    item.append(what);
    return item;
  };
  const ranked = (want) => {
    const there = data.cells.filter((cell) => matches(cell, want)), failed = there.filter((cell) => cell.total === null);
    const sorted = there.filter((cell) => cell.total !== null).sort((a, b) => a.total - b.total);
    return { there, good: sorted.filter(right), timed: sorted.filter((cell) => !right(cell)), failed };
  };
  const rank = () => {
    const { there, good, timed, failed } = ranked(chosen());
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
  const narrow = () => window.innerWidth < 700;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // On a dark page what is too dark gets lighter, and black white.
  const ink = (colour) => {
    const rgb = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    const light = 0.3 * rgb[0] + 0.6 * rgb[1] + 0.1 * rgb[2], lift = (110 - light) / (255 - light);
    if (!dark.matches || lift <= 0) return colour;
    return light ? `rgb(${rgb.map((part) => Math.round(part + lift * (255 - part)))})` : "#E6E9EC";
  };
  const scales = (cells) => {
    const keys = Object.keys(data.methods).filter((key) => cells.some((cell) => cell.method === key));
    const labels = keys.map((key) => data.methods[key].label);
    const colours = keys.map((key) => ink(data.methods[key].colour));
    const legend = { title: null, symbolLimit: 0, labelLimit: 260, orient: narrow() ? "bottom" : "right", columns: narrow() ? 1 : undefined };
    return {
      color: { field: "label", type: "nominal", scale: { domain: labels, range: colours }, legend },
      shape: { field: "label", type: "nominal", scale: { domain: labels, range: keys.map((key) => data.methods[key].shape) }, legend },
    };
  };
  const config = () => {
    const text = getComputedStyle(document.body).color, line = getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
    return {
      background: "transparent", font: "system-ui, sans-serif", view: { stroke: line },
      axis: { labelColor: text, titleColor: text, gridColor: line, gridOpacity: 0.6, domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" },
      legend: { labelColor: text, titleColor: text, labelFontSize: 12 },
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
  const lines = (cells, x, axis, side) => {
    const { color, shape } = scales(cells), values = rows(cells, x);
    const where = { x: { field: "x", ...axis }, y: { field: side, type: "quantitative", title: `${side}, ms an instance`, ...log() }, color };
    return { data: { values }, layer: [
      { params: [pick], mark: { type: "line", strokeWidth: 1.4 }, encoding: { ...where, opacity: faded } },
      ...points({ ...where, shape }),
    ] };
  };
  const bySize = () => ({ type: "ordinal", title: "size, variables × rows of either kind", sort: order.size.map((size) => shown("size", size)), axis: { labelAngle: narrow() ? -45 : 0 } });
  const byBatch = (cells) => ({ type: "quantitative", title: "instances in a batch", ...log({ nice: false, padding: 12 }), axis: { values: [...new Set(cells.map((cell) => cell.batch))], format: "d" } });
  const scatter = (cells) => {
    const { color, shape } = scales(cells), values = rows(cells, () => null).filter((row) => row.one_minus_cos !== null);
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
    // Of each method the configuration that the ranking shows; all of them would hide each other.
    const { good, timed } = ranked(want), few = new Set(best([...good, ...timed]).map((cell) => cell.method));
    const cells = field("all").checked ? data.cells : data.cells.filter((cell) => few.has(cell.method));
    const here = cells.filter((cell) => matches(cell, want));
    const sizes = cells.filter((cell) => matches(cell, want, ["size"]));
    const batches = cells.filter((cell) => matches(cell, want, ["batch"]));
    return Promise.all([
      draw("chart-accuracy", scatter(here), `Time against gradient error, ${family}, ${want.size}`),
      draw("chart-size", lines(sizes, (cell) => shown("size", cell.size), bySize(), side), `Time against size, ${family}`),
      draw("chart-batch", new Set(batches.map((cell) => cell.batch)).size > 1 ? lines(batches, (cell) => cell.batch, byBatch(batches), side) : null, `Time against batch, ${family}, ${want.size}`),
    ]);
  };
  const update = (event) => {
    if (names.includes(event.target.name)) settle(event.target.name);
    rank();
    return chart();
  };
  root.addEventListener("change", update);
  dark.addEventListener("change", chart);
  fill();
  // The problem that most layers were measured on: the answer is worth most there.
  const layers = (family) => new Set(data.cells.filter((cell) => cell.family === family).map((cell) => cell.method)).size;
  field("family").value = order.family.reduce((one, other) => (layers(other) > layers(one) ? other : one));
  fill();
  // The size that most people ask about, where it was measured.
  if ([...field("size").options].some((option) => option.value === "100x20")) field("size").value = "100x20";
  fill();
  rank();
  // The answer is on the screen before the library of the charts is read.
  window.addEventListener("load", chart);
  window.choice = { data, field, update, right, errors, draw: chart };
})();

"use strict";
// The report's own script: draws the figures, and makes the samples readable. All data is in the page; nothing is fetched.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const element = (name, text, attributes = {}) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

// Figures. Plotly lies in the page compressed: it is the larger part of it.
async function loadPlotly() {
  const packed = Uint8Array.from(atob(byId("plotly").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = element("script", await new Response(stream).text());
  document.head.append(script);
}

const colours = ["#3584e4", "#e66100", "#2ec27e", "#9141ac", "#e01b24", "#c88800", "#00a5b5", "#986a44"];

function draw(place, chart) {
  const style = getComputedStyle(document.documentElement);
  const text = style.getPropertyValue("--text").trim(), grid = style.getPropertyValue("--line").trim();
  const traces = chart.data.map((trace, number) => {
    const { colour, ...rest } = trace;
    const tone = colours[(colour ?? number) % colours.length];
    return { ...rest, line: { color: tone, ...rest.line }, marker: { color: tone, ...rest.marker } };
  });
  const axis = { gridcolor: grid, zerolinecolor: grid, automargin: true };
  const layout = {
    ...chart.layout, margin: { l: 48, r: 16, t: 8, b: 40 }, showlegend: true, paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    font: { color: text, size: 12 }, barmode: "stack", legend: { orientation: "h", y: 1.04, yanchor: "bottom" }, height: 300,
    xaxis: { ...axis, ...chart.layout.xaxis }, yaxis: { ...axis, ...chart.layout.yaxis },
  };
  if (innerWidth < 700) layout.height += 19 * Math.max(0, traces.length - 2); // there the legend has a line for each
  place.style.height = `${layout.height}px`;
  if (chart.layout.yaxis2) layout.yaxis2 = { ...axis, ...chart.layout.yaxis2 };
  if (chart.title.startsWith("Pass rate")) layout.barmode = "group";
  return Plotly.react(place, traces, layout, { responsive: true, displayModeBar: false });
}

async function figures() {
  await loadPlotly();
  const drawn = [];
  for (const chart of data.charts) {
    const figure = element("figure");
    const place = element("div", undefined, { class: "plot", role: "img", "aria-label": chart.title });
    figure.append(element("figcaption", chart.title), place, element("p", chart.note, { class: "quiet" }));
    byId(chart.part === "time" ? "time-charts" : "charts").append(figure);
    drawn.push(() => draw(place, chart));
  }
  drawn.forEach((again) => again());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((again) => again()));
  document.body.dataset.ready = "yes";
}

// Samples.
const marks = new Map(data.marks.map((mark) => [`${mark.kind}|${mark.id}`, mark.mark]));
const key = (sample) => `${sample.kind}|${sample.id}`;
const words = new Map(data.samples.map((s) => [s, [s.id, s.why, ...s.tags, ...s.fields.map((f) => f[1])].join("\n").toLowerCase()]));
let shown = [], at = 0;

function fill(select, values) {
  for (const value of [...new Set(values)].sort()) select.append(element("option", value, { value }));
}

function filter(table) {
  const kind = byId("kind").value, tag = byId("tag").value, text = byId("search").value.toLowerCase();
  shown = data.samples.filter((s) => (!kind || s.kind === kind)
    && (!table || s.table === table) && (!tag || s.tags.includes(tag) || marks.get(key(s)) === tag) && (!text || s.find === text || words.get(s).includes(text)));
  at = 0;
  byId("list").replaceChildren(...shown.map((sample, number) => {
    const row = element("li");
    row.append(element("span", `${sample.kind}: ${sample.why}`), element("small", sample.fields.length ? sample.fields[0][1] : sample.id));
    row.addEventListener("click", () => show(number));
    return row;
  }));
  byId("count").textContent = `${shown.length} of ${data.samples.length}`;
  show(0);
}

function show(number) {
  const rows = byId("list").children;
  if (rows[at]) rows[at].removeAttribute("aria-current");
  at = Math.max(0, Math.min(number, shown.length - 1));
  const sample = shown[at], place = byId("sample");
  place.replaceChildren();
  if (!sample) { place.append(element("p", "Nothing fits.")); return; }
  rows[at].setAttribute("aria-current", "true");
  rows[at].scrollIntoView({ block: "nearest" });
  place.scrollTop = 0;
  place.append(element("h3", `${sample.kind} ${sample.id}`), element("p", sample.why, { class: "quiet" }));
  const tags = element("p");
  for (const tag of sample.tags) tags.append(element("span", tag, { class: "tag" }), " ");
  const buttons = element("p", undefined, { class: "marks" });
  for (const mark of ["good", "bad", "unsure"]) {
    const button = element("button", mark, { type: "button", "aria-pressed": String(marks.get(key(sample)) === mark) });
    button.addEventListener("click", () => setMark(mark));
    buttons.append(button, " ");
  }
  const list = element("dl");
  const pair = pairOf(sample), before = pair.length ? 2 : sample.fields.length; // a judgment and its verdict, then its pair
  for (const [name, text] of [...sample.fields.slice(0, before), ...pair, ...sample.fields.slice(before)]) list.append(element("dt", name), element("dd", text));
  place.append(tags, buttons, list);
}

// What a judgment was shown: its pair, in the order in which it stood.
function pairOf(sample) {
  const [id, place] = sample.pair ?? [];
  const fields = new Map(data.pairs[id] ?? []);
  if (place === "chosen" || place === "rejected") return [...fields].filter(([name]) => ["instruction", place].includes(name));
  const [first, second] = place === "chosen_first" ? ["chosen", "rejected"] : ["rejected", "chosen"];
  const named = { instruction: "instruction", [first]: `shown first (A), ${first}`, [second]: `shown second (B), ${second}` };
  return ["instruction", first, second].filter((name) => fields.has(name)).map((name) => [named[name], fields.get(name)]);
}

function setMark(mark) {
  const sample = shown[at];
  if (!sample) return;
  if (mark === null || marks.get(key(sample)) === mark) marks.delete(key(sample));
  else marks.set(key(sample), mark);
  show(at);
}

function exportMarks() {
  const lines = [...marks].map(([place, mark]) => {
    const [kind, ...id] = place.split("|");
    return JSON.stringify({ run: data.run, kind, id: id.join("|"), mark });
  });
  const link = element("a", undefined, { download: `${data.run}-marks.jsonl` });
  link.href = URL.createObjectURL(new Blob([lines.map((line) => line + "\n").join("")], { type: "application/jsonl" }));
  link.click();
}

document.addEventListener("keydown", (event) => {
  const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing) { if (event.key === "Escape") event.target.blur(); return; }
  const act = { j: () => show(at + 1), k: () => show(at - 1), g: () => setMark("good"), b: () => setMark("bad"),
    u: () => setMark("unsure"), x: () => setMark(null), "/": () => byId("search").focus() }[event.key];
  if (act) { event.preventDefault(); act(); }
});
for (const button of document.querySelectorAll("[data-find]")) {
  button.addEventListener("click", () => {
    byId("kind").value = ""; byId("tag").value = ""; byId("search").value = button.dataset.find;
    filter();
    byId("samples").scrollIntoView();
    byId("list").focus();
  });
}
for (const button of document.querySelectorAll("[data-kind]")) {
  button.hidden = !data.samples.some((s) => s.kind === button.dataset.kind);
  button.addEventListener("click", () => {
    byId("kind").value = button.dataset.kind; byId("tag").value = ""; byId("search").value = "";
    filter();
    byId("list").focus();
  });
}
// Every row of a table, page by page, where a server stands behind the page (report --serve).
async function more() {
  const table = byId("table").value, find = byId("search").value.toLowerCase();
  const offset = data.samples.filter((s) => s.table === table && s.find === find).length;
  const answer = await fetch(`rows?${new URLSearchParams({ table, offset, find })}`);
  const { rows = [], pairs = {} } = await answer.json();
  Object.assign(data.pairs, pairs);
  for (const row of rows) {
    Object.assign(row, { table, find });
    data.samples.push(row);
    words.set(row, [row.id, row.why, ...row.tags, ...row.fields.map((f) => f[1])].join("\n").toLowerCase());
  }
  byId("kind").value = ""; byId("tag").value = "";
  filter(find ? undefined : table);
  byId("count").textContent += rows.length ? `, ${rows.length} came` : ", no more";
}
if (data.served.length) {
  byId("tables").hidden = false;
  for (const name of data.served) byId("table").append(element("option", name, { value: name }));
  byId("more").addEventListener("click", more);
}
fill(byId("kind"), data.samples.map((s) => s.kind));
fill(byId("tag"), [...data.samples.flatMap((s) => s.tags), "good", "bad", "unsure"]);
for (const id of ["kind", "tag", "search"]) byId(id).addEventListener("input", () => filter());
byId("export").addEventListener("click", exportMarks);
filter();
figures().catch((fault) => byId("charts").append(element("p", `The figures could not be drawn: ${fault}`)));

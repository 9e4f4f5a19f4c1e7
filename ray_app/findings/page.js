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

const colours = ["#3584e4", "#e66100", "#2ec27e", "#9141ac", "#e01b24", "#c88800", "#00a5b5", "#986a44", "#f66fb1", "#6b8e23", "#7a7f87", "#b5835a"];

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

// Samples. A row is named by five words: rows of several iterations, trainings and sets have the same ids.
const PLACE = ["iteration", "phase", "set"], OUTCOMES = { right: "✓", wrong: "✗", "no verdict": "–" };
const key = (row) => [row.kind, row.id, ...PLACE.map((name) => row[name] ?? "")].join("|");
const identity = (row) => Object.fromEntries(["kind", "id", ...PLACE].filter((name) => row[name] !== undefined).map((name) => [name, row[name]]));
const textsOf = (row) => [...row.fields, ...(row.prompt ?? [])].map(([, text]) => text);
const wordsOf = (row) => [row.id, ...row.why, ...row.tags, ...textsOf(row)].join("\n").toLowerCase();
const words = new Map(data.samples.map((row) => [row, wordsOf(row)]));
let shown = [], at = 0, unfolded = false;

// Marks: those of --marks, then those that this browser kept of the run. Lines of before named no place: they mark every
// row of their kind and id.
const KEPT = `ste-report-marks ${data.run} ${data.begun}`;
const marks = new Map(), placeless = [];

function keptMarks() {
  try { return JSON.parse(localStorage.getItem(KEPT) ?? "[]"); } catch { return []; } // a browser may forbid it
}

function keepMarks() {
  try { localStorage.setItem(KEPT, JSON.stringify([...marks.values()])); } catch { /* they can still be exported */ }
}

function takeMarks(rows) {
  const names = new Set(data.samples.map(key));
  for (const line of placeless) {
    const exact = names.has(key(line));
    for (const row of rows) {
      const old = row.kind === line.kind && [row.id, `${row.id}/${row.phase}`].includes(line.id);
      if (!old || (exact && key(row) !== key(line)) || marks.has(key(row))) continue;
      marks.set(key(row), { ...identity(row), mark: line.mark });
      line.taken = true;
    }
  }
}

for (const { run, ...line } of data.marks) {
  if (PLACE.some((name) => line[name] !== undefined)) marks.set(key(line), line);
  else placeless.push(line);
}
for (const line of keptMarks()) marks.set(key(line), line);
takeMarks(data.samples);
const markOf = (row) => marks.get(key(row))?.mark ?? null;

function fill(select, values) {
  for (const value of [...new Set(values)].sort()) select.append(element("option", value, { value }));
}

// What tells a row from its neighbours in the list.
function briefly(row) {
  const fields = new Map(row.fields);
  if (row.kind === "evaluation" && fields.has("verdict")) return `verdict ${fields.get("verdict")}, gold ${fields.get("gold") ?? "–"}: ${fields.get("instruction") ?? row.id}`;
  if (row.kind === "quarantine") return `${row.tags[0].replaceAll("_", " ")}: ${fields.get("instruction") ?? row.id}`;
  const names = { judgment: ["judgment"], "training row": ["completion", "chosen"] }[row.kind] ?? [];
  return names.map((name) => fields.get(name)).find(Boolean) ?? row.fields[0]?.[1] ?? row.id;
}

function entry(row, number) {
  const made = element("li"), outcome = row.tags.find((tag) => tag in OUTCOMES);
  if (outcome) made.append(element("span", OUTCOMES[outcome], { class: "outcome", role: "img", "aria-label": outcome }), " ");
  const kind = row.kind === "quarantine" ? row.tags[1] : row.kind; // the stage that lost it
  const place = [kind, row.iteration === 0 ? "the seed" : row.iteration && `iteration ${row.iteration}`, row.phase?.toUpperCase(), row.set];
  made.append(element("span", `${place.filter(Boolean).join(", ")}: ${row.why.join(", ")}`), element("b", markOf(row) ?? "", { class: "mark" }));
  made.append(element("small", briefly(row)));
  made.addEventListener("click", () => choose(number));
  return made;
}

function filter(table) {
  const kind = byId("kind").value, tag = byId("tag").value, text = byId("search").value.toLowerCase();
  shown = data.samples.filter((row) => (!kind || row.kind === kind)
    && (!table || row.table === table) && (!tag || row.tags.includes(tag) || markOf(row) === tag) && (!text || row.find === text || words.get(row).includes(text)));
  byId("list").replaceChildren(...shown.map(entry));
  byId("count").textContent = counted(kind, tag, text || table);
  show(0);
}

// How many rows are shown, of how many: the page holds a sample of a run.
const KINDS = { "training row": "training rows", quarantine: "lost rows", evaluation: "verdicts" };
const told = (count) => count.toLocaleString("en");
const whole = (kind, tag) => data.totals[tag ? `${kind} ${tag}` : kind];

function counted(kind, tag, narrowed) {
  const total = narrowed ? undefined : kind ? whole(kind, tag) : tag ? undefined : Object.keys(data.totals).filter((name) => !name.startsWith("evaluation ")).reduce((sum, name) => sum + data.totals[name], 0);
  const name = [tag, kind ? KINDS[kind] ?? `${kind}s` : "rows"].filter(Boolean).join(" ");
  const all = data.served.length ? "all under “All rows of”" : "all with report --serve";
  if (total === undefined) return `${told(shown.length)} of the ${told(data.samples.length)} rows in this page, which are a sample; ${all}`;
  return shown.length >= total ? `all ${told(total)} ${name}` : `sample: ${told(shown.length)} of ${told(total)} ${name}; ${all}`;
}

// Only the list itself scrolls to its row: the page stays where its reader is.
function reveal(row) {
  const list = byId("list");
  const above = row.offsetTop - list.scrollTop, below = above + row.offsetHeight - list.clientHeight;
  if (above < 0) list.scrollTop += above;
  else if (below > 0) list.scrollTop += below;
}

function show(number) {
  const rows = byId("list").children;
  if (rows[at]) rows[at].removeAttribute("aria-current");
  at = Math.max(0, Math.min(number, shown.length - 1));
  const sample = shown[at], place = byId("sample");
  place.replaceChildren();
  if (!sample) { place.append(element("p", "Nothing fits.")); return; }
  rows[at].setAttribute("aria-current", "true");
  reveal(rows[at]);
  place.scrollTop = 0;
  place.append(element("h3", `${sample.kind} ${sample.id}`), element("p", sample.why.join(", "), { class: "quiet" }));
  const tags = element("p");
  for (const tag of sample.tags) tags.append(element("span", tag in OUTCOMES ? `${OUTCOMES[tag]} ${tag}` : tag, { class: "tag" }), " ");
  const buttons = element("p", undefined, { class: "marks" });
  for (const mark of ["good", "bad", "unsure"]) {
    const button = element("button", mark, { type: "button", "aria-pressed": String(markOf(sample) === mark) });
    button.addEventListener("click", () => setMark(mark));
    buttons.append(button, " ");
  }
  const list = element("dl");
  const pair = pairOf(sample), before = pair.length ? 2 : sample.fields.length; // a judgment and its verdict, then its pair
  for (const [name, text] of [...sample.fields.slice(0, before), ...pair, ...sample.fields.slice(before)]) list.append(element("dt", name), element("dd", text));
  place.append(tags, buttons, list, ...promptOf(sample, pair));
}

// A row that its reader has chosen has an address.
function choose(number) {
  show(number);
  if (!shown[at]) return;
  try { history.replaceState(null, "", `#row=${encodeURIComponent(key(shown[at]))}`); } catch { /* an embedded page has none */ }
}

function openAddress() {
  if (!location.hash.startsWith("#row=")) return false;
  let came;
  try { came = decodeURIComponent(location.hash.slice(5)); } catch { return false; } // an address that was cut off
  for (const id of ["kind", "tag", "search"]) byId(id).value = "";
  filter();
  const number = shown.findIndex((row) => key(row) === came);
  if (number < 0) { byId("count").textContent = `The row of this address is not in this page: ${came.split("|").filter(Boolean).join(", ")}`; return true; }
  show(number);
  return true;
}

// What was asked, by roles: of a training row as it was learned, of a judgment from the judge's prompt and its pair.
function promptOf(sample, pair) {
  const texts = { instruction: pair[0]?.[1], response: pair[1]?.[1], response_a: pair[1]?.[1], response_b: pair[2]?.[1] };
  const complete = pair.length > (["chosen", "rejected"].includes(sample.pair?.[1]) ? 1 : 2);
  const rebuilt = complete ? data.judge_prompt.map(([role, text]) => [role, text.replace(/\{\{ (\w+) \}\}/g, (found, name) => texts[name] ?? found)]) : [];
  const turns = sample.prompt ?? rebuilt;
  if (!turns.length) return [];
  const fold = element("details", undefined, { class: "prompt" });
  fold.open = unfolded;
  fold.addEventListener("toggle", () => { unfolded = fold.open; });
  fold.append(element("summary", `The judge's prompt (${turns.map(([role]) => role).join(", ")})`));
  for (const [role, text] of turns) fold.append(element("h4", role), element("div", text, { class: "turn" }));
  return [fold];
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
  const chosen = markOf(sample) === mark ? null : mark; // one that was taken away is kept as such: --marks may still have it
  marks.set(key(sample), { ...identity(sample), mark: chosen });
  keepMarks();
  byId("list").children[at].replaceWith(entry(sample, at));
  choose(at);
}

function exportMarks() {
  const made = [...marks.values(), ...placeless.filter((line) => !line.taken)].filter((line) => line.mark);
  const lines = made.map(({ taken, ...line }) => JSON.stringify({ run: data.run, ...line }) + "\n");
  const link = element("a", undefined, { download: `${data.run}-marks.jsonl` });
  link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  link.click();
}

document.addEventListener("keydown", (event) => {
  const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing) { if (event.key === "Escape") event.target.blur(); return; }
  const next = () => choose(at + 1), before = () => choose(at - 1);
  const inList = event.target === byId("list") ? { ArrowDown: next, ArrowUp: before } : {};
  const act = { j: next, k: before, g: () => setMark("good"), b: () => setMark("bad"),
    u: () => setMark("unsure"), x: () => setMark(null), "/": () => byId("search").focus(), ...inList }[event.key];
  const { top, bottom } = document.querySelector(".reader").getBoundingClientRect();
  const seen = top < innerHeight && bottom > 0; // nobody marks a row that is out of sight
  if (act && (seen || event.key === "/")) { event.preventDefault(); act(); }
});
for (const button of document.querySelectorAll("[data-find]")) {
  button.addEventListener("click", () => {
    byId("kind").value = ""; byId("tag").value = ""; byId("search").value = button.dataset.find;
    filter();
    byId("samples").scrollIntoView();
    byId("list").focus({ preventScroll: true });
  });
}
for (const button of document.querySelectorAll("[data-kind]")) {
  const { kind, tag = "" } = button.dataset;
  const count = data.samples.filter((row) => row.kind === kind && (!tag || row.tags.includes(tag))).length;
  const total = whole(kind, tag) ?? count;
  button.hidden = !count;
  button.textContent += count < total ? ` (${told(count)} of ${told(total)})` : ` (${told(count)})`;
  button.addEventListener("click", () => {
    byId("kind").value = kind; byId("tag").value = tag; byId("search").value = "";
    filter();
    byId("list").focus({ preventScroll: true });
  });
}
// Every row of a table, page by page, where a server stands behind the page (report --serve).
async function more() {
  const table = byId("table").value, find = byId("search").value.toLowerCase();
  const offset = data.samples.filter((row) => row.table === table && row.find === find).length;
  const answer = await fetch(`rows?${new URLSearchParams({ table, offset, find })}`);
  const { rows = [], pairs = {} } = await answer.json();
  Object.assign(data.pairs, pairs);
  for (const row of rows) {
    Object.assign(row, { table, find });
    data.samples.push(row);
    words.set(row, wordsOf(row));
  }
  takeMarks(rows);
  byId("kind").value = ""; byId("tag").value = "";
  filter(find ? undefined : table);
  byId("count").textContent += rows.length ? `, ${rows.length} came` : ", no more";
}
if (data.served.length) {
  byId("tables").hidden = false;
  for (const name of data.served) byId("table").append(element("option", name, { value: name }));
  byId("more").addEventListener("click", more);
}
fill(byId("kind"), data.samples.map((row) => row.kind));
fill(byId("tag"), [...data.samples.flatMap((row) => row.tags), "good", "bad", "unsure"]);
for (const id of ["kind", "tag", "search"]) byId(id).addEventListener("input", () => filter());
byId("export").addEventListener("click", exportMarks);
addEventListener("hashchange", () => { if (openAddress()) byId("reader").scrollIntoView(); });
const addressed = openAddress();
if (!addressed) filter();
figures().catch((fault) => byId("charts").append(element("p", `The figures could not be drawn: ${fault}`)))
  .then(() => { if (addressed) byId("reader").scrollIntoView(); }); // the figures above it have their heights now

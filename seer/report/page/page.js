// The page as a whole: headline figures, sections, what was found in which file, light and dark.

function fact(value, what) {
  return make("div", { class: "tile" }, make("b", {}, value), make("span", {}, what));
}

// What one would tell others first, as far as the results hold it.
function tiles() {
  const found = [];
  const isNear = (row) => row.method === "seer" && row.density > .05 && row.density < .15;
  const hasLookups = (file) => file.rows.some((row) => row.method === "gate");
  const methodsOf = (file) => unique(file.rows.map((row) => row.method)).length;  // the comparison of most methods first
  const named = (file) => (hasLookups(file) ? "gates with lookup heads" : "learned gates");
  for (const file of resultsWith(hasPerplexity).sort((a, b) => methodsOf(b) - methodsOf(a))) {
    const row = file.rows.find(isNear), dense = row && file.rows.find((one) => one.method === "dense" && one.length === row.length);
    if (!dense || keptText(file) || file.rows.some((one) => isNumber(one.trained_sparsity))) continue;
    const above = 100 * (row.perplexity / dense.perplexity - 1);
    found.push(fact(`${above < 0 ? "−" : "+"}${Math.abs(above).toFixed(1)} %`, `perplexity with ${named(file)} at ${densityText(row.density)} of the blocks (${subjectOf(file)})`));
    if (found.length === 2) break;
  }
  const facts = resultsWith(hasAnswers).filter((file) => file.json.operation === "eval facts").sort((a, b) => methodsOf(b) - methodsOf(a))[0];
  const asked = facts && facts.rows.find(isNear), all = asked && facts.rows.find((row) => row.method === "dense" && row.length === asked.length);
  if (all) found.push(fact(percent(asked.top1), `of planted facts' tokens with ${named(facts)} at ${densityText(asked.density)} of the blocks, dense ${percent(all.top1)} (${subjectOf(facts)})`));
  const map = attentionRecords()[0];
  if (map) {
    const last = map.rows.map((row) => [list(row.recall).at(-1), list(row.density).at(-1)]), mean = (i) => last.reduce((sum, pair) => sum + pair[i], 0) / last.length;
    found.push(fact(percent(mean(0)), `of all attention lies in the ${densityText(mean(1))} of blocks that the gates choose (mean of ${counted(last.length, "head")})`));
  }
  const attention = resultsWith((row) => isTimed(row) && isRight(row)).filter((file) => file.json.operation === "block_sparse_attn" && /nvidia/i.test(text(file.json.chip)))[0];
  if (attention) {
    const own = attention.rows.find((row) => row.implementation === "seer" && row.len_k === 32768 && row.len_q === 32768 && Math.abs(row.density - .1) < .02 && row.lists === "gate");
    const flash = own && attention.rows.find((row) => row.implementation === "torch FlashAttention-2" && ["len_q", "len_k", "heads_q", "heads_kv", "head_dim", "dtype"].every((key) => row[key] === own[key]));
    if (flash) found.push(fact(`${significant(timeOf(flash) / timeOf(own))}x`, `as fast as FlashAttention-2: ${tokens(own.len_k)} tokens, ${densityText(own.density)} of the blocks (${attention.json.chip})`));
  }
  const prefill = resultsWith(hasParts).filter((file) => file.json.operation === "prefill")[0];
  if (prefill) {
    const longest = Math.max(...prefill.rows.map((row) => row.len_q)), of = prefill.rows.filter((row) => row.len_q === longest);
    const model = of[0].model, dense = of.filter((row) => row.model === model && row.density >= 1 && row.implementation !== "seer").map(timeOf);
    const own = of.filter((row) => row.model === model && row.implementation === "seer").sort((a, b) => a.density - b.density)[0];
    if (own && dense.length) found.push(fact(`${significant(Math.min(...dense) / timeOf(own))}x`, `faster to the first token: ${model}, ${tokens(longest)} tokens, ${percent(1 - own.density)} sparse, against the faster dense kernel`));
  }
  return found.length ? make("div", { class: "tiles" }, found) : null;
}

// Rows as a table, of whatever fields they have.
function rowsTable(rows) {
  const most = 100, keys = unique(rows.slice(0, most).flatMap(Object.keys)).slice(0, 24);
  const cell = (value) => (value === undefined || value === null ? "" : isNumber(value) ? `${+value.toPrecision(5)}` : typeof value === "string" ? value.slice(0, 60) : JSON.stringify(value).slice(0, 60));
  return make("div", { class: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, keys.map((key) => make("th", { class: "left" }, key)))),
    make("tbody", {}, rows.slice(0, most).map((row) => make("tr", {}, keys.map((key) => make("td", { class: "left" }, cell(row[key]))))))),
    rows.length > most ? make("p", { class: "under" }, `${counted(rows.length - most, "more row")} ${rows.length - most === 1 ? "is" : "are"} in the file.`) : null);
}

function filesSection() {
  const cards = section("files", "Files", "Everything that was found, and what made it.");
  const kinds = { training: "a run of training", heads: "what heads lose", other: "no results" };
  const body = card(cards, `${DATA.files.length} ${DATA.files.length === 1 ? "file" : "files"}`, { full: true });
  const rows = DATA.files.map((file) => {
    const made = file.json || {}, own = RESULTS.find((one) => one.path === file.path);
    const what = file.kind === "results" ? text(made.operation) : kinds[file.kind];
    const shown = shownFiles.has(file.path) || text(made.operation) === "published" ? "" : file.kind === "results" ? "no picture of this operation: its rows are here" : "";
    const table = make("details", { ontoggle: (event) => event.target.open && event.target.childElementCount === 1 && event.target.append(rowsTable(own.rows)) }, make("summary", {}, "rows"));
    return make("tr", {}, make("td", { class: "left path" }, make("code", {}, file.path), shown ? make("small", {}, shown) : null,
      text(made.command) ? make("details", {}, make("summary", {}, "command"), make("code", {}, made.command)) : null, own && own.rows.length && made.operation !== "eval attention" ? table : null),
    make("td", { class: "left" }, what), make("td", { class: "left" }, chipOf({ json: made })), make("td", { class: "left date" }, text(made.date)), make("td", {}, own ? `${own.rows.length}` : ""));
  });
  body.append(make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ["file", "what", "chip", "date"].map((name) => make("th", { class: "left" }, name)), make("th", {}, "rows"))), make("tbody", {}, rows))));
}

const MISSING = [
  ["attention", "maps of attention (seer run, seer eval attention)"], ["quality", "perplexity (seer run, seer eval ppl)"], ["facts", "facts, copies and needles (seer eval facts, copies, needle)"],
  ["heads", "recall or losses by head (seer eval recall, heads)"], ["speed", "times (seer bench)"], ["training", "training curves (seer distill, finetune, pretrain)"],
];

function draw() {
  waiting.length = 0;
  for (const chart of drawn.splice(0)) chart.destroy();
  settle();
  shownFiles.clear();
  document.getElementById("nav").replaceChildren();
  const main = document.getElementById("main");
  const chips = unique(RESULTS.map((file) => text(file.json.chip)).filter(Boolean));
  const isRun = RESULTS.length > 0 && RESULTS.every((file) => ["run", "eval attention"].includes(file.json.operation));
  const about = [chips.join(", "), `${RESULTS.length} ${RESULTS.length === 1 ? "file" : "files"} of results`, text(DATA.date)].filter(Boolean).join(" · ");
  main.replaceChildren(make("h1", {}, isRun ? `Sparse attention: ${subjectOf(RESULTS[0])}` : "Learned block-sparse attention"), make("p", { class: "lead" }, about));
  const facts = tiles();
  if (facts) main.append(facts);
  for (const part of [attentionSection, qualitySection, plantedSection, settingsSection, headsSection, speedSection, trainingSection]) {
    try {
      part();
    } catch (error) {
      problem(`${part.name}: ${error.message}`);
    }
  }
  const missing = MISSING.filter(([id]) => !document.getElementById(id)).map(([, what]) => what);
  if (missing.length) main.append(make("p", { class: "lead", id: "missing", style: "margin-top: 40px" }, `These results hold no ${missing.join("; no ")}.`));
  filesSection();
  delete document.documentElement.dataset.ready;
  document.documentElement.dataset.milliseconds = Math.round(performance.now());
  if (waiting.length === 0) drawNext();
}

// The system's choice until the switch is used; kept where the browser lets a file keep something.
function themeKept(theme) {
  try {
    if (theme) localStorage.setItem("seer-theme", theme);
    return localStorage.getItem("seer-theme");
  } catch {
    return theme;
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = theme === "dark" ? "☀ light" : "☾ dark";
}

function start() {
  nameColours();
  const system = matchMedia("(prefers-color-scheme: dark)"), chosen = () => (system.matches ? "dark" : "light");
  setTheme(themeKept() || chosen());
  const change = (theme) => {
    const at = scrollY;
    setTheme(theme);
    draw();
    scrollTo({ top: at, behavior: "instant" });
  };
  document.getElementById("theme").addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    themeKept(theme);
    change(theme);
  });
  system.addEventListener("change", () => !themeKept() && change(chosen()));
  draw();
}

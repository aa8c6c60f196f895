// Gates that were trained or used in different ways (bench/gate_settings.py): quality by tokens of distillation, and tables of other settings.

const SCORED = [["facts", "facts, tokens right", true], ["copies", "copies, tokens right", true], ["books", "perplexity, books", false], ["proofs", "perplexity, proofs", false]];
const isScored = (row) => typeof row.setting === "string" && SCORED.some(([name]) => row[name] && isNumber(row[name].score));
const errorText = (of, digits) => (isNumber(of.error) ? ` ± ${(100 * of.error).toFixed(digits)}` : "");
const scoreText = (of, isShare) => (isShare ? `${(100 * of.score).toFixed(1)}${errorText(of, 1)} %` : `${(100 * (of.score - 1)).toFixed(2)}${errorText(of, 2)} % above dense`.replace(/^-/, "−"));

function tokenCharts(cards, file, rows) {
  const gates = rows.filter((row) => row.method !== "dense" && isNumber(row.value) && isNumber(row.sparsity)), most = Math.max(...gates.map((row) => row.sparsity));
  const of = gates.filter((row) => row.sparsity === most), dense = rows.find((row) => row.method === "dense");
  if (of.length === 0) return;
  for (const wantsShare of [true, false]) {
    const kinds = SCORED.filter(([, , isShare]) => isShare === wantsShare), title = `${wantsShare ? "Answers" : "Perplexity"} by tokens of distillation, ${percent(most)} sparse`;
    const yOf = (score) => (wantsShare ? score : score - 1);
    const pointOf = (row, name) => row[name] && isNumber(row[name].score) ? { x: row.value / 1e6, y: yOf(row[name].score), error: row[name].error, note: scoreText(row[name], wantsShare), row } : null;
    const body = card(cards, title, { under: sourceOf(file) });
    addChart(body, title, () => {
      const lines = unique(of.map((row) => row.method)).flatMap((method) => kinds.map(([name, label], i) => line(method, of.filter((row) => row.method === method).map((row) => pointOf(row, name)).filter(Boolean).sort((a, b) => a.x - b.x),
        { label: `${method === "seer" ? "with lookup heads" : "gates alone"}: ${label}`, shape: i ? "rectRot" : "circle", dash: i ? [6, 4] : [] })));
      const all = lines.flatMap((one) => one.data), x = logarithmic("million tokens (log scale)", (value) => `${value}`, all.map((point) => point.x));
      if (dense && wantsShare) {
        lines.push(...kinds.map(([name, label], i) => line("dense", [x.min, x.max].map((at) => ({ x: at, y: dense[name].score, note: scoreText(dense[name], true), row: dense })), { label: `dense: ${label}`, radius: 0, width: 1.5, dash: i ? [6, 4] : [2, 3] })));
      }
      return {
        type: "line", data: { datasets: lines }, plugins: [errorBars],
        options: {
          interaction: nearest, plugins: notes((point) => (point.row.method === "dense" ? "dense attention" : `${significant(point.x)} million tokens`)),
          scales: { x, y: wantsShare ? linear("right", (value) => percent(value), { min: 0, max: 1 }) : logarithmic("perplexity above dense (log scale)", (value) => percent(value), all.map((point) => point.y)) },
        },
      };
    });
  }
}

function settingName(row) {
  if (row.method === "dense") return "dense attention";
  const strength = isNumber(row.sparsity) ? `${percent(row.sparsity)} sparse` : `${row.strength}`;
  if (row.setting === "rules") return `${row.rule}, ${strength}${isNumber(row.value) ? `, gates of ${significant(row.value / 1e6)} M tokens` : ""}`;
  if (row.setting === "lookups") return `${row.method === "gate" ? "no lookup heads" : `lookup heads: ${percent(row.value)} of all`}, ${strength}`;
  return `${isNumber(row.value) || text(row.value) ? row.value : "as by default"}, ${strength}`;
}

const SETTINGS = { rules: "Rules of choosing", lookups: "How many lookup heads", default: "All settings of training as by default", pooling: "Poolings of q and k", block: "Tokens of a block", loss: "Loss of distillation", dim: "Size of the gate's vectors", rank: "Rank of lookup heads" };
function settingTable(cards, file, setting, rows) {
  const order = (row) => [row.method === "dense" ? 0 : 1, isNumber(row.sparsity) ? row.sparsity : 2, row.method === "gate" ? 0 : 1, isNumber(row.value) ? row.value : 0];
  const sorted = setting === "rules" ? rows : [...rows].sort((a, b) => order(a).map((one, i) => one - order(b)[i]).find((one) => one !== 0) || 0);
  const cell = (row, name, isShare) => {
    const of = row[name] || {};
    return isNumber(of.score) ? make("td", {}, row.method === "dense" && !isShare ? "" : scoreText(of, isShare), row.method === "dense" ? null : make("small", {}, `${densityText(of.density)} of the blocks`)) : make("td", {}, "");
  };
  const body = card(cards, SETTINGS[setting] || setting, { full: true, under: sourceOf(file) });
  body.append(make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, make("th", { class: "left" }, ""), SCORED.map(([, label]) => make("th", {}, label)))),
    make("tbody", {}, sorted.map((row) => make("tr", {}, make("td", { class: "left" }, settingName(row)), SCORED.map(([name, , isShare]) => cell(row, name, isShare))))))));
}

function settingsSection() {
  const files = resultsWith(isScored);
  if (files.length === 0) return;
  const cards = section("settings", "Gates", "Gates that were trained for longer or in other ways, used by other rules, with more or fewer lookup heads. Bars are standard errors.");
  for (const file of files) {
    shownFiles.add(file.path);
    for (const [setting, rows] of groupBy(file.rows, (row) => row.setting)) (setting === "tokens" ? tokenCharts(cards, file, rows) : settingTable(cards, file, setting, rows));
  }
}

// Perplexity and recall against density, perplexity by length, and the table of fine-tuned models beside the published one.

const hasPerplexity = (row) => isNumber(row.perplexity) && isNumber(row.density) && typeof row.method === "string";

// What a line of a chart is of: the method, with what tells it from others of the same name.
function seriesName(row, rows) {
  const parts = [];
  if (isNumber(row.trained_sparsity)) {
    const label = `trained at ${percent(row.trained_sparsity)} (${text(row.model).replace(/_lookup$/, ", with lookup heads")})${row.method === "seer" ? "" : `, ${labelOf(row.method)}`}`;
    return { name: label, key: label, label };
  }
  if (text(row.rule) && row.rule !== "nz_ratio") parts.push(row.rule);
  if (text(row.gates) && unique(rows.map((other) => other.gates).filter(text)).length > 1) parts.push(`gates: ${row.gates}`);
  const name = row.method;
  const own = name === "seer" && rows.some((other) => other.method === "gate") ? "gates with lookup heads" : labelOf(name);
  return { name, key: [name, ...parts].join(", "), label: [own, ...parts].join(", ") };
}

// Lines of rows by method, x their density: [{name, label, points}], dense apart.
function linesOf(rows, toPoint) {
  const found = groupBy(rows.filter((row) => row.method !== "dense" && isNumber(row.density)), (row) => seriesName(row, rows).key);
  return [...found].map(([key, of]) => {
    const { name, label } = seriesName(of[0], rows);
    const points = of.map((row) => ({ x: row.density, row, ...toPoint(row) })).filter((point) => isNumber(point.y));
    return { name: key === name ? name : key, label, points: points.sort((a, b) => a.x - b.x) };
  }).filter((series) => series.points.length > 0);
}

const settingText = (row) => (isNumber(row.sparsity) ? `${percent(row.sparsity)} sparse` : text(row.rule) ? `${row.rule} ${row.strength}` : "");

// A chart of lines against density, with dense attention as a level. `format` of y; `top`: where y ends, if not where values do.
function densityChart(parent, label, rows, { toPoint, format, title, top, bounds = {}, logarithmicY = false }) {
  const lines = linesOf(rows, toPoint);
  const dense = rows.find((row) => row.method === "dense" && isNumber(toPoint(row).y));
  addChart(parent, label, () => {
    const all = lines.flatMap((series) => series.points);
    const datasets = lines.map((series) => line(series.name, series.points, { label: series.label, width: series.name === "seer" ? 3 : 2 }));
    if (top) for (const dataset of datasets) dataset.clip = { left: 8, right: 8, top: 0, bottom: 8 };
    if (dense) {
      const { y, note } = toPoint(dense), x = densityAxis(all);
      datasets.unshift(line("dense", [x.min, 1].map((at) => ({ x: at, y, note, row: dense })), { dash: [6, 4], radius: 0 }));
    }
    const values = all.map((point) => point.y).concat(dense ? [toPoint(dense).y] : []);
    const least = Math.min(...values), most = Math.min(top ?? Infinity, Math.max(...values)), space = (most - least) * .06 || Math.abs(most) * .05 || 1;
    const range = { min: Math.max(least - space, least >= 0 ? 0 : -Infinity), max: most + space, ...bounds };
    return {
      type: "line", data: { datasets }, plugins: [errorBars],
      options: {
        interaction: nearest, plugins: notes((point) => (point.row.method === "dense" ? "all blocks" : `${densityText(point.row.density)} of the blocks, ${settingText(point.row)}`)),
        scales: { x: densityAxis(all), y: logarithmicY ? logarithmic(`${title} (log scale)`, format, values) : linear(title, format, range) },
      },
    };
  });
}

function perplexityCharts(parent) {
  for (const file of mostMethodsFirst(resultsWith(hasPerplexity))) {
    const byLength = groupBy(file.rows, (row) => row.length);
    for (const [length, rows] of byLength) {
      const dense = rows.find((row) => row.method === "dense");
      if (rows.length < 2 || (byLength.size > 1 && linesOf(rows, (row) => ({ y: row.perplexity })).every((series) => series.points.length < 2))) continue;
      shownFiles.add(file.path);
      const point = (row) => {
        const ratio = dense ? ` (${(100 * (row.perplexity / dense.perplexity - 1)).toFixed(2)} % above dense)`.replace("(-", "(−") : "";
        const error = isNumber(row.vs_dense_error) && dense ? row.vs_dense_error * dense.perplexity : undefined;
        return { y: row.perplexity, error, note: perplexityText(row.perplexity) + (row === dense ? "" : ratio) };
      };
      const format = (value) => `${+value.toPrecision(4)}`;
      // Close up: as far as the gates go, and methods of which no row is 1.6 times dense attention's.
      const lines = linesOf(rows, point), most = (series) => Math.max(...series.points.map((one) => one.y));
      const inside = lines.filter((series) => dense && (series.name === "seer" || most(series) < 1.6 * dense.perplexity));
      const top = inside.length ? Math.max(...inside.map(most)) : undefined;
      const beyond = top ? lines.filter((series) => most(series) > 1.1 * top).map((series) => series.label) : [];
      const documents = rows[0].documents, under = `${isNumber(documents) ? `${counted(documents, "document")} · ` : ""}${sourceOf(file)}`;
      let body;
      const draw = (all) => {
        body.replaceChildren();
        const title = `Perplexity against density, ${subjectOf(file)}`;
        densityChart(body, title, rows, { toPoint: point, format, title: "perplexity", top: all ? undefined : top, logarithmicY: all });
        if (!all && beyond.length) body.append(make("p", { class: "under" }, `Beyond the top: ${beyond.join(", ")}.`));
      };
      const whole = make("input", { type: "checkbox", onchange: () => draw(whole.checked) });
      body = card(parent, `${subjectOf(file)}, ${tokens(length)} tokens`, { under, controls: beyond.length ? [make("label", {}, whole, "show all")] : [] });
      draw(false);
    }
    lengthChart(parent, file);
  }
}

function lengthChart(parent, file) {
  const lengths = unique(file.rows.map((row) => row.length)).filter(isNumber).sort((a, b) => a - b);
  if (lengths.length < 2) return;
  shownFiles.add(file.path);
  const settings = unique(file.rows.filter((row) => row.method !== "dense").map(settingText));
  let body;
  const draw = (setting) => {
    body.replaceChildren();
    const rows = file.rows.filter((row) => row.method === "dense" || settingText(row) === setting);
    const methods = groupBy(rows, (row) => seriesName(row, rows).key);
    addChart(body, "Perplexity by length", () => ({
      type: "line",
      data: {
        datasets: [...methods].map(([key, of]) => line(key, of.map((row) => ({ x: row.length, y: row.perplexity, note: perplexityText(row.perplexity), row }))
          .sort((a, b) => a.x - b.x), { label: seriesName(of[0], rows).label, dash: key === "dense" ? [6, 4] : [] })),
      },
      options: {
        interaction: nearest, plugins: notes((point) => `${tokens(point.x)} tokens, ${densityText(point.row.density)} of the blocks`),
        scales: { x: marked("logarithmic", "tokens (log scale)", lengths, tokens), y: linear("perplexity", (value) => `${+value.toPrecision(4)}`) },
      },
    }));
  };
  body = card(parent, `By length: ${subjectOf(file)}`, { under: sourceOf(file), controls: [choice("blocks", settings, settings.at(-1), draw)] });
  draw(settings.at(-1));
}

// Rows of models that were fine-tuned at a longer context (eval ppl --joint), in the published form. Runs that differ in how often their gates learnt have a chart alone.
function fineTuned() {
  return resultsWith(hasPerplexity).filter((file) => file.rows.some((row) => isNumber(row.trained_sparsity)) && !/_every_/.test(baseName(file.path)));
}

function fineTunedTable(parent) {
  const files = fineTuned();
  if (files.length === 0) return;
  const publishedRows = [...groupBy(PUBLISHED.rows, (row) => row.text)].map(([name, rows]) => ({
    name: `${PUBLISHED.model}: ${name}`, dense: rows.find((row) => row.method === "dense").perplexity,
    after: new Map(rows.filter((row) => row.method.startsWith("gates")).map((row) => [row.sparsity, row])),
    joint: new Map(rows.filter((row) => row.method.startsWith("YaRN")).map((row) => [row.sparsity, row])), published: true,
  }));
  // Of gates without lookup heads, and with them where both were measured: as methods, and as models named "..._lookup".
  const ours = files.flatMap((file) => (file.rows.some((row) => row.method === "gate") ? ["gate", "seer"] : ["seer"]).map((method, at) => {
    const first = file.rows[0].model, dense = file.rows.find((row) => row.method === "dense"), joint = new Map();
    const gates = file.rows.filter((row) => isNumber(row.sparsity) && (row.model === first ? row.method === method : row.method === "seer" && /_lookup$/.test(text(row.model)) === at > 0));
    // Of the trained models the one that was trained nearest to a sparsity, of two the one at the lower: the published choice.
    for (const row of gates.filter((one) => one.model !== first && isNumber(one.trained_sparsity))) {
      const off = (one) => Math.round(1e6 * Math.abs(one.sparsity - one.trained_sparsity)) + one.trained_sparsity;
      if (!joint.has(row.sparsity) || off(row) < off(joint.get(row.sparsity))) joint.set(row.sparsity, row);
    }
    shownFiles.add(file.path);
    return {
      name: `${nameOfFile(file.path).replace("YaRN: ", "")}, ${tokens(dense && dense.length)} tokens${at ? ", with lookup heads" : ""}`, dense: dense && dense.perplexity,
      after: new Map(gates.filter((one) => one.model === first).map((row) => [row.sparsity, row])), joint,
    };
  }));
  const sparsities = unique([...ours, ...publishedRows].flatMap((row) => [...row.after.keys(), ...row.joint.keys()])).sort();
  const show = (row, value) => (row.published ? value.toFixed(2) : perplexityText(value));
  const cells = (row, of) => sparsities.map((sparsity, i) => {
    const found = row[of].get(sparsity);
    if (!found) return make("td", { class: i === 0 ? "first" : "" }, "");
    const above = row.dense ? `${(100 * (found.perplexity / row.dense - 1)).toFixed(2)} %`.replace(/^(?!-)/, "+").replace("-", "−") : "";
    return make("td", { class: i === 0 ? "first" : "" }, show(row, found.perplexity), make("small", {}, above));
  });
  const head = make("thead", {},
    make("tr", {}, make("th", { class: "left" }, ""), make("th", {}, "dense YaRN"), ...["gates after YaRN", "YaRN with SeerAttention"].map((name) => make("th", { colspan: sparsities.length }, name))),
    make("tr", {}, make("th", { class: "left" }, "sparsity"), make("th", {}, "0"), ...[0, 1].flatMap(() => sparsities.map((s) => make("th", {}, percent(s))))));
  const rows = [...ours, ...publishedRows].map((row, i) => make("tr", { class: i === ours.length ? "apart" : "" },
    make("td", { class: "left" }, row.name, row.published ? make("small", {}, `published, ${PUBLISHED.source}`) : null),
    make("td", {}, show(row, row.dense)), ...cells(row, "after"), ...cells(row, "joint")));
  const body = card(parent, "A longer context by YaRN: perplexity, and what it is above dense attention's", {
    full: true, under: "Of models that were trained with sparse attention, at each sparsity the one that was trained nearest to it. Other model, other tokenizer and other texts than in the published rows: compare what is above dense, not perplexities.",
  });
  body.append(make("div", { class: "scroll" }, make("table", {}, head, make("tbody", {}, rows))));
}

function qualitySection() {
  if (resultsWith(hasPerplexity).length === 0) return;
  const cards = section("quality", "Perplexity", "Against the share of blocks that was computed: lower is better, and the dashed level is dense attention. Bars are standard errors, paired by document.");
  fineTunedTable(cards);
  perplexityCharts(cards);
}

// Curves of training: losses against tokens, the gates' losses, and density by layer where it was measured.

// Runs in one form, from records of runs, folders of runs, and records of models that keep their metrics.
function trainingGroups() {
  const groups = [];
  for (const file of resultsWith((row) => Array.isArray(row.tokens) && Array.isArray(row.loss))) {
    groups.push({ title: stem(file.path).replace(/_/g, " "), under: sourceOf(file), path: file.path, runs: file.rows.map((row) => ({ ...row, name: runName(row) })) });
  }
  for (const file of DATA.files.filter((one) => one.kind === "training")) {
    groups.push({ title: file.path.replace(/\/?run\.json$/, "") || text(file.json.task), under: `${file.path}, ${counted(file.json.steps, "step")}${isNumber(file.json.seconds) ? `, ${significant(file.json.seconds)} s` : ""}`, path: file.path, runs: [{ ...file.json, name: text(file.json.task) || "run" }] });
  }
  for (const file of DATA.files.filter((one) => one.kind === "other" && one.json)) {
    for (const [name, part] of Object.entries(file.json)) {
      const steps = list(part && part.metrics).filter((step) => isNumber(step.tokens) && isNumber(step.loss));
      if (steps.length === 0) continue;
      groups.push({ title: `${stem(file.path).replace(/_/g, " ")}: ${name}`, under: [text(part.chip), text(part.date), file.path].filter(Boolean).join(" · "), path: file.path,
        runs: [{ name, task: name === "gates" ? "distill" : "", tokens: steps.map((step) => step.tokens), loss: steps.map((step) => step.loss), valid: {} }] });
    }
  }
  return groups;
}

function runName(row) {
  const selection = list((row.settings || {}).selection);
  if (row.task === "distill") return `${row.run}: gates alone`;
  if (selection.length < 2) return text(row.run);
  return `${row.run}: ${["nz_ratio", "head_budget"].includes(selection[0]) ? `${percent(1 - selection[1])} sparse` : selection.slice(0, 2).join(" ")}`;
}

const runColour = (i) => OTHERS.concat([["#2563eb", "#6ea8fe"], ["#059669", "#34d399"]])[[10, 11, 0, 9, 7, 1, 4, 3, 2, 5, 6, 8][i % 12]][isDark() ? 1 : 0];
const pointsOf = (run, values) => run.tokens.map((x, i) => ({ x: x / 1e6, y: values[i], note: significant(values[i], 4) })).filter((point) => isNumber(point.x) && isNumber(point.y));

const marksHidden = { legend: { labels: { filter: (item, data) => !data.datasets[item.datasetIndex].isMark } } };
function curves(parent, title, under, datasetsOf, yAxis) {
  const body = card(parent, title, { under });
  addChart(body, title, () => ({
    type: "line", data: { datasets: datasetsOf() },
    options: { interaction: nearest, plugins: { ...notes((point) => `${significant(point.x)} million tokens`), ...marksHidden }, scales: { x: linear("million tokens", (value) => `${+value.toPrecision(3)}`, { min: 0 }), y: yAxis() } },
  }));
}

function trainingCharts(cards, group) {
  const isGates = (run) => run.task === "distill";
  const models = group.runs.filter((run) => !isGates(run)), gates = group.runs.filter((run) => isGates(run) || list(run.gate_loss).some(isNumber));
  const colour = (run) => runColour(group.runs.indexOf(run));
  if (models.length) {
    const held = unique(models.flatMap((run) => Object.keys(run.valid || {})));
    curves(cards, `Loss: ${group.title}`, `${held.length ? `Marks: held-out texts (${held.map((name, i) => `${["○", "◇", "△", "□"][i % 4]} ${name}`).join(", ")}) · ` : ""}${group.under}`, () => models.flatMap((run) => [
      line(run.name, pointsOf(run, run.loss), { label: run.name, colour: colour(run), radius: 0, width: 1.5 }),
      ...held.map((name, i) => ({ ...line(run.name, list((run.valid || {})[name]).map(([x, y]) => ({ x: x / 1e6, y, note: `held out, ${name}: ${significant(y, 4)}` })).filter((point) => isNumber(point.y)),
        { label: run.name, colour: colour(run), shape: ["circle", "rectRot", "triangle", "rect"][i % 4], radius: 5 }), showLine: false, backgroundColor: "transparent", borderWidth: 2, isMark: true })),
    ]), () => linear("nats a token", (value) => `${+value.toPrecision(3)}`));
  }
  if (gates.length) {
    curves(cards, `Loss of the gates: ${group.title}`, group.under, () => gates.map((run) => line(run.name, pointsOf(run, isGates(run) ? run.loss : run.gate_loss), { label: run.name, colour: colour(run), radius: 0, width: 1.5 })),
      () => logarithmic("loss of the gates (log scale)", (value) => `${value}`, gates.flatMap((run) => (isGates(run) ? run.loss : run.gate_loss)).filter(isNumber)));
  }
}

function layerDensities(cards) {
  for (const file of resultsWith((row) => list(row.density_by_layer).some(isNumber) && row.method === "seer" && !isNumber(row.sparsity))) {
    const body = card(cards, `Density by layer: ${text(file.rows[0].rule)} ${file.rows[0].strength}`, { under: sourceOf(file) });
    addChart(body, "Density by layer", () => ({
      type: "line",
      data: {
        labels: file.rows[0].density_by_layer.map((_, layer) => layer),
        datasets: file.rows.map((row, i) => line(`${row.model}`, row.density_by_layer.map((y, layer) => ({ x: layer, y: isNumber(y) ? y : null, note: percent(y, 1) })),
          { label: `${text(row.model)}${isNumber(row.trained_sparsity) ? "" : ", gates after it"}: ${percent(row.density)} in all`, colour: runColour(i) })),
      },
      options: { interaction: nearest, plugins: notes((point) => `layer ${point.x}`), scales: { x: categories("layer"), y: linear("share of blocks computed", (value) => percent(value), { min: 0 }) } },
    }));
  }
}

function trainingSection() {
  const groups = trainingGroups();
  if (groups.length === 0) return;
  const cards = section("training", "Training", "Each point is the mean of the steps since the one before it.");
  for (const group of groups) {
    shownFiles.add(group.path);
    trainingCharts(cards, group);
  }
  layerDensities(cards);
}

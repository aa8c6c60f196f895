// Speed: block-sparse attention against dense, first tokens and steps of training by their parts, and every other timed operation.

const isTimed = (row) => typeof row.implementation === "string" && (isNumber(row.median_ms) || isNumber(row.both_ms));
const isRight = (row) => row.status === undefined || row.status === "ok";
const timeOf = (row) => (isNumber(row.both_ms) ? row.both_ms : row.median_ms);
const lengthText = (row) => (row.len_q === row.len_k || !isNumber(row.len_k) ? tokens(row.len_q) : row.len_q === 1 ? tokens(row.len_k) : `${tokens(row.len_q)} on ${tokens(row.len_k)}`);
const headsText = (row) => [text(row.model), isNumber(row.heads_q) ? `${row.heads_q}/${row.heads_kv} heads` : "", isNumber(row.head_dim) ? `D ${row.head_dim}` : "", text(row.dtype)].filter(Boolean).join(", ");

// A card with a list of configurations; `draw(body, rows)` of the chosen one, at first that with most rows.
function configured(parent, title, file, configOf, rows, draw, full = false) {
  const groups = groupBy(rows, configOf), names = [...groups.keys()];
  if (names.length === 0) return;
  const most = names.reduce((best, name) => (groups.get(name).length > groups.get(best).length ? name : best));
  let body;
  const show = (name) => {
    body.replaceChildren();
    draw(body, groups.get(name), name);
  };
  body = card(parent, title, { full, under: sourceOf(file), controls: [names.length > 1 ? choice("of", names, most, show) : names[0]] });
  show(most);
}

// Of each sparse row its speed-up over the fastest dense implementation on the same inputs: lines by length.
function speedUpCharts(parent, file) {
  const rows = file.rows.filter(isRight), isDense = (row) => row.lists === "dense";
  const inputs = (row) => `${headsText(row)} ${lengthText(row)}`;
  const dense = groupBy(rows.filter((row) => row.implementation !== "seer" && isDense(row)), inputs);
  const pairs = rows.filter((row) => row.implementation === "seer" && isNumber(row.density) && dense.has(inputs(row)) && (!isNumber(row.list_heads) || row.list_heads === row.heads_q))
    .map((row) => {
      const fastest = dense.get(inputs(row)).reduce((best, other) => (timeOf(other) < timeOf(best) ? other : best));
      return { ...row, fastest, up: timeOf(fastest) / timeOf(row) };
    });
  const partial = pairs.filter((row) => row.density < 1), kinds = unique(partial.map((row) => row.lists));
  if (partial.length === 0) return false;
  // With all blocks listed every kind of lists is the same.
  const configs = partial.concat(pairs.filter((row) => row.density >= 1).flatMap((row) => kinds.map((lists) => ({ ...row, lists }))));
  const configOf = (row) => `${headsText(row)}, ${row.lists === "gate" ? "gate-like" : row.lists} lists`;
  const linesBy = (of, yOf, noteOf) => {
    const lengths = [...groupBy(of, lengthText)].filter(([, some]) => some.some((row) => row.density < 1)).sort((a, b) => a[1][0].len_k - b[1][0].len_k || b[1][0].len_q - a[1][0].len_q);
    return lengths.map(([name, some], i) => line(name, some.map((row) => ({ x: row.density, y: yOf(row), note: noteOf(row), row })).sort((a, b) => a.x - b.x),
      { label: name, colour: stepColour(i, lengths.length), shape: "circle" }));
  };
  const options = (of, y) => ({ interaction: nearest, plugins: notes((point) => (point.row ? `${densityText(point.row.density)} of the blocks` : "")), scales: { x: densityAxis(of.map((row) => ({ x: row.density }))), y } });
  configured(parent, `Attention on ${chipOf(file)}: speed-up over the fastest dense`, file, configOf, configs, (body, of) => addChart(body, "Speed-up of block-sparse attention against density", () => {
    const datasets = linesBy(of, (row) => row.up, (row) => `${significant(row.up)}x: ${milliseconds(timeOf(row))}, ${implementationOf(row.fastest.implementation)} ${milliseconds(timeOf(row.fastest))}`);
    const { min } = densityAxis(of.map((row) => ({ x: row.density })));
    const ideal = DENSITIES.filter((at) => at >= min).map((at) => ({ x: at, y: 1 / at, note: `${significant(1 / at)}x` }));
    datasets.push(line("1 / density", ideal, { label: "1 / density", colour: css("--pale"), dash: [2, 4], radius: 0, width: 1.5 }));
    return { type: "line", data: { datasets }, options: options(of, logarithmic("times faster (log scale)", (value) => `${value}x`, of.map((row) => row.up).concat(ideal.map((point) => point.y)))) };
  }));
  if (!pairs.some((row) => isNumber(row.kept_tflops) && row.kept_tflops > 0)) return true;
  configured(parent, `Attention on ${chipOf(file)}: rate over the computed blocks`, file, configOf, configs, (body, of) => addChart(body, "Kept TFLOP/s against density", () => ({
    type: "line", data: { datasets: linesBy(of, (row) => row.kept_tflops, (row) => `${significant(row.kept_tflops)} TFLOP/s, ${milliseconds(timeOf(row))}`) },
    options: options(of, linear("kept TFLOP/s", (value) => `${+value.toPrecision(3)}`, { min: 0 })),
  })));
  return true;
}

const PARTS = [
  ["products", "matrix products", "#94a3b8", "#64748b"], ["rest", "rest", "#cbd5e1", "#3f4a5a"], ["loss", "loss", "#a78bfa", "#a78bfa"], ["optimizer", "optimizer", "#c4a484", "#a08060"],
  ["attention", "attention", "#2563eb", "#6ea8fe"], ["attention_forward", "attention forward", "#2563eb", "#6ea8fe"], ["attention_backward", "attention backward", "#1e3a8a", "#3b6fd4"],
  ["pooled", "map for the gates", "#059669", "#34d399"], ["gate", "gate", "#f59e0b", "#fbbf24"], ["gates", "gates", "#f59e0b", "#fbbf24"], ["select", "selection", "#dc2626", "#f87171"],
];
const partsOf = (row) => (row.parts && typeof row.parts === "object" ? row.parts : Object.fromEntries(PARTS.map(([part]) => [part, row[`${part}_ms`]]).filter(([, ms]) => isNumber(ms))));
const hasParts = (row) => isTimed(row) && Object.keys(partsOf(row)).length > 2;
// Of gates alone the sparsity; beside other methods of choosing their names, too.
function barName(row, hasMethods) {
  const name = row.implementation;
  if (!(row.density < 1)) return name === "dense" ? name : name.replace("dense, FlashAttention-2", "FA2").replace("dense, ", "");
  return hasMethods ? `${implementationOf(name)} ${percent(1 - row.density)}` : percent(1 - row.density);
}

const lengthAndGpus = (row) => `${lengthText(row)} tokens${row.gpus > 1 ? `, ${row.gpus} GPUs` : ""}`;

// Bars of parts, those of a length relative to its fastest dense bar, of one GPU where there are several.
function partsCharts(parent, file, title) {
  for (const [name, rows] of groupBy(file.rows.filter(hasParts), (row) => [text(row.model), row.sequences > 1 ? `${row.sequences} windows a step` : ""].filter(Boolean).join(", "))) {
    const hasMethods = rows.some((row) => row.density < 1 && row.implementation !== "seer");
    const gpusOf = (row) => row.gpus || 1;
    const bars = [...groupBy(rows, lengthAndGpus)].sort((a, b) => a[1][0].len_q - b[1][0].len_q || gpusOf(a[1][0]) - gpusOf(b[1][0])).flatMap(([length, of], i) => {
      const alike = rows.filter((row) => lengthText(row) === lengthText(of[0])), fewest = Math.min(...alike.map(gpusOf)), few = alike.filter((row) => gpusOf(row) === fewest);
      const dense = few.filter((row) => !(row.density < 1)), unit = Math.min(...(dense.length ? dense : few).map(timeOf));
      const shown = of.filter((row) => row.implementation !== "seer" || row.density < .99).sort((a, b) => b.density - a.density);
      const middle = Math.floor((shown.length - 1) / 2);
      return [...(i > 0 ? [null] : []), ...shown.map((row, at) => ({ row, unit, length, label: hasMethods ? `${lengthText(row)}: ${barName(row, true)}` : [barName(row), at === middle ? length : ""] }))];
    });
    const present = PARTS.filter(([part]) => bars.some((bar) => bar && partsOf(bar.row)[part] > 0));
    const body = card(parent, `${title}${hasMethods ? " by method of choosing" : ""}: ${name || subjectOf(file)}`, { under: `Percentages: sparsity. ${sourceOf(file)}`, full: hasMethods || bars.length > 14 });
    const names = { ...categories(""), stacked: true, title: { display: false }, ticks: { color: css("--pale"), autoSkip: false, font: { size: 11 }, maxRotation: 0 } };
    const times = { ...linear("time, the faster dense one = 1", (value) => `${+value.toPrecision(3)}`), stacked: true };
    addChart(body, `${title} of ${name} by parts`, () => ({
      type: "bar",
      data: {
        labels: bars.map((bar) => (bar ? bar.label : "")),
        datasets: present.map(([part, label, light, dark]) => ({
          label: part === "gate" && hasMethods ? "scores" : label, backgroundColor: isDark() ? dark : light, stack: "parts", categoryPercentage: .92, barPercentage: .92, pointStyle: "rect",
          data: bars.map((bar) => (bar ? (partsOf(bar.row)[part] || 0) / bar.unit : null)),
        })),
      },
      options: {
        interaction: { mode: "index", intersect: false, axis: hasMethods ? "y" : "x" },
        plugins: { tooltip: { filter: (item) => bars[item.dataIndex] && item.raw > 0, callbacks: {
          title: ([item]) => (item ? `${barName(bars[item.dataIndex].row, hasMethods)}, ${bars[item.dataIndex].length}: ${milliseconds(timeOf(bars[item.dataIndex].row))}` : ""),
          label: (item) => `${item.dataset.label}: ${milliseconds(item.raw * bars[item.dataIndex].unit)}`,
        } } },
        ...(hasMethods ? { indexAxis: "y", scales: { x: times, y: names } } : { scales: { x: names, y: times } }),
      },
    }), hasMethods ? 110 + 22 * bars.length : 350);
  }
}

// Any other operation, by length: beside seer how many times as long the others take; without rivals the times themselves.
function timeCharts(parent, file, title) {
  const configOf = (row) => [headsText(row), isNumber(row.wanted_density) && row.wanted_density < 1 ? `${percent(row.wanted_density)} of blocks` : ""].filter(Boolean).join(", ");
  const rows = file.rows.filter((row) => isTimed(row) && isRight(row));
  // Dense rows stand beside those of every density.
  const sparse = unique(rows.map((row) => row.wanted_density).filter((density) => density < 1));
  const spread = sparse.length ? rows.flatMap((row) => (row.wanted_density < 1 ? [row] : sparse.map((wanted_density) => ({ ...row, wanted_density })))) : rows;
  configured(parent, title, file, configOf, spread, (body, of) => {
    const byLength = [...groupBy(of, lengthText)].sort((a, b) => (a[1][0].len_k || a[1][0].len_q) - (b[1][0].len_k || b[1][0].len_q));
    const all = unique(of.map((row) => row.implementation)), own = all.includes("seer") ? "seer" : all.filter((name) => name.startsWith("seer, ")).sort().at(-1);
    const names = all.sort((a, b) => (b === own) - (a === own)), labels = byLength.map(([name]) => name);
    const rowOf = (name, i) => byLength[i][1].find((row) => row.implementation === name);
    const isBeside = names.includes(own) && names.length > 1;
    const cells = (name, valueOf) => byLength.map((_, i) => (rowOf(name, i) ? valueOf(rowOf(name, i), rowOf(own, i)) : null));
    addChart(body, title, () => (isBeside ? {
      type: "bar",
      data: { labels, datasets: names.map((name) => ({ label: implementationOf(name), backgroundColor: colourOf(name), pointStyle: "rect", maxBarThickness: 56, data: cells(name, (row, beside) => (beside ? timeOf(row) / timeOf(beside) : null)) })) },
      options: {
        interaction: { mode: "index", intersect: false },
        plugins: { tooltip: { callbacks: { label: (item) => `${item.dataset.label}: ${milliseconds(timeOf(rowOf(names[item.datasetIndex], item.dataIndex)))}, ${significant(item.raw)}x` } } },
        scales: { x: categories("tokens"), y: linear(`time, ${own} = 1`, (value) => `${+value.toPrecision(3)}x`, { min: 0 }) },
      },
    } : {
      type: "line",
      data: { labels, datasets: names.map((name) => line(name, cells(name, (row) => ({ x: lengthText(row), y: timeOf(row), note: milliseconds(timeOf(row)) })), { label: implementationOf(name) })) },
      options: { interaction: nearest, plugins: notes((point) => `${point.x} tokens`), scales: { x: { ...categories("tokens"), offset: true }, y: logarithmic("time (log scale)", milliseconds, of.map(timeOf)) } },
    }));
  });
}

// Time of attention of the methods of `seer run` against density.
function runTimes(parent) {
  for (const file of resultsWith((row) => hasPerplexity(row) && isNumber(row.attention_ms))) {
    if (file.json.operation !== "run") continue;
    const body = card(parent, `Time of attention: ${subjectOf(file)}`, { under: `A window of ${tokens(file.rows[0].length)} tokens, all layers, choosing included · ${sourceOf(file)}` });
    densityChart(body, "Time of attention against density", file.rows, { toPoint: (row) => ({ y: row.attention_ms, note: milliseconds(row.attention_ms) }), format: milliseconds, title: "time of attention" });
  }
}

function rateCharts(parent) {
  for (const file of resultsWith((row) => isNumber(row.tokens_per_s) && !isTimed(row))) {
    shownFiles.add(file.path);
    const labels = file.rows.map((row) => [[text(row.model), text(row.task)].filter(Boolean).join(", "), `${row.sequences || 1} x ${tokens(row.len_q)}, ${row.gpus || 1} GPU${row.gpus > 1 ? "s" : ""}${row.streamed ? ", streamed" : ""}`]);
    const body = card(parent, `${titleOf(file)}: rate`, { under: sourceOf(file) });
    addChart(body, `Tokens a second of ${file.json.operation}`, () => ({
      type: "bar", data: { labels, datasets: [{ label: "tokens a second", data: file.rows.map((row) => row.tokens_per_s), backgroundColor: colourOf("seer"), maxBarThickness: 30 }] },
      options: { indexAxis: "y", plugins: { legend: { display: false } }, scales: { x: linear("tokens a second", (value) => value.toLocaleString("en"), { min: 0 }), y: { ...categories(""), title: { display: false } } } },
    }));
  }
}

const OPERATIONS = {
  block_sparse_attn: "Block-sparse attention", block_sparse_attn_backward: "Backward of block-sparse attention", prefill: "First token", finetune: "A step of fine-tuning", pooled_attn: "Dense attention with its map",
  attach: "Prefill in transformers", attn_gate: "Gate and selection", decode_attn: "Attention of a new token", decode: "A step of decoding", distill: "Distillation", "python training": "Training in transformers",
};
const titleOf = (file) => OPERATIONS[file.json.operation] || text(file.json.operation).replace(/_/g, " ");

function speedSection() {
  const files = resultsWith(isTimed), rates = resultsWith((row) => isNumber(row.tokens_per_s)), runs = resultsWith((row) => isNumber(row.attention_ms)).filter((file) => file.json.operation === "run");
  if (files.length + rates.length + runs.length === 0) return;
  const cards = section("speed", "Speed", "Times are medians on the chip that each chart names. Dense implementations compute everything; block-sparse ones the same lists of blocks.");
  runTimes(cards);
  const order = ["block_sparse_attn", "prefill", "block_sparse_attn_backward", "finetune"];
  const rank = (file) => (order.indexOf(file.json.operation) + order.length) % order.length + (order.includes(file.json.operation) ? 0 : order.length) + (isGpu(file) ? 0 : .5);
  for (const file of files.sort((a, b) => rank(a) - rank(b))) {
    shownFiles.add(file.path);
    if (file.rows.some(hasParts)) partsCharts(cards, file, titleOf(file));
    else if (file.json.operation !== "block_sparse_attn" || !speedUpCharts(cards, file)) timeCharts(cards, file, `${titleOf(file)} on ${chipOf(file)}`);
  }
  rateCharts(cards);
}

// By layer and head: recall of attention, and what heads lose (eval recall, eval heads, heads.json).

const isGrid = (value) => Array.isArray(value) && value.length > 0 && value.every(Array.isArray) && value.some((row) => row.some(isNumber));

function layersAndHeads(values, options) {
  const rows = values.map((_, layer) => layer), columns = Array.from({ length: Math.max(...values.map((row) => row.length)) }, (_, head) => head);
  return heat(rows, columns, (layer, head) => {
    const value = values[layer][head];
    return isNumber(value) ? options.cellOf(value, layer, head) : null;
  }, { corner: "layer ↓ head →", ...options });
}

function recallCards(cards) {
  for (const file of resultsWith((row) => isGrid(row.recall))) {
    shownFiles.add(file.path);
    if (unique(file.rows.map((row) => row.density)).length > 1) {
      const against = card(cards, `Attention in the chosen blocks against density: ${subjectOf(file)}`, { under: sourceOf(file) });
      densityChart(against, "Recall of attention against density", file.rows, { toPoint: (row) => ({ y: row.mean_recall, note: percent(row.mean_recall, 1) }), format: (value) => percent(value), title: "attention in the chosen blocks, mean" });
    }
    const nameOf = (row) => [seriesName(row, file.rows).label, settingText(row)].filter(Boolean).join(", ");
    const names = file.rows.map(nameOf), start = Math.max(0, file.rows.findIndex((row) => row.method === "seer" && row.sparsity >= .9));
    let body;
    const draw = (name) => {
      const row = file.rows[names.indexOf(name)];
      body.replaceChildren(
        make("p", { class: "under" }, `On average ${percent(row.mean_recall, 1)} of the attention lies in ${percent(row.density, 1)} of the blocks.`),
        layersAndHeads(row.recall, { cellOf: (value, layer, head) => ({ share: (1 - value) / .5, text: (100 * value).toFixed(0), title: `layer ${layer}, head ${head}: ${percent(value, 1)}` }) }),
        make("div", { class: "legend" }, rampBar(RED, ["all of it", "half or less"])));
    };
    body = card(cards, `Attention in the chosen blocks by head: ${subjectOf(file)}`, { under: sourceOf(file), controls: [choice("chosen by", names, names[start], draw)] });
    draw(names[start]);
  }
}

function lossCards(cards) {
  const found = [
    ...resultsWith((row) => isGrid(row.lost)).flatMap((file) => file.rows.map((row) => ({ lost: row.lost, lookups: row.lookup_heads, path: file.path, title: `What heads lose: ${subjectOf(file)}`, under: sourceOf(file) }))),
    ...DATA.files.filter((file) => file.kind === "heads" && isGrid(file.json.lost)).map((file) => ({ lost: file.json.lost, lookups: file.json.lookup_heads, path: file.path, title: "What heads lost before they got lookup heads", under: file.path })),
  ];
  for (const { lost, lookups, path, title, under } of found) {
    shownFiles.add(path);
    const most = Math.max(.1, ...lost.flat().filter(isNumber));
    const isLookup = (layer, head) => list(list(lookups)[layer]).includes(head);
    const body = card(cards, title, { under });
    body.append(layersAndHeads(lost, { cellOf: (value, layer, head) => ({ share: value / most, text: value.toFixed(2), marked: isLookup(layer, head), title: `layer ${layer}, head ${head}: ${significant(value)}${isLookup(layer, head) ? ", lookup head" : ""}` }) }),
      make("div", { class: "legend" }, rampBar(RED, ["nothing", `${significant(most, 2)} of weights`]),
        list(lookups).some((layer) => list(layer).length) ? make("span", { class: "key" }, make("i", { style: "border: 2px solid var(--mark)" }), "lookup head") : null),
      make("p", { class: "under" }, "The largest weights of far blocks that the true map would choose and the gate leaves out, summed over a row of blocks, mean over rows."));
  }
}

// What lookup heads may score blocks by (bench/lookup_scores.py): ranks beside each other, types of numbers by choice.
const isVariant = (row) => isNumber(row.map) && isNumber(row.rank) && typeof row.normaliser === "string";

function lookupScoreCards(cards) {
  for (const file of resultsWith(isVariant)) {
    shownFiles.add(file.path);
    const rows = file.rows.filter(isVariant), names = unique(rows.map((row) => row.normaliser)), ranks = unique(rows.map((row) => row.rank)), kinds = unique(rows.map((row) => text(row.numbers)));
    let body;
    const draw = (kind) => {
      const of = (rank, name) => rows.find((row) => row.rank === rank && row.normaliser === name && text(row.numbers) === kind);
      body.replaceChildren();
      addChart(body, "Scores of lookup heads by rank and normaliser", () => ({
        type: "bar",
        data: { labels: names, datasets: ranks.map((rank, i) => ({ label: `rank ${rank}`, backgroundColor: stepColour(i, ranks.length), pointStyle: "rect", maxBarThickness: 40, data: names.map((name) => of(rank, name)?.map ?? null) })) },
        options: {
          interaction: { mode: "index", intersect: false },
          plugins: { tooltip: { callbacks: { label: (item) => `${item.dataset.label}: ${percent(item.raw, 1)} of the map's weights, ${percent(of(ranks[item.datasetIndex], names[item.dataIndex]).peaks, 1)} of its peaks` } } },
          scales: { x: categories("normaliser"), y: linear("far weights that lists keep, true map = 1", (value) => percent(value), { min: 0 }) },
        },
      }));
    };
    const start = kinds.includes("bf16") ? "bf16" : kinds[0];
    body = card(cards, `Scores of lookup heads: ${subjectOf(file)}`, { under: sourceOf(file), controls: [choice("products of", kinds, start, draw)] });
    draw(start);
  }
}

// How a number of blocks is shared out among heads, and who shares lists (bench/lookup_lists.py).
const isSharing = (row) => typeof row.variant === "string" && isNumber(row.digits) && isNumber(row.copies);

function lookupListCards(cards) {
  for (const file of resultsWith(isSharing)) {
    shownFiles.add(file.path);
    const rows = file.rows.filter(isSharing);
    const body = card(cards, `Blocks shared out among heads: ${subjectOf(file)}`, { under: sourceOf(file) });
    addChart(body, "Facts and copies by how blocks are shared out among heads", () => ({
      type: "bar",
      data: { labels: rows.map((row) => row.variant), datasets: ["digits", "copies"].map((name, i) => ({ label: name, backgroundColor: stepColour(i, 2), pointStyle: "rect", maxBarThickness: 40, data: rows.map((row) => row[name]) })) },
      options: {
        interaction: { mode: "index", intersect: false },
        plugins: { tooltip: { callbacks: { label: (item) => `${item.dataset.label}: ${percent(item.raw, 1)} ± ${percent(rows[item.dataIndex][`${item.dataset.label}_error`], 1)}`,
          footer: ([item]) => `density ${rows[item.dataIndex].density}, perplexity ${significant(rows[item.dataIndex].above_dense)} % above dense` } } },
        scales: { x: categories("blocks of a row"), y: linear("tokens that are right", (value) => percent(value), { min: 0, max: 1 }) },
      },
    }));
  }
}

function headsSection() {
  const has = resultsWith((row) => isGrid(row.recall) || isGrid(row.lost) || isVariant(row) || isSharing(row)).length + DATA.files.filter((file) => file.kind === "heads").length;
  if (has === 0) return;
  const cards = section("heads", "By layer and head", "How much of the real attention lies in the blocks that were chosen, and what is left out where heads need it.");
  recallCards(cards);
  lossCards(cards);
  lookupScoreCards(cards);
  lookupListCards(cards);
}

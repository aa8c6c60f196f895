// Facts, copies and needles, and recall of attention by layer and head.

const hasAnswers = (row) => isNumber(row.top1) && Array.isArray(row.cells);
const rangeText = (range) => list(range).map(tokens).join("–");

function answersChart(parent, file, what) {
  const point = (row) => ({ y: row.top1, error: row.top1_error, note: `${percent(row.top1, 1)}${isNumber(row.top1_error) ? ` ± ${percent(row.top1_error, 1)}` : ""}` });
  const first = file.rows[0], lengths = unique(file.rows.map((row) => row.length)).filter(isNumber).sort((a, b) => a - b);
  const asked = isNumber(first.questions) && lengths.length === 1 ? `${counted(first.questions, "question")} in ${counted(first.windows, "window")} of ${tokens(first.length)} tokens · ` : "";
  let body;
  const draw = (length) => {
    body.replaceChildren();
    densityChart(body, `${what}: tokens of the answers that are right`, file.rows.filter((row) => row.length === length), { toPoint: point, format: (value) => percent(value), title: "answers' tokens that are right", bounds: { min: 0, max: 1 } });
  };
  body = card(parent, `${what}: ${subjectOf(file)}`, { under: asked + sourceOf(file), controls: [choice("tokens", lengths, lengths.at(-1), draw, tokens)] });
  draw(lengths.at(-1));
}

function distanceChart(parent, file, what) {
  const ranges = unique(file.rows.flatMap((row) => row.cells.map((cell) => rangeText(cell.distance)))).filter(Boolean);
  if (ranges.length < 2) return;
  const settings = unique(file.rows.filter((row) => row.method !== "dense").map(settingText));
  let body;
  const draw = (setting) => {
    body.replaceChildren();
    const rows = file.rows.filter((row) => row.method === "dense" || settingText(row) === setting);
    addChart(body, `${what} by distance`, () => ({
      type: "line", plugins: [errorBars],
      data: {
        labels: ranges,
        datasets: rows.map((row) => {
          const { name, key, label } = seriesName(row, rows);
          // Kinds of one distance (wordings, lengths of passages) together, by their numbers of questions.
          const points = ranges.map((range) => {
            const cells = row.cells.filter((cell) => rangeText(cell.distance) === range && isNumber(cell.top1) && isNumber(cell.questions));
            const count = cells.reduce((sum, cell) => sum + cell.questions, 0);
            if (count === 0) return null;
            const y = cells.reduce((sum, cell) => sum + cell.questions * cell.top1, 0) / count;
            return { x: range, y, error: cells.length === 1 ? cells[0].top1_error : undefined, note: percent(y, 1) };
          }).filter(Boolean);
          return line(key, points, { label, dash: name === "dense" ? [6, 4] : [], width: name === "seer" ? 3 : 2 });
        }),
      },
      options: { interaction: nearest, plugins: notes((one) => `${one.x} tokens away`), scales: { x: categories("distance, tokens"), y: linear("answers' tokens that are right", (value) => percent(value), { min: 0, max: 1 }) } },
    }));
  };
  body = card(parent, `${what} by distance: ${subjectOf(file)}`, { under: sourceOf(file), controls: [choice("blocks", settings, settings.at(-1), draw)] });
  draw(settings.at(-1));
}

// Depths down, lengths across, a grid for each method.
function needleGrids(parent, file) {
  const settings = unique(file.rows.filter((row) => row.method !== "dense").map(settingText));
  const lengths = unique(file.rows.map((row) => row.length)).sort((a, b) => a - b);
  const depths = unique(file.rows.flatMap((row) => row.cells.map((cell) => cell.depth))).filter(isNumber).sort((a, b) => a - b);
  let body;
  const draw = (setting) => {
    const rows = file.rows.filter((row) => row.method === "dense" || settingText(row) === setting);
    const grids = [...groupBy(rows, (row) => seriesName(row, rows).key)].map(([, of]) => {
      const cellOf = (depth, length) => {
        const row = of.find((one) => one.length === length), cells = row ? row.cells.filter((cell) => cell.depth === depth && isNumber(cell.top1)) : [];
        if (cells.length === 0) return null;
        const share = cells.reduce((sum, cell) => sum + cell.top1, 0) / cells.length;
        return { share, text: (100 * share).toFixed(0), title: `${tokens(length)} tokens, depth ${depth} %: ${percent(share)} right` };
      };
      return make("div", {}, make("h4", { style: "margin: 0" }, seriesName(of[0], rows).label),
        heat(depths, lengths, cellOf, { rowNames: depths.map((depth) => `${depth} %`), columnNames: lengths.map(tokens), ramp: goodColour }));
    });
    body.replaceChildren(make("p", { class: "under" }, "Down: how deep the fact stands in the text; across: tokens of the text; per cent of the answers' tokens that are right. "),
      make("div", { style: "display: grid; gap: 18px; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); margin-top: 10px" }, grids),
      make("div", { class: "legend" }, rampBar(BLUE, ["none right", "all right"])));
  };
  body = card(parent, `Needle in a haystack by depth and length: ${subjectOf(file)}`, { full: true, under: sourceOf(file), controls: [choice("blocks", settings, settings.at(-1), draw)] });
  draw(settings.at(-1));
}

function plantedSection() {
  const files = mostMethodsFirst(resultsWith(hasAnswers));
  if (files.length === 0) return;
  const cards = section("facts", "Facts and copies", "Questions that are planted into texts and can be answered only from what stands earlier in them. Perplexity hides what these show.");
  for (const file of files) {
    shownFiles.add(file.path);
    const isNeedle = file.rows.some((row) => row.cells.some((cell) => isNumber(cell.depth)));
    const what = { "eval facts": "Facts", "eval copies": "Copied passages" }[file.json.operation] || text(file.json.operation);
    if (isNeedle) {
      answersChart(cards, file, "Needle in a haystack");
      needleGrids(cards, file);
    } else {
      answersChart(cards, file, what);
      distanceChart(cards, file, what);
    }
  }
}

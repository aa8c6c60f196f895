// The viewer of real attention: true map, gate, chosen blocks and what was lost of any head, block by block with its texts.

const attentionRecords = () => RESULTS.filter((file) => file.json.window && file.rows.length > 0 && file.rows.every((row) => text(row.truth) && text(row.gate)));

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
// Maps hold the blocks that each row sees, row by row.
const place = (row, column) => (row * (row + 1)) / 2 + column;
const shareOf = (byte) => (byte === 0 ? 0 : 10 ** (byte / 255 * 4 - 4));

const viewer = { record: null, layer: 0, head: 0, choice: 0, query: 0, key: 0 };

function headNow() {
  return viewer.record.rows.find((row) => row.layer === viewer.layer && row.head === viewer.head) || viewer.record.rows[0];
}

const decoded = new Map();
function mapsOf(row) {
  if (!decoded.has(row)) decoded.set(row, { truth: bytesOf(row.truth), gate: bytesOf(row.gate), chosen: list(row.chosen).map(bytesOf) });
  return decoded.get(row);
}

function isChosen(maps, at) {
  const bits = maps.chosen[viewer.choice];
  return bits ? (bits[at >> 3] >> (at & 7) & 1) === 1 : true;
}

const PANELS = [
  { name: "True attention", about: "largest weight in each block", ramp: BLUE, value: (maps, at) => maps.truth[at] },
  { name: "What the gate thinks", about: "its scores, as shares", ramp: BLUE, value: (maps, at) => maps.gate[at] },
  { name: "Blocks computed", about: "chosen by the gate", value: (maps, at) => (isChosen(maps, at) ? 1 : 0) },
  { name: "What was lost", about: "true attention that was left out", ramp: RED, value: (maps, at) => (isChosen(maps, at) ? 0 : maps.truth[at]) },
];

const blockCount = () => list(viewer.record.json.window.texts).length;
const MARGIN = { left: 34, bottom: 20 };

// A pixel a block. That of the last head and choice is kept: what the pointer moves is drawn over it.
function imageOf(panel, maps) {
  const of = [maps, viewer.choice, isDark()];
  if (panel.image && panel.of.every((value, i) => value === of[i])) return panel.image;
  const blocks = blockCount(), pixels = new ImageData(blocks, blocks), stops = panel.ramp ? stopsOf(panel.ramp) : null;
  const probe = (name) => css(name).match(/\w\w/g).map((hex) => parseInt(hex, 16));
  const unseen = probe("--unseen"), on = probe("--accent"), off = probe("--soft");
  const levels = stops ? Array.from({ length: 256 }, (_, level) => mixed(stops, level / 255)) : null;
  for (let row = 0; row < blocks; ++row) {
    for (let column = 0; column < blocks; ++column) {
      const value = column <= row ? panel.value(maps, place(row, column)) : 0;
      const colour = column > row ? unseen : levels ? levels[value] : value ? on : off, at = 4 * (row * blocks + column);
      [pixels.data[at], pixels.data[at + 1], pixels.data[at + 2], pixels.data[at + 3]] = [...colour, 255];
    }
  }
  const image = make("canvas", { width: blocks, height: blocks });
  image.getContext("2d").putImageData(pixels, 0, 0);
  Object.assign(panel, { image, of });
  return image;
}

function drawPanel(canvas, panel, maps) {
  const blocks = blockCount(), scale = devicePixelRatio || 1, width = canvas.clientWidth, side = width - MARGIN.left;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round((side + MARGIN.bottom) * scale);
  canvas.style.height = `${side + MARGIN.bottom}px`;
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(imageOf(panel, maps), MARGIN.left, 0, side, side);
  // Where in the text, at most four marks.
  const { block, tokens: length } = viewer.record.json.window, whole = blocks * block;
  let step = block;
  while (length / step > 4) step *= 2;
  context.fillStyle = css("--pale");
  context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  for (let token = 0; token <= length; token += step) {
    const at = token / whole * side, name = tokens(token);
    context.textAlign = token === 0 ? "left" : at > side - 12 ? "right" : "center";
    context.fillText(name, MARGIN.left + Math.min(at, side), side + 14);
    context.textAlign = "right";
    context.fillText(name, MARGIN.left - 5, Math.min(Math.max(at + 4, 9), side));
  }
  // The block that is read.
  const cell = side / blocks, x = MARGIN.left + viewer.key * cell, y = viewer.query * cell, around = Math.max(2, 5 - cell / 2);
  context.strokeStyle = isDark() ? "rgb(255 255 255 / 28%)" : "rgb(0 0 0 / 22%)";
  context.lineWidth = 1;
  context.strokeRect(MARGIN.left + .5, y, side - 1, cell);
  context.strokeRect(x, .5, cell, side - 1);
  context.strokeStyle = isDark() ? "#fde047" : "#111827";
  context.lineWidth = 2;
  context.strokeRect(x - around / 2, y - around / 2, cell + around, cell + around);
}

function tokenRange(blockIndex) {
  const { block, tokens: length } = viewer.record.json.window;
  return `tokens ${blockIndex * block}–${Math.min(length, (blockIndex + 1) * block) - 1}`;
}

function readingOf(maps) {
  const at = place(viewer.query, viewer.key), texts = viewer.record.json.window.texts, chosen = isChosen(maps, at);
  let total = 0, kept = 0;
  for (let column = 0; column <= viewer.query; ++column) {
    const share = shareOf(maps.truth[place(viewer.query, column)]);
    total += share;
    if (isChosen(maps, place(viewer.query, column))) kept += share;
  }
  const share = (byte) => (byte === 0 ? "under 0.01 %" : percent(shareOf(byte), byte > 190 ? 0 : byte > 125 ? 1 : 2));
  const word = make("b", { style: `color: var(${chosen ? "--accent" : "--bad"})` }, chosen ? "computed" : "left out");
  return [
    make("p", { class: "facts", "aria-live": "polite" }, `This block has ${share(maps.truth[at])} of its row's attention; the gate gives it ${share(maps.gate[at])}. It is `, word,
      `. Of the whole row ${percent(total ? kept / total : 1)} is kept.`),
    make("div", { class: "texts" },
      make("div", {}, make("h4", {}, `Query, ${tokenRange(viewer.query)}`), make("p", { id: "query-text" }, texts[viewer.query])),
      make("div", {}, make("h4", {}, `Key, ${tokenRange(viewer.key)}`), make("p", { id: "key-text" }, texts[viewer.key]))),
  ];
}

// Numbers in the address keep the place: #layer=3&head=2&choice=1&query=40&key=7.
const FIELDS = ["layer", "head", "choice", "query", "key"];
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (!given.has("layer") && !given.has("query")) return false;
  for (const name of FIELDS) if (/^\d{1,6}$/.test(given.get(name) || "")) viewer[name] = Number(given.get(name));
  return true;
}
function writeAddress() {
  history.replaceState(null, "", `#${FIELDS.map((name) => `${name}=${viewer[name]}`).join("&")}`);
}

// Inside of what there is.
function clampViewer() {
  const row = headNow(), within = (value, most) => Math.min(Math.max(value, 0), most);
  Object.assign(viewer, { layer: row.layer, head: row.head, choice: within(viewer.choice, Math.max(0, list(row.chosen).length - 1)) });
  viewer.query = within(viewer.query, blockCount() - 1);
  viewer.key = within(viewer.key, viewer.query);
}

// The block with the largest share of its row that was left out, of rows that see many blocks and outside of what any rule keeps.
function worstBlock(row) {
  const maps = mapsOf(row);
  let best = [blockCount() - 1, 0], most = -1;
  for (let query = Math.max(8, blockCount() >> 2); query < blockCount(); ++query) {
    for (let key = 1; key < query - 3; ++key) {
      const at = place(query, key);
      if (!isChosen(maps, at) && maps.truth[at] > most) [best, most] = [[query, key], maps.truth[at]];
    }
  }
  [viewer.query, viewer.key] = best;
}

function viewerCard(cards, records) {
  const layersOf = () => unique(viewer.record.rows.map((row) => row.layer)).sort((a, b) => a - b);
  const headsOf = () => unique(viewer.record.rows.map((row) => row.head)).sort((a, b) => a - b);
  const panels = PANELS.map((panel) => ({ panel, canvas: make("canvas", { "aria-label": panel.name, role: "img" }) }));
  const maps = make("div", { class: "maps", tabindex: "0", "aria-label": "Maps of attention: arrow keys move the block that is read", id: "maps" },
    panels.map(({ panel, canvas }) => make("div", {}, make("h4", {}, panel.name, make("small", {}, ` · ${panel.about}`)), canvas)));
  const reading = make("div", { class: "reading", id: "reading" }), aside = make("div", { id: "heads-of-maps" }), controls = make("div", { class: "controls" }), summary = make("p", { class: "lead", style: "margin: 6px 0 0", id: "head-summary" });

  const select = (label, id, values, name) => make("label", {}, label, Object.assign(make("select", { id, onchange: (event) => show({ [name]: Number(event.target.value) }) },
    values.map((value) => make("option", { value: value.value ?? value }, `${value.text ?? value}`))), { value: `${viewer[name]}` }));
  function show(change = {}, keep = true) {
    Object.assign(viewer, change);
    clampViewer();
    const row = headNow(), of = mapsOf(row);
    panels.forEach(({ canvas, panel }) => drawPanel(canvas, panel, of));
    reading.replaceChildren(...readingOf(of));
    const choices = list(viewer.record.json.window.choices).map((name, value) => ({ value, text: name }));
    if (!("query" in change || "key" in change)) {
      summary.replaceChildren(make("b", { style: "color: var(--ink)" }, `Layer ${row.layer}, head ${row.head}${row.lookup ? ", a lookup head" : ""}: `), `${percent(row.recall[viewer.choice])} of its attention lies in the ${densityText(row.density[viewer.choice])} of blocks that the gate chose.`);
      controls.replaceChildren(...[select("layer", "layer", layersOf(), "layer"), select("head", "head", headsOf(), "head"), select("blocks", "choice", choices, "choice"),
        make("button", { type: "button", id: "worst", onclick: () => { worstBlock(headNow()); show({ query: viewer.query }); } }, "largest loss")]);
      aside.replaceChildren(...overview());
    }
    if (keep) writeAddress();
  }

  let shown = "lost";
  function overview() {
    const byHead = new Map(viewer.record.rows.map((row) => [`${row.layer} ${row.head}`, row]));
    const valueOf = (row) => (shown === "lost" ? 1 - row.recall[viewer.choice] : row.density[viewer.choice]);
    const most = Math.max(.01, ...viewer.record.rows.map(valueOf));
    const grid = heat(layersOf(), headsOf(), (layer, head) => {
      const row = byHead.get(`${layer} ${head}`);
      return row ? { share: valueOf(row) / most, text: (100 * valueOf(row)).toFixed(0), marked: row.lookup, title: `layer ${layer}, head ${head}: ${percent(valueOf(row), 1)} ${shown === "lost" ? "lost" : "computed"}${row.lookup ? ", lookup head" : ""}` } : null;
    }, { picked: (layer, head) => show({ layer, head }), ramp: shown === "lost" ? lossColour : goodColour, corner: "layer" });
    const here = grid.querySelector(`[data-row="${viewer.layer}"][data-column="${viewer.head}"]`);
    if (here) here.classList.add("here");
    const names = { lost: "attention that is lost, %", density: "blocks computed, %" };
    return [make("h4", {}, "All heads"), make("div", { class: "controls" }, choice("shown", ["lost", "density"], shown, (value) => { shown = value; aside.replaceChildren(...overview()); }, (value) => names[value])), grid,
      make("div", { class: "legend" }, rampBar(shown === "lost" ? RED : BLUE, ["0", percent(most)]), viewer.record.rows.some((row) => row.lookup) ? make("span", { class: "key" }, make("i", { style: "border: 2px solid var(--mark)" }), "lookup head") : null),
      make("p", { class: "under" }, "Across: heads, down: layers. Choose one.")];
  }

  // Mouse and touch: a block under the pointer is read; a click keeps it.
  let kept = false;
  function blockAt(event) {
    const box = event.target.getBoundingClientRect(), side = box.width - MARGIN.left;
    const [key, query] = [event.clientX - box.left - MARGIN.left, event.clientY - box.top].map((at) => Math.floor(at / side * blockCount()));
    return query >= 0 && query < blockCount() && key >= 0 && key <= query ? { query, key } : null;
  }
  for (const { canvas } of panels) {
    canvas.addEventListener("pointermove", (event) => {
      const block = blockAt(event);
      if (block && !kept && event.pointerType === "mouse" && (block.query !== viewer.query || block.key !== viewer.key)) show(block, false);
    });
    canvas.addEventListener("click", (event) => {
      const block = blockAt(event);
      if (!block) return;
      kept = !(kept && block.query === viewer.query && block.key === viewer.key);
      show(block);
    });
  }
  maps.addEventListener("keydown", (event) => {
    const heads = viewer.record.rows, at = heads.indexOf(headNow());
    const moves = { ArrowUp: { query: viewer.query - 1 }, ArrowDown: { query: viewer.query + 1 }, ArrowLeft: { key: viewer.key - 1 }, ArrowRight: { key: viewer.key + 1 }, Home: { key: 0 }, End: { key: viewer.query } };
    const next = { PageUp: heads[at - 1], PageDown: heads[at + 1] }[event.key];
    const move = moves[event.key] || (next && { layer: next.layer, head: next.head });
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    kept = true;
    show(move);
  });

  const start = (record) => {
    viewer.record = record;
    if (!readAddress()) {
      viewer.choice = Math.max(0, list(record.json.window.choices).length - 1);
      // A head whose blocks have to be found: it loses little, and its attention is far.
      const ranked = record.rows.map((row) => ({ row, far: farShare(row) })).sort((a, b) => b.far - a.far);
      Object.assign(viewer, { layer: ranked[0].row.layer, head: ranked[0].row.head });
      worstBlock(ranked[0].row);
    }
  };
  start(records[0]);
  const { tokens: length, block } = records[0].json.window;
  const body = card(cards, `${subjectOf(records[0])}: ${length} tokens in blocks of ${block}`, { full: true, under: sourceOf(records[0]),
    controls: [choice("maps", records, records[0], (record) => { start(record); show(); }, (record) => record.path)] });
  body.append(controls, summary, make("div", { class: "viewer" }, make("div", {}, maps,
    make("div", { class: "legend" }, rampBar(BLUE, ["0.01 %", "100 % of a row (log scale)"]), rampBar(RED, ["", "the same, lost"]),
      make("span", { class: "key" }, make("i", { style: "background: var(--accent)" }), "computed"), make("span", { class: "key" }, make("i", { style: "background: var(--soft); border: 1px solid var(--line)" }), "left out")),
    make("p", { class: "keys" }, "Down: query tokens, across: key tokens. Point at a block to read it, click to keep it; ", make("kbd", {}, "←"), " ", make("kbd", {}, "→"), " ", make("kbd", {}, "↑"), " ", make("kbd", {}, "↓"), " move, ", make("kbd", {}, "Page ↑"), " ", make("kbd", {}, "Page ↓"), " change the head."),
    ), make("div", { class: "aside" }, make("h4", {}, "The block"), reading, aside)));
  show({}, false);
  new ResizeObserver(() => panels.forEach(({ canvas, panel }) => canvas.clientWidth && drawPanel(canvas, panel, mapsOf(headNow())))).observe(maps);
  onhashchange = () => readAddress() && show({}, false);
}

// How much of a head's attention lies outside of the first block and the last four.
function farShare(row) {
  const { truth } = mapsOf(row);
  let far = 0;
  for (let query = 5; query < blockCount(); ++query) for (let key = 1; key < query - 3; ++key) far += shareOf(truth[place(query, key)]);
  return far;
}

function attentionSection() {
  const records = attentionRecords();
  if (records.length === 0) return;
  const cards = section("attention", "Real attention", "What each head of the model looks at, what its gate makes of that, which blocks are computed, and what is lost by leaving the others out.");
  for (const record of records) shownFiles.add(record.path);
  viewerCard(cards, records);
}

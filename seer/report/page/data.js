// The results: reading them, names and colours that stay the same over all charts, numbers as text.

const DATA = JSON.parse(document.getElementById("data").textContent);
const PUBLISHED = JSON.parse(document.getElementById("published").textContent);

// NaN and Infinity are strings in the data: they count as missing.
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const list = (value) => (Array.isArray(value) ? value : []);
const unique = (values) => [...new Set(values)];
const groupBy = (values, keyOf) => {
  const groups = new Map();
  for (const value of values) {
    const key = keyOf(value);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(value);
  }
  return groups;
};

// Rows are objects; whatever else stands among them says nothing.
const RESULTS = DATA.files.filter((file) => file.kind === "results").map((file) => ({
  path: file.path, json: file.json, rows: list(file.json.rows).filter((row) => row && typeof row === "object" && !Array.isArray(row)),
}));
const shownFiles = new Set();  // paths of what a section has drawn

// Results of which some rows pass; their rows are those that do.
function resultsWith(test) {
  return RESULTS.map((file) => ({ ...file, rows: file.rows.filter(test) })).filter((file) => file.rows.length > 0);
}

// Files of most methods first: those that a reader compares.
function mostMethodsFirst(files) {
  const methods = (file) => unique(file.rows.map((row) => row.method)).length;
  return [...files].sort((a, b) => methods(b) - methods(a));
}

const text = (value) => (typeof value === "string" ? value : "");
const baseName = (path) => text(path).split("/").filter(Boolean).pop() || "";
const stem = (path) => baseName(path).replace(/\.(txt|md|json|jsonl|ndjson)?(\.(zst|gz))?$/, "").replace(/\.(jsonl?|ndjson|txt)$/, "");

// Of results whose rows are of several models, or of one that was trained for them: "yarn_smollm2_books.json" is of SmolLM2-135M and books.
const WORDS = [[/^(yarn|lengths) /, "YaRN: "], [/^(facts|copies|needle) /, ""], [/\bembedded\b/, "embedded model,"], [/\bsmollm2\b/, "SmolLM2-135M,"], [/\bseed2\b/, "gates of another seed,"],
  [/\bevery\b/, "gates that learn in every n-th step,"], [/\bwith lr(\S+)/, "learning rate $1,"], [/\bwith gates(\d\S*)/, "gates' learning rate $1,"], [/, yarn$/, ", dense YaRN"], [/, joint(\d+)$/, ", YaRN with SeerAttention at $1 %"]];
const nameOfFile = (path) => WORDS.reduce((name, [found, word]) => name.replace(found, word), stem(path).replace(/_/g, " "));

// Which blocks all methods kept.
function keptText(file) {
  const settings = file.json.settings || {};
  const kept = [settings["sink-blocks"] > 0 ? "first" : "", settings["local-blocks"] > 0 ? "recent" : ""].filter(Boolean).join(" and ");
  return kept && `${kept} blocks kept`;
}

// What a measurement was made on: the text's name, the model's where results name it.
function subjectOf(file) {
  const settings = file.json.settings || {};
  const data = list(settings.data).map(stem).join(", ") || stem(file.json.text);
  const model = baseName(file.json.model || settings.model), gates = baseName(settings.gates);
  const isTrained = /^(yarn|lengths|facts|copies|needle)_(embedded|smollm2)_/.test(baseName(file.path)) && /^(dense|joint)/.test(model);
  if (isTrained || unique(file.rows.map((row) => row.model).filter(text)).length > 1) return nameOfFile(file.path);
  const name = model === "reference" ? "embedded model" : model;
  return [name, gates === "gates" ? "" : gates.replace(/_/g, " "), data, keptText(file)].filter(Boolean).join(", ") || stem(file.path);
}

const isGpu = (file) => /nvidia|amd instinct/i.test(text(file.json.chip));
const chipOf = (file) => text(file.json.chip).replace(/\((R|TM)\)|Processor|CPU.*$/g, "").replace(/\s+/g, " ").trim() + (file.json.avx2_at_most ? " with AVX2" : "");

function sourceOf(file) {
  const made = file.json;
  const threads = isNumber(made.threads) && !isGpu(file) ? `, ${counted(made.threads, "thread")}` : "";
  return [text(made.chip) + threads, text(made.date), file.path].filter(Boolean).join(" · ");
}

// Numbers.
const counted = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
const tokens = (n) => (!isNumber(n) ? "?" : n >= 1024 && n % 1024 === 0 ? `${n / 1024}k` : n >= 100000 ? `${Math.round(n / 1000)}k` : `${n}`);
const percent = (share, digits = 0) => (isNumber(share) ? `${(100 * share).toFixed(digits)} %` : "–");
// Shares of blocks: two digits that say something.
const densityText = (share) => (isNumber(share) ? `${+(100 * share).toPrecision(share < .1 ? 1 : 2)} %` : "–");
const significant = (value, digits = 3) => (isNumber(value) ? `${+value.toPrecision(digits)}` : "–");
const perplexityText = (value) => (isNumber(value) ? value.toFixed(value < 10 ? 3 : value < 1000 ? 2 : 0) : "–");
const milliseconds = (ms) => (!isNumber(ms) ? "–" : ms === 0 ? "0" : ms >= 1000 ? `${significant(ms / 1000)} s` : ms >= 1 ? `${significant(ms)} ms` : `${significant(ms * 1000)} µs`);

// Colours, [light, dark], and names of methods and implementations.
const NAMED = {
  dense: ["dense", "#111827", "#ffffff"],
  seer: ["learned gates", "#2563eb", "#6ea8fe"],
  gate: ["gates without lookup heads", "#0e7490", "#22d3ee"],
  oracle: ["oracle (true map)", "#059669", "#34d399"],
  streaming: ["sink + window", "#d97706", "#fbbf24"],
  untrained: ["untrained gates", "#9333ea", "#c99bff"],
  random: ["random", "#8b93a1", "#7d8796"],
  pooled: ["pooled q k", "#dc2626", "#f87171"],
  quest: ["Quest", "#be185d", "#f472b6"],
  xattention: ["XAttention", "#4d7c0f", "#a3e635"],
  minference_vs: ["MInference, vertical-slash", "#92400e", "#d9a066"],
  flexprefill: ["FlexPrefill", "#4338ca", "#a5b4fc"],
  duo: ["DuoAttention", "#a21caf", "#f0abfc"],
  "torch FlashAttention-2": ["FlashAttention-2", "#111827", "#ffffff"],
  "seer, map alone": ["seer, map alone", "#059669", "#34d399"],
  "torch cuDNN": ["cuDNN", "#0e7490", "#22d3ee"],
  "seer, 50%": ["seer, 50%", "#7aa2f7", "#3b6fd4"],
  "seer, 90%": ["seer, 90%", "#2563eb", "#6ea8fe"],
  "sdpa, FlashAttention-2": ["FlashAttention-2", "#111827", "#ffffff"],
  "sdpa, cuDNN": ["cuDNN", "#0e7490", "#22d3ee"],
  flex_attention: ["FlexAttention", "#d97706", "#fbbf24"],
  "torch sdpa": ["torch, dense", "#111827", "#ffffff"],
  "cuDNN block-sparse": ["cuDNN block-sparse", "#be185d", "#f472b6"],
  FlexAttention: ["FlexAttention", "#d97706", "#fbbf24"],
  FlashInfer: ["FlashInfer", "#4d7c0f", "#a3e635"],
};
const OTHERS = [["#dc2626", "#f87171"], ["#0e7490", "#22d3ee"], ["#be185d", "#f472b6"], ["#4d7c0f", "#a3e635"], ["#92400e", "#d9a066"],
  ["#4338ca", "#a5b4fc"], ["#0f766e", "#5eead4"], ["#a21caf", "#f0abfc"], ["#475569", "#cbd5e1"], ["#ca8a04", "#fde047"]];
const SHAPES = ["circle", "rectRot", "triangle", "rect", "star", "crossRot"];
const given = new Map();  // names beyond NAMED: their number, in the order of the alphabet

function nameColours() {
  const names = new Set();
  for (const file of RESULTS) {
    for (const row of file.rows) for (const key of ["method", "implementation"]) if (text(row[key])) names.add(row[key]);
  }
  for (const name of [...names].sort()) if (!NAMED[name]) given.set(name, given.size);
}
const numberOf = (name) => {
  if (!given.has(name)) given.set(name, given.size);
  return given.get(name);
};
const isDark = () => document.documentElement.dataset.theme === "dark";
// The method of a name such as "seer, top_p", which shares its colour.
const namedOf = (name) => (NAMED[name] ? name : text(name).split(", ")[0]);
const labelOf = (name) => (NAMED[name] ? NAMED[name][0] : name);
const colourOf = (name) => (NAMED[namedOf(name)] ? NAMED[namedOf(name)].slice(1) : OTHERS[numberOf(name) % OTHERS.length])[isDark() ? 1 : 0];
// Rivals have shapes of their own, as colours are many.
const ROUND = ["dense", "seer", "oracle", "streaming", "untrained", "random"];
const shapeOf = (name) => (ROUND.includes(name) ? "circle" : SHAPES[(NAMED[name] ? Object.keys(NAMED).indexOf(name) : numberOf(name) + 1) % SHAPES.length]);
// Implementations: the project's own is what the others are beside.
const implementationOf = (name) => (name === "seer" ? "seer" : labelOf(name));

// Parts of the page and its charts.

const waiting = [];  // {canvas, build}: charts to be drawn
const drawn = [];    // charts
const problems = [];
window.addEventListener("error", (event) => problem(event.message));

function problem(message) {
  problems.push(message);
  document.documentElement.dataset.errors = problems.join(" | ");
  document.getElementById("main").prepend(make("p", { class: "error" }, `Something went wrong on this page: ${message}`));
}

// An element with attributes and children; texts are texts, never markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") element.style.cssText = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function section(id, title, lead) {
  const cards = make("div", { class: "cards" });
  const element = make("section", { id }, make("h2", {}, title), make("p", { class: "lead" }, lead), cards);
  document.getElementById("main").append(element);
  document.getElementById("nav").append(make("a", { href: `#${id}` }, title));
  return cards;
}

function card(parent, title, { under = "", full = false, controls = [] } = {}) {
  const body = make("div");
  parent.append(make("figure", { class: full ? "card full" : "card" },
    make("header", {}, make("h3", {}, title), make("div", { class: "controls" }, controls)), body,
    under ? make("figcaption", { class: "under" }, under) : null));
  return body;
}

// A list to choose from; calls `changed` with the value. One choice needs no list.
function choice(label, values, chosen, changed, names = (value) => value) {
  if (values.length < 2) return null;
  const select = make("select", { "aria-label": label, onchange: () => changed(values[select.selectedIndex]) },
    values.map((value) => make("option", {}, names(value))));
  select.selectedIndex = Math.max(0, values.indexOf(chosen));
  return make("label", {}, label, select);
}

// Vertical bars of standard errors: points with `error`.
const errorBars = {
  id: "errorBars",
  afterDatasetsDraw(chart) {
    const { ctx, scales: { y }, chartArea } = chart;
    chart.data.datasets.forEach((dataset, index) => {
      if (!chart.isDatasetVisible(index)) return;
      const points = chart.getDatasetMeta(index).data;
      dataset.data.forEach((value, i) => {
        if (!value || !isNumber(value.error) || value.error <= 0 || !points[i] || value.y > y.max || value.y < y.min) return;
        const [low, high] = [-1, 1].map((sign) => Math.min(chartArea.bottom, Math.max(chartArea.top, y.getPixelForValue(value.y + sign * value.error))));
        ctx.save();
        ctx.strokeStyle = dataset.borderColor;
        ctx.globalAlpha = .6;
        ctx.beginPath();
        ctx.moveTo(points[i].x, low);
        ctx.lineTo(points[i].x, high);
        ctx.stroke();
        ctx.restore();
      });
    });
  },
};

function settle() {
  Object.assign(Chart.defaults, { animation: false, responsive: true, maintainAspectRatio: false, color: css("--ink"), borderColor: css("--line") });
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  Chart.defaults.font.size = 12;
  Object.assign(Chart.defaults.plugins.legend, { position: "bottom" });
  Object.assign(Chart.defaults.plugins.legend.labels, { usePointStyle: true, boxWidth: 8, boxHeight: 8, padding: 12, color: css("--ink") });
  Object.assign(Chart.defaults.plugins.tooltip, {
    backgroundColor: css("--ink"), titleColor: css("--paper"), bodyColor: css("--paper"), footerColor: css("--paper"), padding: 10, cornerRadius: 8, usePointStyle: true, boxPadding: 4,
  });
}

// A chart that `build()` describes. Charts are drawn one after another, the page's first ones first, so that it is there at once.
function addChart(parent, label, build, height) {
  const canvas = make("canvas", { role: "img", "aria-label": label });
  parent.append(make("div", { class: "canvas", style: height ? `height: ${height}px` : "" }, canvas));
  waiting.push({ canvas, build });
  if (waiting.length === 1) setTimeout(drawNext);
}

function drawNext() {
  const until = performance.now() + 30;
  while (waiting.length && performance.now() < until) {
    const { canvas, build } = waiting[0];
    try {
      if (canvas.isConnected) drawn.push(new Chart(canvas, build()));
    } catch (error) {
      problem(`${canvas.getAttribute("aria-label")}: ${error.message}`);
    }
    waiting.shift();
  }
  if (waiting.length) setTimeout(drawNext);
  else Object.assign(document.documentElement.dataset, { ready: "yes", charts: drawn.filter((chart) => chart.canvas && chart.canvas.isConnected).length });
}

const grid = () => ({ color: css("--line"), drawTicks: false });
const titled = (title) => ({ display: true, text: title, color: css("--pale") });
const ticks = (format) => ({ color: css("--pale"), padding: 6, callback: format, includeBounds: false });

// An axis with marks at these values; those outside of it are left out.
function marked(type, title, marks, format, more = {}) {
  return {
    type, title: titled(title), grid: grid(), ticks: ticks(format), ...more,
    afterBuildTicks(scale) {
      scale.ticks = marks.filter((value) => value >= scale.min * .999 && value <= scale.max * 1.001).map((value) => ({ value }));
    },
  };
}
const DENSITIES = [.01, .02, .05, .1, .2, .5, 1];
const densityAxis = (points) => {
  const least = Math.min(.5, ...points.map((point) => point.x).filter((x) => x > 0));
  return marked("logarithmic", "share of blocks computed (log scale)", DENSITIES, (value) => `${+(100 * value).toPrecision(2)} %`,
    { min: Math.max(...DENSITIES.filter((mark) => mark <= least * .97), .005), max: 1 });
};
const linear = (title, format, more = {}) => ({ type: "linear", title: titled(title), grid: grid(), ticks: ticks(format), ...more });
// Powers of ten with 2 and 5 between.
const TENS = Array.from({ length: 40 }, (_, i) => [1, 2, 5][i % 3] * 10 ** (Math.floor(i / 3) - 5)).map((value) => +value.toPrecision(1));
// From the mark below the least of the values to that above the largest.
const logarithmic = (title, format, values) => {
  const positive = values.filter((value) => value > 0), least = Math.min(...positive), most = Math.max(...positive);
  return marked("logarithmic", title, TENS, format, { min: TENS.filter((mark) => mark <= least * .95).at(-1), max: TENS.find((mark) => mark >= most * 1.05) });
};
const categories = (title) => ({ type: "category", title: titled(title), grid: { display: false }, ticks: { color: css("--pale") } });

// A line of points {x, y, note, error}. The oracle's are rings: what lies on it shows inside of them.
function line(name, points, { colour, shape, dash, label, width = 2, radius = 4 } = {}) {
  const isRing = name === "oracle" && radius > 0;
  if (isRing) radius += 2.5;
  return {
    label: label || labelOf(name), data: points, borderColor: colour || colourOf(name), backgroundColor: isRing ? "transparent" : colour || colourOf(name),
    borderWidth: width, pointBorderWidth: isRing ? 2 : 1, pointRadius: radius, pointHoverRadius: radius + 2, pointStyle: radius === 0 ? "line" : shape || shapeOf(name), borderDash: dash || [], spanGaps: true, tension: 0,
    clip: 8,
  };
}

// Tooltips that say what a point's `note` says, its title from `titleOf(point)`.
const notes = (titleOf) => ({
  tooltip: {
    callbacks: {
      title: (items) => (items.length ? titleOf(items[0].raw) : ""),
      label: (item) => `${item.dataset.label}: ${item.raw.note}`,
    },
  },
});
const nearest = { mode: "nearest", intersect: false, axis: "xy" };

// A grid of coloured cells. cellOf(row, column): {share (0 to 1 of the ramp), text, title, marked}, or null.
function heat(rows, columns, cellOf, { rowNames = rows, columnNames = columns, picked, ramp = lossColour, corner = "" } = {}) {
  const step = Math.max(1, Math.ceil(columns.length / 16));
  const element = make("div", { class: `heat${picked ? " picks" : ""}${rows.length > 16 ? " dense" : ""}`, style: `grid-template-columns: max-content repeat(${columns.length}, minmax(0, 1fr))` });
  element.append(make("div", { class: "axis" }, corner), ...columnNames.map((name, i) => make("div", { class: "axis" }, i % step === 0 ? `${name}` : "")));
  rows.forEach((row, i) => {
    element.append(make("div", { class: "axis", style: "padding-right: 6px" }, `${rowNames[i]}`));
    for (const column of columns) {
      const cell = cellOf(row, column);
      const colour = cell ? ramp(cell.share) : css("--unseen");
      const [red, green, blue] = cell ? colour.match(/\d+/g).map(Number) : [0, 0, 0];
      const ink = .3 * red + .59 * green + .11 * blue > 140 ? "#111827" : "#ffffff";
      element.append(make("div", {
        class: `cell${cell && cell.marked ? " mark" : ""}`, title: cell ? cell.title : "not measured", "data-row": row, "data-column": column,
        style: `background: ${colour}; color: ${ink}`, onclick: picked && cell ? () => picked(row, column) : () => {},
      }, cell && columns.length <= 12 ? cell.text : ""));
    }
  });
  return element;
}

// Of lines that grow with something.
const STEPS = { light: [[245, 158, 11], [225, 75, 85], [168, 40, 150], [79, 50, 190], [20, 30, 90]], dark: [[253, 230, 120], [251, 160, 90], [244, 100, 140], [190, 110, 240], [130, 170, 255]] };
const stepColour = (index, count) => rgb(mixed(stopsOf(STEPS), count > 1 ? index / (count - 1) : .75));

// Ramps of colours, "rgb(r, g, b)" of a share of 0 to 1.
function mixed(stops, share) {
  const at = Math.min(1, Math.max(0, isNumber(share) ? share : 0)) * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(at));
  return stops[i].map((from, c) => Math.round(from + (stops[i + 1][c] - from) * (at - i)));
}
const BLUE = { light: [[247, 249, 252], [196, 219, 245], [104, 165, 226], [34, 94, 184], [10, 34, 92]], dark: [[18, 22, 28], [20, 52, 96], [36, 102, 170], [96, 178, 226], [236, 248, 255]] };
const RED = { light: [[247, 249, 252], [254, 215, 195], [251, 140, 107], [214, 47, 39], [103, 0, 13]], dark: [[18, 22, 28], [84, 22, 28], [170, 44, 40], [244, 120, 80], [255, 226, 190]] };
const stopsOf = (ramp) => (isDark() ? ramp.dark : ramp.light);
const rgb = (colour) => `rgb(${colour.join(", ")})`;
const goodColour = (share) => rgb(mixed(stopsOf(BLUE), share));
const lossColour = (share) => rgb(mixed(stopsOf(RED), share));
function rampBar(ramp, names) {
  const bar = make("i");
  bar.style.background = `linear-gradient(90deg, ${stopsOf(ramp).map(rgb).join(", ")})`;
  return make("span", { class: "ramp" }, names[0], bar, names[1]);
}

// The timeline's page half: draws the columns that timeline.py packs (see `columns` there for the format).
//
// Events arrive sorted by row and start, and events of one row never overlap. So the visible part of a row is found by
// bisection, and where many events share a pixel the next pixel's first event is found the same way: a frame costs about
// (rows on screen) x (pixels), however many events there are. Names only ever become text, never HTML.

const AXIS = 26, MAP = 26, TOP = AXIS + MAP, HEADER = 28, ROW = 20, GAP = 8; // heights in CSS pixels
const CURVE = 56, MARK = 4; // of a counter's lane; from the middle of an instant's triangle to its sides
const OWN_AXIS = 20; // of the axis that a group has in its header, where each has its own
const PAD = 12, MAX_LABEL = 220, MIN_SPAN = 20; // pixels, pixels, nanoseconds
const MAX_HEIGHT = 640, GROWN = 2400; // pixels of the canvas: at first, and where all lanes were asked for
const HATCH_TILE = 8;
const MAP_LABEL = "busy lanes", MAP_OF_SEVERAL = "overview"; // of the minimap; groups never ran at the same time
const OWN_AXIS_LABEL = "own time axis";
const OWN_AXES = "Each approach has a time axis of its own: do not compare lengths between approaches.";
const MODES = ["branch", "name", "category"]; // what colours can stand for, in the order of a kind's looks
const MAX_ARROWS = 500; // of one event, that are drawn
const LONGEST = 300; // characters of a name that are measured and shown

const HINT = "click or arrow keys: select an event · wheel: zoom · drag: pan · shift-drag: measure · F: fit";
const STYLE = `
.kit-timeline { --page: var(--jp-layout-color0, #fff); --band: var(--jp-layout-color2, #eef0f2);
  --ink: var(--jp-ui-font-color0, #111); --muted: var(--jp-ui-font-color2, #5f6368); --line: var(--jp-border-color2, #d0d4da);
  --focus: var(--jp-brand-color1, #1976d2); background: var(--page); color: var(--ink); position: relative; min-width: 320px;
  font: 12px/1.4 var(--jp-ui-font-family, system-ui, Helvetica, Arial, sans-serif); border: 1px solid var(--line); }
.kit-timeline .bar { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: center; padding: 6px 12px 0; }
.kit-timeline .bar:nth-of-type(2) { padding-bottom: 6px; min-height: 18px; }
.kit-timeline .bar label { display: inline-flex; align-items: center; gap: 6px; }
.kit-timeline .found { color: var(--muted); min-width: 84px; font-variant-numeric: tabular-nums; }
.kit-timeline .key { display: inline-flex; align-items: center; gap: 6px; max-width: 260px; }
.kit-timeline .key span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.kit-timeline .gap { flex: 1 1 0; }
.kit-timeline :is(button, input, select) { font: inherit; color: var(--ink); background: var(--page); border: 1px solid var(--muted);
  padding: 2px 6px; border-radius: 3px; box-sizing: border-box; height: 24px; margin: 0; }
.kit-timeline input { width: 150px; }
.kit-timeline button { padding: 2px 10px; cursor: pointer; }
.kit-timeline button[aria-expanded="true"] { background: var(--band); }
.kit-timeline :is(button, input, select, .stage):focus-visible { outline: 2px solid var(--focus); outline-offset: -2px; }
.kit-timeline .stage { overflow: hidden auto; position: relative; width: 0; min-width: 100%; } /* its canvas never holds the page wide */
.kit-timeline button.cue { display: block; width: 100%; border-width: 1px 0 0; border-radius: 0; border-color: var(--line);
  background: var(--band); }
.kit-timeline canvas { display: block; }
.kit-timeline .stage canvas { position: sticky; top: 0; cursor: grab; touch-action: none; }
.kit-timeline .details { padding: 4px 12px 6px; min-height: 17px; border-top: 1px solid var(--line); color: var(--muted);
  overflow-wrap: anywhere; }
.kit-timeline .arguments { display: grid; grid-template-columns: max-content 1fr; gap: 0 12px; margin: 0; padding: 4px 12px 6px;
  border-top: 1px solid var(--line); max-height: 260px; overflow: auto; }
.kit-timeline .arguments dt { color: var(--muted); max-width: 220px; overflow-wrap: anywhere; }
.kit-timeline .arguments dd { margin: 0; min-width: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.kit-timeline .arguments summary { cursor: pointer; }
.kit-timeline .ruler { position: absolute; width: 0; border-left: 1px solid var(--muted); pointer-events: none; left: 0; }
.kit-timeline .ruler span { position: absolute; top: 3px; left: 4px; padding: 0 4px; white-space: nowrap; background: var(--page); }
.kit-timeline .ruler.late span { left: auto; right: 4px; }
.kit-timeline .tip { position: absolute; z-index: 10; pointer-events: none; max-width: 340px; padding: 6px 9px; background: var(--page);
  border: 1px solid var(--muted); border-radius: 3px; box-shadow: 0 2px 8px rgba(0, 0, 0, .3); overflow-wrap: anywhere; }
.kit-timeline .tip div:first-child { font-weight: 600; }
.kit-timeline .tip div + div { color: var(--muted); }
.kit-timeline .twin { max-height: 320px; overflow: auto; padding: 0 12px 8px; border-top: 1px solid var(--line); }
.kit-timeline table { border-collapse: collapse; font: inherit; color: inherit; margin: 6px 0; }
.kit-timeline th, .kit-timeline td { text-align: left; padding: 2px 20px 2px 0; border-bottom: 1px solid var(--line); }
.kit-timeline .number { text-align: right; font-variant-numeric: tabular-nums; }
.kit-timeline [hidden] { display: none; }`;

// ---- small tools ----------------------------------------------------------------------------------------------------

/** A position for people in the unit of `scale`, with all the digits that a step (ns) needs: "12.35 ms". */
function position(ns, step, scale = step) {
  const [unit, size] = [["s", 1e9], ["ms", 1e6], ["µs", 1e3]].find(([, size]) => scale >= size) ?? ["ns", 1];
  const digits = Math.max(0, -Math.floor(Math.log10(step / size) + 1e-9));
  return `${(ns / size).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${unit}`;
}

/** A counter's value: "1,234.5", "92.1 MiB". */
function amount(value, bytes) {
  const [unit, size] = (bytes && [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]].find(([, size]) => Math.abs(value) >= size)) || ["B", 1];
  const digits = size > 1 ? { maximumFractionDigits: Math.abs(value) < 100 * size ? 1 : 0 } : { maximumSignificantDigits: 15 };
  return (value / size).toLocaleString("en", digits) + (bytes ? ` ${unit}` : "");
}

/** The first place in [low, high) whose value is above (or, with `orEqual`, at least) the key; else high. */
function bisect(values, key, low, high, orEqual = false) {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < key || (!orEqual && values[middle] === key)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** "#rrggbb" as a pixel of an image: its four bytes in the order of the memory of every machine with a browser. */
function pixel(colour) {
  const [r, g, b] = channels(colour);
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

// ---- the columns ----------------------------------------------------------------------------------------------------

function readColumns(meta, buffers) {
  // A DataView may start anywhere in its message, a typed array only at a multiple of its item size: copy.
  const [Whole, Real] = [Uint32Array, Float64Array];
  const arrays = [Whole, Real, Real, Whole, Whole, Whole, Whole, Real, Real, Real, Whole, Whole].map((Type, i) => {
    const { buffer, byteOffset, byteLength } = buffers[i];
    return new Type(buffer.slice(byteOffset, byteOffset + byteLength));
  });
  const [first, start, duration, kind, index, weight, links, ...points] = arrays; // weight: how many events a part of the copy stands for
  const [curveTime, curveValue, markTime, markLane, markName] = points;
  return { ...meta, first, start, duration, kind, index, weight, links, curveTime, curveValue, markTime, markLane, markName };
}

// A notebook may show one widget several times. Each view gets a model object of its own, but the copy is the same
// object in all of them: the full columns, once here, are kept by it.
const received = new WeakMap();

// ---- where things go ------------------------------------------------------------------------------------------------

/**
 * Bands from top to bottom: a header per group, then its lanes, each with the global number of its first row and the
 * places of its instants, then its counters.
 */
function layOut(data, ownAxes) {
  const tall = HEADER + (ownAxes ? OWN_AXIS : 0);
  const bands = [];
  const groups = new Map(data.groups.map((group) => [group.name, group]));
  const marksOf = (place) => [true, false].map((begin) => bisect(data.markLane, place, 0, data.markLane.length, begin));
  let y = TOP, row = 0, group = null;
  const addCurves = () => {
    for (const curve of data.curves.filter((each) => each.group === group)) {
      bands.push({ top: y + GAP / 2, height: CURVE, curve, group: groups.get(group) });
      y += CURVE + GAP;
    }
  };
  data.lanes.forEach((lane, place) => {
    if (lane.group !== group) {
      addCurves();
      group = lane.group;
      bands.push({ top: y, height: tall, header: true, group: groups.get(group) });
      y += tall;
    }
    bands.push({ top: y + GAP / 2, height: lane.rows * ROW, lane, row, marks: marksOf(place), group: groups.get(group) });
    y += lane.rows * ROW + GAP;
    row += lane.rows;
  });
  addCurves();
  return { bands, height: y, marks: marksOf(data.lanes.length) };
}

/**
 * The plain rectangles of all rows on screen. A frame may have a hundred thousand of them: as calls of the canvas they
 * take several frames' time, so they are written as pixels of an image with three lines per row, and each line is drawn
 * as tall as what it stands for. OUTER: bars with their edges; INNER: their fill; CROWD: events too thin to tell apart.
 */
const OUTER = 0, INNER = 1, CROWD = 2;
const LINES = [[0, ROW - 1], [1, ROW - 3], [3, ROW - 7]]; // where each line goes in a row: top, height

class Rectangles {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.pen = this.canvas.getContext("2d", { willReadFrequently: true }); // which keeps it in plain memory
  }

  begin(width, rows) {
    if (this.canvas.width !== width || this.canvas.height < 3 * rows) {
      [this.canvas.width, this.canvas.height] = [width, 3 * rows];
      this.image = this.pen.createImageData(width, 3 * rows);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    this.width = width;
    this.pixels.fill(0);
    this.used = new Uint8Array(this.canvas.height);
  }

  /** Pixels [from, to) of a row's line, of which every second `step` long stretch may have another colour. */
  fill(row, line, from, to, colour, comb = colour, step = 1) {
    const at = (3 * row + line) * this.width;
    const [first, last] = [Math.max(0, from), Math.min(this.width, to)];
    if (comb === colour) this.pixels.fill(colour, at + first, at + Math.max(first, last));
    else for (let x = first; x < last; x++) this.pixels[at + x] = Math.floor(x / step) % 2 ? comb : colour;
    this.used[3 * row + line] = 1;
  }

  draw(pen, left, wide, tops) {
    this.pen.putImageData(this.image, 0, 0);
    pen.imageSmoothingEnabled = false;
    tops.forEach((y, row) => LINES.forEach(([top, tall], line) => {
      if (this.used[3 * row + line]) pen.drawImage(this.canvas, 0, 3 * row + line, this.width, 1, left, y + top, wide, tall);
    }));
  }
}

// ---- one view -------------------------------------------------------------------------------------------------------

class View {
  constructor(model, el) {
    this.model = model;
    this.hover = -1; // place of an event in the columns
    this.widths = new Map(); // text -> pixels
    this.undo = []; // what close() has to run
    this.hits = null; // per place, how many events before it match the search, or else `marked`; null without either
    this.marked = ""; // the branch that the pointer is on in another view of the page
    this.rectangles = new Rectangles();
    this.focused = false; // whether the keys come here
    this.measuring = null; // the window of a shift-drag that goes on, in ns
    this.build(el);
    const copy = model.get("copy");
    this.use(received.get(copy) ?? readColumns(copy, copy.buffers));
    this.listen();
    if (this.data.thin) model.send({ ask: "columns" });
  }

  build(el) {
    this.root = element("div", "kit-timeline");
    this.root.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes A, D, F, S for its own commands
    this.bar = element("div", "bar");
    this.legend = element("div", "bar");
    this.scrolled = -Infinity; // when the wheel last turned elsewhere on the page
    this.search = element("input", "");
    this.search.type = "search";
    this.search.placeholder = "a name, or press /";
    this.found = element("output", "found");
    this.colour = element("select", "");
    for (const mode of MODES) this.colour.append(element("option", "", mode));
    const labelled = (text, control) => {
      const label = element("label", "", text);
      label.append(control);
      return label;
    };
    this.fitting = element("button", "", "Fit each row");
    this.fitting.type = "button";
    this.cue = element("button", "cue"); // that there is more below: not every browser shows a scroll bar
    this.cue.type = "button";
    this.most = MAX_HEIGHT;
    this.button = element("button", "", "Table");
    this.button.type = "button";
    this.button.setAttribute("aria-expanded", "false");
    this.stage = element("div", "stage");
    this.stage.tabIndex = 0;
    this.stage.setAttribute("role", "application");
    this.canvas = document.createElement("canvas");
    this.pen = this.canvas.getContext("2d", { alpha: false });
    this.details = element("div", "details");
    this.details.setAttribute("aria-live", "polite");
    this.args = element("dl", "arguments"); // of the selected event; the kernel has them
    this.args.hidden = true;
    this.asked = -1;
    this.twin = element("div", "twin");
    this.twin.hidden = true;
    this.tip = element("div", "tip");
    this.tip.hidden = true;
    this.ruler = element("div", "ruler"); // an element, as it follows the pointer: no frame has to be drawn for it
    this.ruler.hidden = true;
    this.ruler.append(element("span", ""));
    this.bar.append(labelled("Search", this.search), this.found, labelled("Colour by", this.colour), element("span", "gap"), this.fitting, this.button);
    this.stage.append(this.canvas);
    this.root.append(element("style", "", STYLE), this.bar, this.legend, this.stage, this.cue, this.details, this.args, this.twin, this.ruler, this.tip);
    el.append(this.root);
  }

  use(data) {
    this.data = data;
    this.hover = -1;
    this.several = data.groups.length > 1;
    this.fitting.hidden = !this.several;
    this.arrange();
    this.root.dataset.events = data.count; // how many can be drawn: the whole trace, or its thinned copy
    const keys = "W and S zoom, A and D pan, F fits, E fits each row, arrows walk the events, slash searches, M measures, R sets a ruler, Escape clears.";
    this.stage.setAttribute("aria-label", `${data.summary}. ${keys}`);
    this.find();
    this.fillTable();
    this.resize();
    this.describe();
  }

  listen() {
    const { on, follow } = listening(this);
    follow("change:view", () => this.redraw());
    for (const trait of ["selected", "selection", "measured", "ruler"]) {
      follow(`change:${trait}`, () => (this.describe(), this.redraw()));
    }
    follow("change:own_axes", () => this.resize());
    follow("change:colour", () => (this.restyle(), this.redraw()));
    follow("msg:custom", (message, buffers) => {
      if (message.args && message.event === this.model.get("selected")) this.fillArguments(message.args);
      if (!message.columns || !this.data.thin) return;
      const data = readColumns(message.columns, buffers);
      received.set(this.model.get("copy"), data);
      this.use(data);
    });
    on(this.canvas, "wheel", (event) => this.wheel(event), { passive: false });
    const scrolls = (event) => { if (!this.stage.contains(event.target)) this.scrolled = event.timeStamp; };
    on(window, "wheel", scrolls, { capture: true, passive: true });
    on(this.canvas, "pointerdown", (event) => this.press(event));
    on(this.canvas, "pointermove", (event) => this.move(event));
    on(this.canvas, "pointerup", (event) => this.release(event));
    on(this.canvas, "pointercancel", () => (this.drag = this.measuring = null));
    on(this.canvas, "pointerleave", () => (this.point(-1), this.follow(null)));
    on(this.search, "input", () => (this.find(), this.redraw()));
    on(this.search, "keydown", (event) => this.typed(event));
    on(this.colour, "change", () => (this.model.set("colour", this.colour.value), this.save(), this.restyle(), this.redraw()));
    on(this.stage, "scroll", () => (this.sayMore(), this.redraw()));
    on(this.fitting, "click", () => this.fitEach());
    on(this.cue, "click", () => {
      if (this.most < GROWN) (this.most = GROWN), this.resize();
      else this.stage.scrollTop = this.below() ? this.stage.scrollTop + this.height - TOP - HEADER : 0;
    });
    on(document, "kit-branch", ({ detail: { branch, from } }) => {
      if (from === this) return;
      this.marked = branch;
      this.find();
      this.redraw();
    });
    on(this.stage, "keydown", (event) => this.key(event));
    follow("change:selected", () => this.told());
    for (const type of ["focus", "blur"]) on(this.stage, type, () => ((this.focused = type === "focus"), this.told()));
    on(this.button, "click", () => {
      this.twin.hidden = !this.twin.hidden;
      this.button.setAttribute("aria-expanded", String(!this.twin.hidden));
    });
    const sizes = new ResizeObserver(() => this.resize());
    sizes.observe(this.root);
    const themes = new MutationObserver(() => requestAnimationFrame(() => this.resize())); // Jupyter hides the page for it
    themes.observe(document.body, { attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
    this.undo.push(() => sizes.disconnect(), () => themes.disconnect());
  }

  close() {
    this.save(true);
    tell(this, "");
    cancelAnimationFrame(this.frame);
    for (const step of this.undo) step();
    this.root.remove();
  }

  // ---- looks ----

  /** Read the page's theme and mix this view's colours for it. */
  restyle() {
    const css = getComputedStyle(this.root);
    const read = (name) => css.getPropertyValue(name).trim();
    const page = background(this.root);
    this.theme = { page, band: read("--band"), ink: read("--ink"), muted: read("--muted"), line: read("--line") };
    this.theme.focus = read("--focus");
    this.theme.dark = luminance(page) < 0.179;
    this.theme.family = css.fontFamily;
    this.widths.clear();
    this.texture = this.hatch("M0.5 0V8M2.5 0V8M4.5 0V8M6.5 0V8", page, 0.6);
    const mode = Math.max(0, MODES.indexOf(this.model.get("colour")));
    this.colour.value = MODES[mode];
    const looks = this.data.looks.map((look) => this.paint(look));
    this.looks = this.data.kinds.map((kind) => looks[kind[2 + mode]]); // per kind
    const crowd = { ...this.paint(["#8A8F98", 1, ""]), hatch: this.texture };
    this.crowdKey = this.legendKey("events too thin to tell apart", crowd);
    const keys = this.data.legend[mode].map(([label, ...look]) => this.legendKey(label, this.paint(look)));
    this.legend.replaceChildren(...keys, this.crowdKey);
  }

  /** The colours of one look on this page; `thin` is for what is too narrow to show a pale fill. */
  paint([colour, strength, hatch]) {
    const fill = blend(colour, this.theme.page, strength);
    const light = luminance(fill) > 0.179;
    const ink = light ? "#000000" : "#ffffff";
    const edge = blend(fill, light ? "#000000" : "#ffffff", 0.72);
    const thin = blend(colour, this.theme.page, Math.min(1, strength + 0.3));
    const bits = (look) => ({ ...look, bits: [look.edge, look.fill, look.thin, blend(look.thin, this.theme.page, 0.45)].map(pixel) });
    const look = bits({ fill, thin, ink, edge, hatch: hatch ? this.hatch(hatch, ink) : null });
    const dim = blend(fill, this.theme.page, 0.2); // for what a search does not find
    const faint = bits({ fill: dim, thin: dim, ink: luminance(dim) > 0.179 ? "#000000" : "#ffffff", edge: dim, hatch: null });
    return { ...look, hit: bits({ ...look, edge: this.theme.dark ? "#ffffff" : "#000000" }), faint };
  }

  hatch(path, ink, alpha = 0.45) {
    const scale = window.devicePixelRatio || 1;
    const tile = document.createElement("canvas");
    tile.width = tile.height = Math.round(HATCH_TILE * scale);
    const pen = tile.getContext("2d");
    pen.scale(tile.width / HATCH_TILE, tile.width / HATCH_TILE);
    pen.strokeStyle = ink;
    pen.globalAlpha = alpha;
    pen.stroke(new Path2D(path));
    const pattern = this.pen.createPattern(tile, "repeat");
    pattern.setTransform(new DOMMatrix().scale(HATCH_TILE / tile.width));
    return pattern;
  }

  legendKey(label, look) {
    const key = element("span", "key");
    const swatch = document.createElement("canvas");
    const scale = window.devicePixelRatio || 1;
    [swatch.width, swatch.height] = [18 * scale, 14 * scale];
    swatch.style.cssText = "width: 18px; height: 14px; flex: none";
    const pen = swatch.getContext("2d");
    pen.scale(scale, scale);
    for (const fill of [look.fill, look.hatch].filter(Boolean)) {
      pen.fillStyle = fill;
      pen.fillRect(0, 0, 18, 14);
    }
    pen.strokeStyle = look.edge;
    pen.strokeRect(0.5, 0.5, 17, 13);
    const text = element("span", "", label);
    text.title = label;
    key.append(swatch, text);
    return key;
  }

  fillTable() {
    const table = document.createElement("table");
    const line = (cells, tag) => {
      const row = table.insertRow();
      cells.forEach((cell, i) => row.append(element(tag, i >= cells.length - 2 ? "number" : "", String(cell))));
    };
    const grouped = this.data.groups.some((group) => group.name);
    const lead = (group) => (grouped ? [group] : []);
    line([...lead("approach"), "lane", "name", "count", "total"], "th");
    for (const [group, lane, name, count, total] of this.data.table) line([...lead(group), lane, name, count, human(total)], "td");
    this.twin.replaceChildren(table);
  }

  // ---- geometry ----

  arrange() {
    this.ownAxes = this.several && Boolean(this.model.get("own_axes"));
    this.layout = layOut(this.data, this.ownAxes);
  }

  resize() {
    // Not attached yet, or hidden: the size observer calls again.
    if (!this.root.clientWidth) return;
    this.restyle();
    this.arrange();
    this.fitting.textContent = this.ownAxes ? "One time axis" : "Fit each row";
    this.fitting.title = this.ownAxes ? "draw all on one time axis again (E)" : `${OWN_AXES} (E)`;
    this.root.dataset.ownAxes = this.ownAxes;
    const width = Math.max(320, this.root.clientWidth);
    const { height } = this.layout;
    const scale = window.devicePixelRatio || 1;
    this.height = height < this.most * 1.25 ? height : this.most; // one lane more is no reason to scroll
    this.stage.style.height = `${this.height}px`;
    this.scrollbar = height > this.height ? this.stage.offsetWidth - this.stage.clientWidth : 0;
    this.width = width - this.scrollbar;
    // The canvas is one screen high and sticks; its margin below makes the stage as tall as all the lanes.
    this.canvas.style.cssText = `width: ${this.width}px; height: ${this.height}px; margin-bottom: ${height - this.height}px`;
    this.canvas.width = Math.round(this.width * scale);
    this.canvas.height = Math.round(this.height * scale);
    this.scale = scale;
    this.font();
    const labels = [...this.data.lanes, ...this.data.curves].map(({ label }) => this.widthOf(label));
    const own = [this.several ? MAP_OF_SEVERAL : MAP_LABEL, ...(this.ownAxes ? [OWN_AXIS_LABEL] : [])].map((text) => this.widthOf(text));
    this.left = Math.ceil(Math.min(MAX_LABEL, [...labels, ...own].reduce((a, b) => Math.max(a, b)))) + 2 * PAD;
    this.right = this.width - PAD;
    this.map = this.drawnMap();
    this.draw();
    this.sayMore();
    this.root.dataset.lanes = JSON.stringify(
      this.layout.bands.filter((band) => band.lane).map(({ lane, top, height }) => ({
        label: lane.label, group: lane.group, top, height, left: this.left, width: this.right - this.left,
      })),
    );
    this.root.dataset.curves = JSON.stringify(
      this.layout.bands.filter((band) => band.curve).map(({ curve, top, height }) => ({
        label: curve.label, top, height, left: this.left, width: this.right - this.left,
      })),
    );
  }

  font(weight = 400) {
    this.pen.font = `${weight} 12px ${this.theme.family}`;
  }

  widthOf(text) {
    let width = this.widths.get(text);
    if (width !== undefined) return width;
    if (this.widths.size > 20_000) this.widths.clear();
    width = this.pen.measureText(text.slice(0, LONGEST)).width;
    this.widths.set(text, width);
    return width;
  }

  /** The text, or as much of its beginning as fits with an ellipsis, or "". */
  fit(text, room) {
    const width = this.widthOf(text);
    if (width <= room) return text;
    const part = (length) => text.slice(0, length) + "…";
    let length = Math.floor((Math.min(text.length, LONGEST) * (room - 12)) / width);
    while (length >= 3 && this.widthOf(part(length)) > room) length--;
    return length >= 3 ? part(length) : "";
  }

  /** What is in sight, in ns, and pixels per ns: of the whole, or of a group, which may have a time axis of its own. */
  span(group = null) {
    const [begin, end] = this.model.get("view").map((ns) => this.onAxis(ns, group));
    return { begin, end, perNs: (this.right - this.left) / (end - begin) };
  }

  /** From a time of the view to the one that a group draws there, which is another where each has an axis of its own. */
  onAxis(ns, group) {
    return group && this.ownAxes ? group.start + (ns / Math.max(1, this.data.wall)) * Math.max(1, group.wall) : ns;
  }

  /** And back. */
  inView(ns, group) {
    return group && this.ownAxes ? ((ns - group.start) / Math.max(1, group.wall)) * Math.max(1, this.data.wall) : ns;
  }

  groupOf(place) {
    return this.bandOf(this.rowOf(place)).group;
  }

  /** The group whose header or lanes are at a height of the canvas; null above all of them. */
  groupAt(y) {
    const inner = y + this.stage.scrollTop;
    return y < TOP ? null : (this.layout.bands.findLast(({ top }) => top <= inner + GAP / 2) ?? {}).group ?? null;
  }

  /** Give each group a time axis of its own, or take them all back onto one; either shows the whole. */
  fitEach() {
    if (!this.several) return;
    this.model.set("own_axes", !this.ownAxes);
    this.measure(null);
    this.show(0, Math.max(1, this.data.wall));
  }

  /** How many lanes begin below what is in sight. */
  below() {
    const bottom = this.stage.scrollTop + this.height;
    return this.layout.bands.filter(({ header, top }) => !header && top + ROW / 2 > bottom).length;
  }

  /** Say on the cue how many lanes are out of sight. */
  sayMore() {
    const count = this.below();
    const lanes = `${count} more lane${count === 1 ? "" : "s"} below`;
    const how = this.most < GROWN ? "show all" : "scroll";
    this.cue.textContent = count ? `▾ ${lanes}: ${how}` : this.stage.scrollTop > 0 ? "▴ back to the first lane" : "";
    this.cue.style.display = this.cue.textContent ? "" : "none";
  }

  /** Show [begin, end], kept within sight of the trace; every view of the model follows, the kernel a little later. */
  show(begin, end) {
    const wall = Math.max(1, this.data.wall);
    const length = Math.min(Math.max(end - begin, MIN_SPAN), 2 * wall);
    const middle = Math.min(Math.max((begin + end) / 2, 0), wall);
    this.model.set("view", [middle - length / 2, middle + length / 2]);
    this.save();
    this.redraw();
  }

  zoom(factor, x = (this.left + this.right) / 2) {
    const { begin, end, perNs } = this.span();
    const wall = Math.max(1, this.data.wall);
    const length = Math.min(Math.max((end - begin) * factor, MIN_SPAN), 2 * wall);
    const share = (x - this.left) / (this.right - this.left);
    const at = begin + (x - this.left) / perNs;
    this.show(at - share * length, at + (1 - share) * length);
  }

  pan(pixels) {
    const { begin, end, perNs } = this.span();
    this.show(begin + pixels / perNs, end + pixels / perNs);
  }

  /** Send what changed to the kernel, at most every 100 ms: a drag makes a hundred changes a second. */
  save(now = false) {
    if (now ? this.saving : !this.saving) {
      clearTimeout(this.saving);
      const send = () => ((this.saving = null), this.model.save_changes());
      if (now) send();
      else this.saving = setTimeout(send, 100);
    }
  }

  // ---- gestures ----

  /** The pointer, from the canvas's corner; by the stage, as a sticky canvas's own offsets lag behind a scroll. */
  where(event) {
    const box = this.stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  wheel(event) {
    // A scroll through the page that comes across the timeline goes on scrolling, and at full width so does zooming out.
    const { begin, end } = this.span();
    const widest = end - begin >= this.data.wall && event.deltaY > Math.abs(event.deltaX) && !event.shiftKey;
    const passing = event.timeStamp - this.scrolled < 250;
    if (passing) this.scrolled = event.timeStamp;
    if (passing || widest) return;
    event.preventDefault();
    this.stage.focus({ preventScroll: true }); // so that the keys work at once
    const unit = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    if (event.shiftKey && !event.deltaX) this.stage.scrollTop += event.deltaY * unit;
    else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.pan(event.deltaX * unit);
    else this.zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY * unit * (event.ctrlKey ? 0.01 : 0.002)))), this.where(event)[0]);
    const [x, y] = this.where(event); // what is under the pointer has changed
    this.point(this.eventAt(x, y), event);
    this.follow(x, y);
  }

  press(event) {
    if (event.button !== 0) return;
    this.stage.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    const [x, y] = this.where(event);
    const { begin, end } = this.span();
    const what = event.shiftKey ? "measure" : y < AXIS ? "axis" : y < TOP ? "map" : "pan";
    const group = this.groupAt(y);
    this.drag = { x, y, what, moved: false, group, from: this.timeAt(x, group) };
    if (what === "map") {
      const time = (x - this.left) / this.mapScale();
      if (time < begin || time > end) this.show(time - (end - begin) / 2, time + (end - begin) / 2);
    }
  }

  move(event) {
    const { drag } = this;
    const [x, y] = this.where(event);
    this.follow(x, y);
    if (!drag) {
      this.canvas.style.cursor = y < AXIS ? "col-resize" : y < TOP ? "ew-resize" : "";
      return this.point(this.eventAt(x, y), event);
    }
    const [dx, dy] = [x - drag.x, y - drag.y];
    if (!drag.moved && Math.hypot(dx, dy) < 4) return;
    this.point(-1);
    drag.moved = true;
    if (drag.what === "measure") {
      this.measuring = [drag.from, this.timeAt(x, drag.group)].sort((a, b) => a - b);
      this.describe();
      return this.redraw();
    }
    Object.assign(drag, { x, y });
    if (drag.what === "map") {
      const { begin, end } = this.span();
      return this.show(begin + dx / this.mapScale(), end + dx / this.mapScale());
    }
    this.canvas.style.cursor = "grabbing";
    this.stage.scrollTop -= dy;
    this.pan(-dx);
  }

  release(event) {
    const { drag } = this;
    const [x, y] = this.where(event);
    this.drag = null;
    this.canvas.style.cursor = "";
    if (!drag) return;
    if (drag.what === "measure") this.measure(drag.moved ? this.measuring : null, drag.group);
    else if (!drag.moved && drag.what === "axis") this.pin(this.timeAt(x));
    else if (!drag.moved && drag.what === "pan") this.select(this.eventAt(x, y));
  }

  timeAt(x, group = null) {
    const { begin, perNs } = this.span(group);
    return begin + (x - this.left) / perNs;
  }

  /** Pixels of the minimap per nanosecond. */
  mapScale() {
    return (this.right - this.left) / Math.max(1, this.data.wall);
  }

  /**
   * Ask for the metrics of a window, on the lanes in sight; null forgets it. A window without a length is none. Where
   * each group has its own axis, a window is one of a single group.
   */
  measure(window, group = null) {
    this.measuring = null;
    const only = this.ownAxes ? group : null;
    const lanes = this.layout.bands.filter((band) => band.lane && this.inSight(band) && (!only || band.group === only));
    this.model.set("lanes", lanes.map(({ lane }) => lane.index));
    this.model.set("selection", window && window[0] < window[1] ? window : null);
    this.save();
    this.describe();
    this.redraw();
  }

  inSight({ top, height }) {
    const scroll = this.stage.scrollTop;
    return top + height > scroll + TOP && top < scroll + this.height;
  }

  /** Measure the selected event, or else what is in sight: the keyboard's shift-drag. */
  measureByKey() {
    const place = this.selectedPlace();
    const group = place < 0 ? this.groupAt(TOP) : this.groupOf(place);
    const { begin, end } = this.span(group);
    const { start, duration } = this.data;
    this.measure(place < 0 ? [begin, end] : [start[place], start[place] + duration[place]], group);
  }

  /** Set the ruler at the start of the selected event, or else in the middle of what is in sight. */
  pinByKey() {
    const place = this.selectedPlace();
    const { begin, end } = this.span();
    this.pin(place < 0 ? (begin + end) / 2 : this.data.start[place]);
  }

  /** Set the ruler; once more at the same place takes it away. */
  pin(time) {
    if (this.ownAxes) return; // a time means something else on each axis
    const before = this.model.get("ruler");
    const again = Number.isFinite(before) && Math.abs(time - before) * this.span().perNs < 5;
    this.model.set("ruler", again || !this.data.total ? null : time);
    this.save();
    this.redraw();
  }

  /** The ruler's line under the pointer, with its time and how far that is from where the ruler is set. */
  follow(x, y = 0) {
    const group = this.ownAxes && x !== null ? this.groupAt(y) : null;
    this.ruler.hidden = x === null || x < this.left || x > this.right || !this.data.total || (this.ownAxes && !group);
    if (this.ruler.hidden) return;
    const [time, set] = [this.timeAt(x, group), this.ownAxes ? null : this.model.get("ruler")];
    const off = Number.isFinite(set) ? ` (${time < set ? "−" : "+"}${human(Math.abs(time - set))})` : "";
    this.ruler.firstChild.textContent = group ? `${this.toThePixel(time - group.start, group)} in ${group.name}` : this.toThePixel(time) + off;
    this.ruler.classList.toggle("late", x > (this.left + this.right) / 2);
    this.ruler.style.cssText = `top: ${this.stage.offsetTop}px; height: ${this.height}px; transform: translateX(${x}px)`;
  }

  // ---- search ----

  /** Count what the search finds, so that a frame knows by two look-ups whether a pixel holds a match. */
  find() {
    const wanted = this.search.value.trim().toLowerCase();
    const { kinds, kind, count } = this.data;
    this.hits = null;
    const matching = wanted ? ([name]) => name.toLowerCase().includes(wanted)
      : ([name, category]) => category === "task" && name === this.marked;
    if (wanted || (this.marked && kinds.some(matching))) {
      const matches = Uint8Array.from(kinds, matching);
      this.hits = new Uint32Array(count + 1);
      for (let i = 0; i < count; i++) this.hits[i + 1] = this.hits[i] + matches[kind[i]];
    }
    this.tally();
  }

  /** Say how many events match, and which of them is selected. */
  tally() {
    const { hits } = this;
    const all = hits ? hits[hits.length - 1] : 0;
    const place = this.selectedPlace();
    const at = hits && place >= 0 && hits[place + 1] > hits[place] ? hits[place + 1] : 0;
    const [n, total] = [at, all].map((value) => value.toLocaleString("en"));
    this.found.textContent = !hits || !this.search.value.trim() ? "" : !all ? "nothing found" : at ? `${n} of ${total}` : `${total} found`;
  }

  /** Select the next match (or with -1 the one before), lane by lane; after the last one comes the first. */
  step(along) {
    const { hits } = this;
    const all = hits ? hits[hits.length - 1] : 0;
    if (!all) return;
    const place = this.selectedPlace();
    const before = place < 0 ? 0 : hits[place]; // matches before the selected event
    const on = place >= 0 && hits[place + 1] > before ? 1 : 0;
    const next = place < 0 ? (along > 0 ? 0 : all - 1) : along > 0 ? before + on : before - 1;
    this.goTo(bisect(hits, (next + all) % all, 0, hits.length) - 1);
  }

  typed(event) {
    if (event.key === "Enter") this.step(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") {
      this.search.value = "";
      this.find();
      this.redraw();
      this.stage.focus({ preventScroll: true });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  clear() {
    this.search.value = "";
    this.find();
    this.model.set("ruler", null);
    this.measure(null);
    this.select(-1);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 0.15 * (this.right - this.left);
    const actions = {
      w: () => this.zoom(1 / 1.5), s: () => this.zoom(1.5), a: () => this.pan(-step), d: () => this.pan(step),
      f: () => this.show(0, Math.max(1, this.data.wall)), e: () => this.fitEach(),
      arrowleft: () => this.walk(-1, 0), arrowright: () => this.walk(1, 0),
      arrowup: () => this.walk(0, -1), arrowdown: () => this.walk(0, 1),
      "/": () => this.search.focus(), m: () => this.measureByKey(), r: () => this.pinByKey(), escape: () => this.clear(),
    };
    const action = actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    this.point(-1); // what was under the pointer may move away
    this.follow(null);
    action();
  }

  // ---- events ----

  rowOf(place) {
    return bisect(this.data.first, place, 0, this.data.first.length) - 1;
  }

  bandOf(row) {
    return this.layout.bands.find((band) => band.lane && row >= band.row && row < band.row + band.lane.rows);
  }

  /** The place of the event under a point of the canvas, or -1; a thin event may be missed by two pixels. */
  eventAt(x, y) {
    if (x < this.left || x > this.right || y < TOP) return -1;
    const inner = y + this.stage.scrollTop;
    const band = this.layout.bands.find(({ lane, top, height }) => lane && inner >= top && inner < top + height);
    if (!band) return -1;
    const { begin, perNs } = this.span(band.group);
    return this.nearest(band.row + Math.floor((inner - band.top) / ROW), begin + (x - this.left) / perNs, 2 / perNs);
  }

  /** The event of a row that is nearest to a time, if at most `reach` ns away, else -1. */
  nearest(row, time, reach) {
    const { first, start, duration } = this.data;
    const after = bisect(start, time, first[row], first[row + 1]);
    const gap = (i) => (i < first[row] || i >= first[row + 1] ? Infinity : Math.max(start[i] - time, time - start[i] - duration[i], 0));
    const best = gap(after - 1) <= gap(after) ? after - 1 : after;
    return gap(best) <= reach ? best : -1;
  }

  /** Where the selected event stands in these columns, or -1: a thinned copy may lack it. */
  selectedPlace() {
    const index = this.model.get("selected");
    if (index < 0) return -1;
    if (this.data.index[this.lastPlace] !== index) this.lastPlace = this.data.index.indexOf(index);
    return this.lastPlace;
  }

  select(place) {
    this.model.set("selected", place < 0 ? -1 : this.data.index[place]);
    this.save();
    this.describe();
    this.redraw();
  }

  /** Select the next event of the row, or the nearest one of the next row that has any; bring it into sight. */
  walk(along, across) {
    const { first, start, duration } = this.data;
    const from = this.selectedPlace();
    let to = from;
    if (from < 0) to = this.data.count ? 0 : -1;
    else if (along) to = Math.min(Math.max(from + along, first[this.rowOf(from)]), first[this.rowOf(from) + 1] - 1);
    else {
      const rows = first.length - 1;
      for (let row = this.rowOf(from) + across; row >= 0 && row < rows; row += across) {
        const middle = this.inView(start[from] + duration[from] / 2, this.groupOf(from));
        const found = this.nearest(row, this.onAxis(middle, this.bandOf(row).group), Infinity);
        if (found >= 0) { to = found; break; }
      }
    }
    if (to >= 0) this.goTo(to);
  }

  /** Select an event and bring it into sight. */
  goTo(to) {
    const { start, duration } = this.data;
    const { begin, end } = this.span();
    const [from, until] = [start[to], start[to] + duration[to]].map((ns) => this.inView(ns, this.groupOf(to)));
    const shift = until < begin || from > end ? (from + until) / 2 - (begin + end) / 2 : 0;
    if (shift) this.show(begin + shift, end + shift);
    const band = this.bandOf(this.rowOf(to));
    const y = band.top + (this.rowOf(to) - band.row) * ROW;
    if (y < this.stage.scrollTop + TOP) this.stage.scrollTop = y - TOP - HEADER;
    else if (y + ROW > this.stage.scrollTop + this.height) this.stage.scrollTop = y + ROW - this.height;
    this.select(to);
  }

  /** The arrows of an event: pairs of places, of which it is one. */
  arrowsOf(place) {
    const { links } = this.data;
    const found = [];
    for (let i = 0; place >= 0 && i < links.length; i += 2) {
      if (links[i] === place || links[i + 1] === place) found.push([links[i], links[i + 1]]);
    }
    return found;
  }

  arrowsInWords(place) {
    const said = (other) => [this.facts(other)].map(({ name, where }) => `${name} (${where})`)[0];
    const ends = (arrows, end) => arrows.slice(0, 3).map((arrow) => said(arrow[end])).join(", ") + (arrows.length > 3 ? ` and ${arrows.length - 3} more` : "");
    const led = this.arrowsOf(place).filter(([from]) => from === place), came = this.arrowsOf(place).filter(([, to]) => to === place);
    return [came.length && `← from ${ends(came, 0)}`, led.length && `→ to ${ends(led, 1)}`].filter(Boolean);
  }

  facts(place) {
    const { start, duration, kind, kinds, weight } = this.data;
    const [name, category] = kinds[kind[place]];
    const step = Math.max(1, 10 ** Math.floor(Math.log10(Math.max(duration[place], 1) / 10)));
    const cut = name.length > LONGEST ? name.slice(0, LONGEST) + "…" : name;
    const several = weight[place] > 1 ? `${weight[place].toLocaleString("en")} events, the longest: ` : "";
    const { lane, group } = this.bandOf(this.rowOf(place));
    const since = start[place] - (this.ownAxes ? group.start : 0);
    return {
      name: several + cut,
      where: lane.group ? `${lane.group} · ${lane.label}` : lane.label,
      when: `starts at ${position(since, step, since)}`,
      length: `takes ${human(duration[place])}`,
      category: category || "no category",
    };
  }

  /** The lines below the canvas: what a thinned copy leaves out, the measured window, the selected event. */
  describe() {
    const { count, total, more, left_out: leftOut } = this.data;
    const [parts, events] = [count, total].map((n) => n.toLocaleString("en"));
    const lines = this.measured();
    if (leftOut) lines.unshift(`Too many lanes or rows: ${leftOut}.`);
    if (more) lines.unshift(`Showing ${parts} of ${events} events: the thinned copy kept with the notebook. The rest needs its kernel.`);
    else if (count < total) {
      lines.unshift(`Showing ${parts} parts that stand for ${events} events: too many to be drawn one by one. Take a window of them with trace.select(window=(begin, end)).`);
    }
    const place = this.selectedPlace();
    if (place >= 0) {
      const { name, where, when, length, category } = this.facts(place);
      lines.push(`${name}: ${where}, ${when}, ${length} (${category})`, ...this.arrowsInWords(place));
    } else if (!lines.length && total) lines.push(`${HINT}${this.several ? " · E: fit each row" : ""}`);
    this.details.replaceChildren(...lines.map((line) => element("div", "", line)));
    this.tally();
    this.askArguments();
  }

  /** Ask the kernel for the arguments of the selected event; without one, there are none. */
  askArguments() {
    const event = this.model.get("selected");
    if (event === this.asked) return;
    this.asked = event;
    this.fillArguments([]);
    if (event >= 0) this.model.send({ ask: "args", event });
  }

  /** Show arguments, rows of [name, text, lines]: they are anybody's text, and a stack is folded. */
  fillArguments(rows) {
    this.args.hidden = !rows.length;
    this.args.replaceChildren(...rows.flatMap(([name, text, lines]) => {
      const said = element("dd", "", lines.length ? "" : text);
      if (lines.length) {
        const folded = element("details", "");
        folded.append(element("summary", "", text), ...lines.map((line) => element("div", "", line)));
        said.append(folded);
      }
      return [element("dt", "", name), said];
    }));
  }

  /** The measured window in words: its length, and what the kernel has computed of it for each approach. */
  measured() {
    const window = this.measuring ?? this.model.get("selection");
    if (!window) return [];
    const length = `Window of ${human(window[1] - window[0])}`;
    const answer = this.model.get("measured");
    if (answer?.window?.[0] !== window[0] || answer.window[1] !== window[1]) return [length];
    return answer.groups.map(({ name, busy, sum, overlap, branches }) => {
      const parts = [`busy ${human(busy)}`, `sum over lanes ${human(sum)}`, `overlap ${human(overlap)}`];
      for (const [branch, sum] of branches) parts.push(`${branch.slice(0, LONGEST)} ${human(sum)}`);
      return `${length}${name && `, ${name}`}: ${parts.join(", ")}`;
    });
  }

  /** Hover: outline the event and say what it is, beside the pointer. */
  point(place, event) {
    const label = event && (this.labelAt(...this.where(event)) ?? this.pointAt(...this.where(event)));
    if (place !== this.hover) {
      this.redraw();
      this.hover = place;
      this.told();
    }
    this.tip.hidden = place < 0 && !label;
    if (this.tip.hidden) return;
    const facts = label ? null : this.facts(place);
    const lines = label ?? [...this.crowd(place), facts.name, facts.where, facts.when, facts.length, facts.category];
    this.tip.replaceChildren(...lines.map((line) => element("div", "", line)));
    const box = this.root.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left + 14, event.clientY - box.top + 14];
    this.tip.style.left = `${Math.max(0, x + this.tip.offsetWidth > box.width ? x - 28 - this.tip.offsetWidth : x)}px`;
    this.tip.style.top = `${y + this.tip.offsetHeight > box.height ? Math.max(0, y - 28 - this.tip.offsetHeight) : y}px`;
  }

  /** Say which branch the pointer is on, or with the keys here which one is selected. */
  told() {
    const place = this.hover >= 0 ? this.hover : this.focused ? this.selectedPlace() : -1;
    const [name, category] = place < 0 ? [] : this.data.kinds[this.data.kind[place]];
    tell(this, category === "task" ? name : "");
  }

  /** The name of the lane whose label is at a point, in full, and what it stands for; null where there is no more to say. */
  labelAt(x, y) {
    const inner = y + this.stage.scrollTop;
    if (x >= this.left || y < TOP) return null;
    const band = this.layout.bands.find(({ lane, top, height }) => lane && inner >= top && inner < top + height);
    if (!band || !(band.lane.meaning || this.widthOf(band.lane.label) > MAX_LABEL)) return null;
    return [band.lane.label, band.lane.meaning].filter(Boolean);
  }

  /** What an instant or a counter says at a point; null where there is none. */
  pointAt(x, y) {
    if (x < this.left || x > this.right) return null;
    const inner = y + this.stage.scrollTop;
    const all = y < AXIS && y >= AXIS - 2 * MARK - 2 && !this.ownAxes; // of the whole trace, on the axis
    const band = y < TOP ? null : this.layout.bands.find(({ header, top, height }) => !header && inner >= top - MARK - 1 && inner < top + height);
    if (!all && !band) return null;
    const { group, lane, curve } = band ?? {};
    const { begin, perNs } = this.span(group);
    const time = begin + (x - this.left) / perNs;
    const when = (ns) => this.toThePixel(ns - (this.ownAxes && group ? group.start : 0), group);
    if (curve) {
      const { curveTime, curveValue } = this.data;
      const at = bisect(curveTime, time, curve.first, curve.end) - 1;
      return [curve.label, at < curve.first ? "no value yet" : `${amount(curveValue[at], curve.bytes)} at ${when(time)}`];
    }
    if (!all && inner > band.top + MARK + 1) return null;
    const { markTime, markName, marks } = this.data;
    const [from, to] = all ? this.layout.marks : band.marks;
    const after = bisect(markTime, time, from, to);
    const gap = (i) => (i < from || i >= to ? Infinity : Math.abs(markTime[i] - time) * perNs);
    const best = gap(after - 1) <= gap(after) ? after - 1 : after;
    if (gap(best) > MARK + 2) return null;
    return [marks[markName[best]] || "(no name)", lane?.label ?? "of the whole trace", `instant at ${when(markTime[best])}`];
  }

  crowd(place) {
    const { first, start } = this.data;
    const { perNs } = this.span(this.groupOf(place));
    const row = this.rowOf(place);
    const count = bisect(start, start[place] + 1 / perNs, first[row], first[row + 1]) - place;
    return count > 1 && this.data.duration[place] * perNs < 1 ? [`${count.toLocaleString("en")} events in this pixel, zoom in to tell them apart; the first:`] : [];
  }

  // ---- drawing ----

  redraw() {
    this.frame ??= requestAnimationFrame(() => ((this.frame = null), this.draw()));
  }

  draw() {
    const { pen, theme, width, height } = this;
    if (!theme) return; // not on a page yet
    const span = this.span();
    const scroll = this.stage.scrollTop;
    pen.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    pen.fillStyle = theme.page;
    pen.fillRect(0, 0, width, height);
    this.font();
    pen.textBaseline = "middle";
    if (!this.data.total) {
      pen.fillStyle = theme.muted;
      pen.fillText("No events: this trace is empty. Record something first.", PAD, AXIS / 2);
      return;
    }
    this.crowded = false;
    const ticks = this.ticks(span);
    const seen = this.layout.bands.filter(({ top, height: tall }) => top + tall > scroll && top < scroll + height);
    pen.fillStyle = theme.line;
    pen.globalAlpha = 0.6;
    if (!this.ownAxes) for (const [x] of ticks) pen.fillRect(Math.round(x), TOP, 1, height);
    else for (const { group, top, height: tall } of seen) {
      for (const [x] of this.ticks(this.span(group), group.start)) pen.fillRect(Math.round(x), top - scroll - GAP / 2, 1, tall + GAP);
    }
    pen.globalAlpha = 1;
    for (const band of seen) if (band.header) this.drawHeader(band, band.top - scroll, this.span(band.group));
    pen.save();
    pen.beginPath();
    pen.rect(this.left, TOP, this.right - this.left, height - TOP);
    pen.clip();
    this.drawRows(seen, scroll);
    for (const band of seen) if (band.curve) this.drawCurve(band, band.top - scroll);
    for (const { marks, top, group } of seen) if (marks) this.drawMarks(marks, top - scroll, this.span(group));
    this.drawWindow(seen, scroll);
    this.outline(this.hover, theme.ink, 1);
    this.outline(this.selectedPlace(), theme.ink, 2);
    for (const arrow of this.arrowsOf(this.selectedPlace()).slice(0, MAX_ARROWS)) this.drawArrow(...arrow);
    pen.restore();
    pen.fillStyle = theme.ink;
    for (const { lane, curve, top } of seen) {
      if (lane ?? curve) pen.fillText(this.fit((lane ?? curve).label, MAX_LABEL), PAD, top + ROW / 2 - scroll);
    }
    this.drawAxis(ticks);
    if (!this.ownAxes) this.drawMarks(this.layout.marks, AXIS - MARK - 1, span);
    this.drawMap(span);
    if (!this.ownAxes) this.drawRuler(span);
    this.crowdKey.style.visibility = this.crowded ? "" : "hidden"; // hidden, and not gone: the canvas would jump
  }

  /** The measured window: a tint with two edges, on the whole height or on the group that it is of. */
  drawWindow(seen, scroll) {
    const window = this.measuring ?? this.model.get("selection");
    if (!window) return;
    const measured = this.layout.bands.find(({ lane }) => lane && (this.model.get("lanes") ?? []).includes(lane.index))?.group;
    const only = this.ownAxes ? (this.measuring ? this.drag?.group : measured) ?? null : null;
    const { begin, perNs } = this.span(only);
    const [from, to] = window.map((ns) => this.left + (ns - begin) * perNs);
    const bands = seen.filter(({ group }) => !only || group === only);
    const last = bands.at(-1);
    if (!last) return; // scrolled out of sight
    const y = only ? Math.max(TOP, bands[0].top - scroll) : TOP;
    const tall = (only ? last.top + last.height + GAP / 2 - scroll : this.height) - y;
    this.pen.fillStyle = this.theme.focus;
    this.pen.globalAlpha = 0.16;
    this.pen.fillRect(from, y, to - from, tall);
    this.pen.globalAlpha = 1;
    for (const x of [from, to]) this.pen.fillRect(Math.round(x) - 1, y, 2, tall);
  }

  /**
   * The minimap's outline, which changes with the width only: how many lanes are busy, over the whole trace. Of several
   * groups, when each of them ran.
   */
  drawnMap() {
    const path = new Path2D();
    const { busy, groups } = this.data;
    if (this.several) {
      const tall = (MAP - 6) / groups.length;
      groups.forEach(({ start, wall }, i) => {
        const [from, to] = [start, start + wall].map((ns) => this.left + ns * this.mapScale());
        const own = this.ownAxes ? [this.left, this.right] : [from, to];
        path.rect(own[0], AXIS + 4 + i * tall, Math.max(1, own[1] - own[0]), Math.max(1, tall - 1));
      });
      return path;
    }
    const step = (this.right - this.left) / busy.length;
    const most = busy.reduce((a, b) => Math.max(a, b), 1e-9);
    busy.forEach((lanes, i) => {
      const tall = (lanes / most) * (MAP - 6);
      path.rect(this.left + i * step, TOP - 3 - tall, step + 0.5, tall);
    });
    return path;
  }

  drawMap({ begin, end }) {
    const { pen, theme } = this;
    pen.fillStyle = theme.page;
    pen.fillRect(0, AXIS, this.width, MAP);
    pen.fillStyle = theme.muted;
    pen.fillText(this.several ? MAP_OF_SEVERAL : MAP_LABEL, PAD, AXIS + MAP / 2);
    pen.fill(this.map);
    const scale = this.mapScale();
    const clamp = (ns) => Math.min(Math.max(this.left + ns * scale, this.left), this.right);
    const [from, to] = [clamp(begin), clamp(end)];
    pen.fillStyle = theme.page;
    pen.globalAlpha = 0.65;
    pen.fillRect(this.left, AXIS, from - this.left, MAP - 1);
    pen.fillRect(to, AXIS, this.right - to, MAP - 1);
    pen.globalAlpha = 1;
    pen.strokeStyle = theme.focus;
    pen.lineWidth = 2;
    pen.strokeRect(from, AXIS + 1, Math.max(3, to - from), MAP - 3);
    pen.fillStyle = theme.line;
    pen.fillRect(0, TOP - 1, this.width, 1);
  }

  /** The ruler where it is set, through all the lanes, with its time on the axis. */
  drawRuler({ begin, perNs }) {
    const time = this.model.get("ruler");
    const x = Math.round(this.left + (time - begin) * perNs);
    if (!Number.isFinite(time) || x < this.left || x > this.right) return;
    const { pen, theme } = this;
    pen.fillStyle = theme.focus;
    pen.fillRect(x - 1, 0, 2, this.height);
    const label = this.toThePixel(time);
    const wide = pen.measureText(label).width + 8;
    const from = x + wide > this.right ? x - wide : x;
    pen.fillRect(from, 2, wide, AXIS - 7);
    pen.fillStyle = luminance(pen.fillStyle) > 0.179 ? "#000000" : "#ffffff"; // a canvas reads colours back as #rrggbb
    pen.fillText(label, from + 4, AXIS / 2 - 1);
  }

  /** The time from one tick of the axis to the next: a round number. */
  tickStep({ perNs }) {
    const least = Math.max(1, 110 / perNs);
    const power = 10 ** Math.floor(Math.log10(least));
    return [1, 2, 5, 10].map((m) => m * power).find((candidate) => candidate >= least * (1 - 1e-9));
  }

  /** A time in the unit of the axis, with the digits that a pixel can tell apart. */
  toThePixel(time, group = null) {
    const span = this.span(group);
    return position(time, Math.max(1, 10 ** Math.floor(Math.log10(1 / span.perNs))), this.tickStep(span));
  }

  /** The ticks of an axis whose 0 is at `origin`: where, and what they say. */
  ticks(span, origin = 0) {
    const { begin, end, perNs } = span;
    const step = this.tickStep(span);
    const ticks = [];
    for (let i = Math.ceil((begin - origin) / step); i * step <= end - origin; i++) {
      ticks.push([this.left + (i * step + origin - begin) * perNs, i ? position(i * step, step) : "0"]);
    }
    return ticks;
  }

  drawAxis(ticks) {
    const { pen, theme } = this;
    pen.fillStyle = theme.page; // lanes scroll away below the axis
    pen.fillRect(0, 0, this.width, AXIS - 4);
    pen.fillStyle = theme.line;
    pen.fillRect(0, AXIS - 1, this.width, 1);
    if (this.ownAxes) {
      pen.fillStyle = theme.ink;
      pen.fillText(this.fit(OWN_AXES, this.right - PAD), PAD, AXIS / 2 - 1);
    } else this.drawTicks(ticks, AXIS / 2 - 1);
  }

  drawTicks(ticks, y) {
    const { pen, theme } = this;
    pen.fillStyle = theme.muted;
    for (const [x, label] of ticks) {
      const wide = this.widthOf(label);
      pen.fillText(label, Math.min(Math.max(x - wide / 2, this.left), this.right - wide), y);
    }
  }

  /** A group's name at the left; at the right how long it took and what its table says; a line as long as it took. */
  drawHeader({ group, height }, y, span) {
    const { pen, theme } = this;
    const { begin, perNs } = span;
    pen.fillStyle = theme.band;
    pen.fillRect(0, y, this.width, height - 4);
    if (this.ownAxes) {
      pen.fillStyle = theme.ink;
      pen.fillText(OWN_AXIS_LABEL, PAD, y + HEADER + OWN_AXIS / 2 - 6);
      this.drawTicks(this.ticks(span, group.start), y + HEADER + OWN_AXIS / 2 - 6);
    }
    const clamp = (x) => Math.min(Math.max(x, this.left), this.right);
    const [from, to] = [group.start, group.start + group.wall].map((ns) => clamp(this.left + (ns - begin) * perNs));
    pen.fillStyle = theme.muted;
    pen.fillRect(from, y + height - 6, to - from, 2);
    this.font(600);
    const name = group.name || [this.data.size, this.data.also].filter(Boolean).join(", ");
    const width = (text) => pen.measureText(text).width;
    const [wall, said] = this.wordsOf(group, (words) => width(name + words) <= this.right - 4 * PAD);
    const [wide, more] = [wall, said].map(width);
    const middle = y + HEADER / 2 - 3;
    pen.fillStyle = theme.ink;
    pen.fillText(this.fit(name, this.right - wide - more - 4 * PAD), PAD, middle);
    pen.fillText(wall, this.right - wide - more, middle);
    if (group.decided === false) pen.fillStyle = theme.muted;
    pen.fillText(said, this.right - more, middle);
    this.font();
  }

  /** How long the call that is drawn took, which its line shows too, and the verdict: the longest words that fit. */
  wordsOf({ wall, said }, fits) {
    const took = human(wall);
    if (!said) return [took, ""];
    const before = [`this call ${took}, `, `${took}, `, ""].find((words) => fits(words + said));
    return before === undefined ? ["", said.replace(" of all rounds", "")] : [before, said];
  }

  drawRows(bands, scroll) {
    const rows = [];
    for (const { lane, top, row, group } of bands) {
      for (let i = 0; lane && i < lane.rows; i++) {
        const y = top + i * ROW - scroll;
        if (y + ROW > TOP && y < this.height) rows.push([row + i, y, this.span(group)]);
      }
    }
    const wide = this.right - this.left;
    this.rectangles.begin(Math.round(wide * this.scale), rows.length);
    this.named = []; // bars with room for a hatch or a name, which go on top
    rows.forEach(([row, y, span], place) => this.placeRow(row, place, y, span));
    this.rectangles.draw(this.pen, this.left, wide, rows.map(([, y]) => y));
    for (const bar of this.named) this.drawName(...bar);
  }

  placeRow(row, place, y, { begin, end, perNs }) {
    const { first, start, duration, kind, kinds, weight } = this.data;
    const { scale, left } = this;
    const last = first[row + 1];
    let i = bisect(start, begin, first[row], last);
    if (i > first[row] && start[i - 1] + duration[i - 1] > begin) i--; // only one can reach in from the left
    const most = (this.right - left + 4) * scale;
    while (i < last && start[i] < end) {
      const x = (start[i] - begin) * perNs; // from the left edge of the plot
      const wide = duration[i] * perNs;
      if (wide >= 1) {
        const look = this.lookOf(i, i + 1);
        const from = Math.round(Math.max(-4, x) * scale);
        const to = Math.max(from + 1, Math.round(Math.min(most, (x + wide) * scale)));
        if (weight[i] > 1) this.placeCrowd(place, look, from, to);
        else this.placeBar(place, look, kinds[kind[i]][0], from, to, y);
        i++;
        continue;
      }
      const column = Math.floor(x);
      let next = bisect(start, begin + (column + 1) / perNs, i + 1, last, true);
      if (next - 1 > i && duration[next - 1] * perNs >= 1) next--; // the last to start in this pixel may be a long one
      const [from, to] = [Math.round(column * scale), Math.round((column + 1) * scale)];
      if (next > i + 1) this.placeCrowd(place, this.lookOf(i, next), from, to);
      else this.rectangles.fill(place, CROWD, from, to, this.lookOf(i, next).bits[2]);
      i = next;
    }
  }

  placeCrowd(place, { bits }, from, to) {
    this.crowded = true;
    this.rectangles.fill(place, CROWD, from, to, bits[2], bits[3], Math.max(1, Math.round(this.scale)));
  }

  placeBar(place, look, name, from, to, y) {
    const [edge, fill, thin] = look.bits;
    const line = Math.max(1, Math.round(this.scale));
    if (to - from < 4 * line) return this.rectangles.fill(place, OUTER, from, to, thin);
    this.rectangles.fill(place, OUTER, from, to, edge);
    this.rectangles.fill(place, INNER, from + line, to - line, fill);
    if (look.hatch || to - from > 28 * this.scale) this.named.push([look, name, this.left + from / this.scale, y, (to - from) / this.scale]);
  }

  /** The look of the events [i, next) that share a place: of the first one, or of the first that the search finds. */
  lookOf(i, next) {
    const { hits, looks } = this;
    const { kind } = this.data;
    if (!hits) return looks[kind[i]];
    return hits[next] === hits[i] ? looks[kind[i]].faint : looks[kind[bisect(hits, hits[i], i, next + 1) - 1]].hit;
  }

  drawName(look, name, from, y, size) {
    const { pen } = this;
    if (look.hatch) {
      pen.fillStyle = look.hatch;
      pen.fillRect(from + 1, y + 1, size - 2, ROW - 3);
    }
    const left = Math.max(from, this.left) + 4;
    const room = Math.min(from + size, this.right) - left - 3;
    const whole = this.widthOf(name) <= room;
    const text = whole ? name : room > 20 ? this.fit(name.slice(name.lastIndexOf("::") + 1).replace(/^:/, ""), room) : "";
    if (!text) return;
    if (look.hatch) {
      pen.fillStyle = look.fill; // a plate, so that the hatch does not run through the letters
      pen.fillRect(left - 3, y + 2, Math.min(room, this.widthOf(text)) + 6, ROW - 5);
    }
    pen.fillStyle = look.ink;
    pen.fillText(text, left, y + ROW / 2);
  }

  /** A counter as a step function between its lowest and highest value, which are told; of a crowd in one pixel, its range. */
  drawCurve({ curve, height, group }, y) {
    const { pen, theme } = this;
    const { curveTime: time, curveValue: value, wall } = this.data;
    const { begin, end, perNs } = this.span(group);
    const across = (ns) => Math.min(Math.max(this.left + (ns - begin) * perNs, this.left - 4), this.right + 4);
    const bottom = y + height - 2;
    const up = (level) => bottom - ((level - curve.low) / (curve.high - curve.low || 1)) * (height - 4);
    const line = new Path2D();
    let i = Math.max(curve.first, bisect(time, begin, curve.first, curve.end) - 1);
    const from = across(time[i]);
    line.moveTo(from, up(value[i]));
    while (i < curve.end && time[i] <= end) {
      const x = across(time[i]);
      const next = bisect(time, time[i] + 1 / perNs, i + 1, curve.end, true);
      const inside = value.subarray(i, next);
      if (i > curve.first) line.lineTo(x, up(value[i - 1]));
      if (inside.length > 2) for (const most of [Math.max, Math.min]) line.lineTo(x, up(inside.reduce((a, b) => most(a, b))));
      line.lineTo(x, up(value[next - 1]));
      i = next;
    }
    const to = Math.max(from, across(Math.max(wall, time[curve.end - 1])));
    line.lineTo(to, up(value[i - 1]));
    const area = new Path2D(line);
    area.lineTo(to, bottom);
    area.lineTo(from, bottom);
    pen.globalAlpha = 0.16;
    pen.fillStyle = theme.focus;
    pen.fill(area);
    pen.globalAlpha = 1;
    [pen.strokeStyle, pen.lineWidth] = [theme.focus, 1.5];
    pen.stroke(line);
    for (const [level, middle] of curve.high > curve.low ? [[curve.high, y + 8], [curve.low, bottom - 7]] : [[curve.high, y + 8]]) {
      const text = amount(level, curve.bytes);
      pen.globalAlpha = 0.8; // a plate, so that the line does not run through the numbers
      pen.fillStyle = theme.page;
      pen.fillRect(this.left + 2, middle - 7, this.widthOf(text) + 4, 14);
      pen.globalAlpha = 1;
      pen.fillStyle = theme.muted;
      pen.fillText(text, this.left + 4, middle);
    }
  }

  /** Instants as triangles that point at the top of their lane; of those in one place, one. */
  drawMarks([from, to], y, { begin, end, perNs }) {
    const { pen, theme } = this;
    const { markTime } = this.data;
    const path = new Path2D();
    for (let i = bisect(markTime, begin, from, to, true); i < to && markTime[i] <= end; ) {
      const x = this.left + (markTime[i] - begin) * perNs;
      path.moveTo(x - MARK, y - MARK);
      path.lineTo(x + MARK, y - MARK);
      path.lineTo(x, y + MARK);
      path.closePath();
      i = bisect(markTime, markTime[i] + 1.5 / perNs, i + 1, to, true);
    }
    [pen.strokeStyle, pen.fillStyle, pen.lineWidth] = [theme.page, theme.ink, 2];
    pen.stroke(path);
    pen.fill(path);
  }

  /** From the end of what led to the start of what followed; of a launch that is still open then, straight down. */
  drawArrow(from, to) {
    const { pen, theme } = this;
    const { start, duration } = this.data;
    const { begin, perNs } = this.span(this.groupOf(from)); // of both: nothing leads from one group to another
    const left = Math.min(start[from] + duration[from], Math.max(start[from], start[to]));
    const [x, end] = [left, start[to]].map((ns) => Math.min(Math.max(this.left + (ns - begin) * perNs, -1e6), 1e6));
    const [y, low] = [from, to].map((place) => this.topOf(place) + ROW / 2);
    const bend = Math.min(80, Math.max(24, Math.abs(end - x) / 2));
    const curve = new Path2D();
    curve.moveTo(x, y);
    curve.bezierCurveTo(x + bend, y, end - bend, low, end - 2, low);
    const head = new Path2D();
    head.moveTo(end, low);
    head.lineTo(end - 8, low - 5);
    head.lineTo(end - 8, low + 5);
    for (const [colour, wide] of [[theme.page, 5], [theme.ink, 2]]) { // a halo, so that it shows on every bar
      [pen.strokeStyle, pen.fillStyle, pen.lineWidth] = [colour, colour, wide];
      pen.stroke(curve);
      pen.fill(head);
    }
  }

  topOf(place) {
    const row = this.rowOf(place);
    const band = this.bandOf(row);
    return band.top + (row - band.row) * ROW - this.stage.scrollTop;
  }

  outline(place, colour, weight) {
    if (place < 0) return;
    const { begin, perNs } = this.span(this.groupOf(place));
    const y = this.topOf(place);
    const from = Math.max(this.left - 4, this.left + (this.data.start[place] - begin) * perNs);
    const to = Math.min(this.right + 4, this.left + (this.data.start[place] + this.data.duration[place] - begin) * perNs);
    if (to < this.left || from > this.right) return;
    this.pen.strokeStyle = colour;
    this.pen.lineWidth = weight;
    this.pen.strokeRect(from, y + 0.5, Math.max(2, to - from), ROW - 2);
  }
}

export default {
  render({ model, el }) {
    const view = new View(model, el);
    return () => view.close();
  },
};

// The page half of the picture of a graph: draws the boxes and parts that graph_picture.py packs (see `columns` there).
//
// Each open box is laid out by itself, inner ones first, and then is one box of a known size in the box around it. A line
// that crosses the border of an open box goes through a port there, one for each box that it comes from. `dagre` is the
// layout library, which stands before this script. Names only ever become text, never HTML.

const TALL = 34, NARROWEST = 72, WIDEST = 280; // pixels of a closed box
const ACROSS = 18, DOWN = 40, PAD = 14, HEADER = 22, STRIP = 8; // pixels between and inside boxes
const CHAR = 6.4; // pixels that a character takes on average
const READABLE = 0.75, SMALLEST = 0.02, LARGEST = 4, TEXT_FROM = 0.4; // scales
const LOWEST = 200, HIGHEST = 640; // pixels of the stage
const STEP = 60; // pixels that an arrow key moves
const SVG = "http://www.w3.org/2000/svg";
const NEUTRAL_LOOK = ["#8A8F98", 1, ""];
const [PATH, LABEL, PARENT, PART, MS, MACS, COUNT, CRITICAL, LOOK, BRANCH] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]; // of a box
const [DATA, ORDER, SHAPE, KIND, NAME] = [0, 1, 2, 3, 4]; // of a part

const STYLE = `
.kit-graph { --page: var(--jp-layout-color0, #fff); --band: var(--jp-layout-color2, #eef0f2);
  --ink: var(--jp-ui-font-color0, #111); --muted: var(--jp-ui-font-color2, #5f6368); --line: var(--jp-border-color2, #d0d4da);
  --focus: var(--jp-brand-color1, #1976d2); background: var(--page); color: var(--ink); position: relative; min-width: 320px;
  font: 12px/1.4 var(--jp-ui-font-family, system-ui, Helvetica, Arial, sans-serif); border: 1px solid var(--line); }
.kit-graph .bar { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: center; padding: 6px 12px; }
.kit-graph .key { display: inline-flex; align-items: center; gap: 6px; }
.kit-graph .key svg { flex: none; }
.kit-graph .hint { color: var(--muted); flex: 1 1 0; min-width: 0; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; text-align: right; }
.kit-graph button { font: inherit; color: var(--ink); background: var(--page); border: 1px solid var(--muted); padding: 2px 10px;
  border-radius: 3px; box-sizing: border-box; height: 24px; margin: 0; cursor: pointer; }
.kit-graph button[aria-expanded="true"] { background: var(--band); }
.kit-graph :is(button, .stage):focus-visible { outline: 2px solid var(--focus); outline-offset: -2px; }
.kit-graph .stage { overflow: hidden; position: relative; cursor: grab; touch-action: none; border-top: 1px solid var(--line); }
.kit-graph .stage > svg { display: block; width: 100%; height: 100%; user-select: none; }
.kit-graph .box > rect:first-child { stroke: var(--muted); }
.kit-graph .box.critical > rect:first-child { stroke: var(--ink); stroke-width: 2.5; }
.kit-graph .box.hover > rect:first-child { stroke: var(--ink); stroke-width: 1.8; }
.kit-graph .box.critical.hover > rect:first-child { stroke-width: 3.5; }
.kit-graph .box.same > rect:first-child { stroke: var(--focus); stroke-width: 2.5; }
.kit-graph .box.selected > rect:first-child { stroke: var(--focus); stroke-width: 4; }
.kit-graph text { pointer-events: none; }
.kit-graph .label text, .kit-graph .shape { fill: var(--ink); stroke: var(--page); stroke-width: 3px; paint-order: stroke; }
.kit-graph .shape { fill: var(--muted); font-size: 10px; }
.kit-graph .time { font-size: 11px; }
.kit-graph .edge { fill: none; stroke: var(--muted); stroke-width: 1.1; pointer-events: none; }
.kit-graph .edge.critical { stroke: var(--ink); stroke-width: 2.5; }
.kit-graph .edge.order { stroke-dasharray: 5 4; }
.kit-graph .edge.near { stroke: var(--focus); stroke-width: 2.5; }
.kit-graph .head { fill: var(--muted); }
.kit-graph .head.critical { fill: var(--ink); }
.kit-graph .far text { display: none; }
.kit-graph .far :is(.critical, .near) { vector-effect: non-scaling-stroke; stroke-width: 1.6; } /* else it is thinner than a pixel */
.kit-graph .details { padding: 4px 12px 6px; min-height: 17px; border-top: 1px solid var(--line); color: var(--muted);
  overflow-wrap: anywhere; }
.kit-graph .tip { position: absolute; z-index: 10; pointer-events: none; max-width: 340px; padding: 6px 9px; background: var(--page);
  border: 1px solid var(--muted); border-radius: 3px; box-shadow: 0 2px 8px rgba(0, 0, 0, .3); overflow-wrap: anywhere; }
.kit-graph .tip div:first-child { font-weight: 600; }
.kit-graph .tip div + div { color: var(--muted); }
.kit-graph .twin { max-height: 320px; overflow: auto; padding: 0 12px 8px; border-top: 1px solid var(--line); }
.kit-graph pre { font: 12px/1.4 var(--jp-code-font-family, monospace); color: inherit; background: none; margin: 6px 0; }
.kit-graph [hidden] { display: none; }`;

// ---- small tools ----------------------------------------------------------------------------------------------------

function drawn(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A number to three digits: "0.214", "2,050". */
function digits(value) {
  return Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 9 });
}

/** A count of multiply-accumulates for people: "5.71 GMACs". */
function macsText(count) {
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (count >= size) return `${(count / size).toFixed(2)} ${letter}MACs`;
  }
  return `${count} MACs`;
}

/** What fits into so many pixels; the beginning given is preferred to a longer one. */
function cut(text, pixels, beginning = text) {
  const room = Math.max(1, Math.floor(pixels / CHAR));
  return text.length <= room ? text : beginning.slice(0, Math.max(1, room - 1)) + "…";
}

// A notebook may show one widget several times: the full columns, once here, are kept for all of its views.
const received = new WeakMap();

// ---- where things go ------------------------------------------------------------------------------------------------

/** What is in each box, and how deep each lies. */
function readColumns(columns) {
  const inside = columns.boxes.map(() => []);
  const depth = columns.boxes.map(() => 0);
  const holder = columns.parts.map(() => 0); // the box of each part
  columns.boxes.forEach((box, i) => {
    if (box[PARENT] >= 0) {
      inside[box[PARENT]].push(i);
      depth[i] = depth[box[PARENT]] + 1;
    }
    if (box[PART] >= 0) holder[box[PART]] = i;
  });
  const place = new Map(columns.boxes.map((box, i) => [box[PATH], i]));
  return { ...columns, inside, depth, holder, place };
}

function costOf(data, box) {
  return data.unit === "ms" ? box[MS] ?? 0 : box[MACS];
}

/** Which boxes show, and for each box the one that shows in its place: itself, or the closed one around it. */
function showing(data, opened) {
  const open = data.boxes.map((box, i) => i === 0 || (opened.has(box[PATH]) && data.inside[i].length > 0));
  const visible = data.boxes.map(() => false);
  const stands = data.boxes.map(() => 0);
  data.boxes.forEach((box, i) => {
    visible[i] = i === 0 || (open[box[PARENT]] && visible[box[PARENT]]);
    stands[i] = visible[i] ? i : stands[box[PARENT]];
  });
  return { open: open.map((is, i) => is && visible[i]), visible, stands };
}

/** The lines in each open box: [from, to, source, critical, order only]; an end is a box, or "in:n" or "out:n". */
function lines(data, { stands }) {
  const found = data.boxes.map(() => new Map());
  const leaving = new Map(); // box -> the shapes of what leaves it
  const onPath = new Set(data.path.slice(1).map((part, n) => `${data.path[n]}>${part}`));
  const put = (container, from, to, source, critical, order) => {
    const key = `${from}>${to}>${source}`;
    const line = found[container].get(key) ?? { from, to, source, critical: false, order: true };
    line.critical ||= critical;
    line.order &&= order;
    found[container].set(key, line);
  };
  const link = (before, after, order) => {
    const source = stands[data.holder[before]], target = stands[data.holder[after]];
    if (source === target) return;
    const critical = onPath.has(`${before}>${after}`);
    if (!order) {
      if (!leaving.has(source)) leaving.set(source, new Set());
      leaving.get(source).add(data.parts[before][SHAPE]);
    }
    let [a, b] = [source, target];
    const up = (i) => data.boxes[i][PARENT];
    const leave = () => { put(up(a), a, `out:${source}`, source, critical, order); a = up(a); };
    const enter = () => { put(up(b), `in:${source}`, b, source, critical, order); b = up(b); };
    while (data.depth[a] > data.depth[b]) leave();
    while (data.depth[b] > data.depth[a]) enter();
    while (up(a) !== up(b)) { leave(); enter(); }
    put(up(a), a, b, source, critical, order);
  };
  data.parts.forEach((part, i) => {
    for (const before of part[DATA]) link(before, i, false);
    for (const before of part[ORDER]) link(before, i, true);
  });
  return { found, leaving };
}

/** Places of all that shows, in pixels from the top left: boxes, lines and what widths stand for. */
function layOut(data, opened) {
  const shown = showing(data, opened);
  const { found, leaving } = lines(data, shown);
  const most = Math.max(...data.boxes.map((box, i) => (shown.visible[i] && !shown.open[i] ? costOf(data, box) : 0))) || 1;
  const placed = new Map(); // open box -> how it is inside
  const sizeOf = (i) => {
    if (typeof i !== "number") return { width: 0, height: 0 }; // a port
    if (shown.open[i]) return placed.get(i).size;
    return { width: Math.max(NARROWEST, (WIDEST * costOf(data, data.boxes[i])) / most), height: TALL };
  };
  const order = data.boxes.map((_, i) => i).filter((i) => shown.open[i]);
  for (const i of order.reverse()) placed.set(i, arrange(data, i, [...found[i].values()], sizeOf)); // inner ones first
  const result = { boxes: [], edges: [], most, leaving, ...placed.get(0).size, count: 0 };
  const put = (i, left, top) => {
    const { places, edges } = placed.get(i);
    for (const [child, { x, y }] of places) {
      const { width, height } = sizeOf(child);
      const open = shown.open[child];
      result.boxes.push({ box: child, x: left + x, y: top + y, width, height, open });
      if (open) put(child, left + x, top + y);
      else result.count += 1;
    }
    for (const edge of edges) {
      const points = edge.points.map(({ x, y }) => ({ x: left + x, y: top + y }));
      const meet = (point, end, side, below) => { // at its port if it is open, not where dagre meets its middle
        if (typeof end !== "number" || !shown.open[end]) return point;
        const { x, y } = places.get(end);
        return { x: left + x + placed.get(end).ports.get(`${side}:${edge.source}`), y: top + y + below };
      };
      points[0] = meet(points[0], edge.from, "out", sizeOf(edge.from).height);
      points[points.length - 1] = meet(points.at(-1), edge.to, "in", 0);
      result.edges.push({ ...edge, points, ends: typeof edge.to === "number" && !shown.open[edge.to] });
    }
  };
  put(0, 0, 0);
  return result;
}

/** One open box: where what is right in it goes, where its lines run, and where its ports are. */
function arrange(data, i, edges, sizeOf) {
  const graph = new dagre.Graph({ multigraph: true });
  graph.setGraph({ nodesep: ACROSS, ranksep: DOWN, edgesep: 10, rankalign: "top" }); // branches begin at one height
  for (const child of data.inside[i]) graph.setNode(String(child), { ...sizeOf(child) });
  const ports = new Set(edges.flatMap(({ from, to }) => [from, to]).filter((end) => typeof end === "string"));
  for (const port of ports) { // kept at the top and at the bottom by heavy lines to a point beyond
    graph.setNode(port, { width: 1, height: 0 });
    const side = port.startsWith("in") ? "first" : "last";
    graph.setNode(side, { width: 0, height: 0 });
    if (side === "first") graph.setEdge(side, port, { weight: 20 }, "keep");
    else graph.setEdge(port, side, { weight: 20 }, "keep");
  }
  for (const edge of edges) {
    graph.setEdge(String(edge.from), String(edge.to), { weight: edge.critical ? 4 : 1 }, `${edge.source}`);
  }
  dagre.layout(graph);
  const nodes = data.inside[i].map((child) => [child, graph.node(String(child))]);
  const top = nodes.length ? Math.min(...nodes.map(([, n]) => n.y - n.height / 2)) : 0;
  const bottom = nodes.length ? Math.max(...nodes.map(([, n]) => n.y + n.height / 2)) : 0;
  const title = i ? data.boxes[i][LABEL].length * CHAR + 100 : 0; // its name and cost
  const spare = Math.max(0, title - graph.graph().width) / 2;
  const head = i ? HEADER + PAD : PAD;
  const size = { width: (nodes.length && graph.graph().width) + 2 * (spare + PAD), height: bottom - top + head + PAD };
  const mirrored = backwards(nodes); // dagre does not mind, but the first branch is looked for on the left
  const move = ({ x, y }) => ({ x: (mirrored ? graph.graph().width - x : x) + spare + PAD, y: y - top + head });
  const places = new Map(nodes.map(([child, n]) => [child, move({ x: n.x + (mirrored ? 1 : -1) * n.width / 2, y: n.y - n.height / 2 })]));
  const portAt = new Map([...ports].map((port) => [port, move(graph.node(port)).x]));
  const way = (edge) => graph.edge(String(edge.from), String(edge.to), `${edge.source}`).points.map(move);
  for (const edge of edges.filter(({ critical }) => critical)) { // straight on, along the critical path
    if (typeof edge.from === "string") portAt.set(edge.from, way(edge)[1].x);
    if (typeof edge.to === "string") portAt.set(edge.to, way(edge).at(-2).x);
  }
  const routed = edges.map((edge) => {
    let points = way(edge);
    if (typeof edge.from === "string") points.splice(0, 1);
    if (typeof edge.to === "string") points.splice(-1, 1);
    points = points.filter(({ y }) => y > 0 && y < size.height); // the rest lies in the space for ports
    if (typeof edge.from === "string") points.unshift({ x: portAt.get(edge.from), y: 0 });
    if (typeof edge.to === "string") points.push({ x: portAt.get(edge.to), y: size.height });
    return { ...edge, points };
  });
  return { size, places, edges: routed, ports: portAt };
}

/** Whether most neighbours side by side are against the order of the program, which is that of their numbers. */
function backwards(nodes) {
  const order = nodes.map(([child, { x, y, height }]) => ({ child, x, top: Math.round(y - height / 2) }));
  order.sort((a, b) => a.top - b.top || a.x - b.x);
  const steps = order.slice(1).map((node, n) => (node.top === order[n].top ? Math.sign(node.child - order[n].child) : 0));
  return steps.reduce((sum, step) => sum + step, 0) < 0;
}

/** A smooth line through the middles between its points. */
function curve(points) {
  const at = ({ x, y }) => `${x.toFixed(1)} ${y.toFixed(1)}`;
  const middle = (a, b) => at({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });
  if (points.length < 3) return `M${points.map(at).join("L")}`;
  let path = `M${at(points[0])}L${middle(points[0], points[1])}`;
  for (let n = 1; n < points.length - 1; n++) path += `Q${at(points[n])} ${middle(points[n], points[n + 1])}`;
  return `${path}L${at(points.at(-1))}`;
}

// ---- one view -------------------------------------------------------------------------------------------------------

class View {
  constructor(model, el) {
    this.model = model;
    this.undo = []; // what close() has to run
    this.hover = -1; // a box
    this.marked = this.told = ""; // the branch that the pointer is on in another view of the page, and in this one
    this.scrolled = -Infinity; // when the wheel last turned elsewhere on the page
    this.build(el);
    const copy = model.get("copy");
    this.use(received.get(copy) ?? readColumns(copy));
    this.listen();
    if (this.data.more) model.send({ ask: "columns" });
  }

  build(el) {
    this.root = element("div", "kit-graph");
    this.root.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes letters for its own commands
    this.bar = element("div", "bar");
    this.keys = element("span", "bar");
    this.keys.style.padding = "0";
    this.hint = element("span", "hint", "double click: open or close · wheel: zoom · drag: pan · N, P: next, previous · F: fit");
    this.hint.title = this.hint.textContent; // a narrow cell cuts it first
    this.button = element("button", "", "Text");
    this.button.type = "button";
    this.button.setAttribute("aria-expanded", "false");
    this.stage = element("div", "stage");
    this.stage.tabIndex = 0;
    this.stage.setAttribute("role", "application");
    this.defs = drawn("defs", {});
    this.layer = drawn("g", {});
    this.stage.append(drawn("svg", {}, this.defs, this.layer));
    this.details = element("div", "details");
    this.details.setAttribute("aria-live", "polite");
    this.twin = element("div", "twin");
    this.twin.hidden = true;
    this.tip = element("div", "tip");
    this.tip.hidden = true;
    this.bar.append(this.keys, this.hint, this.button);
    this.root.append(element("style", "", STYLE), this.bar, this.stage, this.details, this.twin, this.tip);
    el.append(this.root);
  }

  use(data) {
    this.data = data;
    this.twin.replaceChildren(element("pre", "", data.text));
    const keys = "Arrows pan, plus and minus zoom, F fits, N and P walk the boxes, Enter opens one, Escape closes the one around.";
    this.stage.setAttribute("aria-label", `${data.summary}. ${keys}`);
    this.arrange();
    this.describe();
  }

  listen() {
    const { on, follow } = listening(this);
    follow("change:opened", () => this.arrange());
    follow("change:selected", () => (this.mark(), this.describe()));
    follow("msg:custom", (message) => {
      if (!message.columns || !this.data.more) return;
      const data = readColumns(message.columns);
      received.set(this.model.get("copy"), data);
      this.use(data);
    });
    on(this.stage, "wheel", (event) => this.wheel(event), { passive: false });
    const scrolls = (event) => { if (!this.stage.contains(event.target)) this.scrolled = event.timeStamp; };
    on(window, "wheel", scrolls, { capture: true, passive: true });
    on(this.stage, "pointerdown", (event) => this.press(event));
    on(this.stage, "pointermove", (event) => this.move(event));
    on(this.stage, "pointerup", (event) => this.release(event));
    on(this.stage, "pointercancel", () => (this.drag = null));
    on(this.stage, "pointerleave", () => this.point(-1));
    on(this.stage, "dblclick", (event) => this.toggle(this.boxAt(event)));
    on(this.stage, "keydown", (event) => this.key(event));
    on(document, "kit-branch", ({ detail: { branch, from } }) => {
      if (from === this) return;
      this.marked = branch;
      this.mark();
    });
    on(this.button, "click", () => {
      this.twin.hidden = !this.twin.hidden;
      this.button.setAttribute("aria-expanded", String(!this.twin.hidden));
    });
    const sizes = new ResizeObserver(() => this.resize());
    sizes.observe(this.root);
    const themes = new MutationObserver(() => requestAnimationFrame(() => this.restyle())); // Jupyter hides the page for it
    themes.observe(document.body, { attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
    const dark = matchMedia("(prefers-color-scheme: dark)");
    on(dark, "change", () => this.restyle());
    this.undo.push(() => sizes.disconnect(), () => themes.disconnect());
  }

  close() {
    for (const step of this.undo) step();
    this.root.remove();
  }

  save() {
    this.model.save_changes();
  }

  // ---- looks ----

  /** Read the page's theme and mix the boxes' colours for it. */
  restyle() {
    if (!this.root.isConnected || !this.layout) return;
    this.page = background(this.root);
    this.looks = [...this.data.looks, NEUTRAL_LOOK].map(([colour, , hatch]) => {
      const fill = blend(colour, this.page, 0.4);
      return { colour, hatch, fill, frame: blend(colour, this.page, 0.08), ink: luminance(fill) > 0.179 ? "#000000" : "#ffffff",
        strip: luminance(colour) > 0.179 ? "#000000" : "#ffffff" };
    });
    this.draw();
  }

  lookOf(box) {
    return this.looks[box[LOOK] < 0 ? this.looks.length - 1 : box[LOOK]];
  }

  // ---- drawing ----

  arrange() {
    const opened = new Set(this.model.get("opened"));
    const anchor = this.anchor;
    const before = anchor >= 0 && this.drawnBox?.get(anchor);
    this.layout = layOut(this.data, opened);
    this.root.dataset.boxes = this.layout.count; // closed ones that show
    this.legend();
    this.restyle();
    if (before && this.drawnBox?.get(anchor)) { // what was opened or closed stays where it was
      const now = this.drawnBox.get(anchor);
      this.x += (before.x + before.width / 2 - now.x - now.width / 2) * this.scale;
      this.y += (before.y - now.y) * this.scale;
      this.place();
    } else {
      this.home();
    }
    this.anchor = -1;
  }

  legend() {
    const widest = this.data.unit === "ms" ? `${digits(this.layout.most)} ms` : macsText(this.layout.most);
    const key = (mark, text) => {
      const line = element("span", "key");
      line.append(drawn("svg", { width: 28, height: 12 }, mark), element("span", "", text));
      return line;
    };
    const line = (kind) => drawn("path", { class: `edge ${kind}`, d: "M0 6H28" });
    const what = this.data.unit === "ms" ? "time" : "MACs (nothing was measured)";
    const keys = [element("span", "key", `width: ${what}, the widest box ${widest}`), key(line("critical"), "critical path")];
    if (this.data.parts.some((part) => part[ORDER].length)) keys.push(key(line("order"), "order only"));
    if (this.data.looks.length) keys.push(element("span", "key", "colour: branch of a region"));
    this.keys.replaceChildren(...keys);
  }

  draw() {
    const { boxes, edges, leaving } = this.layout;
    this.drawnBox = new Map(boxes.map((each) => [each.box, each]));
    this.nodes = new Map();
    const frames = [], closed = [], labels = [], lines = [], shapes = [];
    this.defs.replaceChildren(...this.looks.map((look, n) => drawn("pattern",
      { id: this.id(`hatch${n}`), width: 8, height: 8, patternUnits: "userSpaceOnUse" },
      drawn("path", { d: look.hatch, stroke: look.strip, "stroke-opacity": 0.5, fill: "none" }))),
      ...["", "critical"].map((kind) => drawn("marker", { id: this.id(`head${kind}`), viewBox: "0 0 8 8", refX: 7, refY: 4,
        markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" },
        drawn("path", { class: `head ${kind}`, d: "M0 0.5L8 4L0 7.5z" }))));
    for (const { box: i, x, y, width, height, open } of boxes) {
      const box = this.data.boxes[i];
      const look = this.lookOf(box);
      const node = drawn("g", { class: `box${open ? " open" : ""}${box[CRITICAL] && !open ? " critical" : ""}`, "data-box": i, "data-path": box[PATH],
        transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` });
      node.append(drawn("rect", { width: width.toFixed(1), height: height.toFixed(1), rx: 4, fill: open ? look.frame : look.fill }));
      if (open) {
        const label = drawn("g", { class: "label", transform: node.getAttribute("transform") }, drawn("text", { x: 8, y: 16 }));
        label.firstChild.textContent = `${cut(box[LABEL], width - 90)} · ${this.cost(box)}`;
        labels.push(label);
        frames.push(node);
      } else {
        const left = box[LOOK] < 0 ? 0 : STRIP; // of a branch: a strip of its colour and hatch, as in the timeline
        if (left) {
          const strip = { x: 1, y: 1, width: STRIP, height: height - 2, rx: 3 };
          node.append(drawn("rect", { ...strip, fill: look.colour }), drawn("rect", { ...strip, fill: `url(#${this.id(`hatch${box[LOOK]}`)})` }));
        }
        const middle = { x: ((left + width) / 2).toFixed(1), "text-anchor": "middle", fill: look.ink };
        const name = drawn("text", { ...middle, y: 14 }), time = drawn("text", { ...middle, y: 28, class: "time" });
        name.textContent = cut(box[LABEL], width - left - 6, box[LABEL].split(".")[0]);
        const kind = this.data.parts[box[PART]]?.[KIND], cost = this.cost(box);
        const both = kind && kind !== box[LABEL] ? `${kind} · ${cost}` : cost;
        time.textContent = both.length * CHAR <= width - left - 6 ? both : cut(cost, width - left - 4);
        node.append(name, time);
        closed.push(node);
        const shape = [...leaving.get(i) ?? []];
        if (shape.length) {
          const text = drawn("text", { class: "shape", x: (x + width / 2 + 5).toFixed(1), y: (y + height + 13).toFixed(1) });
          text.textContent = shape.length === 1 ? cut(shape[0], 170) : `${shape.length} shapes`;
          shapes.push(text);
        }
      }
      this.nodes.set(i, node);
    }
    for (const edge of edges) {
      const kind = `${edge.critical ? " critical" : ""}${edge.order ? " order" : ""}`;
      const line = drawn("path", { class: `edge${kind}`, d: curve(edge.points) });
      if (edge.ends) line.setAttribute("marker-end", `url(#${this.id(`head${edge.critical ? "critical" : ""}`)})`);
      line.ends = edge;
      lines.push(line);
    }
    lines.sort((a, b) => a.ends.critical - b.ends.critical);
    this.lines = lines;
    this.layer.replaceChildren(...frames, ...lines, ...closed, ...labels, ...shapes);
    this.mark();
  }

  id(name) { // of this view alone: ids belong to the whole page
    this.number ??= Math.random().toString(36).slice(2);
    return `kit-${this.number}-${name}`;
  }

  cost(box) {
    return this.data.unit === "ms" ? (box[MS] === null ? "not measured" : `${digits(box[MS])} ms`) : macsText(box[MACS]);
  }

  mark() {
    const selected = this.selectedBox();
    for (const [i, node] of this.nodes ?? []) {
      node.classList.toggle("selected", i === selected);
      node.classList.toggle("hover", i === this.hover);
      node.classList.toggle("same", this.marked !== "" && this.data.boxes[i][BRANCH] === this.marked);
    }
    for (const line of this.lines ?? []) {
      const { from, to, source } = line.ends;
      line.classList.toggle("near", this.hover > 0 && (source === this.hover || from === this.hover || to === this.hover));
    }
  }

  selectedBox() {
    const i = this.model.get("selected") ? this.data.place.get(this.model.get("selected")) : undefined;
    return i !== undefined && this.drawnBox?.has(i) ? i : -1;
  }

  // ---- what a box is ----

  facts(i) {
    const box = this.data.boxes[i], part = this.data.parts[box[PART]];
    const one = part && part[NAME];
    const facts = [one ? `${part[NAME]}: ${part[KIND]}` : `${box[PATH]}: ${box[COUNT].toLocaleString("en")} operators`];
    if (one) facts.push(`in ${this.data.boxes[box[PARENT]][PATH] || "the model itself"}`);
    const shapes = one ? [part[SHAPE]] : [...this.layout.leaving.get(i) ?? []];
    if (shapes.length) facts.push(`output ${shapes.join("; ")}`);
    const whole = this.data.boxes[0][MS];
    if (box[MS] !== null) facts.push(`${digits(box[MS])} ms on one thread${whole ? ` (${(100 * box[MS] / whole).toFixed(1)}% of all)` : ""}`);
    else facts.push("not measured");
    if (box[MACS]) facts.push(macsText(box[MACS]));
    if (box[BRANCH]) facts.push(`branch: ${box[BRANCH]}`);
    if (box[CRITICAL]) facts.push(one ? "on the critical path" : "holds a part of the critical path");
    return facts;
  }

  describe() {
    const i = this.selectedBox();
    const more = this.data.more ? ". The copy kept with the notebook has the outer boxes only: opening the rest needs its kernel." : "";
    this.details.textContent = i > 0 ? this.facts(i).join(" · ") : this.data.summary + more;
  }

  point(i, event) {
    if (i !== this.hover) {
      this.hover = i;
      this.mark();
      tell(this, i > 0 ? this.data.boxes[i][BRANCH] : "");
      this.tip.replaceChildren(...(i > 0 ? this.facts(i).map((fact) => element("div", "", fact)) : []));
    }
    this.tip.hidden = i <= 0 || !event;
    if (this.tip.hidden) return;
    const box = this.root.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    this.tip.style.left = `${Math.max(4, Math.min(x + 14, box.width - this.tip.offsetWidth - 4))}px`;
    this.tip.style.top = `${y + 18 + this.tip.offsetHeight > box.height ? Math.max(4, y - this.tip.offsetHeight - 10) : y + 18}px`;
  }

  boxAt(event) {
    const node = document.elementFromPoint(event.clientX, event.clientY)?.closest(".box");
    return node && this.layer.contains(node) ? Number(node.dataset.box) : -1;
  }

  // ---- moving ----

  /** The first look: as large as can be read, from the inputs on; the whole of it if that is readable. */
  home() {
    this.resize();
    if (!this.width) return;
    this.scale = Math.min(1, Math.max(READABLE, this.whole()));
    this.x = (this.width - this.layout.width * this.scale) / 2;
    this.y = 0;
    this.place();
  }

  fit() {
    this.scale = Math.min(1, this.whole());
    this.x = (this.width - this.layout.width * this.scale) / 2;
    this.y = (this.height - this.layout.height * this.scale) / 2;
    this.place();
  }

  whole() {
    return Math.min(this.width / this.layout.width, this.height / this.layout.height);
  }

  resize() {
    const first = !this.width;
    this.width = this.stage.clientWidth;
    if (!this.width) return; // not on a page yet
    this.height = Math.min(HIGHEST, Math.max(LOWEST, this.height ?? 0, Math.ceil(this.layout.height)));
    this.stage.style.height = `${this.height}px`;
    if (first) {
      this.restyle();
      this.home();
    }
  }

  place() {
    this.layer.setAttribute("transform", `translate(${this.x.toFixed(2)} ${this.y.toFixed(2)}) scale(${this.scale.toFixed(4)})`);
    this.layer.setAttribute("class", this.scale < TEXT_FROM ? "far" : "");
  }

  /** Keep some of the picture in sight. */
  pan(dx, dy) {
    const keep = (at, size, room) => Math.min(room - 40, Math.max(40 - size, at));
    this.x = keep(this.x + dx, this.layout.width * this.scale, this.width);
    this.y = keep(this.y + dy, this.layout.height * this.scale, this.height);
    this.place();
  }

  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const scale = Math.min(LARGEST, Math.max(Math.min(SMALLEST, this.whole()), this.scale * factor));
    const change = scale / this.scale;
    [this.x, this.y, this.scale] = [x - (x - this.x) * change, y - (y - this.y) * change, scale];
    this.pan(0, 0);
  }

  wheel(event) {
    // A scroll through the page that comes across the picture goes on scrolling, and with the whole in sight so does zooming out.
    const widest = this.scale <= this.whole() && event.deltaY > Math.abs(event.deltaX) && !event.shiftKey;
    const passing = event.timeStamp - this.scrolled < 250;
    if (passing) this.scrolled = event.timeStamp;
    if (passing || widest) return;
    event.preventDefault();
    this.stage.focus({ preventScroll: true }); // so that the keys work at once
    const unit = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    const box = this.stage.getBoundingClientRect();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.pan(-(event.deltaX || event.deltaY) * unit, 0);
    else this.zoom(Math.exp(-Math.max(-1, Math.min(1, event.deltaY * unit * (event.ctrlKey ? 0.01 : 0.002)))), event.clientX - box.left, event.clientY - box.top);
    this.point(this.boxAt(event), event); // what is under the pointer has changed
  }

  press(event) {
    if (event.button !== 0) return;
    this.stage.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    this.drag = { x: event.clientX, y: event.clientY, moved: false };
  }

  move(event) {
    if (!this.drag) return this.point(this.boxAt(event), event);
    const [dx, dy] = [event.clientX - this.drag.x, event.clientY - this.drag.y];
    if (!this.drag.moved && Math.hypot(dx, dy) < 4) return;
    this.point(-1);
    this.pan(dx, dy);
    this.drag = { x: event.clientX, y: event.clientY, moved: true };
  }

  release(event) {
    const drag = this.drag;
    this.drag = null;
    if (drag && !drag.moved) this.select(this.boxAt(event));
  }

  // ---- opening and walking ----

  select(i) {
    this.model.set("selected", i > 0 ? this.data.boxes[i][PATH] : "");
    this.save();
  }

  isOpen(i) {
    return this.drawnBox.get(i)?.open ?? false;
  }

  toggle(i) {
    if (i > 0) this.setOpen(i, !this.isOpen(i));
  }

  setOpen(i, open) {
    const path = this.data.boxes[i][PATH];
    if (this.isOpen(i) === open || (open && !this.data.inside[i].length)) return;
    const others = this.model.get("opened").filter((other) => other !== path);
    this.anchor = i;
    this.point(-1);
    this.model.set("opened", open ? [...others, path] : others);
    this.select(i);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const actions = {
      ArrowLeft: () => this.pan(STEP, 0), a: () => this.pan(STEP, 0),
      ArrowRight: () => this.pan(-STEP, 0), d: () => this.pan(-STEP, 0),
      ArrowUp: () => this.pan(0, STEP), ArrowDown: () => this.pan(0, -STEP),
      "+": () => this.zoom(1.25), "=": () => this.zoom(1.25), w: () => this.zoom(1.25),
      "-": () => this.zoom(0.8), s: () => this.zoom(0.8),
      f: () => this.fit(),
      n: () => this.walk(1), p: () => this.walk(-1),
      Enter: () => (this.selectedBox() > 0 ? this.setOpen(this.selectedBox(), true) : this.walk(1)),
      Escape: () => this.leave(),
    };
    if (!actions[key]) return;
    event.preventDefault();
    event.stopPropagation(); // Escape and Enter mean other things to a notebook
    actions[key]();
  }

  /** To the next box that shows, in the order of the program. */
  walk(step) {
    const order = [...this.drawnBox.keys()].sort((a, b) => a - b);
    const at = order.indexOf(this.selectedBox());
    const next = order[at < 0 ? (step > 0 ? 0 : order.length - 1) : Math.min(order.length - 1, Math.max(0, at + step))];
    if (next === undefined) return;
    this.select(next);
    this.reveal(next);
  }

  reveal(i) {
    const { x, y, width, height } = this.drawnBox.get(i);
    const near = (at, size, room, margin = 30) => (at < margin || size > room - 2 * margin ? margin - at : Math.min(0, room - margin - at - size));
    this.pan(near(this.x + x * this.scale, width * this.scale, this.width), near(this.y + y * this.scale, height * this.scale, this.height));
  }

  /** Close the selected box, or if it is closed the one around it. */
  leave() {
    const i = this.selectedBox();
    if (i <= 0) return;
    const box = this.isOpen(i) ? i : this.data.boxes[i][PARENT];
    if (box > 0) this.setOpen(box, false);
    else this.select(-1);
  }
}

export default {
  render({ model, el }) {
    const view = new View(model, el);
    return () => view.close();
  },
};

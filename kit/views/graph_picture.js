// The page half of the picture of a graph: draws the boxes and parts that graph_picture.py packs (see `columns` there).
//
// Each open box is laid out by itself, inner ones first, and then is one box of a known size in the box around it. A line
// that crosses the border of an open box goes through a port there, one for each box that it comes from. `dagre` is the
// layout library, which stands before this script. Names only ever become text, never HTML.

const TALL = 39, NARROWEST = 96, WIDEST = 288; // pixels of a closed box
const ACROSS = 18, DOWN = 36, PAD = 12, BELOW = 22, HEADER = 24, STRIP = 8, FOOT = 4, SIGN = 12; // pixels between and inside boxes
const TEXT = 12, CHAR = 7.1; // pixels of a font that can be read, and of one of its characters on average
const SMALLEST = 0.02, LARGEST = 4, STEPS = Math.sqrt(1.25), TEXT_FROM = 0.5, USUAL = 0.8; // scales: text has a size for each of a few steps
const NAMED = 12; // branches that the key names
const LOWEST = 200, HIGHEST = 640; // pixels of the stage
const STEP = 60; // pixels that an arrow key moves
const SVG = "http://www.w3.org/2000/svg";
const [PATH, LABEL, PARENT, PART, MS, MACS, COUNT, CRITICAL, AROUND, WITHIN, KNOTTED] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]; // of a box
const [DATA, ORDER, SHAPE, KIND, NAME] = [0, 1, 2, 3, 4]; // of a part

const STYLE = `
.kit-graph { --page: var(--jp-layout-color0, #fff); --band: var(--jp-layout-color2, #eef0f2);
  --ink: var(--jp-ui-font-color0, #111); --muted: var(--jp-ui-font-color2, #5f6368); --line: var(--jp-border-color2, #d0d4da);
  --focus: var(--jp-brand-color1, #1976d2); background: var(--page); color: var(--ink); position: relative; min-width: 320px;
  font: 12px/1.4 var(--jp-ui-font-family, system-ui, Helvetica, Arial, sans-serif); border: 1px solid var(--line); }
.kit-graph .bar { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: center; padding: 6px 12px; }
.kit-graph .key { display: inline-flex; align-items: center; gap: 6px; }
.kit-graph .key svg { flex: none; }
.kit-graph .hint { color: var(--muted); flex: 1 1 100%; }
.kit-graph button { font: inherit; color: var(--ink); background: var(--page); border: 1px solid var(--muted); padding: 2px 10px;
  border-radius: 3px; box-sizing: border-box; height: 24px; margin: 0 0 0 auto; cursor: pointer; }
.kit-graph button[aria-expanded="true"] { background: var(--band); }
.kit-graph :is(button, .stage):focus-visible { outline: 2px solid var(--focus); outline-offset: -2px; }
.kit-graph .stage { overflow: hidden; position: relative; cursor: grab; touch-action: none; border-top: 1px solid var(--line); }
.kit-graph .stage > svg { display: block; width: 100%; height: 100%; user-select: none; }
.kit-graph .box > rect:first-child { stroke: var(--muted); }
.kit-graph .box.critical > rect:first-child { stroke: var(--ink); stroke-width: 2.5; }
.kit-graph .box.hover > rect:first-child { stroke: var(--ink); stroke-width: 1.8; }
.kit-graph .box.critical.hover > rect:first-child { stroke-width: 3.5; }
.kit-graph .box.same > rect:first-child { stroke: var(--focus); stroke-width: 2.5; }
.kit-graph .box.holds > rect:first-child { stroke: var(--focus); stroke-width: 2.5; stroke-dasharray: 5 3; }
.kit-graph .box.selected > rect:first-child { stroke: var(--focus); stroke-width: 4; }
.kit-graph text { pointer-events: none; font-size: var(--size); }
.kit-graph .label > rect { pointer-events: none; }
.kit-graph .sign { cursor: pointer; }
.kit-graph .sign rect { fill: var(--page); stroke: var(--muted); }
.kit-graph .sign path { stroke: var(--ink); stroke-width: 1.4; pointer-events: none; }
.kit-graph .label text { fill: var(--ink); }
.kit-graph .shape { fill: var(--muted); stroke: var(--page); stroke-width: 3px; paint-order: stroke; }
.kit-graph .edge { fill: none; stroke: var(--muted); stroke-width: 1.1; pointer-events: none; }
.kit-graph .edge.critical { stroke: var(--ink); stroke-width: 2.5; }
.kit-graph .edge.order { stroke-dasharray: 5 4; }
.kit-graph .edge.near { stroke: var(--focus); stroke-width: 2.5; }
.kit-graph .head { fill: var(--muted); }
.kit-graph .head.critical { fill: var(--ink); }
.kit-graph .far :is(text, .sign) { display: none; }
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

/** A count of multiply-accumulates for people: "5.71 GMACs". */
function macsText(count) {
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (count >= size) return `${(count / size).toFixed(2)} ${letter}MACs`;
  }
  return `${count} MACs`;
}

/** What fits into so many characters: the beginning given, or both ends, by which "comb0_left" and "comb0_right" differ. */
function cut(text, room, beginning = text) {
  room = Math.max(1, Math.floor(room));
  if (text.length <= room) return text;
  if (beginning.length < room) return `${beginning}…`;
  const head = Math.ceil((room - 1) * 0.6);
  return `${beginning.slice(0, head)}…${beginning.slice(beginning.length - (room - 1 - head))}`;
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
  return { ...columns, inside, depth, holder, place, arranged: new Map() };
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

/** The shape of what leaves a box, or how many shapes it has. */
function shapeText(leaving, i) {
  const shapes = [...leaving.get(i) ?? []];
  return shapes.length > 1 ? `${shapes.length} shapes` : cut(shapes[0] ?? "", 24);
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
    const beside = 6 + (shapeText(leaving, i).length * CHAR) / USUAL; // right of the line down from its middle
    return { width: Math.max(NARROWEST, (WIDEST * costOf(data, data.boxes[i])) / most), height: TALL, beside };
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

/** As `arranged`, which takes most of the time of a click: what nothing has changed in stays as it was. */
function arrange(data, i, edges, sizeOf) {
  const key = JSON.stringify([data.inside[i].map(sizeOf), edges]);
  if (data.arranged.get(i)?.key !== key) data.arranged.set(i, { key, result: arranged(data, i, edges, sizeOf) });
  return data.arranged.get(i).result;
}

/** One open box: where what is right in it goes, where its lines run, and where its ports are. */
function arranged(data, i, edges, sizeOf) {
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
  const title = i ? (data.boxes[i][LABEL].length + 14) * CHAR / USUAL : 0; // its name and cost
  const spare = Math.max(0, title - graph.graph().width) / 2;
  const head = i ? HEADER + 1.5 * PAD : PAD;
  const size = { width: (nodes.length && graph.graph().width) + 2 * (spare + PAD), height: bottom - top + head + BELOW };
  const mirrored = backwards(nodes); // dagre does not mind, but the first branch is looked for on the left
  const move = ({ x, y }) => ({ x: (mirrored ? graph.graph().width - x : x) + spare + PAD, y: y - top + head });
  const places = new Map(nodes.map(([child, n]) => [child, move({ x: n.x + (mirrored ? 1 : -1) * n.width / 2, y: n.y - n.height / 2 })]));
  const reach = Math.max(0, ...nodes.map(([child]) => places.get(child).x + sizeOf(child).width / 2 + (sizeOf(child).beside ?? 0)));
  size.width = Math.max(size.width, reach + 4);
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
    if (typeof edge.from === "string") points.unshift({ x: portAt.get(edge.from), y: 0 }, { x: portAt.get(edge.from), y: i ? HEADER : 0 });
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
    this.marked = -1; // the branch that the pointer or the keys are on in another view of the page
    this.focused = false; // whether the keys come here
    this.toggled = -Infinity; // when a click opened or closed a box
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
    this.keys.style.cssText = "padding: 0; flex: 1 1 0";
    this.hint = element("span", "hint", "plus sign or double click: open or close a box · wheel: zoom · drag: pan · F: fit · keys: N, P next and previous box, Enter opens it, Escape closes it");
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
    this.bar.append(this.keys, this.button, this.hint);
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
    follow("change:selected", () => (this.mark(), this.describe(), this.told()));
    for (const type of ["focus", "blur"]) on(this.stage, type, () => ((this.focused = type === "focus"), this.told()));
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
    on(this.stage, "dblclick", (event) => event.timeStamp - this.toggled > 600 && this.toggle(this.boxAt(event)));
    on(this.stage, "keydown", (event) => this.key(event));
    on(document, "kit-branch", ({ detail: { branch, from } }) => {
      if (from === this) return;
      this.marked = this.data.branches.findIndex(([name]) => name === branch);
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
    tell(this, "");
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
    this.looks = [...this.data.branches.map(([, ...look]) => look), this.data.knot].map(([colour, , hatch], number) => {
      const fill = blend(colour, this.page, 0.4);
      const [frame, band] = [0.08, 0.2].map((strength) => blend(colour, this.page, strength));
      return { number, colour, hatch, fill, frame, band, ink: luminance(fill) > 0.179 ? "#000000" : "#ffffff",
        lines: luminance(colour) > 0.179 ? "#000000" : "#ffffff" };
    });
    this.legend();
    this.draw();
  }

  /** The look of a box; one that is in no branch is as grey as what is not series-parallel. */
  lookOf(box) {
    return this.looks.at(box[AROUND]);
  }

  /** Whether it has a strip at its left: it is in a branch, or most of it is not series-parallel. */
  striped(box) {
    return box[AROUND] >= 0 || 2 * box[KNOTTED] > box[COUNT];
  }

  /** A rectangle in the colour and the hatch of a look. */
  swatch(look, place) {
    return [look.colour, `url(#${this.id(`hatch${look.number}`)})`].map((fill) => drawn("rect", { ...place, fill }));
  }

  // ---- drawing ----

  arrange() {
    const opened = new Set(this.model.get("opened"));
    const anchor = this.anchor;
    const before = anchor >= 0 && this.drawnBox?.get(anchor);
    this.layout = layOut(this.data, opened);
    this.root.dataset.boxes = this.layout.count; // closed ones that show
    this.restyle();
    if (before && this.drawnBox?.get(anchor)) { // what was opened or closed stays where it was
      const now = this.drawnBox.get(anchor);
      this.x += (before.x + before.width / 2 - now.x - now.width / 2) * this.scale;
      this.y += (before.y - now.y) * this.scale;
      this.fitted = null;
      this.place();
    } else {
      this.home();
    }
    this.anchor = -1;
  }

  legend() {
    const { branches, unit, boxes, parts } = this.data;
    const key = (width, marks, text) => {
      const line = element("span", "key");
      line.append(drawn("svg", { width, height: 12 }, ...marks), element("span", "", text));
      return line;
    };
    const line = (kind, text) => key(28, [drawn("path", { class: `edge ${kind}`, d: "M0 6H28" })], text);
    const swatch = (look, text) => key(14, this.swatch(look, { width: 14, height: 12 }), text);
    const what = unit === "ms" ? "time" : "MACs (nothing was measured)";
    const keys = [element("span", "key", `width: ${what}, the widest box ${this.costText(this.layout.most)}`), line("critical", "critical path")];
    if (parts.some((part) => part[ORDER].length)) keys.push(line("order", "order only"));
    if (branches.length) keys.push(element("span", "key", "branches, at the left of a box or at the foot of one that holds them:"));
    keys.push(...branches.slice(0, NAMED).map(([name], n) => swatch(this.looks[n], name)));
    if (branches.length > NAMED) keys.push(element("span", "key", `and ${branches.length - NAMED} more`));
    if (boxes[0][KNOTTED]) keys.push(swatch(this.looks.at(-1), "not series-parallel: it does not fork and join, so no branches are found in it"));
    this.keys.replaceChildren(...keys);
  }

  draw() {
    const { boxes, edges, leaving } = this.layout;
    this.drawnBox = new Map(boxes.map((each) => [each.box, each]));
    this.nodes = new Map();
    this.size = this.textSize();
    this.layer.style.setProperty("--size", `${this.size}px`);
    const frames = [], closed = [], labels = [], lines = [], shapes = [];
    this.defs.replaceChildren(...this.looks.map((look) => drawn("pattern",
      { id: this.id(`hatch${look.number}`), width: 8, height: 8, patternUnits: "userSpaceOnUse" },
      drawn("path", { d: look.hatch, stroke: look.lines, "stroke-opacity": 0.5, fill: "none" }))),
      ...["", "critical"].map((kind) => drawn("marker", { id: this.id(`head${kind}`), viewBox: "0 0 8 8", refX: 7, refY: 4,
        markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" },
        drawn("path", { class: `head ${kind}`, d: "M0 0.5L8 4L0 7.5z" }))));
    for (const { box: i, x, y, width, height, open } of boxes) {
      const box = this.data.boxes[i];
      const look = this.lookOf(box);
      const at = { transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` };
      const node = drawn("g", { class: `box${open ? " open" : ""}${box[CRITICAL] && !open ? " critical" : ""}`, "data-box": i, "data-path": box[PATH], ...at });
      node.append(drawn("rect", { width: width.toFixed(1), height: height.toFixed(1), rx: 4, fill: open ? look.frame : look.fill }));
      if (open) {
        labels.push(this.title(box, look, width, { ...at, "data-box": i })); // above the lines that come in, so that none crosses it
        frames.push(node);
      } else {
        node.append(...this.inside(i, box, look, width));
        closed.push(node);
        shapes.push(...this.shape(i, x + width / 2, y + height));
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
    this.layer.replaceChildren(...frames, ...lines, ...closed, ...shapes, ...labels);
    this.mark();
  }

  /** How many characters fit into so many pixels. */
  room(pixels) {
    return (pixels / CHAR) * (TEXT / this.size);
  }

  /** The head of an open box: its name, its cost, and a sign to close it. */
  title(box, look, width, at) {
    const text = drawn("text", { x: 8, y: (HEADER / 2 + 0.36 * this.size).toFixed(1) });
    const cost = ` · ${this.cost(box)}`;
    text.textContent = cut(box[LABEL], this.room(width - 16 - SIGN) - cost.length) + cost;
    return drawn("g", { class: "label", ...at }, drawn("rect", { x: 1, y: 1, width: (width - 2).toFixed(1), height: HEADER, rx: 3, fill: look.band }), text, this.sign(width, 6, true));
  }

  sign(width, y, open) {
    const [x, half] = [width - SIGN - 4, SIGN / 2];
    return drawn("g", { class: "sign", transform: `translate(${x.toFixed(1)} ${y})` }, drawn("rect", { width: SIGN, height: SIGN, rx: 2 }),
      drawn("path", { d: `M3 ${half}H${SIGN - 3}${open ? "" : `M${half} 3V${SIGN - 3}`}` }));
  }

  /** What a closed box shows of itself. */
  inside(i, box, look, width) {
    const found = [];
    const left = this.striped(box) ? STRIP : 0; // as in the timeline
    if (left) found.push(...this.swatch(look, { x: 1, y: 1, width: left, height: TALL - 2, rx: 3 }));
    const each = (width - 3 - left) / box[WITHIN].length;
    box[WITHIN].forEach((branch, n) => {
      const place = { x: (left + 1.5 + n * each).toFixed(1), y: TALL - 1.5 - FOOT, width: each.toFixed(1), height: FOOT };
      found.push(...this.swatch(this.looks[branch], place));
    });
    const right = this.data.inside[i].length ? SIGN + 4 : 0;
    const kind = this.data.parts[box[PART]]?.[KIND], cost = this.cost(box);
    const wide = this.room(width - left - 6), high = TALL - 1 - (box[WITHIN].length ? FOOT : 0), step = 1.1 * this.size;
    const name = cut(box[LABEL], wide, box[LABEL].split(".")[0]);
    const both = kind && kind !== box[LABEL] ? `${kind} · ${cost}` : cost;
    const one = `${box[LABEL]} · ${cost}`; // further out there is one line
    const said = high >= 2 * step ? [name, both.length <= wide ? both : cost] : [one.length <= wide ? one : name];
    const last = said.length - 1, fits = (pixels) => said[last].length <= this.room(width - left - pixels - 4);
    const shown = right && fits(right); // further out a name may leave no room for the sign
    if (shown) found.push(this.sign(width, high - SIGN - 3, false));
    said.forEach((line, n) => {
      const y = (high - said.length * step) / 2 + (n + 0.82) * step;
      const aside = shown && n === last && !fits(2 * right) ? right : 0;
      const text = drawn("text", { x: ((width + left - aside) / 2).toFixed(1), y: y.toFixed(1), "text-anchor": "middle", fill: look.ink, class: n ? "time" : "name" });
      text.textContent = line;
      found.push(text);
    });
    return found;
  }

  /** The shape of what leaves a box, beside the line down. */
  shape(i, x, y) {
    const said = shapeText(this.layout.leaving, i);
    if (!said || this.size > TEXT / USUAL + 0.01) return []; // further out it would lie on its neighbours
    const text = drawn("text", { class: "shape", x: (x + 6).toFixed(1), y: (y + this.size + 2).toFixed(1) });
    text.textContent = said;
    return [text];
  }

  /** Of text, in the picture's own pixels: on the page it is never smaller than TEXT, and a step larger at most. */
  textSize() {
    return TEXT / Math.min(1, STEPS ** Math.floor(Math.log(this.scale ?? 1) / Math.log(STEPS) + 1e-9));
  }

  id(name) { // of this view alone: ids belong to the whole page
    this.number ??= Math.random().toString(36).slice(2);
    return `kit-${this.number}-${name}`;
  }

  cost(box) {
    return this.data.unit === "ms" && box[MS] === null ? "not measured" : this.costText(costOf(this.data, box));
  }

  costText(cost) {
    return this.data.unit === "ms" ? human(1e6 * cost) : macsText(cost);
  }

  mark() {
    const selected = this.selectedBox();
    for (const [i, node] of this.nodes ?? []) {
      node.classList.toggle("selected", i === selected);
      node.classList.toggle("hover", i === this.hover);
      const box = this.data.boxes[i];
      node.classList.toggle("same", this.marked >= 0 && box[AROUND] === this.marked);
      node.classList.toggle("holds", this.marked >= 0 && box[WITHIN].includes(this.marked) && !this.isOpen(i));
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
    if (box[MS] !== null) facts.push(`${human(1e6 * box[MS])} on one thread${whole ? ` (${(100 * box[MS] / whole).toFixed(1)}% of all)` : ""}`);
    else facts.push("not measured");
    if (box[MACS]) facts.push(macsText(box[MACS]));
    const names = box[WITHIN].map((n) => this.data.branches[n][0]);
    if (box[AROUND] >= 0) facts.push(`branch: ${this.data.branches[box[AROUND]][0]}`);
    if (names.length) facts.push(`holds the branches ${names.slice(0, NAMED).join(", ")}${names.length > NAMED ? ` and ${names.length - NAMED} more` : ""}`);
    if (box[KNOTTED]) facts.push(one || box[KNOTTED] === box[COUNT] ? "not series-parallel" : `${box[KNOTTED]} of its operators are not series-parallel`);
    if (box[CRITICAL]) facts.push(one ? "on the critical path" : "holds a part of the critical path");
    return facts;
  }

  describe() {
    const i = this.selectedBox();
    const more = this.data.more ? " The copy kept with the notebook has the outer boxes only: opening the rest needs its kernel." : "";
    this.details.textContent = i > 0 ? this.facts(i).join(" · ") : `${this.data.summary}. ${this.data.answer}${more}`;
  }

  point(i, event) {
    if (i !== this.hover) {
      this.hover = i;
      this.mark();
      this.told();
      this.tip.replaceChildren(...(i > 0 ? this.facts(i).map((fact) => element("div", "", fact)) : []));
    }
    this.tip.hidden = i <= 0 || !event;
    if (this.tip.hidden) return;
    const box = this.root.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    this.tip.style.left = `${Math.max(4, Math.min(x + 14, box.width - this.tip.offsetWidth - 4))}px`;
    this.tip.style.top = `${y + 18 + this.tip.offsetHeight > box.height ? Math.max(4, y - this.tip.offsetHeight - 10) : y + 18}px`;
  }

  /** Say which branch the pointer is on, or with the keys here which one is selected. */
  told() {
    const i = this.hover > 0 ? this.hover : this.focused ? this.selectedBox() : -1;
    const branch = i > 0 ? this.data.boxes[i][AROUND] : -1;
    tell(this, branch >= 0 ? this.data.branches[branch][0] : "");
  }

  boxAt(event) {
    const node = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-box]");
    return node && this.layer.contains(node) ? Number(node.dataset.box) : -1;
  }

  // ---- moving ----

  /** The first look: the whole of it if its text can be read then, else as wide as it is, from the inputs on. */
  home() {
    this.resize();
    if (!this.width) return;
    const whole = this.whole();
    this.scale = whole >= TEXT_FROM ? Math.min(1, whole) : Math.min(USUAL, Math.max(TEXT_FROM, this.width / this.layout.width));
    this.x = (this.width - this.layout.width * this.scale) / 2;
    this.y = 0;
    this.fitted = () => this.home();
    this.place();
  }

  fit() {
    this.scale = Math.min(1, this.whole());
    this.x = (this.width - this.layout.width * this.scale) / 2;
    this.y = (this.height - this.layout.height * this.scale) / 2;
    this.fitted = () => this.fit();
    this.place();
  }

  whole() {
    return Math.min(this.width / this.layout.width, this.height / this.layout.height);
  }

  resize() {
    const before = this.width, first = !before;
    this.width = this.stage.clientWidth;
    if (!this.width) return; // not on a page yet
    this.height = Math.min(HIGHEST, Math.max(LOWEST, this.height ?? 0, Math.ceil(this.layout.height)));
    this.stage.style.height = `${this.height}px`;
    if (first) {
      this.restyle();
      this.home();
    } else if (this.width !== before) this.fitted?.(); // what nobody has moved since fits the new width too
  }

  place() {
    this.layer.setAttribute("transform", `translate(${this.x.toFixed(2)} ${this.y.toFixed(2)}) scale(${this.scale.toFixed(4)})`);
    this.layer.setAttribute("class", this.scale < TEXT_FROM ? "far" : "");
    if (this.nodes && this.scale >= TEXT_FROM && this.size !== this.textSize()) this.draw();
  }

  /** Keep some of the picture in sight. */
  pan(dx, dy) {
    const keep = (at, size, room) => Math.min(room - 40, Math.max(40 - size, at));
    this.x = keep(this.x + dx, this.layout.width * this.scale, this.width);
    this.y = keep(this.y + dy, this.layout.height * this.scale, this.height);
    this.fitted = null;
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
    if (!drag || drag.moved) return;
    const box = this.boxAt(event);
    if (document.elementFromPoint(event.clientX, event.clientY)?.closest(".sign")) {
      this.toggle(box);
      this.toggled = event.timeStamp;
    } else {
      this.select(box);
    }
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

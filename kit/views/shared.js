// What the page halves of all views use. It stands before each of them in one module: see `module` in page.py.

function element(tag, className, text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

function channels(colour) {
  return [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
}

function blend(colour, page, strength) {
  const below = channels(page);
  return "#" + channels(colour).map((c, i) => Math.round(strength * c + (1 - strength) * below[i]).toString(16).padStart(2, "0")).join("");
}

/** WCAG relative luminance: above 0.179, black reads better on this fill than white. */
function luminance(fill) {
  const [r, g, b] = channels(fill).map((c) => (c <= 10 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** A duration for people, to three digits: "812 ns", "1.23 µs", "45.6 ms". */
function human(ns) {
  for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) {
    if (Math.abs(ns) >= size * 0.9995) {
      const value = ns / size;
      return `${value.toFixed(Math.max(0, 3 - String(Math.trunc(Math.abs(value) + 5e-4)).length))} ${unit}`;
    }
  }
  return `${Math.round(ns)} ns`;
}

/** The page's background behind an element, as "#rrggbb". */
function background(root) {
  const rgb = getComputedStyle(root).backgroundColor.match(/\d+/g)?.map(Number) ?? [255, 255, 255];
  return "#" + rgb.slice(0, 3).map((c) => c.toString(16).padStart(2, "0")).join("");
}

/** How a view listens to elements (`on`) and to its model (`follow`) until its `undo` has run. */
function listening({ model, undo }) {
  const on = (target, type, handler, options) => {
    target.addEventListener(type, handler, options);
    undo.push(() => target.removeEventListener(type, handler, options));
  };
  const follow = (event, handler) => {
    model.on(event, handler);
    undo.push(() => model.off(event, handler));
  };
  return { on, follow };
}

/** Tell the other views of the page which branch the pointer or the keys are on in this one; "" is none. */
function tell(view, branch) {
  if (branch !== (view.said ?? "")) document.dispatchEvent(new CustomEvent("kit-branch", { detail: { branch, from: view } }));
  view.said = branch;
}

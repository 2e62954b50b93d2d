// What every page does: its theme, its search, its live views and charts, and its quizzes.
const root = document.documentElement.dataset.root;
const later = (source, ready) => { // a script of the site, once
  const known = later.known ??= {};
  (known[source] ??= new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = `${root}static/${source}`;
    script.onload = resolve;
    document.head.append(script);
  })).then(ready);
};
const dataOf = (box) => JSON.parse(box.querySelector("script[type='application/json']").textContent);

// Views and charts -----------------------------------------------------------------------------------------------

window.kitViews = {}; // name -> a widget's module, from static/NAME.js

function live(box) {
  later(`${box.dataset.view}.js`, () => {
    const place = document.createElement("div");
    box.append(place);
    kitViews[box.dataset.view].render({ model: alone(dataOf(box)), el: place });
  });
}

function chart(box) {
  later("plotly.min.js", () => {
    const { data, layout } = dataOf(box);
    const place = document.createElement("div");
    box.append(place);
    Plotly.newPlot(place, data, layout, { displaylogo: false, responsive: true });
  });
}

function whenNear(boxes, draw) {
  const near = new IntersectionObserver((entries) => {
    for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
      near.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "1000px" });
  boxes.forEach((box) => near.observe(box));
}

document.querySelectorAll(".kit-live").forEach(live); // at once: their heights are not known before
whenNear(document.querySelectorAll(".kit-chart"), chart);

// Quizzes --------------------------------------------------------------------------------------------------------

document.querySelectorAll(".kit-quiz").forEach((quiz, number) => {
  const answer = quiz.querySelector("details");
  const said = document.createElement("p");
  said.setAttribute("aria-live", "polite");
  quiz.append(said);
  const radios = [];
  const tell = (text) => {
    said.textContent = text;
    radios.forEach((radio) => { radio.disabled = true; }); // the guess stands
    answer.remove();
  };
  for (const item of quiz.querySelectorAll("li")) {
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: `quiz-${number}` });
    const label = document.createElement("label");
    label.append(radio, " ", item.textContent);
    item.replaceChildren(label);
    radio.addEventListener("change", () => tell(item.dataset.said));
    radios.push(radio);
  }
  quiz.classList.add("asks");
  answer.querySelector("summary").textContent = "Show the answer without a guess";
});

// What is wider than the page scrolls inside a box of its own ------------------------------------------------------

document.querySelectorAll("main table").forEach((table) => {
  const box = Object.assign(document.createElement("div"), { className: "wide" });
  table.replaceWith(box);
  box.append(table);
});

// The menu: a long one shows where the reader is ----------------------------------------------------------------------

const menu = document.getElementById("menu");
menu.scrollTop = menu.querySelector(".here").offsetTop - menu.clientHeight / 4; // on a narrow page it has no scroll bar

// Theme ----------------------------------------------------------------------------------------------------------

const themeButton = document.getElementById("theme");
function show(theme) {
  document.documentElement.dataset.theme = theme;
  document.body.dataset.jpThemeLight = String(theme === "light"); // which the views watch
  themeButton.textContent = theme === "dark" ? "Light" : "Dark";
  themeButton.setAttribute("aria-label", `${themeButton.textContent} colours`);
}
show(document.documentElement.dataset.theme);
themeButton.addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", theme);
  show(theme);
});

// Search ---------------------------------------------------------------------------------------------------------

const [asked, found] = [document.getElementById("search"), document.getElementById("found")];
const MOST = 12; // results
const AROUND = 60; // characters on either side of what was found

/** How well an entry fits: every word must be in it; the section's title counts most, and a whole word more than a part. */
function fits(entry, words) {
  let sum = 0;
  for (const word of words) {
    const whole = new RegExp(`(^|[^a-z0-9])${word.replace(/[^a-z0-9]/g, "\\$&")}($|[^a-z0-9])`);
    const at = [[entry.title, 20], [entry.page, 5], [entry.text, 1]].map(([text, weight]) => {
      const low = text.toLowerCase();
      return low.includes(word) ? weight * (whole.test(low) ? 3 : 1) : 0;
    });
    if (!Math.max(...at)) return 0;
    sum += at[0] + at[1] + at[2];
  }
  return sum;
}

function excerpt({ text }, words) {
  const at = Math.max(0, Math.min(...words.map((word) => text.toLowerCase().indexOf(word)).filter((i) => i >= 0), text.length));
  const begin = Math.max(0, (at === text.length ? 0 : at) - AROUND);
  return `${begin ? "…" : ""}${text.slice(begin, begin + 2 * AROUND)}…`;
}

function search() {
  const words = asked.value.toLowerCase().split(/\s+/).filter(Boolean);
  const best = kitIndex.map((entry) => [words.length ? fits(entry, words) : 0, entry]).filter(([fit]) => fit);
  best.sort(([a], [b]) => b - a);
  found.replaceChildren(...best.slice(0, MOST).map(([, entry]) => {
    const link = Object.assign(document.createElement("a"), { href: root + entry.place });
    const page = Object.assign(document.createElement("small"), { textContent: entry.page });
    const text = Object.assign(document.createElement("p"), { textContent: excerpt(entry, words) });
    link.append(Object.assign(document.createElement("b"), { textContent: entry.title }), page, text);
    const item = document.createElement("li");
    item.append(link);
    return item;
  }));
  if (words.length && !best.length) found.textContent = "Nothing found.";
  found.hidden = !words.length;
}

asked.addEventListener("focus", () => later("index.js", search));
asked.addEventListener("input", () => later("index.js", search));
found.addEventListener("click", (event) => { found.hidden = Boolean(event.target.closest("a")); }); // of this page
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") found.hidden = true;
  if (event.key === "/" && event.target === document.body) {
    event.preventDefault();
    asked.focus();
  }
});
document.addEventListener("pointerdown", (event) => { if (!event.target.closest(".search")) found.hidden = true; });

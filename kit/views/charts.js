// In the place of https://www.gstatic.com/charts/loader.js, for which torch-tb-profiler waits before it shows any view.
// The real one is loaded if it comes within PATIENCE_MS; else each chart is a sentence, and all other views work.
const PATIENCE_MS = 4000;
const SAID = "This chart is drawn by Google Charts, which is loaded from the web and cannot be reached from here.";

const absent = () => {
  class Chart {
    constructor(place) { this.place = place; }
    draw() { this.place.textContent = SAID; }
    clearChart() { this.place.textContent = ""; }
    getSelection() { return []; }
    setSelection() {}
  }
  class DataTable {
    addColumn() {}
    addRow() {}
    addRows() {}
    setProperty() {}
  }
  const names = ["ColumnChart", "ComboChart", "LineChart", "PieChart", "SteppedAreaChart", "Table", "Timeline"];
  return {
    ...Object.fromEntries(names.map((name) => [name, Chart])),
    DataTable,
    arrayToDataTable: () => new DataTable(),
    events: { addListener() {} },
  };
};

const load = (...wanted) => new Promise((resolve) => {
  const without = () => { window.google = { visualization: absent() }; resolve(); };
  const timer = setTimeout(without, PATIENCE_MS);
  const script = document.createElement("script");
  script.src = "https://www.gstatic.com/charts/loader.js";
  script.onerror = () => { clearTimeout(timer); without(); };
  script.onload = () => { // what came may be another page, as of a hotel's network: then the time runs out
    if (google.charts?.load !== load) google.charts.load(...wanted).then(() => { clearTimeout(timer); resolve(); });
  };
  document.head.append(script);
});
window.google = { charts: { load } };

// The page half of Copied: a button that shows the code below itself, selects it and copies it. Where the page may not
// write to the clipboard (a notebook that is not served over https), the code is selected, and the keys of the system copy it.

const STYLE = `
.kit-copied { --page: var(--jp-layout-color0, #fff); --ink: var(--jp-ui-font-color0, #111); --muted: var(--jp-ui-font-color2, #5f6368);
  --focus: var(--jp-brand-color1, #1976d2); color: var(--ink); font: 13px/1.4 var(--jp-ui-font-family, system-ui, Helvetica, Arial, sans-serif); }
.kit-copied :is(button, textarea) { color: var(--ink); background: var(--page); border: 1px solid var(--muted); border-radius: 3px;
  box-sizing: border-box; }
.kit-copied button { font: inherit; padding: 3px 12px; min-height: 28px; cursor: pointer; }
.kit-copied textarea { display: block; width: 100%; margin-top: 6px; padding: 6px 8px; font: 13px/1.4 var(--jp-code-font-family, monospace);
  resize: vertical; }
.kit-copied textarea[hidden] { display: none; }
.kit-copied :is(button, textarea):focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; }
.kit-copied span { margin-left: 10px; }
`;

export default {
  render({ model, el }) {
    const undo = [], { on, follow } = listening({ model, undo });
    const root = element("div", "kit-copied"), button = element("button", "", "Copy as code");
    const said = element("span", ""), text = document.createElement("textarea");
    button.type = "button";
    said.setAttribute("role", "status");
    text.setAttribute("aria-label", "Code of a cell that measures the same");
    text.readOnly = text.hidden = true;
    text.spellcheck = false;
    const show = () => {
      text.value = model.get("code");
      text.rows = text.value.split("\n").length;
      said.textContent = "";
    };
    on(button, "click", async () => {
      text.hidden = false;
      text.select();
      const copied = await navigator.clipboard?.writeText(text.value).then(() => true, () => false);
      said.textContent = copied ? "Copied: paste it into a new cell." : "Selected: copy it with Ctrl + C, or ⌘ + C on a Mac.";
    });
    follow("change:code", show);
    show();
    root.append(element("style", "", STYLE), button, said, text);
    el.append(root);
    return () => undo.forEach((each) => each());
  },
};

// Leaves keys to the controls around it. JupyterLab takes keys for its commands where no text is written: arrows in a list,
// letters on a check box. It never sees those that are pressed here, but Shift + Enter and what goes with Ctrl or ⌘.

export default {
  render({ model, el }) {
    const undo = [], { on } = listening({ model, undo });
    const own = (event) => {
      if (!event.ctrlKey && !event.metaKey && !(event.shiftKey && event.key === "Enter")) event.stopPropagation();
    };
    const keep = () => {
      const controls = el.closest(".kit-controls");
      if (controls) on(controls, "keydown", own);
      else if (!el.isConnected) frame = requestAnimationFrame(keep); // not on the page yet
    };
    let frame = requestAnimationFrame(keep);
    undo.push(() => cancelAnimationFrame(frame));
    return () => undo.forEach((each) => each());
  },
};

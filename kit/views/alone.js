/** What anywidget would hand to a view, with nobody at the other end; `copy.buffers` of the state are in base64. */
function alone(state) {
  const bytes = (text) => {
    const raw = atob(text), data = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) data[i] = raw.charCodeAt(i);
    return new DataView(data.buffer);
  };
  if (state.copy) state.copy.buffers = state.copy.buffers.map(bytes); // of what is drawn
  const listeners = {};
  return {
    get: (key) => state[key],
    set(key, value) { state[key] = value; (listeners[`change:${key}`] ?? []).forEach((listener) => listener()); },
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    off(event, listener) { listeners[event] = listeners[event].filter((other) => other !== listener); },
    save_changes() {},
    send() {},
  };
}

// element makes an element with properties, data-* and aria-* among them, and children.
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-")) made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const find = (id) => document.getElementById(id);

// setText changes a text only when it is another, so that a screen reader says it once.
export function setText(node, text) { if (node.textContent !== text) node.textContent = text; }

// Improves the accessibility of Swagger UI: adds names of fields and buttons for screen readers, and makes elements
// reachable by keyboard, with one tab stop each.

const NAMES = {
  "textarea.body-param__text": "Request body",
  "input[type=file]": "File",
  ".examples-select-element": "Example",
  "select.content-type": "Media type",
  "button.close-modal": "Close",
  ".copy-to-clipboard button": "Copy",
};

function complete() {
  // Focus the first field when the dialog opens. Swagger UI focuses the last one.
  const first = document.querySelector("#oauth_username:not([data-seen])");
  if (first) {
    first.dataset.seen = "";
    first.focus();
    document.querySelector("[for=oauth_username]").textContent = "e-mail address:";
  }
  for (const [selector, name] of Object.entries(NAMES)) {
    for (const element of document.querySelectorAll(`${selector}:not([aria-label])`)) element.setAttribute("aria-label", name);
  }
  // Remove labels that differ from the visible text.
  for (const button of document.querySelectorAll("button.authorize[aria-label]")) button.removeAttribute("aria-label");
  for (const link of document.querySelectorAll("button a[href]")) link.removeAttribute("href");
  for (const block of document.querySelectorAll("pre.microlight:not([tabindex]), .renderedMarkdown:not([tabindex])")) {
    if (block.scrollWidth > block.clientWidth || block.matches("pre")) block.setAttribute("tabindex", "0");
  }
  for (const table of document.querySelectorAll("table.responses-table[role=region]:not([aria-label])")) {
    table.removeAttribute("role");
  }
  for (const field of document.querySelectorAll(".parameters input:not([aria-label]), .parameters select:not([aria-label])")) {
    field.setAttribute("aria-label", field.closest("tr")?.dataset.paramName ?? "Value");
  }
  document.querySelectorAll(".auth-container input:not([aria-label]):not([id])").forEach((field) => field.setAttribute("aria-label", "Token"));
}

new MutationObserver(complete).observe(document.getElementById("swagger-ui"), { childList: true, subtree: true });

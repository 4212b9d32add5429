// Replaces ReDoc's logo from a CDN, which the Content-Security-Policy would block with an error.
// React sets the URL by attribute and by property.

const image = HTMLImageElement.prototype;
const src = Object.getOwnPropertyDescriptor(image, "src");
const ours = (url) => (/^https?:/.test(url) ? "assets/favicon.png" : url);

image.setAttribute = function (name, value) {
  Element.prototype.setAttribute.call(this, name, ours(value));
};
Object.defineProperty(image, "src", { ...src, set(url) { src.set.call(this, ours(url)); } });

const DARK = {
  colors: {
    primary: { main: "#79c0ff" },
    error: { main: "#ff9d9d" },
    text: { primary: "#e4e6e6", secondary: "#b4babd" },
    border: { light: "#3a4145", dark: "#596166" },
    responses: { success: { color: "#7ee2a8", backgroundColor: "#14392c" }, error: { color: "#ff9d9d", backgroundColor: "#3d1f20" } },
  },
  schema: { nestedBackground: "#23282b", typeNameColor: "#b4babd", typeTitleColor: "#b4babd", linesColor: "#596166" },
  typography: {
    code: { color: "#ff9d9d", backgroundColor: "#2a2e30" },
    links: { color: "#79c0ff", visited: "#79c0ff", hover: "#a5d4ff" },
  },
  sidebar: { backgroundColor: "#16191b", textColor: "#e4e6e6", activeTextColor: "#79c0ff" },
  rightPanel: { backgroundColor: "#11171a" },
};
if (dark.matches) document.querySelector("redoc").setAttribute("theme", JSON.stringify(DARK));

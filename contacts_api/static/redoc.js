// ReDoc would ask a CDN for its logo, and the Content-Security-Policy would say no with an error.
// React sets the address both ways.

const image = HTMLImageElement.prototype;
const src = Object.getOwnPropertyDescriptor(image, "src");
const ours = (url) => (/^https?:/.test(url) ? "assets/favicon.png" : url);

image.setAttribute = function (name, value) {
  Element.prototype.setAttribute.call(this, name, ours(value));
};
Object.defineProperty(image, "src", { ...src, set(url) { src.set.call(this, ours(url)); } });

// Colours and their scale: blue is negative, orange is positive, zero looks like the page (told apart with any eyes).

const ENDS = { blue: [0, 114, 178], orange: [230, 159, 0] };
let page = [255, 255, 255];
let ink = "#222222";

export function readTheme() {
  const style = getComputedStyle(document.documentElement);
  page = style.getPropertyValue("--page").trim().match(/\w\w/g).map((hex) => parseInt(hex, 16));
  ink = style.getPropertyValue("--ink").trim();
}

export const inkColour = () => ink;

// x from −1 to 1.
export function colour(x) {
  const end = x < 0 ? ENDS.blue : ENDS.orange;
  const share = Math.min(1, Math.abs(x));
  return `rgb(${page.map((from, i) => Math.round(from + share * (end[i] - from))).join(" ")})`;
}

// arcsinh around a centre: what is about as large as the centre is told apart best, whatever the largest is.
export function scale(values, centre) {
  const largest = Math.max(...values.map(Math.abs).filter(Number.isFinite), 1e-300);
  const own = Math.min(Math.max(Math.abs(centre), largest * 1e-4), largest);
  const top = Math.asinh(largest / own);
  return { largest, of: (x) => Math.asinh(x / own) / top };
}

// Where nothing is looked at: the size of a usual cell.
export function usual(values) {
  return Math.sqrt(values.reduce((total, x) => total + x * x, 0) / Math.max(1, values.length));
}
